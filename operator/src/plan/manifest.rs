//! What all children share: labels, owner reference, the shape of an object and its hash.

use crds::AgentRuntime;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::names::{name_of, uid_of};
use super::steps::Child;
use crate::observe::index::RUNTIME_LABEL;
use crate::observe::{ChildKey, ChildKind};

/// The value of `app.kubernetes.io/managed-by` on every child; watches filter by it.
pub const MANAGED_BY: &str = "agentruntime-operator";

/// Holds the hash of the manifest that was applied, without the rollout strategy.
pub const HASH_ANNOTATION: &str = "agents.hive.dev/manifest-hash";

/// The labels by which all pods are found that the operator has made.
#[must_use]
pub fn managed() -> String {
    format!("app.kubernetes.io/managed-by={MANAGED_BY},{RUNTIME_LABEL}")
}

/// The labels by which the pods of these objects are found.
#[must_use]
pub fn selector(runtimes: &[String]) -> String {
    let of = match runtimes {
        [one] => format!("={one}"),
        several => format!(" in ({})", several.join(",")),
    };
    format!("app.kubernetes.io/managed-by={MANAGED_BY},{RUNTIME_LABEL}{of}")
}

pub(super) fn labels(runtime: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "agent-runtime",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        RUNTIME_LABEL: runtime,
    })
}

/// Those of a pod: a change of them would replace every pod. No other object bears the instance, by which Argo CD, where
/// it tracks by label, takes what has no owner for its own and prunes it: the claim with the executions.
pub(super) fn pod_labels(runtime: &str) -> Value {
    let mut labels = labels(runtime);
    if let Value::Object(labels) = &mut labels {
        labels.insert("app.kubernetes.io/instance".to_owned(), json!(runtime));
    }
    labels
}

pub(super) fn match_labels(runtime: &str) -> Value {
    json!({ "app.kubernetes.io/managed-by": MANAGED_BY, RUNTIME_LABEL: runtime })
}

/// An object of the runtime's namespace, owned by it. The owner does not block its own deletion.
pub(super) fn object(runtime: &AgentRuntime, api_version: &str, kind: &str, name: &str) -> Map<String, Value> {
    let owner = name_of(runtime);
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    object.insert(
        "metadata".to_owned(),
        json!({
            "name": name,
            "namespace": runtime.metadata.namespace,
            "labels": labels(owner),
            "ownerReferences": [{
                "apiVersion": "agents.hive.dev/v1alpha1",
                "kind": "AgentRuntime",
                "name": owner,
                "uid": uid_of(runtime),
                "controller": true,
                "blockOwnerDeletion": false,
            }],
        }),
    );
    object
}

pub(super) fn set(object: &mut Map<String, Value>, field: &str, value: Value) {
    object.insert(field.to_owned(), value);
}

/// Lets the object outlive its owner.
pub(super) fn disown(object: &mut Map<String, Value>) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("ownerReferences");
    }
}

pub(super) fn set_metadata(object: &mut Map<String, Value>, field: &str, value: Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert(field.to_owned(), value);
    }
}

/// The child of an object that is complete. The annotations are no part of its hash.
pub(super) fn finish(
    kind: ChildKind,
    name: String,
    mut object: Map<String, Value>,
    annotations: &[(&str, &str)],
) -> Child {
    let hash = short_hash(Value::Object(object.clone()).to_string().as_bytes());
    let mut all = Map::new();
    all.insert(HASH_ANNOTATION.to_owned(), json!(hash));
    for (key, value) in annotations {
        all.insert((*key).to_owned(), json!(value));
    }
    set_metadata(&mut object, "annotations", Value::Object(all));
    Child { key: ChildKey { kind, name }, hash, trial: false, uid: None, manifest: object }
}

/// 10 hexadecimal digits of SHA-256: enough to tell the versions of one object apart.
pub(super) fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}
