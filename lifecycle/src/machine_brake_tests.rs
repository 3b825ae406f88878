//! Brakes in the machine, rule by rule.

use super::*;
use crate::brake::Brake;

fn machine(phase: Phase) -> Machine {
    Machine {
        phase,
        holds: Holds::default(),
        brakes: Brakes::default(),
        epoch: 5,
        mode: DrainMode::Drain,
        boot_hold: false,
    }
}

fn brake(id: &str, epoch: i64, state: Desired) -> Brake {
    Brake { id: id.to_owned(), epoch, state, mode: DrainMode::Drain }
}

fn paused(id: &str) -> Brake {
    brake(id, 5, Desired::Paused)
}

fn names(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// A command of the operator as a pod obeys it: what it releases and what it asks for are one transition.
fn command(m: &mut Machine, epoch: i64, desired: Desired, releases: &[&str]) -> Decision {
    m.release_brakes(epoch, &names(releases), true);
    m.command(epoch, desired, desired.verb(), DrainMode::Drain, true)
}

/// A machine that ran at epoch 5 and is braked.
fn braked() -> Machine {
    let mut m = machine(Phase::Running);
    assert_eq!(m.brake(paused("a"), true), BrakeDecision::Reached);
    m
}

#[test]
fn brake_of_a_running_pod_closes_the_gate_and_drains() {
    for (state, draining, drained) in [
        (Desired::Paused, Phase::Pausing, Phase::Paused),
        (Desired::Stopped, Phase::Stopping(Next::Stopped), Phase::Stopped),
    ] {
        let mut m = machine(Phase::Running);
        assert_eq!(m.brake(brake("a", 5, state), false), BrakeDecision::Accepted);
        assert_eq!((m.phase, m.gate()), (draining, GateMode::Draining));
        m.event(Event::Idle, true);
        assert_eq!((m.phase, m.gate()), (drained, GateMode::Closed));
        assert_eq!(m.brake(brake("a", 5, state), true), BrakeDecision::Reached, "the same again");
    }
}

#[test]
fn brake_id_again_is_idempotent_and_a_ninth_is_full() {
    let mut m = machine(Phase::Running);
    for n in 0..8 {
        assert_eq!(m.brake(paused(&n.to_string()), true), BrakeDecision::Reached);
    }
    let before = m.clone();
    assert_eq!(m.brake(paused("7"), true), BrakeDecision::Reached);
    assert_eq!(m.brake(paused("8"), true), BrakeDecision::Full);
    assert_eq!(m, before);
}

#[test]
fn brake_below_the_accepted_epoch_is_stale_and_changes_nothing() {
    let mut m = machine(Phase::Running);
    let before = m.clone();
    assert_eq!(m.brake(brake("a", 4, Desired::Stopped), true), BrakeDecision::Stale);
    assert_eq!(m, before);
    for epoch in [5, 9] {
        assert_eq!(m.brake(brake("a", epoch, Desired::Paused), true), BrakeDecision::Reached);
    }
}

#[test]
fn brake_changes_no_epoch_and_no_hold_and_confirms_no_boot() {
    let mut m = Machine::boot(5, Holds::default(), Brakes::default(), true);
    m.event(Event::Ready, true);
    m.brake(brake("a", 9, Desired::Paused), true);
    assert_eq!((m.epoch, m.holds, m.boot_hold), (5, Holds::default(), true));
}

#[test]
fn brake_of_a_held_pod_never_makes_it_milder() {
    let mut m = machine(Phase::Running);
    command(&mut m, 6, Desired::Stopped, &[]);
    assert_eq!(m.brake(brake("a", 6, Desired::Paused), true), BrakeDecision::Reached);
    assert_eq!(m.phase, Phase::Stopped);
    let mut m = machine(Phase::Running);
    m.command(6, Desired::Stopped, Verb::Stop, DrainMode::Checkpoint, false);
    m.brake(brake("a", 6, Desired::Paused), false);
    assert_eq!((m.phase, m.gate()), (Phase::Stopping(Next::Stopped), GateMode::Closed));
}

#[test]
fn brake_is_released_by_nothing_but_its_name() {
    let mut m = braked();
    m.release(7, 7);
    assert_eq!(command(&mut m, 7, Desired::Running, &[]), Decision::Reached);
    assert_eq!((m.phase, m.brakes.ids(), m.epoch), (Phase::Paused, names(&["a"]), 7), "an epoch, a resumeNonce");
    for verb in [Verb::Resume, Verb::Start] {
        assert_eq!(m.ask(verb, DrainMode::Drain, true), Decision::Held, "a person");
    }
    m.boot_hold = true;
    m.event(Event::BootHoldEnded, true);
    assert_eq!((m.phase, m.gate()), (Phase::Paused, GateMode::Closed), "the end of the boot hold");
}

#[test]
fn brake_keeps_a_stopped_pod_stopped_through_a_pause() {
    let mut m = machine(Phase::Running);
    m.brake(brake("a", 5, Desired::Stopped), true);
    command(&mut m, 6, Desired::Paused, &[]);
    assert_eq!(m.phase, Phase::Stopped);
    command(&mut m, 7, Desired::Paused, &["a"]);
    assert_eq!(m.phase, Phase::Starting(Target::Paused));
}

#[test]
fn local_hold_goes_only_on_a_change_from_paused_to_running() {
    let mut m = machine(Phase::Running);
    m.ask(Verb::Pause, DrainMode::Drain, true);
    m.brake(paused("a"), true);
    command(&mut m, 6, Desired::Running, &["a"]);
    assert_eq!((m.phase, m.holds.local), (Phase::Paused, Desired::Paused), "the freeze ended, and not the person's");
    command(&mut m, 7, Desired::Paused, &[]);
    command(&mut m, 8, Desired::Running, &[]);
    assert_eq!((m.phase, m.holds.local), (Phase::Running, Desired::Running));
}

#[test]
fn release_needs_an_epoch_above_the_brakes_and_not_below_the_pods() {
    for (epoch, opens) in [(4, false), (5, false), (6, true)] {
        let mut m = braked();
        command(&mut m, epoch, Desired::Running, &["unknown", "a"]);
        assert_eq!(m.gate() == GateMode::Open, opens, "epoch {epoch}");
    }
    let mut m = braked();
    command(&mut m, 8, Desired::Running, &[]);
    assert_eq!(command(&mut m, 7, Desired::Running, &["a"]), Decision::Stale);
    assert_eq!(m.brakes.ids(), names(&["a"]), "below the pod's");
}

#[test]
fn release_with_the_pods_own_epoch_leads_to_what_is_held_then() {
    for (operator, state, then) in [
        (Desired::Running, Desired::Paused, Phase::Running),
        (Desired::Running, Desired::Stopped, Phase::Starting(Target::Running)),
        (Desired::Paused, Desired::Stopped, Phase::Starting(Target::Paused)),
        (Desired::Stopped, Desired::Paused, Phase::Stopped),
    ] {
        let mut m = machine(Phase::Running);
        m.brake(brake("a", 5, state), true);
        command(&mut m, 6, operator, &[]);
        command(&mut m, 6, operator, &["a"]);
        assert_eq!((m.phase, m.brakes.is_empty()), (then, true), "{operator} {state}");
    }
}

#[test]
fn release_of_one_brake_leaves_what_the_other_holds() {
    let mut m = braked();
    m.brake(brake("b", 5, Desired::Stopped), true);
    command(&mut m, 6, Desired::Running, &["a"]);
    assert_eq!((m.phase, m.brakes.ids()), (Phase::Stopped, names(&["b"])));
    command(&mut m, 7, Desired::Running, &["b"]);
    assert_eq!(m.phase, Phase::Starting(Target::Running));
}

#[test]
fn release_in_the_boot_hold_opens_only_at_its_end() {
    for epoch in [5, 6] {
        let record: Brakes = [brake("a", 4, Desired::Stopped)].into_iter().collect();
        let mut m = Machine::boot(5, Holds::default(), record, true);
        assert_eq!(m.phase, Phase::Stopped);
        m.release_brakes(epoch, &names(&["a"]), true);
        m.adopt(epoch, Desired::Running, DrainMode::Drain, true);
        m.event(Event::Ready, true);
        assert_eq!((m.phase, m.gate()), (Phase::Paused, GateMode::Closed), "epoch {epoch}");
        m.event(Event::BootHoldEnded, true);
        assert_eq!(m.gate(), GateMode::Open);
    }
}

#[test]
fn brake_of_a_pod_on_its_way_out_is_kept_for_the_next_process() {
    let mut m = machine(Phase::Running);
    m.event(Event::Terminate, false);
    assert_eq!(m.brake(Brake { mode: DrainMode::Checkpoint, ..paused("a") }, false), BrakeDecision::Accepted);
    assert_eq!((m.phase, m.gate(), m.brakes.ids()), (Phase::Stopping(Next::Exit), GateMode::Closed, names(&["a"])));
}

#[test]
fn brake_in_mode_cancel_cancels_a_drain_under_way() {
    let mut m = machine(Phase::Running);
    m.command(6, Desired::Paused, Verb::Pause, DrainMode::Drain, false);
    assert!(!m.cancels());
    m.brake(Brake { epoch: 6, mode: DrainMode::Cancel, ..paused("a") }, false);
    assert!(m.cancels() && m.gate() == GateMode::Closed);
}
