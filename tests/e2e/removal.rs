//! Deleting in any order: nothing hangs, nothing is left.

use serde_json::{Value, json};

use crate::space::{RELEASE, SYSTEM, Space, attempt, eventually, helm, kubectl, runtime};

#[test]
fn a_deleted_object_takes_its_children_along() {
    let space = Space::new("delete");
    space.start(&runtime("demo", 1, &json!({})));
    space.kubectl(&["delete", "agentruntime", "demo", "--timeout=60s"]);
    let left = || {
        let kinds = ["deployments", "services", "configmaps", "pods"];
        kinds.iter().flat_map(|kind| space.list(kind, "agents.hive.dev/runtime=demo")).collect::<Vec<Value>>()
    };
    eventually("the children are gone", || left().is_empty(), || format!("{:?}", left()));
}

#[test]
fn a_namespace_with_runtimes_in_every_state_goes_away() {
    let space = Space::new("namespace");
    space.start(&runtime("running", 1, &json!({})));
    space.apply(&runtime("paused", 1, &json!({ "desiredState": "paused" }))).unwrap();
    space.apply(&runtime("stopped", 1, &json!({ "desiredState": "stopped" }))).unwrap();
    space.ready("paused");
    space.ready("stopped");
    kubectl(&["delete", "namespace", &space.name, "--timeout=90s"]);
    // The test's own end deletes it once more, which is to be harmless.
    kubectl(&["create", "namespace", &space.name]);
}

#[test]
fn the_chart_can_be_removed_before_and_after_its_objects() {
    let space = Space::alone("uninstall");
    let values = helm(&["--namespace", SYSTEM, "get", "values", RELEASE, "--output", "json"]).unwrap();
    let values: Value = serde_json::from_str(&values).unwrap();
    let set = |path: &str| {
        format!("--set={path}={}", values.pointer(&format!("/{}", path.replace('.', "/"))).unwrap().as_str().unwrap())
    };
    let tags = [set("image.tag"), set("runtimeImage.tag")];
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/agentruntime-operator");
    let install = || {
        let arguments = [
            "--namespace",
            SYSTEM,
            "upgrade",
            "--install",
            RELEASE,
            chart,
            &tags[0],
            &tags[1],
            "--wait",
            "--timeout",
            "120s",
        ];
        helm(&arguments).unwrap();
    };
    let uninstall = || helm(&["--namespace", SYSTEM, "uninstall", RELEASE, "--wait", "--timeout", "60s"]).unwrap();

    space.start(&runtime("first", 1, &json!({})));
    uninstall();
    assert_eq!(space.get("agentruntime", "first")["status"]["state"], "running", "objects are kept");
    assert_eq!(space.pods("first").len(), 1, "and so are their pods");
    space.kubectl(&["delete", "agentruntime", "first", "--timeout=60s"]);

    install();
    space.start(&runtime("second", 1, &json!({})));
    space.kubectl(&["delete", "agentruntime", "second", "--timeout=60s"]);
    uninstall();
    install();
    // An upgrade to the same chart changes nothing that runs.
    install();
    let left = attempt(&["get", "crd", "agentruntimes.agents.hive.dev", "-o", "name"], None).unwrap();
    assert!(left.contains("agentruntimes"));
    space.start(&runtime("third", 1, &json!({})));
}
