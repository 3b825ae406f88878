//! The pod: the product's state machine, and its record on disk.

use lifecycle::machine::{BrakeDecision, Event, GateMode};
use lifecycle::{Brake, Desired, DrainMode, Machine, Record, fence};

use crate::store::{File, Id};
use crate::world::Broken;

pub(crate) const RUNTIME: &str = "runtime";

/// Nothing is ever in flight in it: the promise is about the gate.
const IDLE: bool = true;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pod {
    pub(crate) machine: Machine,
}

impl Pod {
    /// A pod that runs by the first boot file.
    pub(crate) fn new(file: &File) -> Self {
        let mut pod = Self::boot(None, Some(file));
        pod.obey(file, Broken::Nothing);
        pod
    }

    fn boot(record: Option<&Record>, file: Option<&File>) -> Self {
        let boot = fence::boot(true, RUNTIME, record, file.map(File::boot).as_ref());
        let mut machine = Machine::boot(boot.epoch, boot.holds, boot.brakes, boot.await_confirmation);
        machine.event(Event::Ready, IDLE);
        Self { machine }
    }

    /// A container dies and comes up again. What was answered is on disk before, so that the record is what the
    /// machine says; it goes through the bytes that a disk holds.
    pub(crate) fn crash(&mut self, mounted: Option<&File>) {
        let record = Record {
            runtime_uid: RUNTIME.to_owned(),
            epoch: self.machine.epoch,
            state: self.machine.holds.operator,
            holds: self.machine.holds,
            keys: None,
            brakes: self.machine.brakes.clone(),
        };
        let bytes = serde_json::to_vec(&record).unwrap();
        *self = Self::boot(Some(&serde_json::from_slice(&bytes).unwrap()), mounted);
    }

    /// While it waits for a confirmation it looks at the mount, and at last believes it.
    pub(crate) fn look(&mut self, mounted: &File, ends: bool) {
        if !self.machine.boot_hold {
            return;
        }
        self.machine.release_brakes(mounted.epoch, &mounted.names(), IDLE);
        self.machine.adopt(mounted.epoch, mounted.state, DrainMode::Drain, IDLE);
        if ends {
            self.machine.event(Event::BootHoldEnded, IDLE);
        }
        self.machine.event(Event::Ready, IDLE);
    }

    /// True if the brake is in force and on disk.
    pub(crate) fn brake(&mut self, id: Id, epoch: i64) -> bool {
        let brake = Brake { id: id.word(), epoch, state: Desired::Paused, mode: DrainMode::Drain };
        let decision = self.machine.brake(brake, IDLE);
        self.machine.event(Event::Ready, IDLE);
        matches!(decision, BrakeDecision::Reached | BrakeDecision::Accepted)
    }

    /// The command of a boot file.
    pub(crate) fn obey(&mut self, file: &File, broken: Broken) {
        let names = if broken == Broken::Names && file.epoch > self.machine.epoch {
            self.machine.brakes.ids()
        } else {
            file.names()
        };
        self.machine.release_brakes(file.epoch, &names, IDLE);
        self.machine.command(file.epoch, file.state, file.state.verb(), DrainMode::Drain, IDLE);
        self.machine.event(Event::Ready, IDLE);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.machine.gate() == GateMode::Open
    }

    /// The brakes that it lists, each with the epoch that its release has to exceed.
    pub(crate) fn brakes(&self) -> Vec<(Id, i64)> {
        self.machine.brakes.iter().map(|brake| (Id::of(&brake.id), brake.epoch)).collect()
    }
}
