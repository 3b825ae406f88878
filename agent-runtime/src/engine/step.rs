//! What a step is run with, and what came of it.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::gate::ExecutionPermit;
use crate::store::About;
use crate::trace::TraceContext;

/// Why a node failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word that `retry_on` may name: `timeout`, `exit`, `output`, `connection`, `status`, `llm`,
    /// `tool`, `stall`, `validation`, `expired`, `uncertain`, `input` or `limit`.
    pub kind: &'static str,
    /// The same for people.
    pub reason: String,
}

impl Failure {
    pub(super) fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// What came of a node or of one step in it.
#[derive(Debug)]
pub enum Outcome {
    /// It succeeded with these outputs.
    Success(Map<String, Value>),
    /// It failed.
    Failure(Failure),
    /// It was interrupted, which is no failure.
    Interrupted,
    /// It goes on after a time.
    Parked(Duration),
    /// It goes on when a person has answered.
    Asks {
        /// The question.
        question: String,
        /// The call of the model that asks.
        call: Option<String>,
        /// What the answer is for.
        about: About,
        /// It fails without an answer within this.
        expires: Duration,
    },
}

impl Outcome {
    pub(super) fn failed(kind: &'static str, reason: impl Into<String>) -> Self {
        Self::Failure(Failure::new(kind, reason))
    }
}

/// What a step is run with.
pub(super) struct Step<'a> {
    pub(super) execution: &'a str,
    /// The same at every repetition of this step, so that what it calls can tell.
    pub(super) idempotency_key: String,
    pub(super) permit: &'a ExecutionPermit,
    /// Its place in a trace, which goes on in what it calls.
    pub(super) trace: Option<&'a TraceContext>,
}
