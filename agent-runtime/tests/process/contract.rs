//! The lifecycle contract: the real client against the real server.

use agent_runtime::control::record::Fence;
use lifecycle::client::Error;
use lifecycle::fence::Record;
use lifecycle::wire::Command;
use lifecycle::{Desired, DrainMode, OnDrainTimeout, State, Verb};
use serde_json::Value;

use crate::process::{Home, PATIENCE, agent, command, eventually, held};

#[tokio::test]
async fn status_has_exactly_the_promised_fields() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (code, status) = runtime.get("/api/v1/status").await;
    assert_eq!(code, 200);
    for (field, kind) in [
        ("state", "string"),
        ("uptime_seconds", "number"),
        ("active_streams", "number"),
        ("total_executions", "number"),
        ("failed_executions", "number"),
        ("entry_points", "array"),
        ("health", "object"),
    ] {
        let found = match &status[field] {
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Null | Value::Bool(_) => "other",
        };
        assert_eq!(found, kind, "{field}");
    }
    let health: Vec<&String> = status["health"].as_object().unwrap().keys().collect();
    assert_eq!(health, ["llm", "storage", "tools"]);
}

#[tokio::test]
async fn pause_waits_for_work_in_flight_and_resume_goes_on() {
    let home = Home::new(&held());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.work(&home).await;
    let answer = runtime.ask(Verb::Pause).await;
    assert!(!answer.reached);
    assert_eq!((answer.status.state, answer.status.in_flight), (State::Pausing, Some(1)));
    assert_eq!(answer.status.held_by.len(), 1);
    let (code, problem) = runtime.post("/api/v1/entry-points/slow/trigger", &[], "").await;
    assert_eq!((code, problem["type"].as_str()), (503, Some("paused")));
    home.let_go();
    let paused = runtime.reach(State::Paused).await;
    assert_eq!((paused.in_flight, home.lines("done").len()), (Some(0), 1));
    assert_eq!(runtime.get("/health/ready").await.0, 503);
    assert_eq!(runtime.get("/health/live").await.0, 200);
    assert!(runtime.ask(Verb::Resume).await.reached);
    assert_eq!(runtime.get("/health/ready").await.0, 200);
}

#[tokio::test]
async fn with_queue_a_paused_runtime_accepts_work_and_begins_it_after_the_resume() {
    let home = Home::new(&agent(0.1)).with("HIVE_WHILE_PAUSED", "queue");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(Verb::Pause).await;
    runtime.reach(State::Paused).await;
    assert_eq!(runtime.get("/health/ready").await.0, 200);
    let id = runtime.trigger().await;
    let status = runtime.status().await;
    assert_eq!((status.state, status.queued, status.in_flight), (State::Paused, 1, Some(0)));
    assert!(home.lines("started").is_empty());
    runtime.ask(Verb::Resume).await;
    home.wait_for_lines("done", 1).await;
    assert_eq!(home.lines("done"), [id]);
}

#[tokio::test]
async fn no_timer_fires_while_paused_though_many_are_due() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    home.wait_for_lines("ticks", 2).await;
    runtime.ask(Verb::Pause).await;
    let paused = runtime.reach(State::Paused).await;
    let before = home.lines("ticks").len();
    // Not a synchronisation: ten ticks come due in this second, and none may run.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(home.lines("ticks").len(), before);
    // One may have been on its way to the disk when the pause came: it is queued, and not run.
    let after = runtime.status().await;
    assert!(after.total_executions <= paused.total_executions + 1, "{after:?}");
    assert_eq!((after.state, after.in_flight), (State::Paused, Some(0)));
    runtime.ask(Verb::Resume).await;
    home.wait_for_lines("ticks", before + 1).await;
}

#[tokio::test]
async fn checkpoint_stops_at_the_next_step_and_goes_on_after_the_resume() {
    let two_steps = r#"
graph:
  entry_points: {slow: one}
  nodes:
    - {id: one, node_type: exec, command: [/bin/sh, -c, "echo 1 >> started; while [ ! -e go ]; do sleep 0.02; done"]}
    - {id: two, node_type: exec, command: [/bin/sh, -c, "echo 2 >> done"]}
  edges: [{id: e, source: one, target: two}]
"#;
    let home = Home::new(two_steps);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.work(&home).await;
    let body = Command { mode: Some(DrainMode::Checkpoint), ..Command::default() };
    assert!(!runtime.send(Verb::Pause, &body).await.unwrap().reached);
    home.let_go();
    runtime.reach(State::Paused).await;
    let (_, execution) = runtime.get(&format!("/api/v1/executions/{id}")).await;
    assert_eq!(
        (execution["state"].as_str(), execution["branches"]["main"]["node"].as_str()),
        (Some("queued"), Some("two"))
    );
    assert!(home.lines("done").is_empty());
    runtime.ask(Verb::Resume).await;
    home.wait_for_lines("done", 1).await;
    assert_eq!(home.lines("started"), ["1"], "the first step is not repeated");
}

const ONE_AT_A_TIME: &str = r#"
graph:
  async_entry_points: [{id: slow, entry_node: one, max_concurrent: 1}]
  nodes:
    - {id: one, node_type: exec, command: [/bin/sh, -c, "echo 1 >> started; sleep $(cat seconds || echo 60); echo 1 >> done"]}
"#;

#[tokio::test]
async fn cancel_ends_what_is_in_flight_at_once_and_leaves_what_waits() {
    let home = Home::new(ONE_AT_A_TIME).managed();
    home.write_boot(1, "running");
    let runtime = home.start().await;
    runtime.send(Verb::Start, &command(1)).await.unwrap();
    runtime.reach(State::Running).await;
    let id = runtime.work(&home).await;
    let next = runtime.trigger().await;
    // A drain is under way when the emergency comes.
    let drain = runtime.send(Verb::Pause, &command(2)).await.unwrap();
    assert_eq!((drain.reached, drain.status.in_flight), (false, Some(1)));
    let cancel = Command { mode: Some(DrainMode::Cancel), ..command(3) };
    runtime.send(Verb::Pause, &cancel).await.unwrap();
    runtime.reach(State::Paused).await;
    let state = |execution: serde_json::Value| execution["state"].as_str().unwrap_or_default().to_owned();
    let get = async |id: &str| state(runtime.get(&format!("/api/v1/executions/{id}")).await.1);
    assert_eq!((get(&id).await.as_str(), get(&next).await.as_str()), ("cancelled", "queued"));
    assert_eq!((home.lines("started").len(), home.lines("done").len()), (1, 0));
    std::fs::write(home.path("seconds"), "0").unwrap();
    runtime.send(Verb::Resume, &command(4)).await.unwrap();
    home.wait_for_lines("done", 1).await;
    assert_eq!(get(&id).await, "cancelled", "the resume does not bring it back");
}

#[tokio::test]
async fn a_crash_between_a_cancel_and_the_end_of_what_it_cancels_brings_nothing_back() {
    // The epoch was on disk when the process ended, or the process ended before the command came.
    for accepted in [true, false] {
        let home = Home::new(ONE_AT_A_TIME).managed();
        home.write_boot(1, "running");
        let runtime = home.start().await;
        runtime.send(Verb::Start, &command(1)).await.unwrap();
        runtime.reach(State::Running).await;
        let id = runtime.work(&home).await;
        let next = runtime.trigger().await;
        runtime.kill().await;
        if accepted {
            let (mut fence, recorded) = Fence::open(&home.path(".hive")).unwrap();
            let holds = recorded.as_ref().unwrap().holds.commanded(Desired::Paused);
            fence.write(&Record { epoch: 2, state: Desired::Paused, holds, ..recorded.unwrap() }).unwrap();
        }
        let runtime = home.start().await;
        let cancel = Command { mode: Some(DrainMode::Cancel), ..command(2) };
        runtime.send(Verb::Pause, &cancel).await.unwrap();
        runtime.reach(State::Paused).await;
        let get = async |id: &str| runtime.get(&format!("/api/v1/executions/{id}")).await.1["state"].clone();
        eventually("it is cancelled", || async { get(&id).await == "cancelled" }).await;
        assert_eq!(get(&next).await, "queued", "accepted = {accepted}");
        std::fs::write(home.path("seconds"), "0").unwrap();
        runtime.send(Verb::Resume, &command(3)).await.unwrap();
        home.wait_for_lines("done", 1).await;
        assert_eq!((get(&id).await, home.lines("started").len()), ("cancelled".into(), 2));
    }
}

#[tokio::test]
async fn past_the_drain_deadline_wait_goes_on_and_names_the_holder() {
    let home = Home::new(&held()).managed();
    home.write_boot(1, "running");
    let runtime = home.start().await;
    runtime.send(Verb::Start, &command(1)).await.unwrap();
    runtime.reach(State::Running).await;
    let id = runtime.work(&home).await;
    let body = Command { deadline_seconds: Some(0), on_timeout: Some(OnDrainTimeout::Wait), ..command(2) };
    let answer = runtime.send(Verb::Pause, &body).await.unwrap();
    // A tick may be under way as well.
    assert!(answer.status.held_by.iter().any(|holder| holder.execution == id), "{:?}", answer.status.held_by);
    assert!(answer.status.drain_deadline.is_some());
    crate::process::eventually("the deadline has passed", || async {
        let status = runtime.status().await;
        assert_eq!((status.state, status.in_flight), (State::Pausing, Some(1)));
        status
            .drain_deadline
            .and_then(|at| at.parse::<jiff::Timestamp>().ok())
            .is_some_and(|at| at < jiff::Timestamp::now())
    })
    .await;
    home.let_go();
    runtime.reach(State::Paused).await;
    assert_eq!(home.lines("done"), [id]);
}

#[tokio::test]
async fn stop_interrupts_at_its_deadline_and_start_takes_the_work_up_again() {
    let home = Home::new(&held());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.work(&home).await;
    let body = Command { deadline_seconds: Some(0), ..Command::default() };
    runtime.send(Verb::Stop, &body).await.unwrap();
    runtime.reach(State::Stopped).await;
    assert!(home.lines("done").is_empty(), "it was interrupted");
    let (_, execution) = runtime.get(&format!("/api/v1/executions/{id}")).await;
    assert_eq!(execution["state"], "queued", "an interruption is no failure");
    home.let_go();
    runtime.ask(Verb::Start).await;
    home.wait_for_lines("done", 1).await;
    let started = home.lines("started");
    assert_eq!(started.len(), 2);
    assert_eq!(started[0], started[1], "the repeated step has the same idempotency key");
}

#[tokio::test]
async fn restart_reads_the_definition_anew_and_keeps_holds() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(Verb::Pause).await;
    runtime.reach(State::Paused).await;
    std::fs::write(home.path("agent.yaml"), agent(0.1).replace("id: slow", "id: swift")).unwrap();
    runtime.ask(Verb::Restart).await;
    let status = runtime.reach(State::Paused).await;
    assert_eq!(status.holds, ["local"]);
    crate::process::eventually("the new entry point", || async {
        runtime.status().await.entry_points.contains(&"swift".to_owned())
    })
    .await;
}

#[tokio::test]
async fn an_older_epoch_is_refused_and_an_equal_one_answered() {
    let home = Home::new(&agent(0.1)).managed();
    home.write_boot(5, "running");
    let runtime = home.start().await;
    runtime.send(Verb::Start, &command(5)).await.unwrap();
    runtime.reach(State::Running).await;
    runtime.send(Verb::Pause, &command(6)).await.unwrap();
    let Err(Error::Stale { status, .. }) = runtime.send(Verb::Start, &command(5)).await else { panic!("stale") };
    assert_eq!((status.epoch, status.state), (6, State::Paused));
    assert!(runtime.send(Verb::Pause, &command(6)).await.unwrap().reached);
    let held = runtime.send(Verb::Resume, &Command::default()).await.unwrap_err();
    assert!(held.to_string().contains("409"), "{held}");
    assert_eq!(runtime.status().await.state, State::Paused);
}

#[tokio::test]
async fn a_command_for_another_pod_is_refused() {
    let home = Home::new(&agent(0.1)).managed();
    home.write_boot(1, "running");
    let runtime = home.start().await;
    for wrong in [
        Command { pod_uid: Some("pod-2".to_owned()), ..command(9) },
        Command { runtime_uid: Some("runtime-2".to_owned()), ..command(9) },
    ] {
        let Err(Error::Refused { code, .. }) = runtime.send(Verb::Pause, &wrong).await else { panic!("refused") };
        assert_eq!(code, 421);
    }
    assert_eq!(runtime.status().await.epoch, 1);
}

#[tokio::test]
async fn a_long_poll_of_another_process_is_answered_at_once() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    let begun = std::time::Instant::now();
    let (code, _) = runtime.get("/api/v1/status?after=another.7&wait=30").await;
    assert_eq!(code, 200);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[tokio::test]
async fn an_agent_that_cannot_be_run_is_stopped_with_its_reason_and_obeys() {
    let home = Home::new("graph:\n  nodes:\n    - {id: a, node_type: dream}\n");
    let runtime = home.start().await;
    let status = runtime.reach(State::Stopped).await;
    let message = status.message.unwrap();
    assert!(message.contains("agent.yaml:3") && message.contains("dream"), "{message}");
    assert_eq!(runtime.get("/health/live").await.0, 200);
    let (code, problem) = runtime.get("/health/ready").await;
    assert!(code == 503 && problem["detail"].as_str().unwrap().contains("dream"));
    std::fs::write(home.path("agent.yaml"), agent(0.1)).unwrap();
    runtime.ask(Verb::Start).await;
    runtime.reach(State::Running).await;
}

#[tokio::test]
async fn metrics_and_the_api_description_are_served() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    home.wait_for_lines("ticks", 1).await;
    crate::process::eventually("an execution is counted", || async {
        let (_, metrics) = runtime.get("/metrics").await;
        metrics.as_str().unwrap().contains("hive_executions_total{state=\"succeeded\"}")
    })
    .await;
    let (_, document) = runtime.get("/openapi.json").await;
    for path in ["/api/v1/lifecycle/{verb}", "/api/v1/status", "/api/v1/entry-points/{id}/trigger"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let (_, streams) = runtime.get("/api/v1/status/streams").await;
    assert!(streams["streams"].is_array());
}

#[tokio::test]
async fn every_promise_of_the_contract_is_kept() {
    let home = Home::new(&held());
    let runtime = home.start().await;
    let checks = lifecycle::conformance::run(&runtime.client, runtime.address, PATIENCE, |_| {}).await;
    let broken: Vec<_> = checks.iter().filter(|check| check.outcome.is_err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checks.len() > 25 && checks.iter().all(|check| !check.is_skipped), "brakes are tried too: {checks:#?}");
    assert_eq!(runtime.status().await.state, State::Running);
}

#[tokio::test]
async fn a_promise_that_is_not_kept_is_named() {
    let home = Home::new(&held());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.work(&home).await;
    let patience = std::time::Duration::from_secs(1);
    let checks = lifecycle::conformance::run(&runtime.client, runtime.address, patience, |_| {}).await;
    let broken = checks.iter().find(|check| check.promise.starts_with("pause is reached"));
    let reason = broken.and_then(|check| check.outcome.clone().err()).unwrap();
    assert!(reason.contains("pausing with Some(1) in flight"), "{reason}");
    home.let_go();
}
