//! Brakes, rule by rule: what holds pods before the boot file does, and what lets go of it.

use crds::{AgentFreeze, AgentFreezeSpec, FreezeMode, HeldState};
use lifecycle::DrainMode;
use lifecycle::wire::BrakeCommand;

use super::*;

fn freeze(name: &str, state: HeldState) -> Arc<AgentFreeze> {
    let mut freeze = AgentFreeze::new(name, AgentFreezeSpec { state, ..AgentFreezeSpec::default() });
    freeze.metadata.uid = Some(format!("{name}-uid"));
    freeze.metadata.generation = Some(3);
    Arc::new(freeze)
}

/// What a look that waits for no write asks pods to hold by.
fn braking(world: &World) -> Vec<BrakeCommand> {
    bodies(&brakes(&world.observed(), world.now))
}

fn bodies(plan: &BrakePlan) -> Vec<BrakeCommand> {
    let body = |order: &Order| match &order.call {
        Call::Brake { body } => Some(body.as_ref().clone()),
        Call::Ask { .. } | Call::Command { .. } | Call::Hook { .. } => None,
    };
    plan.orders.iter().filter_map(body).collect()
}

/// Carries out a look that waits for no write.
fn brake(world: &mut World) -> usize {
    let plan = brakes(&world.observed(), world.now);
    world.note_brakes(plan.onset.as_ref());
    plan.orders.iter().for_each(|order| world.call(order));
    plan.orders.len()
}

fn running(pods: i32) -> World {
    let mut world = World::new(DesiredState::Running, pods);
    world.settle(20);
    world.now += jiff::SignedDuration::from_secs(60);
    world
}

fn names(world: &World) -> Vec<Vec<String>> {
    world.pods.iter().map(|pod| pod.brakes.as_ref().map(Brakes::ids).unwrap_or_default()).collect()
}

#[test]
fn brake_of_each_onset_and_leader_has_a_name_of_its_own() {
    let mut world = running(1);
    let mut given = std::collections::HashSet::new();
    for process in ["a", "b"] {
        for _ in 0..3 {
            world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
            let seen = Observed { nonce: Nonce { process: process.into(), look: world.looks }, ..world.observed() };
            let plan = brakes(&seen, world.now);
            let id = bodies(&plan)[0].id.clone();
            assert!(id.starts_with("stop-uid.3.") && lifecycle::brake::is_id(&id), "{id}");
            assert!(given.insert(id), "an edit, labels and an expiry bring the same uid back");
            world.looks += 1;
            world.fleet.freezes.clear();
            brake(&mut world);
        }
    }
}

#[test]
fn brake_that_a_pod_calls_stale_is_set_by_the_epoch_of_its_answer() {
    let mut world = running(1);
    world.pods[0].epoch = 7;
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    assert_eq!(brake(&mut world), 1);
    assert!(names(&world)[0].is_empty(), "it was refused");
    assert_eq!(braking(&world)[0].epoch, 7);
    world.now += jiff::SignedDuration::from_secs(1);
    brake(&mut world);
    assert_eq!(names(&world)[0].len(), 1);
}

#[test]
fn pod_gets_brakes_and_questions_alone_until_the_file_is_stored() {
    let mut world = running(2);
    world.unwritable = true;
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    for _ in 0..4 {
        let plan = world.step();
        let commands = plan.orders.iter().any(|order| matches!(order.call, Call::Command { .. }));
        assert!(plan.boot.is_some() || !commands, "{}", show(&plan));
        assert!(plan.status.as_ref().is_none_or(|status| status.state != Some(RuntimeState::Paused)));
        world.now += jiff::SignedDuration::from_secs(1);
    }
    assert!(world.pods.iter().all(|pod| pod.state == State::Paused), "they hold all the same");
    assert_eq!(world.condition("Stalled"), "True BootFileUnwritable");
    let stalled = world.status().conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert!(stalled.message.contains("2 of 2 pods hold by brakes"), "{}", stalled.message);
    assert_eq!(world.status().state, Some(RuntimeState::Pausing));
}

#[test]
fn pod_that_boots_by_an_open_file_is_braked_before_it_is_confirmed() {
    let mut world = running(1);
    world.unwritable = true;
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    world.step();
    let fresh = Pod {
        awaits: true,
        uid: "fresh".to_owned(),
        epoch: 1,
        state: State::Paused,
        brakes: Some(Brakes::default()),
        ..world.pods[0].clone()
    };
    world.pods.push(fresh);
    assert_eq!(braking(&world).len(), 1, "it waits for its confirmation, which is no hold");
    world.step();
    assert_eq!(names(&world)[1].len(), 1);
}

#[test]
fn freeze_brakes_at_once_and_a_pause_when_its_file_is_late() {
    let mut world = running(2);
    world.ask(DesiredState::Paused);
    let first = brakes(&world.observed(), world.now);
    assert_eq!((first.orders.len(), first.again), (0, Some(Duration::from_millis(250))));
    world.onset = first.onset;
    world.now += jiff::SignedDuration::from_millis(250);
    assert_eq!(braking(&world).len(), 2, "the file is not stored");
    let mut world = running(2);
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    assert_eq!(braking(&world).len(), 2);
}

#[test]
fn pause_brakes_as_soon_as_its_file_has_failed() {
    let mut world = running(2);
    world.unwritable = true;
    world.ask(DesiredState::Paused);
    world.step();
    assert_eq!(braking(&world).len(), 2);
}

#[test]
fn brake_is_one_for_each_step_that_is_more_severe() {
    let mut world = running(1);
    world.unwritable = true;
    world.pods[0].in_flight = 1;
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    assert_eq!((brake(&mut world), brake(&mut world)), (1, 0));
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused), freeze("more", HeldState::Stopped)];
    assert_eq!((brake(&mut world), brake(&mut world)), (1, 0));
    let mut cancel = freeze("cancel", HeldState::Paused);
    Arc::make_mut(&mut cancel).spec.mode = Some(FreezeMode::Cancel);
    world.fleet.freezes.push(cancel);
    assert_eq!((brake(&mut world), brake(&mut world)), (1, 0));
    assert_eq!(names(&world)[0].len(), 3);
    assert_eq!(world.pods[0].brakes.as_ref().unwrap().mode(), DrainMode::Cancel);
}

#[test]
fn frozen_object_is_not_braked_by_the_next_leader() {
    let mut world = running(3);
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    world.settle(20);
    world.contacts.clear();
    world.onset = None;
    assert!(braking(&world).is_empty(), "the file in the store holds them, and they are commanded");
}

#[test]
fn pod_that_lost_a_brake_is_braked_by_another_name() {
    let mut world = running(2);
    world.unwritable = true;
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    assert_eq!((brake(&mut world), brake(&mut world)), (2, 0));
    let before = names(&world)[0].clone();
    // A leader that was deposed lets go of it.
    world.now += jiff::SignedDuration::from_secs(1);
    world.pods[0].brakes = Some(Brakes::default());
    world.pods[0].state = State::Running;
    let heard = answer(&world.pods[0]);
    let contact = world.contacts.get_mut("pod-1").unwrap();
    *contact.heard() = heard;
    Arc::make_mut(contact.answer.as_mut().unwrap()).at = world.now;
    assert_eq!(brake(&mut world), 2);
    assert_eq!(names(&world)[0].len(), 1);
    assert_ne!(names(&world)[0], before, "a late release of the first does not let go of the second");
}

#[test]
fn braked_object_stays_held_when_its_freeze_can_be_read_no_more() {
    let mut world = running(2);
    world.unwritable = true;
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    brake(&mut world);
    world.fleet.freezes.clear();
    let why = "AgentFreeze stop cannot be decoded".to_owned();
    world.fleet.unknown = Some(crate::observe::fleet::Unknown { since: world.now, why });
    for onset in [world.onset.clone(), None] {
        world.onset = onset;
        assert_eq!(world.plan().boot.unwrap().file.state, Desired::Paused, "also for a leader that has just begun");
    }
}

#[test]
fn image_without_brakes_is_asked_once_and_commanded_as_ever() {
    let mut world = World::new(DesiredState::Running, 2);
    world.step();
    world.pods.iter_mut().for_each(|pod| pod.brakes = None);
    world.settle(20);
    world.contacts.clear();
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    assert_eq!((brake(&mut world), brake(&mut world)), (2, 0));
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Frozen");
    world.fleet.freezes.clear();
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
}

#[test]
fn brake_is_let_go_of_by_its_name_in_a_file_that_is_confirmed() {
    let mut world = running(2);
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    brake(&mut world);
    let held = names(&world).concat();
    let tightens = world.plan().boot.unwrap();
    assert_eq!((tightens.confirm, tightens.file.releases.len()), (None, 0), "a freeze waits for no list");
    world.settle(20);
    assert_eq!(names(&world).concat(), held, "it stands while the freeze does");
    world.fleet.freezes.clear();
    let loosens = world.plan().boot.unwrap();
    assert_eq!((loosens.confirm, loosens.file.releases.as_slice()), (Some(Confirm { freezes: true }), &held[..1]));
    world.settle(20);
    assert!(names(&world).concat().is_empty());
    assert_eq!(world.condition("Ready"), "True Running");
}

#[test]
fn brake_whose_answer_was_lost_is_let_go_of_all_the_same() {
    let mut world = running(2);
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused)];
    brake(&mut world);
    world.settle(20);
    for pod in ["pod-1", "pod-2"] {
        world.contacts.get_mut(pod).unwrap().heard().brakes = Some(Vec::new());
    }
    world.fleet.freezes.clear();
    world.plan();
    let loosens = world.plan().boot.unwrap();
    assert_eq!(loosens.file.releases, names(&world)[0]);
}

#[test]
fn freeze_that_ends_before_its_file_is_let_go_of_by_another_epoch() {
    let mut world = running(2);
    world.fleet.freezes = vec![freeze("short", HeldState::Paused)];
    brake(&mut world);
    let epoch = world.boot.as_ref().unwrap().file.as_ref().unwrap().epoch;
    world.fleet.freezes.clear();
    let boot = world.plan().boot.unwrap();
    assert_eq!((boot.file.epoch, boot.file.state), (epoch + 1, Desired::Running));
    assert_eq!((boot.confirm, boot.file.releases.len()), (Some(Confirm { freezes: true }), 1));
    world.settle(20);
    assert!(names(&world).concat().is_empty() && world.condition("Ready") == "True Running");
}

#[test]
fn brake_that_stays_after_its_release_is_told_and_released_again_later() {
    let mut world = running(1);
    let brake =
        lifecycle::brake::Brake { id: "x".to_owned(), epoch: 90, state: Desired::Paused, mode: DrainMode::Drain };
    world.pods[0].brakes.as_mut().unwrap().set(brake).unwrap();
    world.pods[0].rest();
    world.contacts.clear();
    let epoch = |world: &World| world.boot.as_ref().unwrap().file.as_ref().unwrap().epoch;
    let (before, mut told) = (epoch(&world), false);
    for _ in 0..10 {
        world.step();
        world.now += jiff::SignedDuration::from_secs(3);
        told |= world.condition("Stalled") == "True BrakeStuck";
    }
    let raised = epoch(&world) - before;
    assert!(told && (2..=4).contains(&raised), "{raised} in thirty seconds");
}

#[test]
fn hook_whose_record_cannot_be_written_is_called_without_one() {
    let mut world = running(1);
    let hook = r#"{ "http": { "path": "/flush" } }"#;
    world.runtime.spec.lifecycle.pre_pause = Some(serde_json::from_str(hook).unwrap());
    world.unwritable = true;
    world.ask(DesiredState::Paused);
    let first = brakes(&world.observed(), world.now);
    assert!(first.orders.is_empty() && first.again.unwrap() <= Duration::from_secs(1), "{first:?}");
    world.onset = first.onset;
    world.now += jiff::SignedDuration::from_secs(1);
    assert_eq!(brake(&mut world), 1);
    assert_eq!(world.hooked.len(), 1);
    world.step();
    world.now += jiff::SignedDuration::from_secs(1);
    brake(&mut world);
    assert_eq!((world.hooked.len(), names(&world)[0].len()), (1, 1), "it is called once, and the pause follows");
}

#[test]
fn freeze_ends_by_the_clock_of_the_api_server_too() {
    let ends = |text: &str| {
        let spec = AgentFreezeSpec { expires_at: Some(text.to_owned()), ..AgentFreezeSpec::default() };
        AgentFreeze::new("stop", spec)
    };
    let (freeze, now) = (ends(&at(10).to_string()), at(20));
    assert_eq!(ended(&freeze, now, Some(at(15))), None);
    assert_eq!(ended(&freeze, now, Some(at(10))), None, "the header has whole seconds");
    assert_eq!(ended(&freeze, now, Some(at(9))).as_deref(), Some("stop"));
    assert_eq!(ended(&freeze, now, None).as_deref(), Some("stop"), "a clock that is not known agrees with none");
    assert_eq!(ended(&freeze, at(9), Some(at(0))), None, "it stands by either clock");
}

/// What may become of one object and its pods.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Ask(DesiredState),
    Freeze(bool),
    Writable(bool),
    Hang(bool),
    Work,
    Finish,
    Brake,
    Step,
}

fn happens() -> impl Strategy<Value = Happens> {
    let states = prop_oneof![Just(DesiredState::Running), Just(DesiredState::Paused), Just(DesiredState::Stopped)];
    prop_oneof![
        2 => states.prop_map(Happens::Ask),
        3 => any::<bool>().prop_map(Happens::Freeze),
        2 => any::<bool>().prop_map(Happens::Writable),
        1 => any::<bool>().prop_map(Happens::Hang),
        1 => Just(Happens::Work),
        1 => Just(Happens::Finish),
        2 => Just(Happens::Brake),
        4 => Just(Happens::Step),
    ]
}

proptest! {
    /// From its acknowledgement to the end of its freeze a brake holds its pod, whatever happens; and at the end the object
    /// comes to what is asked for, with no brake left.
    #[test]
    fn braked_pod_is_held_while_its_freeze_stands(steps in proptest::collection::vec(happens(), 1..40)) {
        let mut world = running(2);
        for step in steps {
            world.now += jiff::SignedDuration::from_millis(700);
            match step {
                Happens::Ask(state) => world.ask(state),
                Happens::Freeze(on) => {
                    world.fleet.freezes = if on { vec![freeze("stop", HeldState::Paused)] } else { Vec::new() };
                }
                Happens::Writable(can) => world.unwritable = !can,
                Happens::Hang(hung) => world.pods.iter_mut().take(1).for_each(|pod| pod.hung = hung),
                Happens::Work => {
                    let works = |pod: &&mut Pod| pod.state == State::Running;
                    world.pods.iter_mut().filter(works).for_each(|pod| pod.in_flight = 1);
                }
                Happens::Finish => world.finish_work(),
                Happens::Brake => drop(brake(&mut world)),
                Happens::Step => drop(world.step()),
            }
            // A pod that comes back while the file holds it is commanded.
            let opens = world.boot.as_ref().unwrap().file.as_ref().unwrap().state == Desired::Running;
            let looked = matches!(step, Happens::Step) || (opens && matches!(step, Happens::Brake));
            if !world.fleet.freezes.is_empty() && looked {
                let runs = |pod: &&Pod| !pod.hung && pod.state == State::Running;
                prop_assert!(world.pods.iter().find(runs).is_none(), "{step:?}: {:?}", names(&world));
            }
        }
        world.unwritable = false;
        world.faults.boot = None;
        world.fleet.freezes.clear();
        world.pods.iter_mut().for_each(|pod| pod.hung = false);
        world.ask(DesiredState::Running);
        for _ in 0..12 {
            world.step();
            world.finish_work();
            world.now += jiff::SignedDuration::from_secs(11);
        }
        prop_assert!(names(&world).concat().is_empty(), "{:?}", names(&world));
        prop_assert_eq!(world.condition("Ready"), "True Running");
    }
}
