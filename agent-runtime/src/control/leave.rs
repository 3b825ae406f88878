//! The way out: what a shutdown still takes in, and when it is quiet.

use std::time::Duration;

use lifecycle::machine::{Event, GateMode, Phase};

use super::{Broken, Controller};

impl Controller {
    /// Begins the shutdown. True if the runtime was ready, so that clients may still be on their way to it.
    ///
    /// # Errors
    /// The record could not be written, and the process ends.
    pub async fn terminate(&self) -> Result<bool, Broken> {
        let ready = self.is_ready();
        let mut core = self.core.lock().await;
        // Where nobody else can run what this store holds, what is accepted until the end is begun until the end.
        let is_own = self.engine().is_none_or(|engine| engine.store().shared().is_none());
        core.admits_until_exit = core.machine.phase == Phase::Running && is_own;
        self.shown.send_modify(|shown| shown.lame_duck = ready);
        self.happen(&mut core, Event::Terminate).await?;
        Ok(ready)
    }

    /// Refuses triggers from now on.
    pub fn end_lame_duck(&self) {
        self.shown.send_modify(|shown| shown.lame_duck = false);
    }

    /// Admits nothing more; executions in flight go on.
    ///
    /// # Errors
    /// The record could not be written, and the process ends.
    pub async fn stop_admitting(&self) -> Result<(), Broken> {
        let mut core = self.core.lock().await;
        core.admits_until_exit = false;
        self.happen(&mut core, Event::Idle).await
    }

    /// Returns when nothing is in flight and nothing is queued that would be admitted.
    pub async fn quiet(&self) {
        let mut changes = self.gate.changes();
        loop {
            changes.mark_unchanged();
            let queued = self.engine().map_or(0, |engine| engine.waiting().queued);
            let idle = self.gate.in_flight() == 0;
            if idle && (queued == 0 || self.gate.mode() != GateMode::Open) {
                return;
            }
            // A queue that empties without a change of the gate is looked at again soon.
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        }
    }

    /// Returns when long polls and streams are to end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Ends every long poll and stream.
    pub fn close(&self) {
        self.closing.cancel();
    }
}
