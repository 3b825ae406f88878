//! The emergency stop for a fleet: the spec and status of an AgentFreeze.

#![expect(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "kube's derive repeats its own attributes and makes the types it derives public in a private module"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::patterns::{LABEL_KEY, LABEL_VALUE, MOMENT};
use crate::status::conditions;
use crate::window::HeldState;

/// Holds every AgentRuntime that it selects, and touches none: what they are to be otherwise comes back when it goes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "agents.hive.dev",
    version = "v1alpha1",
    kind = "AgentFreeze",
    plural = "agentfreezes",
    shortname = "freeze",
    category = "hive",
    status = "AgentFreezeStatus",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.matched"),
    printcolumn(name = "Reached", type_ = "integer", json_path = ".status.reached"),
    printcolumn(name = "Holding", type_ = "string", json_path = ".status.conditions[?(@.type=='Holding')].status"),
    printcolumn(name = "Idle", type_ = "string", json_path = ".status.conditions[?(@.type=='Idle')].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Unreachable", type_ = "integer", json_path = ".status.unreachable", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.mode) && self.mode == 'cancel' && has(self.deadlineSeconds))")
    .message("spec.deadlineSeconds: cancel ends work at once and has no deadline: leave out one of them"))]
pub struct AgentFreezeSpec {
    /// The namespaces whose runtimes are held, by their labels; {} is all of them.
    #[schemars(schema_with = "selector")]
    pub namespace_selector: LabelSelector,

    /// The runtimes in these namespaces, by their labels; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub runtime_selector: Option<LabelSelector>,

    /// What they are held in. Stopped beats paused beats running, over freezes, windows and their own desiredState.
    #[serde(default)]
    pub state: HeldState,

    /// What becomes of executions in flight; what each runtime's own lifecycle says if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FreezeMode>,

    /// Seconds until a drain is overdue; each runtime's own lifecycle.drainTimeoutSeconds if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub deadline_seconds: Option<i32>,

    /// Why, for people; shown in the conditions of each runtime.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub reason: String,

    /// When it ends by itself, such as 2027-01-31T22:00:00Z. 9999-12-31T23:59:59Z never comes.
    // Kept as it was written: what is stored and cannot be read as a time must not make the freeze one that nobody reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"), regex(pattern = MOMENT))]
    pub expires_at: Option<String>,

    /// How many runtimes go back to work each second once it has ended; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub resume_per_second: Option<i32>,
}

/// What becomes of executions in flight.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum FreezeMode {
    /// They finish.
    Drain,
    /// They stop at their next step and go on afterwards.
    Checkpoint,
    /// They are cancelled at once.
    Cancel,
}

/// How far the freeze has come.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct AgentFreezeStatus {
    /// The generation of the spec that this status answers; -1 before the first visit.
    #[schemars(extend("default" = -1))]
    pub observed_generation: i64,
    /// Runtimes that it holds.
    pub matched: i32,
    /// Of them, those all of whose pods have acknowledged and in which nothing is in flight.
    pub reached: i32,
    /// Of them, those with a pod that cannot be asked.
    pub unreachable: i32,
    /// The pods of those that it holds, by what each said last.
    pub pods: FreezePods,
    /// At most 50 of those that have not reached it, as namespace/name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub pending: Vec<String>,
    /// Holding, Idle and Ready always; Reconciling and Stalled only while true. Holding: each pod holds on disk, so that
    /// nothing begins. Idle: nothing is in flight either. Ready: each runtime's status says so, by what the API server stores.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// The pods that a freeze is to hold.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct FreezePods {
    /// All that exist.
    pub total: i32,
    /// Of them, those that hold on disk: nothing begins in them, whatever crashes.
    pub holding: i32,
    /// Of those, the ones in which nothing is in flight either.
    pub idle: i32,
    /// Of all, those that do not answer, or may not be called.
    pub unreachable: i32,
}

/// The schema of a label selector, with the bounds that let the API server weigh its rules.
fn selector(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that must have these values.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
                "x-kubernetes-validations": [{
                    "rule": format!("self.all(key, key.matches('{LABEL_KEY}'))"),
                    "message": "matchLabels: each key is the key of a label, such as team or example.com/team",
                }],
            },
            "matchExpressions": {
                "description": "Requirements that must all be met.",
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "The label's key.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                            "pattern": LABEL_KEY,
                        },
                        "operator": {
                            "description": "How the label is compared with values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "What In and NotIn compare with; left out for Exists and DoesNotExist.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                        "message": "matchExpressions: In and NotIn need values, Exists and DoesNotExist have none",
                    }],
                },
            },
        },
    })
}
