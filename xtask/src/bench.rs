//! Owns the task `bench`: builds what is measured and what measures, and runs it.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::workspace;

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Compare the agent runtime with a FastAPI peer and with what the machine allows
    ///
    /// Prints a table and writes docs/BENCHMARKS.md. Nothing else should run on the machine meanwhile.
    /// A target that is missed is said and is no failure. The peer's packages are installed into
    /// ~/.cache/agentruntime/bench-venv.
    Runtime(Runtime),
}

#[derive(Debug, Args)]
pub(crate) struct Runtime {
    /// How often each figure is taken, the contenders in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// Short loads and few pauses, for a look: the report goes to the build folder
    #[arg(long)]
    quick: bool,
    /// Only see that everything still works: one quick run of unoptimised builds, no report
    #[arg(long, conflicts_with = "runs")]
    check: bool,
}

/// Runs the task.
pub(crate) fn run(task: &Task) -> anyhow::Result<ExitCode> {
    let Task::Runtime(task) = task;
    let target = workspace::target();
    let (profile, folder) = if task.check { ("dev", "debug") } else { ("release", "release") };
    let mut build = workspace::cargo();
    build.args(["build", "--profile", profile, "--package", "agent-runtime", "--package", "bench"]);
    workspace::run(&mut build)?;
    let built = target.join(folder);
    let mut bench = workspace::command(&built.join("bench").to_string_lossy());
    bench.arg("runtime").arg("--binary").arg(built.join("agent-runtime"));
    bench.arg("--peer").arg(workspace::root().join("bench/peers/fastapi"));
    bench.arg("--folder").arg(target.join("bench/data"));
    let runs = if task.check { 1 } else { task.runs };
    bench.args(["--runs", &runs.to_string()]);
    if task.quick || task.check {
        bench.arg("--quick");
    }
    if task.check {
        bench.arg("--check");
    } else {
        // A look must not replace figures that took their time.
        let report = if task.quick { target.join("bench") } else { workspace::root().join("docs") };
        bench.arg("--report").arg(report.join("BENCHMARKS.md"));
    }
    workspace::run(&mut bench).map(|()| ExitCode::SUCCESS)
}
