//! Executions over HTTP: triggers, and looking at what came of them.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lifecycle::wire::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::problem::Refusal;
use crate::control::Admission;
use crate::engine::{Engine, Refused};
use crate::store::{Execution, Key};

/// Executions in one page, when nothing else is asked for; and the most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 500;
/// The longest Idempotency-Key.
const MAX_KEY: usize = 255;
/// Seconds after which a refused trigger may be tried again.
const RETRY_SECONDS: u32 = 5;

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
        ("id" = String, Path, description = "The entry point"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same execution for 24 hours"),
    ),
    request_body(content = Option<Object>, description = "A JSON object: the execution's memory to begin with"),
    responses(
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
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let begun = Instant::now();
    let memory = memory(&body)?;
    let key = key(&headers, &body)?;
    let unavailable = |kind: &str, detail: &str| {
        Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail).retry_after(RETRY_SECONDS))
    };
    match app.controller.admission() {
        Admission::Open => {}
        Admission::Paused => return unavailable("paused", "the runtime is paused: try again after its resume"),
        Admission::Unavailable => return unavailable("unavailable", "the runtime does not take work now"),
    }
    let Some(engine) = app.controller.engine() else {
        return unavailable("unavailable", "the agent is not loaded yet");
    };
    // A task of its own: a client that hangs up undoes nothing, and wastes nothing half-way.
    let task = begin(engine.clone(), entry_point, memory, key);
    let accepted = tokio::spawn(task).await.map_err(|error| Refusal::storage(&error))??;
    app.controller.telemetry().accepted(begun.elapsed());
    let location = format!("/api/v1/executions/{}", accepted.execution);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)).into_response())
}

async fn begin(
    engine: std::sync::Arc<Engine>,
    entry_point: String,
    memory: Map<String, Value>,
    key: Option<Key>,
) -> Result<Accepted, Refusal> {
    match engine.begin(&entry_point, memory, key).await {
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

fn memory(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the body is no JSON object: {error}")))
}

fn key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Key>, Refusal> {
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
    let executions = read(&app, move |engine| engine.store().list(page.before.as_deref(), limit)).await?;
    let next = executions.last().filter(|_| executions.len() == limit).map(|last| last.id.clone());
    Ok(Json(Executions { executions, next }))
}

/// One execution.
#[utoipa::path(get, path = "/api/v1/executions/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = Execution),
    (status = 404, description = "No such execution in this pod's store", body = Problem),
))]
pub(super) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Execution>, Refusal> {
    let wanted = id.clone();
    let found = read(&app, move |engine| engine.store().get(&wanted)).await?;
    found.map(Json).ok_or_else(|| {
        let detail = format!("this pod knows no execution {id:?}; each pod has a store of its own");
        Refusal::new(StatusCode::NOT_FOUND, "unknown_execution", detail)
    })
}

/// Reads from the store off the threads that serve.
async fn read<T: Send + 'static>(
    app: &App,
    look: impl FnOnce(&Engine) -> Result<T, crate::store::Error> + Send + 'static,
) -> Result<T, Refusal> {
    let Some(engine) = app.controller.engine().cloned() else {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the store is not open yet"));
    };
    let outcome = tokio::task::spawn_blocking(move || look(&engine)).await.map_err(|error| Refusal::storage(&error))?;
    outcome.map_err(|error| Refusal::storage(&error))
}
