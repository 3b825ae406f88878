//! One execution's way through its graph: run a node, commit what came of it, choose the next.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tracing::Instrument as _;

use super::step::{Outcome, Step};
use super::{Engine, exec, fill};
use crate::definition::{Agent, Node, NodeKind};
use crate::gate::ExecutionPermit;
use crate::store::{Execution, State};

/// An execution that was taken up this often without any progress brings the process down, or worse.
const MAX_CLAIMS: u32 = 3;
/// The pause before the second attempt at a node; it doubles up to `MAX_BACKOFF`.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Why an execution does not go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// It has ended.
    Ended,
    /// It goes on at a time.
    Parked,
    /// The gate closed, or its step was interrupted.
    Checkpointed,
    /// The store failed; the next process takes it up.
    Lost,
}

impl Engine {
    pub(super) async fn walk(&self, execution: &mut Execution, permit: &ExecutionPermit) -> Walked {
        let span = tracing::info_span!("execution", execution = %execution.id, entry_point = %execution.entry_point);
        let walked = self.walk_on(execution, permit).instrument(span.clone()).await;
        let _entered = span.enter();
        match walked {
            Ok(Walked::Ended) => {
                self.telemetry.ended(execution.state);
                let error = execution.error.as_deref();
                tracing::info!(state = execution.state.as_str(), steps = execution.position.steps, error, "ended");
            }
            Ok(walked) => tracing::debug!(?walked, node = %execution.position.node, "does not go on now"),
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
    ) -> Result<Walked, crate::store::Error> {
        execution.state = State::Running;
        execution.due = None;
        execution.claims += 1;
        let agent = self.definition_of(execution);
        let refused = match &agent {
            _ if execution.claims > MAX_CLAIMS => Some("crash_loop: taken up three times without progress".to_owned()),
            None => Some(format!("definition {} cannot be run by this version", execution.definition)),
            Some(_) => None,
        };
        if let Some(reason) = refused {
            fail(execution, reason);
        }
        if !self.store.progress(execution.clone()).await? {
            return Ok(Walked::Ended);
        }
        let Some(agent) = agent else { return Ok(Walked::Ended) };
        while !execution.state.is_terminal() {
            let walked = self.visit(&agent, execution, permit).await;
            execution.claims = 0;
            // One transaction for each node: its outputs and the edge it chose are there, or neither.
            if !self.store.progress(execution.clone()).await? {
                return Ok(Walked::Ended);
            }
            if let Some(walked) = walked {
                return Ok(walked);
            }
        }
        Ok(Walked::Ended)
    }

    /// Runs the node at hand and moves on. `Some` when the execution stops here for now.
    async fn visit(&self, agent: &Agent, execution: &mut Execution, permit: &ExecutionPermit) -> Option<Walked> {
        let id = execution.position.node.clone();
        let Some(node) = agent.nodes.get(&id) else {
            fail(execution, format!("there is no node {id:?}"));
            return None;
        };
        if let Some(reason) = over_limit(agent, node, &id, execution) {
            fail(execution, reason);
            return None;
        }
        match self.run_node(node, &id, execution, permit).await {
            Outcome::Success(outputs) => {
                execution.memory.extend(outputs);
                execution.error = None;
                follow(node, &id, execution, true);
                None
            }
            Outcome::Failure(reason) if execution.position.attempt < node.max_retries => {
                tracing::warn!(node = %id, attempt = execution.position.attempt, %reason, "a node failed and is tried again");
                let doubled = BACKOFF.saturating_mul(2u32.saturating_pow(execution.position.attempt.min(16)));
                execution.position.attempt += 1;
                execution.error = Some(format!("{id}: {reason}"));
                park(execution, doubled.min(MAX_BACKOFF));
                Some(Walked::Parked)
            }
            Outcome::Failure(reason) => {
                tracing::warn!(node = %id, %reason, "a node failed");
                execution.error = Some(format!("{id}: {reason}"));
                follow(node, &id, execution, false);
                None
            }
            Outcome::Interrupted if execution.state == State::Waiting => Some(Walked::Parked),
            Outcome::Interrupted => {
                execution.state = State::Queued;
                Some(Walked::Checkpointed)
            }
        }
    }

    async fn run_node(&self, node: &Node, id: &str, execution: &mut Execution, permit: &ExecutionPermit) -> Outcome {
        let visit = execution.position.visits.get(id).copied().unwrap_or(0);
        let idempotency_key = format!("{}/main/{id}/{visit}/0", execution.id);
        let step = Step { execution: &execution.id, idempotency_key, permit };
        let raw = match &node.kind {
            NodeKind::Wait(_) if execution.position.waited => Outcome::Success(Map::new()),
            NodeKind::Wait(length) => {
                execution.position.waited = true;
                park(execution, *length);
                return Outcome::Interrupted;
            }
            NodeKind::Exec(program) => {
                let Some(_held) = permit.step(id) else { return Outcome::Interrupted };
                let inputs = fill::inputs(&node.inputs, &execution.memory);
                let outcome = exec::run(program, &inputs, &execution.memory, &step, !node.outputs.is_empty()).await;
                self.telemetry.stepped("exec", &outcome);
                outcome
            }
            NodeKind::Http(request) => {
                let Some(_held) = permit.step(id) else { return Outcome::Interrupted };
                let outcome = self.requests.run(request, &execution.memory, &step).await;
                self.telemetry.stepped("http", &outcome);
                outcome
            }
        };
        match raw {
            Outcome::Success(raw) => outputs(node, &raw),
            other @ (Outcome::Failure(_) | Outcome::Interrupted) => other,
        }
    }
}

/// Picks the declared keys; one that is missing fails the node unless it may be null.
fn outputs(node: &Node, raw: &Map<String, Value>) -> Outcome {
    let mut outputs = Map::new();
    for output in &node.outputs {
        match raw.get(&output.key).filter(|value| !value.is_null()) {
            Some(value) => drop(outputs.insert(output.key.clone(), value.clone())),
            None if output.nullable => drop(outputs.insert(output.key.clone(), Value::Null)),
            None => return Outcome::Failure(format!("it gave no output {:?}", output.key)),
        }
    }
    Outcome::Success(outputs)
}

fn over_limit(agent: &Agent, node: &Node, id: &str, execution: &Execution) -> Option<String> {
    let visits = execution.position.visits.get(id).copied().unwrap_or(0);
    if execution.position.steps >= agent.max_steps {
        return Some(format!("limit: graph.max_steps of {} node executions is used up", agent.max_steps));
    }
    (node.max_visits > 0 && visits >= node.max_visits)
        .then(|| format!("limit: {id} was visited {visits} times, its max_node_visits"))
}

/// Goes along the first edge that holds; without one the execution ends here.
fn follow(node: &Node, id: &str, execution: &mut Execution, succeeded: bool) {
    let position = &mut execution.position;
    position.steps += 1;
    position.attempt = 0;
    position.waited = false;
    *position.visits.entry(id.to_owned()).or_default() += 1;
    let Some(edge) = node.edges.iter().find(|edge| edge.condition.holds(succeeded)) else {
        execution.state = if succeeded { State::Succeeded } else { State::Failed };
        execution.ended = Some(Timestamp::now());
        return;
    };
    position.node.clone_from(&edge.target);
    for (target, source) in &edge.mapping {
        let value = execution.memory.get(source).cloned().unwrap_or(Value::Null);
        execution.memory.insert(target.clone(), value);
    }
}

fn fail(execution: &mut Execution, reason: String) {
    execution.state = State::Failed;
    execution.error = Some(reason);
    execution.ended = Some(Timestamp::now());
}

fn park(execution: &mut Execution, length: Duration) {
    execution.state = State::Waiting;
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    execution.due = Some(Timestamp::now().checked_add(length).unwrap_or(Timestamp::MAX));
}
