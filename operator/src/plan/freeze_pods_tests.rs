use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::observe::Heard;

fn status(state: State, epoch: i64, brakes: &[&str], in_flight: i64, awaiting_confirmation: bool) -> Status {
    let text = r#"{"state": "running", "uptime_seconds": 1, "active_streams": 0, "total_executions": 1,
        "failed_executions": 0, "entry_points": [], "health": {}}"#;
    let brakes = Some(brakes.iter().map(|id| (*id).to_owned()).collect());
    let plain: Status = serde_json::from_str(text).unwrap();
    Status { state, epoch, brakes, in_flight: Some(in_flight), awaiting_confirmation, ..plain }
}

fn pod(container: Option<&str>) -> PodFacts {
    PodFacts {
        name: "demo-1".to_owned(),
        uid: "pod-1".to_owned(),
        address: Some([10, 0, 0, 1].into()),
        terminating: false,
        ended: false,
        ready: true,
        port: None,
        container: container.map(Into::into),
        created: None,
        started: None,
        waiting: None,
        unsafe_target: None,
    }
}

fn file(state: Desired, epoch: i64, releases: &[&str]) -> BootFile {
    let releases = releases.iter().map(|id| (*id).to_owned()).collect();
    BootFile { state, epoch, releases, ..BootFile::default() }
}

fn contact(status: Status, container: &str) -> Contact {
    let heard = Heard::new(status, Timestamp::UNIX_EPOCH, Some(container.into()), true);
    Contact { answer: Some(Arc::new(heard)), ..Contact::default() }
}

/// Holding, idle, unreachable.
fn counts(status: Status, file: &BootFile, asked: Desired) -> (usize, usize, usize) {
    let counts = PodCounts::of(&pod(Some("c")), Some(&contact(status, "c")), Some(file), asked);
    (counts.holding, counts.idle, counts.unreachable)
}

#[test]
fn pod_holds_by_the_stored_file_or_by_a_brake_and_by_nothing_else() {
    let (paused, running) = (file(Desired::Paused, 5, &[]), file(Desired::Running, 5, &[]));
    let said = |state, epoch, brakes: &[&str], in_flight| status(state, epoch, brakes, in_flight, false);
    assert_eq!(counts(said(State::Paused, 5, &[], 0), &paused, Desired::Paused), (1, 1, 0));
    assert_eq!(counts(said(State::Pausing, 5, &[], 2), &paused, Desired::Paused), (1, 0, 0), "it drains");
    assert_eq!(counts(said(State::Paused, 4, &[], 0), &paused, Desired::Paused), (0, 0, 0), "by an older epoch");
    assert_eq!(counts(said(State::Paused, 4, &[], 0), &running, Desired::Paused), (0, 0, 0), "a resume is on its way");
    assert_eq!(counts(said(State::Paused, 5, &["x"], 0), &running, Desired::Paused), (1, 1, 0), "it is braked");
    let released = file(Desired::Running, 5, &["x"]);
    assert_eq!(counts(said(State::Paused, 4, &["x"], 0), &released, Desired::Paused), (0, 0, 0));
    assert_eq!(
        counts(said(State::Paused, 5, &["x"], 0), &running, Desired::Stopped),
        (0, 0, 0),
        "paused is not enough"
    );
    assert_eq!(counts(said(State::Stopped, 5, &["x"], 0), &running, Desired::Stopped), (1, 1, 0));
    assert_eq!(counts(status(State::Starting, 3, &[], 0, true), &paused, Desired::Paused), (1, 0, 0), "it waits");
    assert_eq!(counts(status(State::Starting, 3, &[], 0, true), &running, Desired::Paused), (0, 0, 0));
}

#[test]
fn pod_without_a_container_holds_by_the_file_that_it_boots_by() {
    for (file, holds) in
        [(Some(file(Desired::Paused, 1, &[])), 1), (Some(file(Desired::Running, 1, &[])), 0), (None, 0)]
    {
        let counts = PodCounts::of(&pod(None), None, file.as_ref(), Desired::Paused);
        assert_eq!((counts.total, counts.holding, counts.idle), (1, holds, holds));
    }
}

#[test]
fn pod_without_an_answer_of_its_container_is_not_counted_as_holding() {
    let paused = file(Desired::Paused, 5, &[]);
    let mut failing = contact(status(State::Paused, 5, &[], 0, false), "c");
    failing.failing_since = Some(Timestamp::UNIX_EPOCH);
    let count = |contact: &Contact| PodCounts::of(&pod(Some("c")), Some(contact), Some(&paused), Desired::Paused);
    assert_eq!((count(&failing).unreachable, count(&failing).holding), (1, 0));
    let other = contact(status(State::Paused, 5, &[], 0, false), "before");
    assert_eq!((count(&other).unreachable, count(&other).holding), (0, 0));
}

proptest! {
    /// A pod that runs never counts as one that holds.
    #[test]
    fn pod_that_runs_is_never_counted_as_holding(epoch in 0i64..9, stored in 0i64..9, braked: bool, flight in 0i64..3) {
        let brakes: &[&str] = if braked { &["x"] } else { &[] };
        for state in [Desired::Running, Desired::Paused, Desired::Stopped] {
            for asked in [Desired::Paused, Desired::Stopped] {
                let said = status(State::Running, epoch, brakes, flight, false);
                prop_assert_eq!(counts(said, &file(state, stored, &[]), asked), (0, 0, 0));
            }
        }
    }
}
