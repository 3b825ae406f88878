//! Graphs as they really run: branches side by side, effects that happen once, and what people may ask.

use lifecycle::{DrainMode, State, Verb, wire::Command};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Home, Runtime, eventually};

/// Waits until an execution is in a state, and gives it.
pub(crate) async fn until(runtime: &Runtime, id: &str, state: &str) -> Value {
    let path = format!("/api/v1/executions/{id}");
    let there = || async {
        let execution = runtime.get(&path).await.1;
        let ended = execution["ended"].is_string() && execution["state"] != state;
        assert!(!ended, "it ended otherwise: {execution}");
        execution["state"] == state
    };
    eventually(&format!("{id} is {state}"), there).await;
    runtime.get(&path).await.1
}

async fn started(agent: &str) -> (Home, Runtime) {
    let home = Home::new(agent);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    (home, runtime)
}

const BRANCHES: &str = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo >> started"]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo b >> steps; while [ ! -e go ]; do sleep 0.02; done; echo '{\"k\": \"b\"}'"], output_keys: [k]}
    - {id: c, node_type: exec, command: [/bin/sh, -c, "echo c >> steps; while [ ! -e go ]; do sleep 0.02; done; echo '{\"k\": \"c\"}'"], output_keys: [k]}
    - {id: d, node_type: exec, command: [/bin/sh, -c, "echo {{k}} >> done"]}
  edges:
    - {source: a, target: b}
    - {source: a, target: c}
    - {source: b, target: d}
    - {source: c, target: d}
"#;

#[tokio::test]
async fn branches_run_side_by_side_and_join_once() {
    let (home, runtime) = started(BRANCHES).await;
    let id = runtime.trigger().await;
    home.wait_for_lines("steps", 2).await;
    assert_eq!(runtime.status().await.in_flight, Some(1), "one execution, two steps");
    std::fs::write(home.path("go"), "").unwrap();
    let execution = until(&runtime, &id, "succeeded").await;
    assert_eq!((home.lines("done"), &execution["memory"]["k"]), (vec!["c".to_owned()], &json!("c")));
}

#[tokio::test]
async fn a_crash_in_a_fork_repeats_the_branches_that_had_not_ended_with_the_same_keys() {
    let text = BRANCHES.replace("echo b >> steps", "echo $HIVE_IDEMPOTENCY_KEY >> keys; echo b >> steps");
    let (home, runtime) = started(&text).await;
    let id = runtime.trigger().await;
    home.wait_for_lines("steps", 2).await;
    runtime.kill().await;
    std::fs::write(home.path("go"), "").unwrap();
    let runtime = home.start().await;
    until(&runtime, &id, "succeeded").await;
    let keys = home.lines("keys");
    assert_eq!((keys.len(), &keys[0], home.lines("started").len()), (2, &keys[1], 1));
}

const ONCE: &str = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, effects: once, max_retries: 0, output_keys: [k],
       command: [/bin/sh, -c, "echo >> started; while [ ! -e go ]; do sleep 0.02; done; echo '{\"k\": 1}'"]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo {{k}} >> done"]}
  edges: [{source: a, target: b}]
"#;

#[tokio::test]
async fn an_effect_that_must_not_be_repeated_waits_for_a_person_after_a_crash() {
    for (answer, state) in [
        (json!({"value": {"action": "use", "output": {"k": 7}}}), "succeeded"),
        (json!({"value": {"action": "retry"}}), "succeeded"),
        (json!({"value": {"action": "fail"}}), "failed"),
    ] {
        let (home, runtime) = started(ONCE).await;
        let id = runtime.work(&home).await;
        runtime.kill().await;
        let runtime = home.start().await;
        let execution = until(&runtime, &id, "waiting").await;
        assert_eq!(execution["branches"]["main"]["about"], "uncertain", "{execution}");
        assert_eq!((home.lines("started").len(), runtime.status().await.waiting_for_input), (1, 1));
        std::fs::write(home.path("go"), "").unwrap();
        let path = format!("/api/v1/executions/{id}/input");
        assert_eq!(runtime.post(&path, &[], r#"{"value": "maybe"}"#).await.0, 409);
        assert_eq!(runtime.post(&path, &[], "nothing").await.0, 400);
        assert_eq!(runtime.post(&path, &[], &answer.to_string()).await.0, 202);
        until(&runtime, &id, state).await;
        assert_eq!(home.lines("started").len(), if answer["value"]["action"] == "retry" { 2 } else { 1 });
        assert_eq!(runtime.post(&path, &[], &answer.to_string()).await.0, 409, "it has ended");
    }
}

#[tokio::test]
async fn cancel_ends_the_program_first_and_works_while_paused() {
    let (home, runtime) = started(BRANCHES).await;
    let running = runtime.trigger().await;
    home.wait_for_lines("steps", 2).await;
    let path = format!("/api/v1/executions/{running}/cancel");
    assert_eq!(runtime.post(&path, &[], "").await.0, 202);
    let execution = until(&runtime, &running, "cancelled").await;
    assert!(execution["ended"].is_string() && home.lines("done").is_empty());
    assert_eq!(runtime.post(&path, &[], "").await.1["type"], "ended");
    assert_eq!(runtime.status().await.failed_executions, 0, "cancelled is not failed");

    let second = runtime.trigger().await;
    home.wait_for_lines("steps", 4).await;
    let checkpoint = Command { mode: Some(DrainMode::Drain), ..Command::default() };
    runtime.send(Verb::Pause, &checkpoint).await.unwrap();
    runtime.post(&format!("/api/v1/executions/{second}/cancel"), &[], "").await;
    runtime.reach(State::Paused).await;
    until(&runtime, &second, "cancelled").await;
    assert_eq!(runtime.post("/api/v1/executions/none/cancel", &[], "").await.0, 404);
}

#[tokio::test]
async fn a_cancel_that_comes_as_an_execution_goes_to_rest_is_not_lost() {
    let text = r#"
graph:
  async_entry_points: [{id: slow, entry_node: a, max_concurrent: 50}]
  nodes:
    - {id: a, node_type: exec, command: [/bin/true]}
    - {id: b, node_type: wait, seconds: 3600}
  edges: [{source: a, target: b}]
"#;
    let (_home, runtime) = started(text).await;
    let runtime = &runtime;
    let each = (0..60u64).map(|n| async move {
        let id = runtime.trigger().await;
        // Not a synchronisation: the moment is meant to be any, around the end of the first node.
        tokio::time::sleep(std::time::Duration::from_micros(n * 300)).await;
        assert_eq!(runtime.post(&format!("/api/v1/executions/{id}/cancel"), &[], "").await.0, 202);
        until(runtime, &id, "cancelled").await;
    });
    futures::future::join_all(each).await;
}

#[tokio::test]
async fn bulk_cancel_takes_what_fits_and_leaves_the_rest() {
    let home = Home::new(&crate::process::held()).with("HIVE_WHILE_PAUSED", "queue");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(Verb::Pause).await;
    runtime.reach(State::Paused).await;
    for _ in 0..5 {
        runtime.trigger().await;
    }
    assert_eq!(
        runtime.post("/api/v1/executions/cancel", &[], "").await.0,
        400,
        "all of everything is not said by nothing"
    );
    let (code, body) = runtime.post("/api/v1/executions/cancel?state=queued&entry_point=slow", &[], "").await;
    assert_eq!((code, body["cancelled"].as_i64()), (202, Some(5)), "{body}");
    assert_eq!(runtime.status().await.queued, 0);
    let (_, page) = runtime.get("/api/v1/executions?state=cancelled&limit=3").await;
    assert_eq!(page["executions"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_failed_execution_is_tried_again_from_the_step_that_failed() {
    let text = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo >> started"]}
    - {id: b, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "test -e go"]}
  edges: [{source: a, target: b}]
"#;
    let (home, runtime) = started(text).await;
    let id = runtime.trigger().await;
    let failed = until(&runtime, &id, "failed").await;
    assert_eq!(failed["reason"], "node");
    std::fs::write(home.path("go"), "").unwrap();
    let path = format!("/api/v1/executions/{id}/retry");
    assert_eq!(runtime.post(&path, &[], "").await.0, 202);
    until(&runtime, &id, "succeeded").await;
    assert_eq!((home.lines("started").len(), runtime.post(&path, &[], "").await.0), (1, 409));
}

#[tokio::test]
async fn a_timeout_ends_the_program_and_fails_the_execution() {
    let text = r#"
graph:
  async_entry_points: [{id: slow, entry_node: a, timeout_seconds: 0.5}]
  nodes: [{id: a, node_type: exec, command: [/bin/sh, -c, "echo $$ >> started; sleep 60"]}]
"#;
    let (home, runtime) = started(text).await;
    let id = runtime.work(&home).await;
    let failed = until(&runtime, &id, "failed").await;
    assert_eq!(failed["reason"], "timeout", "{failed}");
    let pid = home.lines("started")[0].clone();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the end is shown after the effect's");
}

#[tokio::test]
async fn a_timeout_is_not_slept_through_by_what_waits() {
    let text = r#"
graph:
  async_entry_points: [{id: slow, entry_node: a, timeout_seconds: 0.5}]
  nodes: [{id: a, node_type: wait, seconds: 3600}]
"#;
    let (_home, runtime) = started(text).await;
    let id = runtime.trigger().await;
    assert_eq!(until(&runtime, &id, "failed").await["reason"], "timeout");
}

#[tokio::test]
async fn a_checkpoint_stops_every_branch_and_the_resume_goes_on_with_each() {
    let (home, runtime) = started(BRANCHES).await;
    let id = runtime.trigger().await;
    home.wait_for_lines("steps", 2).await;
    let checkpoint = Command { mode: Some(DrainMode::Checkpoint), ..Command::default() };
    runtime.send(Verb::Pause, &checkpoint).await.unwrap();
    std::fs::write(home.path("go"), "").unwrap();
    runtime.reach(State::Paused).await;
    assert!(home.lines("done").is_empty());
    runtime.ask(Verb::Resume).await;
    until(&runtime, &id, "succeeded").await;
    assert_eq!((home.lines("done").len(), home.lines("steps").len()), (1, 2), "steps that ended are not repeated");
}

#[tokio::test]
async fn an_event_of_a_node_begins_executions_in_the_same_transaction() {
    let text = r#"
graph:
  async_entry_points:
    - {id: slow, entry_node: a}
    - {id: heard, entry_node: b, trigger_type: event, trigger_config: {events: [made]}}
  nodes:
    - {id: a, node_type: exec, command: [/bin/echo, '{"k": 5}'], output_keys: [k], emits: [made]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo {{event}} {{k}} >> heard"]}
"#;
    let (home, runtime) = started(text).await;
    let id = runtime.trigger().await;
    until(&runtime, &id, "succeeded").await;
    home.wait_for_lines("heard", 1).await;
    let (code, body) = runtime.post("/api/v1/events/made", &[("Idempotency-Key", "e1")], r#"{"k": 6}"#).await;
    assert_eq!((code, body["executions"].as_array().map(Vec::len)), (202, Some(1)), "{body}");
    let (_, again) = runtime.post("/api/v1/events/made", &[("Idempotency-Key", "e1")], r#"{"k": 6}"#).await;
    assert_eq!(again["executions"], body["executions"]);
    home.wait_for_lines("heard", 2).await;
    assert_eq!(home.lines("heard"), ["made 5", "made 6"]);
    assert_eq!(runtime.post("/api/v1/events/unheard", &[], "").await.0, 404);
}

#[tokio::test]
async fn a_trigger_may_wait_for_the_end_and_a_stream_tells_what_happened() {
    let (_home, runtime) = started(&crate::process::agent(0.2)).await;
    let (code, execution) = runtime.post("/api/v1/entry-points/slow/trigger?wait=20", &[], "{}").await;
    assert_eq!((code, execution["state"].as_str()), (200, Some("succeeded")), "{execution}");
    let id = execution["id"].as_str().unwrap();
    assert_eq!(runtime.events(id, None).await, ["begun", "succeeded", "state"]);
    assert_eq!(runtime.events(id, Some("2")).await, ["state"]);
    let path = format!("/api/v1/executions/{id}/events");
    assert_eq!(runtime.call("GET", &path, &[("Last-Event-ID", "x")], "").await.0, 400);
    assert_eq!(runtime.get("/api/v1/executions/none/events").await.0, 404);
    let (code, _) = runtime.post("/api/v1/entry-points/slow/trigger?wait=0", &[], "{}").await;
    assert_eq!(code, 202);
}

#[tokio::test]
async fn a_breaker_pauses_the_runtime_until_a_person_resumes_it() {
    let text = r#"
graph:
  breaker: {failures: 3, window_seconds: 60}
  entry_points: {slow: a}
  nodes: [{id: a, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "exit 1"]}]
"#;
    let (_home, runtime) = started(text).await;
    for _ in 0..3 {
        runtime.trigger().await;
    }
    let status = runtime.reach(State::Paused).await;
    assert_eq!((status.holds, status.failed_executions), (vec!["breaker".to_owned()], 3));
    assert!(runtime.ask(Verb::Resume).await.reached);
}

#[tokio::test]
async fn as_process_1_it_reaps_what_programs_leave_behind_and_hands_signals_on() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a PID namespace needs root");
        return;
    }
    let home = Home::new(
        "graph:\n  entry_points: {slow: a}\n  async_entry_points: [{id: t, entry_node: a, trigger_type: timer, trigger_config: {interval_seconds: 0.1}}]\n  nodes: [{id: a, node_type: exec, command: [/bin/sh, -c, 'setsid sleep 0.1 & ps -e -o stat= | grep -c Z >> zombies; echo $PPID >> parents']}]\n",
    );
    let mut child = tokio::process::Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            env!("CARGO_BIN_EXE_agent-runtime"),
            "serve",
            "agent.yaml",
        ])
        .current_dir(home.folder.path())
        .env("HIVE_GRACEFUL_SHUTDOWN_TIMEOUT", "10")
        .kill_on_drop(true)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    home.wait_for_lines("zombies", 15).await;
    assert!(home.lines("parents").iter().all(|parent| parent != "1"), "the runtime itself is not process 1");
    let zombies: Vec<u32> = home.lines("zombies").iter().map(|line| line.parse().unwrap()).collect();
    assert!(zombies.iter().all(|count| *count <= 3), "they do not pile up: {zombies:?}");
    let inside = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id().unwrap())).unwrap();
    let first = inside.trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(first, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(crate::process::PATIENCE, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(0));
}
