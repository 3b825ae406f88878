//! What the model is told: its role, its task, and the tools that it has.

use serde_json::{Map, Value, json};

use super::conversation::{ASK_USER, SET_OUTPUT, plain};
use crate::definition::{EventLoop, Node};
use crate::engine::fill;
use crate::llm::Tool;
use crate::tools::Toolbox;

/// The system prompt: who it is, what the node wants, and how it hands in its work.
pub(super) fn system(identity: &str, node: &Node, event_loop: &EventLoop, memory: &Map<String, Value>) -> String {
    let mut parts = vec![identity.to_owned(), fill::prompt(&event_loop.prompt, &node.inputs, memory)];
    if !event_loop.success_criteria.is_empty() {
        parts.push(format!("The work is good when: {}", event_loop.success_criteria));
    }
    if !node.outputs.is_empty() {
        let each = node
            .outputs
            .iter()
            .map(|output| if output.nullable { format!("{} (may be null)", output.key) } else { output.key.clone() });
        let outputs = each.collect::<Vec<_>>().join(", ");
        parts.push(format!("Hand in each output with {SET_OUTPUT}(key, value): {outputs}."));
    }
    parts.retain(|part| !part.trim().is_empty());
    parts.join("\n\n")
}

/// The task: the node's inputs.
pub(super) fn task(id: &str, node: &Node, memory: &Map<String, Value>) -> String {
    let mut text = format!("Task: {id}");
    for (key, value) in fill::inputs(&node.inputs, memory) {
        text.push_str(&format!("\n{key}: {}", plain(&value)));
    }
    text
}

/// The tools of a node: those that it names, and those of the runtime.
pub(super) fn tools(node: &Node, event_loop: &EventLoop, toolbox: &Toolbox) -> Vec<Tool> {
    let named = event_loop.tools.iter().filter_map(|name| toolbox.get(name));
    let mut tools: Vec<Tool> =
        named.map(|tool| Tool { name: tool.name, description: tool.description, schema: tool.schema }).collect();
    if !node.outputs.is_empty() {
        let keys: Vec<&str> = node.outputs.iter().map(|output| output.key.as_str()).collect();
        tools.push(Tool {
            name: SET_OUTPUT.to_owned(),
            description: "Hands in one output of this task.".to_owned(),
            schema: json!({
                "type": "object",
                "properties": {"key": {"type": "string", "enum": keys}, "value": {"description": "The output."}},
                "required": ["key", "value"],
            }),
        });
    }
    if event_loop.client_facing {
        tools.push(Tool {
            name: ASK_USER.to_owned(),
            description: "Asks the person and waits for the answer.".to_owned(),
            schema: json!({
                "type": "object",
                "properties": {"question": {"type": "string"}},
                "required": ["question"],
            }),
        });
    }
    tools
}
