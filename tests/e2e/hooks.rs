//! Hooks: called in the pod before a pause and after a resume, once, also by another operator.

use serde_json::{Value, json};

use crate::removal::{WAIT, install, tags};
use crate::space::{RELEASE, SYSTEM, Space, condition, http, kubectl, runtime};

/// How often an entry point was begun; the hooks of these tests are its trigger.
fn begun(pod: &Value, entry_point: &str) -> usize {
    let (_, page) = http(pod, "GET", "/api/v1/executions?limit=500", "");
    page["executions"].as_array().unwrap().iter().filter(|e| e["entry_point"] == entry_point).count()
}

fn hook(path: &str, policy: &str) -> Value {
    json!({ "http": { "path": path }, "failurePolicy": policy })
}

#[test]
fn hooks_are_called_once_for_each_change_and_by_another_operator_not_again() {
    let space = Space::alone("hooks");
    let trigger = |entry: &str| hook(&format!("/api/v1/entry-points/{entry}/trigger"), "Fail");
    let spec = json!({ "replicas": 2, "lifecycle": { "prePause": trigger("quick"), "postResume": trigger("slow") } });
    space.start(&runtime("demo", 0, &spec));
    for round in 1..=2 {
        space.patch("demo", &json!({ "desiredState": "paused" }));
        space.ready("demo");
        space.patch("demo", &json!({ "desiredState": "running" }));
        space.ready("demo");
        for pod in space.pods("demo") {
            assert_eq!((begun(&pod, "quick"), begun(&pod, "slow")), (round, round), "{}", pod["metadata"]["name"]);
        }
        // Whoever leads next has nothing but the cluster to go by.
        kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment", RELEASE]);
        kubectl(&["-n", SYSTEM, "rollout", "status", "deployment", RELEASE, "--timeout=120s"]);
    }
}

#[test]
fn a_pause_waits_for_a_hook_that_fails_and_a_stop_does_not() {
    let space = Space::new("hook-fails");
    let spec = json!({ "lifecycle": { "prePause": hook("/nowhere", "Fail") } });
    space.start(&runtime("demo", 1, &spec));
    let failed = ("True".to_owned(), "HookFailed".to_owned());
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let stalled = space.wait("demo", "the hook fails", |status| condition(status, "Stalled") == failed);
    assert_eq!(stalled["status"]["state"], "running");
    space.patch("demo", &json!({ "lifecycle": { "prePause": { "failurePolicy": "Ignore" } } }));
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    space
        .patch("demo", &json!({ "desiredState": "running", "lifecycle": { "prePause": { "failurePolicy": "Fail" } } }));
    space.ready("demo");
    space.patch("demo", &json!({ "desiredState": "stopped" }));
    assert_eq!(space.ready("demo")["status"]["state"], "stopped");
}

fn exec(command: &[&str]) -> Value {
    json!({ "exec": { "command": command }, "failurePolicy": "Fail", "timeoutSeconds": 30 })
}

#[test]
fn a_hook_by_exec_is_run_only_by_an_operator_that_may_and_its_exit_code_counts() {
    let space = Space::alone("hook-exec");
    let works = exec(&["/agent-runtime", "schema"]);
    space.start(&runtime("demo", 1, &json!({})));
    space.patch("demo", &json!({ "lifecycle": { "prePause": works } }));
    let stalled = |status: &Value, reason: &str| condition(status, "Stalled") == ("True".to_owned(), reason.to_owned());
    let told = |object: &Value| object["status"]["conditions"].to_string();
    let off = space.wait("demo", "it may not", |status| stalled(status, "InvalidSpec"));
    assert!(told(&off).contains("spec.lifecycle.prePause.exec") && told(&off).contains("operator.execHooks"));
    let tags = tags();
    let mut may = vec!["--set", "operator.execHooks=true"];
    may.extend(WAIT);
    install(&tags, &may).unwrap();
    space.ready("demo");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    space.patch(
        "demo",
        &json!({ "desiredState": "running", "lifecycle": { "prePause": exec(&["/agent-runtime", "nonsense"]) } }),
    );
    space.ready("demo");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let failed = space.wait("demo", "it fails", |status| stalled(status, "HookFailed"));
    assert!(told(&failed).contains("exit code 2") && told(&failed).contains("nonsense"), "{}", told(&failed));
    assert_eq!(failed["status"]["state"], "running");
    space.patch("demo", &json!({ "lifecycle": { "prePause": null } }));
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    install(&tags, &WAIT).unwrap();
}
