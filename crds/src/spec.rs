//! What users write: the spec of an AgentRuntime.

#![expect(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "kube's derive repeats its own attributes and makes the types it derives public in a private module"
)]

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hook::Hook;
use crate::patterns::{DATA_KEY, LABEL_VALUE, SIZE, SUBDOMAIN, SUBDOMAIN_OR_EMPTY};
use crate::state::DesiredState;
use crate::status::AgentRuntimeStatus;
use crate::window::MaintenanceWindow;

/// A set of pods that run one agent, and the state they are to be in.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "agents.hive.dev",
    version = "v1alpha1",
    kind = "AgentRuntime",
    plural = "agentruntimes",
    shortname = "hart",
    category = "hive",
    namespaced,
    status = "AgentRuntimeStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "string", json_path = ".status.desiredState"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "In-flight", type_ = "integer", json_path = ".status.inFlight"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Acked", type_ = "integer", json_path = ".status.acknowledgedReplicas", priority = 1),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.agent) || has(self.template)")
    .message("spec: give agent (inline or configMapRef), or template with an image of your own"))]
#[x_kube(validation = Rule::new(
    "self.replicas <= 1 || !has(self.agent) || !has(self.agent.inline) || !has(self.agent.inline.graph) || \
     !has(self.agent.inline.graph.async_entry_points) || \
     (has(self.storage) && has(self.storage.postgres)) || \
     !self.agent.inline.graph.async_entry_points.exists(e, has(e.trigger_type) && e.trigger_type == 'timer')")
    .message("spec.replicas: at most 1 while the agent has a timer, which would come due in each pod: set spec.storage.postgres"))]
#[x_kube(validation = Rule::new("!has(self.storage) || !has(self.storage.volumeClaim) || self.replicas <= 1")
    .message("spec.replicas: at most 1 with storage.volumeClaim, as one pod at a time can use the volume"))]
#[x_kube(validation = Rule::new(
    "self.lifecycle.whilePaused != 'queue' || \
     (has(self.storage) && (has(self.storage.volumeClaim) || has(self.storage.postgres)))")
    .message("spec.lifecycle.whilePaused: queue needs storage that outlives a pod: set spec.storage.volumeClaim or postgres"))]
#[x_kube(validation = Rule::new(
    "(has(self.storage) && has(self.storage.volumeClaim)) == (has(oldSelf.storage) && has(oldSelf.storage.volumeClaim)) && \
     (has(self.storage) && has(self.storage.postgres)) == (has(oldSelf.storage) && has(oldSelf.storage.postgres))")
    .message("spec.storage: its kind cannot change, as what is stored would be lost: make a new object"))]
pub struct AgentRuntimeSpec {
    /// The state that every pod is to be in. It never expires.
    #[serde(default)]
    pub desired_state: DesiredState,

    /// How many pods run the agent. While paused it may fall, and a rise waits for the resume.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,

    /// The agent's definition. Leave it out for an image that brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentSource>,

    /// A pod template that is merged over the one the operator makes. The container of the runtime
    /// is named `agent`. Fields that the API server refuses make the object Stalled, reason InvalidTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod_template")]
    pub template: Option<Map<String, Value>>,

    /// How pods are paused, resumed and stopped.
    #[serde(default)]
    pub lifecycle: Lifecycle,

    /// Where executions are kept. Without it, in the pod: what was accepted and has not ended is lost with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,

    /// Any text; a change of it replaces the pods, as a change of the template does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub restart_nonce: Option<String>,

    /// Times in which the runtime is held, however desiredState stands. The most severe of what holds it wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub maintenance_windows: Vec<MaintenanceWindow>,

    /// Any text; a change of it clears what pods hold themselves by: a person's pause, or an open circuit breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub resume_nonce: Option<String>,

    /// Who may reach the ports of the pods, as peers of a NetworkPolicy; everybody if it is left out. The
    /// operator always may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "peers")]
    pub network_policy_peers: Option<Vec<Map<String, Value>>>,

    /// Seconds in which a rollout must get on while running, or the object is Stalled. It goes on all the same.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 10, max = 86400))]
    pub progress_deadline_seconds: i32,
}

impl AgentRuntimeSpec {
    /// The volume that the executions are kept on, if they are.
    #[must_use]
    pub fn volume_claim(&self) -> Option<&VolumeClaim> {
        self.storage.as_ref()?.volume_claim.as_ref()
    }

    /// Where the address of the database stands that the pods share, if they share one.
    #[must_use]
    pub fn database(&self) -> Option<&SecretKey> {
        Some(&self.storage.as_ref()?.postgres.as_ref()?.url_secret_ref)
    }
}

fn one() -> i32 {
    1
}

fn ten_minutes() -> i32 {
    600
}

/// Where the agent's definition comes from: exactly one of the two.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.inline) != has(self.configMapRef)")
    .message("spec.agent: give exactly one of inline and configMapRef"))]
pub struct AgentSource {
    /// The definition itself, in the shape that Hive exports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "inline_agent")]
    pub inline: Option<Map<String, Value>>,

    /// A key of a ConfigMap in the same namespace that holds the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKey>,
}

/// A key of a ConfigMap in the object's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// Where executions are kept: exactly one of the kinds. The kind cannot change.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.ephemeral), has(self.volumeClaim), has(self.postgres)].exists_one(given, given)")
    .message("spec.storage: give exactly one of ephemeral, volumeClaim and postgres"))]
pub struct Storage {
    /// In the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,

    /// On a volume of its own that outlives pods. One pod at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaim>,

    /// In a PostgreSQL database that all pods share and that outlives them. Any of them runs what any accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
}

/// A PostgreSQL database, 13 or newer, of this object alone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Postgres {
    /// A key of a Secret in the same namespace that holds the address, as `postgres://user:password@host/database`.
    /// It is mounted into the pods and never read by the operator. Pods that run keep the address they began with.
    pub url_secret_ref: SecretKey,
}

/// A key of a Secret in the object's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// Executions are kept in the pod and go with it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Ephemeral {}

/// A PersistentVolumeClaim, ReadWriteOncePod, named after the object with `-data` behind it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0")
    .message("spec.storage.volumeClaim.size: a volume cannot shrink"))]
pub struct VolumeClaim {
    /// How much room it asks for, such as 1Gi. It may grow if the storage class allows it.
    #[schemars(regex(pattern = SIZE), length(max = 32))]
    pub size: String,
    /// The storage class; the cluster's default if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = SUBDOMAIN_OR_EMPTY))]
    pub storage_class_name: Option<String>,
    /// What becomes of the claim when the object is deleted. A new object of the same name finds one that was kept.
    #[serde(default)]
    pub when_deleted: WhenDeleted,
}

/// What becomes of a claim when its object is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDeleted {
    /// It stays, with what is on it.
    #[default]
    Retain,
    /// It is deleted with the object.
    Delete,
}

/// How pods are paused, resumed and stopped.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// The port of the lifecycle endpoint in each pod.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Whether a pause lets executions in flight finish, or stops them at their next step.
    pub pause_mode: PauseMode,
    /// Seconds from a pause or stop to its drain deadline.
    #[schemars(range(min = 0, max = 86400))]
    pub drain_timeout_seconds: i32,
    /// What happens at the deadline: go on draining and say who holds it up, or stop at the next step.
    pub on_drain_timeout: DrainTimeoutPolicy,
    /// What triggers get while paused.
    pub while_paused: WhilePaused,
    /// Executions that each pod begins each second after a resume, until none waits any more; all at once if it is
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub resume_rate: Option<i32>,
    /// Seconds that a new pod waits for the operator before it believes its boot file. The kubelet may mount a file that
    /// is older than the last change by a minute and more: with less than 75 here, a pod that the operator cannot reach
    /// may open by a file from before a pause. Lower it only where that does no harm, as in tests.
    #[schemars(range(min = 0, max = 3600))]
    pub boot_hold_seconds: i32,
    /// Whose commands pods obey: the operator's signed ones alone, or everybody's who reaches their port.
    pub auth: CommandAuth,
    /// Whether pods are drained before a changed template replaces them: while running they are paused until nothing
    /// is in flight, for drainTimeoutSeconds at most, then replaced together and resumed. Otherwise new pods come up
    /// first, and each old one has shutdownSeconds for its work in flight.
    pub drain_before_restart: bool,
    /// Seconds for which pods at work are kept from voluntary eviction, such as a node's drain, from when their work
    /// was seen to begin; they are not if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub disruption_protection_seconds: Option<i32>,
    /// What each running pod is told before spec or a window pauses it. A freeze and a stop wait for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_pause: Option<Hook>,
    /// What each pod that had acknowledged a pause is told after its resume. New pods are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_resume: Option<Hook>,
    /// Seconds from SIGTERM to exit that a pod has for its work in flight.
    #[schemars(range(min = 10, max = 3600))]
    pub shutdown_seconds: i32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            port: 8080,
            pause_mode: PauseMode::Drain,
            drain_timeout_seconds: 30,
            on_drain_timeout: DrainTimeoutPolicy::Wait,
            while_paused: WhilePaused::Reject,
            resume_rate: None,
            boot_hold_seconds: 90,
            auth: CommandAuth::Signed,
            drain_before_restart: false,
            pre_pause: None,
            post_resume: None,
            disruption_protection_seconds: None,
            shutdown_seconds: 30,
        }
    }
}

/// How executions in flight are treated by a pause.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PauseMode {
    /// They finish.
    #[default]
    Drain,
    /// They stop at their next step and go on after the resume.
    Checkpoint,
}

/// Whose commands pods obey.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CommandAuth {
    /// The operator's, each signed for one pod, epoch, verb and body. An unsigned one is refused with 401.
    #[default]
    Signed,
    /// Everybody's who reaches the port. For images that do not check signatures, and for trying things out.
    None,
}

/// What happens when a drain reaches its deadline.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DrainTimeoutPolicy {
    /// Go on draining; the object is Stalled and names the pods that hold it up.
    #[default]
    Wait,
    /// Executions stop at their next step.
    Checkpoint,
}

/// What triggers get while a runtime is paused.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WhilePaused {
    /// 503, and the pod is not ready.
    #[default]
    Reject,
    /// 202: they are kept and begin after the resume. The pod stays ready.
    Queue,
}

/// Peers as the API server knows them, which checks them when the policy is applied.
fn peers(_: &mut SchemaGenerator) -> Schema {
    let peer = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    schemars::json_schema!({"type": "array", "nullable": true, "maxItems": 64, "items": peer})
}

/// Kept as it was written; of its fields only those are declared that a rule reads.
fn inline_agent(_: &mut SchemaGenerator) -> Schema {
    let open = |properties: Value| {
        serde_json::json!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": properties,
        })
    };
    let entry = open(serde_json::json!({ "trigger_type": { "type": "string", "maxLength": 64 } }));
    let entries = serde_json::json!({ "type": "array", "maxItems": 1000, "items": entry });
    let graph = open(serde_json::json!({ "async_entry_points": entries }));
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": { "graph": graph },
    })
}

/// Kept as it was written: its own schema is the pod template's, which the API server checks when the Deployment is applied.
/// The labels alone are checked here, as one that is too long would be refused with all of its text.
fn pod_template(_: &mut SchemaGenerator) -> Schema {
    let value = serde_json::json!({
        "type": "string",
        "nullable": true,
        "maxLength": 63,
        "pattern": LABEL_VALUE,
    });
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "metadata": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": { "labels": { "type": "object", "nullable": true, "additionalProperties": value } },
            },
        },
    })
}
