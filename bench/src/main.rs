//! Measures the product, its peers and what the machine allows; run as `cargo xtask bench`.

mod contender;
mod disk;
mod figures;
mod group_commit;
mod http;
mod load;
mod machine;
mod null;
mod operator;
mod pause;
mod plan;
mod process;
mod report;
mod site;
mod start;
mod status;
mod table;
mod triggers;
mod venv;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};

use contender::Arena;
use machine::Cores;
use plan::Plan;
use table::Row;

/// Measures the agent runtime and the operator next to peers.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure the runtime, print the table and write the report
    Runtime(Box<Runtime>),
    /// Measure the operator, print the table and write the report
    Operator(Box<operator::Operator>),
    /// Serve as simulated pods
    #[command(hide = true)]
    Pods(operator::pods::Pods),
    /// Serve as the null server
    #[command(hide = true)]
    Null(null::Null),
}

#[derive(Debug, Args)]
struct Runtime {
    /// The agent-runtime to measure
    #[arg(long)]
    binary: PathBuf,
    /// The folder of the FastAPI peer
    #[arg(long)]
    peer: PathBuf,
    /// The folder in which data folders are made; its disk is measured
    #[arg(long)]
    folder: PathBuf,
    /// The report's file; none is written without it
    #[arg(long)]
    report: Option<PathBuf>,
    /// How often each figure is taken
    #[arg(long)]
    runs: usize,
    /// Short loads and few pauses
    #[arg(long)]
    quick: bool,
    /// Fail unless the figures make sense
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Runtime(task) => run(&task),
        Task::Operator(task) => operator::run(&task),
        Task::Pods(task) => operator::pods::serve(&task),
        Task::Null(task) => null::serve(&task),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Runtime) -> anyhow::Result<()> {
    let plan = Plan::new(task.runs.max(1), task.quick);
    let cores = Cores::choose()?;
    let (peer, versions) = match venv::interpreter(&task.peer) {
        Ok(python) => {
            let versions = venv::versions(&python, &PACKAGES);
            (Some((python, task.peer.clone())), versions)
        }
        Err(error) => {
            eprintln!("the peer is skipped: {error:#}");
            (None, format!("skipped: {error:#}"))
        }
    };
    std::fs::create_dir_all(&task.folder).with_context(|| task.folder.display().to_string())?;
    let folder = task.folder.canonicalize()?;
    let arena = Arena { runtime: task.binary.clone(), peer, folder: folder.clone(), cores };
    eprintln!("{}", cores.told());
    machine::pin(cores.client)?;
    let rows = measure(&arena, &plan)?;
    let text = table::aligned(&rows);
    print!("{text}");
    let missed: Vec<&str> = rows.iter().filter(|row| row.is_met() == Some(false)).map(|row| row.name.trim()).collect();
    let doubts = report::doubts(&rows);
    report::tell(&missed, &doubts);
    if let Some(path) = &task.report {
        let mut facts = machine::described(&folder);
        facts.extend([("pinning", cores.told()), ("peer", versions), ("size", plan.told())]);
        facts.extend(doubts.into_iter().map(|doubt| ("doubtful", doubt)));
        report::write(path, &rows, &facts)?;
        println!("wrote {}", path.display());
    }
    std::fs::remove_dir_all(&folder)?;
    if task.check { check(&rows, arena.peer.is_some()) } else { Ok(()) }
}

fn measure(arena: &Arena, plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = start::measure(arena, plan)?;
    rows.extend(status::measure(arena, plan)?);
    let (triggers, mut disk, syncs) = triggers::measure(arena, plan)?;
    rows.extend(triggers);
    rows.extend(pause::measure(arena, plan, &mut disk, &syncs)?);
    Ok(rows)
}

/// The peer's packages whose versions are told.
const PACKAGES: [&str; 6] = ["fastapi", "uvicorn", "uvloop", "httptools", "orjson", "aiohttp"];

/// Rows that a whole table has.
const ROWS: usize = 17;

/// What must hold on every machine, however slow: figures are there, and a pause is a pause.
fn check(rows: &[Row], with_peer: bool) -> anyhow::Result<()> {
    if rows.len() != ROWS {
        bail!("the table has {} rows instead of {ROWS}", rows.len());
    }
    for row in rows {
        let is_count = row.name == pause::LATE;
        if is_count && (row.ours.most() > 0.0 || row.peer.most() > 0.0) {
            bail!("{}: ours {}, peer {}", row.name, row.ours.most(), row.peer.most());
        }
        let own = [(&row.ours, true), (&row.peer, with_peer)];
        let measured = own.into_iter().filter(|(_, takes_part)| *takes_part && row.name != triggers::SYNCS);
        for (runs, _) in measured {
            if runs.is_empty() || (!is_count && row.name != pause::BEYOND && runs.least() <= 0.0) {
                bail!("{} has no figure", row.name);
            }
        }
    }
    println!("the figures make sense");
    Ok(())
}
