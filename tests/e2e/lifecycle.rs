//! Apply, pause, resume, stop, and what happens to work in flight.

use std::time::{Duration, Instant};

use cluster::Signal;
use serde_json::{Value, json};

use crate::space::{Space, condition, eventually, execution, http, runtime};

fn versions(space: &Space, name: &str) -> Vec<String> {
    let selector = format!("agents.hive.dev/runtime={name}");
    let kinds = ["deployments", "services", "configmaps", "pods"];
    let children = kinds.into_iter().flat_map(|kind| space.list(kind, &selector));
    let all = children.chain([space.get("agentruntime", name)]);
    all.map(|object| format!("{} {}", object["metadata"]["name"], object["metadata"]["resourceVersion"])).collect()
}

#[test]
fn apply_runs_and_a_second_apply_changes_nothing() {
    let space = Space::new("apply");
    let object = runtime("demo", 1, &json!({}));
    let started = space.start(&object);
    let status = &started["status"];
    assert_eq!(status["state"], "running");
    assert_eq!(condition(status, "Ready"), ("True".to_owned(), "Running".to_owned()));
    assert_eq!(condition(status, "Reconciling").0, "");
    assert_eq!(status["observedGeneration"], started["metadata"]["generation"]);
    assert_eq!(condition(&space.pod("demo")["status"], "Ready").0, "True");
    // The endpoints of a Service, and Events, are written a moment later by others.
    let mut before = versions(&space, "demo");
    eventually(
        "quiet",
        || {
            std::thread::sleep(Duration::from_secs(2));
            let now = versions(&space, "demo");
            std::mem::replace(&mut before, now.clone()) == now
        },
        String::new,
    );
    space.apply(&object).unwrap();
    // Not a synchronisation: nothing is to happen in this time.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(versions(&space, "demo"), before);
}

#[test]
fn what_somebody_deletes_or_changes_is_put_back() {
    let space = Space::new("drift");
    space.start(&runtime("demo", 1, &json!({})));
    space.kubectl(&["delete", "service/demo", "configmap/demo-boot"]);
    space.kubectl(&["scale", "deployment", "demo", "--replicas=3"]);
    let list = |kind: &str| space.list(kind, "agents.hive.dev/runtime=demo");
    let named = |kind: &str, name: &str| list(kind).iter().any(|object| object["metadata"]["name"] == name);
    eventually("the children are back", || named("services", "demo") && named("configmaps", "demo-boot"), String::new);
    eventually("one pod again", || list("deployments")[0]["spec"]["replicas"] == 1, String::new);
    let above = |status: &Value| status["epoch"].as_i64() > Some(1);
    space.wait("demo", "an epoch above everything that a pod may have seen", above);
    space.ready("demo");
    // A restart by hand changes a field that is not ours: it goes through, and does not keep us from Ready.
    space.kubectl(&["rollout", "restart", "deployment/demo"]);
    space.kubectl(&["rollout", "status", "deployment/demo", "--timeout=90s"]);
    space.wait("demo", "Ready after a restart by hand", |status| {
        condition(status, "Ready").0 == "True" && status["updatedReplicas"] == 1 && status["replicas"] == 1
    });
}

#[test]
fn pause_waits_for_work_and_nothing_starts_afterwards() {
    let space = Space::new("pause");
    space.start(&runtime("demo", 6, &json!({})));
    let pod = space.pod("demo");
    let id = space.work(&pod, "slow");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let pausing = space.wait("demo", "pausing", |status| status["state"] == "pausing" && status["inFlight"] == 1);
    assert!(pausing["status"]["drainDeadline"].is_string());
    assert_eq!(condition(&pausing["status"], "Ready").0, "False");
    assert_eq!(condition(&pausing["status"], "Reconciling").0, "True");
    let paused = space.wait("demo", "paused", |status| status["state"] == "paused");
    assert_eq!(condition(&paused["status"], "Ready"), ("True".to_owned(), "Paused".to_owned()));
    assert_eq!(condition(&paused["status"], "Drained").0, "True");
    assert_eq!(paused["status"]["inFlight"], 0);
    assert_eq!(execution(&pod, &id)["state"], "succeeded");
    eventually("the pod is not ready", || condition(&space.pod("demo")["status"], "Ready").0 == "False", String::new);
    let total = || http(&pod, "GET", "/api/v1/status", "").1["total_executions"].clone();
    let before = total();
    // Not a synchronisation: four ticks come due in this time, and none may run.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(total(), before);
    space.patch("demo", &json!({ "desiredState": "running" }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
    eventually("timers go on", || total() != before, String::new);
}

#[test]
fn past_the_drain_deadline_it_is_stalled_and_goes_on_draining() {
    let space = Space::new("deadline");
    space.start(&runtime("demo", 10, &json!({ "lifecycle": { "drainTimeoutSeconds": 2 } })));
    let id = space.work(&space.pod("demo"), "slow");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").0 == "True");
    assert_eq!(condition(&stalled["status"], "Stalled").1, "DrainDeadlineExceeded");
    assert!(stalled["status"]["pods"][0]["heldBy"][0].as_str().unwrap().contains(&id), "it says who holds it up");
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
}

#[test]
fn created_paused_with_and_without_pods() {
    let space = Space::new("created-paused");
    let two = runtime("two", 1, &json!({ "desiredState": "paused", "replicas": 2 }));
    let none = runtime("none", 1, &json!({ "desiredState": "paused", "replicas": 0 }));
    space.apply(&two).unwrap();
    let reached = space.start(&none);
    assert_eq!(reached["status"]["state"], "paused");
    let reached = space.ready("two");
    let status = &reached["status"];
    assert_eq!((&status["state"], &status["acknowledgedReplicas"]), (&json!("paused"), &json!(2)));
    for pod in space.pods("two") {
        assert_eq!(http(&pod, "GET", "/api/v1/status", "").1["total_executions"], 0, "nothing ever ran");
    }
}

#[test]
fn stop_drains_then_scales_to_zero_and_starts_again() {
    let space = Space::new("stop");
    space.start(&runtime("demo", 5, &json!({})));
    let pod = space.pod("demo");
    let log = space.follow(&pod);
    let id = space.work(&pod, "slow");
    space.patch("demo", &json!({ "desiredState": "stopped" }));
    space.wait("demo", "stopping", |status| status["state"] == "stopping" && status["inFlight"] == 1);
    let stopped = space.ready("demo");
    assert_eq!(
        (&stopped["status"]["state"], condition(&stopped["status"], "Ready").1),
        (&json!("stopped"), "Stopped".to_owned())
    );
    eventually("its pods are gone", || space.pods("demo").is_empty(), String::new);
    let log = log.wait_with_output().unwrap();
    let ended = String::from_utf8(log.stdout).unwrap();
    assert!(ended.lines().any(|line| line.contains(&id) && line.contains("succeeded")), "it was drained: {ended}");
    space.patch("demo", &json!({ "desiredState": "running" }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

/// How the container's last process ended; none if the kubelet does not show it. It removes what is left of a
/// container at times before it has shown how it ended, and then never does.
fn last_exit(space: &Space, before: &Value) -> Option<i64> {
    let count = &before["status"]["containerStatuses"][0]["restartCount"];
    let mut exit = None;
    let mut restarted: Option<Instant> = None;
    eventually(
        "the container was started again",
        || {
            let container = space.pod("demo")["status"]["containerStatuses"][0].clone();
            let ended = |state: &str| container[state]["terminated"]["exitCode"].as_i64();
            exit = exit.or(ended("lastState")).or(ended("state"));
            if container["restartCount"] == *count || !container["state"]["running"].is_object() {
                return false;
            }
            // The kubelet may show the new container a moment before it shows how the old one ended.
            let since = *restarted.get_or_insert_with(Instant::now);
            exit.is_some() || since.elapsed() > Duration::from_secs(15)
        },
        String::new,
    );
    exit
}

/// Begins work, ends the container's process by a signal, and gives its exit code. If the kubelet does not show it, all
/// of that is tried once more; a third crash in the same step would rightly end the execution as a crash loop.
fn exit_by(signal: Signal, space: &Space, mut begin: impl FnMut(&Value)) -> Option<i64> {
    (0..2).find_map(|_| {
        let pod = space.pod("demo");
        begin(&pod);
        space.signal(&pod, signal);
        let exit = last_exit(space, &pod);
        space.ready("demo");
        exit
    })
}

#[test]
fn sigterm_finishes_work_in_flight_and_exits_with_0() {
    let space = Space::new("sigterm");
    space.start(&runtime("demo", 4, &json!({})));
    let mut ids = Vec::new();
    assert_eq!(exit_by(Signal::TERM, &space, |pod| ids.push(space.work(pod, "slow"))), Some(0));
    for id in &ids {
        eventually(
            "the execution is there and has succeeded",
            || execution(&space.pod("demo"), id)["state"] == "succeeded",
            || execution(&space.pod("demo"), id).to_string(),
        );
    }
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

#[test]
fn kill_9_loses_and_doubles_nothing() {
    let space = Space::new("kill");
    space.start(&runtime("demo", 3, &json!({})));
    let mut ids = Vec::new();
    let exit = exit_by(Signal::KILL, &space, |pod| {
        ids.push(space.work(pod, "slow"));
        ids.extend((0..5).map(|_| space.trigger(pod, "slow")));
    });
    assert_eq!(exit, Some(137));
    let pod = space.pod("demo");
    eventually(
        "every execution has ended",
        || ids.iter().all(|id| execution(&pod, id)["state"] == "succeeded"),
        || ids.iter().map(|id| execution(&pod, id).to_string()).collect(),
    );
    for id in &ids {
        assert_eq!(execution(&pod, id)["visits"]["slow"], 1, "once");
    }
    let (_, page) = http(&pod, "GET", "/api/v1/executions?limit=500", "");
    let slow = page["executions"].as_array().unwrap().iter().filter(|e| e["entry_point"] == "slow").count();
    assert_eq!(slow, ids.len(), "none was doubled");
}
