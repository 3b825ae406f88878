//! How things come to an end: drains that are overdue, deletion, and a clock that is put back on the way.

use super::*;

fn conditions(seen: &Observed, now: Timestamp) -> Vec<String> {
    let status = plan(seen, &settings(), now).status.expect("there is something to say");
    status.conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason)).collect()
}

#[test]
fn a_pod_that_cannot_be_asked_does_not_hide_that_a_drain_is_overdue_and_not_done() {
    let mut world = World::new(DesiredState::Running, 2);
    world.settle(20);
    world.pods.iter_mut().for_each(|pod| pod.in_flight = 1);
    world.ask(DesiredState::Paused);
    for _ in 0..6 {
        world.step();
        world.now += jiff::SignedDuration::from_secs(2);
    }
    let mut seen = world.observed();
    let (before, after) = (world.now, world.now + jiff::SignedDuration::from_secs(60));
    for contact in seen.contacts.values_mut() {
        let deadline = world.now + jiff::SignedDuration::from_secs(30);
        contact.heard().drain_deadline = Some(deadline.to_string());
    }
    assert_eq!(conditions(&seen, before)[2..], ["Drained False WorkInFlight", "Reconciling True Pausing"]);
    let overdue = "Stalled True DrainDeadlineExceeded";
    assert_eq!(conditions(&seen, after)[2..], ["Drained False WorkInFlight", overdue]);
    let status = plan(&seen, &settings(), after).status.unwrap();
    assert_eq!((status.state, status.in_flight), (Some(RuntimeState::Pausing), Some(2)), "overdue is not paused");
    seen.contacts.get_mut("pod-2").unwrap().failing_since = Some(before);
    assert_eq!(conditions(&seen, before)[2..], ["Drained Unknown PodsUnreachable", "Reconciling True PodsUnreachable"]);
    assert_eq!(conditions(&seen, after)[2..], ["Drained Unknown PodsUnreachable", overdue]);
}

#[test]
fn nothing_that_is_made_for_an_object_can_hold_up_its_deletion() {
    let mut world = on_a_volume(crds::WhenDeleted::Delete);
    let mut made = 0;
    for _ in 0..10 {
        let plan = world.step();
        let boot = plan.boot.iter().map(|boot| &boot.manifest);
        for manifest in plan.children.apply.iter().map(|child| &child.manifest).chain(boot) {
            let metadata = &manifest["metadata"];
            assert!(metadata.get("finalizers").is_none(), "{metadata}");
            let owners = metadata["ownerReferences"].as_array().unwrap();
            assert!(owners.iter().all(|owner| owner["blockOwnerDeletion"] == false), "{metadata}");
            made += 1;
        }
        world.now += jiff::SignedDuration::from_secs(2);
    }
    assert!(made >= 8, "{made} objects were made");
}

#[test]
fn every_condition_tells_of_the_generation_that_the_status_tells_of() {
    let mut world = World::new(DesiredState::Running, 1);
    for desired in [DesiredState::Running, DesiredState::Paused, DesiredState::Stopped, DesiredState::Running] {
        world.ask(desired);
        world.settle(20);
        let status = world.status();
        assert_eq!(Some(status.observed_generation), world.runtime.metadata.generation);
        let of_all = status.conditions.iter().map(|c| c.observed_generation.unwrap());
        assert!(of_all.into_iter().all(|of| of == status.observed_generation), "{:#?}", status.conditions);
    }
}

#[test]
fn a_clock_that_is_put_back_holds_up_neither_a_call_nor_the_status() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    // An hour ahead, a pause begins and its command fails.
    world.now += jiff::SignedDuration::from_hours(1);
    (world.pods[0].hung, world.pods[0].in_flight) = (true, 1);
    world.ask(DesiredState::Paused);
    for _ in 0..3 {
        world.step();
    }
    let contact = world.contacts.get_mut("pod-1").unwrap();
    contact.next_attempt = Some(world.now + jiff::SignedDuration::from_secs(15));
    assert!(world.plan().orders.is_empty(), "it is tried again after the pause");
    assert!(world.epoch_since.is_some_and(|(_, from)| from == world.now), "the test is about this epoch");
    world.now -= jiff::SignedDuration::from_hours(1);
    world.pods[0].hung = false;
    let plan = world.step();
    assert_eq!(plan.orders.len(), 1, "it is due at once");
    world.contacts.get_mut("pod-1").unwrap().next_attempt = None;
    for _ in 0..4 {
        world.step();
        world.now += super::super::status::PROGRESS;
    }
    assert_eq!((world.condition("Ready").as_str(), world.status().epoch), ("False Pausing", 2), "it is said soon");
    world.finish_work();
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Paused");
    // What was heard in that future is no news for an hour.
    let mut seen = world.observed();
    let answer = seen.contacts.get_mut("pod-1").unwrap().answer.as_mut().map(Arc::make_mut).unwrap();
    answer.at = world.now + jiff::SignedDuration::from_hours(1);
    assert_eq!(plan_of(&seen, world.now).orders.len(), 1, "it is asked again");
}

fn plan_of(seen: &Observed, now: Timestamp) -> Plan {
    plan(seen, &settings(), now)
}
