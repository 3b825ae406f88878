//! The agent's definition: read from Hive's exported shape, checked, and resolved into what the engine runs.

mod check;
pub mod entry;
pub mod expression;
pub mod graph;
mod join;
pub mod schedule;
mod shape;
mod token;

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

pub use entry::{Breaker, EntryPoint, Limits, Overlap, Trigger, Webhook};
pub use graph::{Condition, Edge, EventLoop, Exec, Node, NodeKind, Output, Request};
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
    /// Said to the model before each node's own prompt.
    pub identity: String,
    /// Whether the conversation goes on from node to node.
    pub continuous: bool,
    /// Where to go on after a pause at a node.
    pub resume: BTreeMap<String, String>,
    /// What its executions may use.
    pub limits: Limits,
    /// When failures pause the runtime.
    pub breaker: Option<Breaker>,
}

impl Agent {
    /// The tools that its nodes name, each with the first node that does.
    #[must_use]
    pub fn tools(&self) -> BTreeMap<&str, &str> {
        let mut tools = BTreeMap::new();
        for (id, node) in &self.nodes {
            if let NodeKind::Loop(event_loop) = &node.kind {
                for tool in &event_loop.tools {
                    tools.entry(tool.as_str()).or_insert(id.as_str());
                }
            }
        }
        tools
    }

    /// The entry points that an event begins.
    pub fn listeners(&self, event: &str) -> impl Iterator<Item = (&String, &EntryPoint)> {
        self.entry_points.iter().filter(
            move |(_, entry)| matches!(&entry.trigger, Trigger::Event(names) if names.iter().any(|name| name == event)),
        )
    }

    /// Whether it needs a language model.
    #[must_use]
    pub fn needs_model(&self) -> bool {
        self.nodes.values().any(|node| {
            matches!(node.kind, NodeKind::Loop(_))
                || node.edges.iter().any(|edge| matches!(edge.condition, Condition::Model(_)))
        })
    }

    /// The node at which the branches of a fork come together; none when they do not.
    #[must_use]
    pub fn join(&self, targets: &[&str]) -> Option<&str> {
        join::nearest(&self.nodes, targets)
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

/// The JSON Schema of a definition, for editors. What it admits is checked further when it is loaded.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(shape::File)
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
