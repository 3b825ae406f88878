//! The dashboard in the cluster: what it may see, who may reach it, and that it is only there when it is asked for.

use serde_json::{Value, json};

use crate::chart::{objects, one, render_json, with};

const ON: &str = "dashboard.enabled=true";

/// The objects that the dashboard adds.
fn added(set: &[&str]) -> Vec<Value> {
    let mut objects = with(set);
    objects.retain(|object| object["metadata"]["labels"]["app.kubernetes.io/name"] == "agentruntime-dashboard");
    objects
}

fn container(objects: &[Value]) -> Value {
    one(objects, "Deployment", "-dashboard")["spec"]["template"]["spec"]["containers"][0].clone()
}

/// Every verb on every resource that a role gives.
fn rights(object: &Value) -> Vec<String> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut all = Vec::new();
    for rule in object["rules"].as_array().unwrap() {
        for resource in texts(&rule["resources"]) {
            all.extend(texts(&rule["verbs"]).iter().map(|verb| format!("{verb} {resource}")));
        }
    }
    all.sort();
    all
}

#[test]
fn it_is_there_only_when_it_is_asked_for() {
    assert!(added(&[]).is_empty());
    let kinds: Vec<Value> = added(&[ON]).iter().map(|object| object["kind"].clone()).collect();
    let wanted = ["ServiceAccount", "NetworkPolicy", "Service", "Deployment", "ClusterRole", "ClusterRoleBinding"];
    assert_eq!(kinds.len(), wanted.len(), "{kinds:?}");
    assert!(wanted.iter().all(|kind| kinds.contains(&json!(kind))), "{kinds:?}");
    let without = added(&[ON, "rbac.create=false"]);
    assert!(without.iter().all(|object| !object["kind"].as_str().unwrap().contains("Role")));
}

#[test]
fn it_may_read_what_it_shows_and_change_nothing() {
    let role = |set: &[&str]| rights(one(&added(set), "ClusterRole", "-dashboard"));
    let plain = role(&[ON]);
    let shown = [
        "get agentruntimes",
        "list agentfreezes",
        "list agentruntimes",
        "list deployments",
        "list events",
        "watch agentfreezes",
        "watch agentruntimes",
        "watch events",
    ];
    assert_eq!(plain, shown);
    let more = |set: &[&str]| -> Vec<String> { role(set).into_iter().filter(|right| !plain.contains(right)).collect() };
    assert_eq!(more(&[ON, "dashboard.logs=true"]), ["get pods/log", "list pods"]);
    assert_eq!(more(&[ON, "dashboard.executions=true"]), ["get pods/proxy", "list pods"]);
}

#[test]
fn it_can_be_of_one_namespace_alone() {
    let objects = added(&[ON, "dashboard.namespace=shop"]);
    assert_eq!(rights(one(&objects, "ClusterRole", "-dashboard")), ["list agentfreezes", "watch agentfreezes"]);
    for kind in ["Role", "RoleBinding"] {
        assert_eq!(one(&objects, kind, "-dashboard")["metadata"]["namespace"], "shop");
    }
    let account = &one(&objects, "RoleBinding", "-dashboard")["subjects"][0];
    assert_eq!(
        (&account["namespace"], &account["name"]),
        (&json!("system"), &json!("hive-agentruntime-operator-dashboard"))
    );
    let args = container(&objects)["args"].to_string();
    assert!(args.contains("--namespace=shop") && !args.contains("--all-namespaces"), "{args}");
}

#[test]
fn nobody_in_the_cluster_reaches_it_unless_they_are_named() {
    let objects = added(&[ON]);
    let policy = &one(&objects, "NetworkPolicy", "-dashboard")["spec"];
    assert_eq!((&policy["ingress"], &policy["policyTypes"]), (&json!([]), &json!(["Ingress", "Egress"])));
    assert_eq!(policy["egress"][0]["ports"].as_array().unwrap().len(), 2, "the API server alone");
    let from = r#"dashboard.ingressFrom=[{"podSelector":{"matchLabels":{"app":"proxy"}}}]"#;
    let named = objects_of(from);
    let ingress = &one(&named, "NetworkPolicy", "-dashboard")["spec"]["ingress"];
    assert_eq!(ingress[0]["from"][0]["podSelector"]["matchLabels"]["app"], "proxy");
    assert_eq!(ingress[0]["ports"][0]["port"], "http");
}

fn objects_of(json: &str) -> Vec<Value> {
    objects(&render_json(&[ON], &[json]).unwrap())
}

#[test]
fn it_only_shows_and_answers_to_its_own_names() {
    let args = |objects: &[Value]| -> Vec<String> {
        let args = container(objects)["args"].as_array().unwrap().clone();
        args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
    };
    let plain = args(&added(&[ON]));
    assert_eq!(plain[..4], ["dashboard", "--read-only", "--listen=[::]:8080", "--all-namespaces"]);
    let name = "hive-agentruntime-operator-dashboard";
    let own = [name.to_owned(), format!("{name}.system"), format!("{name}.system.svc")];
    assert_eq!(plain[4..], own.map(|name| format!("--allow-host={name}")));
    let named = args(&objects_of(r#"dashboard.hosts=["hive.example"]"#));
    assert_eq!(named.last().unwrap(), "--allow-host=hive.example");
}

#[test]
fn its_pods_are_no_pods_of_the_operator() {
    let objects = with(&[ON]);
    let selector = |end: &str| one(&objects, "Deployment", end)["spec"]["selector"]["matchLabels"].clone();
    let labels = one(&objects, "Deployment", "-dashboard")["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(labels["app.kubernetes.io/name"], selector("-dashboard")["app.kubernetes.io/name"]);
    assert_ne!(labels["app.kubernetes.io/name"], selector("operator")["app.kubernetes.io/name"]);
    assert_eq!(one(&objects, "Service", "-dashboard")["spec"]["selector"], selector("-dashboard"));
    let long = with(&[ON, "fullnameOverride=a-name-of-a-release-that-is-as-long-as-names-can-be-here-x"]);
    let name = one(&long, "Service", "-dashboard")["metadata"]["name"].as_str().unwrap();
    assert!(name.len() <= 63, "{name}");
}
