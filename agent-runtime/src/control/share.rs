//! What the replicas of one store are told: the operator's last word, which their claims read.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::Desired;
use tokio_util::sync::CancellationToken;

use super::{Controller, Core};
use crate::store;

/// How often what could not be told is told again.
const AGAIN: Duration = Duration::from_secs(1);

impl Controller {
    /// Tells the claims of every replica what the operator asked for last, if they were not told. Without the lock: a
    /// brake, which is not told, waits for no database.
    pub(super) async fn share(&self) -> Result<(), store::Error> {
        let Some(shared) = self.engine().and_then(|engine| engine.store().shared()) else { return Ok(()) };
        let Some((epoch, desired)) = untold(&*self.core.lock().await) else { return Ok(()) };
        // The store itself refuses what is older than it was told.
        shared.accept_epoch(epoch, desired).await?;
        let mut core = self.core.lock().await;
        if core.shared.is_none_or(|(told, _)| told <= epoch) {
            core.shared = Some((epoch, desired));
        }
        Ok(())
    }

    /// Tells them again what could not be told, until `stop`.
    pub(super) async fn share_on(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_some() {
            let Some(engine) = self.engine() else { continue };
            if engine.store().shared().is_none() {
                return;
            }
            if let Err(error) = self.share().await {
                tracing::warn!(%error, "the other replicas' claims could not be told");
            }
        }
    }

    /// Whether the shared store, if there is one, answered lately.
    #[must_use]
    pub fn reaches_store(&self) -> bool {
        self.engine().and_then(|engine| engine.store().shared()).is_none_or(store::postgres::Store::healthy)
    }
}

/// What the other replicas were not told. Before the operator has confirmed a boot, only what tightens is told.
fn untold(core: &Core) -> Option<(i64, Desired)> {
    let machine = &core.machine;
    let wanted = (machine.epoch, machine.holds.operator);
    let known = machine.epoch > 0 && (!machine.boot_hold || machine.holds.operator != Desired::Running);
    Some(wanted).filter(|wanted| known && core.shared.as_ref() != Some(wanted))
}
