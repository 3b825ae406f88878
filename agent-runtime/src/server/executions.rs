//! Executions over HTTP: triggers, and looking at what came of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lifecycle::wire::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::extract::{Path, Query};
use super::problem::Refusal;
use crate::control::Admission;
use crate::engine::{Disobeyed, Engine, Happened, Refused};
use crate::store::{Execution, Filter, Key, State as ExecutionState};
use crate::trace::TraceContext;

/// Executions in one page, when nothing else is asked for; and the most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 500;
/// The longest Idempotency-Key.
const MAX_KEY: usize = 255;
/// Seconds after which a refused trigger may be tried again.
const RETRY_SECONDS: u32 = 5;

/// The longest wait for an execution's end.
const MAX_WAIT_SECONDS: u64 = 300;

/// How to wait for the end of what is triggered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// Seconds to wait for the execution's end, at most 300; without it the answer comes at once.
    wait: Option<u64>,
}

/// An execution that is on disk.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// The execution's id.
    execution: String,
    /// The Idempotency-Key was used before, and this is the execution of then.
    repeated: bool,
}

/// Begins an execution. The answer comes when it is on disk.
#[utoipa::path(
    post, path = "/api/v1/entry-points/{id}/trigger",
    params(
        Wait,
        ("id" = String, Path, description = "The entry point"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same execution for 24 hours"),
    ),
    request_body(content = Option<Object>, description = "A JSON object: the execution's memory to begin with"),
    responses(
        (status = 200, description = "With wait: it has ended", body = Execution),
        (status = 202, description = "On disk", body = Accepted),
        (status = 400, description = "The body is no JSON object", body = Problem),
        (status = 404, description = "No such entry point", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 422, description = "The key was used with another body", body = Problem),
        (status = 429, description = "Too many wait", body = Problem),
        (status = 503, description = "Paused, or not there yet", body = Problem),
    )
)]
pub(super) async fn trigger(
    State(app): State<App>,
    Path(entry_point): Path<String>,
    Query(query): Query<Wait>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let memory = memory(&body)?;
    let key = key(&headers, &body)?;
    let wait = query.wait.map(|seconds| Duration::from_secs(seconds.min(MAX_WAIT_SECONDS)));
    accept(&app, entry_point, memory, key, TraceContext::of_headers(&headers), wait).await
}

/// Begins an execution, however it was triggered, and answers. `trace` is where the sender's request stands.
pub(super) async fn accept(
    app: &App,
    entry_point: String,
    memory: Map<String, Value>,
    key: Option<Key>,
    trace: Option<TraceContext>,
    wait: Option<Duration>,
) -> Result<Response, Refusal> {
    let begun = Instant::now();
    let engine = taking(app)?;
    let followed = wait.map(|wait| (wait, engine.follow()));
    // A task of its own: a client that hangs up undoes nothing, and wastes nothing half-way.
    let task = begin(Arc::clone(&engine), entry_point, memory, key, TraceContext::here(trace.as_ref()));
    let accepted = tokio::spawn(task).await.map_err(|error| Refusal::storage(&error))??;
    tracing::Span::current().record("hive.execution.id", &accepted.execution);
    app.controller.telemetry().accepted(begun.elapsed());
    if let Some((wait, followed)) = followed
        && let Some(ended) = end_of(app, &engine, &accepted.execution, followed, wait).await?
    {
        return Ok(Json(ended).into_response());
    }
    let location = format!("/api/v1/executions/{}", accepted.execution);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)).into_response())
}

/// The engine, if it takes work now.
pub(super) fn taking(app: &App) -> Result<Arc<Engine>, Refusal> {
    let unavailable = |kind: &str, detail: &str| {
        Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail).retry_after(RETRY_SECONDS))
    };
    match app.controller.admission() {
        Admission::Open => {}
        Admission::Paused => return unavailable("paused", "the runtime is paused: try again after its resume"),
        Admission::Unavailable => return unavailable("unavailable", "the runtime does not take work now"),
    }
    match app.controller.engine() {
        Some(engine) => Ok(Arc::clone(engine)),
        None => unavailable("unavailable", "the agent is not loaded yet"),
    }
}

/// Waits for an execution's end. None if it has not ended in time, or the server is about to end.
async fn end_of(
    app: &App,
    engine: &Engine,
    id: &str,
    mut followed: Receiver<Arc<Happened>>,
    wait: Duration,
) -> Result<Option<Execution>, Refusal> {
    let ended = async {
        loop {
            match engine.store().get(id).await {
                Ok(Some(execution)) if execution.state.is_terminal() => return Ok(Some(execution)),
                Ok(_) => {}
                Err(error) => return Err(Refusal::storage(&error)),
            }
            loop {
                match followed.recv().await {
                    Ok(happened) if happened.changes(id) => break,
                    Ok(_) => {}
                    // Too much happened to hear it all: the store is looked at again.
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(None),
                }
            }
        }
    };
    tokio::select! {
        ended = ended => ended,
        () = tokio::time::sleep(wait) => Ok(None),
        () = app.controller.closing() => Ok(None),
    }
}

/// Begins an execution in a task of its own, and gives its id.
pub(super) async fn trigger_once(
    engine: &Arc<Engine>,
    entry_point: String,
    memory: Map<String, Value>,
    key: Option<Key>,
    trace: Option<TraceContext>,
) -> Result<String, Refusal> {
    let task = begin(Arc::clone(engine), entry_point, memory, key, TraceContext::here(trace.as_ref()));
    let accepted = tokio::spawn(task).await.map_err(|error| Refusal::storage(&error))??;
    Ok(accepted.execution)
}

async fn begin(
    engine: Arc<Engine>,
    entry_point: String,
    memory: Map<String, Value>,
    key: Option<Key>,
    trace: Option<TraceContext>,
) -> Result<Accepted, Refusal> {
    match engine.begin(&entry_point, memory, key, trace).await {
        Ok(begun) => Ok(Accepted { execution: begun.id, repeated: begun.again }),
        Err(error @ Refused::Unknown(_)) => {
            let known: Vec<String> = engine.agent().entry_points.keys().cloned().collect();
            let detail = format!("{error}; there are {}", known.join(", "));
            Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_entry_point", detail))
        }
        Err(error @ Refused::Full(_)) => {
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", error.to_string());
            Err(refusal.retry_after(RETRY_SECONDS))
        }
        Err(error @ Refused::Clash) => {
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", error.to_string()))
        }
        Err(Refused::Store(error)) => Err(Refusal::storage(&error)),
    }
}

pub(super) fn memory(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the body is no JSON object: {error}")))
}

pub(super) fn key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Key>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    let key =
        key.ok_or_else(|| Refusal::invalid(format!("Idempotency-Key: 1 to {MAX_KEY} visible ASCII characters")))?;
    Ok(Some(Key { key: key.to_owned(), body: Sha256::digest(body).into() }))
}

/// Which page to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Executions in the page, 1 to 500; 50 if not given.
    limit: Option<usize>,
    /// The `next` of the page before.
    before: Option<String>,
    /// Only of this entry point.
    entry_point: Option<String>,
    /// Only in this state.
    state: Option<ExecutionState>,
}

/// One page of executions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Executions {
    executions: Vec<Execution>,
    /// Ask for the next page with `before` set to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The executions, newest first.
#[utoipa::path(get, path = "/api/v1/executions", params(Page), responses(
    (status = 200, body = Executions),
    (status = 503, description = "The store cannot be read", body = Problem),
))]
pub(super) async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<Executions>, Refusal> {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let filter = Filter { entry_point: page.entry_point, state: page.state };
    let executions = engine(&app)?.store().list(&filter, page.before.as_deref(), limit).await;
    let executions = executions.map_err(|error| Refusal::storage(&error))?;
    let next = executions.last().filter(|_| executions.len() == limit).map(|last| last.id.clone());
    Ok(Json(Executions { executions, next }))
}

/// One execution.
#[utoipa::path(get, path = "/api/v1/executions/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = Execution),
    (status = 404, description = "No such execution in this pod's store", body = Problem),
))]
pub(super) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Execution>, Refusal> {
    let engine = engine(&app)?;
    let found = engine.store().get(&id).await.map_err(|error| Refusal::storage(&error))?;
    found.map(Json).ok_or_else(|| unknown(engine, &id))
}

pub(super) fn unknown(engine: &Engine, id: &str) -> Refusal {
    let detail = match engine.store().shared() {
        Some(_) => format!("there is no execution {id:?}"),
        None => format!("this pod knows no execution {id:?}; each pod has a store of its own"),
    };
    Refusal::new(StatusCode::NOT_FOUND, "unknown_execution", detail)
}

/// Cancels an execution: its steps are aborted, and it shows `cancelled` when the last has ended. Works while paused.
#[utoipa::path(post, path = "/api/v1/executions/{id}/cancel", params(("id" = String, Path)), responses(
    (status = 202, description = "Cancelled, or about to be", body = Execution),
    (status = 404, description = "No such execution", body = Problem),
    (status = 409, description = "It has ended", body = Problem),
))]
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let engine = engine(&app)?;
    engine.cancel(&id).await.map_err(|error| disobeyed(engine, error))?;
    shown(&app, &id).await
}

/// Lets an execution that failed or was cancelled go on where it ended.
#[utoipa::path(post, path = "/api/v1/executions/{id}/retry", params(("id" = String, Path)), responses(
    (status = 202, description = "It waits for its turn", body = Execution),
    (status = 404, description = "No such execution", body = Problem),
    (status = 409, description = "It has not failed", body = Problem),
))]
pub(super) async fn retry(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let engine = engine(&app)?;
    engine.retry(&id).await.map_err(|error| disobeyed(engine, error))?;
    shown(&app, &id).await
}

/// A person's answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// The branch that asked; needed only when several do.
    branch: Option<String>,
    /// The answer: text, or what an uncertain effect is answered with.
    #[schema(value_type = Object)]
    value: Value,
}

/// Answers the question that an execution waits with.
#[utoipa::path(post, path = "/api/v1/executions/{id}/input", params(("id" = String, Path)), request_body = Input, responses(
    (status = 202, description = "On disk", body = Execution),
    (status = 400, description = "The body is no answer", body = Problem),
    (status = 404, description = "No such execution", body = Problem),
    (status = 409, description = "It asks nothing, or not this", body = Problem),
))]
pub(super) async fn input(State(app): State<App>, Path(id): Path<String>, body: Bytes) -> Result<Response, Refusal> {
    let input: Input =
        serde_json::from_slice(&body).map_err(|error| Refusal::invalid(format!("send {{\"value\": ..}}: {error}")))?;
    let engine = engine(&app)?;
    let answered = engine.answer(&id, input.branch.as_deref(), &input.value).await;
    answered.map_err(|error| disobeyed(engine, error))?;
    shown(&app, &id).await
}

/// Which executions to cancel.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Of this entry point.
    entry_point: Option<String>,
    /// In this state.
    state: Option<ExecutionState>,
}

/// How many were cancelled.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CancelledCount {
    cancelled: usize,
}

/// Cancels every execution that fits and has not ended.
#[utoipa::path(post, path = "/api/v1/executions/cancel", params(Which), responses(
    (status = 202, description = "Cancelled, or about to be", body = CancelledCount),
    (status = 400, description = "Neither an entry point nor a state", body = Problem),
))]
pub(super) async fn cancel_all(State(app): State<App>, Query(which): Query<Which>) -> Result<Response, Refusal> {
    if which.entry_point.is_none() && which.state.is_none() {
        return Err(Refusal::invalid("say which: ?entry_point=ID, ?state=queued, or both"));
    }
    let filter = Filter { entry_point: which.entry_point, state: which.state };
    let engine = engine(&app)?;
    let cancelled = engine.cancel_all(&filter).await.map_err(|error| disobeyed(engine, error))?;
    Ok((StatusCode::ACCEPTED, Json(CancelledCount { cancelled })).into_response())
}

pub(super) fn engine(app: &App) -> Result<&Arc<Engine>, Refusal> {
    let none = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the store is not open yet");
    app.controller.engine().ok_or_else(none)
}

/// The execution as it is after an order.
async fn shown(app: &App, id: &str) -> Result<Response, Refusal> {
    let execution = engine(app)?.store().get(id).await.map_err(|error| Refusal::storage(&error))?;
    Ok((StatusCode::ACCEPTED, Json(execution)).into_response())
}

fn disobeyed(engine: &Engine, error: Disobeyed) -> Refusal {
    let conflict = |kind: &str, error: &Disobeyed| Refusal::new(StatusCode::CONFLICT, kind, error.to_string());
    match &error {
        Disobeyed::Unknown(id) => unknown(engine, id),
        Disobeyed::Ended(_) => conflict("ended", &error),
        Disobeyed::Lives(_) => conflict("not_failed", &error),
        Disobeyed::Unanswered(_) => conflict("not_asked", &error),
        Disobeyed::Definition => conflict("definition", &error),
        Disobeyed::Store(error) => Refusal::storage(error),
    }
}
