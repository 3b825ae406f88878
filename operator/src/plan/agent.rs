//! What the operator reads in an agent's definition, and when it looks again for one that is missing. All else in it is
//! the runtime's to check.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::faults;
use super::spans::{since, stands_since};
use crate::observe::{AgentText, Observed};

/// A definition that is missing is looked for after these times: soon at first, for it is often made right after its
/// object, and then ever more rarely, for thousands may be missing for good.
const LOOK_SOONEST: Duration = Duration::from_secs(1);
const LOOK_LATEST: Duration = Duration::from_secs(30);

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    graph: Graph,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Graph {
    async_entry_points: Vec<EntryPoint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EntryPoint {
    id: String,
    trigger_type: String,
}

/// The first entry point that is a timer. A text that cannot be read has none: the pods say what is wrong with it.
pub(super) fn timer(text: &str, file: &str) -> Option<String> {
    let read: Option<File> =
        if file.ends_with(".json") { serde_json::from_str(text).ok() } else { serde_saphyr::from_str(text).ok() };
    read?.graph.async_entry_points.into_iter().find(|entry| entry.trigger_type == "timer").map(|entry| entry.id)
}

/// The time until the definition that `spec.agent.configMapRef` names is read again; zero when it is due. No watch tells
/// of it, since it may have any name. One that is missing is looked for after a tenth of the time for which the object has
/// been stalled.
pub(super) fn read_in(seen: &Observed, now: Timestamp) -> Option<Duration> {
    let from = seen.runtime.spec.agent.as_ref()?.config_map_ref.as_ref()?;
    let fault = seen.faults.agent.as_ref();
    if let Some(left) = faults::retry_in(fault, now).filter(|_| fault.is_some_and(|fault| fault.of == from.name)) {
        return Some(left);
    }
    let Some(read) = seen.agent_read.filter(|_| fault.is_none()) else { return Some(Duration::ZERO) };
    let pause = match &seen.agent {
        AgentText::Missing(_) => {
            let conditions = seen.runtime.status.iter().flat_map(|status| &status.conditions);
            let waited = stands_since(conditions, "Stalled", "True").map_or(Duration::ZERO, |from| since(now, from.0));
            (waited / 10).clamp(LOOK_SOONEST, LOOK_LATEST)
        }
        AgentText::Unknown => Duration::ZERO,
        AgentText::Builtin | AgentText::Found { .. } => LOOK_LATEST,
    };
    // A time in the future was noted before the clock was put back.
    let age = if read > now { Duration::MAX } else { since(now, read) };
    Some(pause.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_found_in_either_form_and_nothing_else_is_minded() {
        let yaml = "agent: {id: a}\ngraph:\n  nodes: []\n  async_entry_points:\n    - {id: a, trigger_type: api}\n    \
                    - {id: tick, trigger_type: timer, trigger_config: {interval_seconds: 0.5}}\n";
        assert_eq!(timer(yaml, "agent.yaml").as_deref(), Some("tick"));
        let json = r#"{"graph":{"async_entry_points":[{"id":"tick","trigger_type":"timer","priority":3}]}}"#;
        assert_eq!(timer(json, "agent.json").as_deref(), Some("tick"));
        for none in ["{}", "graph: {async_entry_points: [{id: a}]}", "graph: 7", "]["] {
            assert_eq!(timer(none, "agent.yaml"), None);
        }
    }
}
