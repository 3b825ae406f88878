//! What is not known is never called paused.

use cluster::Signal;
use serde_json::json;

use crate::space::{Space, condition, runtime};

#[test]
fn a_pod_that_hangs_is_unknown_and_never_all_paused() {
    let space = Space::new("hung");
    // The liveness probe would kill the hung container before anybody has looked.
    let patient = json!({ "replicas": 2, "template": { "spec": { "containers": [
        { "name": "agent", "livenessProbe": { "failureThreshold": 100 } } ] } } });
    space.start(&runtime("demo", 1, &patient));
    let hung = space.pods("demo").remove(0);
    space.signal(&hung, Signal::STOP);
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let unknown = space.wait("demo", "unknown", |status| {
        assert_ne!(status["state"], "paused", "it was called paused: {status}");
        status["state"] == "unknown"
    });
    let status = &unknown["status"];
    assert_eq!(condition(status, "Ready"), ("Unknown".to_owned(), "PodsUnreachable".to_owned()));
    assert_eq!((&status["acknowledgedReplicas"], &status["inFlight"]), (&json!(1), &json!(null)));
    let pod = status["pods"][0].clone();
    assert_eq!((&pod["name"], &pod["state"]), (&hung["metadata"]["name"], &json!("unknown")));
    assert!(pod["message"].as_str().unwrap().contains("no answer"), "{pod}");
    space.signal(&hung, Signal::CONT);
    let paused = space.ready("demo");
    assert_eq!((&paused["status"]["state"], &paused["status"]["acknowledgedReplicas"]), (&json!("paused"), &json!(2)));
}
