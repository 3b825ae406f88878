//! How the pods stand that a freeze is to hold, by what each said last and not by any status.

use lifecycle::wire::Status;
use lifecycle::{BootFile, Desired, State};

use crate::observe::{Contact, PodFacts};

/// Pods of a freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// All that exist.
    pub total: usize,
    /// Of them, those that hold on disk, so that nothing begins in them.
    pub holding: usize,
    /// Of those, the ones in which nothing is in flight either.
    pub idle: usize,
    /// Of all, those that do not answer, or may not be called.
    pub unreachable: usize,
}

impl PodCounts {
    /// The sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            holding: self.holding + other.holding,
            idle: self.idle + other.idle,
            unreachable: self.unreachable + other.unreachable,
        }
    }

    /// One pod. One that has not begun to run holds by the boot file that it will boot by.
    #[must_use]
    pub fn of(pod: &PodFacts, contact: Option<&Contact>, file: Option<&BootFile>, asked: Desired) -> Self {
        let one = |holding: bool, idle: bool, unreachable: bool| Self {
            total: 1,
            holding: usize::from(holding),
            idle: usize::from(holding && idle),
            unreachable: usize::from(unreachable),
        };
        if pod.container.is_none() {
            let held = file.is_some_and(|file| file.state >= asked);
            return one(held, true, false);
        }
        if pod.unsafe_target.is_some() || contact.is_some_and(|contact| contact.failing_since.is_some()) {
            return one(false, false, true);
        }
        let answer =
            contact.and_then(|contact| contact.answer.as_ref()).filter(|heard| heard.container == pod.container);
        let Some(status) = answer.map(|heard| heard.status.as_ref()) else { return one(false, false, false) };
        let rests = match asked {
            Desired::Stopped => status.state == State::Stopped,
            Desired::Paused | Desired::Running => matches!(status.state, State::Paused | State::Stopped),
        };
        one(is_held(status, file, asked), rests && status.idle(), false)
    }
}

/// Whether a pod holds by the file in the store, or by a brake that this file does not let go of.
fn is_held(status: &Status, file: Option<&BootFile>, asked: Desired) -> bool {
    let resting = match asked {
        Desired::Stopped => matches!(status.state, State::Stopping | State::Stopped),
        Desired::Paused | Desired::Running => {
            matches!(status.state, State::Pausing | State::Paused | State::Stopping | State::Stopped)
        }
    };
    let released = file.map(|file| file.releases.as_slice()).unwrap_or_default();
    let braked = status.brake_ids().iter().any(|id| !released.contains(id));
    let fenced = file.is_some_and(|file| file.state >= asked && status.epoch >= file.epoch);
    // Before its boot is confirmed nothing begins in it, and it is confirmed by the file in the store.
    let waits = status.awaiting_confirmation && file.is_some_and(|file| file.state >= asked);
    (resting && (braked || fenced)) || waits
}

#[cfg(test)]
#[path = "freeze_pods_tests.rs"]
mod tests;
