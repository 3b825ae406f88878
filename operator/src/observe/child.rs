//! What is kept of a child, and whose it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::Resource;

use super::decoded::Decoded;
use super::index::Named;
use super::memory::SeenChild;
use crate::act::FIELD_MANAGER;
use crate::plan::HASH_ANNOTATION;

/// An object with the labels of a child, and what is planned from it.
#[derive(Clone, Debug)]
pub struct Held<T> {
    name: String,
    uid: String,
    controller: Option<Controller>,
    /// For `Memory`.
    pub seen: SeenChild,
    /// What is planned from it.
    pub facts: T,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    uid: String,
    described: String,
}

/// Whose an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The AgentRuntime's that was asked for.
    Own,
    /// It has no controller.
    Nobody,
    /// Somebody else's, in words.
    Other(String),
}

impl<T: Default> Held<T> {
    /// What is kept of an object; of one that cannot be decoded, only whose it is.
    #[must_use]
    pub fn of<K>(object: Decoded<K>, facts: impl FnOnce(&K) -> T) -> Self {
        let Decoded { metadata, object, .. } = object;
        Self {
            controller: controller(&metadata),
            seen: seen_child(&metadata),
            facts: object.as_ref().map(facts).unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
        }
    }
}

impl<T> Held<T> {
    /// Whether it is the child of the AgentRuntime with this UID.
    #[must_use]
    pub fn whose(&self, runtime_uid: &str) -> Whose {
        whose(self.controller.as_ref(), runtime_uid)
    }
}

impl<T> Named for Held<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }
}

/// Whether an object is the child of the AgentRuntime with this UID. Its labels and its content say nothing: anybody
/// may write them.
#[must_use]
pub fn whose_is(object: &ObjectMeta, runtime_uid: &str) -> Whose {
    whose(controller(object).as_ref(), runtime_uid)
}

fn whose(controller: Option<&Controller>, runtime_uid: &str) -> Whose {
    match controller {
        Some(controller) if controller.uid == runtime_uid => Whose::Own,
        Some(controller) => Whose::Other(controller.described.clone()),
        None => Whose::Nobody,
    }
}

fn controller(object: &ObjectMeta) -> Option<Controller> {
    let reference = object.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let described = format!("its controller is {} {} (UID {})", reference.kind, reference.name, reference.uid);
    Some(Controller { uid: reference.uid.clone(), described })
}

fn seen_child(object: &ObjectMeta) -> SeenChild {
    SeenChild {
        uid: object.uid.clone(),
        hash: object.annotations.as_ref().and_then(|all| all.get(HASH_ANNOTATION)).cloned(),
        edited: object.managed_fields.iter().flatten().any(is_edit),
        version: version_of(object),
        resource_version: object.resource_version.clone().unwrap_or_default(),
    }
}

/// Whether somebody else has written what the operator may describe: not a status, and not metadata alone.
fn is_edit(entry: &ManagedFieldsEntry) -> bool {
    let others = entry.manager.as_deref() != Some(FIELD_MANAGER);
    let part = entry.subresource.as_deref().is_none_or(str::is_empty);
    let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
    others
        && part
        && fields.is_some_and(|fields| fields.keys().any(|field| field != "f:metadata" && field != "f:status"))
}

/// What a write gave back, for `Memory`: the generation where the kind has one, since its resourceVersion changes with
/// each status; else the resourceVersion.
#[must_use]
pub fn version_of(object: &ObjectMeta) -> String {
    let resource_version = || object.resource_version.clone().unwrap_or_default();
    object.generation.map_or_else(resource_version, |generation| generation.to_string())
}

/// The same of an object.
#[must_use]
pub fn version<K: Resource>(object: &K) -> String {
    version_of(object.meta())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn child_is_its_controllers_and_nobody_elses() {
        let owned = |controller: bool| {
            object(json!({"ownerReferences": [
                {"apiVersion": "v1", "kind": "AgentRuntime", "name": "demo", "uid": "uid-1", "controller": controller}
            ]}))
        };
        assert_eq!(whose_is(&owned(true), "uid-1"), Whose::Own);
        assert!(matches!(whose_is(&owned(true), "uid-2"), Whose::Other(why) if why.contains("AgentRuntime demo")));
        assert_eq!(whose_is(&owned(false), "uid-1"), Whose::Nobody, "an owner that does not control it");
        let labeled = object(json!({"labels": {"agents.hive.dev/runtime": "demo"}}));
        assert_eq!(whose_is(&labeled, "uid-1"), Whose::Nobody, "anybody may write labels");
    }

    #[test]
    fn edit_is_a_write_of_more_than_status_and_metadata() {
        let entry = |manager: &str, subresource: &str, field: &str| {
            let fields = json!({ field: {} });
            let entry = json!({"manager": manager, "subresource": subresource, "fieldsV1": fields});
            is_edit(&serde_json::from_value(entry).unwrap())
        };
        assert!(entry("kubectl-set", "", "f:spec"));
        assert!(entry("somebody", "", "f:data"));
        assert!(!entry(FIELD_MANAGER, "", "f:spec"));
        assert!(!entry("kube-controller-manager", "status", "f:status"));
        assert!(!entry("kube-controller-manager", "status", "f:spec"), "the scale is a subresource too");
        assert!(!entry("kubectl", "", "f:metadata"));
    }
}
