//! The scale subresource: up and down while running and paused, to nothing and back.

use serde_json::{Value, json};

use crate::space::{Space, condition, eventually, runtime};

fn scale(space: &Space, replicas: usize) {
    space.kubectl(&["scale", "agentruntime", "demo", &format!("--replicas={replicas}")]);
}

/// Waits until so many pods are there and the state is reached.
fn settled(space: &Space, pods: usize, reason: &str) -> Value {
    let generation = space.get("agentruntime", "demo")["metadata"]["generation"].clone();
    let object = space.wait("demo", reason, |status| {
        status["observedGeneration"] == generation
            && status["replicas"] == pods
            && condition(status, "Ready") == ("True".to_owned(), reason.to_owned())
    });
    eventually("the other pods are gone", || space.pods("demo").len() == pods, || space.kubectl(&["get", "pods"]));
    object
}

#[test]
fn the_number_of_pods_follows_while_running_and_only_falls_while_paused() {
    let space = Space::new("scale");
    space.start(&runtime("demo", 1, &json!({ "replicas": 2 })));
    scale(&space, 3);
    settled(&space, 3, "Running");
    scale(&space, 2);
    settled(&space, 2, "Running");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    settled(&space, 2, "Paused");
    scale(&space, 4);
    settled(&space, 2, "Paused");
    scale(&space, 1);
    settled(&space, 1, "Paused");
    scale(&space, 3);
    settled(&space, 1, "Paused");
    space.patch("demo", &json!({ "desiredState": "running" }));
    settled(&space, 3, "Running");
    scale(&space, 0);
    assert_eq!(settled(&space, 0, "ScaledToZero")["status"]["state"], "stopped");
    scale(&space, 2);
    settled(&space, 2, "Running");
}
