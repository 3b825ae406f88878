//! Evictions and a node's drain against the disruption budget.

use serde_json::{Value, json};

use crate::space::{Space, attempt, condition, eventually, execution, kubectl, runtime};

/// As `kubectl drain` asks for it; the error is what the API server says.
fn evict(space: &Space, pod: &Value) -> Result<String, String> {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let body = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name, "namespace": space.name } });
    let path = format!("/api/v1/namespaces/{}/pods/{name}/eviction", space.name);
    attempt(&["create", "--raw", &path, "-f", "-"], Some(&body.to_string()))
}

/// Waits until none of these pods is left and as many others are there, in the state wanted.
fn replaced(space: &Space, old: &[Value]) {
    eventually(
        "other pods have taken over",
        || {
            let pods = space.pods("demo");
            pods.len() == old.len()
                && pods.iter().all(|pod| old.iter().all(|old| old["metadata"]["uid"] != pod["metadata"]["uid"]))
        },
        || space.kubectl(&["get", "pods", "-o", "wide"]),
    );
    space.ready("demo");
}

#[test]
fn an_eviction_takes_one_running_pod_at_a_time_and_paused_pods_freely() {
    let space = Space::new("evict");
    space.start(&runtime("demo", 1, &json!({ "replicas": 2 })));
    let pods = space.pods("demo");
    eventually(
        "the budget counts both pods",
        || space.get("pdb", "demo")["status"]["disruptionsAllowed"] == 1,
        || space.get("pdb", "demo").to_string(),
    );
    evict(&space, &pods[0]).unwrap();
    let refused = evict(&space, &pods[1]).expect_err("one is on its way already");
    assert!(refused.contains("disruption budget"), "{refused}");
    eventually(
        "another pod has taken over",
        || {
            let now = space.pods("demo");
            now.len() == 2 && now.iter().all(|pod| pod["metadata"]["uid"] != pods[0]["metadata"]["uid"])
        },
        || space.kubectl(&["get", "pods"]),
    );
    space.patch("demo", &json!({ "desiredState": "paused" }));
    space.ready("demo");
    let pods = space.pods("demo");
    eventually(
        "the pods are known to be paused",
        || space.pods("demo").iter().all(|pod| condition(&pod["status"], "Ready").0 == "False"),
        || space.kubectl(&["get", "pods"]),
    );
    for pod in &pods {
        evict(&space, pod).unwrap();
    }
    replaced(&space, &pods);
    assert_eq!(space.get("agentruntime", "demo")["status"]["state"], "paused");
}

#[test]
fn pods_at_work_are_protected_from_eviction_for_a_bounded_time() {
    let space = Space::new("protect");
    let spec = json!({ "replicas": 2, "lifecycle": { "disruptionProtectionSeconds": 20 } });
    space.start(&runtime("demo", 80, &spec));
    let pod = space.pods("demo").remove(0);
    let id = space.work(&pod, "slow");
    let budget = || space.get("pdb", "demo");
    eventually("the pods are protected", || budget()["spec"]["maxUnavailable"] == 0, || budget().to_string());
    let refused = evict(&space, &pod).expect_err("it works");
    assert!(refused.contains("disruption budget"), "{refused}");
    eventually("the time is over", || evict(&space, &pod).is_ok(), || budget().to_string());
    assert_eq!(execution(&pod, &id)["state"], "running", "though the work goes on");
    assert_eq!(budget()["metadata"]["labels"]["agents.hive.dev/protection"], "spent");
}

/// Lets pods come to the node again, whatever becomes of the test.
struct Cordoned(String);

impl Drop for Cordoned {
    fn drop(&mut self) {
        let _ = attempt(&["uncordon", &self.0], None);
    }
}

#[test]
fn a_drain_of_the_node_takes_paused_pods_and_leaves_the_last_running_one() {
    let space = Space::alone("drain");
    let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let drain = |name: &str| {
        let selector = format!("--pod-selector=agents.hive.dev/runtime={name}");
        let (node, flags) = (node.as_str(), ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=20s"]);
        let _cordoned = Cordoned(node.to_owned());
        attempt(&[&["drain", node, selector.as_str()][..], &flags[..]].concat(), None)
    };
    space.start(&runtime("drain-running", 1, &json!({ "replicas": 2 })));
    space.start(&runtime("drain-paused", 1, &json!({ "replicas": 2, "desiredState": "paused" })));
    drain("drain-paused").expect("paused pods hold no node up");
    let running = drain("drain-running").expect_err("there is no other node, and one pod is to stay");
    assert!(running.contains("drain-running"), "{running}");
    assert!(!space.pods("drain-running").is_empty());
    for (name, state) in [("drain-paused", "paused"), ("drain-running", "running")] {
        space.wait(name, state, |status| {
            condition(status, "Ready").0 == "True" && status["state"] == state && status["replicas"] == 2
        });
    }
}
