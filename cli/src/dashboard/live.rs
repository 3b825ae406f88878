//! What is told to an open page, as server-sent events: rows that change, a runtime's detail, and its log.

use std::convert::Infallible;
use std::time::Duration;

use askama::Template as _;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _};
use serde::Serialize;

use super::App;
use super::detail::Detail;
use super::page::troubles;
use super::past::Id;
use super::rows::{Filter, Told};
use crate::logs;

/// A page is told no more often than this, so that a thousand runtimes that change at once are one message.
const PACE: Duration = Duration::from_millis(250);
/// A page that hears nothing for longer than two of these takes the connection for dead.
const BEAT: Duration = Duration::from_secs(10);
/// Lines of each pod's log to begin with.
const TAIL: i64 = 100;

/// What has changed in the rows.
#[derive(Debug, Serialize)]
struct Rows {
    set: Vec<(String, String)>,
    gone: Vec<String>,
    shown: usize,
    total: usize,
    troubles: Vec<String>,
}

fn stream(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<Event, Infallible>);
    // An event and no comment, as a page's script is not told of comments.
    let beat = KeepAlive::new().interval(BEAT).event(Event::default().event("beat").data(""));
    Sse::new(events).keep_alive(beat).into_response()
}

/// The rows that a filter lets through: all of them first, then those that change.
pub(super) async fn rows(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let filter = Filter::read(&query.unwrap_or_default());
    let changes = app.watched.changes();
    let first = (app, filter, Told::default(), changes, true);
    stream(futures::stream::unfold(first, |(app, filter, mut told, mut changes, first)| async move {
        if !first {
            changes.changed().await.ok()?;
            tokio::time::sleep(PACE).await;
            changes.mark_unchanged();
        }
        let board = app.watched.read();
        let rows = filter.rows(&board, !app.door.read_only());
        let shown = rows.len();
        let (set, gone) = told.update(rows);
        let set = set.into_iter().filter_map(|row| Some((row.id(), row.render().ok()?))).collect();
        let message = Rows { set, gone, shown, total: board.runtimes.len(), troubles: troubles(&board) };
        let event = Event::default().event("rows").json_data(message).unwrap_or_default();
        Some((event, (app, filter, told, changes, false)))
    }))
}

/// One runtime's detail, whole, whenever it has changed.
pub(super) async fn detail(State(app): State<App>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let changes = app.watched.changes();
    let first = (app, (namespace, name), String::new(), changes, true);
    stream(futures::stream::unfold(first, |(app, id, mut shown, mut changes, mut first)| async move {
        loop {
            if !first {
                changes.changed().await.ok()?;
                tokio::time::sleep(PACE).await;
                changes.mark_unchanged();
            }
            first = false;
            let html = rendered(&app, &id);
            if html != shown {
                shown.clone_from(&html);
                let event = Event::default().event("detail").json_data(html).unwrap_or_default();
                return Some((event, (app, id, shown, changes, false)));
            }
        }
    }))
}

fn rendered(app: &App, id: &Id) -> String {
    let board = app.watched.read();
    match Detail::of(&board, id, !app.door.read_only()).map(|detail| detail.render()) {
        Some(Ok(html)) => html,
        Some(Err(error)) => error.to_string(),
        None => "<p class=\"bad\">It has been deleted.</p>".to_owned(),
    }
}

/// What its pods print, from now on.
pub(super) async fn log(State(app): State<App>, Path(id): Path<(String, String)>) -> Response {
    let known = app.watched.read().runtimes.get(&id).cloned();
    let Some(seen) = known else { return StatusCode::NOT_FOUND.into_response() };
    let parameters = logs::parameters(true, Some(TAIL));
    match logs::lines(&app.cluster, &seen.runtime, &parameters).await {
        Ok(lines) => stream(lines.map(|line| match line {
            Ok((pod, line)) => Event::default().event("line").data(format!("{pod}: {line}")),
            Err(error) => Event::default().event("broken").data(error.to_string().replace('\n', " ")),
        })),
        Err(error) => {
            let event = Event::default().event("broken").data(error.to_string().replace('\n', " "));
            // The page must hear of it, and not ask again and again.
            stream(futures::stream::once(async { event }).chain(futures::stream::pending()))
        }
    }
}
