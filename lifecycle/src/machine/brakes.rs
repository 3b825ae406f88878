//! Brakes in the machine: they come without an epoch of their own, and go only when they are named.

use super::{BrakeDecision, Giver, Machine, Next, Phase, Target};
use crate::brake::Brake;
use crate::fence::{Freshness, judge};
use crate::state::{Desired, DrainMode, State};

impl Machine {
    /// The most severe of holds and brakes: what every verb is led by.
    #[must_use]
    pub fn target(&self) -> Desired {
        self.holds.target().max(self.brakes.target())
    }

    /// How executions in flight are treated: as the drain under way says, and no milder than any brake.
    #[must_use]
    pub fn drain_mode(&self) -> DrainMode {
        self.mode.max(self.brakes.mode())
    }

    /// The names of what holds the runtime, for status.
    #[must_use]
    pub fn hold_names(&self) -> Vec<String> {
        let mut names = self.holds.names();
        if !self.brakes.is_empty() {
            names.push("brake".to_owned());
        }
        names
    }

    /// A brake of the operator. It changes neither the epoch nor a hold and confirms no boot; what is held already
    /// does not become milder by it. The process may be on its way out: the next one reads the brake from the record.
    pub fn brake(&mut self, brake: Brake, idle: bool) -> BrakeDecision {
        if judge(self.epoch, brake.epoch) == Freshness::Stale {
            return BrakeDecision::Stale;
        }
        let asked = brake.state;
        if self.brakes.set(brake).is_err() {
            return BrakeDecision::Full;
        }
        self.tighten(idle);
        let reached = match self.state() {
            State::Stopped => true,
            State::Paused => asked < Desired::Stopped,
            State::Starting | State::Running | State::Pausing | State::Stopping => false,
        };
        if reached { BrakeDecision::Reached } else { BrakeDecision::Accepted }
    }

    /// Goes where the target leads. Stopped, and on the way there, is as severe as any brake.
    fn tighten(&mut self, idle: bool) {
        match self.phase {
            Phase::Stopped | Phase::Exited => {}
            Phase::Stopping(Next::Stopped | Next::Exit) => self.mode = self.drain_mode(),
            Phase::Starting(_) | Phase::Running | Phase::Pausing | Phase::Paused | Phase::Stopping(_) => {
                self.obey(Giver::Operator, self.target().verb(), self.brakes.mode(), idle);
            }
        }
    }

    /// Lets go of the brakes that a command or boot file names, if its epoch is higher than theirs and not below the
    /// pod's. To be called before [`Machine::command`] or [`Machine::adopt`], in the same transition: with a higher
    /// epoch those lead on. With the pod's own epoch they lead nowhere, and this does. True if any brake went.
    pub fn release_brakes(&mut self, epoch: i64, names: &[String], idle: bool) -> bool {
        if !self.brakes.release(self.epoch, epoch, names) {
            return false;
        }
        if judge(self.epoch, epoch) == Freshness::Same {
            match (self.target(), self.boot_hold, self.phase) {
                // What loosens waits for the end of the boot hold.
                (Desired::Running, true, Phase::Stopped) => self.phase = Phase::Starting(Target::Paused),
                (Desired::Running, true, _) => {}
                (target, _, _) => {
                    self.obey(Giver::Operator, target.verb(), self.mode, idle);
                }
            }
        }
        true
    }
}
