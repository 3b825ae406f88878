//! Brakes: what closes the gate in one call, and stays until it is named.

use std::sync::atomic::Ordering;

use lifecycle::machine::BrakeDecision;
use lifecycle::wire::BrakeCommand;
use lifecycle::{Brake, DrainMode, Machine, Record};

use super::record::{self, Fence};
use super::{Broken, Controller};

impl Controller {
    /// Obeys a brake. When this returns, the gate is closed and the brake is on disk. No shared store is told: the
    /// other replicas have brakes of their own, and a brake waits for nothing that may be out of reach.
    ///
    /// # Errors
    /// The record could not be written; nothing is acknowledged and the process ends.
    pub async fn brake(&self, brake: Brake, body: &BrakeCommand) -> Result<BrakeDecision, Broken> {
        let mut core = self.core.lock().await;
        let (id, epoch, mode) = (brake.id.clone(), brake.epoch, brake.mode);
        let decision = self.change(&mut core, |machine, idle| machine.brake(brake, idle)).await?;
        let is_set = matches!(decision, BrakeDecision::Reached | BrakeDecision::Accepted);
        if is_set {
            self.set_deadline(&mut core, body.into());
        }
        self.publish(&core);
        if is_set && core.machine.cancels() {
            self.cancel_in_flight();
        }
        if is_set && core.machine.boot_hold && mode == DrainMode::Cancel {
            self.cancels_own_left.store(true, Ordering::SeqCst);
            self.cancel_what_was_left();
        }
        tracing::info!(id, epoch, ?decision, state = %core.machine.state(), "a brake");
        Ok(decision)
    }
}

/// Whether what ran when this record's process ended was to be cancelled by a brake.
pub(super) fn cancelled(record: &Record, runtime_uid: &str) -> bool {
    record.runtime_uid == runtime_uid && record.brakes.mode() == DrainMode::Cancel
}

/// What the boot file has released is gone from disk before a status says so. The name is taken back once no pod lists
/// the brake, and a record that kept it would hold the next process for ever.
pub(super) fn forget(
    fence: &mut Fence,
    recorded: Option<Record>,
    now: Record,
) -> Result<Option<Record>, record::Error> {
    match recorded {
        Some(before) if before.runtime_uid == now.runtime_uid && before.brakes != now.brakes => {
            fence.write(&now)?;
            Ok(Some(now))
        }
        recorded => Ok(recorded),
    }
}

/// Releases what a command or boot file of `epoch` names. In the same transition and record as what it commands.
pub(super) fn release(machine: &mut Machine, epoch: i64, names: &[String], idle: bool) {
    if machine.release_brakes(epoch, names, idle) {
        tracing::info!(epoch, left = ?machine.brakes.ids(), "brakes are released");
    }
}
