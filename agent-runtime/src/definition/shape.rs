//! The text as it is exported: one struct for each object, unknown keys kept for a warning.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Fault;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct File {
    #[serde(default)]
    pub(super) agent: AgentShape,
    pub(super) graph: Graph,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct AgentShape {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Graph {
    #[serde(default)]
    pub(super) entry_node: Option<String>,
    #[serde(default)]
    pub(super) entry_points: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) async_entry_points: Vec<AsyncEntryPoint>,
    #[serde(default)]
    pub(super) terminal_nodes: Vec<String>,
    pub(super) nodes: Vec<NodeShape>,
    #[serde(default)]
    pub(super) edges: Vec<EdgeShape>,
    #[serde(default)]
    pub(super) pause_nodes: Vec<String>,
    #[serde(default)]
    pub(super) conversation_mode: Option<String>,
    #[serde(default)]
    pub(super) identity_prompt: Option<String>,
    #[serde(default)]
    pub(super) default_model: Option<String>,
    #[serde(default)]
    pub(super) max_tokens: Option<u32>,
    #[serde(default)]
    pub(super) loop_config: LoopConfig,
    #[serde(default)]
    pub(super) limits: LimitsShape,
    #[serde(default)]
    pub(super) breaker: Option<BreakerShape>,
    #[serde(default = "hundred")]
    pub(super) max_steps: u32,
    #[serde(default = "three")]
    pub(super) max_retries_per_node: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct LoopConfig {
    #[serde(default = "fifty")]
    pub(super) max_iterations: u32,
    #[serde(default = "three")]
    pub(super) stall_detection_threshold: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self { max_iterations: fifty(), stall_detection_threshold: three(), rest: BTreeMap::new() }
    }
}

/// What executions may use; 0 is no limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsShape {
    pub(super) tokens: i64,
    pub(super) tokens_per_day: i64,
    pub(super) steps_per_day: i64,
    pub(super) seconds: i64,
    pub(super) seconds_per_day: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerShape {
    pub(super) failures: usize,
    pub(super) window_seconds: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct AsyncEntryPoint {
    pub(super) id: String,
    pub(super) entry_node: String,
    #[serde(default = "manual")]
    pub(super) trigger_type: String,
    #[serde(default)]
    pub(super) trigger_config: TriggerConfig,
    #[serde(default)]
    pub(super) isolation_level: Option<String>,
    #[serde(default)]
    pub(super) priority: i32,
    #[serde(default = "ten")]
    pub(super) max_concurrent: usize,
    #[serde(default)]
    pub(super) max_queued: Option<usize>,
    #[serde(default)]
    pub(super) timeout_seconds: Option<f64>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct TriggerConfig {
    #[serde(default)]
    pub(super) cron: Option<String>,
    #[serde(default)]
    pub(super) time_zone: Option<String>,
    #[serde(default)]
    pub(super) interval_minutes: Option<f64>,
    #[serde(default)]
    pub(super) interval_seconds: Option<f64>,
    #[serde(default)]
    pub(super) run_immediately: bool,
    #[serde(default)]
    pub(super) overlap: Option<String>,
    #[serde(default)]
    pub(super) missed: Option<String>,
    #[serde(default)]
    pub(super) catchup_seconds: Option<i64>,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) methods: Vec<String>,
    #[serde(default)]
    pub(super) secret: Option<String>,
    #[serde(default)]
    pub(super) secret_file: Option<std::path::PathBuf>,
    #[serde(default)]
    pub(super) requests_per_minute: Option<u32>,
    #[serde(default)]
    pub(super) max_body_bytes: Option<usize>,
    #[serde(default, alias = "event_names", alias = "event_types")]
    pub(super) events: Vec<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NodeShape {
    pub(super) id: String,
    #[serde(default = "event_loop")]
    pub(super) node_type: String,
    #[serde(default)]
    pub(super) input_keys: Vec<String>,
    #[serde(default)]
    pub(super) output_keys: Vec<String>,
    #[serde(default)]
    pub(super) nullable_output_keys: Vec<String>,
    #[serde(default)]
    pub(super) max_retries: Option<u32>,
    #[serde(default)]
    pub(super) max_node_visits: u32,
    #[serde(default)]
    pub(super) retry_on: Vec<String>,
    #[serde(default)]
    pub(super) effects: Option<String>,
    #[serde(default)]
    pub(super) emits: Vec<String>,
    #[serde(default)]
    pub(super) output_schema: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) system_prompt: Option<String>,
    /// Where a router may go: the target by the route's name.
    #[serde(default)]
    pub(super) routes: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) sub_agents: Vec<Value>,
    #[serde(default)]
    pub(super) success_criteria: Option<Value>,
    #[serde(default)]
    pub(super) tools: Vec<String>,
    /// `once` by the name of a tool whose effect must not be repeated; `repeat` is what the others are.
    #[serde(default)]
    pub(super) tool_effects: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default = "two")]
    pub(super) max_validation_retries: u32,
    #[serde(default)]
    pub(super) client_facing: bool,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: Option<Value>,
    #[serde(default = "yes")]
    pub(super) fail_on_error_status: bool,
    #[serde(default)]
    pub(super) seconds: Option<f64>,
    #[serde(default)]
    pub(super) timeout_seconds: Option<f64>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EdgeShape {
    #[serde(default)]
    pub(super) id: String,
    pub(super) source: String,
    pub(super) target: String,
    #[serde(default = "on_success")]
    pub(super) condition: String,
    #[serde(default)]
    pub(super) condition_expr: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) priority: i32,
    #[serde(default)]
    pub(super) input_mapping: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn hundred() -> u32 {
    100
}

fn three() -> u32 {
    3
}

fn two() -> u32 {
    2
}

fn fifty() -> u32 {
    50
}

fn ten() -> usize {
    10
}

fn yes() -> bool {
    true
}

fn manual() -> String {
    "manual".to_owned()
}

fn event_loop() -> String {
    "event_loop".to_owned()
}

fn on_success() -> String {
    "on_success".to_owned()
}

/// Keys of Hive's shape that only describe; they are ignored without a word.
const DESCRIPTIVE: &[&str] = &[
    "id",
    "name",
    "description",
    "version",
    "goal",
    "goal_id",
    "metadata",
    "success_criteria",
    "created_at",
    "created_by",
    "author",
    "required_tools",
    "memory_keys",
    "input_schema",
    "node_count",
    "edge_count",
];

impl File {
    /// One line for each key that means nothing to this version.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut places: Vec<(String, &BTreeMap<String, Value>)> =
            vec![(String::new(), &self.rest), ("agent.".to_owned(), &self.agent.rest)];
        places.push(("graph.".to_owned(), &self.graph.rest));
        places.push(("graph.loop_config.".to_owned(), &self.graph.loop_config.rest));
        for (i, entry) in self.graph.async_entry_points.iter().enumerate() {
            places.push((format!("graph.async_entry_points[{i}]."), &entry.rest));
            places.push((format!("graph.async_entry_points[{i}].trigger_config."), &entry.trigger_config.rest));
        }
        for (i, node) in self.graph.nodes.iter().enumerate() {
            places.push((format!("graph.nodes[{i}]."), &node.rest));
        }
        for (i, edge) in self.graph.edges.iter().enumerate() {
            places.push((format!("graph.edges[{i}]."), &edge.rest));
        }
        let unknown = |rest: &BTreeMap<String, Value>| -> Vec<String> {
            let told = rest.iter().filter(|(key, value)| !DESCRIPTIVE.contains(&key.as_str()) && !is_empty(value));
            told.map(|(key, _)| key.clone()).collect()
        };
        let shared = self.graph.async_entry_points.iter().enumerate();
        let shared = shared.filter(|(_, entry)| entry.isolation_level.as_deref() == Some("shared")).map(|(i, _)| {
            format!(
                "graph.async_entry_points[{i}].isolation_level is shared, which Hive writes when nothing was chosen: \
                 here each execution has a memory of its own"
            )
        });
        let all = places.into_iter().flat_map(|(path, rest)| {
            unknown(rest).into_iter().map(move |key| format!("{path}{key} is not used by this version"))
        });
        all.chain(shared).collect()
    }
}

/// Exports write out every key; one without a value says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

pub(super) fn read(file: &str, text: &str) -> Result<File, Fault> {
    if file.ends_with(".json") {
        return serde_json::from_str(text).map_err(|error| Fault {
            line: Some(error.line() as u64),
            column: Some(error.column() as u64),
            field: String::new(),
            reason: error.to_string(),
        });
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location();
        Fault {
            line: place.map(|place| place.line()),
            column: place.map(|place| place.column()),
            field: String::new(),
            reason: error.without_snippet().to_string(),
        }
    })
}
