//! Timers: each tick of each timer once, and none while paused.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lifecycle::machine::GateMode;
use tokio_util::sync::CancellationToken;

use crate::definition::{Schedule, Trigger};
use crate::engine::Engine;
use crate::gate::Gate;

/// The wall clock may be set while a timer sleeps, so it never sleeps longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Runs the timers of the engine's present definition until `stop`.
pub fn start(engine: &Arc<Engine>, gate: &Arc<Gate>, stop: &CancellationToken) {
    let agent = engine.agent();
    for (id, entry) in &agent.entry_points {
        if let Trigger::Timer(schedule) = &entry.trigger {
            let timer = run(id.clone(), schedule.as_ref().clone(), Arc::clone(engine), Arc::clone(gate));
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(timer).await });
        }
    }
}

async fn run(id: String, schedule: Schedule, engine: Arc<Engine>, gate: Arc<Gate>) {
    if schedule.run_immediately {
        let mut changes = gate.changes();
        // The sender lives as long as the gate, so waiting cannot fail.
        let _ = changes.wait_for(|_| gate.mode() == GateMode::Open).await;
        fire(&id, Timestamp::now(), &engine).await;
    }
    let mut from = Timestamp::now();
    make_up(&id, &schedule, &engine, &gate).await;
    while let Some(due) = schedule.next(from) {
        sleep_until(due).await;
        // A tick that comes due while nothing may start is missed, as one that comes due while the process is down.
        if gate.mode() == GateMode::Open {
            fire(&id, due, &engine).await;
        } else {
            tracing::debug!(entry_point = %id, %due, "a tick was missed: the gate is not open");
            make_up(&id, &schedule, &engine, &gate).await;
        }
        from = due.max(Timestamp::now());
    }
}

/// Waits until something may start, and makes up for the newest tick that was missed, if the timer asks for it.
async fn make_up(id: &str, schedule: &Schedule, engine: &Engine, gate: &Gate) {
    if schedule.catch_up.is_none() {
        return;
    }
    let mut changes = gate.changes();
    // The sender lives as long as the gate, so waiting cannot fail.
    let _ = changes.wait_for(|_| gate.mode() == GateMode::Open).await;
    match engine.store().last_tick(id).await {
        // A timer that never ticked has missed nothing.
        Ok(None) => {}
        Ok(Some(last)) => {
            if let Some(missed) = schedule.missed(Some(last), Timestamp::now()) {
                tracing::info!(entry_point = id, %missed, "a missed tick is made up for");
                fire(id, missed, engine).await;
            }
        }
        Err(error) => tracing::error!(entry_point = id, %error, "the last tick cannot be read"),
    }
}

async fn fire(id: &str, due: Timestamp, engine: &Engine) {
    if let Err(error) = engine.tick(id, due).await {
        tracing::error!(entry_point = id, %due, %error, "a tick could not be written");
    }
}

async fn sleep_until(due: Timestamp) {
    while let Some(left) = Duration::try_from(due.duration_since(Timestamp::now())).ok().filter(|left| !left.is_zero())
    {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}
