//! What can go wrong, and where: each place of a run without faults, with the faults that fit it.

use std::fmt;

use serde::Serialize;

/// Between whom something passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Layer {
    /// A request of the operator to the API server that changes something.
    Write,
    /// Any other request to the API server.
    Read,
    /// An event of a watch.
    Event,
    /// A call of the operator to a pod.
    Call,
}

/// A position in a run: the nth time that this happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Place {
    pub(crate) layer: Layer,
    pub(crate) site: String,
    pub(crate) nth: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} #{}", self.layer, self.site, self.nth)
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub(crate) enum Fault { $($(#[$doc])* $name),* }
    };
}

faults! {
    /// The operator is killed; the request does not arrive. Another process is started at once.
    CrashBefore,
    /// The operator is killed after the request was obeyed and before the answer. Another is started at once.
    CrashAfter,
    /// 409 instead of an answer.
    Conflict,
    /// 410 instead of an answer, or in the place of an event.
    Gone,
    /// 429 with Retry-After.
    TooMany,
    /// 500 instead of an answer.
    Broken,
    /// 504, and yet the request was obeyed.
    GatewayTimeout,
    /// The connection is cut; the request does not arrive.
    Refused,
    /// The request is obeyed and the connection cut before the answer.
    Lost,
    /// The request does not arrive, and nothing tells (a half-open connection).
    Hang,
    /// The request is obeyed, and nothing ever answers.
    Mute,
    /// The request arrives late.
    Late,
    /// The answer arrives late.
    Slow,
    /// The request arrives twice.
    Twice,
    /// For a while the API server cannot be reached, and all watches break.
    ApiPartition,
    /// For a while no pod can be reached.
    PodPartition,
    /// Another operator leads from now on as well.
    SecondLeader,
    /// The operator is stopped in the middle of this request; another takes over, and when all is done the
    /// request arrives and the first one goes on.
    Zombie,
    /// The event never comes, and nothing tells. The watch is listed anew later, as by any 410.
    Dropped,
    /// The watch breaks before the event.
    Cut,
    /// The event comes late, and all after it.
    Delayed,
    /// The event comes twice.
    Doubled,
    /// The event after it comes first.
    Reordered,
    /// Nothing comes any more, and nothing tells (a half-open connection).
    Stalled,
    /// 500 with something that is not the contract's.
    Garbage,
    /// The pod's process is killed before the call; the container is started again.
    PodCrashBefore,
    /// The pod's process is killed after it obeyed and before the answer; the container is started again.
    PodCrashAfter,
    /// The pod's clock goes wrong by an hour, and right again later.
    ClockStep,
    /// The operator's clock goes an hour ahead, and right again later.
    ClockAhead,
    /// The operator's clock goes back by an hour, and right again later.
    ClockBack,
}

impl Fault {
    /// What fits this place.
    pub(crate) fn fitting(place: &Place) -> &'static [Self] {
        use Fault::*;
        match place.layer {
            Layer::Write => &[
                CrashBefore,
                CrashAfter,
                Conflict,
                Gone,
                TooMany,
                Broken,
                GatewayTimeout,
                Refused,
                Lost,
                Hang,
                Mute,
                Late,
                Slow,
                ApiPartition,
                PodPartition,
                SecondLeader,
                Zombie,
                ClockAhead,
                ClockBack,
            ],
            Layer::Read => {
                &[CrashBefore, Gone, TooMany, Broken, GatewayTimeout, Refused, Lost, Hang, Slow, ApiPartition]
            }
            Layer::Event => &[CrashBefore, Gone, Dropped, Cut, Delayed, Doubled, Reordered, Stalled],
            Layer::Call => &[
                CrashBefore,
                CrashAfter,
                Garbage,
                Refused,
                Lost,
                Hang,
                Mute,
                Late,
                Slow,
                Twice,
                PodPartition,
                PodCrashBefore,
                PodCrashAfter,
                ClockStep,
                ClockAhead,
                ClockBack,
            ],
        }
    }

    /// Whether the operator may come out of it with open calls, so that the next run gets a fresh process.
    pub(crate) fn lingers(self) -> bool {
        use Fault::*;
        matches!(
            self,
            Hang | Mute | ApiPartition | PodPartition | SecondLeader | Zombie | Dropped | Stalled | Reordered
        )
    }

    /// Whether freezes may be unknown for a while, in which nothing is loosened.
    pub(crate) fn hides_freezes(self, place: &Place) -> bool {
        self == Self::ApiPartition || place.site.contains("agentfreezes") || place.site.contains("namespaces")
    }

    /// By how many seconds the operator's clock is wrong for a while.
    pub(crate) fn clock(self) -> Option<i64> {
        match self {
            Self::ClockAhead => Some(3600),
            Self::ClockBack => Some(-3600),
            _ => None,
        }
    }

    /// Whether another operator comes into play.
    pub(crate) fn brings_another(self) -> bool {
        matches!(self, Self::SecondLeader | Self::Zombie)
    }

    /// Whether the watch protocol itself is broken, which no client can notice: it recovers with the next list.
    pub(crate) fn needs_list(self) -> bool {
        matches!(self, Self::Dropped | Self::Reordered)
    }
}
