//! Owns the task `fuzz`: every parser of the runtime with changed seeds, for a minute each.

use std::process::{Command, ExitCode};

use clap::Args;

use crate::workspace;

/// The targets, each with a folder of seeds in fuzz/corpus.
const TARGETS: &[&str] = &["agent_file", "condition", "webhook", "command", "journal", "boot_file"];

#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// One target; all of them if it is not given
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Let libFuzzer find inputs by coverage; needs the nightly toolchain and cargo-fuzz
    #[arg(long)]
    libfuzzer: bool,
}

pub(crate) fn run(task: &Fuzz) -> anyhow::Result<ExitCode> {
    if task.libfuzzer {
        let targets = TARGETS.iter().filter(|name| task.target.as_deref().is_none_or(|target| target == **name));
        for target in targets {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo", "fuzz", "run", target, "--"]);
            cargo.arg(format!("-max_total_time={}", task.seconds));
            workspace::run(cargo.current_dir(workspace::root()).env_remove("RUSTUP_TOOLCHAIN"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut tests = workspace::cargo();
    tests.args(["test", "--package", "agent-runtime", "--test", "fuzz", "--", "--nocapture"]);
    tests.env("HIVE_FUZZ_SECONDS", task.seconds.to_string());
    if let Some(target) = &task.target {
        tests.env("HIVE_FUZZ_TARGET", target);
    }
    workspace::run(&mut tests)?;
    Ok(ExitCode::SUCCESS)
}
