//! What a step is run with, and what came of it.

use serde_json::{Map, Value};

use crate::gate::ExecutionPermit;

/// What came of a node or of one step in it.
pub enum Outcome {
    /// It succeeded with these outputs.
    Success(Map<String, Value>),
    /// It failed.
    Failure(String),
    /// It was interrupted, which is no failure.
    Interrupted,
}

/// What a step is run with.
pub(super) struct Step<'a> {
    pub(super) execution: &'a str,
    /// The same at every repetition of this step, so that what it calls can tell.
    pub(super) idempotency_key: String,
    pub(super) permit: &'a ExecutionPermit,
}
