//! An operator of some namespaces: a release of its own, with roles in these alone.

use serde_json::{Value, json};

use crate::removal::tags;
use crate::space::{RELEASE, SYSTEM, Space, attempt, condition, eventually, helm, kubectl, runtime};

/// The operator of the whole cluster is away, as two over one object are not to be.
struct Away;

impl Away {
    fn begin() -> Self {
        kubectl(&["-n", SYSTEM, "scale", "deployment", RELEASE, "--replicas=0"]);
        let gone = || pods(SYSTEM, "app.kubernetes.io/name=agentruntime-operator").is_empty();
        eventually("the other operator is gone", gone, String::new);
        Self
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = attempt(&["-n", SYSTEM, "scale", "deployment", RELEASE, "--replicas=2"], None);
        let _ = attempt(&["-n", SYSTEM, "rollout", "status", "deployment", RELEASE, "--timeout=120s"], None);
    }
}

/// A release that goes with the test.
struct Few {
    namespace: String,
}

const FEW: &str = "few-agentruntime-operator";

impl Few {
    fn install(namespace: &str, watched: &str) -> Self {
        let this = Self { namespace: namespace.to_owned() };
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/agentruntime-operator");
        let watched = format!("operator.watchNamespaces={{{watched}}}");
        let tags = tags();
        // What belongs to the whole cluster is there once, and not this release's.
        let shared = "crds.install=false,rbac.freezeRole=false,rbac.aggregate=false,selftest.enabled=false,networkPolicy.enabled=true";
        helm(&[
            "-n",
            namespace,
            "install",
            FEW,
            chart,
            &tags[0],
            &tags[1],
            "--set",
            &watched,
            "--set",
            shared,
            "--wait",
            "--timeout",
            "120s",
        ])
        .unwrap();
        this
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        let _ = helm(&["-n", &self.namespace, "uninstall", FEW, "--wait", "--timeout", "60s"]);
    }
}

fn pods(namespace: &str, selector: &str) -> Vec<String> {
    let text = kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", "name"]);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn an_operator_of_some_namespaces_obeys_freezes_there_and_can_do_nothing_elsewhere() {
    let watched = Space::alone("few");
    let system = watched.beside("few-system");
    let other = watched.beside("few-other");
    let _away = Away::begin();
    let few = Few::install(&system.name, &watched.name);

    other.apply(&runtime("demo", 1, &json!({}))).unwrap();
    watched.start(&runtime("demo", 1, &json!({})));
    watched.patch("demo", &json!({ "desiredState": "paused" }));
    assert_eq!(watched.ready("demo")["status"]["state"], "paused");
    watched.patch("demo", &json!({ "desiredState": "running" }));
    watched.ready("demo");
    let freeze = format!("few-{}", watched.name);
    for space in [&watched, &other] {
        kubectl(&["label", "namespace", &space.name, &format!("e2e-few={freeze}")]);
    }
    let object = json!({ "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze", "metadata": { "name": freeze },
        "spec": { "namespaceSelector": { "matchLabels": { "e2e-few": freeze } } } });
    watched.apply(&object).unwrap();
    watched.wait("demo", "Frozen", |status| condition(status, "Ready").1 == "Frozen");
    kubectl(&["delete", "agentfreeze", &freeze]);
    watched.wait("demo", "Running", |status| condition(status, "Ready").1 == "Running");
    // It has done all that meanwhile, and nothing with the other one, which was there before.
    assert_eq!(other.get("agentruntime", "demo")["status"]["observedGeneration"], -1);
    assert!(other.pods("demo").is_empty());

    let user = format!("--as=system:serviceaccount:{}:{FEW}", system.name);
    let may = |space: &str, verb: &str, what: &str| {
        attempt(&["-n", space, "auth", "can-i", verb, what, &user], None).is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(may(&watched.name, "list", "pods") && may(&watched.name, "create", "deployments.apps"));
    for (verb, what) in [("list", "pods"), ("create", "deployments.apps"), ("get", "configmaps"), ("get", "secrets")] {
        assert!(!may(&other.name, verb, what), "{verb} {what}");
    }
    assert!(!may(&watched.name, "get", "secrets"));

    // No engine enforces policies on the test cluster: that this one is valid and selects the operator is what is seen.
    let policy: Value = system.get("networkpolicy", FEW);
    let labels = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
    let selector: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    let selected = pods(&system.name, &selector.join(","));
    assert_eq!(selected.len(), 2, "{selected:?}");
    assert!(selected.iter().all(|name| name.contains(FEW)));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    // Before the other operator is back: it holds other keys, which pods hear of only with their mounts.
    for space in [&watched, &other] {
        space.kubectl(&["delete", "agentruntime", "demo", "--timeout=60s"]);
    }
    drop(few);
}
