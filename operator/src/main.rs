//! The process: reads its settings, starts logging and runs the operator until it is told to stop.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use operator::config::{Cli, Command, Config};
use operator::trace::SERVICE;
use tikv_jemallocator::Jemalloc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// That of the C library keeps twice the memory after a burst over thousands of pods.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How long the last traces may take.
const LAST_TRACES: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    match command {
        None => serve(config).await,
        Some(Command::Healthcheck) => told("not alive", lifecycle::probe::check(config.listen.port(), "/healthz")),
        Some(Command::Selftest(test)) => told("failed", operator::self_test(&config.namespace, &test).await),
    }
}

fn told<E: std::fmt::Display>(failure: &str, outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{failure}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> ExitCode {
    let export = otlp::begin(SERVICE, &config.log);
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone()));
    let outcome = operator::run(config, stop).await;
    if let Err(error) = &outcome {
        tracing::error!(%error, "the operator ends");
    }
    if let Some(export) = export {
        export.finish(LAST_TRACES).await;
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn cancel_on_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("cannot listen for signals: stop the process with SIGKILL");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping: a signal came");
    stop.cancel();
}
