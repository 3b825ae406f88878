//! What happens by itself: loading, the end of a drain, deadlines, and the boot hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lifecycle::machine::{Event, GateMode, Next, Phase};
use lifecycle::{BootFile, Desired, OnDrainTimeout};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::drain::Drain;
use super::load::Error as LoadError;
use super::{Broken, Controller, brake, is_draining};

/// How often the boot file is read again during the boot hold. The kubelet's own sync takes a minute.
const LOOK_AT_BOOT: Duration = Duration::from_secs(1);
/// How often it is read after that, for keys that have changed.
const LOOK_AT_KEYS: Duration = Duration::from_secs(5);
/// The pause before a store that was not to be had is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Counters change the version at most this often.
const COUNTERS: Duration = Duration::from_secs(1);
/// With nothing to wait for.
const LONG: Duration = Duration::from_secs(3600);

/// A load under way.
type Loading = JoinHandle<Result<(), LoadError>>;

impl Controller {
    /// Drives the runtime until the process ends.
    ///
    /// # Errors
    /// The record could not be written.
    pub async fn drive(self: Arc<Self>) -> Result<(), Broken> {
        let mut gate = self.gate.changes();
        let mut loading: Option<Loading> = None;
        let mut timers = CancellationToken::new();
        let mut retry_at: Option<Instant> = None;
        let mut bump_at: Option<Instant> = None;
        let mut look_at = self.config.managed().then(Instant::now);
        loop {
            let phase = self.shown.borrow().machine.phase;
            let starts = matches!(phase, Phase::Starting(_)) && retry_at.is_none_or(|at| at <= Instant::now());
            if starts && loading.is_none() {
                timers.cancel();
                timers = CancellationToken::new();
                loading = Some(tokio::spawn(Arc::clone(&self).load(timers.clone())));
            }
            if matches!(phase, Phase::Stopping(Next::Exit)) {
                timers.cancel();
            }
            let pause = self.pause([retry_at, bump_at, look_at]);
            tokio::select! {
                () = self.wake.notified() => {}
                // The end of a drain is a change of state, which is told at once: whoever follows it by long poll is
                // not kept busy with what it counts, and asks when it comes.
                _ = gate.changed() => bump_at = bump_at.or(Some(Instant::now() + COUNTERS)),
                () = self.tripped() => {
                    tracing::warn!("so many executions failed that the circuit breaker opens");
                    let mut core = self.core.lock().await;
                    self.happen(&mut core, Event::Breaker).await?;
                }
                loaded = finish(&mut loading) => {
                    loading = None;
                    retry_at = self.loaded(loaded).await?;
                }
                () = tokio::time::sleep(pause) => {}
            }
            if bump_at.is_some_and(|at| at <= Instant::now()) {
                bump_at = None;
                self.shown.send_modify(|shown| shown.version += 1);
            }
            self.check_drained().await?;
            self.check_deadline().await?;
            let looks = look_at.is_some_and(|at| at <= Instant::now());
            let file = if looks { self.boot_file() } else { None };
            if looks {
                look_at = Some(Instant::now() + self.look_every());
            }
            if let Some(file) = &file {
                self.take_keys(file).await?;
            }
            self.check_boot_hold(file).await?;
        }
    }

    /// Returns when the breaker is to open; never before there is an engine.
    async fn tripped(&self) {
        match self.engine() {
            Some(engine) => engine.tripped().await,
            None => std::future::pending().await,
        }
    }

    fn look_every(&self) -> Duration {
        if self.shown.borrow().machine.boot_hold { LOOK_AT_BOOT } else { LOOK_AT_KEYS }
    }

    fn pause(&self, due: [Option<Instant>; 3]) -> Duration {
        let shown = self.shown.borrow();
        let deadline = shown
            .drain
            .filter(|drain| !drain.passed)
            .map(|drain| Duration::try_from(drain.deadline.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO));
        let due = due.into_iter().flatten().map(|at| at.saturating_duration_since(Instant::now()));
        let boot = shown.machine.boot_hold.then_some(LOOK_AT_BOOT);
        due.chain(deadline).chain(boot).min().unwrap_or(LONG)
    }

    /// The last permit may have gone. A shutdown ends on its own schedule.
    async fn check_drained(&self) -> Result<(), Broken> {
        let drains = |phase| is_draining(phase) && !matches!(phase, Phase::Stopping(Next::Exit));
        if self.gate.in_flight() > 0 || !drains(self.shown.borrow().machine.phase) {
            return Ok(());
        }
        let mut core = self.core.lock().await;
        self.happen(&mut core, Event::Idle).await
    }

    async fn loaded(&self, loaded: Result<(), LoadError>) -> Result<Option<Instant>, Broken> {
        // Nothing is shown as paused before the claims of every replica know it.
        let shared = if loaded.is_ok() { self.share().await } else { Ok(()) };
        let mut core = self.core.lock().await;
        match loaded {
            Ok(()) => {
                if let Err(error) = shared {
                    core.message = Some(error.to_string());
                    self.publish(&core);
                    return Ok(Some(Instant::now() + RETRY));
                }
                core.message = None;
                core.store_failed = false;
                self.happen(&mut core, Event::Ready).await?;
                Ok(None)
            }
            Err(error) if error.passes() => {
                core.store_failed = error.is_of_the_store();
                tracing::error!(%error, "what the agent needs cannot be had now and is tried again");
                core.message = Some(error.to_string());
                self.publish(&core);
                Ok(Some(Instant::now() + RETRY))
            }
            Err(error) => {
                core.store_failed = error.is_of_the_store();
                tracing::error!(%error, "the agent cannot be run");
                core.message = Some(error.to_string());
                self.happen(&mut core, Event::Invalid).await?;
                Ok(None)
            }
        }
    }

    /// The deadline of a drain: a pause goes on or stops at the next step, a stop interrupts.
    async fn check_deadline(&self) -> Result<(), Broken> {
        let due = |drain: Drain| !drain.passed && drain.deadline <= Timestamp::now();
        if !self.shown.borrow().drain.is_some_and(due) {
            return Ok(());
        }
        let mut core = self.core.lock().await;
        let Some(drain) = core.drain.as_mut().filter(|drain| due(**drain)) else { return Ok(()) };
        drain.passed = true;
        let on_timeout = drain.on_timeout;
        let holders = self.gate.holders(10);
        tracing::warn!(?holders, "the drain deadline has passed");
        match (core.machine.phase, on_timeout) {
            (Phase::Stopping(_), _) => self.gate.interrupt(),
            (_, OnDrainTimeout::Checkpoint) => self.happen(&mut core, Event::CheckpointDeadline).await?,
            (_, OnDrainTimeout::Wait) => self.publish(&core),
        }
        Ok(())
    }

    /// During the boot hold a newer boot file is taken over; at its end the file is believed.
    async fn check_boot_hold(&self, file: Option<BootFile>) -> Result<(), Broken> {
        if !self.shown.borrow().machine.boot_hold {
            return Ok(());
        }
        let mut core = self.core.lock().await;
        if !core.machine.boot_hold {
            return Ok(());
        }
        let brakes = core.machine.brakes.ids();
        let names =
            |file: &BootFile| file.epoch == core.machine.epoch && file.releases.iter().any(|id| brakes.contains(id));
        if let Some(file) = file.filter(|file| file.epoch > core.machine.epoch || names(file)) {
            tracing::info!(epoch = file.epoch, state = %file.state, releases = ?file.releases, "a newer boot file");
            self.change(&mut core, |machine, idle| {
                brake::release(machine, file.epoch, &file.releases, idle);
                machine.release(file.epoch, file.release_epoch);
                machine.adopt(file.epoch, file.state, file.mode, idle);
            })
            .await?;
            self.publish(&core);
        }
        // Without any epoch nothing ever said that this pod may run: then only the operator can.
        if self.started.elapsed() >= self.config.boot_hold() && core.machine.epoch > 0 {
            let target = core.machine.target();
            tracing::warn!(%target, "the operator did not confirm in time: the boot file is believed");
            self.happen(&mut core, Event::BootHoldEnded).await?;
            debug_assert!(target == Desired::Running || self.gate.mode() != GateMode::Open);
        }
        Ok(())
    }
}

/// The outcome of the load under way; never when there is none.
async fn finish(loading: &mut Option<Loading>) -> Result<(), LoadError> {
    match loading {
        Some(task) => match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(LoadError::Store(crate::store::Error::Broken(error.to_string()))),
        },
        None => std::future::pending().await,
    }
}
