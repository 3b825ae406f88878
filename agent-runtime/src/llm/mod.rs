//! Language models: one client for the two wire formats of the field, OpenAI's chat completions and
//! Anthropic's messages. Answers are streamed, so that one that hangs is told from one that is long.

mod anthropic;
mod client;
mod openai;
mod settings;
mod stream;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use client::{Client, Error};
pub use settings::{Format, Settings};

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// By a person, or by the runtime on behalf of one.
    User {
        /// What.
        text: String,
    },
    /// By the model.
    Assistant {
        /// What.
        text: String,
        /// The tools that it called.
        calls: Vec<Call>,
    },
    /// By a tool.
    Tool {
        /// The call that it answers.
        call: String,
        /// The tool.
        name: String,
        /// What.
        content: String,
        /// The call failed.
        is_error: bool,
    },
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The call's id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments. What is no JSON object stands under `_raw`.
    pub arguments: Map<String, Value>,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments.
    pub schema: Value,
}

/// What the model is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model, if it is not the configured one.
    pub model: Option<&'a str>,
    /// Who it is.
    pub system: &'a str,
    /// What was said so far.
    pub messages: &'a [Message],
    /// What it may call.
    pub tools: &'a [Tool],
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// The same at every repetition.
    pub idempotency_key: &'a str,
}

/// What the model answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// The tools that it calls.
    pub calls: Vec<Call>,
    /// What it cost.
    pub usage: Usage,
    /// It ended because it reached the most tokens.
    pub truncated: bool,
}

/// Tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Read by the model.
    pub input_tokens: i64,
    /// Written by it.
    pub output_tokens: i64,
}

/// A call as it comes in, piece by piece.
#[derive(Clone, Debug, Default)]
struct Part {
    id: String,
    name: String,
    arguments: String,
}

/// An answer as it comes in.
#[derive(Clone, Debug, Default)]
struct Partial {
    text: String,
    calls: std::collections::BTreeMap<u64, Part>,
    usage: Usage,
    truncated: bool,
    /// The server said that it is whole.
    ended: bool,
}

impl Partial {
    fn bytes(&self) -> usize {
        self.text.len() + self.calls.values().map(|part| part.arguments.len()).sum::<usize>()
    }

    fn finish(self) -> Answer {
        let calls = self.calls.into_iter().map(|(n, part)| Call {
            id: if part.id.is_empty() { format!("call_{n}") } else { part.id },
            name: part.name,
            arguments: arguments(&part.arguments),
        });
        Answer { text: self.text, calls: calls.collect(), usage: self.usage, truncated: self.truncated }
    }
}

/// The arguments of a call. Models write what is no JSON now and then, and are told so by the tool.
fn arguments(text: &str) -> Map<String, Value> {
    match serde_json::from_str(if text.trim().is_empty() { "{}" } else { text }) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::from_iter([("_raw".to_owned(), Value::String(text.to_owned()))]),
    }
}
