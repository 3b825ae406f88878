//! One execution's way through its graph: run what the plan says may run, commit what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use lifecycle::machine::GateMode;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::Engine;
use super::node::{Run, Settled};
use super::order::{Order, Teller};
use super::plan::{self, Planned};
use super::step::Outcome;
use crate::definition::Agent;
use crate::gate::ExecutionPermit;
use crate::store::{Commit, Error, Execution, State, Used, What, day_key, execution_key};
use crate::trace::{self, TraceContext};

/// With nothing to wait for.
const LONG: Duration = Duration::from_secs(30);

/// Of the seconds of a day, so many are reserved at once.
const PAID_AT_ONCE: Duration = Duration::from_secs(1);

/// Why an execution does not go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// It has ended.
    Ended,
    /// It waits: for a time, a person, or the gate.
    Rests,
    /// The store failed; the next process takes it up.
    Lost,
}

/// Branches under way.
type Running<'a> = FuturesUnordered<BoxFuture<'a, Settled>>;

impl Engine {
    pub(super) async fn walk(
        &self,
        execution: &mut Execution,
        permit: &ExecutionPermit,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Walked {
        let span = tracing::info_span!("execution", execution = %execution.id, entry_point = %execution.entry_point);
        let begun = std::time::Instant::now();
        let agent = self.definition_of(execution);
        let traced = trace::execution(execution, agent.as_deref().map(|agent| agent.name.as_str()));
        let walked = self.walk_on(execution, permit, orders).instrument(traced.clone()).instrument(span.clone()).await;
        trace::rested(&traced, execution);
        let _entered = span.enter();
        self.telemetry.walked(&execution.entry_point, begun.elapsed());
        match walked {
            Ok(Walked::Ended) => {
                self.telemetry.ended(execution.state);
                let error = execution.error.as_deref();
                tracing::info!(state = execution.state.as_str(), steps = execution.steps, error, "ended");
            }
            Ok(walked) => tracing::debug!(?walked, state = execution.state.as_str(), "does not go on now"),
            Err(error) => {
                tracing::error!(%error, "progress could not be written");
                return Walked::Lost;
            }
        }
        walked.unwrap_or(Walked::Lost)
    }

    async fn walk_on(
        &self,
        execution: &mut Execution,
        permit: &ExecutionPermit,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Walked, Error> {
        let agent = self.definition_of(execution);
        self.count_progress(execution).await?;
        let tokens = AtomicI64::new(self.store.usage(&execution_key(&execution.id)).await?);
        let mut planned = plan::take_up(execution, agent.as_deref(), Timestamp::now());
        if let (false, Some(agent)) = (execution.state.is_terminal(), &agent)
            && agent.limits.seconds_per_day > 0
            && self.store.usage(&day_key("millis", Timestamp::now())).await?
                >= agent.limits.seconds_per_day.saturating_mul(1000)
        {
            let over = plan::give_up(execution, "limit", day_is_over(agent), Timestamp::now());
            planned.entries.extend(over.entries);
        }
        if !self.keep(execution, planned, &tokens, Vec::new()).await? {
            return Ok(Walked::Ended);
        }
        let Some(agent) = agent.filter(|_| !execution.state.is_terminal()) else { return Ok(Walked::Ended) };
        let id = execution.id.clone();
        let walk = Walk { engine: self, agent: Arc::clone(&agent), id: &id, permit, tokens: &tokens };
        let mut paid = std::time::Instant::now();
        let kept = walk.branches(execution, orders, &mut paid).await?;
        if agent.limits.seconds_per_day > 0 {
            let left = paid.saturating_duration_since(std::time::Instant::now());
            let left = i64::try_from(left.as_millis()).unwrap_or(0);
            let used = Used { key: day_key("millis", Timestamp::now()), amount: -left };
            self.store.append(id.clone(), Vec::new(), vec![used]).await?;
        }
        if !kept || execution.state.is_terminal() {
            return Ok(Walked::Ended);
        }
        // What stops here for the gate's sake has not brought anything down.
        execution.claims = 0;
        plan::rest(&agent, execution);
        let kept = self.keep(execution, Planned::default(), &tokens, Vec::new()).await?;
        Ok(if kept { Walked::Rests } else { Walked::Ended })
    }

    /// An execution that has journalled anything since it was last taken up makes progress.
    async fn count_progress(&self, execution: &mut Execution) -> Result<(), Error> {
        if execution.claims > 0 {
            let last = self.store.last_entry(&execution.id).await?;
            if last.is_some_and(|entry| !matches!(entry.what, What::Begun | What::Intended { .. })) {
                execution.claims = 0;
            }
        }
        Ok(())
    }

    /// Commits an execution as it is, with what happened. False if it had ended before.
    pub(super) async fn keep(
        &self,
        execution: &mut Execution,
        planned: Planned,
        tokens: &AtomicI64,
        used: Vec<Used>,
    ) -> Result<bool, Error> {
        execution.tokens = tokens.load(Ordering::Relaxed);
        let here = TraceContext::here(execution.trace.as_ref());
        let begins: Vec<_> = self
            .begun_by(&planned.events)
            .into_iter()
            .map(|(begun, rank)| (begun.traced(here.clone()), rank))
            .collect();
        let commit =
            Commit { execution: execution.clone(), entries: planned.entries.clone(), begins: begins.clone(), used };
        let Some(seqs) = self.store.commit(commit).await? else { return Ok(false) };
        self.show(&execution.id, seqs, &planned.entries);
        for (begun, _) in begins {
            self.line_up(begun);
        }
        Ok(true)
    }
}

fn day_is_over(agent: &Agent) -> String {
    format!("graph.limits.seconds_per_day of {} is used up", agent.limits.seconds_per_day)
}

/// One execution under way.
struct Walk<'a> {
    engine: &'a Engine,
    agent: Arc<Agent>,
    id: &'a str,
    permit: &'a ExecutionPermit,
    tokens: &'a AtomicI64,
}

impl<'a> Walk<'a> {
    /// Runs branches side by side until none can go on. False if the execution had ended before.
    async fn branches(
        &self,
        execution: &mut Execution,
        orders: &mut mpsc::Receiver<Order>,
        paid: &mut std::time::Instant,
    ) -> Result<bool, Error> {
        let mut running: Running<'a> = FuturesUnordered::new();
        let walked = self.run_branches(execution, orders, paid, &mut running).await;
        if walked.is_err() {
            // Whoever takes it up next must find nothing of it under way.
            self.permit.abort();
            while running.next().await.is_some() {}
        }
        walked
    }

    async fn run_branches(
        &self,
        execution: &mut Execution,
        orders: &mut mpsc::Receiver<Order>,
        paid: &mut std::time::Instant,
        running: &mut Running<'a>,
    ) -> Result<bool, Error> {
        let mut busy: BTreeSet<String> = BTreeSet::new();
        let mut interrupted = false;
        loop {
            let open = self.engine.gate.mode() == GateMode::Open && !interrupted;
            // First, so that nothing begins that has no time left.
            if let Some(over) = self.deadline(execution).filter(|over| over.at <= Timestamp::now()) {
                let planned = plan::give_up(execution, over.kind, over.reason, Timestamp::now());
                return self.commit(execution, planned, running).await;
            }
            if execution.state == State::Running && !self.pay(paid).await? {
                let planned = plan::give_up(execution, "limit", day_is_over(&self.agent), Timestamp::now());
                return self.commit(execution, planned, running).await;
            }
            if open && execution.due().is_some_and(|due| due <= Timestamp::now()) {
                let planned = plan::wake(&self.agent, execution, Timestamp::now());
                if !self.commit(execution, planned, running).await? {
                    return Ok(false);
                }
            }
            let goes_on = execution.state == State::Running && !interrupted;
            for id in plan::ready(execution).into_iter().filter(|_| goes_on) {
                if !busy.contains(&id)
                    && let Some(branch) = execution.branches.get(&id).cloned()
                {
                    let memory = plan::view(execution, &id);
                    busy.insert(id.clone());
                    running.push(self.run(id, branch, memory, execution.trace.clone()));
                }
            }
            if running.is_empty() {
                break;
            }
            let mut told = None;
            let planned = tokio::select! {
                Some((id, settled)) = running.next() => {
                    busy.remove(&id);
                    let (outcome, choice) = settled?;
                    interrupted |= matches!(outcome, Outcome::Interrupted);
                    if matches!(outcome, Outcome::Interrupted) || execution.state != State::Running {
                        continue;
                    }
                    execution.claims = 0;
                    plan::settle(&self.agent, execution, &id, outcome, &choice, Timestamp::now())
                }
                Some(order) = orders.recv() => {
                    let (planned, teller) = self.obey(order, execution);
                    told = teller;
                    planned
                }
                () = self.due(execution, open, *paid) => continue,
            };
            if !self.commit(execution, planned, running).await? {
                return Ok(false);
            }
            if let Some(told) = told {
                // It may have hung up; the answer stands all the same.
                let _ = told.send(Ok(()));
            }
        }
        if execution.state == State::Cancelling {
            let planned = plan::cancel(execution, false, Timestamp::now());
            return self.engine.keep(execution, planned, self.tokens, Vec::new()).await;
        }
        Ok(true)
    }

    /// Reserves the next seconds of the day before they are used. False when there are none left.
    async fn pay(&self, paid: &mut std::time::Instant) -> Result<bool, Error> {
        let limit = self.agent.limits.seconds_per_day;
        while limit > 0 && *paid <= std::time::Instant::now() {
            let amount = i64::try_from(PAID_AT_ONCE.as_millis()).unwrap_or(i64::MAX);
            let used = Used { key: day_key("millis", Timestamp::now()), amount };
            if self.engine.store.reserve(self.id, vec![(used, limit.saturating_mul(1000))]).await?.is_some() {
                return Ok(false);
            }
            *paid += PAID_AT_ONCE;
        }
        Ok(true)
    }

    fn run(
        &self,
        id: String,
        branch: crate::store::Branch,
        memory: serde_json::Map<String, serde_json::Value>,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'a, Settled> {
        let (permit, tokens) = (self.permit, self.tokens);
        let agent = Arc::clone(&self.agent);
        let run = Run { execution: self.id, agent, id, branch, memory, permit, tokens, trace };
        let engine = self.engine;
        Box::pin(async move { engine.run_node(run).await })
    }

    /// Obeys an order. Who is to be told is told once what was planned is on disk.
    fn obey(&self, order: Order, execution: &mut Execution) -> (Planned, Option<Teller>) {
        match order {
            Order::Cancel { told } => {
                self.permit.abort();
                (plan::cancel(execution, true, Timestamp::now()), Some(told))
            }
            Order::Answer { branch, value, told } => {
                match plan::answer(&self.agent, execution, branch.as_deref(), &value, Timestamp::now()) {
                    Ok(planned) => (planned, Some(told)),
                    Err(refused) => {
                        // It may have hung up.
                        let _ = told.send(Err(refused));
                        (Planned::default(), None)
                    }
                }
            }
        }
    }

    /// The execution's deadline; one that is being cancelled has none any more.
    fn deadline(&self, execution: &Execution) -> Option<plan::Deadline> {
        if execution.state != State::Running {
            return None;
        }
        let entry = self.agent.entry_points.get(&execution.entry_point);
        plan::deadline(&self.agent, entry, execution)
    }

    /// Returns at the execution's deadline, when a branch of it is due, or when the day's seconds are to be paid on.
    async fn due(&self, execution: &Execution, open: bool, paid: std::time::Instant) {
        let now = Timestamp::now();
        let left = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
        let due = execution.due().filter(|_| open).map(left);
        let until = self.deadline(execution).map(|deadline| left(deadline.at));
        let paid = (self.agent.limits.seconds_per_day > 0)
            .then(|| paid.saturating_duration_since(std::time::Instant::now()) + Duration::from_millis(1));
        tokio::time::sleep([due, until, paid].into_iter().flatten().min().unwrap_or(LONG).min(LONG)).await;
    }

    /// Commits. An end is not shown before the last effect has ended.
    async fn commit(
        &self,
        execution: &mut Execution,
        planned: Planned,
        running: &mut Running<'_>,
    ) -> Result<bool, Error> {
        if execution.state.is_terminal() && !running.is_empty() {
            self.permit.abort();
            while running.next().await.is_some() {}
        }
        let settled =
            planned.entries.iter().filter(|entry| matches!(entry.what, What::Succeeded { .. } | What::Failed { .. }));
        let steps = i64::try_from(settled.count()).unwrap_or(i64::MAX);
        // Where there is a limit, they were counted before they were taken.
        let counts = steps > 0 && self.agent.limits.steps_per_day == 0;
        let used = counts.then(|| Used { key: day_key("steps", Timestamp::now()), amount: steps });
        self.engine.keep(execution, planned, self.tokens, used.into_iter().collect()).await
    }
}
