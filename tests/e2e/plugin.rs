//! kubectl hive: what a person sees of it, on real runtimes and under a person's own permissions.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::space::{Space, attempt, cluster, eventually, execution, kubectl, runtime};

/// The plugin, built beside the tests.
pub(crate) fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(|deps| deps.parent()).unwrap().join("kubectl-hive");
    assert!(path.exists(), "{} is not there: cargo build --package cli", path.display());
    path
}

/// Runs the plugin in a namespace, without a terminal.
fn hive(space: &Space, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.env("KUBECONFIG", cluster().kubeconfig()).args(["--namespace", &space.name]).args(arguments);
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it prints when it does what it was asked.
fn done(space: &Space, arguments: &[&str]) -> String {
    let output = hive(space, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}{said}", out(&output));
    out(&output)
}

/// What it says, and how it exits, when it does not.
fn refused(space: &Space, arguments: &[&str], code: i32) -> String {
    let output = hive(space, arguments);
    let said = format!("{}{}", out(&output), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn an_execution_is_begun_followed_and_cancelled_by_the_plugin() {
    let space = Space::new("plugin-executions");
    space.start(&runtime("demo", 60, &json!({})));
    let ended: Value = serde_json::from_str(&done(&space, &["trigger", "demo", "quick", "--wait", "30s"])).unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let id = ended["id"].as_str().unwrap();
    let list = done(&space, &["executions", "list", "demo", "--state", "succeeded"]);
    assert!(list.contains(id), "{list}");
    let got: Value = serde_json::from_str(&done(&space, &["executions", "get", "demo", id])).unwrap();
    assert_eq!(got["entry_point"], "quick");
    let events = done(&space, &["executions", "events", "demo", id]);
    let lines: Vec<&str> = events.lines().collect();
    assert!(lines.len() > 2 && lines[0].trim_start().starts_with('1'), "{events}");
    assert!(lines.last().unwrap().contains("succeeded"), "the stream ends with its end: {events}");
    let key = ["--idempotency-key", "once"];
    let once = || -> Value {
        let said = done(&space, &[["trigger", "demo", "slow"].as_slice(), &key].concat());
        serde_json::from_str::<Value>(&said).unwrap()["execution"].clone()
    };
    let slow = once();
    assert_eq!(slow, once(), "the same key is the same execution");
    let slow = slow.as_str().unwrap();
    done(&space, &["executions", "cancel", "demo", slow]);
    let pod = space.pod("demo");
    eventually("cancelled", || execution(&pod, slow)["state"] == "cancelled", || execution(&pod, slow).to_string());
    let log = done(&space, &["logs", "demo", "--execution", id]);
    assert!(!log.is_empty() && log.lines().all(|line| line.contains(id)), "{log}");
    assert!(refused(&space, &["executions", "get", "demo", "nothing"], 2).contains("knows the execution"));
    assert!(refused(&space, &["trigger", "demo", "nothing"], 1).contains("404"));
}

#[test]
fn a_pause_waits_says_what_holds_it_up_and_exits_by_what_was_reached() {
    let space = Space::new("plugin-pause");
    space.start(&runtime("demo", 15, &json!({})));
    let id = space.work(&space.pod("demo"), "slow");
    let late = refused(&space, &["pause", "demo", "--wait", "--timeout", "4s", "--reason", "bad model"], 3);
    assert!(late.contains("1 in flight") && late.contains("explain-state"), "{late}");
    let why = done(&space, &["explain-state", "demo"]);
    assert!(why.contains(&id) && why.contains("bad model"), "{why}");
    let tree = done(&space, &["status", "demo"]);
    assert!(tree.contains("pausing") && tree.contains(&id), "{tree}");
    done(&space, &["status", "demo", "--timeout", "60s"]);
    assert_eq!(space.get("agentruntime", "demo")["status"]["state"], "paused");
    assert!(refused(&space, &["stop", "--all"], 4).contains("--yes"), "a number is confirmed, or nothing is changed");
    done(&space, &["resume", "demo", "--wait"]);
    assert_eq!(space.get("agentruntime", "demo")["status"]["state"], "running");
    let before = space.pod("demo")["metadata"]["uid"].clone();
    done(&space, &["restart", "demo", "--wait"]);
    assert_ne!(space.pod("demo")["metadata"]["uid"], before);
}

#[test]
fn a_freeze_of_the_plugin_holds_its_namespace_until_it_is_taken_away() {
    let space = Space::new("plugin-freeze");
    space.start(&runtime("demo", 1, &json!({})));
    let name = format!("plugin-{}", space.name);
    assert!(refused(&space, &["freeze", &name], 4).contains("freeze 1 runtimes"));
    let made = done(&space, &["freeze", &name, "--reason", "wrong answers", "--yes", "--wait"]);
    assert!(made.contains("1 of 1 runtimes have reached it"), "{made}");
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    assert!(done(&space, &["explain-state", "demo"]).contains(&format!("Freeze {name} decides")));
    assert!(refused(&space, &["freeze", &name, "--yes"], 2).contains("already"));
    done(&space, &["unfreeze", &name]);
    space.wait("demo", "running", |status| status["state"] == "running" && status["source"] == "Spec");
    assert!(refused(&space, &["unfreeze", &name], 2).contains("there is no agentfreeze"));
}

#[test]
fn a_file_is_judged_before_it_is_applied() {
    let space = Space::new("plugin-validate");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, object: &Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, object.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let right = write("right.yaml", &runtime("demo", 1, &json!({})));
    done(&space, &["validate", &right]);
    assert_eq!(space.list("agentruntime", "").len(), 0, "nothing was applied");
    let mut wrong = runtime("demo", 1, &json!({ "replicas": -1, "replica": 1 }));
    wrong["spec"]["agent"]["inline"]["graph"]["nodes"][0]["node_type"] = json!("nothing");
    let said = refused(&space, &["validate", &write("wrong.yaml", &wrong)], 1);
    assert!(said.contains("spec.replica") && said.contains("nothing"), "{said}");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents/site-watch.yaml");
    assert!(done(&space, &["validate", example, "--offline"]).contains("ok     agent"));
}

#[test]
fn a_person_is_told_which_permission_is_missing() {
    let space = Space::new("plugin-rights");
    space.start(&runtime("demo", 1, &json!({})));
    assert!(done(&space, &["doctor"]).lines().all(|line| !line.starts_with("WRONG")));
    space.kubectl(&["create", "serviceaccount", "looker"]);
    space.kubectl(&[
        "create",
        "role",
        "looker",
        "--verb=get,list,watch",
        "--resource=agentruntimes.agents.hive.dev,pods",
    ]);
    space.kubectl(&[
        "create",
        "rolebinding",
        "looker",
        "--role=looker",
        &format!("--serviceaccount={}:looker", space.name),
    ]);
    let token = space.kubectl(&["create", "token", "looker"]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    std::fs::copy(cluster().kubeconfig(), &config).unwrap();
    let config = config.to_str().unwrap();
    let user = kubectl(&["--kubeconfig", config, "config", "view", "-o", "jsonpath={.contexts[0].context.user}"]);
    attempt(&["--kubeconfig", config, "config", "unset", &format!("users.{user}")], None).unwrap();
    kubectl(&["--kubeconfig", config, "config", "set-credentials", &user, &format!("--token={}", token.trim())]);
    let as_looker = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.env("KUBECONFIG", config).args(["--namespace", &space.name]).args(arguments).output().unwrap()
    };
    assert_eq!(as_looker(&["status"]).status.code(), Some(0), "what it may do works");
    let trigger = as_looker(&["trigger", "demo", "quick"]);
    let said = String::from_utf8_lossy(&trigger.stderr).into_owned();
    assert_eq!(trigger.status.code(), Some(1), "{said}");
    assert!(said.contains("pods/proxy") || said.contains("\"pods\""), "{said}");
    let pause = as_looker(&["pause", "demo"]);
    assert!(String::from_utf8_lossy(&pause.stderr).contains("cannot patch"), "{pause:?}");
    let doctor = as_looker(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(out(&doctor).contains("WRONG  you may not patch agentruntimes"), "{}", out(&doctor));
}
