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

/// The values that the release was installed with, as arguments for another installation.
pub(crate) fn tags() -> [String; 2] {
    let values = helm(&["--namespace", SYSTEM, "get", "values", RELEASE, "--output", "json"]).unwrap();
    let values: Value = serde_json::from_str(&values).unwrap();
    ["image", "runtimeImage"].map(|image| format!("--set={image}.tag={}", values[image]["tag"].as_str().unwrap()))
}

pub(crate) fn install(tags: &[String; 2], more: &[&str]) -> Result<String, String> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/agentruntime-operator");
    let mut arguments = vec!["--namespace", SYSTEM, "upgrade", "--install", RELEASE, chart, &tags[0], &tags[1]];
    arguments.extend_from_slice(more);
    helm(&arguments)
}

pub(crate) const WAIT: [&str; 3] = ["--wait", "--timeout", "120s"];

#[test]
fn a_value_that_the_chart_does_not_know_is_refused() {
    let _space = Space::new("schema");
    let refused = install(&tags(), &["--dry-run=server", "--set", "replicaz=3"]).unwrap_err();
    assert!(refused.contains("replicaz"), "{refused}");
    let refused = install(&tags(), &["--dry-run=server", "--set", "operator.leaseSeconds=1"]).unwrap_err();
    assert!(refused.contains("leaseSeconds"), "{refused}");
}

#[test]
fn the_operator_waits_for_its_definitions_instead_of_crashing() {
    let space = Space::alone("waits");
    let tags = tags();
    helm(&["--namespace", SYSTEM, "uninstall", RELEASE, "--wait", "--timeout", "60s"]).unwrap();
    kubectl(&["delete", "crd", "agentruntimes.agents.hive.dev", "--timeout=60s"]);
    install(&tags, &["--set", "crds.install=false"]).unwrap();
    let selector = "app.kubernetes.io/name=agentruntime-operator";
    let pods = || {
        let text = kubectl(&["--namespace", SYSTEM, "get", "pods", "-l", selector, "-o", "json"]);
        serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
    };
    let waits = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let log = attempt(&["--namespace", SYSTEM, "logs", name], None).unwrap_or_default();
        log.contains("waiting for the CustomResourceDefinition")
    };
    eventually("both say that they wait", || pods().len() == 2 && pods().iter().all(waits), String::new);
    install(&tags, &WAIT).unwrap();
    assert!(pods().iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0), "none has crashed");
    space.start(&runtime("demo", 1, &json!({})));
}

#[test]
fn the_chart_can_be_removed_before_and_after_its_objects() {
    let space = Space::alone("uninstall");
    let tags = tags();
    let install = || install(&tags, &WAIT).unwrap();
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
