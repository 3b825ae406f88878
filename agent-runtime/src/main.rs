//! The process: reads the command line, starts logging, and does what was asked.

use std::path::Path;
use std::process::ExitCode;

use agent_runtime::config::{Cli, Command, Serve};
use agent_runtime::{definition, init, sample_site, serve, server, trace};
use clap::Parser as _;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(_) if init::is_first() => init::run().unwrap_or_else(|error| {
            eprintln!("cannot begin as process 1: {error}");
            ExitCode::FAILURE
        }),
        Command::Serve(config) => block_on(run(*config)),
        Command::Validate { file } => validate(&file),
        Command::Schema => print(&definition::schema()),
        Command::Openapi => print(&server::document()),
        Command::Healthcheck { port } => told("not alive", lifecycle::probe::check(port, "/health/live")),
        Command::SampleSite { port } => block_on(async { told("cannot serve", sample_site::serve(port).await) }),
    }
}

fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            eprintln!("cannot begin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(document: &impl serde::Serialize) -> ExitCode {
    told("cannot print", serde_json::to_string_pretty(document).map(|text| println!("{text}")).map_err(Into::into))
}

async fn run(config: Serve) -> ExitCode {
    let export = otlp::begin(trace::SERVICE, &config.log);
    match serve::serve(config, export).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(%error, "cannot begin");
            ExitCode::FAILURE
        }
    }
}

fn validate(file: &Path) -> ExitCode {
    match definition::load(file) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| println!("{}: warning: {warning}", file.display()));
            let agent = loaded.agent;
            println!("{}: valid, {} nodes", file.display(), agent.nodes.len());
            agent.entry_points.iter().for_each(|(id, entry)| println!("  entry point {id} begins at {}", entry.node));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn told(what: &str, outcome: std::io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what}: {error}");
            ExitCode::FAILURE
        }
    }
}
