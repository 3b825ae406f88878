//! A pod of the model: the product's state machine, its record on disk, and work.

use lifecycle::fence::{self, Record};
use lifecycle::hold::Holds;
use lifecycle::machine::{Event, GateMode, Machine};
use lifecycle::wire::{CounterScope, Health, Status};
use lifecycle::{BootFile, Brakes, Desired, DrainMode, Verb};

use crate::world::{Broken, Sent};

pub(crate) const RUNTIME: &str = "runtime";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pod {
    pub(crate) uid: u8,
    /// Raised by each start of the container.
    pub(crate) container: u8,
    pub(crate) machine: Machine,
    record: Option<(i64, Desired, Holds)>,
    busy: bool,
}

impl Pod {
    /// A pod that has just come up, before there was any boot file.
    pub(crate) fn new(uid: u8) -> Self {
        let mut pod = Self {
            uid,
            container: 0,
            machine: Machine::boot(0, Holds::default(), Brakes::default(), true),
            record: None,
            busy: false,
        };
        pod.start(None);
        pod
    }

    /// The container starts with what is on disk and what is mounted.
    pub(crate) fn start(&mut self, file: Option<&BootFile>) {
        let record = self.record.map(|(epoch, state, holds)| Record {
            runtime_uid: RUNTIME.to_owned(),
            epoch,
            state,
            holds,
            ..Record::default()
        });
        let boot = fence::boot(true, RUNTIME, record.as_ref(), file);
        self.machine = Machine::boot(boot.epoch, boot.holds, boot.brakes, boot.await_confirmation);
        self.machine.event(Event::Ready, true);
        self.busy = false;
    }

    pub(crate) fn crash(&mut self, mounted: Option<&str>, broken: Broken) {
        self.container += 1;
        let file: Option<BootFile> = mounted.map(|text| serde_json::from_str(text).unwrap());
        if broken == Broken::Record {
            self.record = None;
        }
        self.start(file.as_ref());
        if broken == Broken::Record {
            self.machine.event(Event::BootHoldEnded, true);
        }
    }

    /// The boot hold has read the file all along; by its end the mount is no longer old.
    pub(crate) fn hold_ends(&mut self, file: Option<&BootFile>) {
        if !self.machine.boot_hold {
            return;
        }
        if let Some(file) = file {
            self.machine.adopt(file.epoch, file.state, file.mode, !self.busy);
        }
        self.machine.event(Event::BootHoldEnded, !self.busy);
        self.write();
    }

    pub(crate) fn obey(&mut self, sent: &Sent, broken: Broken) {
        if broken == Broken::Fence && sent.epoch < self.machine.epoch {
            self.machine.epoch = sent.epoch - 1;
        }
        self.machine.command(sent.epoch, desired(sent.verb), sent.verb, DrainMode::Drain, !self.busy);
        self.machine.event(Event::Ready, !self.busy);
        self.write();
    }

    /// What is answered is on disk before.
    fn write(&mut self) {
        self.record = Some((self.machine.epoch, self.machine.holds.operator, self.machine.holds));
    }

    pub(crate) fn begin(&mut self) {
        self.busy = self.busy || self.machine.gate() == GateMode::Open;
    }

    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.busy, false) {
            self.machine.event(Event::Idle, true);
        }
    }

    /// Nothing runs, and nothing could begin.
    pub(crate) fn is_still(&self) -> bool {
        !self.busy && self.machine.gate() != GateMode::Open
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            state: self.machine.state(),
            uptime_seconds: 1,
            active_streams: 0,
            total_executions: 0,
            failed_executions: 0,
            entry_points: Vec::new(),
            health: Health::default(),
            in_flight: Some(i64::from(self.busy)),
            waiting_for_input: 0,
            queued: 0,
            epoch: self.machine.epoch,
            holds: self.machine.hold_names(),
            brakes: None,
            features: Vec::new(),
            drain_deadline: None,
            held_by: Vec::new(),
            boot_id: self.container.to_string(),
            version: format!("{}.0", self.container),
            counter_scope: CounterScope::Pod,
            pod_uid: None,
            awaiting_confirmation: self.machine.boot_hold,
            keys: Vec::new(),
            message: None,
        }
    }
}

fn desired(verb: Verb) -> Desired {
    match verb {
        Verb::Start | Verb::Resume | Verb::Restart => Desired::Running,
        Verb::Pause => Desired::Paused,
        Verb::Stop => Desired::Stopped,
    }
}
