//! Brakes in the machine over any sequence of what can happen to a pod.

use proptest::prelude::*;

use super::*;
use crate::brake::Brake;
use crate::fence::{self, BootFile, Record};

const RUNTIME: &str = "u";

/// A pod with a disk and a mount, to which anything can happen.
#[derive(Clone, Debug)]
struct Pod {
    machine: Machine,
    disk: String,
    mount: Option<BootFile>,
}

#[derive(Clone, Debug)]
enum Input {
    Brake(usize, i64, bool, DrainMode),
    Command(i64, Verb, DrainMode, i64, Vec<usize>),
    Ask(Verb, DrainMode),
    Mount(i64, Desired, Vec<usize>),
    Look,
    Crash,
    /// An image from before brakes runs for a while, and then this one again.
    Downgrade,
    Event(Event),
}

fn id(number: usize) -> String {
    format!("uid.{number}.x")
}

fn wanted(verb: Verb, held: Desired) -> Desired {
    match verb {
        Verb::Start | Verb::Resume => Desired::Running,
        Verb::Pause => Desired::Paused,
        Verb::Stop => Desired::Stopped,
        Verb::Restart => held,
    }
}

impl Pod {
    fn new() -> Self {
        let machine = Machine::boot(0, Holds::default(), Brakes::default(), true);
        let mut pod = Self { machine, disk: String::new(), mount: None };
        pod.write();
        pod
    }

    fn write(&mut self) {
        let m = &self.machine;
        let record = Record {
            runtime_uid: RUNTIME.to_owned(),
            epoch: m.epoch,
            state: m.holds.operator,
            holds: m.holds,
            keys: None,
            brakes: m.brakes.clone(),
        };
        self.disk = serde_json::to_string(&record).unwrap();
    }

    fn record(&self) -> Record {
        serde_json::from_str(&self.disk).unwrap()
    }

    fn boot(&mut self) {
        let boot = fence::boot(true, RUNTIME, Some(&self.record()), self.mount.as_ref());
        self.machine = Machine::boot(boot.epoch, boot.holds, boot.brakes, boot.await_confirmation);
    }

    fn take(&mut self, input: &Input, idle: bool) {
        let m = &mut self.machine;
        match input {
            Input::Brake(number, epoch, stops, mode) => {
                let state = if *stops { Desired::Stopped } else { Desired::Paused };
                m.brake(Brake { id: id(*number), epoch: *epoch, state, mode: *mode }, idle);
            }
            Input::Command(epoch, verb, mode, release, releases) => {
                let releases: Vec<String> = releases.iter().map(|number| id(*number)).collect();
                m.release_brakes(*epoch, &releases, idle);
                m.release(*epoch, *release);
                m.command(*epoch, wanted(*verb, m.holds.operator), *verb, *mode, idle);
            }
            Input::Ask(verb, mode) => {
                m.ask(*verb, *mode, idle);
            }
            Input::Mount(epoch, state, releases) => {
                let releases = releases.iter().map(|number| id(*number)).collect();
                let (runtime_uid, epoch, state) = (RUNTIME.to_owned(), *epoch, *state);
                self.mount = Some(BootFile { runtime_uid, epoch, state, releases, ..BootFile::default() });
            }
            Input::Look => {
                if let Some(file) = self.mount.as_ref().filter(|_| m.boot_hold) {
                    m.release_brakes(file.epoch, &file.releases, idle);
                    m.release(file.epoch, file.release_epoch);
                    m.adopt(file.epoch, file.state, file.mode, idle);
                }
            }
            Input::Crash => self.boot(),
            Input::Downgrade => {
                // It reads, skips what it does not know, and writes what it read.
                self.disk = serde_json::to_string(&self.record().without_brakes()).unwrap();
                self.boot();
            }
            Input::Event(event) => m.event(*event, idle),
        }
        self.write();
    }

    /// The ids that an input may let go of.
    fn named(&self, input: &Input) -> Vec<String> {
        let of = |numbers: &[usize]| numbers.iter().map(|number| id(*number)).collect();
        match input {
            Input::Command(_, _, _, _, releases) => of(releases),
            Input::Look | Input::Crash | Input::Downgrade => {
                self.mount.as_ref().map(|file| file.releases.clone()).unwrap_or_default()
            }
            Input::Brake(..) | Input::Ask(..) | Input::Mount(..) | Input::Event(_) => Vec::new(),
        }
    }
}

fn input() -> impl Strategy<Value = Input> {
    let verb = || prop::sample::select(Verb::ALL.to_vec());
    let mode = || prop::sample::select(vec![DrainMode::Drain, DrainMode::Checkpoint, DrainMode::Cancel]);
    let desired = prop::sample::select(vec![Desired::Running, Desired::Paused, Desired::Stopped]);
    let ids = || prop::collection::vec(0usize..4, 0..3);
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
        3 => (0usize..12, 0i64..14, any::<bool>(), mode()).prop_map(|(n, e, s, m)| Input::Brake(n % 4, e, s, m)),
        1 => (0usize..12, 0i64..14, any::<bool>(), mode()).prop_map(|(n, e, s, m)| Input::Brake(n, e, s, m)),
        4 => (0i64..14, verb(), mode(), 0i64..14, ids()).prop_map(|(e, v, m, r, i)| Input::Command(e, v, m, r, i)),
        2 => (verb(), mode()).prop_map(|(v, m)| Input::Ask(v, m)),
        2 => (0i64..14, desired, ids()).prop_map(|(e, s, i)| Input::Mount(e, s, i)),
        2 => Just(Input::Look),
        1 => Just(Input::Crash),
        1 => Just(Input::Downgrade),
        4 => prop::sample::select(events).prop_map(Input::Event),
    ]
}

fn severity(phase: Phase) -> Desired {
    match phase {
        Phase::Running | Phase::Starting(Target::Running) | Phase::Stopping(Next::Running) => Desired::Running,
        Phase::Starting(Target::Paused) | Phase::Pausing | Phase::Paused | Phase::Stopping(Next::Paused) => {
            Desired::Paused
        }
        Phase::Stopped | Phase::Stopping(Next::Stopped | Next::Exit) | Phase::Exited => Desired::Stopped,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// While a brake is held and nothing has named it, the gate is closed to what is new and no drain is milder than
    /// the brake; it is on disk, and read there it is the same.
    #[test]
    fn no_path_from_a_brake_to_a_permit_without_its_name(
        inputs in prop::collection::vec((input(), any::<bool>()), 0..50),
    ) {
        let mut pod = Pod::new();
        for (input, idle) in inputs {
            let before = pod.clone();
            let named = pod.named(&input);
            pod.take(&input, idle);
            let m = &pod.machine;
            for brake in before.machine.brakes.iter() {
                let kept = m.brakes.iter().find(|kept| kept.id == brake.id);
                if matches!(input, Input::Downgrade) {
                    // It knows no names: what stays is the operator's hold, until a newer epoch.
                    let same = m.epoch == before.machine.epoch.max(before.machine.brakes.epoch());
                    prop_assert!(!same || m.holds.operator >= brake.state, "{:?} {:?}", before, pod);
                    continue;
                }
                prop_assert!(kept.is_some() || named.contains(&brake.id), "{input:?} let go of {brake:?}");
                if let Some(kept) = kept {
                    prop_assert!(kept.state >= brake.state && kept.mode >= brake.mode && kept.epoch >= brake.epoch);
                }
            }
            for brake in m.brakes.iter() {
                prop_assert_ne!(m.gate(), GateMode::Open);
                prop_assert!(m.target() >= brake.state && m.drain_mode() >= brake.mode);
                if brake.mode != DrainMode::Drain {
                    prop_assert_ne!(m.gate(), GateMode::Draining);
                }
                // What is stopped may be told to load again by a person's restart, and stays closed then.
                prop_assert!(severity(m.phase) > Desired::Running || m.gate() == GateMode::Closed, "{m:?}");
                if brake.state == Desired::Stopped {
                    prop_assert_eq!(severity(m.phase), Desired::Stopped, "{:?} {:?} {:?}", before, input, pod);
                }
            }
            if let Input::Brake(..) = input {
                prop_assert!(severity(m.phase) >= severity(before.machine.phase), "milder: {:?} {m:?}", before.machine);
                prop_assert_eq!((m.epoch, m.holds, m.boot_hold), {
                    let b = &before.machine;
                    (b.epoch, b.holds, b.boot_hold)
                });
            }
            if m.phase == Phase::Running {
                prop_assert_eq!(m.gate(), GateMode::Open);
            }
            prop_assert_eq!(&pod.record().brakes, &m.brakes);
        }
    }
}
