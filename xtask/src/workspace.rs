//! Owns where things lie, and the running of the workspace's own commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The folder of the checkout.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(set.unwrap_or_else(|| "target".into()))
}

/// A command that runs in the checkout.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this. What it says of this package to this process is not handed on: build scripts that look at
/// those variables would run again after each change between `cargo` and `cargo xtask`, with all that depends on them.
pub(crate) fn cargo() -> Command {
    let mut cargo = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    let of_this = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_this) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds programs as the tests of the workspace have them: with a test among its targets, cargo gives dependencies the
/// features that tests ask for, and those are built already.
pub(crate) fn build(programs: &[&str]) -> Command {
    let mut build = cargo();
    build.args(["build", "--workspace", "--test", "docs"]);
    for program in programs {
        build.args(["--bin", program]);
    }
    build
}

/// This program, for another of its tasks.
pub(crate) fn xtask() -> anyhow::Result<Command> {
    let mut xtask = Command::new(std::env::current_exe().context("this program's own path")?);
    xtask.current_dir(root());
    Ok(xtask)
}

/// Runs a command to its end; what it prints is seen.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end and gives what it prints.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every task waits for xtask to compile.
    #[test]
    fn xtask_depends_on_no_kubernetes_types() {
        let mut tree = cargo();
        tree.args(["tree", "--package", "xtask", "--edges", "normal,build", "--prefix", "none", "--locked"]);
        let tree = read(&mut tree).unwrap();
        let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(names.contains(&"clap"), "{tree}");
        for heavy in ["kube", "kube-core", "k8s-openapi", "crds"] {
            assert!(!names.contains(&heavy), "{heavy} takes minutes to compile:\n{tree}");
        }
    }
}
