//! What one replica began and another goes on with: a question that was asked, and an effect that must not be
//! repeated.

use std::time::Duration;

use lifecycle::State;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::graph::until;
use crate::llm_server::{LlmServer, Reply};
use crate::process::{Home, Runtime, eventually};
use crate::replicas::Replicas;
use crate::tools::mcp_server;

/// One branch asks a person; the other works until the test lets it go, or has nothing to do.
const ASKS: &str = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo $PPID >> LEDGER/began"]}
    - {id: ask, node_type: human_input, system_prompt: How many?, output_keys: [count]}
    - {id: work, node_type: exec, command: [/bin/sh, -c, "echo >> LEDGER/working; while [ ! -e LEDGER/go ] && [ -e LEDGER ]; do sleep 0.02; done"]}
    - {id: said, node_type: exec, command: [/bin/sh, -c, "echo {{count}} >> LEDGER/said"]}
  edges:
    - {source: a, target: ask}
    - {source: a, target: work}
    - {source: ask, target: said}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_through_another_replica_than_the_one_that_asked() {
    for goes_on in [true, false] {
        let Some(replicas) = Replicas::new(ASKS) else { return };
        let let_go = || std::fs::write(replicas.path("go"), "").unwrap();
        if !goes_on {
            let_go();
        }
        let (_home, asks) = replicas.start().await;
        let id = asks.trigger().await;
        let path = format!("/api/v1/executions/{id}");
        let asked = || async {
            let execution = asks.get(&path).await.1;
            let branches = execution["branches"].as_object().unwrap();
            let question = branches.values().any(|branch| branch["question"] == "How many?");
            // With work under way it runs, where it asked; without, it rests in the store.
            question && execution["state"] == if goes_on { "running" } else { "waiting" }
        };
        eventually("it is asked", asked).await;
        let (_other_home, other) = replicas.start().await;
        let input = format!("{path}/input");
        let (code, refused) = other.post(&input, &[], r#"{"branch": "none", "value": 1}"#).await;
        assert_eq!(code, 409, "{refused}");
        let (code, taken) = other.post(&input, &[], r#"{"value": 7}"#).await;
        assert_eq!(code, 202, "{taken}");
        let (code, again) = other.post(&input, &[], r#"{"value": 8}"#).await;
        assert_eq!(code, 409, "it has been answered: {again}");
        let_go();
        let ended = until(&other, &id, "succeeded").await;
        assert_eq!((&ended["memory"]["count"], replicas.lines("said")), (&json!(7), vec!["7".to_owned()]), "{ended}");
        assert_eq!(replicas.lines("began").len(), 1, "what was done before is not done again");
    }
}

/// Calls `slow` once, hands in what became of it, and ends.
fn script(body: &Value) -> Reply {
    let told: Vec<&Value> = body["messages"].as_array().unwrap().iter().filter(|m| m["role"] == "tool").collect();
    match told.as_slice() {
        [] => Reply::call("slow", json!({"seconds": 3})),
        [said] => Reply::set("said", said["content"].as_str().unwrap()),
        _ => Reply::text("done"),
    }
}

const ONCE: &str = "graph: {entry_points: {slow: n}, nodes: [{id: n, node_type: event_loop, tools: [slow], \
                    tool_effects: {slow: once}, output_keys: [said], max_retries: 0}]}";

async fn equipped(replicas: &Replicas, model: &LlmServer) -> (Home, Runtime) {
    let home = replicas.home().with("HIVE_LLM_BASE_URL", &model.url());
    let server =
        json!({"command": mcp_server(), "timeout_seconds": 60, "env": {"MCP_COUNT_FILE": replicas.path("count")}});
    std::fs::write(home.path("mcp_servers.json"), json!({"web": server}).to_string()).unwrap();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    (home, runtime)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_whose_replica_stalls_beyond_its_lease_waits_for_a_person_in_another() {
    let Some(replicas) = Replicas::new(ONCE) else { return };
    let model = LlmServer::start(|body, _| script(body)).await;
    let (_home, stalls) = equipped(&replicas, &model).await;
    let id = stalls.trigger().await;
    eventually("the tool is called", || async { replicas.lines("count").len() == 1 }).await;
    stalls.signal(Signal::STOP);
    let (_other_home, other) = equipped(&replicas, &model).await;
    let waiting = until(&other, &id, "waiting").await;
    assert_eq!(waiting["branches"]["main"]["about"], "uncertain", "{waiting}");
    eventually("it is counted", || async { other.status().await.waiting_for_input == 1 }).await;
    // The tool's answer lies ready for the one that comes back, which must not write it.
    let written = || replicas.sql("SELECT count(*), max(claim_no), max(write_no) FROM executions, journal");
    let before = written();
    stalls.signal(Signal::CONT);
    eventually("it lets go of what it had", || async { stalls.status().await.in_flight == Some(0) }).await;
    // Not a synchronisation: what it would still write comes within this time, and nothing may.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((written(), replicas.lines("count").len()), (before, 1));
    assert_eq!(until(&other, &id, "waiting").await["branches"]["main"]["about"], "uncertain");
    let answer = json!({"value": {"action": "use", "output": "done by hand"}}).to_string();
    assert_eq!(stalls.post(&format!("/api/v1/executions/{id}/input"), &[], &answer).await.0, 202);
    assert_eq!(until(&other, &id, "succeeded").await["memory"]["said"], "done by hand");
    assert_eq!(replicas.lines("count").len(), 1, "the effect is not repeated");
}
