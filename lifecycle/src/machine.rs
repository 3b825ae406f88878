//! The state machine: the whole state-by-verb table and the events, as one pure function each.
//!
//! `Machine` is the runtime's state; a controller feeds it verbs and events and obeys the gate it names.

mod brakes;
mod words;

use crate::brake::Brakes;
use crate::fence::{Freshness, judge};
use crate::hold::Holds;
use crate::state::{Desired, DrainMode, State, Verb};

pub use words::{BrakeDecision, Decision, Event, GateMode, Giver, Next, Phase, Target};

/// A runtime's state. Two rules hold in every value: the gate is open only in `Running` with no
/// hold or brake in force, and `Paused` is entered only when no permit is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// The state with what it leads to.
    pub phase: Phase,
    /// Who holds it.
    pub holds: Holds,
    /// The brakes in force, which only their names release.
    pub brakes: Brakes,
    /// The highest epoch accepted.
    pub epoch: i64,
    /// How the drain under way treats executions.
    pub mode: DrainMode,
    /// Whether the gate stays closed until the operator confirms.
    pub boot_hold: bool,
}

impl Machine {
    /// A starting process with what the fence decided at boot.
    #[must_use]
    pub fn boot(epoch: i64, holds: Holds, brakes: Brakes, boot_hold: bool) -> Self {
        let phase = match (holds.target().max(brakes.target()), boot_hold) {
            (Desired::Running, false) => Phase::Starting(Target::Running),
            (Desired::Stopped, _) => Phase::Stopped,
            (Desired::Running, true) | (Desired::Paused, _) => Phase::Starting(Target::Paused),
        };
        Self { phase, holds, brakes, epoch, mode: DrainMode::Drain, boot_hold }
    }

    /// The word on the wire.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Stopped => State::Stopped,
            Phase::Starting(_) => State::Starting,
            Phase::Running => State::Running,
            Phase::Pausing => State::Pausing,
            Phase::Paused => State::Paused,
            Phase::Stopping(_) | Phase::Exited => State::Stopping,
        }
    }

    /// The gate's mode in this state. A shutdown keeps its gate open for its first seconds on its
    /// own schedule, and so never asks here.
    #[must_use]
    pub fn gate(&self) -> GateMode {
        match self.phase {
            Phase::Running if self.target() == Desired::Running && !self.boot_hold => GateMode::Open,
            Phase::Pausing | Phase::Stopping(_) if self.drain_mode() == DrainMode::Drain => GateMode::Draining,
            Phase::Running
            | Phase::Pausing
            | Phase::Stopping(_)
            | Phase::Stopped
            | Phase::Starting(_)
            | Phase::Paused
            | Phase::Exited => GateMode::Closed,
        }
    }

    /// Whether what is in flight is to be cancelled now rather than waited for.
    #[must_use]
    pub fn cancels(&self) -> bool {
        match self.phase {
            Phase::Pausing | Phase::Stopping(_) => self.drain_mode() == DrainMode::Cancel,
            Phase::Stopped | Phase::Starting(_) | Phase::Running | Phase::Paused | Phase::Exited => false,
        }
    }

    /// Lets go of the pod's own holds, as a command or boot file with this higher epoch is about to be obeyed.
    pub fn release(&mut self, epoch: i64, release: i64) {
        if judge(self.epoch, epoch) == Freshness::Newer {
            self.holds = self.holds.released(self.epoch, release.min(epoch));
        }
    }

    /// A command of the operator. The epoch is judged first; an equal one changes nothing and
    /// confirms the boot.
    pub fn command(&mut self, epoch: i64, desired: Desired, verb: Verb, mode: DrainMode, idle: bool) -> Decision {
        match judge(self.epoch, epoch) {
            Freshness::Stale => Decision::Stale,
            Freshness::Same => {
                self.event(Event::BootHoldEnded, idle);
                self.answer(desired)
            }
            Freshness::Newer if matches!(self.phase, Phase::Stopping(Next::Exit) | Phase::Exited) => {
                // The epoch is kept although the verb is refused: the replacement reads it from the record.
                self.epoch = epoch;
                self.holds = self.holds.commanded(desired);
                if matches!(verb, Verb::Pause | Verb::Stop) {
                    // What is on its way out may be told to make haste.
                    self.mode = self.mode.max(mode);
                }
                if verb == Verb::Stop { Decision::Accepted } else { Decision::Terminating }
            }
            Freshness::Newer => {
                self.epoch = epoch;
                self.holds = self.holds.commanded(desired);
                self.boot_hold = false;
                self.obey(Giver::Operator, verb, mode, idle)
            }
        }
    }

    /// Takes over a boot file with a higher epoch that was found during the boot hold. It may
    /// tighten at once; what loosens waits for the end of the hold, as a mount may be old.
    pub fn adopt(&mut self, epoch: i64, desired: Desired, mode: DrainMode, idle: bool) {
        if judge(self.epoch, epoch) != Freshness::Newer
            || matches!(self.phase, Phase::Stopping(Next::Exit) | Phase::Exited)
        {
            return;
        }
        self.epoch = epoch;
        self.holds = self.holds.commanded(desired);
        match self.target() {
            Desired::Running if self.phase == Phase::Stopped => self.phase = Phase::Starting(Target::Paused),
            Desired::Running => {}
            tighter @ (Desired::Paused | Desired::Stopped) => {
                self.obey(Giver::Operator, tighter.verb(), mode, idle);
            }
        }
    }

    /// A verb of a person, without an epoch.
    pub fn ask(&mut self, verb: Verb, mode: DrainMode, idle: bool) -> Decision {
        let wants_running = matches!(verb, Verb::Start | Verb::Resume);
        if wants_running && self.is_held_by_operator() {
            return Decision::Held;
        }
        let before = self.clone();
        match verb {
            Verb::Start | Verb::Resume => self.holds = self.holds.asked(Desired::Running),
            Verb::Pause => self.holds = self.holds.asked(Desired::Paused),
            Verb::Stop => self.holds = self.holds.asked(Desired::Stopped),
            Verb::Restart if before.phase == Phase::Stopped => {
                if self.is_held_by_operator() {
                    return Decision::Held;
                }
                self.holds = self.holds.asked(Desired::Running);
            }
            Verb::Restart => {}
        }
        let decision = self.obey(Giver::Person, verb, mode, idle);
        if !matches!(decision, Decision::Reached | Decision::Accepted) {
            *self = before;
        }
        decision
    }

    /// Whether no person can let it run: by the operator's hold, by a brake, or until a boot is confirmed.
    fn is_held_by_operator(&self) -> bool {
        self.holds.operator != Desired::Running || !self.brakes.is_empty() || self.boot_hold
    }

    /// The table. Stale and held have been answered.
    fn obey(&mut self, giver: Giver, verb: Verb, mode: DrainMode, idle: bool) -> Decision {
        // A held operator's start would open the gate against a hold that it did not clear, and a pause would leave
        // what a more severe hold or brake has stopped.
        let verb = match verb {
            Verb::Start | Verb::Resume if self.target() != Desired::Running => self.target().verb(),
            Verb::Pause if giver == Giver::Operator => self.target().max(Desired::Paused).verb(),
            Verb::Start | Verb::Stop | Verb::Pause | Verb::Resume | Verb::Restart => verb,
        };
        match verb {
            Verb::Start => self.start(giver),
            Verb::Resume => self.resume(giver),
            Verb::Pause => self.pause(giver, mode, idle),
            Verb::Stop => self.stop(mode, idle),
            Verb::Restart => self.restart(giver, idle),
        }
    }

    fn start(&mut self, giver: Giver) -> Decision {
        match (self.phase, giver) {
            (Phase::Stopped | Phase::Starting(Target::Running), _)
            | (Phase::Starting(Target::Paused), Giver::Operator) => self.go(Phase::Starting(Target::Running)),
            (Phase::Starting(Target::Paused) | Phase::Pausing | Phase::Paused, Giver::Person) => Decision::Conflict,
            (Phase::Running, _) => Decision::Reached,
            (Phase::Pausing | Phase::Paused, Giver::Operator) => self.reach(Phase::Running),
            (Phase::Stopping(Next::Exit) | Phase::Exited, _) => Decision::Terminating,
            (Phase::Stopping(_), _) => self.go(Phase::Stopping(Next::Running)),
        }
    }

    fn resume(&mut self, giver: Giver) -> Decision {
        match (self.phase, giver) {
            (Phase::Stopped, Giver::Operator) => self.start(giver),
            (Phase::Stopped, Giver::Person) => Decision::Conflict,
            (Phase::Starting(_), _) => self.go(Phase::Starting(Target::Running)),
            (Phase::Running, _) => Decision::Reached,
            (Phase::Pausing | Phase::Paused, _) => self.reach(Phase::Running),
            (Phase::Stopping(Next::Exit) | Phase::Exited, _) => Decision::Terminating,
            (Phase::Stopping(_), Giver::Operator) => self.go(Phase::Stopping(Next::Running)),
            (Phase::Stopping(_), Giver::Person) => Decision::Conflict,
        }
    }

    fn pause(&mut self, giver: Giver, mode: DrainMode, idle: bool) -> Decision {
        match (self.phase, giver) {
            (Phase::Stopped, Giver::Operator) => self.go(Phase::Starting(Target::Paused)),
            (Phase::Stopped, Giver::Person) => Decision::Conflict,
            (Phase::Starting(_), _) => self.go(Phase::Starting(Target::Paused)),
            (Phase::Running, _) => {
                self.mode = mode.max(self.brakes.mode());
                self.drain(Phase::Pausing, Phase::Paused, idle)
            }
            (Phase::Pausing, _) => {
                // Drain may become checkpoint or cancel, never back: what was told to stop is not told to go on.
                self.mode = self.mode.max(mode);
                self.drain(Phase::Pausing, Phase::Paused, idle)
            }
            (Phase::Paused, _) => Decision::Reached,
            (Phase::Stopping(Next::Exit) | Phase::Exited, _) => Decision::Terminating,
            (Phase::Stopping(_), Giver::Operator) => {
                self.mode = self.mode.max(mode);
                self.go(Phase::Stopping(Next::Paused))
            }
            (Phase::Stopping(_), Giver::Person) => Decision::Conflict,
        }
    }

    fn stop(&mut self, mode: DrainMode, idle: bool) -> Decision {
        match self.phase {
            Phase::Stopped => Decision::Reached,
            Phase::Stopping(Next::Exit) | Phase::Exited => Decision::Accepted,
            Phase::Stopping(_) => {
                self.mode = self.mode.max(mode);
                self.go(Phase::Stopping(Next::Stopped))
            }
            Phase::Pausing => {
                self.mode = self.mode.max(mode);
                self.drain(Phase::Stopping(Next::Stopped), Phase::Stopped, idle)
            }
            Phase::Starting(_) | Phase::Running | Phase::Paused => {
                self.mode = mode.max(self.brakes.mode());
                self.drain(Phase::Stopping(Next::Stopped), Phase::Stopped, idle)
            }
        }
    }

    fn restart(&mut self, giver: Giver, idle: bool) -> Decision {
        let again = match self.target() {
            Desired::Running => Next::Running,
            Desired::Paused => Next::Paused,
            Desired::Stopped => Next::Stopped,
        };
        match self.phase {
            Phase::Stopped if giver == Giver::Operator && again == Next::Paused => {
                self.go(Phase::Starting(Target::Paused))
            }
            Phase::Stopped if again == Next::Stopped => Decision::Reached,
            Phase::Stopped => self.go(Phase::Starting(Target::Running)),
            Phase::Starting(target) => self.go(Phase::Starting(target)),
            Phase::Running => {
                // The mode of an earlier pause is not this drain's.
                self.mode = DrainMode::Drain;
                self.drain(Phase::Stopping(Next::Running), Phase::Starting(Target::Running), idle)
            }
            Phase::Pausing | Phase::Paused => {
                self.drain(Phase::Stopping(Next::Paused), Phase::Starting(Target::Paused), idle)
            }
            Phase::Stopping(Next::Exit) | Phase::Exited => Decision::Terminating,
            Phase::Stopping(Next::Stopped) if again != Next::Stopped => self.go(Phase::Stopping(again)),
            Phase::Stopping(next) => self.go(Phase::Stopping(next)),
        }
    }

    /// Something happened inside. `idle` says that no permit is held.
    pub fn event(&mut self, event: Event, idle: bool) {
        match event {
            Event::Ready => self.ready(),
            Event::Invalid => {
                if matches!(self.phase, Phase::Starting(_)) {
                    self.phase = Phase::Stopped;
                }
            }
            Event::Idle => self.idle(idle),
            Event::Breaker => {
                self.holds.breaker = true;
                if self.phase == Phase::Running {
                    self.mode = DrainMode::Drain;
                    self.drain(Phase::Pausing, Phase::Paused, idle);
                } else if self.phase == Phase::Starting(Target::Running) {
                    self.phase = Phase::Starting(Target::Paused);
                }
            }
            Event::Terminate => {
                let draining = matches!(self.phase, Phase::Pausing | Phase::Stopping(_));
                self.mode = if draining { self.mode } else { DrainMode::Drain };
                self.phase = if self.phase == Phase::Stopped { Phase::Exited } else { Phase::Stopping(Next::Exit) };
            }
            Event::CheckpointDeadline => {
                if matches!(self.phase, Phase::Pausing | Phase::Stopping(_)) {
                    self.mode = self.mode.max(DrainMode::Checkpoint);
                }
            }
            Event::BootHoldEnded => {
                let held = std::mem::replace(&mut self.boot_hold, false);
                if held && self.target() == Desired::Running {
                    self.phase = match self.phase {
                        Phase::Paused => Phase::Running,
                        Phase::Starting(_) => Phase::Starting(Target::Running),
                        phase @ (Phase::Stopped
                        | Phase::Running
                        | Phase::Pausing
                        | Phase::Stopping(_)
                        | Phase::Exited) => phase,
                    };
                }
            }
        }
    }

    fn ready(&mut self) {
        self.phase = match self.phase {
            Phase::Starting(Target::Running) if self.target() == Desired::Running && !self.boot_hold => Phase::Running,
            Phase::Starting(_) => Phase::Paused,
            phase @ (Phase::Stopped
            | Phase::Running
            | Phase::Pausing
            | Phase::Paused
            | Phase::Stopping(_)
            | Phase::Exited) => phase,
        };
    }

    fn idle(&mut self, idle: bool) {
        if !idle {
            return;
        }
        self.phase = match self.phase {
            Phase::Pausing => Phase::Paused,
            Phase::Stopping(Next::Stopped) => Phase::Stopped,
            Phase::Stopping(Next::Running) => Phase::Starting(Target::Running),
            Phase::Stopping(Next::Paused) => Phase::Starting(Target::Paused),
            Phase::Stopping(Next::Exit) => Phase::Exited,
            phase @ (Phase::Stopped | Phase::Starting(_) | Phase::Running | Phase::Paused | Phase::Exited) => phase,
        };
    }

    fn answer(&self, desired: Desired) -> Decision {
        if self.state() == desired.state() { Decision::Reached } else { Decision::Accepted }
    }

    fn go(&mut self, phase: Phase) -> Decision {
        self.phase = phase;
        Decision::Accepted
    }

    fn reach(&mut self, phase: Phase) -> Decision {
        self.phase = phase;
        Decision::Reached
    }

    /// Enters a drain, or its end when nothing is in flight. Reaching `Paused` or `Stopped` is 200.
    fn drain(&mut self, draining: Phase, drained: Phase, idle: bool) -> Decision {
        self.phase = if idle { drained } else { draining };
        match self.phase {
            Phase::Paused | Phase::Stopped => Decision::Reached,
            Phase::Starting(_) | Phase::Running | Phase::Pausing | Phase::Stopping(_) | Phase::Exited => {
                Decision::Accepted
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "machine_brake_tests.rs"]
mod brake_tests;

#[cfg(test)]
#[path = "machine_brake_laws.rs"]
mod brake_laws;
