//! The words of the contract: states, verbs and the desired state, as they stand on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a runtime says it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing runs and nothing starts; only `start` leads out of it.
    Stopped,
    /// The agent is being loaded.
    Starting,
    /// Work is admitted.
    Running,
    /// No work is admitted; some is still in flight.
    Pausing,
    /// No work is admitted and none is in flight.
    Paused,
    /// Work in flight is being finished or, at the deadline, interrupted.
    Stopping,
}

/// What the operator or a person wants a runtime to be. The order is the precedence: stopped beats paused beats running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// Work is admitted.
    #[default]
    Running,
    /// Nothing runs and nothing will start until told otherwise.
    Paused,
    /// As paused, and the process may be taken away.
    Stopped,
}

/// What can be asked of a runtime: `POST /api/v1/lifecycle/<verb>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Leave `stopped`.
    Start,
    /// Drain, then stop.
    Stop,
    /// Admit nothing more; reached when nothing is in flight.
    Pause,
    /// Admit work again.
    Resume,
    /// Drain, then load the definition anew, in the same process.
    Restart,
}

/// How a pause treats executions in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainMode {
    /// They run to their end.
    #[default]
    Drain,
    /// They stop at the next step and go on after the resume.
    Checkpoint,
    /// They are cancelled at once: their steps are interrupted, and they do not go on after the resume.
    Cancel,
}

/// What happens when a drain reaches its deadline. The order is the severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDrainTimeout {
    /// Go on draining and say who holds it up.
    #[default]
    Wait,
    /// Close the gate, so that executions stop at their next step.
    Checkpoint,
}

impl Verb {
    /// Every verb, in the order of the API's description.
    pub const ALL: [Self; 5] = [Self::Start, Self::Stop, Self::Pause, Self::Resume, Self::Restart];

    /// The verb as it stands in the path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
        }
    }
}

impl Desired {
    /// The verb that asks for this state.
    #[must_use]
    pub fn verb(self) -> Verb {
        match self {
            Self::Running => Verb::Start,
            Self::Paused => Verb::Pause,
            Self::Stopped => Verb::Stop,
        }
    }

    /// The state in which it is reached.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Running => State::Running,
            Self::Paused => State::Paused,
            Self::Stopped => State::Stopped,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl State {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not a verb of the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown verb {0:?}: use one of start, stop, pause, resume, restart")]
pub struct UnknownVerb(pub String);

impl FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == word).ok_or_else(|| UnknownVerb(word.to_owned()))
    }
}
