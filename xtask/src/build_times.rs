//! Owns the task `bench build`: how long everybody waits for builds, tests and the demo.
//!
//! Rows without caches get new folders for everything that is downloaded or built; the others use what is there.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use crate::{images, workspace};

/// What the demo prints once the first agent is paused.
pub(crate) const PAUSED: &str = "The first agent was paused";

/// How the changed line begins.
const MARK: &str = "pub const CHANGED";

#[derive(Debug, Args)]
pub(crate) struct BuildTimes {
    /// The rows to measure, in this order; all of them if none is given, which takes about two hours
    #[arg(value_enum)]
    rows: Vec<Row>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Row {
    /// `cargo xtask demo` with nothing cached: its first line, and until the first agent is paused
    Demo,
    /// The compilation of the cluster's programs alone, with nothing cached
    Go,
    /// The compilation of the images' binaries alone, with nothing cached
    Rust,
    /// `cargo xtask test` with nothing cached
    Test,
    /// `cargo xtask test` after it has run, with one line of the operator changed
    Again,
    /// `cargo test` of one crate after a change of one line in it
    Crates,
}

/// Measures the rows and prints each as it ends.
pub(crate) fn run(task: &BuildTimes) -> anyhow::Result<ExitCode> {
    let rows = if task.rows.is_empty() { Row::value_variants() } else { &task.rows };
    println!("Nothing else should run on this machine, and no cluster of the tests.");
    for row in rows {
        match row {
            Row::Demo => demo()?,
            Row::Go => {
                let cold = Folders::new("go")?;
                let took = watch("go", cold.apply(&mut xtask(&["cluster", "build"])), |_| false)?.took;
                print_row("cargo xtask cluster build alone, nothing cached", took);
            }
            Row::Rust => {
                let cold = Folders::new("rust")?;
                let mut build = images::compile(images::Profile::Quick, &cold.root.join("target"), images::FLAGS);
                print_row(
                    "compile the images' binaries alone, nothing cached",
                    watch("rust", cold.apply(&mut build), |_| false)?.took,
                );
            }
            Row::Test => {
                let cold = Folders::new("test")?;
                let seen = watch("test", cold.apply(&mut xtask(&["test"])), |_| false);
                watch("test-down", cold.apply(&mut xtask(&["cluster", "down"])), |_| false)?;
                print_row("cargo xtask test, nothing cached", seen?.took);
            }
            Row::Again => {
                let _changed = Changed::new("operator")?;
                print_row(
                    "cargo xtask test, one line of the operator changed",
                    watch("again", &mut xtask(&["test"]), |_| false)?.took,
                );
            }
            Row::Crates => crates()?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn demo() -> anyhow::Result<()> {
    let cold = Folders::new("demo")?;
    let seen = watch("demo", cold.apply(&mut xtask(&["demo"])), |line| line.starts_with(PAUSED));
    // Also when the demo has failed: its folder cannot go while a cluster runs in it.
    watch("demo-down", cold.apply(&mut xtask(&["cluster", "down"])), |_| false)?;
    let seen = seen?;
    print_row("first line of cargo xtask demo, nothing cached", seen.first.context("the demo printed nothing")?);
    print_row(
        "cargo xtask demo until the first agent is paused, nothing cached",
        seen.marked.context("the demo paused no agent")?,
    );
    Ok(())
}

fn crates() -> anyhow::Result<()> {
    for name in ["operator", "agent-runtime"] {
        let test = || {
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--package", name]);
            cargo
        };
        watch("crate-before", &mut test(), |_| false)?;
        let _changed = Changed::new(name)?;
        print_row(
            &format!("cargo test of {name}, one line of it changed"),
            watch("crate", &mut test(), |_| false)?.took,
        );
    }
    Ok(())
}

fn print_row(row: &str, took: Duration) {
    println!("{:>8.1} s  {row}", took.as_secs_f64());
}

/// `cargo xtask` as a user types it.
fn xtask(task: &[&str]) -> Command {
    let mut cargo = workspace::cargo();
    cargo.arg("xtask").args(task);
    cargo
}

/// New folders for all that is downloaded and built. They go with the value.
struct Folders {
    root: PathBuf,
    cluster: PathBuf,
}

impl Folders {
    fn new(row: &str) -> anyhow::Result<Self> {
        let root = workspace::target().join(format!("bench/build-{row}-{}", std::process::id()));
        fs::create_dir_all(root.join("cargo")).with_context(|| root.display().to_string())?;
        // Where crates come from is this machine's setting, and no cache.
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let settings = home.map(|home| home.join("config.toml")).filter(|file| file.is_file());
        if let Some(settings) = settings {
            fs::copy(&settings, root.join("cargo/config.toml")).with_context(|| settings.display().to_string())?;
        }
        Ok(Self { root, cluster: std::env::temp_dir().join(format!("hive-{}", std::process::id())) })
    }

    fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let variables = [
            ("CARGO_TARGET_DIR", "target"),
            ("CARGO_HOME", "cargo"),
            ("XDG_CACHE_HOME", "cache"),
            ("GOCACHE", "go-build"),
            ("GOMODCACHE", "go-mod"),
        ];
        for (name, folder) in variables {
            command.env(name, self.root.join(folder));
        }
        // The paths of sockets in it have to be short.
        command.env(cluster::DIR_VARIABLE, &self.cluster);
        // So that the folder can be removed.
        command.env("GOFLAGS", "-modcacherw")
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if self.cluster.join("target.json").exists() {
            eprintln!("{} stays, as a cluster runs in it", self.cluster.display());
            return;
        }
        for folder in [&self.root, &self.cluster].into_iter().filter(|folder| folder.exists()) {
            if let Err(error) = fs::remove_dir_all(folder) {
                eprintln!("{} stays: {error}", folder.display());
            }
        }
    }
}

/// One changed line in a crate's library. The file is as before once the value is gone.
struct Changed {
    file: PathBuf,
    text: String,
}

impl Changed {
    fn new(package: &str) -> anyhow::Result<Self> {
        let file = workspace::root().join(package).join("src/lib.rs");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        ensure!(!text.contains(MARK), "{}: remove the line that an earlier run left: {MARK}", file.display());
        // Part of the library's interface, so that everything above it is compiled again.
        let nonce = std::process::id();
        fs::write(&file, format!("{text}\n#[doc(hidden)]\n{MARK}: u32 = {nonce};\n"))?;
        Ok(Self { file, text })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.file, &self.text) {
            eprintln!("{} still has the line that was added: {error}", self.file.display());
        }
    }
}

/// When a command printed what.
struct Seen {
    first: Option<Duration>,
    marked: Option<Duration>,
    took: Duration,
}

/// Runs a command to its end with its output in a file, and notes the time of its first line and of a marked one.
fn watch(name: &str, command: &mut Command, marks: impl Fn(&str) -> bool) -> anyhow::Result<Seen> {
    let folder = workspace::target().join("bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("build-{name}.log"));
    let mut log = File::create(&path).with_context(|| path.display().to_string())?;
    println!("{command:?}, with its output in {}", path.display());
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (lines, printed) = mpsc::sync_channel(1024);
    let errors = child.stderr.take().context("the errors are piped")?;
    let output = child.stdout.take().context("the output is piped")?;
    thread::scope(|scope| {
        scope.spawn({
            let lines = lines.clone();
            move || BufReader::new(errors).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        scope.spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut seen = Seen { first: None, marked: None, took: Duration::ZERO };
        for line in printed {
            let now = begun.elapsed();
            seen.first.get_or_insert(now);
            if marks(&line) {
                seen.marked.get_or_insert(now);
            }
            writeln!(log, "{:8.1} {line}", now.as_secs_f64())?;
        }
        let status = child.wait()?;
        seen.took = begun.elapsed();
        ensure!(status.success(), "{name} ended with {status}:\n{}", cluster::tail(&path, 20));
        Ok(seen)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn watched_command_gives_the_times_of_its_lines() {
        let seen =
            watch("test-of-watch", Command::new("sh").args(["-c", "echo a; echo b >&2"]), |line| line == "b").unwrap();
        assert!(seen.first.unwrap() <= seen.took && seen.marked.unwrap() <= seen.took);
        assert!(watch("test-of-watch", Command::new("sh").args(["-c", "exit 3"]), |_| false).is_err());
    }

    #[test]
    fn cold_command_shares_no_folder_with_this_run() {
        let cold = Folders { root: PathBuf::from("/new"), cluster: PathBuf::from("/new/cluster") };
        let mut command = Command::new("true");
        let set: Vec<_> =
            cold.apply(&mut command).get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        for name in ["CARGO_TARGET_DIR", "CARGO_HOME", "XDG_CACHE_HOME", "GOCACHE", "GOMODCACHE"] {
            assert!(set.iter().any(|(known, value)| *known == name && Path::new(value).starts_with("/new")), "{name}");
        }
    }
}
