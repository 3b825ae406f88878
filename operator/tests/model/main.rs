//! The whole as a bounded model: two operators with old pictures, two pods that crash or are replaced,
//! commands that come late, twice or never. Every order of events is walked; what decides in it is the
//! product's own code: `plan`, `Machine` and `fence`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod operators;
mod pods;
mod world;

use stateright::{Checker as _, Model as _};
use world::{Bounds, Broken, World};

use lifecycle::Desired;

/// States that are walked at most, the nearest first.
const MOST: usize = 400_000;

/// Walks a model to its end, prints its size, and gives the first path that breaks the promise.
fn walk(name: &str, bounds: Bounds) -> Option<String> {
    let model = world::Model::new(bounds);
    let begun = std::time::Instant::now();
    let checker = model.checker().threads(2).target_state_count(MOST).spawn_bfs().join();
    let whole = if checker.state_count() < MOST { "all" } else { "the first" };
    println!(
        "{name}: {whole} {} states, {} of them distinct, in {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        begun.elapsed().as_secs_f32()
    );
    for reached in ["paused is reached", "running is reached"] {
        assert!(
            checker.discovery(reached).is_some() || checker.discovery(world::PROMISE).is_some(),
            "{reached}: never"
        );
    }
    checker.discovery(world::PROMISE).map(|path| {
        let last: &World = path.last_state();
        format!("{:#?}\n{last:#?}", path.clone().into_actions())
    })
}

fn holds(name: &str, bounds: Bounds) {
    if let Some(path) = walk(name, bounds) {
        panic!("the promise is broken by:\n{path}");
    }
}

const PAUSE_AND_RESUME: [Desired; 2] = [Desired::Paused, Desired::Running];

#[test]
fn two_operators_with_old_pictures_keep_the_promise() {
    holds("two operators", Bounds { operators: 2, asks: &PAUSE_AND_RESUME, works: 0, ..Bounds::default() });
}

#[test]
fn two_pods_that_crash_keep_the_promise() {
    holds("two pods", Bounds { pods: 2, asks: &[Desired::Paused], crashes: 1, ..Bounds::default() });
}

#[test]
fn a_pod_that_crashes_and_is_replaced_keeps_the_promise() {
    holds("replaced", Bounds { asks: &PAUSE_AND_RESUME, crashes: 1, replacements: 1, ..Bounds::default() });
}

#[test]
fn an_operator_that_restarts_and_a_lost_config_map_keep_the_promise() {
    holds("lost", Bounds { asks: &PAUSE_AND_RESUME, restarts: 1, losses: 1, ..Bounds::default() });
}

#[test]
fn without_the_fence_the_model_finds_the_way_to_break_it() {
    let bounds = Bounds { asks: &PAUSE_TWICE, works: 0, broken: Broken::Fence, ..Bounds::default() };
    assert!(walk("no fence", bounds).is_some());
}

#[test]
fn without_a_look_at_the_store_the_model_finds_the_way_to_break_it() {
    let bounds =
        Bounds { operators: 2, asks: &[Desired::Paused], works: 0, broken: Broken::Confirm, ..Bounds::default() };
    assert!(walk("no confirmation", bounds).is_some());
}

#[test]
fn without_the_record_on_disk_the_model_finds_the_way_to_break_it() {
    let bounds = Bounds { asks: &PAUSE_AND_RESUME, crashes: 1, broken: Broken::Record, ..Bounds::default() };
    assert!(walk("no record", bounds).is_some());
}

const PAUSE_TWICE: [Desired; 3] = [Desired::Paused, Desired::Running, Desired::Paused];
