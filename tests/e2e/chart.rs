//! The chart on a cluster: its own test, its metrics, an upgrade from the release before and back, the plain manifests.

use serde_json::json;

use crate::removal::{WAIT, install, tags};
use crate::space::{RELEASE, SYSTEM, Space, attempt, eventually, helm, kubectl, runtime};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The chart before its values were closed at every level, as `helm package` made it: what an upgrade begins from. A
/// release puts its own chart here. Until there is one it runs today's images, and its role allows what they do.
const PREVIOUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/charts/before.tgz");

#[test]
fn helm_test_pauses_and_resumes_a_runtime_of_its_own() {
    let _space = Space::new("helm-test");
    let told = helm(&["--namespace", SYSTEM, "test", RELEASE, "--logs", "--timeout", "180s"]).unwrap();
    for step in ["running after", "paused after", "running again after", "passed"] {
        assert!(told.contains(step), "{step}: {told}");
    }
    let left = || kubectl(&["--namespace", SYSTEM, "get", "agentruntimes,pods", "-o", "name"]);
    eventually("nothing is left", || !left().contains("selftest"), left);
}

#[test]
fn the_self_test_fails_and_says_why_when_the_operator_is_away() {
    let _space = Space::alone("helm-test-fails");
    kubectl(&["--namespace", SYSTEM, "scale", "deployment", RELEASE, "--replicas=0"]);
    install(&tags(), &["--set", "replicas=0", "--set", "selftest.timeoutSeconds=10"]).unwrap();
    let told = helm(&["--namespace", SYSTEM, "test", RELEASE, "--logs", "--timeout", "90s"]).unwrap_err();
    let log = attempt(&["--namespace", SYSTEM, "logs", &format!("{RELEASE}-selftest")], None).unwrap_or_default();
    install(&tags(), &WAIT).unwrap();
    assert!(told.contains("selftest"), "{told}");
    assert!(log.contains("is it running?"), "{log}");
}

/// The names of metrics in alerts and dashboards that are the operator's.
fn wanted() -> Vec<String> {
    let folder = format!("{ROOT}/charts/agentruntime-operator");
    let files = ["rules/alerts.yaml", "dashboards/operator.json"];
    let text: String = files.iter().map(|file| std::fs::read_to_string(format!("{folder}/{file}")).unwrap()).collect();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned);
    let mut names: Vec<String> =
        words.filter(|w| w.starts_with("agentruntime_") || w.starts_with("controller_runtime_")).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_metric_of_alerts_and_dashboards_is_exposed_by_the_leader() {
    let space = Space::new("metrics");
    space.start(&runtime("demo", 1, &json!({})));
    let selector = "app.kubernetes.io/name=agentruntime-operator";
    let pods = kubectl(&["--namespace", SYSTEM, "get", "pods", "-l", selector, "-o", "name"]);
    let metrics = |pod: &str| {
        let pod = pod.trim_start_matches("pod/");
        kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:9090/proxy/metrics")])
    };
    let all: Vec<String> = pods.lines().map(metrics).collect();
    let leader = all.iter().find(|text| text.lines().any(|line| line == "agentruntime_leading 1")).expect("a leader");
    let wanted = wanted();
    assert!(wanted.len() > 4, "{wanted:?}");
    for name in wanted {
        assert!(leader.lines().any(|line| line.starts_with(&name)), "{name} is not exposed:\n{leader}");
    }
}

#[test]
fn an_upgrade_from_the_release_before_and_a_rollback_disturb_no_agent() {
    let space = Space::alone("upgrade");
    let tags = tags();
    helm(&["--namespace", SYSTEM, "uninstall", RELEASE, "--wait", "--timeout", "60s"]).unwrap();
    let mut arguments = vec!["--namespace", SYSTEM, "install", RELEASE, PREVIOUS, &tags[0], &tags[1]];
    // Another test changes a field of a definition by hand, which is the field of kubectl from then on.
    arguments.push("--force-conflicts");
    arguments.extend(WAIT);
    helm(&arguments).unwrap();
    space.start(&runtime("runs", 1, &json!({})));
    space.start(&runtime("rests", 1, &json!({ "desiredState": "paused" })));
    let pods = || ["runs", "rests"].map(|name| space.pod(name)["metadata"]["uid"].clone());
    let restarts =
        || ["runs", "rests"].map(|name| space.pod(name)["status"]["containerStatuses"][0]["restartCount"].clone());
    let before = pods();
    let acts = |nonce: &str| {
        let state = |name: &str| space.get("agentruntime", name)["status"]["state"].clone();
        assert_eq!((state("runs"), state("rests")), (json!("running"), json!("paused")));
        assert_eq!((pods(), restarts()), (before.clone(), [json!(0), json!(0)]), "no pod was touched");
        space.patch("runs", &json!({ "desiredState": "paused", "resumeNonce": nonce }));
        assert_eq!(space.ready("runs")["status"]["state"], "paused", "the operator of {nonce} acts");
        space.patch("runs", &json!({ "desiredState": "running" }));
        space.ready("runs");
    };
    acts("the release before");
    install(&tags, &WAIT).unwrap();
    acts("the upgrade");
    let mut rollback = vec!["--namespace", SYSTEM, "rollback", RELEASE, "1"];
    rollback.extend(WAIT);
    helm(&rollback).unwrap();
    acts("the rollback");
    install(&tags, &WAIT).unwrap();
    acts("the second upgrade");
}

#[test]
fn the_api_server_takes_the_plain_manifests() {
    let _space = Space::new("plain");
    let file = format!("{ROOT}/dist/install.yaml");
    let taken =
        kubectl(&["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", &file]);
    let kinds: Vec<&str> = taken.lines().filter_map(|line| line.split('/').next()).collect();
    assert!(kinds.len() > 12, "{taken}");
    // With everything on, but for kinds whose definitions are not on this cluster.
    let set = "--set=networkPolicy.enabled=true,dashboards.enabled=true";
    install(&tags(), &["--dry-run=server", set]).unwrap();
}

#[test]
fn those_who_may_edit_a_namespace_may_pause_and_may_not_freeze() {
    let space = Space::new("roles");
    for role in ["view", "edit"] {
        space.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &format!("--user={role}er")]);
    }
    let may = |user: &str, verb: &str, what: &str| {
        let user = format!("--as={user}");
        attempt(&["--namespace", &space.name, "auth", "can-i", verb, what, &user], None)
            .is_ok_and(|a| a.trim() == "yes")
    };
    // Aggregation is done by a controller, a moment after the roles are there.
    eventually("editors may", || may("editer", "patch", "agentruntimes.agents.hive.dev"), String::new);
    assert!(may("viewer", "get", "agentruntimes.agents.hive.dev"));
    assert!(!may("viewer", "patch", "agentruntimes.agents.hive.dev"));
    assert!(!may("editer", "create", "agentfreezes.agents.hive.dev"));
    let may_lie = |extra: &[&str]| {
        let asked = ["auth", "can-i", "patch", "agentruntimes.agents.hive.dev", "--subresource=status"];
        attempt(&[&["--namespace", &space.name], asked.as_slice(), extra].concat(), None).is_ok()
    };
    assert!(may_lie(&[]) && !may_lie(&["--as=editer"]), "the status is the operator's");
}
