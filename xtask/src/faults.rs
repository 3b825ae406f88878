//! Owns the task `faults`: the operator under every fault at every place.

use std::process::{Command, ExitCode};

use clap::Args;

use crate::workspace;

/// How many perturbations `--all` asks for.
const ALL: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Faults {
    /// Go on until 10,000 perturbations have struck: each fault at each place, then pairs of them
    #[arg(long)]
    all: bool,
    /// Seconds after which no further run begins; 360 if it is not given, and no end with --all
    #[arg(long)]
    seconds: Option<u64>,
    /// Only what has this text in its name, such as `Pause / Write`; `a|b` for one of these, and pairs of them
    #[arg(long)]
    only: Option<String>,
    /// The order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(task: &Faults) -> anyhow::Result<ExitCode> {
    // The test is not what builds the operator's program, and tells when it is not current.
    workspace::run(&mut workspace::build(&["agentruntime-operator"]))?;
    let mut tests = tests();
    if task.all {
        tests.env("HIVE_FAULTS_COUNT", ALL.to_string());
    }
    if let Some(seconds) = task.seconds {
        tests.env("HIVE_FAULTS_SECONDS", seconds.to_string());
    }
    if let Some(only) = &task.only {
        tests.env("HIVE_FAULTS_ONLY", only);
    }
    if let Some(seed) = task.seed {
        tests.env("HIVE_FAULTS_SEED", seed.to_string());
    }
    workspace::run(&mut tests)?;
    Ok(ExitCode::SUCCESS)
}

/// The test program, with the features that the whole workspace gives its dependencies: they are built already.
pub(crate) fn tests() -> Command {
    let mut tests = workspace::cargo();
    tests.args(["test", "--workspace", "--test", "faults", "--", "--nocapture", "--test-threads", "1"]);
    tests
}
