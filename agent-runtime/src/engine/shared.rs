//! Where several replicas share a store: executions are claimed from it one by one, each under a permit that was
//! had first, and what is asked here of one that runs elsewhere goes through it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use lifecycle::machine::GateMode;
use serde_json::{Map, Value};
use tokio::sync::{broadcast::error::RecvError, oneshot};
use tokio_util::sync::CancellationToken;

use super::order::Order;
use super::queue::Found;
use super::{Begun, Disobeyed, Engine, Happened, ORPHAN_CONCURRENCY, Refused, plan};
use crate::definition::{self, EntryPoint};
use crate::gate::ExecutionPermit;
use crate::store::postgres::{Asked, Claimed, Heard, Reply, Seized, Store};
use crate::store::{Accepted, Error, Execution, Key};
use crate::trace::{self, TraceContext};

/// Work is looked for this often though nobody tells of any.
const LOOK: Duration = Duration::from_secs(1);
/// Those who follow look by themselves this often, for what they were not told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Accepts an execution into the shared store.
    pub(super) async fn begin_shared(
        &self,
        shared: &Store,
        execution: Execution,
        entry: &EntryPoint,
        key: Option<&Key>,
    ) -> Result<Begun, Refused> {
        match shared.accept(&execution, entry.priority, entry.max_queued, key).await? {
            Accepted::New => Ok(Begun { id: execution.id, again: false }),
            Accepted::Again(id) => Ok(Begun { id, again: true }),
            Accepted::Clash => Err(Refused::Clash),
            Accepted::Full => Err(Refused::Full(entry.max_queued)),
        }
    }

    /// Claims executions as the gate and the limits allow, until `stop`.
    pub(super) async fn schedule_shared(self: Arc<Self>, shared: &Store, stop: CancellationToken) {
        let tasks: [BoxFuture<'static, ()>; 2] = [
            Box::pin(Arc::clone(&self).obey_others(shared.clone())),
            Box::pin(Arc::clone(&self).tell_followers(shared.clone())),
        ];
        for task in tasks {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(task).await });
        }
        let mut gate = self.gate.changes();
        loop {
            let mode = self.gate.mode();
            if mode != GateMode::Open {
                self.ramp().shut();
            }
            let next = self.claim_all(shared).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "nothing can be claimed now");
                None
            });
            // Our own permits have changed it.
            gate.mark_unchanged();
            if self.gate.mode() != mode {
                continue;
            }
            let left = next.and_then(|next| Duration::try_from(next.duration_since(Timestamp::now())).ok());
            let pause = left.map_or(LOOK, |left| left.min(LOOK)).max(Duration::from_millis(1));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = shared.work() => {}
                _ = gate.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts what may start; gives the time at which to look again.
    async fn claim_all(self: &Arc<Self>, shared: &Store) -> Result<Option<Timestamp>, Error> {
        while self.gate.mode() == GateMode::Open {
            let now = Timestamp::now();
            let limits = self.lanes(shared);
            let heads = shared.heads(&limits, now).await?;
            if heads.is_empty() {
                self.ramp().worked_off();
                return shared.next_due(now).await;
            }
            let wait = self.ramp().wait(Instant::now());
            if let Some(left) = wait.and_then(|left| SignedDuration::try_from(left).ok()) {
                return Ok(Some(now.checked_add(left).unwrap_or(Timestamp::MAX)));
            }
            let mut began = false;
            for entry in heads {
                let Some(permit) = self.gate.admit_any(&entry) else { return Ok(None) };
                let most = limits.iter().find(|(name, _)| *name == entry).map_or(0, |(_, most)| *most);
                if let Some(claimed) = shared.claim(&entry, most, now).await? {
                    began |= self.start_claimed(shared, claimed, permit).await?;
                    // What comes first may be another by now.
                    break;
                }
            }
            if !began {
                break;
            }
        }
        Ok(None)
    }

    /// Every entry point that may have executions, with how many may run at once.
    fn lanes(&self, shared: &Store) -> Vec<(String, usize)> {
        let agent = self.agent();
        let own = agent.entry_points.iter().map(|(name, entry)| (name.clone(), entry.max_concurrent));
        let orphans = shared.waiting().into_keys().filter(|name| !agent.entry_points.contains_key(name));
        own.chain(orphans.map(|name| (name, ORPHAN_CONCURRENCY))).collect()
    }

    /// False if it does not begin after all, and is given back.
    async fn start_claimed(
        self: &Arc<Self>,
        shared: &Store,
        claimed: Claimed,
        permit: ExecutionPermit,
    ) -> Result<bool, Error> {
        let (id, entry) = (claimed.execution.id.clone(), claimed.execution.entry_point.clone());
        let learnt = self.learn(shared, &claimed.execution.definition).await;
        // One of an earlier claim may still be on its way out here, and a pause may have come meanwhile.
        let permit = permit.bind(&id).filter(|_| learnt.is_ok() && self.gate.mode() == GateMode::Open);
        let Some(permit) = permit else {
            shared.return_claim(claimed).await;
            return learnt.map(|()| false);
        };
        let (orders, obeyed) = Self::channel();
        self.queue().runs(&entry, &id, orders);
        let (execution, claim) = shared.hold(claimed, permit.interrupt());
        self.ramp().started(Instant::now());
        tokio::spawn(Arc::clone(self).run(execution, permit, obeyed, Some(claim)));
        Ok(true)
    }

    /// Reads a definition that another replica has brought.
    pub(super) async fn learn(&self, shared: &Store, hash: &str) -> Result<(), Error> {
        if self.agents().contains_key(hash) {
            return Ok(());
        }
        let Some((file, text)) = shared.definition(hash).await? else { return Ok(()) };
        match definition::parse(&file, &text) {
            Ok(loaded) => drop(self.agents().insert(hash.to_owned(), Arc::new(loaded.agent))),
            Err(error) => tracing::warn!(%hash, %error, "a definition in the store cannot be run by this version"),
        }
        Ok(())
    }

    /// Takes in a timer's tick, which each replica tells.
    pub(super) async fn tick_shared(
        &self,
        shared: &Store,
        entry_point: &str,
        due: Timestamp,
        overlaps: bool,
    ) -> Result<(), Error> {
        let agent = self.agent();
        let Some(entry) = agent.entry_points.get(entry_point) else { return Ok(()) };
        let memory = Map::from_iter([("scheduled_time".to_owned(), Value::String(due.to_string()))]);
        // A tick has one span, and another replica has mostly told of it already.
        if self.store.last_tick(entry_point).await?.is_some_and(|last| last >= due) {
            return Ok(());
        }
        let span = trace::tick(entry_point, due);
        let execution = Execution::new(entry_point, &agent.hash, &entry.node, memory, Timestamp::now());
        let execution = execution.traced(TraceContext::of_span(&span));
        if shared.tick(entry_point, due, Some((&execution, entry.priority)), overlaps).await? {
            span.record("hive.execution.id", &execution.id);
        } else {
            tracing::debug!(entry_point, %due, "a tick was skipped, or another replica had it");
        }
        Ok(())
    }

    /// Where an execution is: here, at rest and then the caller's, or in another replica.
    pub(super) async fn find_shared(&self, shared: &Store, id: &str) -> Result<Found, Disobeyed> {
        let here = self.queue().find(id);
        if matches!(here, Found::Runs(_)) {
            return Ok(here);
        }
        match shared.seize(id).await? {
            Seized::Rests(execution, claim) => Ok(Found::Rests(execution, Some(claim))),
            Seized::Runs => Ok(Found::Elsewhere),
            Seized::Ended(state) => Err(Disobeyed::Ended(state.as_str())),
            Seized::Unknown => Err(Disobeyed::Unknown(id.to_owned())),
        }
    }

    /// Does what other replicas ask of executions that run here, and ends what was being cancelled where a replica
    /// was lost.
    async fn obey_others(self: Arc<Self>, shared: Store) {
        loop {
            shared.asked().await;
            let orders = shared.take_orders().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "what is asked cannot be read");
                Vec::new()
            });
            for (order, execution, asked) in orders {
                let (engine, shared) = (Arc::clone(&self), shared.clone());
                tokio::spawn(async move {
                    let reply = engine.obey_other(&execution, asked).await;
                    if let Err(error) = shared.reply(order, &reply).await {
                        tracing::warn!(execution, %error, "what became of an order could not be said");
                    }
                });
            }
            for id in shared.left_cancelling().await.unwrap_or_default() {
                if let Err(error) = self.cancel(&id).await {
                    tracing::debug!(id, %error, "an execution that was being cancelled is somebody else's");
                }
            }
        }
    }

    async fn obey_other(&self, execution: &str, asked: Asked) -> Reply {
        let Found::Runs(orders) = self.queue().find(execution) else { return Reply::Gone };
        let (told, answer) = oneshot::channel();
        let order = match asked {
            Asked::Cancel => Order::Cancel { told },
            Asked::Answer { branch, value } => Order::Answer { branch, value, told },
        };
        if orders.send(order).await.is_err() {
            return Reply::Gone;
        }
        match answer.await {
            Ok(Ok(())) => Reply::Done,
            Ok(Err(refused)) => Reply::Refused(refused.to_string()),
            Err(_) => Reply::Gone,
        }
    }

    /// Asks the replica that runs an execution. False if it has to be looked for again.
    pub(super) async fn ask_other(&self, id: &str, asked: Asked) -> Result<bool, Disobeyed> {
        let Some(shared) = self.store.shared() else { return Ok(false) };
        match shared.ask(id, &asked).await? {
            Reply::Done => Ok(true),
            Reply::Refused(why) => Err(plan::Unanswered::Said(why).into()),
            Reply::Gone => Ok(false),
        }
    }

    /// Tells those who follow here what happens in every replica.
    async fn tell_followers(self: Arc<Self>, shared: Store) {
        let mut heard = shared.hear();
        loop {
            let happened = match tokio::time::timeout(LOOK_AGAIN, heard.recv()).await {
                Ok(Ok(Heard::Entries { execution, last, is_state })) => {
                    Happened::Entry { execution, seq: last, is_state }
                }
                Ok(Ok(Heard::Missed) | Err(RecvError::Lagged(_))) | Err(_) => Happened::Missed,
                Ok(Err(RecvError::Closed)) => return,
            };
            // Nobody may follow.
            let _ = self.happened.send(Arc::new(happened));
        }
    }
}
