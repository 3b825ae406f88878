//! The deadline of a drain. It belongs to the verb that set it: a pause's says when a pause gives up waiting, a stop's
//! when a stop interrupts, and neither is ever the other's.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifecycle::machine::{Next, Phase};
use lifecycle::wire::{BrakeCommand, Command};
use lifecycle::{OnDrainTimeout, Verb};

use super::{Controller, Core};

/// A longer deadline than this is none that anybody waits for.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whose a deadline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// A pause's, or a brake's.
    Pause,
    /// A stop's, or a restart's.
    Stop,
}

/// A drain's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) of: Of,
    /// On the monotonic clock: a wall clock that is set moves no deadline.
    pub(super) deadline: Instant,
    /// The same for people, as the wall clock was when it was set.
    pub(super) shown: Timestamp,
    pub(super) on_timeout: OnDrainTimeout,
    pub(super) passed: bool,
}

impl Drain {
    /// Whether it is still of use in a phase. A shutdown keeps a stop's, and has a schedule of its own.
    pub(super) fn goes_on_in(self, phase: Phase) -> bool {
        match phase {
            Phase::Pausing => self.of == Of::Pause,
            Phase::Stopping(_) => self.of == Of::Stop,
            Phase::Stopped | Phase::Starting(_) | Phase::Running | Phase::Paused | Phase::Exited => false,
        }
    }
}

/// What a body says of the deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    seconds: Option<i64>,
    on_timeout: OnDrainTimeout,
}

impl From<&Command> for Patience {
    fn from(body: &Command) -> Self {
        Self { seconds: body.deadline_seconds, on_timeout: body.on_timeout.unwrap_or_default() }
    }
}

impl From<&BrakeCommand> for Patience {
    fn from(body: &BrakeCommand) -> Self {
        Self { seconds: body.deadline_seconds, on_timeout: body.on_timeout.unwrap_or_default() }
    }
}

/// What a deadline depends on, besides the one before.
#[derive(Clone, Copy, Debug)]
struct Set {
    /// The phase after the verb.
    phase: Phase,
    /// For a brake, the verb that does the same.
    verb: Verb,
    patience: Patience,
    /// Seconds of a stop that says none.
    by_default: i64,
    now: (Instant, Timestamp),
}

/// The deadline after a verb that was accepted.
fn after(before: Option<Drain>, set: Set) -> Option<Drain> {
    let before = before.filter(|drain| drain.goes_on_in(set.phase));
    match (set.phase, set.verb) {
        (Phase::Pausing, Verb::Pause) => pause(before, set),
        (Phase::Stopping(Next::Stopped | Next::Running | Next::Paused), Verb::Stop | Verb::Restart) => {
            Some(stop(before, set))
        }
        // Another verb on the way changes what comes after it, and not how long it takes.
        _ => before,
    }
}

/// A later pause may only shorten the deadline of one under way, and what happens at it only becomes more severe. One
/// that has passed comes again when that is more than has happened.
fn pause(before: Option<Drain>, set: Set) -> Option<Drain> {
    let asked = set.patience.seconds.map(|seconds| fresh(Of::Pause, seconds, set));
    let Some(before) = before else { return asked };
    let on_timeout = before.on_timeout.max(set.patience.on_timeout);
    let first = asked.filter(|asked| asked.deadline < before.deadline).unwrap_or(before);
    Some(Drain { on_timeout, passed: before.passed && on_timeout == before.on_timeout, ..first })
}

/// A stop sets its own. A later one may only shorten it, and interrupts again where it has passed already.
fn stop(before: Option<Drain>, set: Set) -> Drain {
    let asked = fresh(Of::Stop, set.patience.seconds.unwrap_or(set.by_default), set);
    match before {
        Some(before) if !before.passed && before.deadline < asked.deadline => before,
        Some(_) | None => asked,
    }
}

fn fresh(of: Of, seconds: i64, set: Set) -> Drain {
    let length = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST);
    let (now, wall) = set.now;
    let shown = SignedDuration::try_from(length).ok().and_then(|length| wall.checked_add(length).ok());
    Drain {
        of,
        deadline: now.checked_add(length).unwrap_or(now),
        shown: shown.unwrap_or(Timestamp::MAX),
        on_timeout: set.patience.on_timeout,
        passed: false,
    }
}

impl Controller {
    /// Takes over the deadline of a verb that was accepted.
    pub(super) fn set_deadline(&self, core: &mut Core, verb: Verb, patience: Patience) {
        let by_default = i64::try_from(self.config.shutdown_seconds).unwrap_or(i64::MAX);
        let now = (Instant::now(), Timestamp::now());
        core.drain = after(core.drain, Set { phase: core.machine.phase, verb, patience, by_default, now });
    }
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
