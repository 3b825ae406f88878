//! The record: what a pod has fsynced before it answers, in words that the version before brakes reads too.

use serde::{Deserialize, Serialize};

use crate::brake::Brakes;
use crate::fence::Keys;
use crate::hold::Holds;
use crate::state::Desired;

/// What a pod has fsynced before it acknowledged an epoch or a brake. It lives as long as the pod.
///
/// Without brakes it is written byte for byte as 0.1.0 does. With brakes its `epoch`, `state` and `holds` say what
/// those amount to in the words of 0.1.0, and what they stand for is kept aside under `braked`, which that version
/// skips. So an older image that comes back by a rollback is held, by a boot file of the brake's epoch as well, and
/// this version restores what was really commanded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Record {
    /// UID of the AgentRuntime that owns the pod.
    pub runtime_uid: String,
    /// The highest epoch accepted, from 1; 0 before the first command.
    pub epoch: i64,
    /// The state that epoch asked for.
    pub state: Desired,
    /// The holds in force after it.
    pub holds: Holds,
    /// Whose commands the pod obeys; missing when no boot file has said so yet.
    pub keys: Option<Keys>,
    /// The brakes in force.
    pub brakes: Brakes,
}

impl Record {
    /// The record as a version without brakes reads this one: held by the operator, at an epoch that no brake exceeds.
    #[must_use]
    pub fn without_brakes(&self) -> Self {
        let target = self.brakes.target();
        Self {
            runtime_uid: self.runtime_uid.clone(),
            epoch: self.epoch.max(self.brakes.epoch()),
            state: self.state.max(target),
            holds: Holds { operator: self.holds.operator.max(target), ..self.holds },
            keys: self.keys.clone(),
            brakes: Brakes::default(),
        }
    }
}

/// A record as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    runtime_uid: String,
    epoch: i64,
    state: Desired,
    holds: Holds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Keys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    braked: Option<Braked>,
}

/// The brakes, and what the words of 0.1.0 hide for their sake.
#[derive(Serialize, Deserialize)]
struct Braked {
    /// The epoch that was accepted.
    epoch: i64,
    /// The state that it asked for.
    state: Desired,
    /// The operator's own hold.
    operator: Desired,
    brakes: Brakes,
}

impl From<Record> for Stored {
    fn from(record: Record) -> Self {
        let plain = record.without_brakes();
        let (epoch, state, operator) = (record.epoch, record.state, record.holds.operator);
        let braked = Some(record.brakes).filter(|brakes| !brakes.is_empty());
        Self {
            runtime_uid: plain.runtime_uid,
            epoch: plain.epoch,
            state: plain.state,
            holds: plain.holds,
            keys: plain.keys,
            braked: braked.map(|brakes| Braked { epoch, state, operator, brakes }),
        }
    }
}

impl From<Stored> for Record {
    fn from(stored: Stored) -> Self {
        let Stored { runtime_uid, epoch, state, holds, keys, braked } = stored;
        let plain = Self { runtime_uid, epoch, state, holds, keys, brakes: Brakes::default() };
        // Without brakes nothing is hidden.
        let Some(Braked { epoch, state, operator, brakes }) = braked.filter(|braked| !braked.brakes.is_empty()) else {
            return plain;
        };
        Self { epoch, state, holds: Holds { operator, ..plain.holds }, brakes, ..plain }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
