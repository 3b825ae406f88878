//! SIGTERM: finish what was accepted, refuse the rest, be gone on time.

use std::time::{Duration, Instant};

use lifecycle::State;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::process::{Home, agent, eventually, held};

#[tokio::test]
async fn work_in_flight_and_work_accepted_on_the_way_out_is_finished() {
    let home = Home::new(&held()).with("HIVE_GRACEFUL_SHUTDOWN_TIMEOUT", "50");
    let mut runtime = home.start().await;
    runtime.reach(State::Running).await;
    let first = runtime.work(&home).await;
    runtime.signal(Signal::TERM);
    eventually("it is not ready", || async { runtime.get("/health/ready").await.0 == 503 }).await;
    assert_eq!(runtime.get("/health/live").await.0, 200);
    // Clients that have not heard of it yet are served.
    let path = "/api/v1/entry-points/slow/trigger";
    let asks = || runtime.post(path, &[("Idempotency-Key", "second")], "{}");
    let (code, taken) = asks().await;
    assert_eq!(code, 202, "{taken}");
    let second = taken["execution"].as_str().unwrap().to_owned();
    // Then nothing more is accepted, and what was is not interrupted for that.
    eventually("triggers are refused", || async { asks().await.0 == 503 }).await;
    home.let_go();
    assert_eq!(runtime.exit_code().await, Some(0));
    let mut done = home.lines("done");
    done.sort();
    assert_eq!(done, [first, second]);
}

#[tokio::test]
async fn what_takes_too_long_is_interrupted_and_goes_on_in_the_next_process() {
    let home = Home::new(&held());
    let mut runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.work(&home).await;
    let begun = Instant::now();
    runtime.signal(Signal::TERM);
    assert_eq!(runtime.exit_code().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "within the timeout: {:?}", begun.elapsed());
    let runtime = home.start().await;
    let path = format!("/api/v1/executions/{id}");
    eventually("it is taken up again", || async { runtime.get(&path).await.1["state"] == "running" }).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let home = Home::new(&held());
    let mut runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.work(&home).await;
    runtime.signal(Signal::TERM);
    eventually("it is not ready", || async { runtime.get("/health/ready").await.0 == 503 }).await;
    runtime.signal(Signal::INT);
    assert_eq!(runtime.exit_code().await, Some(130));
}

#[tokio::test]
async fn a_second_signal_leaves_no_program_and_nothing_of_its_group_behind() {
    let text = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "trap '' TERM; sleep 1000 & echo $$ $! >> started; while :; do sleep 0.1; done"]}
"#;
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
        let home = Home::new(text);
        let mut runtime = home.start().await;
        runtime.reach(State::Running).await;
        runtime.work(&home).await;
        runtime.signal(first);
        eventually("it is not ready", || async { runtime.get("/health/ready").await.0 == 503 }).await;
        let begun = Instant::now();
        runtime.signal(second);
        assert_eq!(runtime.exit_code().await, Some(130));
        assert!(begun.elapsed() < Duration::from_secs(3), "at once: {:?}", begun.elapsed());
        let pids = home.lines("started")[0].clone();
        let runs = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        eventually("the group is gone", || async { !pids.split(' ').any(runs) }).await;
    }
}

#[tokio::test]
async fn a_half_open_client_cannot_hold_it() {
    let home = Home::new(&agent(0.1));
    let mut runtime = home.start().await;
    runtime.reach(State::Running).await;
    let mut stream = tokio::net::TcpStream::connect(runtime.address).await.unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\n").await.unwrap();
    runtime.signal(Signal::INT);
    assert_eq!(runtime.exit_code().await, Some(0));
    drop(stream);
}

#[tokio::test]
async fn without_the_server_the_agent_runs_the_same() {
    let home = Home::new(&agent(0.1)).with("HIVE_LIFECYCLE_ENABLED", "false");
    let mut child = home.spawn();
    home.wait_for_lines("ticks", 2).await;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
