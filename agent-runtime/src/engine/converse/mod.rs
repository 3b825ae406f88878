//! A node of a language model: each answer and each tool's result is in the journal before the next step.

mod conversation;
mod prompt;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tracing::Instrument as _;

use super::Engine;
use super::node::Run;
use super::step::{Failure, Outcome};
use crate::definition::{EventLoop, Node, NodeKind};
use crate::llm::{self, Answer, Call};
use crate::store::{About, Entry, Error, Used, What, day_key, execution_key};
use crate::tools::{self, Cx, Output as ToolOutput, Toolbox};
use crate::trace::{self, TraceContext};
use conversation::{Conversation, Next, Place, SET_OUTPUT};

/// How long a person has for an answer.
const EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of a prompt for each token, at least: what is reserved before a call.
const BYTES_PER_TOKEN: usize = 3;

impl Engine {
    /// Runs a conversation until its node is done, asks a person, or fails.
    pub(super) async fn converse(&self, run: &Run<'_>, node: &Node, event_loop: &EventLoop) -> Result<Outcome, Error> {
        let Some(client) = self.model() else {
            return Ok(Outcome::failed(
                "llm",
                "no language model is configured: set HIVE_LLM_API_KEY and HIVE_LLM_MODEL",
            ));
        };
        let toolbox = self.toolbox();
        let mut entries: Vec<Entry> =
            self.store.journal(run.execution, 0, usize::MAX).await?.into_iter().map(|(_, entry)| entry).collect();
        let place = Place {
            branch: run.id.clone(),
            node: run.branch.node.clone(),
            visit: run.branch.visit,
            attempt: run.branch.attempt,
        };
        loop {
            let talk = conversation::read(&entries, &place, &node.outputs, run.agent.continuous);
            if !talk.begun {
                let text = prompt::task(&run.branch.node, node, &run.memory);
                entries.extend(self.note(run, vec![What::Said { text, reminder: false }], Vec::new()).await?);
                continue;
            }
            let fresh = match talk.next(event_loop, &node.outputs) {
                Next::Done(outputs) => return Ok(Outcome::Success(outputs)),
                Next::Fail(failure) => return Ok(Outcome::Failure(failure)),
                Next::Uncertain(call) => return Ok(uncertain(&call)),
                Next::Person(question, call) => {
                    return Ok(Outcome::Asks { question, call, about: About::Input, expires: EXPIRES });
                }
                Next::Remind(text) => self.note(run, vec![What::Said { text, reminder: true }], Vec::new()).await?,
                Next::Run(calls) => match self.run_calls(run, node, &talk, calls, &toolbox).await? {
                    Some(fresh) => fresh,
                    None => return Ok(Outcome::Interrupted),
                },
                Next::Ask => match self.ask(run, node, event_loop, &talk, &client, &toolbox).await? {
                    Ok(fresh) => fresh,
                    Err(outcome) => return Ok(outcome),
                },
            };
            entries.extend(fresh);
        }
    }

    /// One call of the model.
    async fn ask(
        &self,
        run: &Run<'_>,
        node: &Node,
        event_loop: &EventLoop,
        talk: &Conversation,
        client: &llm::Client,
        toolbox: &Toolbox,
    ) -> Result<Result<Vec<Entry>, Outcome>, Error> {
        let Some(_held) = run.permit.step(&run.branch.node) else { return Ok(Err(Outcome::Interrupted)) };
        let system = prompt::system(&run.agent.identity, node, event_loop, &run.memory);
        let tools = prompt::tools(node, event_loop, toolbox);
        let key = run.key(&talk.step.to_string());
        let request = llm::Request {
            model: event_loop.model.as_deref(),
            system: &system,
            messages: &talk.messages,
            tools: &tools,
            max_tokens: event_loop.max_tokens,
            idempotency_key: &key,
        };
        match self.call_model(run, client, &request).await? {
            Ok((answer, settled)) => Ok(Ok(self.note(run, vec![What::Answered { answer }], settled).await?)),
            Err(outcome) => Ok(Err(outcome)),
        }
    }

    /// Asks the model within the limits of tokens: what it may use is reserved first, and what it did
    /// not use is given back with its answer.
    pub(super) async fn call_model(
        &self,
        run: &Run<'_>,
        client: &llm::Client,
        request: &llm::Request<'_>,
    ) -> Result<Result<(Answer, Vec<Used>), Outcome>, Error> {
        let said = serde_json::to_vec(request.messages).map_or(0, |bytes| bytes.len()) + request.system.len();
        let estimate = i64::try_from(said / BYTES_PER_TOKEN).unwrap_or(i64::MAX) + i64::from(request.max_tokens);
        let day = day_key("tokens", Timestamp::now());
        let limits = [(execution_key(run.execution), run.agent.limits.tokens), (day, run.agent.limits.tokens_per_day)];
        let used = |key: &String, amount| Used { key: key.clone(), amount };
        let limited = limits.iter().filter(|(_, limit)| *limit > 0);
        let reserved: Vec<(Used, i64)> = limited.map(|(key, limit)| (used(key, estimate), *limit)).collect();
        if !reserved.is_empty()
            && let Some(key) = self.store.reserve(run.execution, reserved).await?
        {
            let which = if key.starts_with("execution/") { "tokens" } else { "tokens_per_day" };
            let reason = format!("graph.limits.{which} would be exceeded by the next call of the model");
            return Ok(Err(Outcome::failed("limit", reason)));
        }
        let settle = |actual: i64| -> Vec<Used> {
            let amount = |limit: i64| if limit > 0 { actual - estimate } else { actual };
            limits.iter().map(|(key, limit)| used(key, amount(*limit))).collect()
        };
        let span = client.span(request);
        let answered = tokio::select! {
            answered = client.complete(request, |_| {}).instrument(span.clone()) => answered,
            () = run.permit.interrupted() => {
                self.store.append(run.execution.to_owned(), Vec::new(), settle(0)).await?;
                return Ok(Err(Outcome::Interrupted));
            }
        };
        self.telemetry.called_model(answered.as_ref().ok().map(|answer| answer.usage));
        match answered {
            Ok(answer) => {
                trace::asked(&span, &answer);
                let tokens = answer.usage.input_tokens + answer.usage.output_tokens;
                run.tokens.fetch_add(tokens, std::sync::atomic::Ordering::Relaxed);
                Ok(Ok((answer, settle(tokens))))
            }
            Err(error) => {
                self.store.append(run.execution.to_owned(), Vec::new(), settle(0)).await?;
                let failure = Failure::new("llm", error.to_string());
                trace::failed(&span, &failure);
                Ok(Err(Outcome::Failure(failure)))
            }
        }
    }

    /// Runs calls side by side, and notes each result as it comes. None when they were interrupted.
    async fn run_calls(
        &self,
        run: &Run<'_>,
        node: &Node,
        talk: &Conversation,
        calls: Vec<Call>,
        toolbox: &Arc<Toolbox>,
    ) -> Result<Option<Vec<Entry>>, Error> {
        let Some(_held) = run.permit.step(&run.branch.node) else { return Ok(None) };
        let step = talk.step.saturating_sub(1);
        let once = |name: &str| matches!(&node.kind, NodeKind::Loop(event_loop) if event_loop.once.contains(name));
        let each = calls.into_iter().enumerate().map(|(n, call)| async move {
            let mut noted = Vec::new();
            let once = once(&call.name);
            if once {
                let intended = What::Intended { call: Some(call.id.clone()) };
                noted.extend(self.note(run, vec![intended], Vec::new()).await?);
            }
            let output = if call.name == SET_OUTPUT {
                let told = conversation::output(&node.outputs, &call.arguments);
                let is_error = told.is_err();
                let text = told.map_or_else(|mistake| mistake, |(key, _)| format!("{key} is set"));
                Came::Output(ToolOutput { text, is_error })
            } else {
                // The call's id, and not its place among those that are left, so that a repetition has the same key.
                let key = run.key(&format!("{step}.{}", call_name(&call, n)));
                self.call_tool(run, node, &call, &key, toolbox).await
            };
            let output = match output {
                Came::Output(output) => output,
                Came::Nothing(_) if once => return Ok(Some(noted)),
                Came::Nothing(reason) => ToolOutput { text: reason, is_error: true },
                Came::Interrupted => return Ok(None),
            };
            let what = What::Called { call: call.id, tool: call.name, content: output.text, is_error: output.is_error };
            noted.extend(self.note(run, vec![what], Vec::new()).await?);
            Ok(Some(noted))
        });
        let done: Result<Vec<Option<Vec<Entry>>>, Error> = join_all(each).await.into_iter().collect();
        Ok(done?.into_iter().collect::<Option<Vec<_>>>().map(|all| all.into_iter().flatten().collect()))
    }

    async fn call_tool(&self, run: &Run<'_>, node: &Node, call: &Call, key: &str, toolbox: &Toolbox) -> Came {
        let offered = |event_loop: &EventLoop| event_loop.tools.contains(&call.name);
        if !matches!(&node.kind, NodeKind::Loop(event_loop) if offered(event_loop)) {
            let text = format!("there is no tool {:?} here", call.name);
            return Came::Output(ToolOutput { text, is_error: true });
        }
        let span = trace::tool(call);
        let here = TraceContext::of_span(&span).or_else(|| run.trace.clone());
        let cx = Cx { execution: run.execution, idempotency_key: key, trace: here.as_ref() };
        tokio::select! {
            called = toolbox.call(&call.name, &call.arguments, &cx).instrument(span.clone()) => {
                // One that was lost or too slow may have taken effect all the same.
                let unknown = called.as_ref().is_err_and(tools::Error::may_have_taken_effect);
                let output = called.unwrap_or_else(|error| ToolOutput { text: error.to_string(), is_error: true });
                trace::called(&span, &output);
                self.telemetry.called_tool(!output.is_error);
                if unknown { Came::Nothing(output.text) } else { Came::Output(output) }
            }
            () = run.permit.interrupted() => Came::Interrupted,
        }
    }

    /// Writes what happened to the journal, and shows it to those who follow.
    pub(super) async fn note(&self, run: &Run<'_>, what: Vec<What>, used: Vec<Used>) -> Result<Vec<Entry>, Error> {
        let entry = |what| super::plan::entry(&run.id, Some(&run.branch), what, Timestamp::now());
        let entries: Vec<Entry> = what.into_iter().map(entry).collect();
        let seqs = self.store.append(run.execution.to_owned(), entries.clone(), used).await?;
        self.show(run.execution, seqs, &entries);
        Ok(entries)
    }
}

/// What came of a call of a tool.
enum Came {
    /// This.
    Output(ToolOutput),
    /// No answer, for this reason; it may have taken effect.
    Nothing(String),
    /// It was interrupted, which is no failure.
    Interrupted,
}

/// A person is to say what became of a call.
fn uncertain(call: &Call) -> Outcome {
    let question = format!(
        "the tool {} was called with {} and its end is not known. Answer {{\"action\": \"retry\"}}, \
         {{\"action\": \"use\", \"output\": ..}} or {{\"action\": \"fail\"}}",
        call.name,
        serde_json::Value::Object(call.arguments.clone())
    );
    Outcome::Asks { question, call: Some(call.id.clone()), about: About::Uncertain, expires: EXPIRES }
}

fn call_name(call: &Call, n: usize) -> String {
    if call.id.is_empty() { n.to_string() } else { call.id.clone() }
}
