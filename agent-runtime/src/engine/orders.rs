//! What people ask of an execution: to cancel it, to take an answer, to try again. What is asked is carried out to its
//! end, whether or not whoever asked stays, and in bounded time.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::order::{ORDERS, Order};
use super::plan::{self, Planned, Unanswered};
use super::queue::{Found, Here, Waits};
use super::{Engine, priority};
use crate::deed::{UndoneError, carried_out};
use crate::definition::Agent;
use crate::store::postgres::Asked;
use crate::store::{Error, Execution, Filter, State};

/// Executions that a bulk cancel takes at once.
const PAGE: usize = 200;
/// An execution that is between two places is in one of them within this, or its asker is told to ask again.
const PATIENCE: Duration = Duration::from_secs(10);
/// It is looked for this often, though nothing tells that it has moved.
const LOOK: Duration = Duration::from_millis(50);

/// Why an order was not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum Disobeyed {
    /// The store knows no such execution.
    #[error("there is no execution {0:?}")]
    Unknown(String),
    /// It has ended.
    #[error("it has ended: it is {0}")]
    Ended(&'static str),
    /// It has not failed and was not cancelled.
    #[error("only what failed or was cancelled can be tried again; it is {0}")]
    Lives(&'static str),
    /// The answer does not fit.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The definition that it began with cannot be run by this version.
    #[error("its definition cannot be run by this version")]
    Definition,
    /// It did not answer in time.
    #[error("execution {0:?} is on its way from one state to another: look at it, and ask again")]
    Busy(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// Nobody knows whether it was done.
    #[error(transparent)]
    Undone(#[from] UndoneError),
}

/// An execution that rests, taken out of its place so that it is written to by one at a time. It goes back when this
/// is dropped: nothing that fails, is given up or panics half-way leaves an execution nowhere.
#[derive(Debug)]
pub(super) struct Taken {
    engine: Arc<Engine>,
    back: Option<Back>,
}

/// How it goes back.
#[derive(Debug)]
enum Back {
    /// To its place in the queue.
    Place(Waits),
    /// By giving back the claim, with what was claimed.
    Claim(Box<Execution>, i64),
}

impl Taken {
    pub(super) fn waiting(engine: &Arc<Engine>, waits: Waits) -> Self {
        Self { engine: Arc::clone(engine), back: Some(Back::Place(waits)) }
    }

    pub(super) fn claimed(engine: &Arc<Engine>, execution: Box<Execution>, claim: i64) -> Self {
        Self { engine: Arc::clone(engine), back: Some(Back::Claim(execution, claim)) }
    }

    /// What it is now.
    async fn read(&mut self) -> Result<Execution, Disobeyed> {
        let id = match &self.back {
            Some(Back::Claim(execution, _)) => return Ok(execution.as_ref().clone()),
            Some(Back::Place(waits)) => waits.id.clone(),
            None => String::new(),
        };
        match self.engine.store.get(&id).await? {
            Some(execution) if !execution.state.is_terminal() => Ok(execution),
            ended => {
                self.back = None;
                let state = ended.map(|execution| execution.state.as_str());
                Err(state.map_or(Disobeyed::Unknown(id), Disobeyed::Ended))
            }
        }
    }

    /// Writes what was planned, and lets it rest on.
    async fn write(mut self, mut execution: Execution, planned: Planned) -> Result<(), Error> {
        let engine = Arc::clone(&self.engine);
        let claimed = matches!(self.back, Some(Back::Claim(..)));
        if claimed && !execution.state.is_terminal() && execution.state != State::Waiting {
            // It ran in a replica that was lost.
            execution.state = State::Queued;
        }
        let tokens = AtomicI64::new(execution.tokens);
        let lives = engine.keep(&mut execution, planned, &tokens, Vec::new()).await? && !execution.state.is_terminal();
        if let (Some(shared), Some(Back::Claim(_, claim))) = (engine.store.shared(), &self.back) {
            shared.let_go(&execution.id, *claim).await;
            self.back = None;
        } else {
            self.back = lives.then(|| Back::Place(engine.waits(&execution)));
        }
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        match self.back.take() {
            Some(Back::Place(waits)) => self.engine.put(waits),
            Some(Back::Claim(execution, claim)) => {
                let engine = Arc::clone(&self.engine);
                tokio::spawn(async move {
                    if let Some(shared) = engine.store.shared() {
                        shared.let_go(&execution.id, claim).await;
                    }
                });
            }
            None => {}
        }
        self.engine.moved.notify_waiters();
    }
}

impl Engine {
    /// Cancels an execution: at once if nothing of it runs, else when its last effect has ended. Works whether the
    /// gate is open or not, and for one whose record cannot be read.
    ///
    /// # Errors
    /// It is not known or has ended.
    pub async fn cancel(self: &Arc<Self>, id: &str) -> Result<(), Disobeyed> {
        let (engine, id) = (Arc::clone(self), id.to_owned());
        let cancel = async move {
            match engine.cancel_now(&id).await {
                Err(Disobeyed::Store(Error::Foreign { .. })) if engine.store.give_up(&id).await? => Ok(()),
                Err(Disobeyed::Store(Error::Foreign { .. })) => Err(Disobeyed::Ended(State::Failed.as_str())),
                told => told,
            }
        };
        carried_out("the cancel", cancel).await?
    }

    async fn cancel_now(self: &Arc<Self>, id: &str) -> Result<(), Disobeyed> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.find(id).await? {
                Found::Runs(orders) => {
                    let (told, done) = oneshot::channel();
                    if self.order(id, &orders, Order::Cancel { told }, done, until).await?.is_some() {
                        return Ok(());
                    }
                }
                Found::Rests(mut taken) => {
                    let mut execution = taken.read().await?;
                    let planned = plan::cancel(&mut execution, false, Timestamp::now());
                    taken.write(execution, planned).await?;
                    self.telemetry.ended(State::Cancelled);
                    return Ok(());
                }
                Found::Elsewhere if self.ask_other(id, Asked::Cancel).await? => return Ok(()),
                Found::Elsewhere | Found::Nowhere => {}
            }
            self.look_again(id, until).await?;
        }
    }

    /// Cancels every execution that a filter admits and that has not ended; gives their number.
    ///
    /// # Errors
    /// The store failed; those cancelled so far stay so.
    pub async fn cancel_all(self: &Arc<Self>, filter: &Filter) -> Result<usize, Disobeyed> {
        let (engine, filter) = (Arc::clone(self), filter.clone());
        carried_out("the cancel", async move { engine.cancel_each(&filter).await }).await?
    }

    async fn cancel_each(self: &Arc<Self>, filter: &Filter) -> Result<usize, Disobeyed> {
        let (mut count, mut before) = (0, None::<String>);
        loop {
            let page = self.store.list(filter, before.as_deref(), PAGE).await?;
            for execution in page.executions.iter().filter(|execution| !execution.state.is_terminal()) {
                match self.cancel(&execution.id).await {
                    Ok(()) => count += 1,
                    // It ended by itself, or was thrown away, since it was listed.
                    Err(Disobeyed::Ended(_) | Disobeyed::Unknown(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let Some(last) = page.last else { return Ok(count) };
            before = Some(last);
        }
    }

    /// Takes a person's answer. When this returns it is on disk.
    ///
    /// # Errors
    /// Nothing was asked, or the answer does not fit.
    pub async fn answer(self: &Arc<Self>, id: &str, branch: Option<&str>, value: &Value) -> Result<(), Disobeyed> {
        let (engine, id, branch, value) = (Arc::clone(self), id.to_owned(), branch.map(str::to_owned), value.clone());
        carried_out("the answer", async move { engine.answer_now(&id, branch.as_deref(), &value).await }).await?
    }

    async fn answer_now(self: &Arc<Self>, id: &str, branch: Option<&str>, value: &Value) -> Result<(), Disobeyed> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.find(id).await? {
                Found::Runs(orders) => {
                    let (told, answer) = oneshot::channel();
                    let order = Order::Answer { branch: branch.map(str::to_owned), value: value.clone(), told };
                    if let Some(answer) = self.order(id, &orders, order, answer, until).await? {
                        return answer.map_err(Disobeyed::from);
                    }
                }
                Found::Rests(mut taken) => {
                    let mut execution = taken.read().await?;
                    let agent = self.known(&execution).await.ok_or(Disobeyed::Definition)?;
                    let planned = plan::answer(&agent, &mut execution, branch, value, Timestamp::now())?;
                    return Ok(taken.write(execution, planned).await?);
                }
                Found::Elsewhere => {
                    let asked = Asked::Answer { branch: branch.map(str::to_owned), value: value.clone() };
                    if self.ask_other(id, asked).await? {
                        return Ok(());
                    }
                }
                Found::Nowhere => {}
            }
            self.look_again(id, until).await?;
        }
    }

    /// Gives an order to an execution under way, and waits for its answer. None if it rests or has ended just now: it
    /// is to be looked for again.
    async fn order(
        &self,
        id: &str,
        orders: &mpsc::Sender<Order>,
        order: Order,
        answer: oneshot::Receiver<Result<(), Unanswered>>,
        until: Instant,
    ) -> Result<Option<Result<(), Unanswered>>, Disobeyed> {
        let told = async {
            if orders.send(order).await.is_err() {
                return None;
            }
            answer.await.ok()
        };
        // What it was told it does, if it is heard at all.
        tokio::time::timeout_at(until, told).await.map_err(|_| Disobeyed::Busy(id.to_owned()))
    }

    /// Returns when an execution may be in another place, until there is no more patience.
    async fn look_again(&self, id: &str, until: Instant) -> Result<(), Disobeyed> {
        if Instant::now() >= until {
            return Err(Disobeyed::Busy(id.to_owned()));
        }
        let _ = tokio::time::timeout(LOOK, self.moved.notified()).await;
        Ok(())
    }

    /// Lets an execution that failed or was cancelled go on where it ended.
    ///
    /// # Errors
    /// It is not known, or lives.
    pub async fn retry(self: &Arc<Self>, id: &str) -> Result<(), Disobeyed> {
        let (engine, id) = (Arc::clone(self), id.to_owned());
        carried_out("the retry", async move { engine.retry_now(&id).await }).await?
    }

    async fn retry_now(&self, id: &str) -> Result<(), Disobeyed> {
        let mut execution = self.store.get(id).await?.ok_or_else(|| Disobeyed::Unknown(id.to_owned()))?;
        let was = execution.state.as_str();
        let planned = plan::retry(&mut execution, Timestamp::now()).ok_or(Disobeyed::Lives(was))?;
        if self.known(&execution).await.is_none() {
            return Err(Disobeyed::Definition);
        }
        if !self.store.reopen(execution.clone(), planned.entries).await? {
            return Err(Disobeyed::Lives("taken up already"));
        }
        self.line_up(&execution);
        Ok(())
    }

    /// Where an execution is. One that rests is taken out of its place until it is dropped.
    async fn find(self: &Arc<Self>, id: &str) -> Result<Found, Disobeyed> {
        if let Some(shared) = self.store.shared() {
            return self.find_shared(shared, id).await;
        }
        // Its lock is not held over what follows.
        let here = self.queue().find(id);
        match here {
            Here::Runs(orders) => return Ok(Found::Runs(orders)),
            Here::Rests(waits) => return Ok(Found::Rests(Taken::waiting(self, waits))),
            Here::Nowhere => {}
        }
        match self.store.get(id).await? {
            None => Err(Disobeyed::Unknown(id.to_owned())),
            Some(execution) if execution.state.is_terminal() => Err(Disobeyed::Ended(execution.state.as_str())),
            // It is between two places, and will be in one of them.
            Some(_) => Ok(Found::Nowhere),
        }
    }

    /// The definition of an execution that another replica may have accepted.
    async fn known(&self, execution: &Execution) -> Option<Arc<Agent>> {
        if let Some(shared) = self.store.shared()
            && let Err(error) = self.learn(shared, &execution.definition).await
        {
            tracing::warn!(%error, "a definition cannot be read");
        }
        self.definition_of(execution)
    }

    /// Lets an execution wait for its turn, or for its time.
    pub(super) fn line_up(&self, execution: &Execution) {
        self.put(self.waits(execution));
    }

    pub(super) fn waits(&self, execution: &Execution) -> Waits {
        Waits::of(execution, priority(&self.agents(), execution), Timestamp::now())
    }

    pub(super) fn put(&self, waits: Waits) {
        // In a shared store it lines up there.
        if self.store.shared().is_none() {
            self.queue().put(waits);
        }
        self.changed.notify_one();
        self.moved.notify_waiters();
    }

    pub(super) fn channel() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
        mpsc::channel(ORDERS)
    }

    /// The executions that events begin, in the present definition, with their priorities.
    pub(super) fn begun_by(&self, events: &[(String, serde_json::Map<String, Value>)]) -> Vec<(Execution, i32)> {
        let agent: Arc<_> = self.agent();
        let mut begun = Vec::new();
        for (name, outputs) in events {
            for (id, entry) in agent.listeners(name) {
                let mut memory = outputs.clone();
                memory.insert("event".to_owned(), Value::String(name.clone()));
                let execution = Execution::new(id, &agent.hash, &entry.node, memory, Timestamp::now());
                begun.push((execution, entry.priority));
            }
        }
        begun
    }
}
