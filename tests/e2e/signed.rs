//! Signed commands: pods obey the operator and nobody else, and keys change while everything stands still.

use serde_json::{Value, json};

use crate::space::{SYSTEM, Space, condition, eventually, http, kubectl, runtime, runtime_image};

const SECRET: &str = "agentruntime-operator-keys";

fn keys(pod: &Value) -> Value {
    http(pod, "GET", "/api/v1/status", "").1["keys"].clone()
}

/// What a pod of this namespace gets for an unsigned pause of another: it ends well on any answer but a 2xx.
fn pause_from_a_pod(space: &Space, pod: &Value) -> Value {
    let target = format!("{}:8080", pod["status"]["podIP"].as_str().unwrap());
    let image = runtime_image().replace("agent-runtime:", "e2e-load:");
    let stranger = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "stranger" },
        "spec": { "restartPolicy": "Never", "containers": [{
            "name": "load", "image": image,
            "args": [target, "--path", "/api/v1/lifecycle/pause", "--body", "{}", "--seconds", "1"],
        }] },
    });
    space.apply(&stranger).unwrap();
    eventually(
        "the stranger has ended",
        || ["Succeeded", "Failed"].iter().any(|phase| space.get("pod", "stranger")["status"]["phase"] == *phase),
        || space.kubectl(&["describe", "pod", "stranger"]),
    );
    serde_json::from_str(space.kubectl(&["logs", "stranger"]).trim()).unwrap()
}

#[test]
fn a_strangers_pause_is_refused_and_the_operators_obeyed() {
    let space = Space::new("signed");
    space.start(&runtime("demo", 1, &json!({})));
    let pod = space.pod("demo");
    let report = pause_from_a_pod(&space, &pod);
    assert_eq!(report["succeeded"], 0, "{report}");
    assert_ne!(report["failed"], 0, "it did reach the pod: {report}");
    let (code, problem) = http(&pod, "POST", "/api/v1/lifecycle/pause", "{}");
    assert_eq!((code, &problem["type"]), (401, &json!("signature_missing")));
    assert_eq!(http(&pod, "GET", "/api/v1/status", "").1["state"], "running");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
}

#[test]
fn keys_are_rotated_while_paused_without_a_new_epoch() {
    let space = Space::alone("rotation");
    space.start(&runtime("demo", 1, &json!({ "desiredState": "paused" })));
    let pod = space.pod("demo");
    // The kubelet brings a new file within its sync period, or when the pod changes.
    let sync = || {
        let now = format!("synced={:?}", std::time::Instant::now());
        let synced = now.replace(|c: char| !c.is_ascii_alphanumeric() && c != '=', "");
        space.kubectl(&["annotate", "--overwrite", "pod", pod["metadata"]["name"].as_str().unwrap(), &synced]);
    };
    let one = || {
        sync();
        keys(&pod).as_array().is_some_and(|now| now.len() == 1)
    };
    eventually("a rotation of an earlier test has ended", one, || keys(&pod).to_string());
    let (before, old) = (space.get("agentruntime", "demo"), keys(&pod));
    kubectl(&["-n", SYSTEM, "annotate", "secret", SECRET, "agents.hive.dev/rotate-keys=now"]);
    let held = |count: usize| {
        sync();
        keys(&pod).as_array().is_some_and(|now| now.len() == count && now[0] != old[0])
    };
    eventually("the pod holds the new key besides the old one", || held(2), || keys(&pod).to_string());
    eventually("the pod holds the new key alone", || held(1), || keys(&pod).to_string());
    let after = space.get("agentruntime", "demo");
    assert_eq!(after["status"]["epoch"], before["status"]["epoch"]);
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "no status was written");
    assert_eq!(space.pod("demo")["metadata"]["uid"], pod["metadata"]["uid"], "no pod was replaced");
    space.patch("demo", &json!({ "desiredState": "running" }));
    let resumed = space.ready("demo");
    assert_eq!(condition(&resumed["status"], "Ready"), ("True".to_owned(), "Running".to_owned()));
}
