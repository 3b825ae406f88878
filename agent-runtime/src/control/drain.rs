//! The deadline of a drain.

use jiff::{SignedDuration, Timestamp};
use lifecycle::OnDrainTimeout;
use lifecycle::machine::{Next, Phase};
use lifecycle::wire::{BrakeCommand, Command};

use super::{Controller, Core, is_draining};

/// A drain's deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) deadline: Timestamp,
    pub(super) on_timeout: OnDrainTimeout,
    pub(super) passed: bool,
}

/// What a body says of the deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    seconds: Option<i64>,
    on_timeout: OnDrainTimeout,
}

impl From<&Command> for Patience {
    fn from(body: &Command) -> Self {
        Self { seconds: body.deadline_seconds, on_timeout: body.on_timeout.unwrap_or_default() }
    }
}

impl From<&BrakeCommand> for Patience {
    fn from(body: &BrakeCommand) -> Self {
        Self { seconds: body.deadline_seconds, on_timeout: body.on_timeout.unwrap_or_default() }
    }
}

impl Controller {
    /// A new drain gets its deadline; one under way may only have it shortened. While a brake is in force, what
    /// happens at the deadline may only become more severe: which of them asked for it is not told apart.
    pub(super) fn set_deadline(&self, core: &mut Core, patience: Patience) {
        if !is_draining(core.machine.phase) || matches!(core.machine.phase, Phase::Stopping(Next::Exit)) {
            return;
        }
        let by_default = matches!(core.machine.phase, Phase::Stopping(_)).then_some(self.config.shutdown_seconds);
        let seconds = patience.seconds.or(by_default.and_then(|seconds| i64::try_from(seconds).ok()));
        let Some(seconds) = seconds else { return };
        let deadline = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        let braked = !core.machine.brakes.is_empty();
        core.drain = Some(match core.drain {
            Some(drain) => Drain {
                deadline: drain.deadline.min(deadline),
                on_timeout: if braked { patience.on_timeout.max(drain.on_timeout) } else { patience.on_timeout },
                passed: drain.passed,
            },
            None => Drain { deadline, on_timeout: patience.on_timeout, passed: false },
        });
    }
}
