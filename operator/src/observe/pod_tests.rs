//! Which pods are called, and which never are.

use serde_json::{Value, json};

use super::*;

/// A pod as the Deployment demo makes it, with some fields replaced by a JSON merge.
fn pod(change: &Value) -> PodFacts {
    let mut pod = json!({
        "metadata": {
            "name": "demo-abc-1",
            "uid": "pod-1",
            "labels": { "pod-template-hash": "abc" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "demo-abc", "uid": "rs-1", "controller": true,
            }],
        },
        "spec": {},
        "status": { "phase": "Running", "podIP": "10.244.0.7", "hostIP": "192.0.2.1" },
    });
    merge(&mut pod, change);
    serde_json::from_value::<SlimPod>(pod).unwrap().facts("demo", false)
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            over.iter().for_each(|(key, value)| merge(base.entry(key.clone()).or_insert(Value::Null), value));
        }
        (base, over) => *base = over.clone(),
    }
}

/// Never called, and for this reason.
fn refused(change: &Value, reason: &str) {
    let facts = pod(change);
    assert_eq!(facts.address, None, "{change}");
    let why = facts.unsafe_target.unwrap();
    assert!(why.contains(reason), "{change}: {why}");
}

#[test]
fn a_pod_of_the_objects_own_deployment_is_called_at_its_own_address() {
    assert_eq!(pod(&json!({})).address, Some([10, 244, 0, 7].into()));
    let six = pod(&json!({ "status": { "podIP": "fd00::7" } }));
    assert_eq!(six.address, Some("fd00::7".parse().unwrap()));
    assert_eq!(six.unsafe_target, None);
}

#[test]
fn a_pod_without_an_address_is_waited_for() {
    let facts = pod(&json!({ "status": { "podIP": null } }));
    assert_eq!((facts.address, facts.unsafe_target), (None, None));
}

#[test]
fn a_pod_on_the_nodes_network_is_never_called() {
    refused(&json!({ "spec": { "hostNetwork": true } }), "hostNetwork");
    refused(&json!({ "status": { "podIP": "192.0.2.1" } }), "the node's");
}

#[test]
fn a_pod_that_is_not_of_the_objects_chain_is_never_called() {
    let owner = |change: &Value| {
        let mut owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "demo-abc", "uid": "rs-1",
            "controller": true });
        merge(&mut owner, change);
        json!({ "metadata": { "ownerReferences": [owner] } })
    };
    assert!(pod(&owner(&json!({}))).address.is_some());
    refused(&json!({ "metadata": { "ownerReferences": null } }), "does not belong");
    refused(&owner(&json!({ "controller": false })), "does not belong");
    refused(&owner(&json!({ "kind": "Job" })), "does not belong");
    refused(&owner(&json!({ "name": "other-abc" })), "does not belong");
    refused(&owner(&json!({ "apiVersion": "example.com/v1" })), "does not belong");
    refused(&json!({ "metadata": { "labels": { "pod-template-hash": "xyz" } } }), "does not belong");
    refused(&json!({ "metadata": { "labels": null } }), "does not belong");
}

#[test]
fn an_address_that_no_pod_network_gives_out_is_never_called() {
    for (address, kind) in [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("metadata.internal", "no address"),
    ] {
        refused(&json!({ "status": { "podIP": address } }), kind);
    }
}

#[test]
fn a_loopback_address_is_called_where_simulated_pods_are_let_in_and_no_other_is_for_that() {
    let at = |address: &str| {
        let pod = json!({
            "metadata": { "name": "demo-abc-1", "uid": "u", "labels": { "pod-template-hash": "abc" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "demo-abc", "uid": "rs-1",
                    "controller": true }] },
            "status": { "podIP": address, "hostIP": "10.0.0.1" },
        });
        serde_json::from_value::<SlimPod>(pod).unwrap().facts("demo", true).address
    };
    assert!(at("127.8.8.8").is_some());
    assert_eq!((at("169.254.169.254"), at("0.0.0.0"), at("10.0.0.1")), (None, None, None));
}
