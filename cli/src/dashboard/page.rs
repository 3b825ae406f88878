//! The pages as they are when they are opened; what changes afterwards is told by `live`.

use askama::Template;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};

use super::App;
use super::board::Board;
use super::detail::Detail;
use super::rows::{Filter, Row};
use crate::values::Mode;
use crate::{pods, show};

/// The states that can be asked for in the filter.
const STATES: [&str; 8] = ["trouble", "running", "pausing", "paused", "starting", "stopping", "stopped", "unknown"];
/// Executions of each pod that are listed.
const EXECUTIONS: u16 = 20;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    filter: Filter,
    live: String,
    namespaces: Vec<String>,
    states: [&'static str; 8],
    rows: Vec<Row>,
    total: usize,
    troubles: Vec<String>,
    acts: bool,
}

#[derive(Template)]
#[template(path = "detail.html")]
struct DetailPage {
    namespace: String,
    name: String,
    live: String,
    fragment: String,
    troubles: Vec<String>,
    acts: bool,
}

#[derive(Template)]
#[template(path = "freezes.html")]
struct Freezes {
    freezes: Vec<FreezeRow>,
    namespaces: Vec<String>,
    modes: [&'static str; 3],
    troubles: Vec<String>,
    acts: bool,
}

struct FreezeRow {
    name: String,
    state: String,
    progress: String,
    ready: bool,
    reason: String,
    until: String,
}

#[derive(Template)]
#[template(path = "executions.html")]
struct Executions {
    rows: Vec<ExecutionRow>,
    error: Option<String>,
}

struct ExecutionRow {
    pod: String,
    id: String,
    entry_point: String,
    state: String,
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message {
    text: String,
    troubles: Vec<String>,
    acts: bool,
}

/// What is wrong with the picture, a line each.
pub(super) fn troubles(board: &Board) -> Vec<String> {
    board.troubles.iter().map(|(what, why)| format!("{what}: {why}")).collect()
}

/// A template as an answer.
pub(super) fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A page with one sentence.
pub(super) fn message(app: &App, code: StatusCode, text: String) -> Response {
    let troubles = troubles(&app.watched.read());
    (code, html(&Message { text, troubles, acts: !app.door.read_only() })).into_response()
}

fn namespaces(board: &Board) -> Vec<String> {
    let mut all: Vec<String> = board.runtimes.keys().map(|(namespace, _)| namespace.clone()).collect();
    all.dedup();
    all
}

/// Every runtime that the filter lets through.
pub(super) async fn overview(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let filter = Filter::read(&query.unwrap_or_default());
    let board = app.watched.read();
    let acts = !app.door.read_only();
    html(&Overview {
        live: format!("/rows/live?{}", filter.query()),
        namespaces: namespaces(&board),
        states: STATES,
        rows: filter.rows(&board, acts),
        total: board.runtimes.len(),
        troubles: troubles(&board),
        filter,
        acts,
    })
}

/// One runtime.
pub(super) async fn detail(State(app): State<App>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let board = app.watched.read();
    let acts = !app.door.read_only();
    let Some(detail) = Detail::of(&board, &(namespace.clone(), name.clone()), acts) else {
        let text = format!("There is no AgentRuntime {namespace}/{name}, or it has not been seen yet.");
        return message(&app, StatusCode::NOT_FOUND, text);
    };
    match detail.render() {
        Ok(fragment) => html(&DetailPage {
            live: format!("/runtimes/{namespace}/{name}/live"),
            namespace,
            name,
            fragment,
            troubles: troubles(&board),
            acts,
        }),
        Err(error) => message(&app, StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The newest executions of each pod, asked for now.
pub(super) async fn executions(State(app): State<App>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let known = app.watched.read().runtimes.get(&(namespace, name)).cloned();
    let Some(seen) = known else { return StatusCode::NOT_FOUND.into_response() };
    let listed = pods::newest(&app.cluster, &seen.runtime, None, EXECUTIONS).await;
    let (rows, error) = match listed {
        Ok(all) => {
            let row = |(pod, execution): (String, serde_json::Value)| {
                let text = |key: &str| show::text(&execution, key);
                ExecutionRow { id: text("id"), entry_point: text("entry_point"), state: text("state"), pod }
            };
            (all.into_iter().map(row).collect(), None)
        }
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    html(&Executions { rows, error })
}

/// Every freeze, and a form for another.
pub(super) async fn freezes(State(app): State<App>) -> Response {
    let board = app.watched.read();
    let row = |(name, freeze): (&String, &crds::AgentFreeze)| FreezeRow {
        name: name.clone(),
        state: match freeze.spec.state {
            crds::HeldState::Paused => "paused".to_owned(),
            crds::HeldState::Stopped => "stopped".to_owned(),
        },
        progress: crate::freeze::progress(freeze),
        ready: crate::freeze::is_reached(freeze),
        reason: freeze.spec.reason.clone(),
        until: freeze.spec.expires_at.clone().unwrap_or_default(),
    };
    html(&Freezes {
        freezes: board.freezes.iter().map(row).collect(),
        namespaces: namespaces(&board),
        modes: Mode::WORDS,
        troubles: troubles(&board),
        acts: !app.door.read_only(),
    })
}
