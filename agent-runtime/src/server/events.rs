//! Events: what happens in an execution as a stream, and events from outside that begin executions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use lifecycle::wire::Problem;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::App;
use super::executions::{engine, key, memory, taking, trigger_once, unknown};
use super::extract::Path;
use super::problem::Refusal;
use crate::engine::Engine;
use crate::store::{Entry, What};
use crate::trace::TraceContext;

/// Entries that are read at once.
const PAGE: usize = 100;
/// Events that may wait for a slow reader; then the writer waits.
const AHEAD: usize = 16;
/// A comment is sent this often, so that a dead connection is found.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens in an execution, as server-sent events from its beginning to its end. Each has its
/// number as `id`: with `Last-Event-ID` the stream goes on after it.
#[utoipa::path(get, path = "/api/v1/executions/{id}/events", params(
    ("id" = String, Path),
    ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this event"),
), responses(
    (status = 200, description = "A stream of events", body = Entry, content_type = "text/event-stream"),
    (status = 404, description = "No such execution", body = Problem),
))]
pub(super) async fn follow(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let engine = Arc::clone(engine(&app)?);
    if engine.store().get(&id).await.map_err(|error| Refusal::storage(&error))?.is_none() {
        return Err(unknown(&engine, &id));
    }
    let after = headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let after = match after {
        None => 0,
        Some(Some(after)) => after,
        Some(None) => return Err(Refusal::invalid("Last-Event-ID: the id of an event, a number")),
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        tokio::select! {
            () = tell(&engine, &id, after, &sender) => {}
            () = app.controller.closing() => {}
            () = sender.closed() => {}
        }
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        let event = receiver.recv().await?;
        Some((Ok(event), receiver))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Tells what has happened and what happens, until the execution has ended.
async fn tell(engine: &Engine, id: &str, mut after: u64, reader: &mpsc::Sender<Event>) {
    // Before the journal is read: nothing falls between the two.
    let mut happened = engine.follow();
    loop {
        match engine.store().journal(id, after, PAGE).await {
            Ok(page) => {
                let full = page.len() == PAGE;
                for (seq, entry) in page {
                    after = seq;
                    if reader.send(event(seq, &entry)).await.is_err() || ends(engine, id, &entry).await {
                        return;
                    }
                }
                if full {
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a journal cannot be read");
                return;
            }
        }
        loop {
            match happened.recv().await {
                Ok(happened) if happened.goes_beyond(id, after) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// An end is the end unless somebody had it tried again since.
async fn ends(engine: &Engine, id: &str, entry: &Entry) -> bool {
    let ended = matches!(&entry.what, What::State { state, .. } if state.is_terminal());
    ended && engine.store().get(id).await.ok().flatten().is_none_or(|execution| execution.state.is_terminal())
}

fn event(seq: u64, entry: &Entry) -> Event {
    let event = Event::default().id(seq.to_string()).event(entry.what.as_str());
    // Maps with string keys always serialize.
    event.json_data(entry).unwrap_or_default()
}

/// The executions that an event began.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Begun {
    executions: Vec<String>,
}

/// An event from outside: begins an execution at each entry point that listens for it.
#[utoipa::path(post, path = "/api/v1/events/{name}", params(("name" = String, Path)),
    request_body(content = Option<Object>, description = "A JSON object: the executions' memory to begin with"),
    responses(
        (status = 202, description = "On disk", body = Begun),
        (status = 404, description = "No entry point listens for it", body = Problem),
        (status = 429, description = "Too many wait", body = Problem),
        (status = 503, description = "Paused, or not there yet", body = Problem),
    )
)]
pub(super) async fn emit(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let mut memory = memory(&body)?;
    let key = key(&headers, &body)?;
    let engine = taking(&app)?;
    memory.insert("event".to_owned(), name.clone().into());
    let listeners: Vec<String> = engine.agent().listeners(&name).map(|(id, _)| id.clone()).collect();
    if listeners.is_empty() {
        let detail = format!("no entry point listens for the event {name:?}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_event", detail));
    }
    let trace = TraceContext::of_headers(&headers);
    let mut executions = Vec::new();
    for entry_point in listeners {
        executions.push(trigger_once(&engine, entry_point, memory.clone(), key.clone(), trace.clone()).await?);
    }
    Ok((StatusCode::ACCEPTED, Json(Begun { executions })).into_response())
}
