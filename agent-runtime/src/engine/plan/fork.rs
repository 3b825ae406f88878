//! Branches: how one becomes several, where they come together, and what each may write.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Planned, fail};
use crate::definition::Agent;
use crate::store::{Branch, Execution, Phase};

/// Puts values where a branch writes: the first one into the memory, others into their own.
pub(super) fn write(execution: &mut Execution, id: &str, values: Map<String, Value>) {
    if parent(id).is_none() {
        execution.memory.extend(values);
    } else if let Some(branch) = execution.branches.get_mut(id) {
        branch.writes.extend(values);
    }
}

/// Moves a branch to a node, or to its join.
pub(super) fn go(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    target: &str,
    now: Timestamp,
    planned: &mut Planned,
) {
    if joins(execution, id, target) {
        if let Some(branch) = execution.branches.get_mut(id) {
            branch.phase = Phase::Arrived { at: target.to_owned() };
        }
        gather(agent, execution, id, now, planned);
        return;
    }
    let Some(visit) = enter(agent, execution, target, now, planned) else { return };
    if let Some(branch) = execution.branches.get_mut(id) {
        let writes = std::mem::take(&mut branch.writes);
        *branch = Branch { writes, ..Branch::at(target, visit) };
    }
}

/// Makes one branch of each target, all of which begin now.
pub(super) fn fork(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    targets: Vec<(String, Map<String, Value>)>,
    now: Timestamp,
    planned: &mut Planned,
) {
    let names: Vec<&str> = targets.iter().map(|(target, _)| target.as_str()).collect();
    let join = agent.join(&names).map(str::to_owned);
    let ids: Vec<String> = (1..).zip(&targets).map(|(n, _)| format!("{id}.{}", execution.forks + n)).collect();
    execution.forks += u32::try_from(ids.len()).unwrap_or(u32::MAX);
    if let Some(branch) = execution.branches.get_mut(id) {
        branch.phase = Phase::Forked { join, branches: ids.clone() };
    }
    for (child, (target, carried)) in ids.iter().zip(targets) {
        let waits = Branch { writes: carried, ..Branch::at(&target, 0) };
        execution.branches.insert(child.clone(), waits);
    }
    for child in ids {
        // A branch made here may be at its join already: then it waits for the others at once.
        if let Some(target) = execution.branches.get(&child).map(|branch| branch.node.clone()) {
            go(agent, execution, &child, &target, now, planned);
        }
    }
}

/// A branch has come to its end: when all of its fork have, their parent goes on.
pub(super) fn gather(agent: &Agent, execution: &mut Execution, id: &str, now: Timestamp, planned: &mut Planned) {
    let Some(parent) = parent(id).map(str::to_owned) else { return };
    let Some(Phase::Forked { join, branches }) = execution.branches.get(&parent).map(|branch| branch.phase.clone())
    else {
        return;
    };
    if branches.iter().any(|child| outcome(execution, child).is_none()) {
        return;
    }
    // What failed stays as it is, so that it can be tried again from there.
    if branches.iter().any(|child| matches!(outcome(execution, child), Some(Err(_)))) {
        gather(agent, execution, &parent, now, planned);
        return;
    }
    let mut arrived = None;
    let mut merged = Map::new();
    for child in &branches {
        let Some(child) = execution.branches.remove(child) else { continue };
        if let Phase::Arrived { at } = child.phase {
            arrived = arrived.filter(|found: &String| Some(found) == join.as_ref()).or(Some(at));
        }
        for (key, value) in child.writes {
            if merged.get(&key).is_some_and(|before| *before != value) {
                tracing::warn!(execution = %execution.id, key, "branches wrote different values: the last in edge order is kept");
            }
            merged.insert(key, value);
        }
    }
    write(execution, &parent, merged);
    match arrived {
        Some(at) => go(agent, execution, &parent, &at, now, planned),
        None => {
            if let Some(branch) = execution.branches.get_mut(&parent) {
                branch.phase = Phase::Ended;
            }
            gather(agent, execution, &parent, now, planned);
        }
    }
}

/// How a branch has ended; none while it has not. One that forked has failed once all of its branches
/// have come to an end and one of them failed.
pub(super) fn outcome(execution: &Execution, id: &str) -> Option<Result<(), String>> {
    match &execution.branches.get(id)?.phase {
        Phase::Arrived { .. } | Phase::Ended => Some(Ok(())),
        Phase::Failed { reason } => Some(Err(reason.clone())),
        Phase::Forked { branches, .. } => {
            let ends: Option<Vec<_>> = branches.iter().map(|child| outcome(execution, child)).collect();
            ends?.into_iter().find(Result::is_err)
        }
        Phase::Ready | Phase::Parked { .. } | Phase::Asking { .. } => None,
    }
}

/// Whether a node is the join of a fork that a branch belongs to.
fn joins(execution: &Execution, id: &str, target: &str) -> bool {
    let mut at = id;
    while let Some(parent) = parent(at) {
        if let Some(Branch { phase: Phase::Forked { join: Some(join), .. }, .. }) = execution.branches.get(parent)
            && join == target
        {
            return true;
        }
        at = parent;
    }
    false
}

/// Counts a visit and a step; none when a limit is reached, and then the execution has failed.
fn enter(agent: &Agent, execution: &mut Execution, target: &str, now: Timestamp, planned: &mut Planned) -> Option<u32> {
    let visits = execution.visits.get(target).copied().unwrap_or(0);
    let most = agent.nodes.get(target).map_or(0, |node| node.max_visits);
    let reason = if execution.steps >= agent.max_steps {
        format!("graph.max_steps of {} node executions is used up", agent.max_steps)
    } else if most > 0 && visits >= most {
        format!("{target} was visited {visits} times, its max_node_visits")
    } else {
        execution.steps += 1;
        execution.visits.insert(target.to_owned(), visits + 1);
        return Some(visits);
    };
    fail(execution, "limit", reason, now, planned);
    None
}

fn parent(id: &str) -> Option<&str> {
    id.rsplit_once('.').map(|(parent, _)| parent)
}
