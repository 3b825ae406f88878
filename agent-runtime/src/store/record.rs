//! One execution as it stands in the store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Error;
use crate::trace::TraceContext;

/// The branch that an execution begins with.
pub const MAIN: &str = "main";

/// How far an execution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Accepted, or to be taken up again.
    Queued,
    /// Under way.
    Running,
    /// Every live branch waits for a time or a person.
    Waiting,
    /// To be cancelled once the last effect has ended.
    Cancelling,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl State {
    /// Whether it has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Queued | Self::Running | Self::Waiting | Self::Cancelling => false,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a branch does, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Its node is to be run, or is under way.
    Ready,
    /// It goes on at a time.
    Parked {
        /// The time.
        #[schema(value_type = String)]
        until: Timestamp,
    },
    /// It waits for a person.
    Asking {
        /// What is asked.
        question: String,
        /// What the answer is for.
        about: About,
        /// The branch's node fails then.
        #[schema(value_type = String)]
        expires: Timestamp,
    },
    /// It goes on when its own branches have.
    Forked {
        /// Where they come together, if they do.
        join: Option<String>,
        /// Their ids, in the order of their edges.
        branches: Vec<String>,
    },
    /// It is at the join and waits for the others.
    Arrived {
        /// The node at which it goes on.
        at: String,
    },
    /// No edge led on.
    Ended,
    /// Its node failed and no edge took that.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What a person's answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The model asked.
    Input,
    /// The graph pauses here.
    Pause,
    /// A crash left an effect that must not be repeated: `retry`, `use` an output, or `fail`.
    Uncertain,
}

/// One way through the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Branch {
    /// The node it is at.
    pub node: String,
    /// What it does.
    #[serde(flatten)]
    pub phase: Phase,
    /// Which visit of the node this is, from 0.
    #[serde(default)]
    pub visit: u32,
    /// The attempt at it, from 0.
    #[serde(default)]
    pub attempt: u32,
    /// Its wait is over: a wait node goes on instead of waiting again.
    #[serde(default)]
    pub waited: bool,
    /// What a branch of a fork has written; it reaches the memory at the join.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub writes: Map<String, Value>,
}

impl Branch {
    pub(crate) fn at(node: &str, visit: u32) -> Self {
        Self { node: node.to_owned(), phase: Phase::Ready, visit, attempt: 0, waited: false, writes: Map::new() }
    }
}

/// One run of the graph for one trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    /// A UUID of version 7.
    pub id: String,
    /// The entry point that it came by.
    pub entry_point: String,
    /// How far it is.
    pub state: State,
    /// Hash of the definition that it began with.
    pub definition: String,
    /// Where it is, by branch.
    pub branches: BTreeMap<String, Branch>,
    /// What nodes read and write; the trigger's body at first.
    #[schema(value_type = Object)]
    pub memory: Map<String, Value>,
    /// Node executions so far.
    #[serde(default)]
    pub steps: u32,
    /// Visits by node, the ones under way included.
    #[serde(default)]
    pub visits: BTreeMap<String, u32>,
    /// Branches made so far.
    #[serde(default)]
    pub forks: u32,
    /// Tokens used.
    #[serde(default)]
    pub tokens: i64,
    /// Times that it was taken up without any progress since.
    #[serde(default)]
    pub claims: u32,
    /// When it was accepted.
    #[schema(value_type = String)]
    pub created: Timestamp,
    /// When it was first taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ended: Option<Timestamp>,
    /// Why it failed, as a word: `node`, `limit`, `timeout`, `crash_loop` or `definition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed, or the last node that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What began it, in a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

impl Execution {
    /// A new execution that is to begin at a node.
    #[must_use]
    pub fn new(entry_point: &str, definition: &str, node: &str, memory: Map<String, Value>, now: Timestamp) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            entry_point: entry_point.to_owned(),
            state: State::Queued,
            definition: definition.to_owned(),
            branches: BTreeMap::from([(MAIN.to_owned(), Branch::at(node, 0))]),
            memory,
            steps: 1,
            visits: BTreeMap::from([(node.to_owned(), 1)]),
            forks: 0,
            tokens: 0,
            claims: 0,
            created: now,
            started: None,
            ended: None,
            reason: None,
            error: None,
            trace: None,
        }
    }

    /// The same, begun by what stands at this place of a trace.
    #[must_use]
    pub fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// When it has to be looked at again: the first time at which a branch goes on or its question expires.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let times = self.branches.values().filter_map(|branch| match &branch.phase {
            Phase::Parked { until } => Some(*until),
            Phase::Asking { expires, .. } => Some(*expires),
            Phase::Ready | Phase::Forked { .. } | Phase::Arrived { .. } | Phase::Ended | Phase::Failed { .. } => None,
        });
        times.min()
    }

    /// Whether a branch waits for a person.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.branches.values().any(|branch| matches!(branch.phase, Phase::Asking { .. }))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Maps with string keys always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn decode(id: &str, bytes: &[u8]) -> Result<Self, Error> {
        let foreign = |error: serde_json::Error| Error::Foreign { id: id.to_owned(), reason: error.to_string() };
        serde_json::from_slice(bytes).map_err(foreign)
    }
}
