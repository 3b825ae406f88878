//! A pause outlives the operator, the pod and the container.

use std::time::Duration;

use cluster::Signal;
use serde_json::{Value, json};

use crate::space::{RELEASE, SYSTEM, Space, attempt, eventually, http, kubectl, runtime};

/// No operator runs until this is dropped.
pub(crate) struct Away(());

impl Away {
    pub(crate) fn begin() -> Self {
        let away = Self(());
        kubectl(&["-n", SYSTEM, "scale", "deployment", RELEASE, "--replicas=0"]);
        let selector = "app.kubernetes.io/name=agentruntime-operator";
        let left = || kubectl(&["-n", SYSTEM, "get", "pods", "-l", selector, "-o", "name"]);
        eventually("the operator is gone", || left().is_empty(), left);
        away
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // Also after a failure: the next test needs it.
        let _ = attempt(&["-n", SYSTEM, "scale", "deployment", RELEASE, "--replicas=2"], None);
        let _ = attempt(&["-n", SYSTEM, "rollout", "status", "deployment", RELEASE, "--timeout=120s"], None);
    }
}

fn status(pod: &Value) -> Value {
    http(pod, "GET", "/api/v1/status", "").1
}

/// The boot hold of the tests is five seconds: past it the runtime believes its file alone.
fn stays_paused(pod: &Value) {
    eventually("the boot hold has ended", || status(pod)["awaiting_confirmation"] == false, || status(pod).to_string());
    // Not a synchronisation: three ticks come due in this time, and none may run.
    std::thread::sleep(Duration::from_secs(3));
    let now = status(pod);
    assert_eq!((&now["state"], &now["in_flight"]), (&json!("paused"), &json!(0)), "{now}");
}

fn serves(space: &Space, not: &str) -> Option<Value> {
    let pods = space.pods("demo");
    let pod = pods.into_iter().find(|pod| pod["metadata"]["uid"] != not)?;
    let running = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    (running && pod["status"]["podIP"].is_string()).then_some(pod)
}

#[test]
fn without_the_operator_a_replaced_pod_and_a_killed_container_come_up_paused() {
    let space = Space::alone("boot");
    space.start(&runtime("demo", 1, &json!({ "desiredState": "paused" })));
    let old = space.pod("demo");
    let away = Away::begin();

    space.kubectl(&["delete", "pod", old["metadata"]["name"].as_str().unwrap()]);
    let mut replacement = None;
    eventually(
        "its replacement runs",
        || {
            replacement = serves(&space, old["metadata"]["uid"].as_str().unwrap());
            replacement.as_ref().is_some_and(|pod| {
                std::net::TcpStream::connect(format!("{}:8080", pod["status"]["podIP"].as_str().unwrap())).is_ok()
            })
        },
        String::new,
    );
    let replacement = replacement.unwrap();
    stays_paused(&replacement);
    assert_eq!(status(&replacement)["total_executions"], 0, "nothing ever ran in it");

    let boot = status(&replacement)["boot_id"].clone();
    space.signal(&replacement, Signal::KILL);
    eventually(
        "the container was started again",
        || {
            let pod = serves(&space, "");
            let listens = |pod: &Value| {
                std::net::TcpStream::connect(format!("{}:8080", pod["status"]["podIP"].as_str().unwrap())).is_ok()
            };
            pod.as_ref()
                .is_some_and(|pod| listens(pod) && status(pod)["boot_id"].is_string() && status(pod)["boot_id"] != boot)
        },
        String::new,
    );
    stays_paused(&replacement);

    drop(away);
    space.patch("demo", &json!({ "desiredState": "running" }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}
