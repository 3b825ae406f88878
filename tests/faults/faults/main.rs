//! The real operator under faults, against a real API server and simulated pods with the real contract.
//!
//! HIVE_FAULTS_SECONDS bounds the time (360), HIVE_FAULTS_SEED repeats an order, HIVE_FAULTS_COUNT goes on until so many
//! perturbations have struck, however long that takes, HIVE_FAULTS_ONLY=text runs what has the text in its name, and
//! HIVE_FAULTS_LOG=1 shows the operator's log of what failed.

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
mod operator;
mod oracle;
mod places;
mod plane;
mod plant;
mod pod;
mod proxy;
mod run;
mod scenario;
mod stream;
mod world;

use otlp::collector::{Collector, Span};

use crate::scenario::Scenario;

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_place_ends_as_without_it_and_the_promise_holds() {
    operator::check();
    let plane = plane::Plane::start().await;
    let summary = campaign::all(&plane.api).await;
    println!("{summary}");
    assert!(summary.passed(), "{} runs failed", summary.failures());
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_one_trace_from_the_change_over_each_pod_to_the_status() {
    operator::check();
    let plane = plane::Plane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start().await;
    let world = world::World::new(&plane.api, "traced", folder.path()).await;
    world.operators[0].export_to(&collector.url());
    for scenario in [Scenario::Apply, Scenario::Pause] {
        let outcome = run::run(&world, scenario, Vec::new(), None).await;
        assert_eq!(outcome.wrong, Vec::<String>::new());
    }
    let arrived = collector.arrived("transition to paused");
    tokio::time::timeout(std::time::Duration::from_secs(30), arrived).await.expect("the trace is exported");
    let pause = collector.one("transition to paused");
    let said = |span: &Span, name: &str| span.attributes.get(name).cloned().unwrap_or_default();
    assert_eq!(
        (said(&pause, "service.name"), said(&pause, "hive.outcome")),
        ("agentruntime-operator".into(), "reached".into())
    );
    assert_eq!(
        (said(&pause, "k8s.namespace.name"), said(&pause, "hive.runtime.name")),
        ("traced".into(), world::NAME.into())
    );
    assert_eq!(pause.parent, "", "the change is where it begins");
    let all = collector.all();
    let steps: Vec<&Span> = all.iter().filter(|span| span.parent == pause.id).collect();
    for step in &steps {
        assert_eq!((step.trace.as_str(), step.kind, step.failed), (pause.trace.as_str(), 3, false), "{step:?}");
    }
    let mut names: Vec<&str> = steps.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let pods: Vec<String> = world.pods().iter().map(|pod| format!("pause {}", pod.name)).collect();
    let wanted = ["list pods", "write boot file", "write status"].into_iter().chain(pods.iter().map(String::as_str));
    let missing: Vec<&str> = wanted.filter(|name| !names.contains(name)).collect();
    assert!(!pods.is_empty() && missing.is_empty(), "{missing:?} are missing in {names:?}");
    world.end().await;
}
