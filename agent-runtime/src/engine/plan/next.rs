//! After a node: which edges are followed, and what is carried along them.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Choice, Planned, entry, fork, node_of, view};
use crate::definition::{Agent, Condition, Edge, Node, NodeKind};
use crate::engine::step::Failure;
use crate::store::{About, Execution, Phase, What};

/// How long a person has for an answer after a pause of the graph: as for a question of the model.
const EXPIRES: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// The edges of a node that only the model can decide.
pub(in crate::engine) fn wants_model(node: &Node) -> Vec<(&Edge, &str)> {
    let edges = node.edges.iter().filter_map(|edge| match &edge.condition {
        Condition::Model(question) => Some((edge, question.as_str())),
        Condition::Always | Condition::OnSuccess | Condition::OnFailure | Condition::Expression(_) => None,
    });
    edges.collect()
}

pub(super) fn succeed(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    outputs: Map<String, Value>,
    choice: &Choice,
    now: Timestamp,
    planned: &mut Planned,
) {
    let Some(node) = node_of(agent, execution, id) else { return };
    fork::write(execution, id, outputs.clone());
    planned.events.extend(node.emits.iter().map(|name| (name.clone(), outputs.clone())));
    let before = execution.branches.get(id).cloned();
    if node.pauses
        && let Some(branch) = execution.branches.get_mut(id)
    {
        let question = format!("the graph pauses after {:?}: send what it is to go on with", branch.node);
        branch.phase = Phase::Asking { question, about: About::Pause, expires: super::later(now, EXPIRES) };
        planned.entries.push(entry(id, before.as_ref(), What::Succeeded { outputs, next: Vec::new() }, now));
        return;
    }
    let edges = chosen(node, &Some(&outputs), choice, &view(execution, id));
    let next = targets(&edges);
    planned.entries.push(entry(id, before.as_ref(), What::Succeeded { outputs, next: next.clone() }, now));
    follow(agent, execution, id, &edges, next, now, planned);
}

pub(super) fn fail_node(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    failure: &Failure,
    choice: &Choice,
    now: Timestamp,
    planned: &mut Planned,
) {
    let Some(node) = node_of(agent, execution, id) else { return };
    let before = execution.branches.get(id).cloned();
    let reason = before.as_ref().map_or_else(String::new, |branch| format!("{}: {}", branch.node, failure.reason));
    let edges = chosen(node, &None, choice, &view(execution, id));
    let next = targets(&edges);
    let (kind, again) = (failure.kind.to_owned(), false);
    let what = What::Failed { kind, reason: failure.reason.clone(), again, next: next.clone() };
    planned.entries.push(entry(id, before.as_ref(), what, now));
    execution.error = Some(reason.clone());
    if next.is_empty() {
        if let Some(branch) = execution.branches.get_mut(id) {
            branch.phase = Phase::Failed { reason };
        }
        fork::gather(agent, execution, id, now, planned);
    } else {
        follow(agent, execution, id, &edges, next, now, planned);
    }
}

/// Goes on after a pause of the graph: where `NODE_resume` says, or along the node's edges.
pub(super) fn resume(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    value: &Value,
    now: Timestamp,
    planned: &mut Planned,
) {
    let Some(node) = node_of(agent, execution, id) else { return };
    let mut said = match value {
        Value::Object(fields) => fields.clone(),
        other => Map::from_iter([("input".to_owned(), other.clone())]),
    };
    if matches!(node.kind, NodeKind::Pass) {
        // The node does nothing but ask: what was said is what it hands in.
        said.extend(spread(node, value));
    }
    fork::write(execution, id, said.clone());
    let paused = execution.branches.get(id).map(|branch| branch.node.clone()).unwrap_or_default();
    if let Some(target) = agent.resume.get(&paused) {
        fork::go(agent, execution, id, target, now, planned);
        return;
    }
    let memory = view(execution, id);
    let edges = chosen(node, &Some(&said), &Choice::default(), &memory);
    let next = targets(&edges);
    follow(agent, execution, id, &edges, next, now, planned);
}

/// What a person said as a node's outputs: an object that has any of them, or the same for each.
pub(in crate::engine) fn spread(node: &Node, value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) if node.outputs.iter().any(|output| fields.contains_key(&output.key)) => fields.clone(),
        other => node.outputs.iter().map(|output| (output.key.clone(), other.clone())).collect(),
    }
}

/// The edges that hold, in priority order. Of several expressions that hold, only those of the
/// highest priority are followed.
fn chosen<'a>(
    node: &'a Node,
    outputs: &Option<&Map<String, Value>>,
    choice: &Choice,
    memory: &Map<String, Value>,
) -> Vec<&'a Edge> {
    let holds = |edge: &&Edge| {
        match (&edge.condition, outputs) {
        (Condition::Always, _) | (Condition::OnSuccess, Some(_)) | (Condition::OnFailure, None) => true,
        (Condition::OnSuccess | Condition::Expression(_) | Condition::Model(_), None)
        | (Condition::OnFailure, Some(_)) => false,
        (Condition::Model(_), Some(_)) => choice.contains(&edge.id),
        (Condition::Expression(expression), Some(outputs)) => {
            expression.holds(memory, outputs).unwrap_or_else(|error| {
                tracing::warn!(edge = %edge.id, %error, "a condition could not be evaluated, so its edge is not followed");
                false
            })
        }
    }
    };
    let mut edges: Vec<&Edge> = node.edges.iter().filter(holds).collect();
    let conditional = |edge: &Edge| matches!(edge.condition, Condition::Expression(_));
    let highest = edges.iter().filter(|edge| conditional(edge)).map(|edge| edge.priority).max();
    edges.retain(|edge| !conditional(edge) || Some(edge.priority) == highest);
    edges
}

fn targets(edges: &[&Edge]) -> Vec<String> {
    let mut targets: Vec<String> = Vec::new();
    for edge in edges {
        if !targets.contains(&edge.target) {
            targets.push(edge.target.clone());
        }
    }
    targets
}

fn follow(
    agent: &Agent,
    execution: &mut Execution,
    id: &str,
    edges: &[&Edge],
    next: Vec<String>,
    now: Timestamp,
    planned: &mut Planned,
) {
    let memory = view(execution, id);
    let carried = |target: &str| -> Map<String, Value> {
        let along = edges.iter().filter(|edge| edge.target == target).flat_map(|edge| &edge.mapping);
        along.map(|(to, from)| (to.clone(), memory.get(from).cloned().unwrap_or(Value::Null))).collect()
    };
    match next.as_slice() {
        [] => {
            if let Some(branch) = execution.branches.get_mut(id) {
                branch.phase = Phase::Ended;
            }
            fork::gather(agent, execution, id, now, planned);
        }
        [target] => {
            fork::write(execution, id, carried(target));
            fork::go(agent, execution, id, target, now, planned);
        }
        several => {
            let branches = several.iter().map(|target| (target.clone(), carried(target))).collect();
            fork::fork(agent, execution, id, branches, now, planned);
        }
    }
}
