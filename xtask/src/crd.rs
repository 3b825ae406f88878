//! Owns the task `crd`: runs the generator of the custom resources' YAML, which compiles the types of Kubernetes.

use std::process::ExitCode;

use clap::Args;

use crate::workspace;

#[derive(Debug, Args)]
pub(crate) struct Crd {
    /// Only report whether the files are current
    #[arg(long)]
    check: bool,
    /// Record the definitions as those of this version, with which later ones are compared
    #[arg(long, conflicts_with = "check")]
    release: bool,
}

/// Builds the generator and runs it.
pub(crate) fn run(task: &Crd) -> anyhow::Result<ExitCode> {
    let mut generator = workspace::cargo();
    generator.args(["run", "--package", "crdgen", "--"]);
    generator.args(task.check.then_some("--check")).args(task.release.then_some("--release"));
    workspace::run(&mut generator)?;
    Ok(ExitCode::SUCCESS)
}
