//! Executes agents: takes executions from the queue as the gate admits them, walks each through its
//! graph, and commits every step before the next.

mod accept;
mod converse;
mod exec;
mod fill;
mod follow;
mod node;
mod order;
mod orders;
mod plan;
mod queue;
mod ramp;
mod request;
mod shared;
pub mod step;
mod walk;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifecycle::machine::GateMode;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::definition::{self, Agent};
use crate::gate::{ExecutionPermit, Gate};
use crate::llm;
use crate::store::{Error, Execution, State, Store};
use crate::telemetry::Telemetry;
use crate::tools::Toolbox;
pub use follow::Happened;
use order::Order;
pub use orders::Disobeyed;
pub use plan::Unanswered;
use queue::Queue;
use ramp::Ramp;
use walk::Walked;

/// Executions at once for an entry point that the present definition does not have any more.
const ORPHAN_CONCURRENCY: usize = 10;

/// Runs executions.
#[derive(Debug)]
pub struct Engine {
    gate: Arc<Gate>,
    store: Store,
    requests: request::Client,
    telemetry: Arc<Telemetry>,
    queue: Mutex<Queue>,
    /// Bounds the starts after a resume. Locked before the queue.
    ramp: Mutex<Ramp>,
    changed: tokio::sync::Notify,
    current: RwLock<Arc<Agent>>,
    /// Every definition that an execution may still need, by hash.
    agents: Mutex<HashMap<String, Arc<Agent>>>,
    /// What models and tools there are; replaced by a restart.
    reach: RwLock<Reach>,
    /// Tells those who follow what happened.
    happened: tokio::sync::broadcast::Sender<Arc<Happened>>,
    /// When executions failed lately, for the breaker.
    failures: Mutex<VecDeque<Timestamp>>,
    tripped: tokio::sync::Notify,
}

/// What nodes of a language model work with.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// The model, if one is configured.
    pub model: Option<Arc<llm::Client>>,
    /// Its tools.
    pub toolbox: Arc<Toolbox>,
}

/// Why an execution was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The agent has no such entry point.
    #[error("there is no entry point {0:?}")]
    Unknown(String),
    /// Too many wait already.
    #[error("{0} executions wait at this entry point already")]
    Full(usize),
    /// The idempotency key was used with another body.
    #[error("this Idempotency-Key was used with another body")]
    Clash,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// An execution that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// The key was used before, and this is the execution of then.
    pub again: bool,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Executions that could begin or go on.
    pub queued: usize,
    /// Executions parked until a time or for a person.
    pub parked: usize,
    /// Those of them that wait for a person.
    pub asks: usize,
}

impl Engine {
    /// An engine over a store. What had not ended is taken up again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn new(
        gate: Arc<Gate>,
        store: Store,
        telemetry: Arc<Telemetry>,
        agent: Arc<Agent>,
        resume_rate: Option<u32>,
    ) -> Result<Self, Error> {
        let mut agents = HashMap::new();
        for (hash, (file, text)) in store.definitions().await? {
            // One that this version cannot run any more is missed only by its own executions.
            match definition::parse(&file, &text) {
                Ok(loaded) => drop(agents.insert(hash, Arc::new(loaded.agent))),
                Err(error) => tracing::warn!(%hash, %error, "a definition in the store cannot be run any more"),
            }
        }
        agents.insert(agent.hash.clone(), Arc::clone(&agent));
        let mut queue = Queue::default();
        let mut cancelled = Vec::new();
        // What a shared store holds is claimed one by one, and may be running in another replica.
        let live = if store.shared().is_some() { Vec::new() } else { store.live().await? };
        for execution in live {
            if execution.state == State::Cancelling {
                cancelled.push(execution);
                continue;
            }
            let priority = priority(&agents, &execution);
            queue.put(execution, priority);
        }
        let engine = Self {
            gate,
            store,
            requests: request::Client::default(),
            telemetry,
            queue: Mutex::new(queue),
            ramp: Mutex::new(Ramp::new(resume_rate)),
            changed: tokio::sync::Notify::new(),
            current: RwLock::new(agent),
            agents: Mutex::new(agents),
            reach: RwLock::default(),
            happened: follow::channel(),
            failures: Mutex::default(),
            tripped: tokio::sync::Notify::new(),
        };
        // Their effects ended with the process that ran them.
        for mut execution in cancelled {
            let planned = plan::cancel(&mut execution, false, Timestamp::now());
            let tokens = std::sync::atomic::AtomicI64::new(execution.tokens);
            engine.keep(&mut execution, planned, &tokens, Vec::new()).await?;
        }
        Ok(engine)
    }

    /// Takes over models and tools.
    pub fn equip(&self, reach: Reach) {
        *self.reach.write().unwrap_or_else(PoisonError::into_inner) = reach;
    }

    /// The tools of the models.
    #[must_use]
    pub fn toolbox(&self) -> Arc<Toolbox> {
        Arc::clone(&self.reach.read().unwrap_or_else(PoisonError::into_inner).toolbox)
    }

    fn model(&self) -> Option<Arc<llm::Client>> {
        self.reach.read().unwrap_or_else(PoisonError::into_inner).model.clone()
    }

    /// Throws away executions that ended before `cutoff`, with their files. Gives their number.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sweep(&self, cutoff: Timestamp) -> Result<usize, Error> {
        let gone = self.store.sweep(cutoff).await?;
        for id in &gone {
            self.toolbox().forget(id).await;
        }
        Ok(gone.len())
    }

    /// Returns when so many executions have failed that the breaker opens.
    pub async fn tripped(&self) {
        self.tripped.notified().await;
    }

    /// Notes a failed execution; the breaker opens at its number within its window.
    fn note_failure(&self) {
        let Some(breaker) = self.agent().breaker else { return };
        let now = Timestamp::now();
        let window = jiff::SignedDuration::try_from(breaker.window).unwrap_or(jiff::SignedDuration::MAX);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push_back(now);
        failures.retain(|at| now.duration_since(*at) <= window);
        if failures.len() >= breaker.failures {
            failures.clear();
            self.tripped.notify_one();
        }
    }

    /// Takes over a definition for new executions.
    ///
    /// # Errors
    /// It could not be kept for the executions that will need it.
    pub async fn adopt(&self, agent: Arc<Agent>) -> Result<(), Error> {
        self.store.keep_definition(agent.hash.clone(), agent.file.clone(), agent.text.clone()).await?;
        self.agents().insert(agent.hash.clone(), Arc::clone(&agent));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = agent;
        Ok(())
    }

    /// The definition for new executions.
    #[must_use]
    pub fn agent(&self) -> Arc<Agent> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let Some(shared) = self.store.shared() else { return self.queue().waiting() };
        shared.waiting().into_values().fold(Waiting::default(), |all, one| Waiting {
            queued: all.queued + one.queued,
            parked: all.parked + one.parked,
            asks: all.asks + one.asks,
        })
    }

    /// Admits executions as the gate and the limits allow, until `stop`.
    pub async fn schedule(self: Arc<Self>, stop: CancellationToken) {
        if let Some(shared) = self.store.shared().cloned() {
            return self.schedule_shared(&shared, stop).await;
        }
        let mut gate = self.gate.changes();
        loop {
            gate.mark_unchanged();
            if self.gate.mode() != GateMode::Open {
                self.ramp().shut();
            }
            let next_due = self.admit_all();
            let pause = next_due.map_or(Duration::from_secs(3600), |due| {
                let left = due.duration_since(Timestamp::now());
                // The wall clock may be set meanwhile: look again within half a minute.
                Duration::try_from(left).unwrap_or(Duration::ZERO).min(Duration::from_secs(30))
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                _ = gate.changed() => {}
                () = tokio::time::sleep(pause.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// Starts what may start; gives the time at which the next parked execution goes on.
    fn admit_all(self: &Arc<Self>) -> Option<Timestamp> {
        let agent = self.agent();
        let limit =
            |entry: &str| agent.entry_points.get(entry).map_or(ORPHAN_CONCURRENCY, |entry| entry.max_concurrent);
        let mut ramp = self.ramp();
        loop {
            let mut queue = self.queue();
            queue.wake(Timestamp::now());
            let Some((entry, id)) = queue.head(limit) else {
                if queue.is_empty() && self.gate.mode() == GateMode::Open {
                    ramp.worked_off();
                }
                return queue.next_due();
            };
            if let Some(left) = ramp.wait(Instant::now()).and_then(|left| SignedDuration::try_from(left).ok()) {
                let free_at = Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX);
                return Some(queue.next_due().map_or(free_at, |due| due.min(free_at)));
            }
            let Some(permit) = self.gate.admit(&id, &entry) else {
                ramp.shut();
                return queue.next_due();
            };
            let (orders, obeyed) = Self::channel();
            let Some(execution) = queue.start(&entry, orders) else { return queue.next_due() };
            drop(queue);
            ramp.started(Instant::now());
            tokio::spawn(Arc::clone(self).run(execution, permit, obeyed, None));
        }
    }

    /// `claim` is the number of the claim under which an execution of a shared store runs.
    async fn run(
        self: Arc<Self>,
        mut execution: Execution,
        permit: ExecutionPermit,
        mut orders: Receiver<Order>,
        claim: Option<i64>,
    ) {
        let (entry_point, id) = (execution.entry_point.clone(), execution.id.clone());
        let walked = self.walk(&mut execution, &permit, &mut orders).await;
        if walked == Walked::Ended && execution.state == State::Failed {
            self.note_failure();
        }
        if let (Some(shared), Some(claim)) = (self.store.shared(), claim) {
            shared.let_go(&id, claim).await;
        }
        // The permit goes back only now, when the last effect has ended and its outcome is on disk.
        drop(permit);
        let priority = priority(&self.agents(), &execution);
        let mut queue = self.queue();
        queue.ended(&entry_point, &id);
        match walked {
            Walked::Rests if claim.is_none() => queue.put(execution, priority),
            Walked::Rests | Walked::Ended | Walked::Lost => {}
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn definition_of(&self, execution: &Execution) -> Option<Arc<Agent>> {
        self.agents().get(&execution.definition).cloned()
    }

    fn agents(&self) -> MutexGuard<'_, HashMap<String, Arc<Agent>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ramp(&self) -> MutexGuard<'_, Ramp> {
        self.ramp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The priority that an execution's own definition gives it.
fn priority(agents: &HashMap<String, Arc<Agent>>, execution: &Execution) -> i32 {
    let agent = agents.get(&execution.definition);
    agent.and_then(|agent| agent.entry_points.get(&execution.entry_point)).map_or(0, |entry| entry.priority)
}

/// Whether an execution is to be parked rather than queued.
fn is_parked(execution: &Execution, now: Timestamp) -> bool {
    execution.state == State::Waiting && execution.due().is_some_and(|due| due > now)
}
