//! What the status of a freeze says.

use crds::{AgentFreezeSpec, AgentRuntimeSpec, DesiredState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};

use super::*;

type Stored<'a> = &'a dyn Fn(&AgentRuntime) -> Option<(Desired, i64)>;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn equals(key: &str, value: &str) -> LabelSelector {
    let labels = [(key.to_owned(), value.to_owned())].into();
    LabelSelector { match_labels: Some(labels), match_expressions: None }
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

fn reported(freeze: &AgentFreeze, runtimes: &[AgentRuntime], now: Timestamp) -> AgentFreezeStatus {
    told(freeze, &runtimes.iter().collect::<Vec<_>>(), &stored, &[], now).expect("there is something to write")
}

fn told(
    freeze: &AgentFreeze,
    runtimes: &[&AgentRuntime],
    stored: Stored<'_>,
    orphans: &[Owner],
    now: Timestamp,
) -> Option<AgentFreezeStatus> {
    let namespaces = BTreeMap::from([("shop".to_owned(), Labels::new())]);
    let pods: &dyn Fn(&AgentRuntime, Desired) -> PodCounts = &|_, _| PodCounts::default();
    let sight = Sight { namespaces: &namespaces, stored, pods, orphans, unseen: Some(&[]) };
    report(freeze, runtimes.iter().copied(), &sight, now)
}

/// The boot file as the status tells of it.
fn stored(runtime: &AgentRuntime) -> Option<(Desired, i64)> {
    let status = runtime.status.as_ref()?;
    Some((policy::desired(status.desired_state?), status.epoch))
}

/// What it says of runtimes.
fn said(status: &AgentFreezeStatus) -> Vec<String> {
    let of_pods = |c: &&Condition| c.type_ != "Holding" && c.type_ != "Idle";
    status.conditions.iter().filter(of_pods).map(|c| format!("{} {} {}", c.type_, c.status, c.reason)).collect()
}

/// Holding and Idle, of one runtime whose pods stand so.
fn of_pods(pods: PodCounts, unseen: Option<&[Owner]>, orphans: &[Owner]) -> String {
    let running = runtime("a", DesiredState::Running, Some(RuntimeState::Running));
    let namespaces = BTreeMap::from([("shop".to_owned(), Labels::new())]);
    let count: &dyn Fn(&AgentRuntime, Desired) -> PodCounts = &|_, _| pods;
    let sight = Sight { namespaces: &namespaces, stored: &stored, pods: count, orphans, unseen };
    let status = report(&freeze(AgentFreezeSpec::default()), [&running].into_iter(), &sight, at(0)).unwrap();
    assert_eq!(status.pods.total, i32::try_from(pods.total).unwrap());
    let found = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.clone()).unwrap();
    format!("{} {}", found("Holding"), found("Idle"))
}

#[test]
fn freeze_holds_when_every_listed_pod_does_before_any_status_says_so() {
    let pods = |holding: usize, idle: usize, unreachable: usize| PodCounts { total: 3, holding, idle, unreachable };
    let of = |name: &str| Owner { namespace: "shop".to_owned(), name: name.to_owned() };
    assert_eq!(of_pods(pods(2, 1, 0), Some(&[]), &[]), "False False");
    assert_eq!(of_pods(pods(3, 1, 0), Some(&[]), &[]), "True False", "work is in flight");
    assert_eq!(of_pods(pods(3, 3, 0), Some(&[]), &[]), "True True");
    assert_eq!(of_pods(pods(2, 2, 1), Some(&[]), &[]), "Unknown Unknown", "one does not answer");
    assert_eq!(of_pods(pods(3, 3, 0), None, &[]), "Unknown Unknown", "nothing was listed since it was seen");
    assert_eq!(of_pods(pods(3, 3, 0), Some(&[of("b")]), &[]), "Unknown Unknown", "a pod was listed that is not known");
    assert_eq!(of_pods(pods(3, 3, 0), Some(&[]), &[of("gone")]), "Unknown Unknown");
    assert_eq!(of_pods(PodCounts::default(), Some(&[]), &[]), "True True", "there is none that could run");
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
fn freeze_is_unknown_by_a_runtime_out_of_reach_and_stalled_by_a_late_one() {
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
    assert!(
        super::super::freezes::hold(&stop, at(59)).is_some() && super::super::freezes::hold(&stop, at(60)).is_none()
    );
}

#[test]
fn an_end_that_cannot_be_read_or_come_never_does_and_is_told() {
    let paused = [runtime("a", DesiredState::Paused, Some(RuntimeState::Paused))];
    for text in ["9999-12-31T23:59:59Z", "2020-01-01T00:00:00+99:99", "2020-01-01T00:00:00x5Z", "never", ""] {
        let stop = freeze(AgentFreezeSpec { expires_at: Some(text.to_owned()), ..AgentFreezeSpec::default() });
        assert!(
            super::super::freezes::hold(&stop, at(0)).is_some()
                && super::super::freezes::hold(&stop, Timestamp::MAX).is_some(),
            "{text}"
        );
        let status = reported(&stop, &paused, at(0));
        assert_eq!(status.matched, 1);
        assert!(status.conditions[0].message.ends_with("spec.expiresAt is no time that can come"), "{text}");
    }
    let ends = freeze(AgentFreezeSpec {
        expires_at: Some("2020-01-01T02:00:00+02:00".to_owned()),
        ..AgentFreezeSpec::default()
    });
    assert!(super::super::freezes::hold(&ends, "2019-12-31T23:59:59Z".parse().unwrap()).is_some());
    assert!(super::super::freezes::hold(&ends, "2020-01-01T00:00:00Z".parse().unwrap()).is_none());
}

#[test]
fn nothing_is_written_when_nothing_changes_and_at_most_fifty_are_listed() {
    let mut stop = freeze(AgentFreezeSpec::default());
    let many: Vec<_> =
        (0..70).map(|n| runtime(&format!("r{n:02}"), DesiredState::Running, Some(RuntimeState::Running))).collect();
    let first = reported(&stop, &many, at(0));
    assert_eq!((first.matched, first.pending.len(), first.pending[0].as_str()), (70, 50, "shop/r00"));
    stop.status = Some(first);
    assert_eq!(told(&stop, &many.iter().collect::<Vec<_>>(), &stored, &[], at(500)), None);
    assert_eq!(
        told(&stop, &many.iter().rev().collect::<Vec<_>>(), &stored, &[], at(500)),
        None,
        "in whatever order they are looked at"
    );
}

#[test]
fn freeze_is_not_ready_while_pods_of_a_deleted_object_are_there() {
    let orphan = [Owner { namespace: "shop".to_owned(), name: "gone".to_owned() }];
    let status = |spec, orphans: &[Owner]| told(&freeze(spec), &[], &stored, orphans, at(0)).unwrap();
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
    let reached = |file: Option<(Desired, i64)>| told(&stop, &[&runtime], &|_| file, &[], at(0)).unwrap().reached;
    assert_eq!(reached(Some((Desired::Paused, 5))), 1);
    assert_eq!(reached(Some((Desired::Running, 6))), 0, "it has been resumed since");
    assert_eq!(reached(Some((Desired::Paused, 7))), 0, "the pods have not acknowledged this pause");
    assert_eq!(reached(None), 0, "the file is lost");
}
