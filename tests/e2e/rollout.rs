//! A rolling update under load through the Service, without a failed request.

use serde_json::{Value, json};

use crate::space::{Space, eventually, runtime, runtime_image};

/// Rolls the pods while another pod sends requests without retries; gives what that pod counted.
fn roll_under_load(space: &Space, environment: &Value) -> Value {
    let template = |round: &str| {
        json!({ "template": {
            "metadata": { "annotations": { "round": round } },
            "spec": { "containers": [{ "name": "agent", "env": environment }] },
        }})
    };
    let mut first = template("one");
    first["replicas"] = json!(2);
    space.start(&runtime("demo", 1, &first));
    let image = runtime_image().replace("agent-runtime:", "e2e-load:");
    let load = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "load" },
        "spec": { "restartPolicy": "Never", "containers": [{
            "name": "load", "image": image,
            "args": ["demo:8080", "--path", "/api/v1/entry-points/quick/trigger", "--body", "{}", "--seconds", "75"],
        }] },
    });
    space.apply(&load).unwrap();
    let phase = || space.get("pod", "load")["status"]["phase"].clone();
    eventually("the load runs", || phase() == "Running", String::new);
    for round in ["two", "three"] {
        space.patch("demo", &template(round));
        space.ready("demo");
    }
    assert_eq!(phase(), "Running", "both updates were over while the load went on");
    eventually("the load has ended", || phase() == "Succeeded", || space.kubectl(&["logs", "load"]));
    serde_json::from_str(space.kubectl(&["logs", "load"]).trim()).unwrap()
}

#[test]
fn two_rolling_updates_under_load_fail_no_request() {
    let space = Space::new("rollout");
    let report = roll_under_load(&space, &json!([]));
    println!("rolling updates under load: {report}");
    assert!(report["succeeded"].as_u64().unwrap() > 1000, "{report}");
    assert_eq!(report["failed"], 0, "{report}");
}

#[test]
fn the_same_without_the_drain_fails_requests() {
    let space = Space::new("no-drain");
    let report = roll_under_load(&space, &json!([{ "name": "HIVE_LAME_DUCK_SECONDS", "value": "0" }]));
    println!("the same without the drain: {report}");
    assert_ne!(report["failed"], 0, "the test above could not fail: {report}");
}
