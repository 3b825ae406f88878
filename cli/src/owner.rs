//! Who owns spec.desiredState: whether a GitOps tool would put back what a person changes.

use crds::AgentRuntime;
use serde_json::Value;

/// Field managers of GitOps tools, by the beginning of their names.
const MANAGERS: [(&str, &str); 4] = [
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux (kustomize-controller)"),
    ("helm-controller", "Flux (helm-controller)"),
    ("fleetagent", "Fleet"),
];

/// Labels and annotations that GitOps tools leave on what they apply.
const MARKS: [(&str, &str); 4] = [
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux (kustomize-controller)"),
    ("helm.toolkit.fluxcd.io/name", "Flux (helm-controller)"),
];

/// The GitOps tool that would put a change of `spec.<field>` back, if there is one. A tool whose field
/// managers are known but do not hold the field leaves it alone, whatever its labels say.
pub(crate) fn gitops(runtime: &AgentRuntime, field: &str) -> Option<&'static str> {
    let managers = runtime.metadata.managed_fields.iter().flatten().filter_map(|entry| {
        let name = entry.manager.as_deref()?;
        let (_, tool) = MANAGERS.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
        let owned = entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0, field));
        Some((tool, owned))
    });
    let managers: Vec<(&str, bool)> = managers.collect();
    if !managers.is_empty() {
        return managers.into_iter().find(|(_, owned)| *owned).map(|(tool, _)| tool);
    }
    let marked = |key: &str| {
        let has = |map: &Option<std::collections::BTreeMap<String, String>>| {
            map.as_ref().is_some_and(|map| map.contains_key(key))
        };
        has(&runtime.metadata.labels) || has(&runtime.metadata.annotations)
    };
    MARKS.into_iter().find(|(key, _)| marked(key)).map(|(_, tool)| tool)
}

/// Who wrote `spec.<field>` last, by the name of the field manager.
pub(crate) fn writer(runtime: &AgentRuntime, field: &str) -> Option<String> {
    let entries = runtime.metadata.managed_fields.iter().flatten();
    let owners = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0, field)));
    owners.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager.clone())
}

fn owns(fields: &Value, field: &str) -> bool {
    fields.get("f:spec").is_some_and(|spec| spec.get(format!("f:{field}")).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(metadata: Value) -> AgentRuntime {
        let mut object = json!({"apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime", "spec": {}});
        object["metadata"] = metadata;
        serde_json::from_value(object).unwrap()
    }

    fn managed(manager: &str, fields: Value) -> AgentRuntime {
        object(json!({"name": "a", "labels": {"argocd.argoproj.io/instance": "x"},
            "managedFields": [{"manager": manager, "fieldsV1": fields}]}))
    }

    #[test]
    fn a_tool_that_holds_the_field_owns_it() {
        let held = managed("argocd-controller", json!({"f:spec": {"f:desiredState": {}}}));
        assert_eq!(gitops(&held, "desiredState"), Some("Argo CD"));
        assert_eq!(gitops(&held, "restartNonce"), None, "of another field it does not");
    }

    #[test]
    fn the_last_of_those_who_hold_a_field_wrote_it() {
        let entry = |manager: &str, time: &str, field: &str| json!({"manager": manager, "time": time, "fieldsV1": {"f:spec": {field: {}}}});
        let several = object(json!({"name": "a", "managedFields": [
            entry("helm", "2026-11-25T10:00:00Z", "f:desiredState"),
            entry("kubectl-hive", "2026-11-25T11:00:00Z", "f:desiredState"),
            entry("kubectl-edit", "2026-11-25T12:00:00Z", "f:replicas"),
        ]}));
        assert_eq!(writer(&several, "desiredState").as_deref(), Some("kubectl-hive"));
        assert_eq!(writer(&several, "agent"), None);
    }

    #[test]
    fn a_tool_that_leaves_the_field_out_does_not_own_it() {
        let left = managed("kustomize-controller", json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(gitops(&left, "desiredState"), None);
    }

    #[test]
    fn a_persons_field_is_a_persons_but_a_label_counts_when_no_manager_is_known() {
        let person = json!({"name": "a", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:desiredState": {}}}}]});
        assert_eq!(gitops(&object(person), "desiredState"), None);
        let labelled = managed("kubectl", json!({"f:spec": {"f:desiredState": {}}}));
        assert_eq!(gitops(&labelled, "desiredState"), Some("Argo CD"));
    }
}
