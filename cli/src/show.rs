//! What people see: the tree of runtimes and pods, executions, and the line of a progress bar.

use comfy_table::{Table, presets};
use crds::{AgentRuntime, AgentRuntimeStatus, DesiredState, RuntimeState};
use serde_json::Value;

use crate::kubernetes::identity;
use crate::stream::Event;

/// Each runtime with its pods below it, and below a pod the executions that hold up a drain.
pub(crate) fn tree(runtimes: &[AgentRuntime], wide: bool) -> String {
    if runtimes.is_empty() {
        return "No agentruntimes found.\n".to_owned();
    }
    let mut table = plain();
    let mut header = vec!["NAMESPACE", "NAME", "DESIRED", "STATE", "READY", "ACKED", "IN FLIGHT", "REASON"];
    if wide {
        header.extend(["EPOCH", "SOURCE", "WAITING", "QUEUED", "DEADLINE", "MESSAGE"]);
    }
    table.set_header(header);
    for runtime in runtimes {
        let none = AgentRuntimeStatus::default();
        let status = runtime.status.as_ref().unwrap_or(&none);
        table.add_row(row(runtime, status, wide));
        for (at, pod) in status.pods.iter().enumerate() {
            let last = at + 1 == status.pods.len();
            let branch = if last { "└─" } else { "├─" };
            let acked = format!("epoch {}", pod.acknowledged_epoch);
            let message = pod.message.clone().unwrap_or_default();
            let mut cells = vec![String::new(), format!("{branch} {}", pod.name), String::new()];
            cells.extend([pod.state.as_str().to_owned(), String::new(), acked, number(pod.in_flight), String::new()]);
            if wide {
                cells.extend([String::new(), String::new(), String::new(), String::new(), String::new(), message]);
            }
            table.add_row(cells);
            for held in &pod.held_by {
                let stem = if last { "  " } else { "│ " };
                table.add_row([String::new(), format!("{stem} └─ {held}")]);
            }
        }
    }
    trimmed(&table)
}

fn row(runtime: &AgentRuntime, status: &AgentRuntimeStatus, wide: bool) -> Vec<String> {
    let (namespace, name) = identity(runtime);
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    let mut cells = vec![
        namespace.to_owned(),
        name.to_owned(),
        desired(status.desired_state.unwrap_or(runtime.spec.desired_state)).to_owned(),
        state(status).to_owned(),
        ready.map_or("Unknown", |c| c.status.as_str()).to_owned(),
        format!("{}/{}", status.acknowledged_replicas, status.replicas),
        number(status.in_flight),
        status.reason.clone(),
    ];
    if wide {
        cells.extend([
            status.epoch.to_string(),
            status.source.clone(),
            number(status.waiting_for_input),
            number(status.queued),
            status.drain_deadline.clone().unwrap_or_else(|| "-".to_owned()),
            ready.map(|c| c.message.clone()).unwrap_or_default(),
        ]);
    }
    cells
}

/// The line of a progress bar: state, pods, what is in flight, and until when.
pub(crate) fn progress(runtime: &AgentRuntime) -> String {
    let Some(status) = &runtime.status else { return "the operator has not answered yet".to_owned() };
    let mut text =
        format!("{}, {} of {} pods acknowledged", state(status), status.acknowledged_replicas, status.replicas);
    if let Some(count) = status.in_flight {
        text.push_str(&format!(", {count} in flight"));
    }
    if let Some(deadline) = &status.drain_deadline {
        text.push_str(&format!(", drain deadline {deadline}"));
    }
    text
}

/// Executions of all pods.
pub(crate) fn executions(all: &[(String, Value)]) -> String {
    if all.is_empty() {
        return "No executions found.\n".to_owned();
    }
    let mut table = plain();
    table.set_header(["POD", "EXECUTION", "ENTRY POINT", "STATE"]);
    for (pod, execution) in all {
        table.add_row([pod.clone(), text(execution, "id"), text(execution, "entry_point"), text(execution, "state")]);
    }
    trimmed(&table)
}

/// A text of an object, or a dash.
pub(crate) fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or("-").to_owned()
}

/// One thing that happened: its number, when, what, and the rest as it stands.
pub(crate) fn event(event: &Event) -> String {
    let Ok(Value::Object(mut entry)) = serde_json::from_str(&event.data) else {
        return format!("{:>4}  {}  {}", event.id, event.name, event.data);
    };
    let at = entry.remove("at").and_then(|at| at.as_str().map(str::to_owned)).unwrap_or_default();
    entry.retain(|_, value| !value.is_null());
    format!("{:>4}  {at:<27}  {:<10}  {}", event.id, event.name, Value::Object(entry))
}

pub(crate) fn desired(state: DesiredState) -> &'static str {
    match state {
        DesiredState::Running => "running",
        DesiredState::Paused => "paused",
        DesiredState::Stopped => "stopped",
    }
}

pub(crate) fn state(status: &AgentRuntimeStatus) -> &'static str {
    status.state.map_or("unknown", RuntimeState::as_str)
}

pub(crate) fn number(count: Option<i64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

/// Without the spaces that a table puts around its cells.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

#[cfg(test)]
#[path = "show_tests.rs"]
pub(crate) mod tests;
