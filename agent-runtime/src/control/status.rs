//! The status answer, and waiting for the next one.

use std::time::Duration;

use lifecycle::State;
use lifecycle::brake::FEATURE;
use lifecycle::machine::GateMode;
use lifecycle::wire::{CounterScope, Health, HealthLevel, Status};

use super::{Controller, is_draining};
use crate::telemetry::Gauges;

/// Holders that a status names.
const HOLDERS: usize = 10;

impl Controller {
    /// The whole status.
    #[must_use]
    pub fn status(&self) -> Status {
        let shown = self.shown.borrow().clone();
        let engine = self.engine();
        let waiting = engine.map(|engine| engine.waiting()).unwrap_or_default();
        let draining = is_draining(shown.machine.phase);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Status {
            state: shown.machine.state(),
            uptime_seconds: i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX),
            active_streams: count(self.gate.streams().len()),
            total_executions: engine.map_or(0, |engine| engine.store().total()),
            failed_executions: engine.map_or(0, |engine| engine.store().failed()),
            entry_points: engine.map(|e| e.agent().entry_points.keys().cloned().collect()).unwrap_or_default(),
            health: self.health(shown.store_failed),
            in_flight: Some(count(self.gate.in_flight())),
            waiting_for_input: count(waiting.asks),
            queued: count(waiting.queued),
            epoch: shown.machine.epoch,
            holds: shown.machine.hold_names(),
            brakes: Some(shown.machine.brakes.ids()),
            features: vec![FEATURE.to_owned()],
            drain_deadline: shown.drain.map(|drain| drain.deadline.to_string()),
            held_by: if draining { self.gate.holders(HOLDERS) } else { Vec::new() },
            boot_id: self.boot_id.clone(),
            version: format!("{}.{}", self.boot_id, shown.version),
            counter_scope: match engine.and_then(|engine| engine.store().shared()) {
                Some(_) => CounterScope::Store,
                None => CounterScope::Pod,
            },
            pod_uid: Some(self.config.pod_uid.clone()).filter(|uid| !uid.is_empty()),
            awaiting_confirmation: shown.machine.boot_hold,
            keys: shown.keys.map(|keys| keys.public).unwrap_or_default(),
            message: shown.message.filter(|_| matches!(shown.machine.state(), State::Stopped | State::Starting)),
        }
    }

    fn health(&self, store_failed: bool) -> Health {
        let storage = match self.engine() {
            None if store_failed => HealthLevel::Unhealthy,
            None => HealthLevel::Unknown,
            Some(engine) if engine.store().healthy() => HealthLevel::Healthy,
            Some(_) => HealthLevel::Unhealthy,
        };
        Health { storage, llm: self.telemetry.models(), tools: self.telemetry.tools() }
    }

    /// Waits up to `wait` for a version other than `after`. A version of another process, and one
    /// waiter too many, is answered at once.
    pub async fn changed_since(&self, after: &str, wait: Duration) -> Status {
        let known = after.strip_prefix(&self.boot_id).and_then(|rest| rest.strip_prefix('.')?.parse::<u64>().ok());
        if let (Some(known), Ok(_waiter)) = (known, self.waiters.try_acquire()) {
            let mut shown = self.shown.subscribe();
            tokio::select! {
                // The sender lives as long as `self`, so waiting cannot fail.
                _ = shown.wait_for(|shown| shown.version != known) => {}
                () = tokio::time::sleep(wait) => {}
                () = self.closing.cancelled() => {}
            }
        }
        self.status()
    }

    /// The values of the gauges now.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let waiting = self.engine().map(|engine| engine.waiting()).unwrap_or_default();
        Gauges {
            in_flight: self.gate.in_flight(),
            queued: waiting.queued,
            parked: waiting.parked,
            open: self.gate.mode() == GateMode::Open,
            epoch: self.shown.borrow().machine.epoch,
        }
    }
}
