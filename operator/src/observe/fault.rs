//! What fails for one object, for as long as it lasts. Nothing of it holds up a brake.

use std::collections::{BTreeMap, BTreeSet};

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

/// The steps that are still to be done, where nothing but a failure keeps them from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Children to apply or delete.
    pub children: BTreeSet<ChildKey>,
    /// The boot ConfigMap is to be written.
    pub boot: bool,
    /// The pods are to be listed.
    pub pods: bool,
    /// The number of pods is to be changed.
    pub scale: bool,
    /// A definition is to be read.
    pub agent: bool,
}

impl Faults {
    /// Forgets what failed and is not to be done any more: somebody took it back, or did it.
    pub fn retain(&mut self, outstanding: &Outstanding) {
        self.children.retain(|key, _| outstanding.children.contains(key));
        self.boot = self.boot.take().filter(|_| outstanding.boot);
        self.pods = self.pods.take().filter(|_| outstanding.pods);
        self.scale = self.scale.take().filter(|_| outstanding.scale);
        self.agent = self.agent.take().filter(|_| outstanding.agent);
    }
}

impl Fault {
    /// The fault after one more failure of the same step, which was begun and has failed at these times.
    #[must_use]
    pub fn again(
        before: Option<Self>,
        of: &str,
        cause: Cause,
        (begun, now): (Timestamp, Timestamp),
        pause: impl Fn(u32) -> SignedDuration,
    ) -> Self {
        // One from the future was noted before the clock was put back.
        let before = before.filter(|before| before.of == of && before.since <= now);
        let failures = before.as_ref().map_or(1, |before| before.failures.saturating_add(1));
        let since = before.map_or(begun, |before| before.since);
        let next_attempt = now.checked_add(pause(failures)).unwrap_or(now);
        Self { of: of.to_owned(), cause, since, failures, next_attempt }
    }
}
