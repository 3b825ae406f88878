//! What a linter of manifests asks of the objects, and which of it is waived and why.

use serde_json::Value;

use crate::chart::{EVERYTHING, objects, read, with};

/// Rules that are not met, with the reason.
const WAIVED: [(&str, &str); 1] =
    [("limits.cpu", "a CPU limit throttles a leader in the middle of an emergency; the request says what it needs")];

fn waived(rule: &str) -> bool {
    WAIVED.iter().any(|(name, _)| *name == rule)
}

/// Each pod of an object, with the object's name.
fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for object in objects {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        match object["kind"].as_str().unwrap() {
            "Pod" => found.push((name, object["spec"].clone())),
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => {
                found.push((name, object["spec"]["template"]["spec"].clone()));
            }
            _ => {}
        }
    }
    found
}

/// What is wrong with a pod, rule by rule.
fn faults(pod: &Value, long_lived: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rule = |name: &str, holds: bool| {
        if !holds && !waived(name) {
            faults.push(name.to_owned());
        }
    };
    let own = &pod["securityContext"];
    rule("hostNetwork", pod["hostNetwork"] != true && pod["hostPID"] != true && pod["hostIPC"] != true);
    rule("runAsNonRoot", own["runAsNonRoot"] == true && own["runAsUser"].as_i64() != Some(0));
    rule("seccompProfile", own["seccompProfile"]["type"] == "RuntimeDefault");
    rule("hostPath", pod["volumes"].as_array().is_none_or(|all| all.iter().all(|v| v["hostPath"].is_null())));
    rule("grace period", pod["restartPolicy"] == "Never" || pod["terminationGracePeriodSeconds"].is_number());
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        rule("privileged", context["privileged"] != true);
        rule("allowPrivilegeEscalation", context["allowPrivilegeEscalation"] == false);
        rule("readOnlyRootFilesystem", context["readOnlyRootFilesystem"] == true);
        rule("capabilities", context["capabilities"]["drop"][0] == "ALL" && context["capabilities"]["add"].is_null());
        let image = container["image"].as_str().unwrap();
        let tag = image.rsplit_once(['@', ':']).map(|(_, tag)| tag);
        rule("image tag", tag.is_some_and(|tag| tag != "latest" && !tag.is_empty()));
        rule("requests", container["resources"]["requests"]["memory"].is_string());
        rule("limits.memory", container["resources"]["limits"]["memory"].is_string());
        rule("limits.cpu", !container["resources"]["limits"]["cpu"].is_null());
        rule(
            "probes",
            !long_lived || (container["livenessProbe"].is_object() && container["readinessProbe"].is_object()),
        );
    }
    faults
}

#[test]
fn every_pod_of_the_chart_meets_the_rules() {
    let objects = with(&EVERYTHING);
    let pods = pods(&objects);
    assert_eq!(pods.len(), 3);
    for (name, pod) in pods {
        let none: Vec<String> = Vec::new();
        assert_eq!(faults(&pod, pod["restartPolicy"] != "Never"), none, "{name}");
    }
}

#[test]
fn every_pod_of_the_examples_meets_the_rules() {
    for (name, pod) in pods(&objects(&read("examples/kubernetes/deployment.yaml"))) {
        // The example shows what must be set; a limit of memory depends on the agent.
        let faults: Vec<String> = faults(&pod, true).into_iter().filter(|rule| rule != "limits.memory").collect();
        assert_eq!(faults, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_rules_find_what_is_wrong() {
    let pod = serde_json::json!({ "containers": [{ "image": "a:latest" }], "hostNetwork": true });
    let found = faults(&pod, true);
    for rule in ["hostNetwork", "runAsNonRoot", "image tag", "capabilities", "probes", "limits.memory"] {
        assert!(found.contains(&rule.to_owned()), "{rule}");
    }
}

#[test]
fn no_role_has_a_wildcard_or_reaches_beyond_what_it_needs() {
    for object in with(&EVERYTHING) {
        let Some(rules) = object["rules"].as_array().filter(|_| object["kind"].as_str().unwrap().ends_with("Role"))
        else {
            continue;
        };
        let text = serde_json::to_string(rules).unwrap();
        assert!(!text.contains("\"*\""), "{text}");
        for forbidden in ["escalate", "impersonate", "bind", "pods/exec", "nodes"] {
            assert!(!text.contains(&format!("\"{forbidden}\"")), "{forbidden}: {text}");
        }
        for rule in rules {
            let secrets = rule["resources"].to_string().contains("secrets");
            let only_made = rule["verbs"] == serde_json::json!(["create"]);
            assert!(!secrets || only_made || rule["resourceNames"].is_array(), "secrets by their names alone: {rule}");
        }
    }
}
