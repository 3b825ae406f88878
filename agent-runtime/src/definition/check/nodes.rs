//! Nodes: what each does, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::{Faults, ID_RULE, duration, is_id};
use crate::definition::shape::{Graph, NodeShape};
use crate::definition::{EventLoop, Exec, Node, NodeKind, Output, Request};

/// The longest time a program or request may be given: a day.
const MAX_TIMEOUT_SECONDS: f64 = 86_400.0;
/// The longest wait of a wait node: a year.
const MAX_WAIT_SECONDS: f64 = 31_536_000.0;
/// Tools that the runtime gives to every node that may have them.
const OWN_TOOLS: &[&str] = &["set_output", "ask_user"];
/// Tokens of one answer, when the graph does not say.
const MAX_TOKENS: u32 = 4096;

pub(super) fn resolve(graph: &Graph, faults: &mut Faults<'_>) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    if graph.nodes.is_empty() {
        faults.add("graph.nodes".to_owned(), "nodes", "an agent needs at least one node");
    }
    for (i, shape) in graph.nodes.iter().enumerate() {
        let path = format!("graph.nodes[{i}]");
        if !is_id(&shape.id) {
            faults.add(format!("{path}.id"), &shape.id, ID_RULE);
        }
        let Some(node) = node(&path, shape, graph, faults) else { continue };
        if nodes.insert(shape.id.clone(), node).is_some() {
            faults.add(format!("{path}.id"), &shape.id, format!("another node is called {:?} too", shape.id));
        }
    }
    let known = |id: &String| graph.nodes.iter().any(|node| node.id == *id);
    for (list, ids) in [("terminal_nodes", &graph.terminal_nodes), ("pause_nodes", &graph.pause_nodes)] {
        for (i, id) in ids.iter().enumerate().filter(|(_, id)| !known(id)) {
            faults.add(format!("graph.{list}[{i}]"), id, format!("there is no node {id:?}"));
        }
    }
    nodes
}

fn node(path: &str, shape: &NodeShape, graph: &Graph, faults: &mut Faults<'_>) -> Option<Node> {
    let once = match shape.effects.as_deref() {
        None | Some("repeat") => false,
        Some("once") => true,
        Some(other) => {
            faults.add(format!("{path}.effects"), &shape.id, format!("effects is repeat or once, not {other:?}"));
            false
        }
    };
    let kind = kind(path, shape, graph, faults)?;
    if let (Some(tool), false) = (shape.tool_effects.keys().next(), matches!(kind, NodeKind::Loop(_))) {
        faults.add(
            format!("{path}.tool_effects"),
            tool,
            "only an event_loop calls tools: give the node effects instead",
        );
    }
    Some(Node {
        kind,
        inputs: shape.input_keys.clone(),
        outputs: shape.output_keys.iter().map(|key| output(key, shape)).collect(),
        max_retries: shape.max_retries.unwrap_or(graph.max_retries_per_node),
        retry_on: shape.retry_on.iter().map(|kind| kind.to_ascii_lowercase()).collect(),
        max_visits: shape.max_node_visits,
        once,
        emits: shape.emits.clone(),
        pauses: graph.pause_nodes.contains(&shape.id),
        one_way: !shape.routes.is_empty(),
        edges: Vec::new(),
    })
}

fn output(key: &str, shape: &NodeShape) -> Output {
    let schema = shape.output_schema.as_ref().and_then(|schema| schema.get(key));
    // Hive writes either the type's name or a JSON Schema.
    let of_type = schema.and_then(|schema| schema.as_str().or_else(|| schema.get("type").and_then(Value::as_str)));
    Output {
        key: key.to_owned(),
        nullable: shape.nullable_output_keys.iter().any(|nullable| nullable == key),
        of_type: of_type.map(str::to_owned),
    }
}

fn kind(path: &str, shape: &NodeShape, graph: &Graph, faults: &mut Faults<'_>) -> Option<NodeKind> {
    let before = faults.found.len();
    let kind = match shape.node_type.as_str() {
        "exec" => exec(path, shape, faults),
        "http" => request(path, shape, faults),
        "wait" => {
            let seconds = shape.seconds.unwrap_or(-1.0);
            duration(&format!("{path}.seconds"), &shape.id, seconds, MAX_WAIT_SECONDS, faults).map(NodeKind::Wait)
        }
        // The last two are older words for the same.
        "event_loop" | "llm_tool_use" | "llm_generate" => event_loop(path, shape, graph, faults),
        "router" => Some(NodeKind::Pass),
        // Where the graph pauses anyway, a person is asked once and not twice.
        "human_input" if graph.pause_nodes.contains(&shape.id) => Some(NodeKind::Pass),
        "human_input" => {
            let said = shape.system_prompt.iter().chain(&shape.description).find(|text| !text.trim().is_empty());
            Some(NodeKind::Ask(said.cloned().unwrap_or_else(|| shape.id.clone())))
        }
        other => {
            let reason = unknown(other);
            faults.add(format!("{path}.node_type"), &shape.id, reason);
            None
        }
    };
    kind.filter(|_| faults.found.len() == before)
}

/// What to do about a type that is not run here.
fn unknown(word: &str) -> String {
    match word {
        "function" => "a function is Python code, which an export does not hold: make it an exec node whose command \
                       runs that code"
            .to_owned(),
        "gcu" => "a gcu node drives Hive's own browser: make it an event_loop, and name the tools of an MCP server \
                  that drives one"
            .to_owned(),
        other => format!("a node's type is event_loop, exec, http, wait, router or human_input, not {other:?}"),
    }
}

fn event_loop(path: &str, shape: &NodeShape, graph: &Graph, faults: &mut Faults<'_>) -> Option<NodeKind> {
    if graph.loop_config.max_iterations == 0 {
        faults.add("graph.loop_config.max_iterations".to_owned(), "max_iterations", "give at least 1");
    }
    if shape.effects.as_deref() == Some("once") {
        let reason = "an event_loop goes on after its last journalled step, so effects: once means nothing here: \
                      name its tools in tool_effects";
        faults.add(format!("{path}.effects"), &shape.id, reason);
    }
    if !shape.sub_agents.is_empty() {
        let reason = "a node has no agents below it here: draw them as nodes, with edges to them";
        faults.add(format!("{path}.sub_agents"), &shape.id, reason);
    }
    let once = once(path, shape, faults);
    // Hive lets a node name the runtime's own tools as well.
    let own = |tool: &&String| !OWN_TOOLS.contains(&tool.as_str());
    let asks = shape.client_facing || shape.tools.iter().any(|tool| tool == "ask_user");
    let criteria = match &shape.success_criteria {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    Some(NodeKind::Loop(Box::new(EventLoop {
        prompt: shape.system_prompt.clone().unwrap_or_default(),
        success_criteria: criteria,
        tools: shape.tools.iter().filter(own).cloned().collect(),
        once,
        model: shape.model.clone().or_else(|| graph.default_model.clone()).filter(|model| !model.is_empty()),
        client_facing: asks,
        max_iterations: graph.loop_config.max_iterations,
        stall_after: graph.loop_config.stall_detection_threshold,
        max_reminders: shape.max_validation_retries,
        max_tokens: graph.max_tokens.filter(|tokens| *tokens > 0).unwrap_or(MAX_TOKENS),
    })))
}

/// The tools whose effect must not be repeated.
fn once(path: &str, shape: &NodeShape, faults: &mut Faults<'_>) -> BTreeSet<String> {
    let mut once = BTreeSet::new();
    for (tool, effects) in &shape.tool_effects {
        let field = format!("{path}.tool_effects.{tool}");
        if OWN_TOOLS.contains(&tool.as_str()) || !shape.tools.contains(tool) {
            faults.add(field, tool, format!("{tool:?} is none of the node's tools"));
            continue;
        }
        match effects.as_str() {
            "repeat" => {}
            "once" => drop(once.insert(tool.clone())),
            other => faults.add(field, tool, format!("effects is repeat or once, not {other:?}")),
        }
    }
    once
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
