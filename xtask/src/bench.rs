//! Owns the task `bench`: builds what is measured and what measures, and runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Subcommand};

use crate::build_times::{self, BuildTimes};
use crate::{images, workspace};

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Compare the agent runtime with a FastAPI peer and with what the machine allows
    ///
    /// Prints a table and writes docs/BENCHMARKS.md. Nothing else should run on the machine meanwhile.
    /// A target that is missed is said and is no failure. The peer's packages are installed into
    /// ~/.cache/agentruntime/bench-venv.
    Runtime(Sizes),
    /// Compare the operator with one on controller-runtime and one on kopf, and with what the API server allows
    ///
    /// Prints a table and writes docs/BENCHMARKS_OPERATOR.md. Starts an API server and etcd of its own; needs no root
    /// and no cluster. Nothing else should run on the machine meanwhile. A target that is missed is said and is no
    /// failure. A peer that cannot be built is left out, and the reason is said.
    Operator(Measured),
    /// Measure how long builds, tests and the demo take, with and without caches
    Build(BuildTimes),
}

/// How many objects the largest part has.
const CROWD: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Measured {
    #[command(flatten)]
    sizes: Sizes,
    /// One part alone, without a report: `one`, `many`, `objects` or `failover`
    #[arg(long, conflicts_with = "check")]
    only: Option<String>,
    /// Without the peers
    #[arg(long, requires = "only")]
    alone: bool,
    /// So many objects with one pod each are measured once, after all else; none if 0
    #[arg(long, default_value_t = CROWD)]
    crowd: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// How often each figure is taken, the contenders in turn; 5 for the runtime and 3 for the operator if not given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: Option<u16>,
    /// Short loads and small numbers, for a look: the report goes to the build folder
    #[arg(long)]
    quick: bool,
    /// Only see that everything still works: one short run of unoptimized builds, no report
    #[arg(long, conflicts_with = "runs")]
    check: bool,
}

/// Runs the task.
pub(crate) fn run(task: &Task) -> anyhow::Result<ExitCode> {
    let mut bench = match task {
        Task::Runtime(sizes) => runtime(sizes)?,
        Task::Operator(measured) => operator(measured)?,
        Task::Build(rows) => return build_times::run(rows),
    };
    workspace::run(&mut bench).map(|()| ExitCode::SUCCESS)
}

/// One short run that only shows that everything still works, of programs that are built already.
pub(crate) fn check(what: Subject) -> Command {
    let sizes = Sizes { runs: None, quick: false, check: true };
    match what {
        Subject::Runtime => measure_runtime(&sizes, &unoptimized().join("agent-runtime"), &unoptimized()),
        Subject::Operator => {
            measure_operator(&Measured { sizes, only: None, alone: false, crowd: CROWD }, &unoptimized())
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Runtime,
    Operator,
}

fn runtime(sizes: &Sizes) -> anyhow::Result<Command> {
    if sizes.check {
        workspace::run(&mut workspace::build(&["agent-runtime", "bench"]))?;
        return Ok(check(Subject::Runtime));
    }
    // What is published is what is measured.
    let binary = images::binary("agent-runtime")?;
    workspace::run(workspace::cargo().args(["build", "--release", "--package", "bench"]))?;
    Ok(measure_runtime(sizes, &binary, &workspace::target().join("release")))
}

fn operator(measured: &Measured) -> anyhow::Result<Command> {
    if measured.sizes.check {
        workspace::run(&mut workspace::build(&["agentruntime-operator", "bench"]))?;
        return Ok(measure_operator(measured, &unoptimized()));
    }
    let mut build = workspace::cargo();
    build.args(["build", "--profile", "simulation", "--package", "operator", "--package", "bench"]);
    workspace::run(&mut build)?;
    Ok(measure_operator(measured, &workspace::target().join("simulation")))
}

/// Where the programs of the tests are.
fn unoptimized() -> PathBuf {
    workspace::target().join("debug")
}

fn measure_runtime(sizes: &Sizes, binary: &Path, measuring: &Path) -> Command {
    let mut bench = workspace::command(&measuring.join("bench").to_string_lossy());
    bench.arg("runtime").arg("--binary").arg(binary);
    bench.arg("--peer").arg(workspace::root().join("bench/peers/fastapi"));
    bench.arg("--folder").arg(workspace::target().join("bench/data"));
    sized(&mut bench, sizes, 5);
    reported(&mut bench, sizes, "BENCHMARKS.md");
    bench
}

fn measure_operator(measured: &Measured, built: &Path) -> Command {
    let Measured { sizes, only, alone, crowd } = measured;
    let mut bench = workspace::command(&built.join("bench").to_string_lossy());
    bench.arg("operator").arg("--binary").arg(built.join("agentruntime-operator"));
    bench.arg("--peers").arg(workspace::root().join("bench/peers"));
    bench.arg("--folder").arg(workspace::target().join("bench/operator"));
    bench.args(["--crowd", &crowd.to_string()]);
    sized(&mut bench, sizes, if sizes.quick { 1 } else { 3 });
    match only {
        Some(part) => drop(bench.args(["--only", part]).args(alone.then_some("--alone"))),
        None => reported(&mut bench, sizes, "BENCHMARKS_OPERATOR.md"),
    }
    bench
}

fn sized(bench: &mut Command, sizes: &Sizes, runs: u16) {
    let runs = if sizes.check { 1 } else { sizes.runs.unwrap_or(runs) };
    bench.args(["--runs", &runs.to_string()]);
    if sizes.quick || sizes.check {
        bench.arg("--quick");
    }
    if sizes.check {
        bench.arg("--check");
    }
}

fn reported(bench: &mut Command, sizes: &Sizes, report: &str) {
    if !sizes.check {
        // A look must not replace figures that took their time.
        let folder = if sizes.quick { workspace::target().join("bench") } else { workspace::root().join("docs") };
        bench.arg("--report").arg(folder.join(report));
    }
}
