//! What is executed: nodes, and the edges between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::expression::Expression;

/// One node of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub kind: NodeKind,
    /// Keys that it reads from the execution's memory.
    pub inputs: Vec<String>,
    /// Keys that it writes.
    pub outputs: Vec<Output>,
    /// Further attempts after a failed one.
    pub max_retries: u32,
    /// Kinds of failure that are tried again; empty is all of them.
    pub retry_on: Vec<String>,
    /// Most visits in one execution; 0 is no bound.
    pub max_visits: u32,
    /// Its effect is never repeated: what a crash left unfinished waits for a person.
    pub once: bool,
    /// Events that its success emits, with its outputs.
    pub emits: Vec<String>,
    /// The execution waits for a person after it.
    pub pauses: bool,
    /// The model chooses one edge among those that are its to decide, not several.
    pub one_way: bool,
    /// Where to go next, highest priority first.
    pub edges: Vec<Edge>,
}

/// A key that a node writes.
#[derive(Clone, Debug)]
pub struct Output {
    /// The key.
    pub key: String,
    /// It may be left out.
    pub nullable: bool,
    /// Its type in JSON Schema's words, if it has to be of one.
    pub of_type: Option<String>,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Runs a program: JSON on stdin, a JSON object on stdout, logs on stderr.
    Exec(Exec),
    /// Makes a request.
    Http(Request),
    /// Waits without holding a permit.
    Wait(Duration),
    /// Lets a language model work with tools until it has set every output.
    Loop(Box<EventLoop>),
    /// Does nothing: its edges say where to go on.
    Pass,
    /// Asks a person; the answer is its output.
    Ask(String),
}

impl NodeKind {
    /// The word in a definition, for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
            Self::Wait(_) => "wait",
            Self::Loop(_) => "event_loop",
            Self::Pass => "router",
            Self::Ask(_) => "human_input",
        }
    }
}

/// A program.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The program and its arguments, with `{{key}}` filled in.
    pub command: Vec<String>,
    /// Further environment.
    pub environment: BTreeMap<String, String>,
    /// It is ended after this long.
    pub timeout: Duration,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST and so on.
    pub method: http::Method,
    /// http or https, with `{{key}}` filled in.
    pub url: String,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// The body, sent as JSON, with `{{key}}` filled in inside its strings.
    pub body: Option<Value>,
    /// It fails after this long.
    pub timeout: Duration,
    /// Answers from 400 on fail the node.
    pub fail_on_error_status: bool,
}

/// A language model at work.
#[derive(Clone, Debug)]
pub struct EventLoop {
    /// What it is told first.
    pub prompt: String,
    /// When its work is good.
    pub success_criteria: String,
    /// Tools that it may call, besides those of the runtime.
    pub tools: Vec<String>,
    /// Those of them whose effect is never repeated: what a crash left unfinished waits for a person.
    pub once: BTreeSet<String>,
    /// The model, if it is not the default one.
    pub model: Option<String>,
    /// It may talk to a person.
    pub client_facing: bool,
    /// Most answers of the model in one attempt.
    pub max_iterations: u32,
    /// The same answer this often running is a stall; 0 never is.
    pub stall_after: u32,
    /// Most reminders of outputs that are missing.
    pub max_reminders: u32,
    /// Most tokens of one answer.
    pub max_tokens: u32,
}

/// An edge to the next node.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its name, for logs.
    pub id: String,
    /// When it is followed.
    pub condition: Condition,
    /// Higher first.
    pub priority: i32,
    /// Where it leads.
    pub target: String,
    /// Target key by source key, copied on the way.
    pub mapping: BTreeMap<String, String>,
}

/// When an edge is followed.
#[derive(Clone, Debug)]
pub enum Condition {
    /// In any case.
    Always,
    /// The node succeeded.
    OnSuccess,
    /// The node failed after all its attempts.
    OnFailure,
    /// The node succeeded and the expression holds.
    Expression(Box<Expression>),
    /// The node succeeded and the model says so.
    Model(String),
}
