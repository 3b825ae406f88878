//! The peer's Python environment, made once for each set of requirements.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

/// The interpreter of the environment that has the peer's packages, installing them if need be.
pub(crate) fn interpreter(peer: &Path) -> anyhow::Result<PathBuf> {
    let requirements = peer.join("requirements.txt");
    let text = fs::read(&requirements).with_context(|| requirements.display().to_string())?;
    let hash: String = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
    let folder = home.join(".cache/agentruntime/bench-venv").join(hash);
    let python = folder.join("bin/python");
    let done = folder.join("installed");
    if done.exists() {
        return Ok(python);
    }
    eprintln!("installing the peer's packages into {}", folder.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))?;
    fs::write(done, "")?;
    Ok(python)
}

/// The versions that the figures are of.
pub(crate) fn versions(python: &Path, packages: &[&str]) -> String {
    let script = "import platform, sqlite3, sys, importlib.metadata as m; print('Python', platform.python_version() + \
                  ',', 'SQLite', sqlite3.sqlite_version + ',', ', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))";
    let output = Command::new(python).args(["-c", script]).args(packages).output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed: {}", told.lines().last().unwrap_or("it said nothing"));
    }
    Ok(())
}
