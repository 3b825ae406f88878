//! `agent-runtime sample-site`: pages for the examples to watch.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

/// How long /slow takes.
const SLOW: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The port is taken.
pub async fn serve(port: u16) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let router = Router::new().route("/", get(|| async { "up\n" })).route(
        "/slow",
        get(|| async {
            tokio::time::sleep(SLOW).await;
            "slow\n"
        }),
    );
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    tokio::select! {
        outcome = axum::serve(listener, router) => outcome,
        _ = term.recv() => Ok(()),
        outcome = tokio::signal::ctrl_c() => outcome,
    }
}
