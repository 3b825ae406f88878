//! What people ask of an execution: to cancel it, to take an answer, to try again.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::order::{ORDERS, Order};
use super::plan::{self, Planned, Unanswered};
use super::queue::Found;
use super::{Engine, priority};
use crate::definition::Agent;
use crate::store::postgres::Asked;
use crate::store::{Error, Execution, Filter, State};

/// Executions that a bulk cancel takes at once.
const PAGE: usize = 200;

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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Engine {
    /// Cancels an execution: at once if nothing of it runs, else when its last effect has ended.
    /// Works whether the gate is open or not.
    ///
    /// # Errors
    /// It is not known or has ended.
    pub async fn cancel(&self, id: &str) -> Result<(), Disobeyed> {
        loop {
            match self.find(id).await? {
                Found::Runs(orders) => {
                    let (told, done) = oneshot::channel();
                    // An execution that rests or ends just now is looked for again.
                    if orders.send(Order::Cancel { told }).await.is_ok() && done.await.is_ok() {
                        return Ok(());
                    }
                }
                Found::Rests(mut execution, claim) => {
                    let planned = plan::cancel(&mut execution, false, Timestamp::now());
                    self.put_back(*execution, claim, planned).await?;
                    self.telemetry.ended(State::Cancelled);
                    return Ok(());
                }
                Found::Elsewhere if self.ask_other(id, Asked::Cancel).await? => return Ok(()),
                Found::Elsewhere | Found::Nowhere => tokio::task::yield_now().await,
            }
        }
    }

    /// Cancels every execution that a filter admits and that has not ended; gives their number.
    ///
    /// # Errors
    /// The store failed; those cancelled so far stay so.
    pub async fn cancel_all(&self, filter: &Filter) -> Result<usize, Disobeyed> {
        let (mut count, mut before) = (0, None::<String>);
        loop {
            let page = self.store.list(filter, before.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(count) };
            before = Some(last.id.clone());
            for execution in page.iter().filter(|execution| !execution.state.is_terminal()) {
                match self.cancel(&execution.id).await {
                    Ok(()) => count += 1,
                    Err(Disobeyed::Ended(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Takes a person's answer. When this returns it is on disk.
    ///
    /// # Errors
    /// Nothing was asked, or the answer does not fit.
    pub async fn answer(&self, id: &str, branch: Option<&str>, value: &Value) -> Result<(), Disobeyed> {
        loop {
            match self.find(id).await? {
                Found::Runs(orders) => {
                    let (told, answer) = oneshot::channel();
                    let order = Order::Answer { branch: branch.map(str::to_owned), value: value.clone(), told };
                    if orders.send(order).await.is_ok()
                        && let Ok(answer) = answer.await
                    {
                        return answer.map_err(Disobeyed::from);
                    }
                }
                Found::Rests(mut execution, claim) => {
                    let agent = self.known(&execution).await;
                    let before = execution.clone();
                    let taken = agent
                        .as_deref()
                        .ok_or(Disobeyed::Definition)
                        .and_then(|agent| Ok(plan::answer(agent, &mut execution, branch, value, Timestamp::now())?));
                    return match taken {
                        Ok(planned) => Ok(self.put_back(*execution, claim, planned).await?),
                        Err(refused) => {
                            self.let_rest(*before, claim).await;
                            Err(refused)
                        }
                    };
                }
                Found::Elsewhere => {
                    let asked = Asked::Answer { branch: branch.map(str::to_owned), value: value.clone() };
                    if self.ask_other(id, asked).await? {
                        return Ok(());
                    }
                }
                Found::Nowhere => tokio::task::yield_now().await,
            }
        }
    }

    /// Lets an execution that failed or was cancelled go on where it ended.
    ///
    /// # Errors
    /// It is not known, or lives.
    pub async fn retry(&self, id: &str) -> Result<(), Disobeyed> {
        let mut execution = self.store.get(id).await?.ok_or_else(|| Disobeyed::Unknown(id.to_owned()))?;
        let was = execution.state.as_str();
        let planned = plan::retry(&mut execution, Timestamp::now()).ok_or(Disobeyed::Lives(was))?;
        if self.known(&execution).await.is_none() {
            return Err(Disobeyed::Definition);
        }
        if !self.store.reopen(execution.clone(), planned.entries).await? {
            return Err(Disobeyed::Lives("taken up already"));
        }
        self.line_up(execution);
        Ok(())
    }

    /// Where an execution is. One that rests is taken out of the queue, and is the caller's to put back.
    async fn find(&self, id: &str) -> Result<Found, Disobeyed> {
        if let Some(shared) = self.store.shared() {
            return self.find_shared(shared, id).await;
        }
        let found = self.queue().find(id);
        if matches!(found, Found::Nowhere) {
            match self.store.get(id).await? {
                None => return Err(Disobeyed::Unknown(id.to_owned())),
                Some(execution) if execution.state.is_terminal() => {
                    return Err(Disobeyed::Ended(execution.state.as_str()));
                }
                // It is between two places, and will be in one of them.
                Some(_) => {}
            }
        }
        Ok(found)
    }

    /// Writes what was planned for an execution that rests, and lets it rest on. `claim` is that of a shared store.
    async fn put_back(&self, mut execution: Execution, claim: Option<i64>, planned: Planned) -> Result<(), Error> {
        let tokens = AtomicI64::new(execution.tokens);
        if claim.is_some() && !execution.state.is_terminal() && execution.state != State::Waiting {
            // It ran in a replica that was lost.
            execution.state = State::Queued;
        }
        let kept = self.keep(&mut execution, planned, &tokens, Vec::new()).await;
        if claim.is_some() || !execution.state.is_terminal() || kept.is_err() {
            self.let_rest(execution, claim).await;
        }
        kept.map(drop)
    }

    async fn let_rest(&self, execution: Execution, claim: Option<i64>) {
        match (self.store.shared(), claim) {
            (Some(shared), Some(claim)) => shared.let_go(&execution.id, claim).await,
            _ => self.line_up(execution),
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
    pub(super) fn line_up(&self, execution: Execution) {
        if self.store.shared().is_some() {
            // It lines up in the store.
            return self.changed.notify_one();
        }
        let priority = priority(&self.agents(), &execution);
        self.queue().put(execution, priority);
        self.changed.notify_one();
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
