//! `agent-runtime serve`: puts the parts together and waits for a signal.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use otlp::Export;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Serve;
use crate::control::{Controller, record};
use crate::server::{Leaving, Server};
use crate::shutdown;
use crate::telemetry::Telemetry;

/// How long answers under way, and traces, may take at the very end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// The exit code after a second signal, as a shell shows SIGINT.
const INTERRUPTED: u8 = 130;

/// Why the runtime could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The fence cannot be used.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}. Set HIVE_LIFECYCLE_PORT to a free port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    /// Waits for the next; true for SIGTERM.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.term.recv() => true,
            _ = self.int.recv() => false,
        }
    }
}

/// Runs an agent until a signal, and hands over the last traces. The exit code is 0 after a shutdown, 1 when something that must be
/// on disk could not be written, 130 after a second signal.
///
/// # Errors
/// The runtime could not begin.
pub async fn serve(config: Serve, export: Option<Export>) -> Result<ExitCode, Error> {
    let mut signals = Signals::new()?;
    let broken = CancellationToken::new();
    let controller = Arc::new(Controller::new(config.clone(), Arc::new(Telemetry::default()), broken.clone())?);
    let server = if config.lifecycle_enabled {
        Some(listen(&config, &controller).await?)
    } else {
        tracing::info!("the lifecycle server is off: set HIVE_LIFECYCLE_ENABLED=true to turn it on");
        None
    };
    let driver = tokio::spawn(Arc::clone(&controller).drive());
    let by_term = tokio::select! {
        by_term = signals.next() => by_term,
        () = broken.cancelled() => return Ok(ExitCode::FAILURE),
    };
    tracing::info!(signal = if by_term { "SIGTERM" } else { "SIGINT" }, "shutting down");
    let handles = server.as_ref().map(|(leaving, stop, _)| (leaving.clone(), stop.clone()));
    let code = tokio::select! {
        ended = shutdown::run(&controller, handles, by_term) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "the shutdown failed");
                ExitCode::FAILURE
            }
        },
        () = broken.cancelled() => ExitCode::FAILURE,
        _ = signals.next() => {
            tracing::warn!("a second signal: ending at once");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    driver.abort();
    // Both end by themselves within their patience.
    let traces = async {
        if let Some(export) = export {
            export.finish(LAST_ANSWERS).await;
        }
    };
    let answers = async {
        if let Some((_, _, task)) = server {
            let _ = task.await;
        }
    };
    tokio::join!(traces, answers);
    Ok(code)
}

async fn listen(
    config: &Serve,
    controller: &Arc<Controller>,
) -> Result<(Leaving, CancellationToken, JoinHandle<()>), Error> {
    let address = SocketAddr::new(config.host, config.port);
    let failed = |source| Error::Listen { address, source };
    let server = Server::bind(address, Arc::clone(controller)).await.map_err(failed)?;
    tracing::info!(address = %server.address().map_err(failed)?, "listening");
    let stop = CancellationToken::new();
    let leaving = server.leaving();
    let task = tokio::spawn(server.run(stop.clone(), LAST_ANSWERS));
    Ok((leaving, stop, task))
}
