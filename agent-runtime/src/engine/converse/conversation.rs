//! A conversation with the model as it stands in the journal, and what comes next in it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::definition::{EventLoop, Output};
use crate::engine::plan::{SAID_TO_HAVE_FAILED, Verdict, verdict};
use crate::engine::step::Failure;
use crate::llm::{Answer, Call, Message};
use crate::store::{Entry, What};

/// The tool with which the model gives an output.
pub(super) const SET_OUTPUT: &str = "set_output";
/// The tool with which it asks a person.
pub(super) const ASK_USER: &str = "ask_user";

/// Which attempt at which visit of which node a conversation belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) branch: String,
    pub(super) node: String,
    pub(super) visit: u32,
    pub(super) attempt: u32,
}

impl Place {
    fn is_of(&self, entry: &Entry) -> bool {
        self.is_visit_of(entry) && self.attempt == entry.attempt
    }

    fn is_visit_of(&self, entry: &Entry) -> bool {
        (&self.branch, &self.node, self.visit) == (&entry.branch, &entry.node, entry.visit)
    }

    /// Whether an entry belongs to this branch or to one that it came from.
    fn follows(&self, entry: &Entry) -> bool {
        let rest = self.branch.strip_prefix(entry.branch.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// What has been said and done so far.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) messages: Vec<Message>,
    pub(super) outputs: Map<String, Value>,
    /// Answers of the model in this attempt.
    pub(super) turns: u32,
    /// Answers of the model in this visit, which number its steps.
    pub(super) step: u32,
    /// Calls of the last answer that have no result yet.
    pub(super) pending: Vec<Call>,
    /// Those of them that were begun, must not be repeated, and whose end is not known.
    uncertain: BTreeSet<String>,
    /// The task has been told.
    pub(super) begun: bool,
    reminders: u32,
    /// How often the last answer was given running.
    repeated: u32,
    last: Option<Answer>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Ask the model.
    Ask,
    /// Run these calls.
    Run(Vec<Call>),
    /// Wait for a person to say what became of a call.
    Uncertain(Call),
    /// Wait for a person; with the id of the call that asks, if it is one.
    Person(String, Option<String>),
    /// Remind the model of what is missing.
    Remind(String),
    /// The node has succeeded with these outputs.
    Done(Map<String, Value>),
    /// The node has failed.
    Fail(Failure),
}

/// Reads a conversation from the journal of its execution. In a continuous one, what was said at
/// earlier nodes of the branch comes first.
pub(super) fn read(entries: &[Entry], place: &Place, outputs: &[Output], continuous: bool) -> Conversation {
    let mut conversation = Conversation::default();
    let mut spoken: Vec<(&Entry, Message)> = Vec::new();
    let mut asked: Option<&Option<String>> = None;
    let mut calls = Calls::default();
    for entry in entries {
        let here = place.is_of(entry);
        if place.is_visit_of(entry) && matches!(entry.what, What::Answered { .. }) {
            conversation.step += 1;
        }
        let heard = here || (continuous && place.follows(entry));
        if !heard {
            continue;
        }
        calls.take_in(entry);
        let judged = match (&entry.what, asked) {
            (What::Input { value }, Some(Some(call))) => calls.judge(call, value),
            _ => None,
        };
        if here {
            conversation.take_in(entry, outputs, judged.as_ref());
        }
        if let Some(judged) = judged {
            asked = None;
            spoken.extend(judged.told.map(|told| (entry, told)));
            continue;
        }
        match &entry.what {
            What::Said { text, .. } => spoken.push((entry, Message::User { text: text.clone() })),
            What::Answered { answer } => {
                let (text, calls) = (answer.text.clone(), answer.calls.clone());
                spoken.push((entry, Message::Assistant { text, calls }));
            }
            What::Called { call, tool, content, is_error } => {
                let (name, content) = (tool.clone(), content.clone());
                spoken.push((entry, Message::Tool { call: call.clone(), name, content, is_error: *is_error }));
            }
            What::Asked { call, .. } => asked = Some(call),
            What::Input { value } => {
                let said = plain(value);
                let message = match asked.take() {
                    Some(Some(call)) => {
                        Message::Tool { call: call.clone(), name: ASK_USER.to_owned(), content: said, is_error: false }
                    }
                    Some(None) | None => Message::User { text: said },
                };
                spoken.push((entry, message));
            }
            // What was said in an attempt that failed is not gone on from.
            What::Failed { .. } => spoken.retain(|(before, _)| {
                (&before.branch, &before.node, before.visit, before.attempt)
                    != (&entry.branch, &entry.node, entry.visit, entry.attempt)
            }),
            What::Begun
            | What::Intended { .. }
            | What::Succeeded { .. }
            | What::Decided { .. }
            | What::State { .. } => {}
        }
    }
    conversation.uncertain = calls.begun;
    conversation.messages = spoken.into_iter().map(|(_, message)| message).collect();
    conversation
}

/// Calls of tools by their id, as far as a person may have to say what became of them.
#[derive(Debug, Default)]
struct Calls<'a> {
    tools: BTreeMap<&'a str, &'a str>,
    /// Begun, not to be repeated, and without a result.
    begun: BTreeSet<String>,
}

/// What a person said of a call.
#[derive(Debug)]
struct Judged {
    call: String,
    /// What the model is told; nothing when the call is to be begun again.
    told: Option<Message>,
}

impl<'a> Calls<'a> {
    fn take_in(&mut self, entry: &'a Entry) {
        match &entry.what {
            What::Answered { answer } => {
                self.tools.extend(answer.calls.iter().map(|call| (call.id.as_str(), call.name.as_str())));
            }
            What::Intended { call: Some(call) } => drop(self.begun.insert(call.clone())),
            What::Called { call, .. } => drop(self.begun.remove(call)),
            // The next attempt begins anew.
            What::Failed { .. } => self.begun.clear(),
            What::Begun
            | What::Intended { call: None }
            | What::Said { .. }
            | What::Asked { .. }
            | What::Input { .. }
            | What::Succeeded { .. }
            | What::Decided { .. }
            | What::State { .. } => {}
        }
    }

    /// None if the answer is not about a call whose end is not known.
    fn judge(&mut self, call: &str, value: &Value) -> Option<Judged> {
        let verdict = self.begun.contains(call).then(|| verdict(value)).flatten()?;
        self.begun.remove(call);
        let name = self.tools.get(call).copied().unwrap_or_default().to_owned();
        let told = |content, is_error| Some(Message::Tool { call: call.to_owned(), name, content, is_error });
        let told = match verdict {
            Verdict::Retry => None,
            Verdict::Use(output) => told(plain(output), false),
            Verdict::Fail => told(SAID_TO_HAVE_FAILED.to_owned(), true),
        };
        Some(Judged { call: call.to_owned(), told })
    }
}

impl Conversation {
    fn take_in(&mut self, entry: &Entry, outputs: &[Output], judged: Option<&Judged>) {
        if let Some(judged) = judged {
            self.pending.retain(|call| call.id != judged.call || judged.told.is_none());
            return;
        }
        match &entry.what {
            What::Said { reminder, .. } => {
                self.begun = true;
                self.reminders += u32::from(*reminder);
            }
            What::Answered { answer } => {
                self.turns += 1;
                let same = self.last.as_ref().is_some_and(|last| says_the_same(last, answer));
                self.repeated = if same { self.repeated + 1 } else { 1 };
                self.pending.clone_from(&answer.calls);
                self.last = Some(answer.clone());
            }
            What::Called { call, tool, is_error, .. } => {
                if let Some(index) = self.pending.iter().position(|pending| pending.id == *call) {
                    let call = self.pending.remove(index);
                    if tool == SET_OUTPUT
                        && !is_error
                        && let Ok((key, value)) = output(outputs, &call.arguments)
                    {
                        self.outputs.insert(key, value);
                        self.reminders = 0;
                    }
                }
            }
            What::Input { .. } => {
                self.pending.retain(|call| call.name != ASK_USER);
                self.repeated = 0;
                self.last = None;
            }
            What::Begun
            | What::Intended { .. }
            | What::Asked { .. }
            | What::Succeeded { .. }
            | What::Failed { .. }
            | What::Decided { .. }
            | What::State { .. } => {}
        }
    }

    /// What comes next.
    pub(super) fn next(&self, event_loop: &EventLoop, outputs: &[Output]) -> Next {
        let (uncertain, known): (Vec<&Call>, Vec<&Call>) =
            self.pending.iter().partition(|call| self.uncertain.contains(&call.id));
        let (asks, runs): (Vec<&Call>, Vec<&Call>) = known.into_iter().partition(|call| call.name == ASK_USER);
        if !runs.is_empty() {
            return Next::Run(runs.into_iter().cloned().collect());
        }
        if let Some(call) = uncertain.first() {
            return Next::Uncertain((*call).clone());
        }
        if let Some(call) = asks.first() {
            let question = call.arguments.get("question").map(plain).unwrap_or_default();
            return Next::Person(question, Some(call.id.clone()));
        }
        if event_loop.stall_after > 0 && self.repeated >= event_loop.stall_after {
            let reason = format!("the model gave the same answer {} times running", self.repeated);
            return Next::Fail(Failure::new("stall", reason));
        }
        if let (Some(Message::Assistant { text, calls }), Some(_)) = (self.messages.last(), &self.last)
            && calls.is_empty()
        {
            return self.after_words(text, event_loop, outputs);
        }
        if self.turns >= event_loop.max_iterations {
            let reason = format!("{} answers of the model without an end, loop_config.max_iterations", self.turns);
            return Next::Fail(Failure::new("iterations", reason));
        }
        Next::Ask
    }

    /// The model has stopped calling tools.
    fn after_words(&self, text: &str, event_loop: &EventLoop, outputs: &[Output]) -> Next {
        let missing: Vec<&str> = outputs
            .iter()
            .filter(|output| !output.nullable && !self.outputs.contains_key(&output.key))
            .map(|output| output.key.as_str())
            .collect();
        if missing.is_empty() {
            return Next::Done(self.outputs.clone());
        }
        if event_loop.client_facing && !text.trim().is_empty() {
            return Next::Person(text.to_owned(), None);
        }
        let missing = missing.join(", ");
        if self.reminders < event_loop.max_reminders {
            return Next::Remind(format!("Call set_output for each output that is still missing: {missing}."));
        }
        Next::Fail(Failure::new("validation", format!("the model did not set {missing}")))
    }
}

fn says_the_same(one: &Answer, other: &Answer) -> bool {
    let calls = |answer: &Answer| -> Vec<(String, Map<String, Value>)> {
        answer.calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
    };
    one.text == other.text && calls(one) == calls(other)
}

/// The output that a call of `set_output` gives, or what the model is told about its mistake.
pub(super) fn output(outputs: &[Output], arguments: &Map<String, Value>) -> Result<(String, Value), String> {
    let names = || outputs.iter().map(|output| output.key.as_str()).collect::<Vec<_>>().join(", ");
    let Some(key) = arguments.get("key").and_then(Value::as_str) else {
        return Err(format!("give key, one of {}, and value", names()));
    };
    let Some(declared) = outputs.iter().find(|output| output.key == key) else {
        return Err(format!("there is no output {key:?}: the outputs are {}", names()));
    };
    let value = arguments.get("value").cloned().unwrap_or(Value::Null);
    if value.is_null() && !declared.nullable {
        return Err(format!("{key} must have a value"));
    }
    match declared.of_type.as_deref() {
        Some(wanted) if !value.is_null() => typed(wanted, value)
            .map(|value| (key.to_owned(), value))
            .ok_or_else(|| format!("{key} must be of type {wanted}")),
        Some(_) | None => Ok((key.to_owned(), value)),
    }
}

/// The value, if it is of a type; models often write JSON into a string.
fn typed(wanted: &str, value: Value) -> Option<Value> {
    let fits = |value: &Value| match wanted {
        "string" | "str" => value.is_string(),
        "integer" | "int" => value.is_i64() || value.is_u64(),
        "number" | "float" => value.is_number(),
        "boolean" | "bool" => value.is_boolean(),
        "array" | "list" => value.is_array(),
        "object" | "dict" => value.is_object(),
        _ => true,
    };
    if fits(&value) {
        return Some(value);
    }
    value.as_str().and_then(|text| serde_json::from_str(text).ok()).filter(fits)
}

/// A value as text: strings stand as they are.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
