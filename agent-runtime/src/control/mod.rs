//! The lifecycle controller: feeds verbs and events to the state machine and makes the gate obey it.
//!
//! The order is the promise. What tightens closes the gate, then reaches the disk, then is shown and
//! answered. What loosens reaches the disk, is shown, and only then opens the gate.

mod brake;
mod cancel;
mod drain;
mod drive;
mod keys;
mod leave;
mod load;
pub mod record;
mod share;
mod status;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

use lifecycle::fence::Record;
use lifecycle::machine::{Decision, Event, GateMode, Next, Phase};
use lifecycle::wire::Command;
use lifecycle::{Desired, DrainMode, Keys, Machine, Verb};
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::drain::Drain;
use crate::config::{Serve, WhilePaused};
use crate::engine::Engine;
use crate::gate::Gate;
use crate::store;
use crate::telemetry::Telemetry;

/// Long polls at once; one more is answered at once.
const MAX_WAITERS: usize = 64;

/// Rules one runtime's life.
#[derive(Debug)]
pub struct Controller {
    config: Serve,
    gate: Arc<Gate>,
    telemetry: Arc<Telemetry>,
    core: Mutex<Core>,
    shown: watch::Sender<Shown>,
    wake: Notify,
    engine: OnceLock<Arc<Engine>>,
    /// What ran when the last process ended is to be cancelled, once there is an engine.
    cancels_left: AtomicBool,
    /// The same, by a brake: only where no other replica may run that by now.
    cancels_own_left: AtomicBool,
    boot_id: String,
    started: Instant,
    waiters: Semaphore,
    /// Long polls end: the server is about to.
    closing: CancellationToken,
    /// A write that must not fail has failed: the process ends.
    broken: CancellationToken,
}

/// What only one verb or event changes at a time.
#[derive(Debug)]
struct Core {
    machine: Machine,
    drain: Option<Drain>,
    message: Option<String>,
    /// The last start failed for want of the store.
    store_failed: bool,
    recorded: Option<Record>,
    fence: Arc<std::sync::Mutex<record::Fence>>,
    /// Whose commands are obeyed; none while nothing has said so.
    keys: Option<Keys>,
    /// A shutdown keeps admitting what it accepted, until this is false.
    admits_until_exit: bool,
    /// The epoch and state that the claims of every replica were told last.
    shared: Option<(i64, Desired)>,
}

/// What status shows; it never runs ahead of the disk.
#[derive(Clone, Debug)]
struct Shown {
    machine: Machine,
    drain: Option<Drain>,
    message: Option<String>,
    store_failed: bool,
    keys: Option<Keys>,
    /// Triggers are accepted although the runtime is about to exit.
    lame_duck: bool,
    version: u64,
}

/// The record could not be written: the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the accepted command could not be written to disk; the process ends")]
pub struct Broken;

/// Why a verb is not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unobeyed {
    /// It is not on disk.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The shared store did not hear of it; asked again, it is told again.
    #[error("this replica obeys, but the others' claims were not told: {0}")]
    Unshared(#[from] store::Error),
}

/// Whether a trigger may be accepted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Open,
    /// No, the runtime is paused.
    Paused,
    /// No, it starts, has stopped or is about to end.
    Unavailable,
}

impl Controller {
    /// Decides from the record and the boot file how to begin.
    ///
    /// # Errors
    /// The record or the boot file cannot be used. Nothing is run then: a guess could break a pause.
    pub fn new(config: Serve, telemetry: Arc<Telemetry>, broken: CancellationToken) -> Result<Self, record::Error> {
        let (mut fence, recorded) = record::Fence::open(config.records())?;
        let file = config.boot_dir.as_deref().map(record::read_boot).transpose()?.flatten();
        let boot = lifecycle::fence::boot(config.managed(), &config.runtime_uid, recorded.as_ref(), file.as_ref());
        let machine = Machine::boot(boot.epoch, boot.holds, boot.brakes, boot.await_confirmation);
        // Whatever the boot file releases by now: nothing has begun since the brake.
        let left = recorded.as_ref().is_some_and(|record| brake::cancelled(record, &config.runtime_uid));
        let recorded = brake::forget(&mut fence, recorded, record_of(&config, &machine, boot.keys.as_ref()))?;
        let fence = Arc::new(std::sync::Mutex::new(fence));
        tracing::info!(epoch = boot.epoch, target = %machine.target(), managed = config.managed(), "starting");
        let shown = Shown {
            machine: machine.clone(),
            drain: None,
            message: None,
            store_failed: false,
            keys: boot.keys.clone(),
            lame_duck: false,
            version: 1,
        };
        let core = Core {
            machine,
            drain: None,
            message: None,
            store_failed: false,
            recorded,
            fence,
            keys: boot.keys,
            admits_until_exit: false,
            shared: None,
        };
        Ok(Self {
            config,
            gate: Arc::new(Gate::default()),
            telemetry,
            core: Mutex::new(core),
            shown: watch::Sender::new(shown),
            wake: Notify::new(),
            engine: OnceLock::new(),
            cancels_left: AtomicBool::new(false),
            cancels_own_left: AtomicBool::new(left),
            boot_id: uuid::Uuid::now_v7().simple().to_string(),
            started: Instant::now(),
            waiters: Semaphore::new(MAX_WAITERS),
            closing: CancellationToken::new(),
            broken,
        })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Serve {
        &self.config
    }

    /// The metrics.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The engine, once the store is open.
    #[must_use]
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        self.engine.get()
    }

    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Obeys a verb. When this returns, what it changed is on disk, and where replicas share a store no claim is
    /// committed any more against it.
    ///
    /// # Errors
    /// The record could not be written; nothing is acknowledged and the process ends. Or the shared store is out of
    /// reach: this replica obeys, and the others may not have heard of it.
    pub async fn obey(&self, verb: Verb, body: &Command) -> Result<Decision, Unobeyed> {
        let mut core = self.core.lock().await;
        let mode = body.mode.unwrap_or_default();
        let held = core.machine.holds.operator;
        let first = core.machine.boot_hold && body.epoch.is_some();
        let decision = self
            .change(&mut core, |machine, idle| match body.epoch {
                Some(epoch) => {
                    brake::release(machine, epoch, &body.releases, idle);
                    machine.release(epoch, body.release_epoch.unwrap_or(0));
                    machine.command(epoch, wanted(verb, held), verb, mode, idle)
                }
                None => machine.ask(verb, mode, idle),
            })
            .await?;
        if matches!(decision, Decision::Reached | Decision::Accepted) {
            self.set_deadline(&mut core, body.into());
        }
        self.publish(&core);
        if core.machine.cancels() {
            self.cancel_in_flight();
        }
        if first && mode == DrainMode::Cancel && matches!(verb, Verb::Pause | Verb::Stop) && decision != Decision::Stale
        {
            self.cancels_left.store(true, Ordering::SeqCst);
            self.cancel_what_was_left();
        }
        let caller = if body.epoch.is_some() { "operator" } else { "person" };
        tracing::info!(%verb, epoch = body.epoch, caller, ?decision, state = %core.machine.state(), "a verb");
        drop(core);
        if body.epoch.is_some() && decision != Decision::Stale {
            self.share().await?;
        }
        Ok(decision)
    }

    /// Takes in an event.
    ///
    /// # Errors
    /// The record could not be written, and the process ends.
    async fn happen(&self, core: &mut Core, event: Event) -> Result<(), Broken> {
        self.change(core, |machine, idle| machine.event(event, idle)).await?;
        self.publish(core);
        Ok(())
    }

    /// Changes the machine under the gate's lock and brings the change to disk in the order of the promise.
    async fn change<T>(&self, core: &mut Core, decide: impl FnOnce(&mut Machine, bool) -> T) -> Result<T, Broken> {
        let before = core.machine.clone();
        let mut next = before.clone();
        let open = core.admits_until_exit;
        let value = self.gate.transition(|idle| {
            let value = decide(&mut next, idle);
            let mode = mode_of(&next, open);
            // What loosens is not let through before it is on disk.
            let now = mode_of(&before, open);
            (if mode == GateMode::Open { now } else { mode }, value)
        });
        core.machine = next;
        self.record(core).await?;
        let next = &core.machine;
        if before.state() != next.state() {
            tracing::info!(from = %before.state(), to = %next.state(), epoch = next.epoch, "state");
        }
        let opens = mode_of(next, open) == GateMode::Open;
        if !is_draining(next.phase) {
            core.drain = None;
        }
        if opens {
            self.publish(core);
            self.gate.transition(|_| (GateMode::Open, ()));
        }
        Ok(value)
    }

    async fn record(&self, core: &mut Core) -> Result<(), Broken> {
        let record = record_of(&self.config, &core.machine, core.keys.as_ref());
        let untouched = core.recorded.is_none() && record.epoch == 0 && core.machine.target() == Desired::Running;
        if untouched || core.recorded.as_ref() == Some(&record) {
            return Ok(());
        }
        let (fence, fresh) = (Arc::clone(&core.fence), record.clone());
        let write = move || fence.lock().unwrap_or_else(PoisonError::into_inner).write(&fresh);
        let written = tokio::task::spawn_blocking(write).await;
        let reason = match written {
            Ok(Ok(())) => {
                core.recorded = Some(record);
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(reason, "the record could not be written: the process ends");
        self.broken.cancel();
        Err(Broken)
    }

    fn publish(&self, core: &Core) {
        self.shown.send_modify(|shown| {
            shown.machine.clone_from(&core.machine);
            shown.drain = core.drain;
            shown.message.clone_from(&core.message);
            shown.store_failed = core.store_failed;
            shown.keys.clone_from(&core.keys);
            shown.version += 1;
        });
        self.wake.notify_one();
    }

    /// Whether a trigger may be accepted.
    #[must_use]
    pub fn admission(&self) -> Admission {
        self.admission_of(&self.shown.borrow())
    }

    /// Whether the readiness probe passes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let shown = self.shown.borrow();
        !shown.lame_duck && self.admission_of(&shown) == Admission::Open && self.reaches_store()
    }

    fn admission_of(&self, shown: &Shown) -> Admission {
        match shown.machine.phase {
            Phase::Running => Admission::Open,
            Phase::Pausing | Phase::Paused if self.config.while_paused == WhilePaused::Queue => Admission::Open,
            Phase::Pausing | Phase::Paused => Admission::Paused,
            Phase::Stopping(Next::Exit) if shown.lame_duck => Admission::Open,
            Phase::Stopping(_) | Phase::Stopped | Phase::Starting(_) | Phase::Exited => Admission::Unavailable,
        }
    }
}

/// What is to be on disk of a machine.
fn record_of(config: &Serve, machine: &Machine, keys: Option<&Keys>) -> Record {
    Record {
        runtime_uid: config.runtime_uid.clone(),
        epoch: machine.epoch,
        state: machine.holds.operator,
        holds: machine.holds,
        keys: keys.cloned(),
        brakes: machine.brakes.clone(),
    }
}

/// What a verb of the operator asks for. A restart asks for no other state.
fn wanted(verb: Verb, held: Desired) -> Desired {
    match verb {
        Verb::Start | Verb::Resume => Desired::Running,
        Verb::Pause => Desired::Paused,
        Verb::Stop => Desired::Stopped,
        Verb::Restart => held,
    }
}

fn is_draining(phase: Phase) -> bool {
    match phase {
        Phase::Pausing | Phase::Stopping(_) => true,
        Phase::Stopped | Phase::Starting(_) | Phase::Running | Phase::Paused | Phase::Exited => false,
    }
}

/// The gate's mode, with what a shutdown adds.
fn mode_of(machine: &Machine, admits_until_exit: bool) -> GateMode {
    let exiting = matches!(machine.phase, Phase::Stopping(Next::Exit)) && machine.mode == DrainMode::Drain;
    if admits_until_exit && exiting && machine.target() == Desired::Running { GateMode::Open } else { machine.gate() }
}
