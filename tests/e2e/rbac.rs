//! The operator's roles against what it really calls, as the API server's audit log has it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};

use serde_json::{Value, json};

use crate::space::{RELEASE, SYSTEM, Space, attempt, cluster, condition, eventually, kubectl, runtime};

/// What a rule allows and no call of this test shows, with the reason why the rule is there.
const WAIVED: [(&str, &str, &str); 9] = [
    ("deployments", "create", "an apply of what is not there needs it besides patch, which is what the log shows"),
    ("services", "create", "as for deployments"),
    ("serviceaccounts", "create", "as for deployments"),
    ("persistentvolumeclaims", "create", "as for deployments"),
    ("poddisruptionbudgets", "create", "as for deployments"),
    ("networkpolicies", "create", "as for deployments"),
    ("leases", "create", "once for each installation"),
    ("secrets", "create", "once for each installation"),
    ("events", "patch", "only for what is said again within some minutes"),
];

type Right = (String, String, String);

fn account() -> String {
    format!("system:serviceaccount:{SYSTEM}:{RELEASE}")
}

/// The calls of the operator since.
fn calls(from: u64) -> Vec<Value> {
    let mut file = std::fs::File::open(cluster().audit_log().unwrap()).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let events = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    events.filter(|event| event["user"]["username"] == account().as_str()).collect()
}

fn right(event: &Value) -> Option<Right> {
    let object = event["objectRef"].as_object()?;
    let word = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (resource, sub) = (word("resource"), word("subresource"));
    let resource = if sub.is_empty() { resource } else { format!("{resource}/{sub}") };
    Some((word("apiGroup"), resource, event["verb"].as_str()?.to_owned()))
}

/// What the roles of the chart allow, one by one.
fn rights() -> BTreeSet<Right> {
    let roles = [
        kubectl(&["get", "clusterrole", RELEASE, "-o", "json"]),
        kubectl(&["-n", SYSTEM, "get", "role", RELEASE, "-o", "json"]),
    ];
    let mut all = BTreeSet::new();
    for role in roles {
        let role: Value = serde_json::from_str(&role).unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let words = |field: &str| {
                rule[field].as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    all.extend(words("verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
                }
            }
        }
    }
    all
}

fn is_waived((_, resource, verb): &Right) -> bool {
    WAIVED.iter().any(|(of, to, _)| of == resource && to == verb)
}

/// Everything that the operator does.
fn full_cycle(space: &Space) {
    kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment", RELEASE]);
    kubectl(&["-n", SYSTEM, "rollout", "status", "deployment", RELEASE, "--timeout=120s"]);
    kubectl(&[
        "-n",
        SYSTEM,
        "annotate",
        "secret",
        "agentruntime-operator-keys",
        "--overwrite",
        "agents.hive.dev/rotate-keys=now",
    ]);
    let mut object = runtime("demo", 1, &json!({}));
    let agent = object["spec"]["agent"]["inline"].to_string();
    let texts = json!({ "one.json": agent, "two.json": agent.replace("\"e2e\"", "\"other\"") });
    space
        .apply(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "agents" }, "data": texts }))
        .unwrap();
    object["spec"]["agent"] = json!({ "configMapRef": { "name": "agents", "key": "one.json" } });
    space.start(&object);
    space.patch("demo", &json!({ "agent": { "configMapRef": { "key": "two.json" } } }));
    space.ready("demo");
    let name = format!("rbac-{}", space.name);
    kubectl(&["label", "namespace", &space.name, &format!("e2e-rbac={name}")]);
    let freeze = json!({ "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze", "metadata": { "name": name },
        "spec": { "namespaceSelector": { "matchLabels": { "e2e-rbac": name } } } });
    space.apply(&freeze).unwrap();
    space.wait("demo", "Frozen", |status| condition(status, "Ready").1 == "Frozen");
    // Its own status is written as well.
    kubectl(&["wait", "agentfreeze", &name, "--for=condition=Ready", "--timeout=60s"]);
    kubectl(&["delete", "agentfreeze", &name]);
    space.wait("demo", "Running", |status| condition(status, "Ready").1 == "Running");
    let claim =
        json!({ "desiredState": "stopped", "storage": { "volumeClaim": { "size": "1Gi", "whenDeleted": "Delete" } } });
    space.start(&runtime("kept", 1, &claim));
}

#[test]
fn each_call_of_the_operator_is_allowed_by_a_rule_and_each_rule_is_used() {
    let space = Space::alone("rbac");
    let from = std::fs::metadata(cluster().audit_log().unwrap()).unwrap().len();
    full_cycle(&space);
    let rights = rights();
    let unused = || {
        let used: BTreeSet<Right> = calls(from).iter().filter_map(right).collect();
        rights.iter().filter(|right| !used.contains(*right) && !is_waived(right)).cloned().collect::<Vec<_>>()
    };
    eventually("each rule is used", || unused().is_empty(), || format!("never used: {:?}", unused()));
    let calls = calls(from);
    let used: BTreeSet<Right> = calls.iter().filter_map(right).collect();
    let decided =
        |event: &Value| event["annotations"]["authorization.k8s.io/decision"].as_str().unwrap_or_default().to_owned();
    let refused: BTreeSet<String> = calls
        .iter()
        .filter(|event| decided(event) != "allow")
        .map(|event| format!("{} {}", event["verb"], event["requestURI"]))
        .collect();
    assert!(refused.is_empty(), "calls that no rule allows: {refused:?}");
    let beyond: Vec<&Right> = used.iter().filter(|right| !rights.contains(*right)).collect();
    assert!(beyond.is_empty(), "calls that only another role allows: {beyond:?}");
    let kept: Vec<&(&str, &str, &str)> = WAIVED
        .iter()
        .filter(|(of, to, _)| {
            !rights.iter().any(|(_, resource, verb)| (resource.as_str(), verb.as_str()) == (*of, *to))
        })
        .collect();
    assert!(kept.is_empty(), "waived, and no rule: {kept:?}");
    println!("{} calls by {} of {} rights, {} of them waived", calls.len(), used.len(), rights.len(), WAIVED.len());
    // A call that no rule allows is seen as such: the log has the API server's decision.
    let _ =
        attempt(&["--as", &account(), "-n", SYSTEM, "delete", "pods", "--all", "--dry-run=server"], None).unwrap_err();
}
