//! What the operator reads in an agent's definition, and when it looks again for one that is missing. All else in it is
//! the runtime's to check.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

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

/// When to look again for a definition that is missing: after a tenth of the time for which the object has been stalled.
/// No watch tells of it, since it may have any name.
pub(super) fn look_again(seen: &Observed, now: Timestamp) -> Option<Duration> {
    let AgentText::Missing(_) = &seen.agent else { return None };
    let conditions = seen.runtime.status.iter().flat_map(|status| &status.conditions);
    let waited = stands_since(conditions, "Stalled", "True").map_or(Duration::ZERO, |from| since(now, from.0));
    Some((waited / 10).clamp(LOOK_SOONEST, LOOK_LATEST))
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
