//! A runtime's own holds, how the operator lets it go of them, and how fast it takes up what waits.

use std::time::{Duration, Instant};

use lifecycle::wire::Command;
use lifecycle::{State, Verb};

use crate::process::{Home, agent, command};

#[tokio::test]
async fn a_release_lets_go_of_an_open_breaker_once() {
    let fragile = "graph:\n  breaker: {failures: 1, window_seconds: 60}\n  entry_points: {slow: a}\n  nodes:\n    \
                   - {id: a, node_type: exec, command: [/bin/false], max_retries: 0}\n";
    let home = Home::new(fragile).managed();
    home.write_boot(1, "running");
    let runtime = home.start().await;
    runtime.send(Verb::Start, &command(1)).await.unwrap();
    runtime.reach(State::Running).await;
    runtime.trigger().await;
    runtime.reach(State::Paused).await;
    let answer = runtime.send(Verb::Start, &command(2)).await.unwrap();
    assert_eq!(answer.status.holds, ["breaker"], "a higher epoch alone does not");
    let release = |epoch| Command { release_epoch: Some(3), ..command(epoch) };
    runtime.send(Verb::Start, &release(3)).await.unwrap();
    runtime.reach(State::Running).await;
    runtime.trigger().await;
    runtime.reach(State::Paused).await;
    for epoch in [3, 4] {
        let answer = runtime.send(Verb::Start, &release(epoch)).await.unwrap();
        assert_eq!(answer.status.holds, ["breaker"], "it opened after the release");
    }
}

#[tokio::test]
async fn what_has_queued_up_begins_at_the_resume_rate() {
    let home = Home::new(&agent(0.0)).with("HIVE_WHILE_PAUSED", "queue").with("HIVE_RESUME_RATE", "4");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.ask(Verb::Pause).await;
    runtime.reach(State::Paused).await;
    for _ in 0..6 {
        runtime.trigger().await;
    }
    let resumed = Instant::now();
    runtime.ask(Verb::Resume).await;
    home.wait_for_lines("started", 6).await;
    assert!(
        resumed.elapsed() >= Duration::from_millis(1250),
        "five gaps of a quarter of a second: {:?}",
        resumed.elapsed()
    );
}
