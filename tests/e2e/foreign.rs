//! Names that somebody else has: what is not the operator's is named, and left as it is.

use serde_json::{Value, json};

use crate::law::{BRAKE, Fault, list, pods_say, serving};
use crate::space::{Space, attempt, eventually, merge, runtime};

/// Objects of a shop, each with the name of a child of the runtime beside it.
fn shop() -> Vec<(&'static str, Value)> {
    let app = json!({ "app": "shop" });
    let ports = json!([{ "name": "web", "port": 80, "targetPort": 8000 }]);
    let service = json!({ "spec": { "selector": app, "ports": ports } });
    let template = json!({ "metadata": { "labels": app },
        "spec": { "containers": [{ "name": "shop", "image": "registry.invalid/none" }] } });
    let object = |version: &str, kind: &str, name: &str, content: &Value| {
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "labels": app } });
        merge(&mut object, content);
        object
    };
    let policy =
        json!({ "spec": { "podSelector": { "matchLabels": app }, "policyTypes": ["Ingress"], "ingress": [] } });
    let budget = json!({ "spec": { "selector": { "matchLabels": app }, "maxUnavailable": 1 } });
    let deployment = json!({ "spec": { "replicas": 0, "selector": { "matchLabels": app }, "template": template } });
    let data = json!({ "data": { "price": "7" } });
    vec![
        ("door", object("v1", "Service", "door", &service)),
        ("each", object("v1", "Service", "each-pods", &service)),
        ("wall", object("networking.k8s.io/v1", "NetworkPolicy", "wall", &policy)),
        ("clerk", object("v1", "ServiceAccount", "clerk", &json!({}))),
        ("spare", object("policy/v1", "PodDisruptionBudget", "spare", &budget)),
        ("till", object("apps/v1", "Deployment", "till", &deployment)),
        ("list", object("v1", "ConfigMap", "list-boot", &data)),
    ]
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap()
}

/// What of an object is its owner's to say. Controllers of the cluster write its status and annotations.
fn essence(space: &Space, object: &Value) -> Value {
    let (kind, name) = (text(object, "/kind").to_lowercase(), text(object, "/metadata/name"));
    let there = space.get(&kind, name);
    let meta = &there["metadata"];
    json!({ "uid": meta["uid"], "labels": meta["labels"], "owners": meta["ownerReferences"], "spec": there["spec"],
        "data": there["data"], "token": there["automountServiceAccountToken"] })
}

/// Waits until each runtime says whose name is in its way.
fn are_named(space: &Space, shop: &[(&str, Value)]) {
    for (runtime, object) in shop {
        let names = format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
        Fault { space, runtime, reason: "NameTaken", names: &names }.is_named();
    }
}

#[test]
fn objects_of_somebody_else_are_named_and_left_as_they_are() {
    let space = Space::new("foreign");
    let shop = shop();
    let theirs = list(&shop.iter().map(|(_, object)| object.clone()).collect::<Vec<_>>());
    // Stopped: what a child is named does not depend on pods.
    let stopped = |name: &str| runtime(name, 1, &json!({ "desiredState": "stopped" }));
    let ours = list(&shop.iter().map(|(name, _)| stopped(name)).collect::<Vec<_>>());
    let now = || shop.iter().map(|(_, object)| essence(&space, object)).collect::<Vec<_>>();
    space.apply(&theirs).unwrap();
    let before = now();
    space.apply(&ours).unwrap();
    are_named(&space, &shop);
    assert_eq!(now(), before, "with the runtimes beside them");

    space.kubectl(&["delete", "agentruntimes", "--all", "--timeout=60s"]);
    let kinds = "services,networkpolicies,serviceaccounts,poddisruptionbudgets,deployments,configmaps";
    let left = || space.kubectl(&["get", kinds, "-l", "agents.hive.dev/runtime", "-o", "name"]);
    eventually("the runtimes' own children are gone", || left().is_empty(), left);
    assert_eq!(now(), before, "after the runtimes");

    space.apply(&ours).unwrap();
    are_named(&space, &shop);
    let fault = Fault { space: &space, runtime: "door", reason: "NameTaken", names: "Service door" };
    let runtimes: Vec<&str> = shop.iter().map(|(name, _)| *name).collect();
    fault.ends(&runtimes, || {
        attempt(&["-n", &space.name, "delete", "-f", "-"], Some(&theirs.to_string())).unwrap();
    });
}

#[test]
fn a_pause_whose_boot_file_is_taken_is_never_called_reached() {
    let space = Space::new("boot-taken");
    space.start(&runtime("demo", 1, &json!({})));
    let pods = serving(&space, "demo");
    // It stands as if another product had made one of the name: another object is its controller.
    space.kubectl(&["create", "configmap", "theirs"]);
    let uid = space.get("configmap", "theirs")["metadata"]["uid"].clone();
    let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": uid, "controller": true }]);
    let patch = json!({ "metadata": { "ownerReferences": owner } }).to_string();
    space.kubectl(&["patch", "configmap", "demo-boot", "--type=merge", "--patch", &patch]);
    let fault = Fault { space: &space, runtime: "demo", reason: "NameTaken", names: "ConfigMap demo-boot" };
    fault.is_named();
    let boot = json!({ "kind": "ConfigMap", "metadata": { "name": "demo-boot" } });
    let before = essence(&space, &boot);
    space.patch("demo", &json!({ "desiredState": "paused" }));
    // Pods obey nothing that they would not find again after a restart.
    fault.is_told("not paused", |status| status["state"] != "paused");
    assert_eq!(essence(&space, &boot), before, "it is left alone");
    fault.ends(&["demo"], || drop(space.kubectl(&["delete", "configmap", "demo-boot"])));
    pods_say(&pods, "paused", BRAKE);
    assert_eq!(space.get("agentruntime", "demo")["status"]["state"], "paused");
}
