//! `agent-runtime sample-site`: pages for the examples to watch.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::routing::get;

/// Seconds that /slow takes, unless its query says otherwise.
const SLOW_SECONDS: u64 = 5;

#[derive(serde::Deserialize)]
struct Slow {
    seconds: Option<u64>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The port is taken.
pub async fn serve(port: u16) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let router = Router::new().route("/", get(|| async { "up\n" })).route(
        "/slow",
        get(|Query(slow): Query<Slow>| async move {
            tokio::time::sleep(Duration::from_secs(slow.seconds.unwrap_or(SLOW_SECONDS).min(60))).await;
            "slow\n"
        }),
    );
    let listener = lifecycle::listen::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    tokio::select! {
        outcome = axum::serve(listener, router) => outcome,
        _ = term.recv() => Ok(()),
        outcome = tokio::signal::ctrl_c() => outcome,
    }
}
