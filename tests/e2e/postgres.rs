//! Pods that share a database: what one accepts, any runs, and it outlives them all.

use serde_json::{Value, json};

use crate::postgres_server::Server;
use crate::space::{Space, condition, eventually, execution, http, runtime};

/// The node's address on the network of the pods.
const NODE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 1));

fn secret(address: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "database" }, "stringData": { "url": address } })
}

/// Two pods, a timer, and a queue while paused.
fn shared() -> Value {
    let storage = json!({ "postgres": { "urlSecretRef": { "name": "database", "key": "url" } } });
    runtime("demo", 1, &json!({ "replicas": 2, "storage": storage, "lifecycle": { "whilePaused": "queue" } }))
}

fn listed(pod: &Value, entry_point: &str) -> Vec<Value> {
    let (_, page) = http(pod, "GET", &format!("/api/v1/executions?limit=500&entry_point={entry_point}"), "");
    page["executions"].as_array().unwrap().clone()
}

#[test]
fn work_queued_in_a_database_outlives_both_its_pods_and_runs_once_after_the_resume() {
    let Some(server) = Server::start_at(NODE) else { return };
    let space = Space::new("postgres");
    space.apply(&secret(&server.database("runtime"))).unwrap();
    space.start(&shared());
    let pods = space.pods("demo");
    assert_eq!(pods.len(), 2);
    eventually("the timer ticks", || listed(&pods[0], "tick").len() > 1, String::new);
    let twice = "SELECT execution FROM journal GROUP BY execution, entry HAVING count(*) > 1";
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let paused = space.ready("demo");
    assert_eq!((&paused["status"]["state"], &paused["status"]["acknowledgedReplicas"]), (&json!("paused"), &json!(2)));

    let id = space.trigger(&pods[0], "quick");
    assert_eq!(execution(&pods[1], &id)["state"], "queued", "the other pod knows of it");
    space.kubectl(&["delete", "pod", "-l", "agents.hive.dev/runtime=demo"]);
    let fresh = || {
        let now = space.pods("demo");
        now.len() == 2 && now.iter().all(|pod| pods.iter().all(|old| old["metadata"]["uid"] != pod["metadata"]["uid"]))
    };
    eventually("both pods are others", fresh, || space.kubectl(&["get", "pods"]));
    let held = space.wait("demo", "paused, with one queued", |status| {
        condition(status, "Ready").0 == "True" && status["acknowledgedReplicas"] == 2 && status["queued"] == 1
    });
    assert_eq!(held["status"]["state"], "paused");
    let pods = space.pods("demo");
    assert!(pods.iter().all(|pod| execution(pod, &id)["state"] == "queued"));

    space.patch("demo", &json!({ "desiredState": "running" }));
    space.ready("demo");
    let done = || pods.iter().all(|pod| execution(pod, &id)["state"] == "succeeded");
    eventually("it has run", done, || execution(&pods[0], &id).to_string());
    assert_eq!(execution(&pods[0], &id)["visits"], json!({ "quick": 1 }));
    assert!(server.sql("runtime", twice).is_empty());
}

#[test]
fn a_secret_that_is_missing_is_named_in_status_and_found_once_it_is_there() {
    let Some(server) = Server::start_at(NODE) else { return };
    let space = Space::new("postgres-secret");
    space.apply(&shared()).unwrap();
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").0 == "True");
    assert_eq!(condition(&stalled["status"], "Stalled").1, "StorageUnavailable");
    let told = stalled["status"]["conditions"].to_string();
    assert!(told.contains("spec.storage.postgres.urlSecretRef: key url of Secret database"), "{told}");
    // The kubelet fills in what is optional when it looks again, within a minute or so.
    space.apply(&secret(&server.database("runtime"))).unwrap();
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}
