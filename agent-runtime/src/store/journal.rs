//! What happened in an execution, entry by entry: the memory of a conversation after a crash, and the
//! stream of events that people follow.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Error, State};
use crate::llm::{Answer, Usage};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The branch in which it happened.
    pub branch: String,
    /// The node.
    pub node: String,
    /// The visit of the node.
    pub visit: u32,
    /// The attempt in the visit.
    pub attempt: u32,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// It was taken up.
    Begun,
    /// An effect that must not be repeated is about to begin.
    Intended {
        /// The model's call of a tool; none when the node itself is the effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<String>,
    },
    /// Something was said to the model: its task, a reminder, or what a person said.
    Said {
        /// The text.
        text: String,
        /// It reminds the model of what is missing.
        #[serde(default)]
        reminder: bool,
    },
    /// The model answered.
    Answered {
        /// The answer.
        #[schema(value_type = Object)]
        answer: Answer,
    },
    /// A tool was called.
    Called {
        /// The call's id.
        call: String,
        /// The tool.
        tool: String,
        /// What the model was told.
        content: String,
        /// The call failed.
        is_error: bool,
    },
    /// A person is asked.
    Asked {
        /// The question.
        question: String,
        /// The call that asks, if it is one.
        call: Option<String>,
    },
    /// A person answered.
    Input {
        /// What they said.
        value: Value,
    },
    /// The node succeeded.
    Succeeded {
        /// Its outputs.
        #[schema(value_type = Object)]
        outputs: Map<String, Value>,
        /// The nodes that come next.
        next: Vec<String>,
    },
    /// The node failed.
    Failed {
        /// The kind of failure.
        kind: String,
        /// Why.
        reason: String,
        /// It is tried again.
        again: bool,
        /// The nodes that come next.
        next: Vec<String>,
    },
    /// The model chose among edges.
    Decided {
        /// The ids of the edges that it chose.
        edges: Vec<String>,
        /// What it cost.
        #[schema(value_type = Object)]
        usage: Usage,
    },
    /// The execution has changed its state.
    State {
        /// The state.
        state: State,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

impl What {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Intended { .. } => "intended",
            Self::Said { .. } => "said",
            Self::Answered { .. } => "answered",
            Self::Called { .. } => "called",
            Self::Asked { .. } => "asked",
            Self::Input { .. } => "input",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Decided { .. } => "decided",
            Self::State { .. } => "state",
        }
    }
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Maps with string keys always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn decode(id: &str, seq: u64, bytes: &[u8]) -> Result<Self, Error> {
        let foreign = |error: serde_json::Error| Error::Foreign {
            id: id.to_owned(),
            reason: format!("entry {seq} of its journal: {error}"),
        };
        serde_json::from_slice(bytes).map_err(foreign)
    }
}
