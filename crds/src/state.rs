//! The states that a runtime is asked to be in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a runtime is to be. Stopped beats paused beats running.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Work is admitted.
    #[default]
    Running,
    /// Nothing runs and nothing will start.
    Paused,
    /// As paused, and the pods are taken away once drained.
    Stopped,
}

impl DesiredState {
    /// The word as it stands in the spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}
