//! Timers through the real process: each tick once, over crashes and pauses.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use lifecycle::{State, Verb};

use crate::process::{Home, Runtime};

fn every_second(missed: &str) -> String {
    format!(
        r#"
graph:
  async_entry_points:
    - {{id: tick, entry_node: a, trigger_type: timer, trigger_config: {{interval_seconds: 1, overlap: allow, missed: {missed}}}}}
  nodes: [{{id: a, node_type: exec, command: [/bin/sh, -c, "echo {{{{scheduled_time}}}} >> ticks"]}}]
"#
    )
}

fn ticks(home: &Home) -> Vec<Timestamp> {
    home.lines("ticks").iter().map(|line| line.parse().unwrap()).collect()
}

async fn started(agent: &str) -> (Home, Runtime) {
    let home = Home::new(agent);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    home.wait_for_lines("ticks", 1).await;
    (home, runtime)
}

/// Lets several ticks come due: that is what time is for here.
async fn several_come_due() -> Timestamp {
    tokio::time::sleep(Duration::from_millis(3500)).await;
    Timestamp::now()
}

#[tokio::test]
async fn of_the_ticks_that_were_missed_the_newest_runs_once_for_down_and_for_paused() {
    for down in [true, false] {
        let (home, runtime) = started(&every_second("runOnce")).await;
        let (before, runtime) = if down {
            runtime.kill().await;
            (ticks(&home).len(), None)
        } else {
            runtime.ask(Verb::Pause).await;
            runtime.reach(State::Paused).await;
            (ticks(&home).len(), Some(runtime))
        };
        let again = several_come_due().await;
        assert_eq!(ticks(&home).len(), before, "nothing runs meanwhile");
        let _runtime = match runtime {
            None => home.start().await,
            Some(runtime) => {
                runtime.ask(Verb::Resume).await;
                runtime
            }
        };
        home.wait_for_lines("ticks", before + 2).await;
        let after = &ticks(&home)[before..];
        let missed = after.iter().filter(|at| **at < again).count();
        // A crash may also have caught one that had been accepted.
        assert!(missed == 1 || (down && missed == 2), "one of the missed ones: {after:?}, up again at {again}");
        let newest = after.iter().filter(|at| **at < again).max().unwrap();
        assert!(again.duration_since(*newest) <= jiff::SignedDuration::from_millis(1100), "the newest: {after:?}");
    }
}

#[tokio::test]
async fn missed_ticks_are_skipped_unless_it_is_said_and_every_tick_runs_once_over_crashes() {
    let (home, mut runtime) = started(&every_second("skip")).await;
    for _ in 0..3 {
        runtime.kill().await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let before = home.lines("ticks").len();
        runtime = home.start().await;
        home.wait_for_lines("ticks", before + 2).await;
    }
    let all = ticks(&home);
    let once: BTreeSet<Timestamp> = all.iter().copied().collect();
    // A crash may repeat the step of an execution, whose tick is the same one.
    assert!(all.len() <= once.len() + 3, "{all:?}");
    assert!(all.iter().all(|at| at.as_millisecond() % 1000 == 0), "aligned to the epoch of time: {all:?}");
    let (_, page) = runtime.get("/api/v1/executions?limit=500").await;
    let scheduled: Vec<&str> = page["executions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["memory"]["scheduled_time"].as_str().unwrap())
        .collect();
    let distinct: BTreeSet<&&str> = scheduled.iter().collect();
    assert_eq!(distinct.len(), scheduled.len(), "one execution for each scheduled time");
}

#[tokio::test]
async fn a_tick_is_skipped_while_the_last_has_not_ended_unless_overlap_is_allowed() {
    for (overlap, runs) in [("skip", 1), ("allow", 3)] {
        let text = format!(
            r#"
graph:
  async_entry_points:
    - {{id: tick, entry_node: a, max_concurrent: 3, trigger_type: timer, trigger_config: {{interval_seconds: 0.2, overlap: {overlap}}}}}
    - {{id: far, entry_node: b, trigger_type: timer, trigger_config: {{cron: '0 0 1 1 *', time_zone: Europe/Berlin, run_immediately: true}}}}
  nodes:
    - {{id: a, node_type: exec, command: [/bin/sh, -c, "echo >> ticks; while [ ! -e go ] && [ -e ticks ]; do sleep 0.02; done"]}}
    - {{id: b, node_type: exec, command: [/bin/sh, -c, "echo >> far"]}}
"#
        );
        let (home, _runtime) = started(&text).await;
        home.wait_for_lines("ticks", runs).await;
        home.wait_for_lines("far", 1).await;
        // Not a synchronisation: several more come due in this time.
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!((home.lines("ticks").len(), home.lines("far").len()), (runs, 1), "overlap: {overlap}");
        home.let_go();
    }
}
