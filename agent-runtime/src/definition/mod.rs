//! The agent's definition: read from Hive's exported shape, checked, and resolved into what the engine runs.

mod check;
pub mod schedule;
mod shape;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

pub use schedule::Schedule;

/// An agent that can be run.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its name, for people.
    pub name: String,
    /// SHA-256 of the text, in hexadecimal: executions keep the definition that they began with.
    pub hash: String,
    /// The text that was read.
    pub text: String,
    /// The file's name, whose ending says how to read the text again.
    pub file: String,
    /// Where executions begin, by id.
    pub entry_points: BTreeMap<String, EntryPoint>,
    /// What is executed, by id.
    pub nodes: BTreeMap<String, Node>,
    /// Most node executions in one run.
    pub max_steps: u32,
}

/// A named trigger.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    /// The node that an execution begins at.
    pub node: String,
    /// What triggers it.
    pub trigger: Trigger,
    /// Higher first.
    pub priority: i32,
    /// Executions at once.
    pub max_concurrent: usize,
    /// Executions that may wait; one more is refused.
    pub max_queued: usize,
}

/// What triggers an entry point.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// A POST.
    Api,
    /// The clock.
    Timer(Box<Schedule>),
}

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
    /// Most visits in one execution; 0 is no bound.
    pub max_visits: u32,
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
    pub body: Option<serde_json::Value>,
    /// It fails after this long.
    pub timeout: Duration,
    /// Answers from 400 on fail the node.
    pub fail_on_error_status: bool,
}

/// An edge to the next node.
#[derive(Clone, Debug)]
pub struct Edge {
    /// When it is followed.
    pub condition: Condition,
    /// Where it leads.
    pub target: String,
    /// Target key by source key, copied on the way.
    pub mapping: BTreeMap<String, String>,
}

/// When an edge is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// The node succeeded.
    OnSuccess,
    /// The node failed after all its attempts.
    OnFailure,
}

impl Condition {
    /// Whether it holds for an outcome.
    #[must_use]
    pub fn holds(self, succeeded: bool) -> bool {
        match self {
            Self::Always => true,
            Self::OnSuccess => succeeded,
            Self::OnFailure => !succeeded,
        }
    }
}

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1, if it is known.
    pub line: Option<u64>,
    /// The column, from 1, if it is known.
    pub column: Option<u64>,
    /// The field, such as `graph.nodes[2].url`; empty when the text does not parse.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Why a definition cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", render(.file, .faults))]
pub struct Invalid {
    /// The file's name.
    pub file: String,
    /// Everything that is wrong, in the order of the text.
    pub faults: Vec<Fault>,
}

fn render(file: &str, faults: &[Fault]) -> String {
    let lines = faults.iter().map(|fault| {
        let place = match (fault.line, fault.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (Some(line), None) => format!("{file}:{line}"),
            (None, _) => file.to_owned(),
        };
        let field = if fault.field.is_empty() { String::new() } else { format!("{}: ", fault.field) };
        format!("{place}: {field}{}", fault.reason)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A definition with what was ignored in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The agent.
    pub agent: Agent,
    /// Keys that mean nothing to this version, one line each.
    pub warnings: Vec<String>,
}

/// Reads and checks a definition. `file` is for messages, and its ending `.json` chooses the syntax.
///
/// # Errors
/// Everything that is wrong with it at once.
pub fn parse(file: &str, text: &str) -> Result<Loaded, Invalid> {
    let invalid = |faults| Invalid { file: file.to_owned(), faults };
    let shape = shape::read(file, text).map_err(|fault| invalid(vec![fault]))?;
    let warnings = shape.warnings();
    let hash: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut agent = check::resolve(shape, text).map_err(invalid)?;
    agent.hash = hash;
    text.clone_into(&mut agent.text);
    file.clone_into(&mut agent.file);
    Ok(Loaded { agent, warnings })
}

/// Why a definition file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The path.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is not an agent that can be run.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Reads a definition file.
///
/// # Errors
/// The file cannot be read, or is not an agent that can be run.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.display().to_string(), source })?;
    let file = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    Ok(parse(&file, &text)?)
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
