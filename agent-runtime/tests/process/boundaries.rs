//! kill -9 before and after each sync of the store, and a loss of power before it, one after the other, under a
//! mixed load: what was accepted comes to its end once, and what it does outside is repeated at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use lifecycle::State;
use serde_json::{Value, json};

use crate::llm_server::{LlmServer, Reply};
use crate::process::{Home, PATIENCE, Runtime, eventually};
use crate::tools::mcp_server;

/// Where a process is killed is said by this variable, which only builds for tests read.
const KILL_AT: &str = "HIVE_TEST_KILL_AT_SYNC";
/// Kills under way at once, each with a store of its own.
const SIDE_BY_SIDE: usize = 4;
/// No load has as many syncs.
const MOST: usize = 400;
/// What is triggered, and how many node executions each makes.
const LOAD: [(&str, u64); 6] = [("fork", 4), ("line", 3), ("talk", 1), ("emit", 1), ("fork", 4), ("line", 3)];

const AGENT: &str = r#"
graph:
  limits: {steps_per_day: 100000, tokens_per_day: 10000000}
  async_entry_points:
    - {id: fork, entry_node: a}
    - {id: line, entry_node: e}
    - {id: talk, entry_node: t}
    - {id: emit, entry_node: m}
    - {id: heard, entry_node: h, trigger_type: event, trigger_config: {events: [made]}}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: c, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: d, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: e, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: f, node_type: wait, seconds: 0.01}
    - {id: g, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: t, node_type: event_loop, tools: [web_search], output_keys: [k]}
    - {id: m, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"], emits: [made]}
    - {id: h, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
  edges:
    - {source: a, target: b}
    - {source: a, target: c}
    - {source: b, target: d}
    - {source: c, target: d}
    - {source: e, target: f}
    - {source: f, target: g}
"#;

/// Searches, hands in, ends.
fn script(body: &Value) -> Reply {
    let told = body["messages"].as_array().unwrap().iter().filter(|message| message["role"] == "tool").count();
    match told {
        0 => Reply::call("web_search", json!({"query": "q"})),
        1 => Reply::set("k", "v"),
        _ => Reply::text("done"),
    }
}

/// Triggers the load, each with a key of its own, and notes each answer as it comes. None once the process is gone.
async fn trigger(runtime: &Runtime, accepted: &mut BTreeMap<usize, String>) -> Option<()> {
    for (n, (entry, _)) in LOAD.iter().enumerate() {
        let path = format!("/api/v1/entry-points/{entry}/trigger");
        let key = format!("k{n}");
        let answer = runtime.try_post(&path, &[("Idempotency-Key", &key)], "{}").await?;
        assert_eq!(answer.0, 202, "{}", answer.1);
        accepted.insert(n, answer.1["execution"].as_str()?.to_owned());
    }
    Some(())
}

/// Whether all that was accepted has ended; none once the process is gone.
async fn all_ended(runtime: &Runtime) -> Option<bool> {
    let (_, page) = runtime.try_get("/api/v1/executions?limit=500").await?;
    let executions = page["executions"].as_array()?;
    // What is emitted is begun as well.
    Some(executions.len() == LOAD.len() + 1 && executions.iter().all(|execution| execution["ended"].is_string()))
}

/// Runs the load in a process that is killed at a sync. False if the load ended before that.
async fn run_until_killed(home: &Home, heard: &mut BTreeMap<usize, String>) -> bool {
    let Some(mut runtime) = home.start_if_it_lives().await else { return true };
    let work = async {
        runtime.try_reach(State::Running).await?;
        trigger(&runtime, heard).await?;
        while !all_ended(&runtime).await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(())
    };
    let ended = tokio::time::timeout(PATIENCE, work).await.expect("it ends or is killed");
    if ended.is_none() {
        runtime.exit_code().await;
    }
    ended.is_none()
}

/// One kill. False if the load has no such sync.
async fn kill_at(number: usize, side: &str) -> bool {
    let model = LlmServer::start(|body, _| script(body)).await;
    let home = Home::new(AGENT).with("HIVE_LLM_BASE_URL", &model.url());
    let servers = json!({"web": {"command": mcp_server(), "env": {"MCP_COUNT_FILE": home.path("count")}}});
    std::fs::write(home.path("mcp_servers.json"), servers.to_string()).unwrap();
    let mut home = home.with(KILL_AT, &format!("{number}:{side}"));
    let mut heard = BTreeMap::new();
    let killed = run_until_killed(&home, &mut heard).await;
    home.environment.retain(|(name, _)| name != KILL_AT);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    // Whoever was not answered asks again.
    let mut accepted = BTreeMap::new();
    trigger(&runtime, &mut accepted).await.unwrap();
    for (n, id) in &heard {
        assert_eq!(accepted[n], *id, "{number}:{side}: what was acknowledged is lost");
    }
    eventually("everything has ended", || async { all_ended(&runtime).await == Some(true) }).await;
    let (_, page) = runtime.get("/api/v1/executions?limit=500").await;
    let mut ids = BTreeSet::new();
    for execution in page["executions"].as_array().unwrap() {
        assert_eq!(execution["state"], "succeeded", "{number}:{side}: {execution}");
        let steps = LOAD.iter().find(|(entry, _)| execution["entry_point"] == *entry).map_or(1, |(_, steps)| *steps);
        assert_eq!(execution["steps"], steps, "{number}:{side}: {execution}");
        ids.insert(execution["id"].as_str().unwrap().to_owned());
    }
    assert!(accepted.values().all(|id| ids.contains(id)));
    let mut effects: BTreeMap<String, usize> = BTreeMap::new();
    let asked: Vec<String> = {
        let requests = model.requests.lock().unwrap();
        requests.iter().map(|(headers, _)| headers["idempotency-key"].to_str().unwrap().to_owned()).collect()
    };
    for key in home.lines("ledger").into_iter().chain(home.lines("count")).chain(asked) {
        *effects.entry(key).or_default() += 1;
    }
    // 8 of the forks, 4 of the lines, 1 of what is emitted and 1 of what hears it; 3 answers and a search.
    assert_eq!(effects.len(), 8 + 4 + 2 + 3 + 1, "{number}:{side}: {effects:?}");
    let most = if killed { 2 } else { 1 };
    assert!(effects.values().all(|count| *count <= most), "{number}:{side}: {effects:?}");
    killed
}

#[tokio::test]
async fn a_kill_before_or_after_any_sync_loses_nothing_and_repeats_each_effect_at_most_once() {
    let places = (1..MOST).flat_map(|number| ["before", "after", "lost"].map(|side| (number, side)));
    let each =
        futures::stream::iter(places).map(|(number, side)| async move { (number, side, kill_at(number, side).await) });
    let mut killed = 0;
    let mut running = each.buffered(SIDE_BY_SIDE);
    while let Some((number, side, was_killed)) = running.next().await {
        if !was_killed {
            eprintln!("{killed} kills; the load has no sync {number}:{side}");
            break;
        }
        killed += 1;
    }
    assert!(killed >= 20, "the load has more syncs than {killed} kills");
}
