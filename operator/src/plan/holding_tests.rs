//! What holds an object: freezes, windows and its own spec, coming and going.

use crds::{AgentFreeze, AgentFreezeSpec, FreezeMode, HeldState, MaintenanceWindow};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use lifecycle::DrainMode;

use super::*;
use crate::observe::fleet::{Turn, Unknown};
use crate::plan::effective::Kind;
use crate::plan::policy::desired;
use crate::plan::status::PROGRESS;

fn freeze(name: &str, state: HeldState, spec: AgentFreezeSpec) -> Arc<AgentFreeze> {
    let mut freeze = AgentFreeze::new(name, AgentFreezeSpec { state, ..spec });
    freeze.metadata.uid = Some(format!("{name}-uid"));
    freeze.metadata.generation = Some(1);
    Arc::new(freeze)
}

fn plain(name: &str, state: HeldState) -> Arc<AgentFreeze> {
    freeze(name, state, AgentFreezeSpec::default())
}

fn window(name: &str, start: Timestamp, seconds: i32, state: HeldState) -> MaintenanceWindow {
    let start = Some(start.to_string());
    MaintenanceWindow { name: name.to_owned(), start, duration_seconds: seconds, state, ..MaintenanceWindow::default() }
}

fn lost(since: Timestamp) -> Option<Unknown> {
    Some(Unknown { since, why: "agentfreezes: forbidden".to_owned() })
}

impl World {
    fn running() -> Self {
        let mut world = Self::new(DesiredState::Running, 2);
        world.settle(20);
        world
    }

    fn source(&self) -> (&str, String) {
        (&self.status().source, self.condition("Ready"))
    }

    fn commanded(&self) -> Desired {
        self.boot.as_ref().unwrap().file.as_ref().unwrap().state
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn disable(&mut self, disabled: bool) {
        let annotations = disabled.then(|| [(RECONCILE_ANNOTATION.to_owned(), "disabled".to_owned())].into());
        self.runtime.metadata.annotations = annotations;
    }

    /// What the object is to be, said once more in other words than the plan's.
    fn expected(&self) -> (Desired, Kind) {
        let all = |state: HeldState| if state == HeldState::Stopped { Desired::Stopped } else { Desired::Paused };
        let own = desired(self.runtime.spec.desired_state);
        let mut claims = vec![(own, Kind::Spec)];
        for window in &self.runtime.spec.maintenance_windows {
            let start: Timestamp = window.start.as_ref().unwrap().parse().unwrap();
            if start <= self.now && self.now < start + SignedDuration::from_secs(window.duration_seconds.into()) {
                claims.push((all(window.state), Kind::Window));
            }
        }
        for freeze in &self.fleet.freezes {
            if freeze.spec.expires_at.as_ref().is_none_or(|end| end.parse::<Timestamp>().unwrap() > self.now) {
                claims.push((all(freeze.spec.state), Kind::Freeze));
            }
        }
        claims.into_iter().max().unwrap()
    }
}

#[test]
fn every_plan_of_a_freeze_and_of_a_window() {
    let mut world = World::running();
    let mut story = String::new();
    let mut tell = |world: &mut World, title: &str, steps: usize| {
        let _ = writeln!(story, "# {title}");
        for _ in 0..steps {
            story.push_str(&show(&world.step()));
            story.push_str("--\n");
            world.wait(2);
        }
    };
    world.pods[0].in_flight = 1;
    let spec =
        AgentFreezeSpec { reason: "bad model".to_owned(), deadline_seconds: Some(5), ..AgentFreezeSpec::default() };
    world.fleet.freezes = vec![freeze("stop", HeldState::Paused, spec)];
    tell(&mut world, "a freeze comes while work is in flight", 3);
    let spec = AgentFreezeSpec { mode: Some(FreezeMode::Cancel), ..AgentFreezeSpec::default() };
    world.fleet.freezes.push(freeze("now", HeldState::Paused, spec));
    tell(&mut world, "another one cancels it", 3);
    world.fleet.freezes.clear();
    tell(&mut world, "both are deleted", 3);
    world.runtime.spec.maintenance_windows =
        vec![window("nightly", world.now + SignedDuration::from_secs(4), 6, HeldState::Paused)];
    tell(&mut world, "a window in four seconds, for six", 7);
    insta::assert_snapshot!(story);
}

#[test]
fn a_freeze_does_not_let_in_the_spec_of_an_object_that_is_left_alone() {
    let mut world = World::running();
    world.disable(true);
    world.settle(20);
    world.ask(DesiredState::Stopped);
    world.fleet.freezes = vec![plain("stop", HeldState::Paused)];
    world.settle(20);
    assert_eq!((world.status().state, world.source().0), (Some(RuntimeState::Paused), "Freeze stop"));
    assert_eq!((world.commanded(), world.pods.len()), (Desired::Paused, 2));
}

#[test]
fn frozen_is_ready_and_the_end_of_the_freeze_gives_back_its_own_state() {
    for (own, back) in [(DesiredState::Running, "True Running"), (DesiredState::Paused, "True Paused")] {
        let mut world = World::new(own, 2);
        world.settle(20);
        world.fleet.freezes = vec![plain("stop", HeldState::Paused)];
        world.settle(20);
        assert_eq!(world.source(), ("Freeze stop", "True Frozen".to_owned()));
        assert_eq!(world.status().state, Some(RuntimeState::Paused));
        // The same spec once more, as a GitOps tool applies it, is nothing new.
        let writes = world.writes;
        world.ask(own);
        world.runtime.metadata.generation = Some(1);
        world.settle(20);
        assert_eq!(world.writes, writes);
        world.fleet.freezes.clear();
        world.settle(20);
        assert_eq!(world.source(), ("Spec", back.to_owned()));
    }
}

#[test]
fn a_freeze_is_two_writes_to_each_runtime_and_so_is_its_end() {
    let mut world = World::running();
    for freezes in [vec![plain("stop", HeldState::Paused)], Vec::new()] {
        let before = world.writes;
        world.fleet.freezes = freezes;
        world.settle(20);
        assert_eq!(world.writes - before, 2);
    }
}

#[test]
fn a_freeze_that_cancels_is_commanded_though_a_drain_is_under_way() {
    let mut world = World::running();
    world.pods[0].in_flight = 1;
    world.ask(DesiredState::Paused);
    world.step();
    world.wait(2);
    world.step();
    assert_eq!(world.status().state, Some(RuntimeState::Pausing));
    let spec = AgentFreezeSpec { mode: Some(FreezeMode::Cancel), ..AgentFreezeSpec::default() };
    world.fleet.freezes = vec![freeze("now", HeldState::Paused, spec)];
    let plan = world.step();
    let modes: Vec<_> = plan
        .orders
        .iter()
        .map(|order| match &order.call {
            Call::Command { verb, body } => (*verb, body.mode),
            Call::Ask { .. } | Call::Hook { .. } | Call::Brake { .. } => panic!("it is to be commanded: {order:?}"),
        })
        .collect();
    assert_eq!(modes, [(Verb::Pause, Some(DrainMode::Cancel)); 2]);
    world.settle(20);
    assert_eq!(world.source(), ("Freeze now", "True Frozen".to_owned()));
}

#[test]
fn a_window_holds_it_and_the_plan_wakes_at_its_edges() {
    let mut world = World::running();
    // It began before this operator did.
    world.runtime.spec.maintenance_windows = vec![window("nightly", at(-10), 100, HeldState::Paused)];
    world.now = at(60);
    assert!(world.plan().again.unwrap() <= Duration::from_secs(30), "it ends in thirty seconds");
    world.settle(10);
    assert_eq!(world.source(), ("Window nightly", "True Window".to_owned()));
    world.now = at(89);
    assert!(world.plan().again.unwrap() <= Duration::from_secs(1));
    world.now = at(90);
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Running".to_owned()));
}

#[test]
fn of_windows_that_overlap_the_most_severe_wins_and_the_rest_follows() {
    let mut world = World::running();
    world.now = at(100);
    world.runtime.spec.maintenance_windows =
        vec![window("long", at(100), 300, HeldState::Paused), window("short", at(150), 100, HeldState::Stopped)];
    for (moment, source) in [(100, "Window long"), (150, "Window short"), (250, "Window long"), (400, "Spec")] {
        world.now = at(moment);
        assert_eq!(super::super::effective::decide(&world.observed(), false, world.now).source, source, "at {moment}");
    }
}

#[test]
fn a_window_that_cannot_be_used_stalls_with_its_field_and_the_rest_is_obeyed() {
    let mut world = World::running();
    let mut wrong = window("odd", at(0), 60, HeldState::Paused);
    (wrong.start, wrong.cron, wrong.time_zone) = (None, Some("0 0 * * *".to_owned()), Some("Mars/Olympus".to_owned()));
    world.now = at(200);
    world.runtime.spec.maintenance_windows = vec![wrong, window("good", at(200), 3600, HeldState::Paused)];
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!(
        (world.condition("Stalled").as_str(), world.condition("Ready").as_str()),
        ("True InvalidWindow", "False InvalidWindow")
    );
    assert_eq!((world.source().0, world.status().state), ("Window good", Some(RuntimeState::Paused)));
    let stalled = world.status().conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert!(stalled.message.starts_with("spec.maintenanceWindows[odd].timeZone: "), "{}", stalled.message);
}

#[test]
fn a_slip_in_the_window_that_holds_it_does_not_let_it_go() {
    let mut world = World::running();
    world.runtime.spec.maintenance_windows = vec![window("nightly", at(0), 36_000, HeldState::Paused)];
    world.settle(20);
    world.runtime.spec.maintenance_windows[0].time_zone = Some("Mars/Olympus".to_owned());
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!((world.commanded(), world.condition("Stalled").as_str()), (Desired::Paused, "True InvalidWindow"));
    world.runtime.spec.maintenance_windows.clear();
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Running".to_owned()));
}

#[test]
fn while_freezes_are_unknown_nothing_is_let_go_and_what_tightens_is_obeyed() {
    let mut world = World::new(DesiredState::Paused, 1);
    world.settle(20);
    world.fleet.unknown = lost(world.now);
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!((world.commanded(), world.status().state), (Desired::Paused, Some(RuntimeState::Paused)));
    assert_eq!(world.condition("Stalled"), "True FreezesUnknown");
    assert_eq!(world.condition("Ready"), "False FreezesUnknown");
    world.ask(DesiredState::Stopped);
    world.settle(20);
    assert_eq!(world.status().state, Some(RuntimeState::Stopped));
    world.ask(DesiredState::Paused);
    world.settle(20);
    assert_eq!(world.commanded(), Desired::Stopped);
    world.fleet.unknown = None;
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Paused".to_owned()));
}

#[test]
fn a_new_object_does_not_begin_to_run_while_freezes_are_unknown() {
    let mut world = World::new(DesiredState::Running, 1);
    world.fleet.unknown = lost(world.now);
    world.settle(20);
    assert_eq!((world.commanded(), world.condition("Stalled").as_str()), (Desired::Paused, "True FreezesUnknown"));
    world.fleet.unknown = None;
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Running".to_owned()));
}

#[test]
fn freezes_unknown_for_a_moment_are_no_news_and_for_longer_they_are() {
    let mut world = World::running();
    world.fleet.unknown = lost(world.now);
    let plan = world.plan();
    assert!(plan.status.is_none() && plan.again.unwrap() <= Duration::from_secs(10), "{}", show(&plan));
    world.wait(10);
    world.settle(20);
    assert_eq!((world.commanded(), world.condition("Stalled").as_str()), (Desired::Running, "True FreezesUnknown"));
}

#[test]
fn a_freeze_whose_selector_cannot_be_answered_yet_holds_things_as_they_are() {
    let mut world = World::new(DesiredState::Paused, 1);
    world.settle(20);
    let team =
        LabelSelector { match_labels: Some([("team".to_owned(), "red".to_owned())].into()), match_expressions: None };
    let spec = AgentFreezeSpec { namespace_selector: team, ..AgentFreezeSpec::default() };
    world.fleet.freezes = vec![freeze("red", HeldState::Paused, spec)];
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!((world.commanded(), world.condition("Stalled").as_str()), (Desired::Paused, "True FreezesUnknown"));
    world.fleet.namespace = Some([("team".to_owned(), "blue".to_owned())].into());
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Running".to_owned()));
    world.fleet.namespace = Some([("team".to_owned(), "red".to_owned())].into());
    world.settle(20);
    assert_eq!(world.source(), ("Freeze red", "True Frozen".to_owned()));
}

#[test]
fn a_freeze_ends_by_itself_and_the_plan_wakes_then() {
    let mut world = World::running();
    let ends = world.now + SignedDuration::from_secs(60);
    let spec = AgentFreezeSpec { expires_at: Some(ends.to_string()), ..AgentFreezeSpec::default() };
    world.fleet.freezes = vec![freeze("short", HeldState::Paused, spec)];
    world.settle(20);
    assert_eq!(world.commanded(), Desired::Paused);
    world.now = ends - SignedDuration::from_millis(1);
    assert!(world.plan().again.unwrap() <= Duration::from_millis(50));
    world.now = ends;
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Running".to_owned()));
}

#[test]
fn after_a_freeze_each_waits_for_its_turn_and_what_runs_is_not_held_again() {
    let spec = AgentFreezeSpec { resume_per_second: Some(2), ..AgentFreezeSpec::default() };
    let stop = freeze("stop", HeldState::Paused, spec);
    let mut world = World::running();
    world.fleet.freezes = vec![Arc::clone(&stop)];
    world.settle(20);
    let ended = world.now;
    world.fleet.freezes.clear();
    world.fleet.turns = vec![Turn { freeze: stop, ended, rank: 21 }];
    let writes = world.writes;
    world.step();
    assert_eq!((world.writes - writes, world.commanded()), (0, Desired::Paused));
    world.now = ended + SignedDuration::from_millis(10_499);
    world.step();
    assert_eq!(world.commanded(), Desired::Paused);
    world.now = ended + SignedDuration::from_millis(10_500);
    world.settle(20);
    assert_eq!(world.commanded(), Desired::Running);
    // Another operator, that has the turns in another order, or whose clock is behind.
    world.now = ended;
    world.step();
    assert_eq!(world.commanded(), Desired::Running);
}

#[test]
fn an_object_that_is_left_alone_obeys_freezes_and_nothing_else() {
    let mut world = World::running();
    world.disable(true);
    world.runtime.spec.replicas = 5;
    world.ask(DesiredState::Paused);
    world.settle(20);
    assert_eq!((world.commanded(), world.pods.len()), (Desired::Running, 2));
    assert_eq!((world.condition("Stalled").as_str(), world.status().reason.as_str()), ("True Disabled", "Disabled"));
    assert_eq!(world.status().observed_generation, 1, "the new spec is not answered");
    world.runtime.spec.desired_state = DesiredState::Running;
    world.fleet.freezes = vec![plain("stop", HeldState::Stopped)];
    world.settle(20);
    assert_eq!((world.status().state, world.pods.len()), (Some(RuntimeState::Stopped), 0));
    assert_eq!(world.status().source, "Freeze stop");
    world.fleet.freezes.clear();
    world.settle(20);
    assert_eq!((world.commanded(), world.status().state), (Desired::Running, Some(RuntimeState::Running)));
    world.disable(false);
    world.ask(DesiredState::Paused);
    world.settle(20);
    assert_eq!(world.source(), ("Spec", "True Paused".to_owned()));
}

#[test]
fn a_new_object_that_is_left_alone_gets_a_status_and_nothing_else() {
    let mut world = World::new(DesiredState::Running, 1);
    world.disable(true);
    world.settle(20);
    assert!(world.boot.is_none() && world.children.is_empty());
    assert_eq!((world.condition("Ready").as_str(), world.status().observed_generation), ("False Disabled", -1));
}

fn held_state() -> impl Strategy<Value = HeldState> {
    prop::sample::select(vec![HeldState::Paused, HeldState::Stopped])
}

/// What comes over the fleet of one.
#[derive(Clone, Debug)]
enum Blow {
    Change(Change),
    Freeze(u8, HeldState, bool, Option<i64>),
    Thaw(u8, usize),
    Window(i64, i32, HeldState),
    NoWindow,
    Unknown(bool),
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        4 => change().prop_map(Blow::Change),
        2 => (0u8..3, held_state(), any::<bool>(), prop::option::of(1i64..100))
            .prop_map(|(n, state, cancel, ends)| Blow::Freeze(n, state, cancel, ends)),
        2 => (0u8..3, 0usize..40).prop_map(|(n, rank)| Blow::Thaw(n, rank)),
        1 => (-50i64..50, 1i32..100, held_state()).prop_map(|(from, lasts, state)| Blow::Window(from, lasts, state)),
        1 => Just(Blow::NoWindow),
        1 => any::<bool>().prop_map(Blow::Unknown),
    ]
}

impl World {
    fn take(&mut self, blow: &Blow) {
        let now = self.now;
        match blow {
            Blow::Change(change) => self.suffer(change),
            Blow::Freeze(n, state, cancel, ends) => {
                let spec = AgentFreezeSpec {
                    mode: cancel.then_some(FreezeMode::Cancel),
                    expires_at: ends.map(|ends| (now + SignedDuration::from_secs(ends)).to_string()),
                    resume_per_second: Some(1),
                    ..AgentFreezeSpec::default()
                };
                let name = format!("freeze-{n}");
                self.fleet.freezes.retain(|freeze| freeze.metadata.name.as_ref() != Some(&name));
                self.fleet.freezes.push(freeze(&name, *state, spec));
            }
            Blow::Thaw(n, rank) => {
                let name = format!("freeze-{n}");
                let (gone, kept) =
                    self.fleet.freezes.drain(..).partition(|freeze| freeze.metadata.name.as_ref() == Some(&name));
                self.fleet.freezes = kept;
                let turn = |freeze: Arc<AgentFreeze>| Turn { freeze, ended: now, rank: *rank };
                self.fleet.turns.extend(Vec::into_iter(gone).map(turn));
            }
            Blow::Window(from, lasts, state) => {
                let start = now + SignedDuration::from_secs(*from);
                self.runtime.spec.maintenance_windows = vec![window("w", start, *lasts, *state)];
                *self.runtime.metadata.generation.as_mut().unwrap() += 1;
            }
            Blow::NoWindow => self.runtime.spec.maintenance_windows.clear(),
            Blow::Unknown(unknown) => {
                self.fleet.unknown = if *unknown { self.fleet.unknown.take().or(lost(now)) } else { None };
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_holds_it_the_promise_and_the_precedence_hold(
        blows in prop::collection::vec((blow(), 0usize..4), 1..25)
    ) {
        let mut world = World::new(DesiredState::Running, 2);
        let state = |world: &World| world.boot.as_ref().and_then(|b| b.file.as_ref()).map(|file| file.state);
        for (blow, steps) in &blows {
            world.take(blow);
            for _ in 0..*steps {
                let plan = world.plan();
                prop_assert_eq!(&plan, &world.plan(), "the same input gives the same plan");
                world.check(&plan)?;
                let (before, (wanted, _)) = (state(&world), world.expected());
                let asked: Vec<String> = world.contacts.keys().cloned().collect();
                world.step();
                // A lost file is made again once the pods have been heard.
                let Some(after) = state(&world) else { continue };
                // What pods hold by is heard before they are let go of.
                let unheard = world.pods.iter().any(|pod| !asked.contains(&pod.uid));
                // Pods that are replaced may be drained first.
                let drained = world.runtime.spec.lifecycle.drain_before_restart && after == Desired::Paused;
                prop_assert!(after >= wanted, "nothing is looser than the most severe of what holds it");
                if world.fleet.unknown.is_some() {
                    let floor = before.unwrap_or(Desired::Paused).max(wanted);
                    // A boot ConfigMap that is lost is made again from status.
                    prop_assert!(after == floor || before.is_none() || drained || unheard, "{:?} became {:?}", before, after);
                } else if world.fleet.turns.is_empty() {
                    prop_assert!(after == wanted || drained || unheard, "{:?} instead of {:?}", after, wanted);
                }
                world.now += SignedDuration::from_secs(1);
            }
        }
        // The faults end and every turn comes: it converges, and planning once more changes nothing.
        world.fleet.unknown = None;
        world.pods.iter_mut().for_each(|pod| pod.hung = false);
        world.finish_work();
        world.wait(300);
        for _ in 0..40 {
            world.check(&world.plan())?;
            world.step();
            world.finish_work();
            world.wait(2);
        }
        let before = world.writes;
        world.step();
        prop_assert_eq!(world.writes, before, "it has settled");
        let reason = match world.expected() {
            (_, Kind::Freeze) => "True Frozen",
            (_, Kind::Window) => "True Window",
            (Desired::Running, _) if world.runtime.spec.replicas == 0 => "True ScaledToZero",
            (Desired::Running, _) => "True Running",
            (Desired::Paused, _) => "True Paused",
            (Desired::Stopped, _) => "True Stopped",
        };
        prop_assert_eq!(world.condition("Ready"), reason);
    }
}

#[test]
fn what_was_held_back_is_let_run_only_from_the_store() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    let confirmed = |world: &World| plan(&world.observed(), &settings(), world.now).boot.unwrap().confirm;
    let ours = world.epoch_since;
    for another in [Some((1, Timestamp::UNIX_EPOCH)), Some((0, world.now)), None] {
        let mut paused = world.clone();
        paused.epoch_since = another;
        paused.ask(DesiredState::Paused);
        assert_eq!(confirmed(&paused), None, "a pause waits for nothing");
    }
    world.ask(DesiredState::Paused);
    world.settle(20);
    world.ask(DesiredState::Running);
    assert!(
        world.epoch_since != ours && confirmed(&world).is_some(),
        "another leader may have said since that it rests"
    );
    let older = Observed { outdated: true, ..world.observed() };
    let boot = plan(&older, &settings(), world.now).boot.unwrap();
    assert_eq!(boot.confirm, Some(Confirm { freezes: true }), "an older spec takes nothing back by itself");
    for another in [Some((2, Timestamp::UNIX_EPOCH)), ours, None] {
        let mut resumed = world.clone();
        resumed.epoch_since = another;
        assert_eq!(confirmed(&resumed), Some(Confirm { freezes: true }), "{another:?}");
        let alone = Settings { obey_freezes: false, ..settings() };
        let boot = plan(&resumed.observed(), &alone, world.now).boot.unwrap();
        assert_eq!(boot.confirm, Some(Confirm { freezes: false }));
        // The file is lost: what it held back is not known.
        resumed.boot = None;
        assert_eq!(confirmed(&resumed), Some(Confirm { freezes: true }), "{another:?}");
    }
}

#[test]
fn a_spec_from_before_takes_no_rollout_back_unless_the_store_agrees() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    let older = |world: &World| plan(&Observed { outdated: true, ..world.observed() }, &settings(), world.now);
    assert_eq!(older(&world).children.confirm, None, "no child is to be touched");
    let mut restarted = world.clone();
    restarted.runtime.spec.restart_nonce = Some("2".to_owned());
    let confirmed = older(&restarted);
    assert_eq!(
        (confirmed.children.apply.is_empty(), confirmed.children.confirm),
        (false, Some(Confirm { freezes: false }))
    );
    assert_eq!(restarted.plan().children.confirm, None, "the newest spec needs nobody's word");
    world.ask(DesiredState::Paused);
    let paused = older(&world);
    assert!(paused.boot.is_some_and(|boot| boot.confirm.is_none()), "and nothing is in the way of a pause");
}

#[test]
fn a_status_that_only_says_how_far_a_drain_has_come_is_written_once_a_second() {
    let mut world = World::new(DesiredState::Running, 3);
    world.settle(20);
    world.pods.iter_mut().for_each(|pod| pod.in_flight = 2);
    world.ask(DesiredState::Paused);
    world.step();
    world.now += PROGRESS;
    assert!(world.step().status.is_some(), "the drain has begun");
    let work_is = |world: &mut World, left: i64| {
        world.pods[0].in_flight = left;
        let pod = world.pods[0].clone();
        *world.contacts.get_mut(&pod.uid).unwrap().heard() = answer(&pod);
        world.now += PROGRESS / 4;
        world.step()
    };
    let kept = work_is(&mut world, 1);
    assert_eq!((kept.status, kept.again), (None, Some(PROGRESS * 3 / 4)));
    world.now += PROGRESS / 2;
    assert!(work_is(&mut world, 0).status.is_some(), "how far it has come, once more");
    world.finish_work();
    let plan = world.step();
    assert!(plan.is_reached(), "the end waits for nothing: {}", show(&plan));
}
