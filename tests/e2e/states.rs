//! The states that GitOps engines are tested on, reached on the cluster: each must be as it was recorded.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cluster::Signal;
use serde_json::{Value, json};

use crate::space::{PATIENCE, RELEASE, SYSTEM, Space, attempt, eventually, kubectl, runtime};

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "gitops/states", &format!("{name}.json")].iter().collect()
}

/// What engines look at: the state, where it comes from, and each condition's type, status and reason.
fn face(object: &Value) -> Value {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let conditions: Vec<Value> = conditions.iter().map(|c| json!([c["type"], c["status"], c["reason"]])).collect();
    let kind = status["source"].as_str().unwrap_or_default().split(' ').next().unwrap_or_default().to_owned();
    json!({
        "state": status["state"], "reason": status["reason"], "source": kind, "conditions": conditions,
        "spec is seen": metadata["generation"] == status["observedGeneration"],
        "is going": metadata["deletionTimestamp"].is_string(),
    })
}

/// Waits until the object is as it was recorded. HIVE_RECORD_STATE names a state that is recorded instead, as soon as
/// the object has its reason.
fn is_as_recorded(space: &Space, kind: &str, object: &str, name: &str) {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let anew = std::env::var("HIVE_RECORD_STATE").is_ok_and(|wanted| wanted == name);
    let begun = Instant::now();
    loop {
        let now = space.get(kind, object);
        if anew && now["status"]["reason"] == recorded["status"]["reason"] {
            return record(now, name);
        }
        if face(&now) == face(&recorded) {
            return;
        }
        let told = || format!("{name} is recorded as\n{}\nand is\n{}", face(&recorded), face(&now));
        assert!(begun.elapsed() < PATIENCE, "{}", told());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Keeps an object without what is of this cluster alone.
fn record(mut object: Value, name: &str) {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| {
        ["creationTimestamp", "deletionTimestamp", "generation", "name", "annotations", "uid"].contains(&key.as_str())
    });
    metadata.insert("namespace".to_owned(), json!("agents"));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    std::fs::write(file(name), serde_json::to_string_pretty(&object).unwrap() + "\n").unwrap();
}

#[test]
fn states_of_a_runtime_are_as_they_were_recorded() {
    let space = Space::new("states");
    let is = |object: &str, name: &str| is_as_recorded(&space, "agentruntime", object, name);
    // The liveness probe would kill the hung container before anybody has looked.
    let patient = json!({ "template": { "spec": { "containers": [{ "name": "agent", "livenessProbe": { "failureThreshold": 100 } }] } },
        "lifecycle": { "drainTimeoutSeconds": 5 } });
    space.apply(&runtime("demo", 12, &patient)).unwrap();
    is("demo", "runtime-starting");
    is("demo", "runtime-running");
    space.work(&space.pod("demo"), "slow");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    is("demo", "runtime-pausing");
    is("demo", "runtime-overdue");
    is("demo", "runtime-paused");
    let hung = space.pod("demo");
    space.signal(&hung, Signal::STOP);
    is("demo", "runtime-unreachable");
    space.signal(&hung, Signal::CONT);
    is("demo", "runtime-paused");
    space.patch("demo", &json!({ "desiredState": "running" }));
    space.ready("demo");
    space.patch("demo", &json!({ "restartNonce": "again" }));
    is("demo", "runtime-rolling-out");
    space.ready("demo");
    space.kubectl(&["annotate", "agentruntime", "demo", "agents.hive.dev/reconcile=disabled"]);
    is("demo", "runtime-disabled");
    space.kubectl(&["annotate", "agentruntime", "demo", "agents.hive.dev/reconcile-"]);
    space.ready("demo");
    space.work(&space.pod("demo"), "slow");
    space.patch("demo", &json!({ "desiredState": "stopped", "lifecycle": { "drainTimeoutSeconds": 60 } }));
    is("demo", "runtime-stopping");
    is("demo", "runtime-stopped");
}

#[test]
fn states_of_broken_agents_are_as_they_were_recorded() {
    let space = Space::new("states-broken");
    let is = |object: &str, name: &str| is_as_recorded(&space, "agentruntime", object, name);
    let mut lost = runtime("lost", 1, &json!({}));
    lost["spec"]["agent"] = json!({ "configMapRef": { "name": "nobody", "key": "agent.yaml" } });
    space.apply(&lost).unwrap();
    is("lost", "runtime-agent-not-found");
    let mut invalid = runtime("invalid", 1, &json!({}));
    invalid["spec"]["agent"]["inline"]["graph"]["nodes"][0]["node_type"] = json!("nothing");
    space.apply(&invalid).unwrap();
    is("invalid", "runtime-invalid-agent");
}

#[test]
fn states_without_an_operator_are_as_they_were_recorded() {
    let space = Space::alone("states-away");
    let is = |object: &str, name: &str| is_as_recorded(&space, "agentruntime", object, name);
    space.start(&runtime("demo", 1, &json!({})));
    let scale = |replicas: &str| {
        kubectl(&["-n", SYSTEM, "scale", "deployment", RELEASE, &format!("--replicas={replicas}")]);
    };
    scale("0");
    let selector = "app.kubernetes.io/name=agentruntime-operator";
    let left = || kubectl(&["-n", SYSTEM, "get", "pods", "-l", selector, "-o", "name"]);
    eventually("no operator is left", || left().is_empty(), left);
    space.patch("demo", &json!({ "desiredState": "paused" }));
    is("demo", "runtime-changed");
    space.apply(&runtime("fresh", 1, &json!({}))).unwrap();
    is("fresh", "runtime-fresh");
    scale("2");
    kubectl(&["-n", SYSTEM, "rollout", "status", "deployment", RELEASE, "--timeout=60s"]);
    space.ready("demo");
    space.kubectl(&[
        "patch",
        "agentruntime",
        "demo",
        "--type=merge",
        "--patch",
        r#"{"metadata":{"finalizers":["example.com/wait"]}}"#,
    ]);
    space.kubectl(&["delete", "agentruntime", "demo", "--wait=false"]);
    is("demo", "runtime-deleting");
    space.kubectl(&["patch", "agentruntime", "demo", "--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#]);
}

#[test]
fn states_of_a_freeze_and_of_what_it_freezes_are_as_they_were_recorded() {
    let space = Space::new("states-freeze");
    let name = format!("states-{}", space.name);
    kubectl(&["label", "namespace", &space.name, &format!("e2e-freeze={name}")]);
    space.start(&runtime("demo", 12, &json!({})));
    space.work(&space.pod("demo"), "slow");
    let freeze = json!({ "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze", "metadata": { "name": name },
        "spec": { "namespaceSelector": { "matchLabels": { "e2e-freeze": name } }, "reason": "bad model", "deadlineSeconds": 5 } });
    attempt(&["apply", "-f", "-"], Some(&freeze.to_string())).unwrap();
    for state in ["freeze-freezing", "freeze-overdue", "freeze-frozen"] {
        is_as_recorded(&space, "agentfreeze", &name, state);
    }
    is_as_recorded(&space, "agentruntime", "demo", "runtime-frozen");
    let over = r#"{"spec":{"expiresAt":"2020-01-01T00:00:00Z"}}"#;
    kubectl(&["patch", "agentfreeze", &name, "--type=merge", "--patch", over]);
    is_as_recorded(&space, "agentfreeze", &name, "freeze-expired");
    kubectl(&["delete", "agentfreeze", &name]);
}
