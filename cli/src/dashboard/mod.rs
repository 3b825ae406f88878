//! The dashboard: a page that shows every runtime as it changes, on this machine under the user's own permissions, or
//! in the cluster to look at.

mod act;
mod board;
mod detail;
mod door;
mod live;
mod page;
mod past;
mod rows;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Dashboard;
use crate::error::Error;
use crate::kubernetes::Kubernetes;
use board::Watched;
use door::Door;

/// What every request shares.
#[derive(Clone)]
struct App {
    cluster: Arc<Kubernetes>,
    watched: Watched,
    door: Arc<Door>,
}

/// Serves the page until it is interrupted.
pub(crate) async fn run(cluster: Kubernetes, task: &Dashboard) -> Result<(), Error> {
    if !task.listen.ip().is_loopback() && !task.read_only {
        return Err(Error::Input(format!(
            "--listen {}: others could reach it and act with your permissions. Give --read-only, or an address of 127.0.0.1",
            task.listen
        )));
    }
    let broken = |error: std::io::Error| Error::Input(format!("--listen {}: {error}", task.listen));
    let listener = lifecycle::listen::bind(task.listen).map_err(broken)?;
    let address = listener.local_addr().map_err(broken)?;
    let cluster = Arc::new(cluster);
    let door = Arc::new(Door::new(address, task.read_only, task.allow_host.clone()));
    let watched = board::watch(Arc::clone(&cluster));
    println!("{}", told(address, &door));
    let app = App { cluster, watched, door };
    // As process 1 of a container nothing else ends it.
    let mut asked_to_end = signal(SignalKind::terminate()).map_err(broken)?;
    // Streams stay open as long as a page does: they are cut, not waited for.
    tokio::select! {
        served = axum::serve(listener, router(app)) => served.map_err(broken),
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = asked_to_end.recv() => Ok(()),
    }
}

/// Whether it has seen what there is, so that it shows no empty page.
async fn ready(State(app): State<App>) -> (StatusCode, &'static str) {
    match app.watched.read().listed {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the runtimes have not been listed yet"),
    }
}

fn told(address: SocketAddr, door: &Door) -> String {
    match door.token() {
        Some(token) => format!("The dashboard is at http://{address}/?token={token}\nIt ends with Ctrl-C"),
        None => format!("The dashboard is at http://{address}/, to look at and not to change. It ends with Ctrl-C"),
    }
}

fn router(app: App) -> Router {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=3600")], text).into_response()
        })
    };
    Router::new()
        .route("/", get(page::overview))
        .route("/rows/live", get(live::rows))
        .route("/freezes", get(page::freezes).post(act::freeze))
        .route("/freezes/{name}/delete", post(act::unfreeze))
        .route("/runtimes/{namespace}/{name}", get(page::detail))
        .route("/runtimes/{namespace}/{name}/live", get(live::detail))
        .route("/runtimes/{namespace}/{name}/log", get(live::log))
        .route("/runtimes/{namespace}/{name}/executions", get(page::executions))
        .route("/confirm", get(act::confirm))
        .route("/act", post(act::act))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app.door), door::check))
        .route("/assets/htmx.js", asset("text/javascript", include_str!("../../assets/htmx.min.js")))
        .route("/assets/dashboard.js", asset("text/javascript", include_str!("../../assets/dashboard.js")))
        .route("/assets/dashboard.css", asset("text/css", include_str!("../../assets/dashboard.css")))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(ready))
        .layer(axum::middleware::from_fn(door::headers))
        .with_state(app)
}
