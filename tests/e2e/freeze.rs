//! The fleet freeze: over namespaces, past GitOps, with a role of its own, and closed when it cannot be read.

use serde_json::{Value, json};

use crate::space::{RELEASE, SYSTEM, Space, attempt, condition, eventually, execution, http, kubectl, runtime};

/// A freeze that goes with the test.
pub(crate) struct Freeze {
    name: String,
}

impl Freeze {
    /// Over namespaces with the label that `label` gives them, so that tests do not freeze each other.
    pub(crate) fn apply(name: &str, label: &str, spec: &Value) -> Self {
        let mut object = object(name, &json!({ "namespaceSelector": { "matchLabels": { "e2e-freeze": label } } }));
        crate::space::merge(&mut object["spec"], spec);
        attempt(&["apply", "-f", "-"], Some(&object.to_string())).unwrap();
        Self { name: name.to_owned() }
    }

    fn status(&self) -> Value {
        let text = kubectl(&["get", "agentfreeze", &self.name, "-o", "json"]);
        serde_json::from_str::<Value>(&text).unwrap()["status"].clone()
    }

    pub(crate) fn ready(&self) -> Value {
        eventually(
            "the freeze is Ready",
            || condition(&self.status(), "Ready").0 == "True",
            || self.status().to_string(),
        );
        self.status()
    }
}

impl Drop for Freeze {
    fn drop(&mut self) {
        let _ = attempt(&["delete", "agentfreeze", &self.name, "--ignore-not-found"], None);
    }
}

fn object(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze", "metadata": { "name": name }, "spec": spec })
}

pub(crate) fn label(space: &Space, value: &str) {
    kubectl(&["label", "namespace", &space.name, &format!("e2e-freeze={value}")]);
}

pub(crate) fn named(space: &Space) -> String {
    format!("freeze-{}", space.name)
}

#[test]
fn a_freeze_over_two_namespaces_holds_each_and_its_end_gives_each_its_own_state() {
    let red = Space::new("freeze-red");
    let blue = red.beside("freeze-blue");
    let name = named(&red);
    label(&red, &name);
    red.start(&runtime("runs", 1, &json!({})));
    red.start(&runtime("rests", 1, &json!({ "desiredState": "paused" })));
    blue.start(&runtime("runs", 1, &json!({})));
    let freeze = Freeze::apply(&name, &name, &json!({ "reason": "bad model" }));
    let status = freeze.ready();
    assert_eq!((&status["matched"], &status["reached"]), (&json!(2), &json!(2)));
    for object in ["runs", "rests"] {
        let frozen = red.ready(object);
        let status = &frozen["status"];
        assert_eq!((&status["state"], &status["source"]), (&json!("paused"), &json!(format!("Freeze {name}"))));
        assert_eq!(condition(status, "Ready"), ("True".to_owned(), "Frozen".to_owned()));
    }
    assert_eq!(blue.get("agentruntime", "runs")["status"]["state"], "running", "it is not selected yet");
    // A namespace whose labels change comes under it, and a GitOps tool that applies the spec again changes nothing.
    label(&blue, &name);
    blue.wait("runs", "frozen", |status| condition(status, "Ready").1 == "Frozen");
    eventually("three match", || freeze.status()["reached"] == 3, || freeze.status().to_string());
    let before = red.get("agentruntime", "runs")["metadata"]["resourceVersion"].clone();
    red.apply(&runtime("runs", 1, &json!({}))).unwrap();
    red.kubectl(&["annotate", "agentruntime", "rests", "looked-at=yes"]);
    red.wait("rests", "still frozen", |status| condition(status, "Ready").1 == "Frozen");
    assert_eq!(red.get("agentruntime", "runs")["metadata"]["resourceVersion"], before);
    drop(freeze);
    red.wait("runs", "running again", |status| {
        status["source"] == "Spec" && condition(status, "Ready") == ("True".to_owned(), "Running".to_owned())
    });
    red.wait("rests", "paused by itself", |status| {
        status["source"] == "Spec" && condition(status, "Ready") == ("True".to_owned(), "Paused".to_owned())
    });
}

#[test]
fn a_freeze_that_cancels_ends_work_at_once_and_one_that_stops_takes_the_pods_away() {
    let space = Space::new("freeze-cancel");
    let name = named(&space);
    label(&space, &name);
    space.start(&runtime("demo", 60, &json!({})));
    let pod = space.pod("demo");
    let id = space.work(&pod, "slow");
    let freeze = Freeze::apply(&name, &name, &json!({ "mode": "cancel" }));
    freeze.ready();
    assert_eq!(execution(&pod, &id)["state"], "cancelled", "{}", execution(&pod, &id));
    assert_eq!(http(&pod, "GET", "/api/v1/status", "").1["in_flight"], 0);
    kubectl(&["patch", "agentfreeze", &name, "--type=merge", "--patch", r#"{"spec":{"state":"stopped"}}"#]);
    space.wait("demo", "stopped", |status| status["state"] == "stopped");
    // A pod that has ended runs nothing, and is there a moment longer.
    eventually("the pods are gone", || space.pods("demo").is_empty(), String::new);
    drop(freeze);
    space.wait("demo", "running again", |status| {
        status["source"] == "Spec" && condition(status, "Ready") == ("True".to_owned(), "Running".to_owned())
    });
}

#[test]
fn an_object_that_is_left_alone_is_frozen_all_the_same() {
    let space = Space::new("freeze-disabled");
    let name = named(&space);
    label(&space, &name);
    space.start(&runtime("demo", 1, &json!({})));
    space.kubectl(&["annotate", "agentruntime", "demo", "agents.hive.dev/reconcile=disabled"]);
    space.wait("demo", "Disabled", |status| status["reason"] == "Disabled");
    space.patch("demo", &json!({ "replicas": 0, "desiredState": "stopped" }));
    let freeze = Freeze::apply(&name, &name, &json!({}));
    assert_eq!(freeze.ready()["matched"], 1);
    let status = space.get("agentruntime", "demo")["status"].clone();
    assert_eq!((&status["state"], &status["source"]), (&json!("paused"), &json!(format!("Freeze {name}"))));
    assert_eq!(space.pods("demo").len(), 1, "the spec is left alone");
    drop(freeze);
    space.kubectl(&["annotate", "agentruntime", "demo", "agents.hive.dev/reconcile-"]);
    assert_eq!(space.ready("demo")["status"]["state"], "stopped");
}

#[test]
fn the_role_of_those_on_call_manages_freezes_and_nothing_else() {
    let can = |verb: &str, resource: &str| {
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let part = format!("--subresource={part}");
        let who = ["--as=e2e-on-call", "--as-group=e2e-on-call"];
        let answer = attempt(&["auth", "can-i", verb, resource, &part, "--all-namespaces", who[0], who[1]], None);
        answer.is_ok_and(|text| text.trim() == "yes")
    };
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "e2e-on-call" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agentfreeze-operator" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "e2e-on-call" }],
    });
    attempt(&["apply", "-f", "-"], Some(&binding.to_string())).unwrap();
    eventually("the role is bound", || can("create", "agentfreezes.agents.hive.dev"), String::new);
    for verb in ["get", "list", "watch", "update", "patch", "delete"] {
        assert!(can(verb, "agentfreezes.agents.hive.dev"), "{verb}");
    }
    for (verb, resource) in [
        ("patch", "agentruntimes.agents.hive.dev"),
        ("list", "agentruntimes.agents.hive.dev"),
        ("patch", "agentfreezes.agents.hive.dev/status"),
        ("list", "pods"),
        ("get", "secrets"),
        ("create", "deployments.apps"),
    ] {
        assert!(!can(verb, resource), "{verb} {resource}");
    }
    let freeze = object("e2e-nobody", &json!({ "namespaceSelector": { "matchLabels": { "e2e-freeze": "nobody" } } }));
    let on_call = ["--as=e2e-on-call", "--as-group=e2e-on-call"];
    attempt(&["create", "-f", "-", on_call[0], on_call[1]], Some(&freeze.to_string())).unwrap();
    kubectl(&["delete", "agentfreeze", "e2e-nobody", on_call[0], on_call[1]]);
    kubectl(&["delete", "clusterrolebinding", "e2e-on-call"]);
}

#[test]
fn an_invalid_freeze_is_refused_with_the_fields_name() {
    let dry =
        |spec: &Value| attempt(&["create", "--dry-run=server", "-f", "-"], Some(&object("bad", spec).to_string()));
    assert!(dry(&json!({ "namespaceSelector": {} })).is_ok());
    dry(&json!({ "namespaceSelector": {}, "expiresAt": "9999-12-31T23:59:59Z" })).expect("it never ends, and may");
    let selector = |requirement: Value| json!({ "namespaceSelector": { "matchExpressions": [requirement] } });
    for (spec, said) in [
        (json!({ "state": "paused" }), "spec.namespaceSelector"),
        (json!({ "namespaceSelector": {}, "state": "running" }), "spec.state"),
        (json!({ "namespaceSelector": {}, "mode": "abruptly" }), "spec.mode"),
        (json!({ "namespaceSelector": {}, "expiresAt": "tomorrow" }), "spec.expiresAt"),
        (json!({ "namespaceSelector": {}, "expiresAt": "2027-01-31T22:00:00+99:99" }), "spec.expiresAt"),
        (json!({ "namespaceSelector": {}, "expiresAt": "2027-01-31T22:00:00x5Z" }), "spec.expiresAt"),
        (json!({ "namespaceSelector": { "matchLabels": { "the team": "a" } } }), "each key is the key of a label"),
        (json!({ "namespaceSelector": { "matchLabels": { "team": "a b" } } }), "spec.namespaceSelector.matchLabels"),
        (selector(json!({ "key": "the team", "operator": "Exists" })), "matchExpressions[0].key"),
        (selector(json!({ "key": "team", "operator": "In", "values": ["a b"] })), "values"),
        (json!({ "namespaceSelector": {}, "resumePerSecond": 0 }), "spec.resumePerSecond"),
        (
            json!({ "namespaceSelector": {}, "mode": "cancel", "deadlineSeconds": 5 }),
            "cancel ends work at once and has no deadline",
        ),
        (selector(json!({ "key": "team", "operator": "In" })), "In and NotIn need values"),
        (
            selector(json!({ "key": "team", "operator": "Exists", "values": ["a"] })),
            "Exists and DoesNotExist have none",
        ),
        (selector(json!({ "key": "team", "operator": "Near" })), "operator"),
    ] {
        let refused = dry(&spec).expect_err(said);
        assert!(refused.contains(said), "{said}: {refused}");
    }
}

/// In the name of the chart's own field manager: another's would be in the way of the next upgrade.
const AS_HELM: [&str; 6] = ["apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-"];

/// Gives the operator's ClusterRole back as it was.
struct Rights {
    before: Value,
}

impl Rights {
    fn without_freezes() -> Self {
        let mut role: Value = serde_json::from_str(&kubectl(&["get", "clusterrole", RELEASE, "-o", "json"])).unwrap();
        let meta = role["metadata"].as_object_mut().unwrap();
        meta.retain(|key, _| matches!(key.as_str(), "name" | "labels" | "annotations"));
        let before = role.clone();
        role["rules"]
            .as_array_mut()
            .unwrap()
            .retain(|rule| !rule["resources"].to_string().contains("\"agentfreezes\""));
        attempt(&AS_HELM, Some(&role.to_string())).unwrap();
        Self { before }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let _ = attempt(&AS_HELM, Some(&self.before.to_string()));
    }
}

#[test]
fn without_the_right_to_list_freezes_nothing_is_let_go_and_what_tightens_is_obeyed() {
    let space = Space::alone("freeze-rights");
    space.start(&runtime("runs", 1, &json!({})));
    space.start(&runtime("rests", 1, &json!({ "desiredState": "paused" })));
    let rights = Rights::without_freezes();
    // An operator that starts without it has never seen a freeze; one that runs notices within half a minute.
    kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment", RELEASE]);
    kubectl(&["-n", SYSTEM, "rollout", "status", "deployment", RELEASE, "--timeout=120s"]);
    space.patch("rests", &json!({ "desiredState": "running" }));
    let held = space.wait("rests", "FreezesUnknown", |status| condition(status, "Stalled").1 == "FreezesUnknown");
    assert_eq!((&held["status"]["state"], &held["status"]["desiredState"]), (&json!("paused"), &json!("paused")));
    space.wait("runs", "FreezesUnknown", |status| condition(status, "Stalled").1 == "FreezesUnknown");
    assert_eq!(http(&space.pod("runs"), "GET", "/api/v1/status", "").1["state"], "running", "what runs goes on");
    space.patch("runs", &json!({ "desiredState": "paused" }));
    space.wait("runs", "paused", |status| status["state"] == "paused");
    drop(rights);
    let back = |status: &Value| condition(status, "Ready") == ("True".to_owned(), "Running".to_owned());
    space.wait("rests", "running at last", back);
    space.wait("runs", "paused by itself", |status| condition(status, "Ready").1 == "Paused");
}
