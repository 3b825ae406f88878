//! Pods at work are kept from voluntary eviction, for a bounded time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::pods::Standing;
use super::spans::until;
use crate::observe::Observed;

/// On the disruption budget: since when pods at work are protected. It is the memory of it, so that another
/// operator does not begin to count anew.
pub const PROTECTED_SINCE: &str = "agents.hive.dev/protected-since";

/// On the disruption budget, as a label: `active`, or `spent` once the time is over and work goes on.
const PROTECTION_LABEL: &str = "agents.hive.dev/protection";

/// It lasts at least so long, or short executions would be a write of the budget each.
const SHORTEST: SignedDuration = SignedDuration::from_secs(15);

/// What the disruption budget is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// A drain takes one pod at a time.
    None,
    /// No pod is taken.
    Active {
        /// Since when.
        since: Timestamp,
        /// How long that may stay so.
        left: Duration,
    },
    /// As without: the pods have been at work for longer than they are protected.
    Spent {
        /// Since when they were protected.
        since: Timestamp,
    },
}

/// Decides from the pods' last answers. A pod that does not say what it does counts as busy.
pub(super) fn decide(seen: &Observed, standings: &[Standing<'_>], now: Timestamp) -> Protection {
    let Some(seconds) = seen.runtime.spec.lifecycle.disruption_protection_seconds else { return Protection::None };
    let busy = standings.iter().any(Standing::is_busy);
    let longest = SignedDuration::from_secs(i64::from(seconds));
    let since = match (busy, seen.protected_since) {
        (false, None) => return Protection::None,
        (true, from) => from.unwrap_or(now),
        (false, Some(from)) if now.duration_since(from) < SHORTEST.min(longest) => from,
        (false, Some(_)) => return Protection::None,
    };
    let lasts = if busy { longest } else { SHORTEST.min(longest) };
    match until(now, since.checked_add(lasts).unwrap_or(Timestamp::MAX)) {
        Some(left) => Protection::Active { since, left },
        None => Protection::Spent { since },
    }
}

impl Protection {
    /// What the disruption budget is drawn from: not how long it stays so.
    pub(super) fn drawn(self) -> Self {
        match self {
            Self::Active { since, .. } => Self::Active { since, left: Duration::ZERO },
            Self::None | Self::Spent { .. } => self,
        }
    }

    /// How long until it may be otherwise though nothing happens.
    pub(super) fn edge(self) -> Option<Duration> {
        match self {
            Self::Active { left, .. } => Some(left),
            Self::None | Self::Spent { .. } => None,
        }
    }

    /// The label, and the time that is no part of what is compared.
    pub(super) fn marks(self) -> Option<(Value, String)> {
        let (word, since) = match self {
            Self::None => return None,
            Self::Active { since, .. } => ("active", since),
            Self::Spent { since } => ("spent", since),
        };
        Some((json!({ PROTECTION_LABEL: word }), since.to_string()))
    }

    /// Pods that are not ready, paused ones for instance, never block a drain; a protected one may be draining its
    /// work, and is not ready either.
    pub(super) fn budget(self) -> Value {
        match self {
            Self::Active { .. } => json!({ "maxUnavailable": 0, "unhealthyPodEvictionPolicy": "IfHealthyBudget" }),
            Self::None | Self::Spent { .. } => {
                json!({ "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow" })
            }
        }
    }
}
