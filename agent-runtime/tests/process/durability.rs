//! What a crash may and may not do.

use std::collections::BTreeSet;

use lifecycle::{State, Verb};
use serde_json::Value;

use crate::process::{Home, agent, eventually, exists};

#[tokio::test]
async fn a_killed_runtime_goes_on_with_what_it_had_accepted() {
    let home = Home::new(&agent(0.3));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let mut accepted = BTreeSet::from([runtime.work(&home).await]);
    for _ in 0..9 {
        accepted.insert(runtime.trigger().await);
    }
    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    eventually("every execution has ended", || async {
        let (_, page) = runtime.get("/api/v1/executions?limit=500").await;
        let ended = page["executions"].as_array().unwrap().iter().filter(|e| e["state"] == "succeeded");
        let ended: BTreeSet<String> = ended.map(|e| e["id"].as_str().unwrap().to_owned()).collect();
        accepted.is_subset(&ended)
    })
    .await;
    let started: Vec<String> = home.lines("started");
    let once: BTreeSet<&String> = started.iter().collect();
    assert_eq!(once.len(), accepted.len(), "each has one idempotency key");
    assert!(started.len() <= accepted.len() + 4, "only what was in flight is repeated");
}

#[tokio::test]
async fn the_same_key_gives_the_same_execution_over_a_restart() {
    let home = Home::new(&agent(0.0));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let key = [("Idempotency-Key", "order-1")];
    let path = "/api/v1/entry-points/slow/trigger";
    let (code, first) = runtime.post(path, &key, r#"{"n":1}"#).await;
    assert_eq!((code, &first["repeated"]), (202, &Value::Bool(false)));
    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (code, again) = runtime.post(path, &key, r#"{"n":1}"#).await;
    assert_eq!((code, &again["repeated"]), (202, &Value::Bool(true)));
    assert_eq!(again["execution"], first["execution"]);
    assert_eq!(runtime.post(path, &key, r#"{"n":2}"#).await.0, 422);
}

#[tokio::test]
async fn an_execution_that_kills_its_runtime_ends_as_a_crash_loop() {
    let home = Home::new(
        "graph:\n  entry_points: {slow: a}\n  nodes:\n    - {id: a, node_type: exec, command: [/bin/sh, -c, 'echo >> started; kill -9 $PPID; sleep 5']}\n",
    );
    let mut runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.trigger().await;
    for _ in 0..3 {
        runtime.exit_code().await;
        runtime = home.start().await;
    }
    let path = format!("/api/v1/executions/{id}");
    runtime.reach(State::Running).await;
    eventually("it is failed", || async { runtime.get(&path).await.1["state"] == "failed" }).await;
    let (_, execution) = runtime.get(&path).await;
    assert!(execution["error"].as_str().unwrap().starts_with("crash_loop"), "{execution}");
    assert_eq!(home.lines("started").len(), 3);
}

#[tokio::test]
async fn wait_and_retry_park_without_holding_up_a_pause() {
    let home = Home::new(
        r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo >> started"]}
    - {id: b, node_type: wait, seconds: 4}
    - {id: c, node_type: exec, max_retries: 1, command: [/bin/sh, -c, "echo >> tries; test $(wc -l < tries) -gt 1"]}
    - {id: d, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "exit 3"]}
    - {id: e, node_type: exec, command: [/bin/sh, -c, "echo >> done"]}
  edges:
    - {id: ab, source: a, target: b}
    - {id: bc, source: b, target: c}
    - {id: cd, source: c, target: d}
    - {id: de, source: d, target: e, condition: on_failure}
"#,
    );
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.work(&home).await;
    let path = format!("/api/v1/executions/{id}");
    eventually("it is parked", || async { runtime.get(&path).await.1["state"] == "waiting" }).await;
    assert_eq!(runtime.status().await.in_flight, Some(0));
    assert!(runtime.ask(Verb::Pause).await.reached, "parked work holds nothing up");
    eventually("it is due", || async { runtime.status().await.queued == 1 }).await;
    assert!(!exists(&home.path("tries")), "work that wakes while paused is queued, not run");
    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Paused).await;
    runtime.ask(Verb::Resume).await;
    eventually("it has ended", || async { runtime.get(&path).await.1["state"] == "succeeded" }).await;
    assert_eq!((home.lines("tries").len(), home.lines("done").len(), home.lines("started").len()), (2, 1, 1));
}

/// A small disk of the test's own; it goes with its test.
struct Disk(std::path::PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, as the runtime may still have files open there.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_loses_nothing_and_goes_on_when_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let home = Home::new(&agent(0.0));
    let disk = Disk(home.path("disk"));
    std::fs::create_dir(&disk.0).unwrap();
    let mut mount = std::process::Command::new("mount");
    assert!(mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&disk.0).status().unwrap().success());
    let home = home.with("HIVE_DATA_DIR", &disk.0.display().to_string());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let first = runtime.trigger().await;
    let ballast = disk.0.join("ballast");
    let mut written = std::fs::File::create(&ballast).unwrap();
    while rustix::fs::statvfs(&disk.0).unwrap().f_bavail * 4096 > 4 * 1024 * 1024 {
        std::io::Write::write_all(&mut written, &vec![1; 1024 * 1024]).unwrap();
    }
    let trigger = "/api/v1/entry-points/slow/trigger";
    eventually("new work is refused", || async { runtime.post(trigger, &[], "{}").await.0 == 503 }).await;
    let (_, problem) = runtime.post(trigger, &[], "{}").await;
    assert_eq!(problem["type"], "storage_unavailable", "{problem}");
    assert_eq!(runtime.status().await.health.storage.as_str(), "unhealthy");
    drop(written);
    std::fs::remove_file(&ballast).unwrap();
    eventually("there is room again", || async { runtime.post(trigger, &[], "{}").await.0 == 202 }).await;
    let path = format!("/api/v1/executions/{first}");
    eventually("what was accepted has ended", || async { runtime.get(&path).await.1["state"] == "succeeded" }).await;
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_its_name_and_left_as_it_was() {
    let home = Home::new(&agent(0.0));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.trigger().await;
    runtime.kill().await;
    let path = home.path(".hive/executions.redb");
    let whole = std::fs::read(&path).unwrap();
    for damaged in
        [whole[..whole.len() / 3].to_vec(), [vec![0xff; 4096], whole[4096..].to_vec()].concat(), b"x".to_vec()]
    {
        std::fs::write(&path, &damaged).unwrap();
        let runtime = home.start().await;
        eventually("it says which file", || async {
            runtime.status().await.message.is_some_and(|message| message.contains("executions.redb"))
        })
        .await;
        assert_eq!((runtime.status().await.state, runtime.get("/health/live").await.0), (State::Starting, 200));
        let now = std::fs::read(&path).unwrap();
        let differs = now.iter().zip(&damaged).position(|(a, b)| a != b);
        assert!(now == damaged, "it is left as it was: {} and {} bytes, {differs:?}", now.len(), damaged.len());
        runtime.kill().await;
    }
}
