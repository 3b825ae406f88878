//! Which objects a freeze selects, the order in which they go back to work, and what its status says.

use crds::{AgentFreezeSpec, AgentRuntimeSpec, DesiredState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, Time};
use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn equals(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(labels(&[(key, value)])), match_expressions: None }
}

fn freeze(spec: AgentFreezeSpec) -> AgentFreeze {
    let mut freeze = AgentFreeze::new("stop", spec);
    freeze.metadata.uid = Some("freeze-1".to_owned());
    freeze.metadata.generation = Some(1);
    freeze
}

fn runtime(name: &str, desired: DesiredState, state: Option<RuntimeState>) -> AgentRuntime {
    let mut runtime = AgentRuntime::new(name, AgentRuntimeSpec::default());
    runtime.metadata.namespace = Some("shop".to_owned());
    runtime.status = Some(AgentRuntimeStatus { desired_state: Some(desired), state, ..AgentRuntimeStatus::default() });
    runtime
}

fn spaces() -> BTreeMap<String, Labels> {
    BTreeMap::from([("shop".to_owned(), Labels::new())])
}

fn reported(freeze: &AgentFreeze, runtimes: &[AgentRuntime], now: Timestamp) -> AgentFreezeStatus {
    report(freeze, runtimes.iter(), &spaces(), stored, &[], now).expect("there is something to write")
}

/// The boot file as the status tells of it.
fn stored(runtime: &AgentRuntime) -> Option<(Desired, i64)> {
    let status = runtime.status.as_ref()?;
    Some((super::super::policy::desired(status.desired_state?), status.epoch))
}

fn said(status: &AgentFreezeStatus) -> Vec<String> {
    status.conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason)).collect()
}

#[test]
fn a_freeze_selects_by_the_labels_of_namespaces_and_of_runtimes() {
    let all = freeze(AgentFreezeSpec::default());
    assert_eq!(selects(&all, None, &Labels::new()), Some(true), "{{}} is all, whatever the namespace");
    let narrow = freeze(AgentFreezeSpec {
        namespace_selector: equals("team", "red"),
        runtime_selector: Some(equals("model", "m1")),
        ..AgentFreezeSpec::default()
    });
    let (red, blue) = (labels(&[("team", "red")]), labels(&[("team", "blue")]));
    let (m1, m2) = (labels(&[("model", "m1")]), labels(&[("model", "m2")]));
    assert_eq!(selects(&narrow, Some(&red), &m1), Some(true));
    assert_eq!(selects(&narrow, Some(&blue), &m1), Some(false));
    assert_eq!(selects(&narrow, Some(&red), &m2), Some(false));
    assert_eq!(selects(&narrow, None, &m2), Some(false), "its own labels decide");
    assert_eq!(selects(&narrow, None, &m1), None, "its namespace has not been seen");
}

#[test]
fn a_selector_that_cannot_be_read_selects_nobody_knows_what() {
    let odd = LabelSelectorRequirement { key: "a".to_owned(), operator: "Near".to_owned(), values: None };
    let selector = LabelSelector { match_labels: None, match_expressions: Some(vec![odd]) };
    let freeze = freeze(AgentFreezeSpec { namespace_selector: selector, ..AgentFreezeSpec::default() });
    assert_eq!(selects(&freeze, Some(&Labels::new()), &Labels::new()), None);
}

#[test]
fn it_is_ready_when_each_runtime_that_it_selects_has_acknowledged() {
    let stop = freeze(AgentFreezeSpec::default());
    let paused = runtime("a", DesiredState::Paused, Some(RuntimeState::Paused));
    let pausing = runtime("b", DesiredState::Paused, Some(RuntimeState::Pausing));
    // Held by a person in its pod, while the operator wants it to run: nothing keeps it there.
    let local = runtime("c", DesiredState::Running, Some(RuntimeState::Paused));
    let status = reported(&stop, &[paused.clone(), local, pausing], at(0));
    assert_eq!((status.matched, status.reached, status.unreachable), (3, 1, 0));
    assert_eq!(status.pending, ["shop/b", "shop/c"]);
    assert_eq!(said(&status), ["Ready False Freezing", "Reconciling True Freezing"]);
    let stopped = runtime("b", DesiredState::Stopped, Some(RuntimeState::Stopped));
    let status = reported(&stop, &[paused, stopped], at(0));
    assert_eq!((status.matched, status.reached, said(&status)), (2, 2, vec!["Ready True Frozen".to_owned()]));
}

#[test]
fn paused_is_not_enough_for_a_freeze_that_stops() {
    let stop = freeze(AgentFreezeSpec { state: HeldState::Stopped, ..AgentFreezeSpec::default() });
    let paused = runtime("a", DesiredState::Paused, Some(RuntimeState::Paused));
    assert_eq!(reported(&stop, &[paused], at(0)).reached, 0);
    let stopped = runtime("a", DesiredState::Stopped, Some(RuntimeState::Stopped));
    assert_eq!(reported(&stop, &[stopped], at(0)).reached, 1);
}

#[test]
fn a_runtime_that_cannot_be_asked_makes_it_unknown_and_an_overdue_drain_stalls_it() {
    let stop = freeze(AgentFreezeSpec::default());
    let lost = runtime("a", DesiredState::Paused, Some(RuntimeState::Unknown));
    let status = reported(&stop, &[lost], at(0));
    assert_eq!((status.unreachable, said(&status)[0].as_str()), (1, "Ready Unknown RuntimesUnreachable"));
    let mut overdue = runtime("a", DesiredState::Paused, Some(RuntimeState::Pausing));
    overdue.status.as_mut().unwrap().conditions.push(Condition {
        type_: "Stalled".to_owned(),
        status: "True".to_owned(),
        reason: "DrainDeadlineExceeded".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(at(0)),
    });
    let status = reported(&stop, &[overdue], at(0));
    assert_eq!(said(&status), ["Ready False DrainDeadlineExceeded", "Stalled True DrainDeadlineExceeded"]);
}

#[test]
fn an_expired_freeze_holds_nothing_and_says_so() {
    let mut stop = freeze(AgentFreezeSpec { expires_at: Some(at(60).to_string()), ..AgentFreezeSpec::default() });
    let paused = [runtime("a", DesiredState::Paused, Some(RuntimeState::Paused))];
    let before = reported(&stop, &paused, at(59));
    assert_eq!(before.matched, 1);
    stop.status = Some(before);
    let after = reported(&stop, &paused, at(60));
    assert_eq!(
        (after.matched, said(&after)),
        (0, vec!["Ready False Expired".to_owned(), "Stalled True Expired".to_owned()])
    );
    assert!(hold(&stop, at(59)).is_some() && hold(&stop, at(60)).is_none());
}

#[test]
fn an_end_that_cannot_be_read_or_come_never_does_and_is_told() {
    let paused = [runtime("a", DesiredState::Paused, Some(RuntimeState::Paused))];
    for text in ["9999-12-31T23:59:59Z", "2020-01-01T00:00:00+99:99", "2020-01-01T00:00:00x5Z", "never", ""] {
        let stop = freeze(AgentFreezeSpec { expires_at: Some(text.to_owned()), ..AgentFreezeSpec::default() });
        assert!(hold(&stop, at(0)).is_some() && hold(&stop, Timestamp::MAX).is_some(), "{text}");
        let status = reported(&stop, &paused, at(0));
        assert_eq!(status.matched, 1);
        assert!(status.conditions[0].message.ends_with("spec.expiresAt is no time that can come"), "{text}");
    }
    let ends = freeze(AgentFreezeSpec {
        expires_at: Some("2020-01-01T02:00:00+02:00".to_owned()),
        ..AgentFreezeSpec::default()
    });
    assert!(hold(&ends, "2019-12-31T23:59:59Z".parse().unwrap()).is_some());
    assert!(hold(&ends, "2020-01-01T00:00:00Z".parse().unwrap()).is_none());
}

#[test]
fn nothing_is_written_when_nothing_changes_and_at_most_fifty_are_listed() {
    let mut stop = freeze(AgentFreezeSpec::default());
    let many: Vec<_> =
        (0..70).map(|n| runtime(&format!("r{n:02}"), DesiredState::Running, Some(RuntimeState::Running))).collect();
    let first = reported(&stop, &many, at(0));
    assert_eq!((first.matched, first.pending.len(), first.pending[0].as_str()), (70, 50, "shop/r00"));
    stop.status = Some(first);
    assert_eq!(report(&stop, many.iter(), &spaces(), stored, &[], at(500)), None);
    assert_eq!(
        report(&stop, many.iter().rev(), &spaces(), stored, &[], at(500)),
        None,
        "in whatever order they are looked at"
    );
}

#[test]
fn freeze_is_not_ready_while_pods_of_a_deleted_object_are_there() {
    let orphan = [Owner { namespace: "shop".to_owned(), name: "gone".to_owned() }];
    let status = |spec, orphans: &[Owner]| report(&freeze(spec), [].iter(), &spaces(), stored, orphans, at(0)).unwrap();
    let all = AgentFreezeSpec { runtime_selector: Some(equals("a", "b")), ..AgentFreezeSpec::default() };
    assert_eq!(said(&status(all.clone(), &[])), ["Ready True Frozen"]);
    let held = status(all, &orphan);
    assert_eq!(said(&held)[0], "Ready Unknown RuntimesUnreachable", "its labels are not known any more");
    assert_eq!(held.pending, ["shop/gone"]);
    let elsewhere = AgentFreezeSpec { namespace_selector: equals("team", "red"), ..AgentFreezeSpec::default() };
    assert_eq!(said(&status(elsewhere, &orphan)), ["Ready True Frozen"]);
}

#[test]
fn freeze_is_reached_by_a_status_of_the_epoch_in_the_store_alone() {
    let stop = freeze(AgentFreezeSpec::default());
    let mut runtime = runtime("demo", DesiredState::Paused, Some(RuntimeState::Paused));
    runtime.status.as_mut().unwrap().epoch = 5;
    let reached = |file: Option<(Desired, i64)>| {
        report(&stop, [&runtime].into_iter(), &spaces(), |_| file, &[], at(0)).unwrap().reached
    };
    assert_eq!(reached(Some((Desired::Paused, 5))), 1);
    assert_eq!(reached(Some((Desired::Running, 6))), 0, "it has been resumed since");
    assert_eq!(reached(Some((Desired::Paused, 7))), 0, "the pods have not acknowledged this pause");
    assert_eq!(reached(None), 0, "the file is lost");
}

proptest! {
    /// At most so many of those that a freeze held go back to work in any second, and each does.
    #[test]
    fn no_second_sees_more_go_back_to_work_than_the_freeze_allows(each_second in 1i32..20, count in 0usize..60) {
        let spec = AgentFreezeSpec { resume_per_second: Some(each_second), ..AgentFreezeSpec::default() };
        let freeze = std::sync::Arc::new(freeze(spec));
        let many: Vec<_> = (0..count).map(|n| runtime(&format!("r{n}"), DesiredState::Paused, None)).collect();
        let places = order(&freeze, many.iter(), &spaces());
        prop_assert_eq!(&places, &order(&freeze, many.iter().rev(), &spaces()), "another operator comes to the same order");
        let turns: Vec<Timestamp> = places
            .values()
            .map(|rank| not_before(&freeze, at(0), *rank).unwrap())
            .collect();
        for begin in 0..i64::try_from(count).unwrap() {
            let within = turns.iter().filter(|turn| **turn >= at(begin) && **turn < at(begin + 1)).count();
            prop_assert!(within <= usize::try_from(each_second).unwrap());
        }
        prop_assert!(turns.iter().all(|turn| *turn <= all_resumed(&freeze, at(0), count)));
        for rank in places.values() {
            let place = Turn { freeze: std::sync::Arc::clone(&freeze), ended: at(0), rank: *rank };
            let comes = not_before(&freeze, at(0), *rank).unwrap();
            prop_assert!(turn(&place, comes).is_none(), "its turn has come");
        }
    }
}

#[test]
fn another_operator_keeps_to_the_rate_of_a_freeze_that_is_gone() {
    let mut held = Vec::new();
    for (name, source, rate) in [
        ("b", "Freeze gone", Some(2)),
        ("a", "Freeze gone", Some(2)),
        ("c", "Freeze gone", None),
        ("d", "Freeze live", Some(1)),
        ("e", "Spec", None),
    ] {
        let mut one = runtime(name, DesiredState::Paused, Some(RuntimeState::Paused));
        let status = one.status.as_mut().unwrap();
        (status.source, status.resume_per_second) = (source.to_owned(), rate);
        held.push(one);
    }
    let gone = recall(held.iter(), |name| name == "live");
    assert_eq!(gone.len(), 1);
    let (freeze, places) = &gone[0];
    assert_eq!((freeze.name_any().as_str(), freeze.spec.resume_per_second), ("gone", Some(2)));
    let place = |name: &str| places.get(&Owner { namespace: "shop".to_owned(), name: name.to_owned() }).copied();
    assert_eq!((place("a"), place("b"), place("c")), (Some(0), Some(1), None));
}
