//! Rolling updates: under load without a failed request, drained first, and with an image that crashes.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::space::{Space, condition, eventually, http, runtime, runtime_image};

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

#[test]
fn a_rollout_waits_for_work_in_flight_where_pods_are_drained_first() {
    let space = Space::new("drain-first");
    let lifecycle = json!({ "drainBeforeRestart": true, "drainTimeoutSeconds": 60, "shutdownSeconds": 10 });
    space.start(&runtime("demo", 15, &json!({ "lifecycle": lifecycle })));
    let pod = space.pod("demo");
    let mut log = space.follow(&pod);
    space.work(&pod, "slow");
    space.patch("demo", &json!({ "restartNonce": "two" }));
    let draining = space.wait("demo", "draining", |status| status["source"] == "Rollout");
    assert_eq!(condition(&draining["status"], "Ready").1, "DrainingBeforeRestart");
    assert_eq!(draining["status"]["pods"][0]["uid"], pod["metadata"]["uid"]);
    // A pod has ten seconds from SIGTERM, and would have interrupted work of fifteen.
    let mut written = String::new();
    log.stdout.take().unwrap().read_to_string(&mut written).unwrap();
    log.wait().unwrap();
    assert!(written.contains("shut down") && !written.contains("interrupted"), "{written}");
    let running = space.wait("demo", "running", |status| {
        status["restartNonce"] == "two" && condition(status, "Ready") == ("True".to_owned(), "Running".to_owned())
    });
    assert_eq!(running["status"]["source"], "Spec");
    assert_ne!(space.pod("demo")["metadata"]["uid"], pod["metadata"]["uid"]);
}

/// A container that ends at once, again and again.
fn crashing() -> Value {
    json!({ "template": { "spec": { "containers": [{ "name": "agent", "args": ["no-such-command"] }] } } })
}

fn crashes(space: &Space) -> bool {
    space.pods("demo").iter().any(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() > Some(1))
}

#[test]
fn an_image_that_crashes_never_goes_ready_and_the_change_that_mends_it_gets_through() {
    let space = Space::new("crash");
    space.start(&runtime("demo", 1, &json!({ "progressDeadlineSeconds": 15 })));
    let old = space.pod("demo");
    space.patch("demo", &crashing());
    let wanted = ("True".to_owned(), "ProgressDeadlineExceeded".to_owned());
    let stalled = space.wait("demo", "stalled", |status| condition(status, "Stalled") == wanted);
    assert_ne!(condition(&stalled["status"], "Ready").0, "True");
    eventually("it crashes again and again", || crashes(&space), || space.kubectl(&["get", "pods"]));
    assert_eq!(http(&old, "GET", "/health/ready", "").0, 200, "the old pod serves on");
    space.patch("demo", &json!({ "template": null, "restartNonce": "mended" }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
    assert_eq!(space.get("agentruntime", "demo")["status"]["restartNonce"], "mended");
}

#[test]
fn a_stop_gets_through_to_what_crashes() {
    let space = Space::new("crash-stop");
    space.apply(&runtime("demo", 1, &crashing())).unwrap();
    eventually("it crashes again and again", || crashes(&space), || space.kubectl(&["get", "pods"]));
    assert_ne!(condition(&space.get("agentruntime", "demo")["status"], "Ready").0, "True");
    space.patch("demo", &json!({ "desiredState": "stopped" }));
    assert_eq!(space.ready("demo")["status"]["state"], "stopped");
    space.patch("demo", &json!({ "template": null, "desiredState": "running" }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}
