//! The line of an entry point through the real server: its bound, and what is answered when it is full.

use std::collections::BTreeSet;

use lifecycle::{State, Verb};
use serde_json::Value;

use crate::process::{Home, Runtime, held};

const TRIGGER: &str = "/api/v1/entry-points/slow/trigger";
/// What `held` lets wait.
const BOUND: usize = 20;

/// Triggers so often at once, each with a key of its own, and gives the answers by key.
async fn storm(runtime: &Runtime, keys: std::ops::Range<usize>) -> Vec<(String, u16, Value)> {
    let each = keys.map(|n| async move {
        let key = format!("k{n}");
        let (code, body) = runtime.post(TRIGGER, &[("Idempotency-Key", &key)], "{}").await;
        (key, code, body)
    });
    futures::future::join_all(each).await
}

async fn paused(home: &Home) -> Runtime {
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(Verb::Pause).await;
    runtime.reach(State::Paused).await;
    runtime
}

#[tokio::test]
async fn the_bound_holds_though_many_come_at_once_and_over_a_restart() {
    let home = Home::new(&held()).with("HIVE_WHILE_PAUSED", "queue");
    let runtime = paused(&home).await;
    let answers = storm(&runtime, 0..60).await;
    let taken: Vec<_> = answers.iter().filter(|(_, code, _)| *code == 202).collect();
    assert_eq!(taken.len(), BOUND);
    assert!(answers.iter().all(|(_, code, body)| *code == 202 || (*code == 429 && body["type"] == "queue_full")));
    assert_eq!(runtime.status().await.queued, i64::try_from(BOUND).unwrap());

    // What was accepted before is answered as it was then, though the line is full.
    for (key, _, body) in &taken {
        let (code, again) = runtime.post(TRIGGER, &[("Idempotency-Key", key)], "{}").await;
        assert_eq!((code, &again["execution"], &again["repeated"]), (202, &body["execution"], &true.into()), "{again}");
        let (code, other) = runtime.post(TRIGGER, &[("Idempotency-Key", key)], r#"{"n": 1}"#).await;
        assert_eq!((code, other["type"].as_str()), (422, Some("idempotency_key_reused")));
    }

    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Paused).await;
    assert!(storm(&runtime, 100..140).await.iter().all(|(_, code, _)| *code == 429), "it was full before the crash");
    let (key, _, body) = taken[0];
    let (code, again) = runtime.post(TRIGGER, &[("Idempotency-Key", key)], "{}").await;
    assert_eq!((code, &again["execution"]), (202, &body["execution"]), "{again}");

    // Four go, and four places are free, not one more.
    runtime.ask(Verb::Resume).await;
    home.wait_for_lines("started", 4).await;
    let answers = storm(&runtime, 200..240).await;
    assert_eq!(answers.iter().filter(|(_, code, _)| *code == 202).count(), 4);
    home.let_go();
    home.wait_for_lines("done", BOUND + 4).await;
    let done: BTreeSet<String> = home.lines("done").into_iter().collect();
    assert_eq!(done.len(), BOUND + 4, "each once");
}
