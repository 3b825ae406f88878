//! The table, cell by cell, and the law that no sequence opens the gate against a hold.

use proptest::prelude::*;

use super::*;

const PHASES: [Phase; 11] = [
    Phase::Stopped,
    Phase::Starting(Target::Running),
    Phase::Starting(Target::Paused),
    Phase::Running,
    Phase::Pausing,
    Phase::Paused,
    Phase::Stopping(Next::Stopped),
    Phase::Stopping(Next::Running),
    Phase::Stopping(Next::Paused),
    Phase::Stopping(Next::Exit),
    Phase::Exited,
];

const MODES: [DrainMode; 3] = [DrainMode::Drain, DrainMode::Checkpoint, DrainMode::Cancel];

fn machine(phase: Phase) -> Machine {
    Machine {
        phase,
        holds: Holds::default(),
        brakes: Brakes::default(),
        epoch: 1,
        mode: DrainMode::Drain,
        boot_hold: false,
    }
}

fn desired(verb: Verb) -> Desired {
    match verb {
        Verb::Start | Verb::Resume | Verb::Restart => Desired::Running,
        Verb::Pause => Desired::Paused,
        Verb::Stop => Desired::Stopped,
    }
}

/// One line a cell: phase, verb, who, busy or idle, the answer and the phase after it.
#[test]
fn every_cell_of_the_table() {
    let mut table = String::new();
    for phase in PHASES {
        for verb in Verb::ALL {
            for idle in [false, true] {
                let mut s = machine(phase);
                let answer = s.command(2, desired(verb), verb, DrainMode::Drain, idle);
                let busy = if idle { "idle" } else { "busy" };
                table += &format!("{phase:?} {verb} s {busy}: {answer:?} {:?}\n", s.phase);
                let mut p = machine(phase);
                let answer = p.ask(verb, DrainMode::Drain, idle);
                table += &format!("{phase:?} {verb} p {busy}: {answer:?} {:?}\n", p.phase);
            }
        }
        let mut t = machine(phase);
        t.event(Event::Terminate, false);
        table += &format!("{phase:?} TERM: {:?}\n", t.phase);
    }
    insta::assert_snapshot!(table);
}

#[test]
fn stale_epoch_changes_nothing() {
    for phase in PHASES {
        let mut m = machine(phase);
        let before = m.clone();
        assert_eq!(m.command(0, Desired::Running, Verb::Start, DrainMode::Drain, true), Decision::Stale);
        assert_eq!(m, before);
    }
}

#[test]
fn a_person_cannot_resume_against_the_operator() {
    let mut m = machine(Phase::Running);
    m.command(2, Desired::Paused, Verb::Pause, DrainMode::Drain, true);
    assert_eq!(m.ask(Verb::Resume, DrainMode::Drain, true), Decision::Held);
    assert_eq!(m.phase, Phase::Paused);
}

#[test]
fn boot_hold_ends_with_the_confirmation_of_the_same_epoch() {
    let mut m = Machine::boot(3, Holds::default(), Brakes::default(), true);
    m.event(Event::Ready, true);
    assert_eq!((m.phase, m.gate()), (Phase::Paused, GateMode::Closed));
    m.command(3, Desired::Running, Verb::Start, DrainMode::Drain, true);
    assert_eq!((m.phase, m.gate()), (Phase::Running, GateMode::Open));
}

#[test]
fn a_file_found_during_the_boot_hold_tightens_at_once_and_loosens_at_its_end() {
    let mut m = Machine::boot(3, Holds { operator: Desired::Paused, ..Holds::default() }, Brakes::default(), true);
    m.event(Event::Ready, true);
    m.adopt(4, Desired::Running, DrainMode::Drain, true);
    assert_eq!((m.epoch, m.gate()), (4, GateMode::Closed));
    m.event(Event::BootHoldEnded, true);
    assert_eq!(m.gate(), GateMode::Open);
}

/// One line a phase and mode: what a pause and a stop of the operator make of the gate while work is in flight.
#[test]
fn every_mode_of_a_pause_and_of_a_stop() {
    let mut table = String::new();
    for phase in PHASES {
        for verb in [Verb::Pause, Verb::Stop] {
            for mode in MODES {
                let mut m = machine(phase);
                let answer = m.command(2, desired(verb), verb, mode, false);
                let cancels = if m.cancels() { " cancels" } else { "" };
                table += &format!("{phase:?} {verb} {mode:?}: {answer:?} {:?} {:?}{cancels}\n", m.phase, m.gate());
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_mode_of_a_pause_is_not_the_mode_of_a_later_restart() {
    let mut m = machine(Phase::Running);
    m.ask(Verb::Pause, DrainMode::Cancel, true);
    m.ask(Verb::Resume, DrainMode::Drain, true);
    m.ask(Verb::Restart, DrainMode::Drain, false);
    assert_eq!((m.phase, m.gate(), m.cancels()), (Phase::Stopping(Next::Running), GateMode::Draining, false));
}

#[test]
fn checkpoint_never_becomes_drain_again() {
    let mut m = machine(Phase::Running);
    m.ask(Verb::Pause, DrainMode::Checkpoint, false);
    m.ask(Verb::Pause, DrainMode::Drain, false);
    assert_eq!(m.gate(), GateMode::Closed);
}

#[derive(Clone, Debug)]
enum Input {
    Command(i64, Verb, DrainMode, bool),
    Ask(Verb, DrainMode, bool),
    Adopt(i64, Verb, DrainMode, bool),
    Event(Event, bool),
}

fn verb() -> impl Strategy<Value = Verb> {
    prop::sample::select(Verb::ALL.to_vec())
}

fn mode() -> impl Strategy<Value = DrainMode> {
    prop::sample::select(MODES.to_vec())
}

fn drains(phase: Phase) -> bool {
    matches!(phase, Phase::Pausing | Phase::Stopping(_))
}

fn input() -> impl Strategy<Value = Input> {
    let events = vec![
        Event::Ready,
        Event::Invalid,
        Event::Idle,
        Event::Breaker,
        Event::Terminate,
        Event::CheckpointDeadline,
        Event::BootHoldEnded,
    ];
    prop_oneof![
        (0i64..12, verb(), mode(), any::<bool>()).prop_map(|(e, v, m, b)| Input::Command(e, v, m, b)),
        (verb(), mode(), any::<bool>()).prop_map(|(v, m, b)| Input::Ask(v, m, b)),
        (0i64..12, verb(), mode(), any::<bool>()).prop_map(|(e, v, m, b)| Input::Adopt(e, v, m, b)),
        (prop::sample::select(events), any::<bool>()).prop_map(|(e, b)| Input::Event(e, b)),
    ]
}

#[test]
fn a_release_opens_what_the_breaker_closed_once() {
    let mut m = machine(Phase::Running);
    m.event(Event::Breaker, true);
    m.command(2, Desired::Running, Verb::Start, DrainMode::Drain, true);
    assert_eq!(m.state(), State::Paused, "a command to run alone does not");
    for epoch in [2, 3] {
        m.release(epoch, 3);
        m.command(epoch, Desired::Running, Verb::Start, DrainMode::Drain, true);
        assert_eq!(m.gate() == GateMode::Open, epoch == 3, "only with a higher epoch");
    }
    m.event(Event::Breaker, true);
    for epoch in [3, 4] {
        m.release(epoch, 3);
        m.command(epoch, Desired::Running, Verb::Start, DrainMode::Drain, true);
        assert_eq!(m.state(), State::Paused, "the breaker opened after the release");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Once the operator has paused at an epoch, only a higher epoch opens the gate; and in one drain
    /// the mode only gets tighter.
    #[test]
    fn no_path_from_a_paused_hold_to_a_permit(inputs in prop::collection::vec(input(), 0..40), hold in any::<bool>()) {
        let mut m = Machine::boot(0, Holds::default(), Brakes::default(), hold);
        for input in inputs {
            let before = m.clone();
            match input {
                Input::Command(epoch, verb, mode, idle) => {
                    m.release(epoch, epoch / 2);
                    m.command(epoch, desired(verb), verb, mode, idle);
                    let tightens = matches!(verb, Verb::Pause | Verb::Stop) && epoch > before.epoch;
                    if tightens && drains(m.phase) {
                        prop_assert!(m.mode >= mode, "a drain is at least as tight as what was asked for");
                    }
                    if before.holds.operator != Desired::Running && epoch <= before.epoch {
                        prop_assert_ne!(m.gate(), GateMode::Open);
                    }
                }
                Input::Ask(verb, mode, idle) => {
                    m.ask(verb, mode, idle);
                    prop_assert_eq!(m.holds.operator, before.holds.operator);
                }
                Input::Adopt(epoch, verb, mode, idle) => {
                    m.adopt(epoch, desired(verb), mode, idle);
                    prop_assert_eq!(m.boot_hold, before.boot_hold);
                    prop_assert!(m.gate() != GateMode::Open || before.gate() == GateMode::Open);
                }
                Input::Event(event, idle) => m.event(event, idle),
            }
            prop_assert!(m.epoch >= before.epoch);
            if drains(before.phase) && drains(m.phase) {
                prop_assert!(m.mode >= before.mode, "{:?} became {:?}", before, m);
            }
            if m.mode != DrainMode::Drain {
                prop_assert_ne!(m.gate(), GateMode::Draining);
            }
            if m.holds.target() != Desired::Running || m.boot_hold {
                prop_assert_ne!(m.gate(), GateMode::Open);
            }
            if m.phase == Phase::Running {
                prop_assert_eq!(m.gate(), GateMode::Open);
            }
        }
    }
}
