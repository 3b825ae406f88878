//! What the operator reports: the status of an AgentRuntime.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::state::DesiredState;

/// What the pods acknowledged. Nothing here repeats the spec.
// One field to the API server, as the operator alone writes it: to note the owner of each part was a quarter of what a
// write of it took.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {"observedGeneration": -1}, "x-kubernetes-map-type" = "atomic"))]
pub struct AgentRuntimeStatus {
    /// The generation of the spec that this status answers; -1 before the first visit.
    #[schemars(extend("default" = -1))]
    pub observed_generation: i64,
    /// The fence of the commands behind this status. It rises by one when the effective state,
    /// the pause mode or the drain policy changes.
    pub epoch: i64,
    /// The effective desired state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<DesiredState>,
    /// What decided the effective state: Spec, Window and its name, or Freeze and its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The reason of the condition Ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the pods are doing, taken together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RuntimeState>,
    /// Pods that exist and have not ended.
    pub replicas: i32,
    /// Pods that accept work: they pass their readiness probe and do not say that they are paused.
    pub ready_replicas: i32,
    /// Pods that hold the epoch durably.
    pub acknowledged_replicas: i32,
    /// Pods of the newest template.
    pub updated_replicas: i32,
    /// The label selector of the pods, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Executions in flight, over the pods that answered. Missing while running: it would change all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// Executions that wait for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for_input: Option<i64>,
    /// Executions accepted and not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<i64>,
    /// The resumePerSecond of the freeze that holds it, by which it goes back to work though the freeze is gone and
    /// another operator leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_per_second: Option<i32>,
    /// The spec.resumeNonce that pods are told last: each clears their own holds once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_nonce: Option<String>,
    /// The spec.restartNonce of the last complete rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_nonce: Option<String>,
    /// When the drain under way is to end, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<String>,
    /// The agent's entry points.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entry_points: Vec<String>,
    /// The worst health over the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<RuntimeHealth>,
    /// At most 50 pods, those that have not converged first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub pods: Vec<PodReport>,
    /// Ready, Serving and Drained always; Reconciling and Stalled only while true.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// What the pods are doing, taken together. Unknown wins over everything that is not proven.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeState {
    /// Every pod admits work.
    Running,
    /// Work is still in flight in some pod.
    Pausing,
    /// Every pod has acknowledged the pause and nothing is in flight.
    Paused,
    /// Pods are coming up.
    Starting,
    /// Pods are draining towards their end.
    Stopping,
    /// Nothing runs.
    Stopped,
    /// Some pod cannot be asked.
    Unknown,
}

impl RuntimeState {
    /// The word as it stands in status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// healthy, unknown, degraded or unhealthy.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeHealth {
    /// The execution store.
    pub storage: String,
    /// The language model.
    pub llm: String,
    /// Tools, programs and requests.
    pub tools: String,
}

/// One pod's last answer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// What it said it is doing, or unknown.
    pub state: RuntimeState,
    /// The epoch it holds durably; 0 before its first answer.
    pub acknowledged_epoch: i64,
    /// Executions in flight; missing when the pod did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// The executions that hold up a drain, as execution at node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// Why it is unknown, or what the runtime says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<Condition>();
    schemars::json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": items,
    })
}
