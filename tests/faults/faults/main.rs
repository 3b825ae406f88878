//! The real operator under faults, against a real API server and simulated pods with the real contract.
//!
//! HIVE_FAULTS_SECONDS bounds the time (360), HIVE_FAULTS_SEED repeats an order, HIVE_FAULTS_COUNT goes on until so many
//! perturbations have struck, however long that takes, HIVE_FAULTS_ONLY=text runs what has the text in its name (a|b:
//! one of these, and pairs of them), and HIVE_FAULTS_LOG=1 shows the operator's log of what failed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod campaign;
mod fault;
mod lasting;
mod operator;
mod oracle;
mod places;
mod plane;
mod plant;
mod pod;
mod process;
mod proxy;
mod run;
mod scenario;
mod stream;
mod world;

use crate::scenario::Scenario;

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_place_ends_as_without_it_and_the_promise_holds() {
    operator::check();
    let plane = plane::Plane::start().await;
    let summary = campaign::all(&plane.api).await;
    println!("{summary}");
    // Named once more at the end: what is far up in a long log is not found.
    let failures = summary.failures();
    assert!(summary.passed(), "{} runs failed\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_on_after_it_acknowledged_a_pause_is_seen() {
    operator::check();
    let plane = plane::Plane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let world = world::World::new(&plane.api, "liar", folder.path()).await;
    let applied = run::run(&world, Scenario::Apply, Vec::new(), None).await;
    assert_eq!(applied.wrong, Vec::<String>::new());
    world.lie();
    let paused = run::run(&world, Scenario::Pause, Vec::new(), None).await;
    assert!(paused.wrong.iter().any(|wrong| wrong.starts_with("PROMISE")), "{:?}", paused.wrong);
    world.end().await;
}
