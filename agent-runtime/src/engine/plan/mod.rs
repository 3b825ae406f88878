//! The rules of an execution: what may run, what a node's outcome leads to, what ends it. Pure: no
//! I/O, no clock of its own.

mod fork;
mod next;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::step::{Failure, Outcome};
use crate::definition::{Agent, EntryPoint, Node, NodeKind};
use crate::store::{About, Branch, Entry, Execution, MAIN, Phase, State, What};

pub(super) use next::{spread, wants_model};

/// An execution that was taken up this often without any progress brings the process down, or worse.
const MAX_CLAIMS: u32 = 3;
/// The pause before the second attempt at a node; it doubles up to `MAX_BACKOFF`.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What came of a step of the plan.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// What happened, for the journal.
    pub(super) entries: Vec<Entry>,
    /// Events that were emitted, with their outputs.
    pub(super) events: Vec<(String, Map<String, Value>)>,
}

/// Takes an execution up. An error says why it has failed instead.
pub(super) fn take_up(execution: &mut Execution, agent: Option<&Agent>, now: Timestamp) -> Planned {
    let mut planned = Planned::default();
    if execution.state == State::Cancelling {
        end(execution, State::Cancelled, now, &mut planned);
        return planned;
    }
    execution.state = State::Running;
    execution.started.get_or_insert(now);
    execution.claims += 1;
    planned.entries.push(entry(MAIN, execution.branches.get(MAIN), What::Begun, now));
    if execution.claims > MAX_CLAIMS {
        fail(execution, "crash_loop", "taken up three times without progress".to_owned(), now, &mut planned);
    } else if agent.is_none() {
        let reason = format!("definition {} cannot be run by this version", execution.definition);
        fail(execution, "definition", reason, now, &mut planned);
    }
    planned
}

/// Lets go on what is due: parked branches, and questions that have expired.
pub(super) fn wake(agent: &Agent, execution: &mut Execution, now: Timestamp) -> Planned {
    let mut planned = Planned::default();
    let due = |branch: &Branch| match &branch.phase {
        Phase::Parked { until } => *until <= now,
        Phase::Asking { expires, .. } => *expires <= now,
        Phase::Ready | Phase::Forked { .. } | Phase::Arrived { .. } | Phase::Ended | Phase::Failed { .. } => false,
    };
    let ids: Vec<String> = execution.branches.iter().filter(|(_, b)| due(b)).map(|(id, _)| id.clone()).collect();
    for id in ids {
        let Some(branch) = execution.branches.get_mut(&id) else { continue };
        if matches!(branch.phase, Phase::Asking { .. }) {
            let failure = Failure::new("expired", "nobody answered in time");
            next::fail_node(agent, execution, &id, &failure, &Choice::default(), now, &mut planned);
        } else {
            branch.phase = Phase::Ready;
        }
    }
    conclude(execution, now, &mut planned);
    planned
}

/// The branches whose nodes may be run now.
pub(super) fn ready(execution: &Execution) -> Vec<String> {
    if execution.state.is_terminal() {
        return Vec::new();
    }
    let ready = execution.branches.iter().filter(|(_, branch)| branch.phase == Phase::Ready);
    ready.map(|(id, _)| id.clone()).collect()
}

/// The edges that the model chose, by id.
pub(super) type Choice = BTreeSet<String>;

/// Goes on from what came of a branch's node.
pub(super) fn settle(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    outcome: Outcome,
    choice: &Choice,
    now: Timestamp,
) -> Planned {
    let mut planned = Planned::default();
    let Some(node) = node_of(agent, execution, id) else {
        fail(execution, "definition", format!("branch {id} is at no node"), now, &mut planned);
        return planned;
    };
    let Some(branch) = execution.branches.get_mut(id) else { return planned };
    match outcome {
        Outcome::Interrupted => return planned,
        Outcome::Parked(length) => {
            branch.waited = true;
            branch.phase = Phase::Parked { until: later(now, length) };
        }
        Outcome::Asks { question, call, about, expires } => {
            branch.phase = Phase::Asking { question: question.clone(), about, expires: later(now, expires) };
            let asked = entry(id, Some(&*branch), What::Asked { question, call }, now);
            planned.entries.push(asked);
        }
        Outcome::Success(outputs) => next::succeed(agent, execution, id, outputs, choice, now, &mut planned),
        Outcome::Failure(failure) if failure.kind == "limit" => {
            fail(execution, "limit", failure.reason, now, &mut planned);
        }
        Outcome::Failure(failure) if tries_again(node, branch, &failure) => {
            let doubled = BACKOFF.saturating_mul(2u32.saturating_pow(branch.attempt.min(16)));
            let failed = What::Failed {
                kind: failure.kind.to_owned(),
                reason: failure.reason.clone(),
                again: true,
                next: Vec::new(),
            };
            planned.entries.push(entry(id, Some(&*branch), failed, now));
            branch.attempt += 1;
            branch.waited = false;
            branch.phase = Phase::Parked { until: later(now, doubled.min(MAX_BACKOFF)) };
            execution.error = Some(format!("{}: {}", branch.node, failure.reason));
        }
        Outcome::Failure(failure) => next::fail_node(agent, execution, id, &failure, choice, now, &mut planned),
    }
    conclude(execution, now, &mut planned);
    planned
}

fn tries_again(node: &Node, branch: &Branch, failure: &Failure) -> bool {
    let named = |kind: &String| failure.kind == kind || failure.reason.to_ascii_lowercase().contains(kind.as_str());
    branch.attempt < node.max_retries && (node.retry_on.is_empty() || node.retry_on.iter().any(named))
}

/// Why a person's answer was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nothing was asked.
    #[error("it does not wait for an answer; it is {0}")]
    NotAsking(&'static str),
    /// Several branches ask.
    #[error("several branches ask: name one of {0}")]
    Ambiguous(String),
    /// The answer is not one of those that are possible.
    #[error(
        "an uncertain effect is answered with {{\"action\": \"retry\"}}, {{\"action\": \"use\", \"output\": {{..}}}} or {{\"action\": \"fail\"}}"
    )]
    Action,
    /// What the replica that runs it said.
    #[error("{0}")]
    Said(String),
}

/// What a person says of an effect whose end is not known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict<'a> {
    /// It is to be begun again.
    Retry,
    /// This came of it.
    Use(&'a Value),
    /// It failed.
    Fail,
}

/// Why an effect failed of which a person says so.
pub(super) const SAID_TO_HAVE_FAILED: &str = "a person said that it failed";

/// What an answer says of an effect; none if it is no such answer.
pub(super) fn verdict(value: &Value) -> Option<Verdict<'_>> {
    match (value.get("action").and_then(Value::as_str)?, value.get("output")) {
        ("retry", _) => Some(Verdict::Retry),
        ("use", Some(output)) => Some(Verdict::Use(output)),
        ("fail", _) => Some(Verdict::Fail),
        (_, _) => None,
    }
}

/// Takes in a person's answer.
pub(super) fn answer(
    agent: &Agent,
    execution: &mut Execution,
    wanted: Option<&str>,
    value: &Value,
    now: Timestamp,
) -> Result<Planned, Unanswered> {
    let asking = execution.branches.iter().filter(|(id, branch)| {
        matches!(branch.phase, Phase::Asking { .. }) && wanted.is_none_or(|wanted| wanted == id.as_str())
    });
    let ids: Vec<String> = asking.map(|(id, _)| id.clone()).collect();
    let id = match ids.as_slice() {
        [] => return Err(Unanswered::NotAsking(execution.state.as_str())),
        [id] => id.clone(),
        several => return Err(Unanswered::Ambiguous(several.join(", "))),
    };
    let mut planned = Planned::default();
    let of_tool = node_of(agent, execution, &id).is_some_and(|node| matches!(node.kind, NodeKind::Loop(_)));
    let Some(branch) = execution.branches.get_mut(&id) else { return Ok(planned) };
    let Phase::Asking { about, .. } = branch.phase else { return Ok(planned) };
    planned.entries.push(entry(&id, Some(&*branch), What::Input { value: value.clone() }, now));
    match about {
        About::Input => branch.phase = Phase::Ready,
        About::Pause => next::resume(agent, execution, &id, value, now, &mut planned),
        About::Uncertain => match verdict(value).ok_or(Unanswered::Action)? {
            // The node goes on, and its model is told what the person said of the call.
            _ if of_tool => branch.phase = Phase::Ready,
            Verdict::Retry => branch.phase = Phase::Ready,
            Verdict::Use(Value::Object(output)) => {
                next::succeed(agent, execution, &id, output.clone(), &Choice::default(), now, &mut planned);
            }
            Verdict::Use(_) => return Err(Unanswered::Action),
            Verdict::Fail => {
                let failure = Failure::new("uncertain", SAID_TO_HAVE_FAILED);
                next::fail_node(agent, execution, &id, &failure, &Choice::default(), now, &mut planned);
            }
        },
    }
    conclude(execution, now, &mut planned);
    Ok(planned)
}

/// Cancels an execution of which nothing runs, or marks it so that nothing begins.
pub(super) fn cancel(execution: &mut Execution, runs: bool, now: Timestamp) -> Planned {
    let mut planned = Planned::default();
    if runs {
        execution.state = State::Cancelling;
        planned.entries.push(state(execution, now));
    } else {
        end(execution, State::Cancelled, now, &mut planned);
    }
    planned
}

/// Makes a failed or cancelled execution one that goes on where it ended. False if it cannot.
pub(super) fn retry(execution: &mut Execution, now: Timestamp) -> Option<Planned> {
    if !matches!(execution.state, State::Failed | State::Cancelled) {
        return None;
    }
    for branch in execution.branches.values_mut() {
        if matches!(branch.phase, Phase::Failed { .. }) {
            branch.phase = Phase::Ready;
            branch.attempt += 1;
        }
    }
    execution.state = State::Queued;
    (execution.ended, execution.reason, execution.error, execution.started) = (None, None, None, None);
    execution.claims = 0;
    Some(Planned { entries: vec![state(execution, now)], events: Vec::new() })
}

/// By when an execution has to have ended, and why it has failed if it has not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    pub(super) at: Timestamp,
    pub(super) kind: &'static str,
    pub(super) reason: String,
}

/// The first deadline of an execution.
pub(super) fn deadline(agent: &Agent, entry: Option<&EntryPoint>, execution: &Execution) -> Option<Deadline> {
    let started = execution.started?;
    let timeout = entry.and_then(|entry| entry.timeout).map(|timeout| {
        let reason = format!("it did not end within {} s, its entry point's timeout", timeout.as_secs_f32());
        Deadline { at: later(started, timeout), kind: "timeout", reason }
    });
    let seconds = u64::try_from(agent.limits.seconds).ok().filter(|seconds| *seconds > 0);
    let limit = seconds.map(|seconds| {
        let reason = format!("graph.limits.seconds of {seconds} is used up");
        Deadline { at: later(started, Duration::from_secs(seconds)), kind: "limit", reason }
    });
    [timeout, limit].into_iter().flatten().min()
}

/// Fails an execution, such as one that took too long.
pub(super) fn give_up(execution: &mut Execution, kind: &str, reason: String, now: Timestamp) -> Planned {
    let mut planned = Planned::default();
    fail(execution, kind, reason, now, &mut planned);
    planned
}

/// The state of an execution of which nothing runs any more for now. Whatever it waits for, it is looked
/// at again at its deadline.
pub(super) fn rest(agent: &Agent, execution: &mut Execution) {
    if execution.state.is_terminal() || execution.state == State::Cancelling {
        return;
    }
    execution.state = if ready(execution).is_empty() { State::Waiting } else { State::Queued };
    let entry = agent.entry_points.get(&execution.entry_point);
    let Some(deadline) = deadline(agent, entry, execution) else { return };
    for branch in execution.branches.values_mut() {
        match &mut branch.phase {
            Phase::Parked { until: at } | Phase::Asking { expires: at, .. } => *at = (*at).min(deadline.at),
            Phase::Ready | Phase::Forked { .. } | Phase::Arrived { .. } | Phase::Ended | Phase::Failed { .. } => {}
        }
    }
}

/// What a branch sees: the execution's memory under what it and the branches it came from have written.
pub(super) fn view(execution: &Execution, id: &str) -> Map<String, Value> {
    let mut memory = execution.memory.clone();
    for (at, _) in id.match_indices('.').chain([(id.len(), "")]) {
        if let Some(branch) = id.get(..at).and_then(|ancestor| execution.branches.get(ancestor)) {
            memory.extend(branch.writes.clone());
        }
    }
    memory
}

pub(super) fn node_of<'a>(agent: &'a Agent, execution: &Execution, id: &str) -> Option<&'a Node> {
    agent.nodes.get(&execution.branches.get(id)?.node)
}

pub(super) fn entry(id: &str, branch: Option<&Branch>, what: What, at: Timestamp) -> Entry {
    let (node, visit, attempt) = branch.map_or((String::new(), 0, 0), |b| (b.node.clone(), b.visit, b.attempt));
    Entry { at, branch: id.to_owned(), node, visit, attempt, what }
}

/// Ends the execution once its first branch has.
fn conclude(execution: &mut Execution, now: Timestamp, planned: &mut Planned) {
    if execution.state.is_terminal() {
        return;
    }
    match fork::outcome(execution, MAIN) {
        Some(Ok(())) => end(execution, State::Succeeded, now, planned),
        Some(Err(reason)) => fail(execution, "node", reason, now, planned),
        None => {}
    }
}

fn fail(execution: &mut Execution, kind: &str, reason: String, now: Timestamp, planned: &mut Planned) {
    if execution.state.is_terminal() {
        return;
    }
    execution.reason = Some(kind.to_owned());
    execution.error = Some(if kind == "node" { reason } else { format!("{kind}: {reason}") });
    end(execution, State::Failed, now, planned);
}

fn end(execution: &mut Execution, how: State, now: Timestamp, planned: &mut Planned) {
    execution.state = how;
    execution.ended = Some(now);
    if how == State::Succeeded {
        execution.error = None;
    }
    planned.entries.push(state(execution, now));
}

fn state(execution: &Execution, now: Timestamp) -> Entry {
    let what = What::State { state: execution.state, error: execution.error.clone() };
    entry(MAIN, execution.branches.get(MAIN), what, now)
}

fn later(now: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    now.checked_add(length).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
