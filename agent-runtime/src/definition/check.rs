//! From the text to what can be run: every name resolved, every number in its range, all faults at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::shape::{AsyncEntryPoint, EdgeShape, File, Graph, NodeShape};
use super::{Agent, Condition, Edge, EntryPoint, Exec, Fault, Node, NodeKind, Output, Request, Schedule, Trigger};

/// Executions that may wait at an entry point that sets no bound of its own.
const MAX_QUEUED: usize = 1000;
/// The longest time a program or request may be given.
const MAX_TIMEOUT_SECONDS: f64 = 86_400.0;
/// The longest wait of a wait node: a year.
const MAX_WAIT_SECONDS: f64 = 31_536_000.0;

/// Collects faults and finds their lines.
struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl Faults<'_> {
    /// Notes a fault. `near` is a word of the definition whose first line is shown.
    fn add(&mut self, field: String, near: &str, reason: impl Into<String>) {
        let line = self.text.lines().position(|line| !near.is_empty() && mentions(line, near));
        let line = line.and_then(|index| u64::try_from(index + 1).ok());
        self.found.push(Fault { line, column: None, field, reason: reason.into() });
    }
}

/// Whether a line holds the word by itself, quoted or not.
fn mentions(line: &str, word: &str) -> bool {
    line.split(|c: char| c.is_whitespace() || "\"',:[]{}".contains(c)).any(|part| part == word)
        || line.contains(&format!("\"{word}\""))
}

pub(super) fn resolve(file: File, text: &str) -> Result<Agent, Vec<Fault>> {
    let mut faults = Faults { text, found: Vec::new() };
    let graph = file.graph;
    let mut nodes = nodes(&graph, &mut faults);
    edges(&graph, &mut nodes, &mut faults);
    let entry_points = entry_points(&graph, &nodes, &mut faults);
    for (i, id) in graph.terminal_nodes.iter().enumerate().filter(|(_, id)| !nodes.contains_key(*id)) {
        faults.add(format!("graph.terminal_nodes[{i}]"), id, format!("there is no node {id:?}"));
    }
    if graph.max_steps == 0 {
        faults.add("graph.max_steps".to_owned(), "max_steps", "0 would run nothing: give at least 1");
    }
    if !faults.found.is_empty() {
        return Err(faults.found);
    }
    for id in &graph.terminal_nodes {
        // Terminal means that an execution ends there, whatever edges are drawn.
        if let Some(node) = nodes.get_mut(id) {
            node.edges.clear();
        }
    }
    let name = [file.agent.name, file.agent.id].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let empty = String::new;
    Ok(Agent { name, hash: empty(), text: empty(), file: empty(), entry_points, nodes, max_steps: graph.max_steps })
}

fn nodes(graph: &Graph, faults: &mut Faults<'_>) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    if graph.nodes.is_empty() {
        faults.add("graph.nodes".to_owned(), "nodes", "an agent needs at least one node");
    }
    for (i, shape) in graph.nodes.iter().enumerate() {
        let path = format!("graph.nodes[{i}]");
        if !is_id(&shape.id) {
            faults.add(format!("{path}.id"), &shape.id, ID_RULE);
        }
        let kind = kind(&path, shape, faults);
        let outputs = shape
            .output_keys
            .iter()
            .map(|key| Output { key: key.clone(), nullable: shape.nullable_output_keys.contains(key) });
        let Some(kind) = kind else { continue };
        let node = Node {
            kind,
            inputs: shape.input_keys.clone(),
            outputs: outputs.collect(),
            max_retries: shape.max_retries.unwrap_or(graph.max_retries_per_node),
            max_visits: shape.max_node_visits,
            edges: Vec::new(),
        };
        if nodes.insert(shape.id.clone(), node).is_some() {
            faults.add(format!("{path}.id"), &shape.id, format!("another node is called {:?} too", shape.id));
        }
    }
    nodes
}

fn kind(path: &str, shape: &NodeShape, faults: &mut Faults<'_>) -> Option<NodeKind> {
    let before = faults.found.len();
    let kind = match shape.node_type.as_str() {
        "exec" => exec(path, shape, faults),
        "http" => request(path, shape, faults),
        "wait" => {
            let seconds = shape.seconds.unwrap_or(-1.0);
            duration(&format!("{path}.seconds"), &shape.id, seconds, MAX_WAIT_SECONDS, faults).map(NodeKind::Wait)
        }
        other => {
            let reason = format!("this version runs nodes of type exec, http and wait, not {other:?}");
            faults.add(format!("{path}.node_type"), &shape.id, reason);
            None
        }
    };
    kind.filter(|_| faults.found.len() == before)
}

fn exec(path: &str, shape: &NodeShape, faults: &mut Faults<'_>) -> Option<NodeKind> {
    if shape.command.first().is_none_or(String::is_empty) {
        faults.add(format!("{path}.command"), &shape.id, "give the program and its arguments as a list");
    }
    let timeout = timeout(path, shape, 300.0, faults)?;
    Some(NodeKind::Exec(Exec { command: shape.command.clone(), environment: shape.env.clone(), timeout }))
}

fn request(path: &str, shape: &NodeShape, faults: &mut Faults<'_>) -> Option<NodeKind> {
    let url = shape.url.clone().unwrap_or_default();
    if !url.starts_with("http://") && !url.starts_with("https://") && !url.starts_with("{{") {
        faults.add(format!("{path}.url"), &shape.id, format!("{url:?} does not begin with http:// or https://"));
    }
    let word = shape.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
    let method = http::Method::from_bytes(word.as_bytes());
    if method.is_err() {
        faults.add(format!("{path}.method"), &shape.id, format!("{word:?} is not an HTTP method"));
    }
    for name in shape.headers.keys().filter(|name| http::HeaderName::try_from(name.as_str()).is_err()) {
        faults.add(format!("{path}.headers"), name, format!("{name:?} is not a header's name"));
    }
    let timeout = timeout(path, shape, 30.0, faults)?;
    Some(NodeKind::Http(Request {
        method: method.ok()?,
        url,
        headers: shape.headers.clone(),
        body: shape.body.clone(),
        timeout,
        fail_on_error_status: shape.fail_on_error_status,
    }))
}

fn timeout(path: &str, shape: &NodeShape, default: f64, faults: &mut Faults<'_>) -> Option<Duration> {
    let seconds = shape.timeout_seconds.unwrap_or(default);
    duration(&format!("{path}.timeout_seconds"), &shape.id, seconds, MAX_TIMEOUT_SECONDS, faults)
}

fn duration(field: &str, near: &str, seconds: f64, most: f64, faults: &mut Faults<'_>) -> Option<Duration> {
    if seconds > 0.0 && seconds <= most {
        return Some(Duration::from_secs_f64(seconds));
    }
    faults.add(field.to_owned(), near, format!("give seconds, more than 0 and at most {most}"));
    None
}

fn edges(graph: &Graph, nodes: &mut BTreeMap<String, Node>, faults: &mut Faults<'_>) {
    let known: Vec<&str> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
    let mut drawn: Vec<(usize, &EdgeShape, Condition)> = Vec::new();
    for (i, shape) in graph.edges.iter().enumerate() {
        for (field, id) in [("source", &shape.source), ("target", &shape.target)] {
            if !known.contains(&id.as_str()) {
                faults.add(format!("graph.edges[{i}].{field}"), id, format!("there is no node {id:?}"));
            }
        }
        let condition = match shape.condition.as_str() {
            "always" => Condition::Always,
            "on_success" => Condition::OnSuccess,
            "on_failure" => Condition::OnFailure,
            other => {
                let reason = format!("this version knows always, on_success and on_failure, not {other:?}");
                faults.add(format!("graph.edges[{i}].condition"), &shape.id, reason);
                continue;
            }
        };
        drawn.push((i, shape, condition));
    }
    drawn.sort_by_key(|(i, shape, _)| (std::cmp::Reverse(shape.priority), *i));
    for (i, shape, condition) in drawn {
        let Some(node) = nodes.get_mut(&shape.source) else { continue };
        let clash = [true, false].into_iter().any(|ok| {
            condition.holds(ok) && node.edges.iter().any(|e| e.condition.holds(ok) && e.target != shape.target)
        });
        if clash {
            let reason =
                format!("two edges leave {:?} at once, and this version runs no branches in parallel", shape.source);
            faults.add(format!("graph.edges[{i}]"), &shape.source, reason);
        }
        let mapping = shape.input_mapping.clone();
        node.edges.push(Edge { condition, target: shape.target.clone(), mapping });
    }
}

fn entry_points(
    graph: &Graph,
    nodes: &BTreeMap<String, Node>,
    faults: &mut Faults<'_>,
) -> BTreeMap<String, EntryPoint> {
    let mut all = BTreeMap::new();
    let api = |node: &str| EntryPoint {
        node: node.to_owned(),
        trigger: Trigger::Api,
        priority: 0,
        max_concurrent: 10,
        max_queued: MAX_QUEUED,
    };
    // `NODE_resume` says where to go on after a pause at NODE: it is no trigger.
    for (id, node) in graph.entry_points.iter().filter(|(id, _)| !id.ends_with("_resume")) {
        check_entry(&format!("graph.entry_points.{id}"), id, node, graph, faults);
        all.insert(id.clone(), api(node));
    }
    for (i, shape) in graph.async_entry_points.iter().enumerate() {
        let path = format!("graph.async_entry_points[{i}]");
        check_entry(&path, &shape.id, &shape.entry_node, graph, faults);
        let Some(entry) = async_entry_point(&path, shape, faults) else { continue };
        if all.insert(shape.id.clone(), entry).is_some() {
            faults.add(format!("{path}.id"), &shape.id, format!("another entry point is called {:?} too", shape.id));
        }
    }
    let none = all.is_empty() && graph.async_entry_points.is_empty();
    match graph.entry_node.as_deref().or(graph.nodes.first().map(|node| node.id.as_str())) {
        Some(node) if none => {
            check_entry("graph.entry_node", node, node, graph, faults);
            all.insert("main".to_owned(), api(node));
        }
        Some(_) | None => {}
    }
    debug_assert!(!nodes.is_empty() || !faults.found.is_empty());
    all
}

fn check_entry(path: &str, id: &str, node: &str, graph: &Graph, faults: &mut Faults<'_>) {
    if !is_id(id) {
        faults.add(path.to_owned(), id, ID_RULE);
    }
    if graph.nodes.iter().all(|shape| shape.id != node) {
        faults.add(path.to_owned(), node, format!("there is no node {node:?}"));
    }
}

fn async_entry_point(path: &str, shape: &AsyncEntryPoint, faults: &mut Faults<'_>) -> Option<EntryPoint> {
    if shape.isolation_level.as_deref().is_some_and(|level| level != "isolated") {
        let reason = "this version runs every execution isolated: leave it out or write isolated";
        faults.add(format!("{path}.isolation_level"), &shape.id, reason);
    }
    if shape.max_concurrent == 0 {
        faults.add(format!("{path}.max_concurrent"), &shape.id, "0 would run nothing: give at least 1");
    }
    let trigger = match shape.trigger_type.as_str() {
        "manual" | "api" => Trigger::Api,
        "timer" => match Schedule::of(&shape.trigger_config) {
            Ok(schedule) => Trigger::Timer(Box::new(schedule)),
            Err(reason) => {
                faults.add(format!("{path}.trigger_config"), &shape.id, reason);
                return None;
            }
        },
        other => {
            let reason = format!("this version knows the triggers manual, api and timer, not {other:?}");
            faults.add(format!("{path}.trigger_type"), &shape.id, reason);
            return None;
        }
    };
    Some(EntryPoint {
        node: shape.entry_node.clone(),
        trigger,
        priority: shape.priority,
        max_concurrent: shape.max_concurrent,
        max_queued: shape.max_queued.unwrap_or(MAX_QUEUED),
    })
}

const ID_RULE: &str = "an id has 1 to 100 letters, digits, dots, dashes and underscores";

/// Ids stand in paths, headers and store keys.
fn is_id(id: &str) -> bool {
    (1..=100).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
