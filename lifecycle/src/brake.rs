//! Brakes: durable holds that need no epoch of their own, and end only when they are named.
//!
//! A command waits until the boot file says the same. A brake does not: it reaches a pod in one call, while files
//! cannot be written yet, or at all.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::{Desired, DrainMode};

/// The word in the path and in the signature. Not one of [`crate::Verb`], whose words ask for a state: a brake only
/// adds a reason to be held.
pub const BRAKE: &str = "brake";
/// What a pod that knows brakes announces among the `features` of its status.
pub const FEATURE: &str = "brake";
/// The most brakes that a pod holds. Nothing is dropped for room: one more is refused.
pub const MAX_BRAKES: usize = 8;
/// The most names that a command or boot file releases. A name beyond them waits for its turn.
pub const MAX_RELEASES: usize = 8;
/// The longest id, in bytes. Eight of them fit into a record, which a disk writes at once.
pub const MAX_ID_BYTES: usize = 128;

/// Whether a word may be a brake's id: opaque to pods, and safe in a log, a label and a URL.
#[must_use]
pub fn is_id(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= MAX_ID_BYTES
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// One brake, as a pod records it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Brake {
    /// What it is released by: `<uid>.<generation>.<nonce>`, opaque to pods.
    pub id: String,
    /// The epoch that its sender knew. Only a higher one releases it.
    pub epoch: i64,
    /// What it holds the pod in: paused or stopped.
    pub state: Desired,
    /// How it treats executions in flight.
    #[serde(default)]
    pub mode: DrainMode,
}

/// A ninth brake was refused. Those that are held stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_BRAKES} brakes are held already, and none is dropped for another: release one by its name")]
pub struct BrakesFullError;

/// The brakes in force, in the order in which they came, each id once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Brakes(Vec<Brake>);

impl Brakes {
    /// What they hold the pod in together. A brake that names no state that holds, which no sender writes, pauses:
    /// what cannot be understood must not run.
    #[must_use]
    pub fn target(&self) -> Desired {
        self.0.iter().map(|brake| brake.state.max(Desired::Paused)).max().unwrap_or_default()
    }

    /// How they treat executions in flight: as the most severe of them says.
    #[must_use]
    pub fn mode(&self) -> DrainMode {
        self.0.iter().map(|brake| brake.mode).max().unwrap_or_default()
    }

    /// The highest epoch of them, which a release of all has to exceed; 0 without any.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.0.iter().map(|brake| brake.epoch).max().unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Brake> {
        self.0.iter()
    }

    /// Their ids, for status.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|brake| brake.id.clone()).collect()
    }

    /// Adds one. The same id again may only tighten what it says already, in its state, its mode and the epoch that
    /// its release has to exceed: a call that was repeated or that came late undoes nothing.
    ///
    /// # Errors
    /// There are [`MAX_BRAKES`] others.
    pub fn set(&mut self, brake: Brake) -> Result<(), BrakesFullError> {
        if let Some(held) = self.0.iter_mut().find(|held| held.id == brake.id) {
            held.epoch = held.epoch.max(brake.epoch);
            held.state = held.state.max(brake.state);
            held.mode = held.mode.max(brake.mode);
            return Ok(());
        }
        if self.0.len() >= MAX_BRAKES {
            return Err(BrakesFullError);
        }
        self.0.push(brake);
        Ok(())
    }

    /// Lets go of those that a command or boot file of `epoch` names, if that is higher than the brake's own and not
    /// below `held`, the pod's. Names that are not known are no concern of this pod. True if any went.
    pub fn release(&mut self, held: i64, epoch: i64, names: &[String]) -> bool {
        let before = self.0.len();
        if epoch >= held {
            self.0.retain(|brake| brake.epoch >= epoch || !names.contains(&brake.id));
        }
        self.0.len() < before
    }
}

impl FromIterator<Brake> for Brakes {
    /// As [`Brakes::set`], one after the other; what does not fit is left out.
    fn from_iter<I: IntoIterator<Item = Brake>>(all: I) -> Self {
        let mut brakes = Self::default();
        for brake in all {
            let _ = brakes.set(brake);
        }
        brakes
    }
}

#[cfg(test)]
#[path = "brake_tests.rs"]
mod tests;
