//! Pods that hold themselves, and how they are let go.

use serde_json::{Value, json};

use crate::space::{Space, condition, runtime};

/// A runtime whose breaker opens at the first failure, and whose only entry point fails.
fn fragile() -> Value {
    let mut object = runtime("demo", 1, &json!({}));
    let graph = &mut object["spec"]["agent"]["inline"]["graph"];
    graph["breaker"] = json!({ "failures": 1, "window_seconds": 60 });
    graph["async_entry_points"] = json!([{ "id": "fails", "entry_node": "fails", "trigger_type": "api" }]);
    graph["nodes"] = json!([{ "id": "fails", "node_type": "http", "url": "http://127.0.0.1:1/", "timeout_seconds": 5, "max_retries": 0 }]);
    object
}

fn open(space: &Space) -> Value {
    space.wait("demo", "an open circuit", |status| condition(status, "Stalled").1 == "CircuitOpen")
}

#[test]
fn a_changed_resume_nonce_lets_go_of_an_open_breaker_and_each_does_so_once() {
    let space = Space::new("breaker");
    space.start(&fragile());
    space.trigger(&space.pod("demo"), "fails");
    let stalled = open(&space);
    assert_eq!(condition(&stalled["status"], "Serving"), ("False".to_owned(), "CircuitOpen".to_owned()));
    space.patch("demo", &json!({ "resumeNonce": "one" }));
    let ready = space.ready("demo");
    assert_eq!((&ready["status"]["state"], &ready["status"]["resumeNonce"]), (&json!("running"), &json!("one")));

    space.trigger(&space.pod("demo"), "fails");
    open(&space);
    // Higher epochs that ask for running do not let go of it: only another nonce does.
    space.patch("demo", &json!({ "desiredState": "paused" }));
    space.ready("demo");
    space.patch("demo", &json!({ "desiredState": "running" }));
    open(&space);
    space.patch("demo", &json!({ "resumeNonce": "two" }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}
