//! Hooks: once in each pod for each change, and what waits for them.

use crds::{AgentFreeze, AgentFreezeSpec, ExecHook, FailurePolicy, Hook, HttpHook};
use jiff::SignedDuration;

use super::*;

fn hook(failure_policy: FailurePolicy) -> Option<Hook> {
    let http = HttpHook { path: "/hook".to_owned(), port: None };
    Some(Hook { http: Some(http), exec: None, timeout_seconds: 5, failure_policy })
}

impl World {
    fn with_hooks(policy: FailurePolicy) -> Self {
        let mut world = Self::new(DesiredState::Running, 2);
        world.runtime.spec.lifecycle.pre_pause = hook(policy);
        world.runtime.spec.lifecycle.post_resume = hook(policy);
        world.settle(20);
        world
    }

    /// Another operator: only what stands in the cluster is left.
    fn fail_over(&mut self) {
        self.contacts.clear();
        self.barrier = None;
        let epoch = self.boot.as_ref().and_then(|boot| Some(boot.file.as_ref()?.epoch));
        self.epoch_since = epoch.map(|epoch| (epoch, Timestamp::UNIX_EPOCH));
    }
}

#[test]
fn each_hook_is_called_once_in_each_pod_for_each_change() {
    let mut world = World::with_hooks(FailurePolicy::Fail);
    assert!(world.hooked.is_empty(), "a first start is no resume");
    world.ask(DesiredState::Paused);
    let plan = world.step();
    assert_eq!(plan.boot.as_ref().unwrap().file.epoch, 1, "the pause waits: {}", show(&plan));
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Paused");
    assert_eq!(world.hooked, ["pod-1 prePause 2", "pod-2 prePause 2"]);
    world.hooked.clear();
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
    assert_eq!(world.hooked, ["pod-1 postResume 3", "pod-2 postResume 3"]);
    world.hooked.clear();
    world.runtime.spec.replicas = 3;
    world.ask(DesiredState::Running);
    world.settle(20);
    assert!(world.hooked.is_empty(), "a new pod was not resumed");
}

#[test]
fn another_operator_calls_only_those_that_are_left() {
    let mut world = World::with_hooks(FailurePolicy::Fail);
    world.pods[1].hung = true;
    world.ask(DesiredState::Paused);
    // pod-1 has had it, and that was noted before the operator died.
    world.step();
    world.step();
    assert_eq!(world.hooked, ["pod-1 prePause 2"]);
    world.fail_over();
    world.pods[1].hung = false;
    world.settle(20);
    assert_eq!(world.hooked, ["pod-1 prePause 2", "pod-2 prePause 2"]);
    world.ask(DesiredState::Running);
    world.step();
    world.hooked.clear();
    world.fail_over();
    world.settle(20);
    assert_eq!(world.hooked, ["pod-1 postResume 3", "pod-2 postResume 3"]);
    world.hooked.clear();
    world.fail_over();
    world.settle(20);
    assert!(world.hooked.is_empty());
}

#[test]
fn an_operator_that_has_just_begun_passes_no_pod_over() {
    let mut world = World::with_hooks(FailurePolicy::Fail);
    world.fail_over();
    world.ask(DesiredState::Paused);
    world.settle(20);
    assert_eq!(world.hooked, ["pod-1 prePause 2", "pod-2 prePause 2"]);
    assert_eq!(world.condition("Ready"), "True Paused");
    world.hooked.clear();
    world.fail_over();
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!(world.hooked, ["pod-1 postResume 3", "pod-2 postResume 3"]);
    assert_eq!(world.condition("Ready"), "True Running");
}

#[test]
fn a_hook_that_fails_is_passed_over_or_holds_the_pause_up_as_its_policy_says() {
    for (policy, reason) in [(FailurePolicy::Ignore, "True Paused"), (FailurePolicy::Fail, "False HookFailed")] {
        let mut world = World::with_hooks(policy);
        world.hook_error = Some("404".to_owned());
        world.ask(DesiredState::Paused);
        for _ in 0..10 {
            world.step();
            world.now += SignedDuration::from_secs(2);
        }
        assert_eq!(world.condition("Ready"), reason);
        let running = world.pods.iter().filter(|pod| pod.state == State::Running).count();
        assert_eq!(running, if policy == FailurePolicy::Fail { 2 } else { 0 });
        world.hook_error = None;
        world.settle(20);
        assert_eq!(world.condition("Ready"), "True Paused");
    }
}

#[test]
fn a_pause_that_is_taken_back_is_another_than_the_next() {
    let mut world = World::with_hooks(FailurePolicy::Fail);
    world.pods[1].hung = true;
    world.ask(DesiredState::Paused);
    world.step();
    assert_eq!(world.hooked, ["pod-1 prePause 2"]);
    world.pods[1].hung = false;
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!((world.status().epoch, world.hooked.len()), (1, 1), "nothing was paused, and nothing is resumed");
    world.hooked.clear();
    world.ask(DesiredState::Paused);
    world.settle(20);
    assert_eq!(world.hooked, ["pod-1 prePause 2", "pod-2 prePause 2"]);
}

#[test]
fn a_freeze_and_a_stop_wait_for_no_hook() {
    let stopped = |world: &mut World| world.ask(DesiredState::Stopped);
    let frozen = |world: &mut World| {
        let mut freeze = AgentFreeze::new("stop", AgentFreezeSpec::default());
        freeze.metadata.uid = Some("freeze".to_owned());
        world.fleet.freezes = vec![Arc::new(freeze)];
    };
    for (reason, hold) in [("True Stopped", stopped as fn(&mut World)), ("True Frozen", frozen)] {
        let mut world = World::with_hooks(FailurePolicy::Fail);
        world.hook_error = Some("404".to_owned());
        world.ask(DesiredState::Paused);
        world.step();
        hold(&mut world);
        world.settle(30);
        assert_eq!(world.condition("Ready"), reason);
    }
}

#[test]
fn a_resume_whose_hook_fails_runs_and_says_what_failed() {
    let mut world = World::with_hooks(FailurePolicy::Fail);
    world.ask(DesiredState::Paused);
    world.settle(20);
    world.hook_error = Some("500".to_owned());
    world.ask(DesiredState::Running);
    for _ in 0..5 {
        world.step();
        world.now += SignedDuration::from_secs(2);
    }
    assert!(world.pods.iter().all(|pod| pod.state == State::Running));
    assert_eq!(world.condition("Stalled"), "True HookFailed");
    world.hook_error = None;
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
}

#[test]
fn a_rollout_that_drains_calls_the_hooks_too() {
    let mut world = World::with_hooks(FailurePolicy::Fail);
    world.runtime.spec.lifecycle.drain_before_restart = true;
    world.runtime.spec.restart_nonce = Some("next".to_owned());
    world.ask(DesiredState::Running);
    world.step();
    assert_eq!(world.pods[0].uid, "pod-1", "nothing is replaced before");
    world.settle(20);
    assert_eq!(world.hooked[..2], ["pod-1 prePause 2", "pod-2 prePause 2"]);
    assert!(world.hooked[2..].iter().all(|called| !called.contains("pod-1") && !called.contains("pod-2")));
    assert_eq!(world.condition("Ready"), "True Running");
}

fn exec(container: Option<&str>) -> Option<Hook> {
    let exec = ExecHook { command: vec!["/bin/flush".to_owned()], container: container.map(str::to_owned) };
    Some(Hook { exec: Some(exec), http: None, timeout_seconds: 5, failure_policy: FailurePolicy::Fail })
}

#[test]
fn a_command_is_run_in_the_named_container_or_in_the_agents() {
    for (named, expected) in [(None, "agent"), (Some("side"), "side")] {
        let mut world = World::new(DesiredState::Running, 1);
        world.runtime.spec.lifecycle.pre_pause = exec(named);
        world.settle(20);
        world.ask(DesiredState::Paused);
        let plans = [world.step(), world.step()];
        let deeds: Vec<Deed> = plans.into_iter().flat_map(|plan| plan.orders).filter_map(deed).collect();
        let command = vec!["/bin/flush".to_owned()];
        assert_eq!(deeds, [Deed::Exec { container: expected.to_owned(), command }]);
        world.settle(20);
        assert_eq!(world.condition("Ready"), "True Paused");
    }
}

fn deed(order: Order) -> Option<Deed> {
    match order.call {
        Call::Hook { deed, .. } => Some(deed),
        Call::Command { .. } | Call::Ask { .. } | Call::Brake { .. } => None,
    }
}

#[test]
fn a_command_that_the_operator_may_not_run_is_said_before_the_first_pause() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.spec.lifecycle.post_resume = exec(None);
    let refused = Settings { exec_hooks: false, ..settings() };
    world.ask(DesiredState::Running);
    let status = plan(&world.observed(), &refused, world.now).status.unwrap();
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "InvalidSpec");
    assert!(stalled.message.starts_with("spec.lifecycle.postResume.exec: "), "{}", stalled.message);
}
