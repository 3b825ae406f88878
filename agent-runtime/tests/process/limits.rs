//! What executions may use, and how their programs end.

use std::time::{Duration, Instant};

use lifecycle::State;
use serde_json::json;

use crate::graph::until;
use crate::process::{Home, Runtime, eventually};

async fn started(agent: &str) -> (Home, Runtime) {
    let home = Home::new(agent);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    (home, runtime)
}

#[tokio::test]
async fn the_steps_of_a_day_hold_though_many_executions_take_them_at_once() {
    let text = r#"
graph:
  limits: {steps_per_day: 7}
  async_entry_points: [{id: slow, entry_node: a, max_concurrent: 20}]
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo >> ledger"]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo >> ledger"]}
    - {id: c, node_type: exec, command: [/bin/sh, -c, "echo >> ledger"]}
  edges: [{source: a, target: b}, {source: b, target: c}]
"#;
    let (home, runtime) = started(text).await;
    let ids = futures::future::join_all((0..6).map(|_| runtime.trigger())).await;
    for id in &ids {
        let path = format!("/api/v1/executions/{id}");
        eventually("it has ended", || async { runtime.get(&path).await.1["ended"].is_string() }).await;
        let (_, ended) = runtime.get(&path).await;
        let limited = ended["reason"] == "limit" && ended["error"].as_str().unwrap().contains("steps_per_day of 7");
        assert!(ended["state"] == "succeeded" || limited, "{ended}");
    }
    assert_eq!(home.lines("ledger").len(), 7, "every step of the day is used, and none more");
}

#[tokio::test]
async fn an_execution_has_its_seconds_and_the_day_has_its_own() {
    for (limit, word) in [("seconds: 1", "limits.seconds of 1"), ("seconds_per_day: 3", "seconds_per_day of 3")] {
        let text = format!(
            "graph:\n  limits: {{{limit}}}\n  entry_points: {{slow: a}}\n  nodes: [{{id: a, node_type: exec, command: [/bin/sh, -c, 'echo $$ >> started; exec sleep 60']}}]\n"
        );
        let (home, runtime) = started(&text).await;
        let begun = Instant::now();
        let ids = [runtime.trigger().await, runtime.trigger().await];
        for id in ids {
            let failed = until(&runtime, &id, "failed").await;
            assert_eq!(failed["reason"], "limit", "{failed}");
            assert!(failed["error"].as_str().unwrap().contains(word), "{failed}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        for pid in home.lines("started") {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its program has ended first");
        }
    }
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_with_its_group_after_two_seconds() {
    let text = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, timeout_seconds: 0.5, max_retries: 0,
       command: [/bin/sh, -c, "trap '' TERM; sleep 1000 & echo $$ $! >> started; while :; do sleep 0.1; done"]}
"#;
    let (home, runtime) = started(text).await;
    let begun = Instant::now();
    let id = runtime.work(&home).await;
    let failed = until(&runtime, &id, "failed").await;
    assert!(failed["error"].as_str().unwrap().contains("did not end within 0.5 s"), "{failed}");
    assert!(begun.elapsed() >= Duration::from_millis(2500), "it had two seconds: {:?}", begun.elapsed());
    let pids = home.lines("started")[0].clone();
    let runs = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    eventually("the group is gone", || async { !pids.split(' ').any(runs) }).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_neither_holds_its_node_up_nor_stays() {
    let text = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, output_keys: [k], command: [/bin/sh, -c, "sleep 1000 & echo $! >> started; echo '{\"k\": 1}'"]}
"#;
    let (home, runtime) = started(text).await;
    let (code, ended) = runtime.post("/api/v1/entry-points/slow/trigger?wait=20", &[], "{}").await;
    assert_eq!((code, &ended["memory"]["k"]), (200, &json!(1)), "{ended}");
    let pid = home.lines("started")[0].clone();
    let gone = || async {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    eventually("it is gone", gone).await;
}

#[tokio::test]
async fn higher_priority_goes_first_and_max_concurrent_holds() {
    let text = r#"
graph:
  async_entry_points:
    - {id: low, entry_node: low, max_concurrent: 1}
    - {id: slow, entry_node: high, max_concurrent: 2, priority: 5}
  nodes:
    - {id: low, node_type: exec, command: [/bin/sh, -c, "echo low >> order"]}
    - {id: high, node_type: exec, command: [/bin/sh, -c, "echo high >> order; echo >> started; while [ ! -e go ] && [ -e started ]; do sleep 0.02; done"]}
"#;
    let home = Home::new(text).with("HIVE_WHILE_PAUSED", "queue");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(lifecycle::Verb::Pause).await;
    runtime.reach(State::Paused).await;
    assert_eq!(runtime.post("/api/v1/entry-points/low/trigger", &[], "{}").await.0, 202);
    for _ in 0..4 {
        runtime.trigger().await;
    }
    runtime.ask(lifecycle::Verb::Resume).await;
    home.wait_for_lines("started", 2).await;
    home.wait_for_lines("order", 3).await;
    // Not a synchronisation: a third would begin in this time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let order = home.lines("order");
    assert_eq!(order.iter().filter(|line| *line == "high").count(), 2, "max_concurrent is 2: {order:?}");
    let (_, streams) = runtime.get("/api/v1/status/streams").await;
    assert_eq!(streams["streams"], json!([{"entry_point": "slow", "in_flight": 2}]), "{streams}");
    home.let_go();
    home.wait_for_lines("started", 4).await;
}
