//! Pods that are drained before others replace them, and pods that are kept from eviction while they work.

use jiff::SignedDuration;

use super::*;

impl World {
    fn draining_before_restart() -> Self {
        let mut world = Self::new(DesiredState::Running, 2);
        world.runtime.spec.lifecycle.drain_before_restart = true;
        world.runtime.spec.lifecycle.drain_timeout_seconds = 60;
        world.settle(20);
        world
    }

    fn change_template(&mut self) {
        self.runtime.spec.restart_nonce = Some("next".to_owned());
        *self.runtime.metadata.generation.as_mut().unwrap() += 1;
    }

    fn uids(&self) -> Vec<String> {
        self.pods.iter().map(|pod| pod.uid.clone()).collect()
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
            self.now += SignedDuration::from_secs(2);
        }
    }
}

#[test]
fn a_rollout_waits_until_the_pods_are_idle_and_gives_back_the_state_of_the_spec() {
    let mut world = World::draining_before_restart();
    let old = world.uids();
    world.pods[0].in_flight = 1;
    world.change_template();
    world.steps(5);
    assert_eq!(world.uids(), old, "one of them works");
    assert_eq!(world.status().source, "Rollout");
    assert_eq!(world.condition("Ready"), "False DrainingBeforeRestart");
    assert_eq!(world.condition("Stalled"), "absent");
    world.finish_work();
    // The status that says so comes first.
    world.steps(2);
    assert!(world.pods.iter().all(|pod| !old.contains(&pod.uid)), "{:?}", world.uids());
    world.settle(20);
    assert_eq!((world.status().source.as_str(), world.condition("Ready").as_str()), ("Spec", "True Running"));
}

#[test]
fn no_old_pod_goes_back_to_work_between_its_drain_and_its_end() {
    let mut world = World::draining_before_restart();
    world.change_template();
    world.steps(1);
    let before = world.deployment.clone().unwrap();
    world.steps(1);
    // The Deployment is changed, and its controller has not begun yet.
    let template = world.deployment.as_ref().unwrap().template.clone();
    world.deployment = Some(DeploymentFacts { template, updated: 0, ..before });
    let plan = world.plan();
    assert!(plan.boot.is_none(), "still paused: {}", show(&plan));
}

#[test]
fn a_rollout_waits_no_longer_than_the_drain_deadline() {
    for answers in [true, false] {
        let mut world = World::draining_before_restart();
        let old = world.uids();
        world.pods[0].in_flight = 1;
        world.pods[1].hung = !answers;
        world.change_template();
        world.steps(28);
        assert_eq!(world.uids(), old, "{answers}");
        world.steps(4);
        assert!(world.uids().iter().all(|uid| !old.contains(uid)), "{answers}");
    }
}

#[test]
fn a_rollout_that_does_not_drain_and_one_of_a_paused_object_write_no_epoch() {
    for (drains, desired) in [(false, DesiredState::Running), (true, DesiredState::Paused)] {
        let mut world = World::new(desired, 2);
        world.runtime.spec.lifecycle.drain_before_restart = drains;
        world.settle(20);
        world.change_template();
        // While it is paused the status that tells of the new spec comes first.
        let first = world.step();
        let second = world.plan();
        assert!(first.boot.is_none() && second.boot.is_none());
        let mut applied = first.children.apply.iter().chain(&second.children.apply);
        assert!(applied.any(|child| child.key.kind == ChildKind::Deployment && !child.trial));
    }
}

#[test]
fn a_changed_number_of_pods_drains_nothing() {
    let mut world = World::draining_before_restart();
    world.runtime.spec.replicas = 3;
    world.ask(DesiredState::Running);
    assert!(world.plan().boot.is_none());
    world.settle(20);
    assert_eq!(world.pods.len(), 3);
}

#[test]
fn a_pause_and_a_freeze_take_over_from_a_rollout_that_drains() {
    let mut world = World::draining_before_restart();
    world.pods[0].in_flight = 1;
    world.change_template();
    world.steps(3);
    let epoch = world.status().epoch;
    world.ask(DesiredState::Paused);
    world.steps(3);
    assert_eq!((world.status().source.as_str(), world.status().epoch), ("Spec", epoch), "it is the same pause");
    world.finish_work();
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Paused");
    assert_eq!(world.status().restart_nonce.as_deref(), Some("next"));
}

fn budget(plan: &Plan) -> Option<Value> {
    let found = plan.children.apply.iter().find(|child| child.key.kind == ChildKind::PodDisruptionBudget);
    found.map(|child| child.manifest["spec"].clone())
}

fn protected() -> World {
    let mut world = World::new(DesiredState::Running, 2);
    world.runtime.spec.lifecycle.disruption_protection_seconds = Some(60);
    // It never rests: the pods are followed.
    world.steps(10);
    world
}

/// The pod says that so much is in flight.
fn work(world: &mut World, in_flight: i64) {
    world.pods[0].in_flight = in_flight;
    let pod = answer(&world.pods[0]);
    let contact = world.contacts.get_mut("pod-1").unwrap();
    *contact.heard() = pod;
}

#[test]
fn pods_at_work_are_protected_until_they_are_idle_or_the_time_is_over() {
    let mut world = protected();
    assert_eq!(world.protected_since, None);
    work(&mut world, 1);
    let spec = budget(&world.step()).expect("the budget changes");
    assert_eq!((&spec["maxUnavailable"], &spec["unhealthyPodEvictionPolicy"]), (&0.into(), &"IfHealthyBudget".into()));
    assert_eq!(budget(&world.step()), None, "it is written once");
    world.now += SignedDuration::from_secs(59);
    assert_eq!(budget(&world.step()), None);
    assert!(world.plan().again.unwrap() <= Duration::from_secs(1));
    world.now += SignedDuration::from_secs(1);
    assert_eq!(budget(&world.step()).unwrap()["maxUnavailable"], 1, "the time is over, though the work goes on");
    world.now += SignedDuration::from_secs(600);
    assert_eq!(budget(&world.step()), None, "and does not begin again");
    work(&mut world, 0);
    world.step();
    work(&mut world, 1);
    assert_eq!(budget(&world.step()).unwrap()["maxUnavailable"], 0, "other work has begun");
    work(&mut world, 0);
    world.now += SignedDuration::from_secs(5);
    assert_eq!(budget(&world.step()), None, "short executions are not a write each");
    world.now += SignedDuration::from_secs(10);
    assert_eq!(budget(&world.step()).unwrap()["maxUnavailable"], 1);
}

#[test]
fn a_pod_that_does_not_say_what_it_does_is_protected_and_without_the_field_none_is() {
    let mut world = protected();
    world.contacts.get_mut("pod-1").unwrap().heard().in_flight = None;
    assert_eq!(budget(&world.plan()).unwrap()["maxUnavailable"], 0);
    world.runtime.spec.lifecycle.disruption_protection_seconds = None;
    assert_eq!(budget(&world.plan()), None);
}

#[test]
fn what_asks_to_be_left_alone_obeys_neither_a_resume_nonce_nor_another_auth() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.metadata.annotations = Some([(RECONCILE_ANNOTATION.to_owned(), "disabled".to_owned())].into());
    world.settle(20);
    world.runtime.spec.resume_nonce = Some("now".to_owned());
    world.runtime.spec.lifecycle.auth = crds::CommandAuth::None;
    world.ask(DesiredState::Running);
    let plan = world.plan();
    assert!(plan.boot.is_none(), "{}", show(&plan));
    world.runtime.metadata.annotations = None;
    let file = world.plan().boot.unwrap().file;
    assert_eq!((file.resume_nonce.as_deref(), file.keys.len()), (Some("now"), 0));
}

#[test]
fn no_pod_is_said_to_run_where_there_is_none() {
    let mut world = World::new(DesiredState::Running, 0);
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True ScaledToZero");
    assert_eq!(world.status().state, Some(RuntimeState::Stopped));
    world.runtime.spec.replicas = 1;
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
}

#[test]
fn deployment_that_is_refused_replaces_no_pod_that_works() {
    let mut world = World::draining_before_restart();
    let old = world.uids();
    world.change_template();
    let trial = world.plan().children.apply;
    assert!(trial.iter().all(|child| child.trial) && !trial.is_empty(), "it is only tried");
    world.refuse(ChildKind::Deployment);
    world.steps(3);
    assert_eq!((world.uids(), world.condition("Stalled").as_str()), (old.clone(), "True InvalidTemplate"));
    assert!(world.pods.iter().all(|pod| pod.state == State::Running), "nothing is drained for what is refused");
    // The cause goes: it is tried once more, and then they are drained.
    world.now += SignedDuration::from_secs(21);
    world.pods[0].in_flight = 1;
    world.steps(4);
    assert_eq!((world.uids(), world.status().source.as_str()), (old.clone(), "Rollout"));
    world.finish_work();
    world.settle(20);
    assert!(world.pods.iter().all(|pod| !old.contains(&pod.uid)));
    assert_eq!(world.condition("Ready"), "True Running");
}
