//! The lifecycle contract over HTTP: verbs, status, streams, probes and metrics.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lifecycle::brake::{BRAKE, BrakesFullError};
use lifecycle::machine::{BrakeDecision, Decision};
use lifecycle::wire::{BrakeCommand, Command, Problem, Status};
use lifecycle::{State as Lifecycle, Verb};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Path, Query};
use super::problem::Refusal;
use super::{App, access};

/// The longest long poll.
const MAX_WAIT_SECONDS: u64 = 30;

/// Start, stop, pause, resume or restart. With an epoch it is the operator's, without a person's.
#[utoipa::path(
    post, path = "/api/v1/lifecycle/{verb}",
    params(("verb" = Verb, Path, description = "start, stop, pause, resume or restart")),
    request_body(content = Option<Command>, description = "Optional"),
    responses(
        (status = 200, description = "Reached", body = Status),
        (status = 202, description = "On the way", body = Status),
        (status = 400, description = "The body is not a command", body = Problem),
        (status = 401, description = "unauthorized, keys_unknown, or signature_ and what is wrong with it", body = Problem),
        (status = 404, description = "No such verb", body = Problem),
        (status = 409, description = "stale_epoch, held, terminating or conflict", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 421, description = "Meant for another pod", body = Problem),
    )
)]
pub(super) async fn command(
    State(app): State<App>,
    Path(verb): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let verb: Verb = verb.parse().map_err(|error: lifecycle::state::UnknownVerb| {
        Refusal::new(StatusCode::NOT_FOUND, "unknown_verb", error.to_string())
    })?;
    let claims = access::signed(&app, &headers, verb.as_str(), &body).await?;
    let command: Command = if body.is_empty() {
        Command::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal::invalid(format!("the body is no command: {error}")))?
    };
    if let Some(claims) = claims {
        claims.check_epoch(command.epoch).map_err(|rejected| access::refusal(&rejected))?;
    }
    check_uids(&app, command.pod_uid.as_deref(), command.runtime_uid.as_deref())?;
    command.check().map_err(|error| Refusal::invalid(error.to_string()))?;
    let decision = app.controller.obey(verb, &command).await;
    let decision = decision.map_err(|error| Refusal::storage(&error))?;
    let status = app.controller.status();
    let conflict = |kind: &str, detail: &str| Refusal::new(StatusCode::CONFLICT, kind, detail);
    let refusal = match decision {
        Decision::Reached => return Ok((StatusCode::OK, Json(status)).into_response()),
        Decision::Accepted if is_reached(verb, &status) => return Ok((StatusCode::OK, Json(status)).into_response()),
        Decision::Accepted => return Ok((StatusCode::ACCEPTED, Json(status)).into_response()),
        Decision::Conflict => conflict("conflict", &format!("{verb} does not fit a runtime that is {}", status.state)),
        Decision::Terminating => conflict("terminating", "the process is about to end"),
        Decision::Held => conflict("held", "the operator holds this runtime: change spec.desiredState"),
        Decision::Stale => conflict("stale_epoch", &format!("epoch {} was accepted already", status.epoch)),
    };
    Err(refusal.with_status(status))
}

/// A brake: holds the runtime until it is released by its name, and needs no epoch of its own.
#[utoipa::path(
    post, path = "/api/v1/lifecycle/brake",
    request_body = BrakeCommand,
    responses(
        (status = 200, description = "Held, and nothing is in flight", body = Status),
        (status = 202, description = "Held, and something is in flight or being loaded", body = Status),
        (status = 400, description = "The body is not a brake", body = Problem),
        (status = 401, description = "unauthorized, keys_unknown, or signature_ and what is wrong with it", body = Problem),
        (status = 409, description = "stale_epoch or brakes_full", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 421, description = "Meant for another pod", body = Problem),
    )
)]
pub(super) async fn brake(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let claims = access::signed(&app, &headers, BRAKE, &body).await?;
    let command: BrakeCommand =
        serde_json::from_slice(&body).map_err(|error| Refusal::invalid(format!("the body is no brake: {error}")))?;
    if let Some(claims) = claims {
        claims.check_epoch(Some(command.epoch)).map_err(|rejected| access::refusal(&rejected))?;
    }
    check_uids(&app, command.pod_uid.as_deref(), command.runtime_uid.as_deref())?;
    let brake = command.brake().map_err(|error| Refusal::invalid(error.to_string()))?;
    let decision = app.controller.brake(brake, &command).await.map_err(|error| Refusal::storage(&error))?;
    let status = app.controller.status();
    let conflict = |kind: &str, detail: String| Refusal::new(StatusCode::CONFLICT, kind, detail);
    let refusal = match decision {
        BrakeDecision::Reached => return Ok((StatusCode::OK, Json(status)).into_response()),
        BrakeDecision::Accepted => return Ok((StatusCode::ACCEPTED, Json(status)).into_response()),
        BrakeDecision::Stale => conflict("stale_epoch", format!("epoch {} was accepted already", status.epoch)),
        BrakeDecision::Full => conflict("brakes_full", BrakesFullError.to_string()),
    };
    Err(refusal.with_status(status))
}

fn check_uids(app: &App, pod: Option<&str>, runtime: Option<&str>) -> Result<(), Refusal> {
    let config = app.controller.config();
    let meant_for = |given: Option<&str>, own: &str| given.is_none_or(|given| given == own);
    if !meant_for(pod, &config.pod_uid) || !meant_for(runtime, &config.runtime_uid) {
        let detail = "this command is for another pod, which may have had this address before";
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail));
    }
    Ok(())
}

/// A verb that was accepted and has been reached before its answer.
fn is_reached(verb: Verb, status: &Status) -> bool {
    match verb {
        Verb::Start | Verb::Resume => status.state == Lifecycle::Running,
        Verb::Pause => status.state == Lifecycle::Paused,
        Verb::Stop => status.state == Lifecycle::Stopped,
        Verb::Restart => false,
    }
}

/// How to wait for a change.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    /// The version already known; the answer waits for another.
    after: Option<String>,
    /// Seconds to wait for it, at most 30.
    wait: Option<u64>,
}

/// The whole status; with `after`, once it has changed.
#[utoipa::path(get, path = "/api/v1/status", params(After), responses((status = 200, body = Status)))]
pub(super) async fn status(State(app): State<App>, Query(query): Query<After>) -> Json<Status> {
    let wait = Duration::from_secs(query.wait.unwrap_or(0).min(MAX_WAIT_SECONDS));
    Json(match query.after {
        Some(after) => app.controller.changed_since(&after, wait).await,
        None => app.controller.status(),
    })
}

/// Entry points with executions in flight.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Streams {
    streams: Vec<Stream>,
}

/// The executions of one entry point.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stream {
    entry_point: String,
    in_flight: usize,
}

/// The active execution streams.
#[utoipa::path(get, path = "/api/v1/status/streams", responses((status = 200, body = Streams)))]
pub(super) async fn streams(State(app): State<App>) -> Json<Streams> {
    let streams = app.controller.gate().streams().into_iter();
    let mut streams: Vec<Stream> = streams.map(|(entry_point, in_flight)| Stream { entry_point, in_flight }).collect();
    streams.sort_by(|a, b| a.entry_point.cmp(&b.entry_point));
    Json(Streams { streams })
}

/// Whether the process is alive: 200 in every state.
#[utoipa::path(get, path = "/health/live", responses((status = 200, body = String)))]
pub(super) async fn live() -> &'static str {
    "alive"
}

/// Whether triggers are accepted.
#[utoipa::path(get, path = "/health/ready", responses(
    (status = 200, body = String),
    (status = 503, description = "Not now", body = Problem),
))]
pub(super) async fn ready(State(app): State<App>) -> Result<&'static str, Refusal> {
    if app.controller.is_ready() {
        return Ok("ready");
    }
    let status = app.controller.status();
    let why = match status.message.clone() {
        Some(message) => message,
        None if !app.controller.reaches_store() => "the database of the store is out of reach".to_owned(),
        None => format!("the runtime is {}", status.state),
    };
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why))
}

/// The metrics, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Refusal> {
    let text = app.controller.telemetry().text(app.controller.gauges());
    let text = text.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
