//! Holds: who keeps a runtime from running. The target is the most severe of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::Desired;

/// The three reasons for which a runtime may be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Holds {
    /// What the operator last asked for; changes only with a higher epoch.
    #[serde(default)]
    pub operator: Desired,
    /// Set by a person's pause or stop, cleared by a person's resume or start.
    #[serde(default)]
    pub local: Desired,
    /// Set by the circuit breaker, cleared by a person's resume or a new `resumeNonce`.
    #[serde(default)]
    pub breaker: bool,
}

impl Holds {
    /// The most severe of the holds.
    #[must_use]
    pub fn target(self) -> Desired {
        let breaker = if self.breaker { Desired::Paused } else { Desired::Running };
        self.operator.max(self.local).max(breaker)
    }

    /// The holds after a command of the operator with a higher epoch. A command that takes its own hold back clears
    /// what people set, or an old local pause would outlive every later command. One that only goes on saying running,
    /// with a new policy or with brakes to release, is no reason to overrule a person.
    #[must_use]
    pub fn commanded(self, desired: Desired) -> Self {
        let resumes = self.operator != Desired::Running && desired == Desired::Running;
        let local = if resumes { Desired::Running } else { self.local };
        Self { operator: desired, local, breaker: self.breaker }
    }

    /// The holds of a pod at the epoch `held` when it accepts a higher one. What it set itself before
    /// `release` goes, what it set since stays: so each release acts once, and is not lost with a command.
    #[must_use]
    pub fn released(self, held: i64, release: i64) -> Self {
        if held < release { Self { operator: self.operator, ..Self::default() } } else { self }
    }

    /// The holds after a person asked for a state. Asking to run clears the breaker too.
    #[must_use]
    pub fn asked(self, desired: Desired) -> Self {
        let breaker = self.breaker && desired != Desired::Running;
        Self { operator: self.operator, local: desired, breaker }
    }

    /// The names of the holds in force, for status.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let mut names = Vec::new();
        if self.operator != Desired::Running {
            names.push("operator".to_owned());
        }
        if self.local != Desired::Running {
            names.push("local".to_owned());
        }
        if self.breaker {
            names.push("breaker".to_owned());
        }
        names
    }
}
