//! The spans, by OpenTelemetry's semantic conventions where they have a word, under `hive.` where they
//! have none.

use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{TARGET, TraceContext};
use crate::engine::step::{Failure, Outcome};
use crate::llm::{Answer, Call};
use crate::store::{Branch, Execution, State};
use crate::tools::Output;

/// A request that may begin executions; the parent is the sender's span.
pub(crate) fn trigger(method: &Method, path: &str, route: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TARGET,
        "trigger",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        url.path = path,
        http.response.status_code = Empty,
        hive.execution.id = Empty,
    );
    adopt(&span, TraceContext::of_headers(headers).as_ref());
    span
}

/// The answer to what began with [`trigger`].
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// A timer's tick.
pub(crate) fn tick(entry_point: &str, due: Timestamp) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        "tick",
        otel.name = %format_args!("timer {entry_point}"),
        hive.entry_point = entry_point,
        hive.timer.due = %due,
        hive.execution.id = Empty,
    )
}

/// The time for which an execution holds its permit. One that was parked or crashed has several.
pub(crate) fn execution(execution: &Execution, agent: Option<&str>) -> Span {
    let agent = agent.filter(|name| !name.is_empty());
    let span = info_span!(
        target: TARGET,
        parent: None,
        "invoke_agent",
        otel.name = %format_args!("invoke_agent{}{}", if agent.is_some() { " " } else { "" }, agent.unwrap_or_default()),
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        gen_ai.operation.name = "invoke_agent",
        gen_ai.agent.name = agent,
        gen_ai.conversation.id = execution.id,
        hive.execution.id = execution.id,
        hive.entry_point = execution.entry_point,
        hive.definition.hash = execution.definition,
        hive.execution.state = Empty,
    );
    adopt(&span, execution.trace.as_ref());
    span
}

/// How an execution stands when its permit goes back.
pub(crate) fn rested(span: &Span, execution: &Execution) {
    span.record("hive.execution.state", execution.state.as_str());
    if execution.state == State::Failed {
        fail(span, execution.reason.as_deref().unwrap_or("failed"), execution.error.as_deref().unwrap_or_default());
    }
}

/// A node of a branch, once.
pub(crate) fn node(kind: &str, id: &str, branch: &Branch) -> Span {
    info_span!(
        target: TARGET,
        "node",
        otel.name = %format_args!("node {}", branch.node),
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        hive.node.id = branch.node,
        hive.node.kind = kind,
        hive.node.result = Empty,
        hive.branch = id,
        hive.visit = branch.visit,
        hive.attempt = branch.attempt,
    )
}

/// What came of a node.
pub(crate) fn settled(span: &Span, outcome: &Outcome) {
    let result = match outcome {
        Outcome::Success(_) => "success",
        Outcome::Failure(Failure { kind, reason }) => {
            fail(span, kind, reason);
            "failure"
        }
        Outcome::Interrupted => "interrupted",
        Outcome::Parked(_) => "parked",
        Outcome::Asks { .. } => "asks",
    };
    span.record("hive.node.result", result);
}

/// A call of a language model, with all its attempts.
pub(crate) fn model(provider: &str, name: &str, host: &str, max_tokens: u32) -> Span {
    info_span!(
        target: TARGET,
        "chat",
        otel.name = %format_args!("chat {name}"),
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = provider,
        gen_ai.request.model = name,
        gen_ai.request.max_tokens = max_tokens,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        server.address = host,
    )
}

/// What a model answered.
pub(crate) fn asked(span: &Span, answer: &Answer) {
    span.record("gen_ai.usage.input_tokens", answer.usage.input_tokens);
    span.record("gen_ai.usage.output_tokens", answer.usage.output_tokens);
}

/// A call of a tool.
pub(crate) fn tool(call: &Call) -> Span {
    info_span!(
        target: TARGET,
        "execute_tool",
        otel.name = %format_args!("execute_tool {}", call.name),
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = call.name,
        gen_ai.tool.call.id = call.id,
        gen_ai.tool.type = "function",
    )
}

/// What a tool answered. Its words are the agent's and stay out of the trace.
pub(crate) fn called(span: &Span, output: &Output) {
    if output.is_error {
        fail(span, "tool_error", "the tool answered with an error");
    }
}

/// A request of a node. What stands behind a question mark, or before an @, may be secret.
pub(crate) fn request(method: &Method, uri: &Uri) -> Span {
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    info_span!(
        target: TARGET,
        "request",
        otel.name = %method,
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        http.request.method = %method,
        http.response.status_code = Empty,
        server.address = host,
        server.port = port,
        url.full = %format_args!("{scheme}://{host}:{port}{}", uri.path()),
    )
}

/// Marks a span as failed.
pub(crate) fn failed(span: &Span, failure: &Failure) {
    fail(span, failure.kind, &failure.reason);
}

fn fail(span: &Span, kind: &str, reason: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", reason);
    span.record("error.type", kind);
}

/// Makes a place in a trace the parent of a span that has just been made.
fn adopt(span: &Span, parent: Option<&TraceContext>) {
    if let Some(parent) = parent {
        // Without a collector there is no span to have a parent.
        let _ = span.set_parent(parent.context());
    }
}
