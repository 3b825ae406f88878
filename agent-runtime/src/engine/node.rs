//! One node of one branch: run, with its effects journalled as its kind asks for.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::Instrument as _;

use super::plan::Choice;
use super::step::{Outcome, Step};
use super::{Engine, exec, fill, plan};
use crate::definition::{Agent, Edge, Node, NodeKind};
use crate::gate::ExecutionPermit;
use crate::llm::{Message, Request, Tool};
use crate::store::{About, Branch, Entry, Error, Used, What, day_key};
use crate::trace::{self, TraceContext};

/// How long a person has to say what became of an uncertain effect.
const EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most tokens of a decision among edges.
const DECISION_TOKENS: u32 = 256;

/// What came of a branch's node, with the edges that the model chose.
pub(super) type Settled = (String, Result<(Outcome, Choice), Error>);

/// A branch at work.
pub(super) struct Run<'a> {
    pub(super) execution: &'a str,
    pub(super) agent: Arc<Agent>,
    pub(super) id: String,
    pub(super) branch: Branch,
    /// What the branch sees.
    pub(super) memory: Map<String, Value>,
    pub(super) permit: &'a ExecutionPermit,
    /// Tokens of the execution, added to as they are used.
    pub(super) tokens: &'a AtomicI64,
    /// Its place in a trace.
    pub(super) trace: Option<TraceContext>,
}

impl Run<'_> {
    /// The key of a step, the same whenever it is repeated.
    pub(super) fn key(&self, step: &str) -> String {
        format!("{}/{}/{}/{}/{step}", self.execution, self.id, self.branch.node, self.branch.visit)
    }
}

impl Engine {
    /// Runs a branch's node. The edges that the model chose come with a success.
    pub(super) async fn run_node(&self, mut run: Run<'_>) -> Settled {
        let kind = run.agent.nodes.get(&run.branch.node).map_or("unknown", |node| node.kind.as_str());
        let span = trace::node(kind, &run.id, &run.branch);
        run.trace = TraceContext::of_span(&span).or(run.trace);
        let settled = self.run_and_decide(&run).instrument(span.clone()).await;
        if let Ok((outcome, _)) = &settled {
            trace::settled(&span, outcome);
        }
        (run.id, settled)
    }

    async fn run_and_decide(&self, run: &Run<'_>) -> Result<(Outcome, Choice), Error> {
        match self.run_within_day(run).await? {
            Outcome::Success(outputs) => self.decide(run, outputs).await,
            other => Ok((other, Choice::new())),
        }
    }

    /// Runs a node if the day has a step left for it. One that has not ended gives its step back.
    async fn run_within_day(&self, run: &Run<'_>) -> Result<Outcome, Error> {
        let limit = run.agent.limits.steps_per_day;
        if limit == 0 {
            return self.run_kind(run).await;
        }
        let day = day_key("steps", Timestamp::now());
        let used = |amount| Used { key: day.clone(), amount };
        if self.store.reserve(run.execution, vec![(used(1), limit)]).await?.is_some() {
            return Ok(Outcome::failed("limit", format!("graph.limits.steps_per_day of {limit} is used up")));
        }
        let outcome = self.run_kind(run).await?;
        if matches!(outcome, Outcome::Interrupted | Outcome::Parked(_) | Outcome::Asks { .. }) {
            self.store.append(run.execution.to_owned(), Vec::new(), vec![used(-1)]).await?;
        }
        Ok(outcome)
    }

    async fn run_kind(&self, run: &Run<'_>) -> Result<Outcome, Error> {
        let id = run.branch.node.as_str();
        let Some(node) = run.agent.nodes.get(id) else {
            return Ok(Outcome::failed("input", format!("there is no node {id:?}")));
        };
        if node.once
            && let Some(outcome) = self.intend(run).await?
        {
            return Ok(outcome);
        }
        let (idempotency_key, trace) = (run.key("0"), run.trace.as_ref());
        let step = Step { execution: run.execution, idempotency_key, permit: run.permit, trace };
        let raw = match &node.kind {
            NodeKind::Wait(_) if run.branch.waited => Outcome::Success(Map::new()),
            NodeKind::Wait(length) => return Ok(Outcome::Parked(*length)),
            NodeKind::Exec(program) => {
                let Some(_held) = run.permit.step(id) else { return Ok(Outcome::Interrupted) };
                let inputs = fill::inputs(&node.inputs, &run.memory);
                exec::run(program, &inputs, &run.memory, &step, !node.outputs.is_empty()).await
            }
            NodeKind::Http(request) => {
                let Some(_held) = run.permit.step(id) else { return Ok(Outcome::Interrupted) };
                self.requests.run(request, &run.memory, &step).await
            }
            NodeKind::Loop(event_loop) => self.converse(run, node, event_loop).await?,
            // It does nothing itself: what it hands in is what is there.
            NodeKind::Pass => return Ok(Outcome::Success(fill::inputs(&keys(node), &run.memory))),
            NodeKind::Ask(question) => self.ask_person(run, node, question).await?,
        };
        self.telemetry.stepped(node.kind.as_str(), &raw);
        Ok(match raw {
            Outcome::Success(raw) => outputs(node, &raw),
            other => other,
        })
    }

    /// What a person answered to a node's own question; asks it when they have not been asked.
    async fn ask_person(&self, run: &Run<'_>, node: &Node, question: &str) -> Result<Outcome, Error> {
        let place = (&run.id, &run.branch.node, run.branch.visit, run.branch.attempt);
        let journal = self.store.journal(run.execution, 0, usize::MAX).await?;
        let said = journal.into_iter().rev().map(|(_, entry)| entry).find_map(|entry| match entry.what {
            What::Input { value } if (&entry.branch, &entry.node, entry.visit, entry.attempt) == place => Some(value),
            _ => None,
        });
        Ok(match said {
            Some(value) => Outcome::Success(plan::spread(node, &value)),
            None => {
                let question = fill::prompt(question, &node.inputs, &run.memory);
                Outcome::Asks { question, call: None, about: About::Input, expires: EXPIRES }
            }
        })
    }

    /// Commits the intent of an effect that must not be repeated. One that was left unfinished waits
    /// for a person instead.
    async fn intend(&self, run: &Run<'_>) -> Result<Option<Outcome>, Error> {
        let of_visit =
            |entry: &Entry| (&entry.branch, &entry.node, entry.visit) == (&run.id, &run.branch.node, run.branch.visit);
        let journal = self.store.journal(run.execution, 0, usize::MAX).await?;
        let last = journal
            .iter()
            .rev()
            .map(|(_, entry)| entry)
            .filter(|entry| of_visit(entry))
            .find(|entry| matches!(entry.what, What::Intended { .. } | What::Failed { .. } | What::Input { .. }));
        if last.is_some_and(|entry| matches!(entry.what, What::Intended { .. })) {
            let question = format!(
                "{} was begun and a crash or an interruption hid its end. Answer {{\"action\": \"retry\"}}, \
                 {{\"action\": \"use\", \"output\": {{..}}}} or {{\"action\": \"fail\"}}",
                run.branch.node
            );
            let about = About::Uncertain;
            return Ok(Some(Outcome::Asks { question, call: None, about, expires: EXPIRES }));
        }
        // Without a permit nothing begins, and so nothing is intended.
        let Some(_held) = run.permit.step(&run.branch.node) else { return Ok(Some(Outcome::Interrupted)) };
        self.note(run, vec![What::Intended { call: None }], Vec::new()).await?;
        Ok(None)
    }

    /// Asks the model which of the edges that are its to decide are to be followed.
    async fn decide(&self, run: &Run<'_>, outputs: Map<String, Value>) -> Result<(Outcome, Choice), Error> {
        let edges = run.agent.nodes.get(&run.branch.node).map(plan::wants_model).unwrap_or_default();
        if edges.is_empty() {
            return Ok((Outcome::Success(outputs), Choice::new()));
        }
        let Some(client) = self.model() else {
            let reason =
                "an edge is the model's to decide, and none is configured: set HIVE_LLM_API_KEY and HIVE_LLM_MODEL";
            return Ok((Outcome::failed("llm", reason), Choice::new()));
        };
        let Some(_held) = run.permit.step(&run.branch.node) else { return Ok((Outcome::Interrupted, Choice::new())) };
        let (text, tool) = ballot(run, &outputs, &edges);
        let (messages, key) = ([Message::User { text }], run.key("edges"));
        let request = Request {
            model: None,
            system: "You decide how a workflow goes on. Call follow with the edges whose condition holds.",
            messages: &messages,
            tools: std::slice::from_ref(&tool),
            max_tokens: DECISION_TOKENS,
            idempotency_key: &key,
        };
        match self.call_model(run, &client, &request).await? {
            Ok((answer, used)) => {
                let named = answer.calls.iter().filter_map(|call| call.arguments.get("edges")?.as_array()).flatten();
                let known = |id: &&str| edges.iter().any(|(edge, _)| edge.id == **id);
                let most =
                    if run.agent.nodes.get(&run.branch.node).is_some_and(|node| node.one_way) { 1 } else { usize::MAX };
                let named = named.filter_map(Value::as_str).filter(known).take(most);
                let choice: Choice = named.map(str::to_owned).collect();
                let decided = What::Decided { edges: choice.iter().cloned().collect(), usage: answer.usage };
                self.note(run, vec![decided], used).await?;
                Ok((Outcome::Success(outputs), choice))
            }
            Err(outcome) => Ok((outcome, Choice::new())),
        }
    }
}

/// What the model is asked about edges, and the tool with which it answers.
fn ballot(run: &Run<'_>, outputs: &Map<String, Value>, edges: &[(&Edge, &str)]) -> (String, Tool) {
    let outcome = Value::Object(outputs.clone());
    let each = edges.iter().map(|(edge, question)| format!("- {}: to {}, if: {question}", edge.id, edge.target));
    let text =
        format!("{} has succeeded with {outcome}.\nEdges:\n{}", run.branch.node, each.collect::<Vec<_>>().join("\n"));
    let ids: Vec<&str> = edges.iter().map(|(edge, _)| edge.id.as_str()).collect();
    let schema = serde_json::json!({
        "type": "object",
        "properties": {"edges": {"type": "array", "items": {"type": "string", "enum": ids}}},
        "required": ["edges"],
    });
    (text, Tool { name: "follow".to_owned(), description: "Names the edges to follow.".to_owned(), schema })
}

fn keys(node: &Node) -> Vec<String> {
    node.outputs.iter().map(|output| output.key.clone()).collect()
}

/// Picks the declared keys; one that is missing fails the node unless it may be null.
fn outputs(node: &Node, raw: &Map<String, Value>) -> Outcome {
    let mut outputs = Map::new();
    for output in &node.outputs {
        match raw.get(&output.key).filter(|value| !value.is_null()) {
            Some(value) => drop(outputs.insert(output.key.clone(), value.clone())),
            None if output.nullable => drop(outputs.insert(output.key.clone(), Value::Null)),
            None => return Outcome::failed("output", format!("it gave no output {:?}", output.key)),
        }
    }
    Outcome::Success(outputs)
}
