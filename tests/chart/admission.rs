//! What the API server refuses by the definitions, judged by its own code: that new rules refuse what never worked when it
//! is written, and leave alone what is stored.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cluster::Silent;
use serde_json::{Value, json};

use crate::chart::{read, root};

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    cluster::program_of(&root("tests/cluster/modules/admission"), &Silent).expect("the judge, which Go builds")
});

/// What the API server says of each write: nothing if it takes it.
fn judged(plural: &str, writes: &[Value]) -> Vec<String> {
    let definition = read(&format!("crds/generated/{plural}.yaml"));
    let mut child = Command::new(&*PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let asked = json!({ "definition": definition, "writes": writes }).to_string();
    child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{plural} is no definition");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "agents.hive.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "uid": "u", "resourceVersion": "1", "generation": 1 },
        "spec": spec,
    });
    if kind == "AgentRuntime" {
        object["metadata"]["namespace"] = json!("agents");
    }
    object
}

/// An object that is made, and one that is stored and gets another field, and another status.
fn writes(kind: &str, name: &str, spec: &Value, field: (&str, Value)) -> [Value; 3] {
    let old = object(kind, name, spec);
    let mut made = old.clone();
    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let (mut changed, mut reported) = (old.clone(), old.clone());
    changed["spec"][field.0] = field.1;
    changed["metadata"]["generation"] = json!(2);
    reported["status"] = json!({ "observedGeneration": 1 });
    [
        json!({ "new": made }),
        json!({ "new": changed, "old": old }),
        json!({ "new": reported, "old": old, "status": true }),
    ]
}

/// Each object is refused with these words when it is made, or taken if there are none; and can be changed in any case.
fn hold(plural: &str, kind: &str, field: (&str, Value), cases: &[(&str, Value, &str)]) {
    let all: Vec<Value> = cases.iter().flat_map(|(name, spec, _)| writes(kind, name, spec, field.clone())).collect();
    let answers = judged(plural, &all);
    for ((name, spec, says), answer) in cases.iter().zip(answers.chunks(3)) {
        assert!(answer[0].contains(says) && answer[0].is_empty() == says.is_empty(), "{name} {spec}: {}", answer[0]);
        assert_eq!(answer[1..], ["", ""], "{name} {spec}: what is stored can be changed and reported on");
    }
}

/// A spec as the API server stores it, with these fields.
fn runtime(fields: &Value) -> Value {
    let mut spec = json!({ "agent": { "inline": {} }, "replicas": 1, "lifecycle": { "whilePaused": "reject" } });
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

#[test]
fn names_that_cannot_work_are_refused_for_new_objects_alone() {
    let spec = runtime(&json!({}));
    let mut cases: Vec<(&str, Value, &str)> =
        ["demo", "a", "a-1", "pods", "a-pods-b"].iter().map(|name| (*name, spec.clone(), "")).collect();
    for name in ["a.b", "1a", "a-pods", "default", "kubernetes"] {
        cases.push((name, spec.clone(), "metadata.name: "));
    }
    hold("agentruntimes", "AgentRuntime", ("desiredState", json!("paused")), &cases);
}

#[test]
fn fields_that_cannot_work_are_refused_when_they_are_written() {
    let config_map = |name: &str, key: &str| json!({ "agent": { "configMapRef": { "name": name, "key": key } } });
    let postgres =
        |name: &str| json!({ "storage": { "postgres": { "urlSecretRef": { "name": name, "key": "url" } } } });
    let volume =
        |size: &str, class: &str| json!({ "storage": { "volumeClaim": { "size": size, "storageClassName": class } } });
    let hook = |command: &str, container: &str| {
        let exec = json!({ "command": [command], "container": container });
        json!({ "lifecycle": { "whilePaused": "reject", "prePause": { "exec": exec } } })
    };
    let window = |start: &str| json!({ "maintenanceWindows": [{ "name": "w", "start": start, "timeZone": "Europe/Berlin", "durationSeconds": 5 }] });
    let cases: Vec<(&str, Value, &str)> = [
        (config_map("site", "agent.yaml"), ""),
        (config_map("site watch", "agent.yaml"), "spec.agent.configMapRef.name"),
        (config_map("site", "../agent.yaml"), "spec.agent.configMapRef.key"),
        (postgres("data.base"), ""),
        (postgres("data_base"), "spec.storage.postgres.urlSecretRef.name"),
        (volume("1Gi", ""), ""),
        (volume("0.0Gi", "fast"), "spec.storage.volumeClaim.size"),
        (volume("1Gi", "Fast"), "spec.storage.volumeClaim.storageClassName"),
        (hook("true", "agent"), ""),
        (hook("", "agent"), "exec.command: the program's name is empty"),
        (hook("true", "a_b"), "spec.lifecycle.prePause.exec.container"),
        (window("2027-01-31T22:00:00"), ""),
        (window("2027-13-31T22:00:00"), "spec.maintenanceWindows[0].start"),
    ]
    .map(|(fields, says)| ("demo", runtime(&fields), says))
    .to_vec();
    hold("agentruntimes", "AgentRuntime", ("desiredState", json!("paused")), &cases);
}

#[test]
fn freezes_that_cannot_work_are_refused_when_they_are_written() {
    let ends = |text: &str| json!({ "namespaceSelector": {}, "expiresAt": text });
    let labels = |key: &str, value: &str| json!({ "namespaceSelector": { "matchLabels": { key: value } } });
    let requirement = |key: &str, value: &str| json!({ "namespaceSelector": { "matchExpressions": [{ "key": key, "operator": "In", "values": [value] }] } });
    let cases: Vec<(&str, Value, &str)> = [
        (ends("9999-12-31T23:59:59Z"), ""),
        (ends("2027-01-31T22:00:00.5+02:00"), ""),
        (ends("2027-01-31T22:00:00+99:99"), "spec.expiresAt"),
        (ends("2027-01-31T22:00:00x5Z"), "spec.expiresAt"),
        (labels("example.com/team", "a"), ""),
        (labels("the team", "a"), "each key is the key of a label"),
        (labels("team", "a b"), "spec.namespaceSelector.matchLabels.team"),
        (requirement("team", "a"), ""),
        (requirement("the team", "a"), "spec.namespaceSelector.matchExpressions[0].key"),
        (requirement("team", "a b"), "spec.namespaceSelector.matchExpressions[0].values[0]"),
    ]
    .map(|(spec, says)| ("stop", spec, says))
    .to_vec();
    hold("agentfreezes", "AgentFreeze", ("reason", json!("another")), &cases);
}
