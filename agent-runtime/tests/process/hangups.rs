//! Clients that go before their answer comes, and bodies that no record can hold: neither leaves anything in limbo.

use std::time::Duration;

use lifecycle::State;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::process::{Home, Runtime, eventually};
use crate::replicas::Replicas;

/// `slow` asks a person; with an answer it ends, or fails if that is what is said.
const ASKS: &str = r#"
graph:
  async_entry_points:
    - {id: slow, entry_node: q, trigger_type: api, max_concurrent: 8, max_queued: 2000}
    - {id: heard, entry_node: q, trigger_type: event, max_queued: 2000, trigger_config: {events: [told]}}
  nodes:
    - {id: q, node_type: human_input, system_prompt: well?, output_keys: [say]}
    - {id: end, node_type: exec, command: [/bin/sh, -c, "exit {{say}}"], max_retries: 0}
  edges: [{source: q, target: end}]
"#;
/// Executions of which clients ask something and go.
const EXECUTIONS: usize = 150;

/// Sends a request and hangs up after a while, whatever has come by then.
async fn hang_up(runtime: &Runtime, path: &str, body: &str, after: Duration) {
    let mut stream = tokio::net::TcpStream::connect(runtime.address).await.unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).await.unwrap();
    // Not a synchronisation: the moment of the hang-up is meant to be any.
    tokio::time::sleep(after).await;
}

/// The executions in a state, by the store.
async fn in_state(runtime: &Runtime, state: &str) -> Vec<String> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let (code, page) = runtime.get(&format!("/api/v1/executions?state={state}&limit=200{before}")).await;
        assert_eq!(code, 200, "{page}");
        all.extend(page["executions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.get("next").and_then(Value::as_str) else { return all };
        before = format!("&before={next}");
    }
}

/// Everything that lives is counted by the status, and nothing is on its way.
async fn nothing_is_in_limbo(runtime: &Runtime) {
    let agree = || async {
        let status = runtime.status().await;
        let waiting = i64::try_from(in_state(runtime, "waiting").await.len()).unwrap();
        let moving = in_state(runtime, "queued").await.len()
            + in_state(runtime, "running").await.len()
            + in_state(runtime, "cancelling").await.len();
        (status.waiting_for_input, status.queued, status.in_flight, moving) == (waiting, 0, Some(0), 0)
    };
    eventually("status and store agree, and nothing is on its way", agree).await;
}

/// Asks something of each execution and hangs up: an answer, a cancel or a retry, at any moment.
async fn ask_and_go(runtime: &Runtime, rounds: usize) {
    let begun = in_state(runtime, "waiting").await;
    for round in 0..rounds {
        for (n, id) in begun.iter().enumerate() {
            let after = Duration::from_micros(u64::try_from((n * 37 + round * 101) % 40 * 50).unwrap());
            let path = format!("/api/v1/executions/{id}");
            match (n + round) % 4 {
                0 => hang_up(runtime, &format!("{path}/input"), r#"{"value": "1"}"#, after).await,
                1 => hang_up(runtime, &format!("{path}/retry"), "", after).await,
                2 => hang_up(runtime, &format!("{path}/input"), r#"{"value": "0"}"#, after).await,
                _ if round > 0 => hang_up(runtime, &format!("{path}/cancel"), "", after).await,
                _ => hang_up(runtime, "/api/v1/events/told", "{}", after).await,
            }
        }
    }
}

async fn began(runtime: &Runtime, count: usize) {
    for _ in 0..count {
        runtime.trigger().await;
    }
    eventually("all wait", || async { runtime.status().await.waiting_for_input >= i64::try_from(count).unwrap() })
        .await;
}

#[tokio::test]
async fn clients_that_hang_up_leave_nothing_in_limbo() {
    let home = Home::new(ASKS);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    began(&runtime, EXECUTIONS).await;
    ask_and_go(&runtime, 7).await;
    nothing_is_in_limbo(&runtime).await;
    let waiting = in_state(&runtime, "waiting").await;
    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    nothing_is_in_limbo(&runtime).await;
    assert_eq!(in_state(&runtime, "waiting").await, waiting, "a fresh process sees the same");
    let (code, cancelled) = runtime.post("/api/v1/executions/cancel?state=waiting", &[], "").await;
    assert_eq!((code, cancelled["cancelled"].as_u64()), (202, u64::try_from(waiting.len()).ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_leave_no_claim_in_a_shared_store() {
    let Some(replicas) = Replicas::new(ASKS) else { return };
    let home = replicas.home();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    began(&runtime, 40).await;
    ask_and_go(&runtime, 4).await;
    nothing_is_in_limbo(&runtime).await;
    let claimed = "SELECT count(*) FROM executions WHERE ended IS NULL AND claimed_by IS NOT NULL";
    let none = || async { replicas.sql(claimed) == ["0"] };
    eventually("no claim is left", none).await;
    let second = replicas.home();
    let other = second.start().await;
    other.reach(State::Running).await;
    let waiting = in_state(&other, "waiting").await.len();
    let (code, cancelled) = other.post("/api/v1/executions/cancel?state=waiting", &[], "").await;
    assert_eq!((code, cancelled["cancelled"].as_u64()), (202, u64::try_from(waiting).ok()), "another replica has them");
}

#[tokio::test]
async fn a_verb_whose_client_hangs_up_is_obeyed_and_shown() {
    let home = Home::new(ASKS);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    for round in 0..60u64 {
        hang_up(&runtime, "/api/v1/lifecycle/pause", "", Duration::from_micros(round % 12 * 80)).await;
        let status = runtime.status().await;
        let (code, begun) = runtime.post("/api/v1/entry-points/slow/trigger", &[], "{}").await;
        // Either nothing of the pause was heard, or it is obeyed and shown: never a gate that is closed unseen.
        match (status.state, begun["execution"].as_str()) {
            (State::Running, Some(id)) if runtime.status().await.state == State::Running => {
                let path = format!("/api/v1/executions/{id}");
                let begins = || async {
                    let state = runtime.get(&path).await.1["state"].clone();
                    state == "waiting" || runtime.status().await.state == State::Paused
                };
                eventually("it begins, or the pause is shown", begins).await;
            }
            _ => assert!([202, 503].contains(&code), "{begun}"),
        }
        eventually("a pause comes to its end", || async { runtime.status().await.state != State::Pausing }).await;
        runtime.post("/api/v1/lifecycle/resume", &[], "").await;
        runtime.reach(State::Running).await;
    }
    nothing_is_in_limbo(&runtime).await;
}

#[tokio::test]
async fn no_body_that_is_accepted_keeps_a_runtime_from_starting() {
    let home = Home::new(ASKS);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let mut accepted = Vec::new();
    for levels in (2..140).step_by(3).chain([63, 64, 65, 126, 127, 128]) {
        let lists = format!("{{\"k\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        let objects = format!("{}{{}}{}", "{\"k\":".repeat(levels - 1), "}".repeat(levels - 1));
        for body in [lists, objects] {
            let (code, said) = runtime.post("/api/v1/entry-points/slow/trigger", &[], &body).await;
            assert_eq!(code, if levels <= 64 { 202 } else { 400 }, "{levels}: {said}");
            accepted.extend(said["execution"].as_str().map(str::to_owned));
            assert!(code == 202 || said["detail"].as_str().unwrap().contains("the body has more than 64 levels"));
        }
    }
    eventually("all wait", || async {
        runtime.status().await.waiting_for_input == i64::try_from(accepted.len()).unwrap()
    })
    .await;
    let deep = format!("{{\"value\":{}{}}}", "[".repeat(70), "]".repeat(70));
    let (code, said) = runtime.post(&format!("/api/v1/executions/{}/input", accepted[0]), &[], &deep).await;
    assert_eq!(code, 400, "{said}");
    let many = format!("{{\"k\":[{}0]}}", "0,".repeat(100_000));
    assert_eq!(runtime.post("/api/v1/entry-points/slow/trigger", &[], &many).await.0, 400);
    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    for id in &accepted {
        assert_eq!(runtime.get(&format!("/api/v1/executions/{id}")).await.0, 200);
    }
    assert_eq!(in_state(&runtime, "waiting").await.len(), accepted.len());
}
