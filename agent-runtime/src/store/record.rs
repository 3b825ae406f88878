//! One execution as it stands in the store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Error;

/// How far an execution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Accepted, or to be taken up again.
    Queued,
    /// Under way.
    Running,
    /// Parked until a time.
    Waiting,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

impl State {
    /// Whether it has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed => true,
            Self::Queued | Self::Running | Self::Waiting => false,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// Where in the graph an execution is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Position {
    /// The node to run, or the one under way.
    pub node: String,
    /// The attempt at it, from 0.
    pub attempt: u32,
    /// Its wait is over: a wait node goes on instead of waiting again.
    #[serde(default)]
    pub waited: bool,
    /// Node executions so far.
    pub steps: u32,
    /// Visits by node, this one included once it has ended.
    #[serde(default)]
    pub visits: BTreeMap<String, u32>,
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
    /// Where it is.
    pub position: Position,
    /// What nodes read and write; the trigger's body at first.
    #[schema(value_type = Object)]
    pub memory: Map<String, Value>,
    /// Times that it was taken up without any progress since.
    #[serde(default)]
    pub claims: u32,
    /// When it was accepted.
    #[schema(value_type = String)]
    pub created: Timestamp,
    /// When it goes on, while it is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub due: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ended: Option<Timestamp>,
    /// Why it failed, or its last node did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
            position: Position { node: node.to_owned(), ..Position::default() },
            memory,
            claims: 0,
            created: now,
            due: None,
            ended: None,
            error: None,
        }
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
