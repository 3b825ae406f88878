//! What fails for one object, for as long as it lasts. Nothing of it holds up a brake.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::ChildKey;

/// Everything that fails for one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The boot ConfigMap cannot be written.
    pub boot: Option<Fault>,
    /// The pods cannot be listed, without which nothing is said to be paused.
    pub pods: Option<Fault>,
    /// The ConfigMap of the agent's definition cannot be read.
    pub agent: Option<Fault>,
    /// The number of pods cannot be changed.
    pub scale: Option<Fault>,
    /// Children that cannot be applied or deleted.
    pub children: BTreeMap<ChildKey, Fault>,
}

/// One step that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was tried, such as the hash of a manifest: another one is tried at once.
    pub of: String,
    /// What came back last.
    pub cause: Cause,
    /// Since when it fails.
    pub since: Timestamp,
    /// How often it has failed in a row.
    pub failures: u32,
    /// Not tried again before this.
    pub next_attempt: Timestamp,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The API server refused.
    Refused {
        /// The HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// An object of that name belongs to somebody else.
    NameTaken {
        /// Which object, and whose it is.
        message: String,
    },
    /// Nothing that says whether it was done: no connection, no answer in time, or one of no API server.
    NoAnswer {
        /// What is known of it.
        message: String,
    },
}

impl Fault {
    /// The fault after one more failure of the same step.
    #[must_use]
    pub fn again(
        before: Option<Self>,
        of: &str,
        cause: Cause,
        now: Timestamp,
        pause: impl Fn(u32) -> SignedDuration,
    ) -> Self {
        // One from the future was noted before the clock was put back.
        let before = before.filter(|before| before.of == of && before.since <= now);
        let failures = before.as_ref().map_or(1, |before| before.failures.saturating_add(1));
        let since = before.map_or(now, |before| before.since);
        let next_attempt = now.checked_add(pause(failures)).unwrap_or(now);
        Self { of: of.to_owned(), cause, since, failures, next_attempt }
    }
}
