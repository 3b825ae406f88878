//! What the operator reads in an agent's definition. All else in it is the runtime's to check.

use serde::Deserialize;

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
