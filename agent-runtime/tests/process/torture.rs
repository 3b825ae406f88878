//! kill -9 at random points under a mixed load: nothing is lost, nothing is doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifecycle::State;
use serde_json::Value;

use crate::process::{Home, Runtime, eventually};

/// How often the runtime is killed; HIVE_TEST_KILLS sets another number.
const KILLS: usize = 1000;
/// Executions at once, each with two branches at most.
const CONCURRENT: usize = 8;

const AGENT: &str = r#"
graph:
  async_entry_points:
    - {id: fork, entry_node: a, max_concurrent: 4, max_queued: 50}
    - {id: line, entry_node: e, max_concurrent: 4, max_queued: 50, priority: 1}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: c, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: d, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: e, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
    - {id: f, node_type: wait, seconds: 0.01}
    - {id: g, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> ledger"]}
  edges:
    - {source: a, target: b}
    - {source: a, target: c}
    - {source: b, target: d}
    - {source: c, target: d}
    - {source: e, target: f}
    - {source: f, target: g}
"#;

/// Triggers until the runtime is gone. An answer that never came is asked for again with the same key.
async fn load(runtime: &Runtime, next: &mut usize, accepted: &mut BTreeMap<String, String>, until: Duration) {
    let triggers = async {
        loop {
            let key = format!("k{next}");
            let entry = if next.is_multiple_of(2) { "fork" } else { "line" };
            let path = format!("/api/v1/entry-points/{entry}/trigger");
            let (code, body) = runtime.post(&path, &[("Idempotency-Key", &key)], "{}").await;
            match (code, body["execution"].as_str()) {
                (202, Some(id)) => {
                    accepted.insert(key, id.to_owned());
                    *next += 1;
                }
                (429, _) => tokio::task::yield_now().await,
                _ => return,
            }
        }
    };
    // Not a synchronisation: the moment of the kill is meant to be any.
    let _ = tokio::time::timeout(until, triggers).await;
}

#[tokio::test]
async fn a_thousand_kills_lose_nothing_and_double_nothing() {
    let kills = std::env::var("HIVE_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let home = Home::new(AGENT);
    let (mut next, mut accepted) = (0, BTreeMap::new());
    let mut random = 0x9e37_79b9_u64;
    for _ in 0..kills {
        let runtime = home.start().await;
        runtime.reach(State::Running).await;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let until = Duration::from_micros(20_000 + (random >> 33) % 60_000);
        let begun = home.lines("ledger").len();
        load(&runtime, &mut next, &mut accepted, until).await;
        // A busy machine may do nothing in that time, and three times nothing is a crash loop.
        home.wait_for_lines("ledger", begun + 1).await;
        runtime.kill().await;
    }
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let idle = || async {
        let status = runtime.status().await;
        status.in_flight == Some(0)
            && status.queued == 0
            && runtime.get("/api/v1/executions?state=waiting").await.1["executions"] == Value::Array(Vec::new())
    };
    eventually("everything has ended", idle).await;
    let (mut ended, mut looped, mut before) = (BTreeSet::new(), BTreeSet::new(), String::new());
    loop {
        let (_, page) = runtime.get(&format!("/api/v1/executions?limit=500{before}")).await;
        for execution in page["executions"].as_array().unwrap() {
            let id = execution["id"].as_str().unwrap().to_owned();
            if execution["reason"] == "crash_loop" {
                looped.insert(id.clone());
            } else {
                assert_eq!(execution["state"], "succeeded", "{execution}");
            }
            assert!(ended.insert(id));
        }
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    let ids: BTreeSet<String> = accepted.values().cloned().collect();
    assert_eq!(ids.len(), accepted.len(), "one execution for each key");
    assert!(ids.is_subset(&ended), "none is lost");
    // One whose answer was cut by a kill may be there without our having heard of it; nothing else is.
    assert!(ended.len() <= ids.len() + 1, "{} executions of {} accepted", ended.len(), ids.len());
    let mut effects: BTreeMap<String, usize> = BTreeMap::new();
    for key in home.lines("ledger") {
        *effects.entry(key).or_default() += 1;
    }
    for id in ended.difference(&looped) {
        let count = effects.keys().filter(|key| key.starts_with(id.as_str())).count();
        assert!(count == 2 || count == 4, "{id}: {count} effects");
    }
    let repeated: usize = effects.values().map(|count| count - 1).sum();
    eprintln!(
        "{kills} kills, {} executions, {} effects, {repeated} of them repeated, {} ended as a crash loop",
        ended.len(),
        effects.len(),
        looped.len()
    );
    for id in &looped {
        let happened = runtime.events(id, None).await;
        let in_vain = happened.ends_with(&["begun", "begun", "begun", "begun", "state"].map(str::to_owned));
        assert!(in_vain, "{id} ended as a crash loop without three claims in a row that came to nothing: {happened:?}");
    }
    // How many end so is the machine's doing: the slower it is, the more kills come before a first step has ended.
    assert!(
        looped.len() * 2 < ended.len(),
        "{} of {} crash loops: too many to show anything",
        looped.len(),
        ended.len()
    );
    assert!(repeated <= kills * CONCURRENT * 2, "at most the steps in flight are repeated by a kill");
    // Three claims without progress end an execution; a branch of a fork may have been begun by three more,
    // in the last of which the other branch ended, which is progress.
    let most = effects.values().max().copied().unwrap_or(0);
    assert!(most <= 6, "one step was begun {most} times");
}
