//! What the mode `cancel` does: what holds a permit now is cancelled, and what a process left behind by its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Controller;
use crate::engine::Disobeyed;
use crate::store::{self, Filter};

impl Controller {
    /// Cancels what holds a permit now; what waits for its turn, for a time or for a person is left alone.
    /// The caller is answered before the last effect has ended, as by any drain.
    pub(super) fn cancel_in_flight(&self) {
        let Some(engine) = self.engine().map(Arc::clone) else { return };
        for holder in self.gate.holders(usize::MAX) {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                match engine.cancel(&holder.execution).await {
                    Ok(()) | Err(Disobeyed::Ended(_)) => {}
                    Err(error) => tracing::error!(execution = %holder.execution, %error, "it could not be cancelled"),
                }
            });
        }
    }

    /// A process that ended between a cancel and the end of what it cancelled holds no permit for that any more. Its
    /// successor is commanded again, or finds a brake in its record, and cancels what the store says was running. For
    /// a brake not where replicas share a store: another one may run that by now, and is told by a command.
    pub(super) fn cancel_what_was_left(&self) {
        let Some(engine) = self.engine().map(Arc::clone) else { return };
        let by_command = self.cancels_left.swap(false, Ordering::SeqCst);
        let by_brake = self.cancels_own_left.swap(false, Ordering::SeqCst) && engine.store().shared().is_none();
        if !by_command && !by_brake {
            return;
        }
        tokio::spawn(async move {
            match engine.cancel_all(&Filter { state: Some(store::State::Running), ..Filter::default() }).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "what ran when the last process ended is cancelled"),
                Err(error) => tracing::error!(%error, "what ran when the last process ended could not be cancelled"),
            }
        });
    }
}
