//! Owns the task `test`: everything that a change must pass, with a count at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use cluster::{Cluster, Target};

use crate::coverage::{Coverage, LEAST};
use crate::progress::Terminal;
use crate::{debian, faults, images, release, room, workspace};

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Leave out what needs a cluster
    #[arg(long)]
    no_cluster: bool,
    /// Leave out the measurement of coverage, for which the workspace's crates are built once more
    #[arg(long)]
    no_coverage: bool,
    /// Run what takes too long for every change too: the binaries are built twice from nothing and compared
    #[arg(long)]
    all: bool,
}

/// What has been counted so far.
#[derive(Debug, Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: Vec<String>,
    /// What counts the lines that run, unless that is left out.
    coverage: Option<Coverage>,
}

/// Runs all steps, also after one has failed.
pub(crate) fn run(task: &Test) -> anyhow::Result<ExitCode> {
    room::make(&workspace::target())?;
    let mut tally = Tally::default();
    tally.step("format", workspace::cargo().args(["fmt", "--all", "--check"]));
    tally.step(
        "clippy",
        workspace::cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    );
    if let Err(error) = debian::postgres() {
        tally.skip("the store that replicas share", &format!("{error:#}"));
    }
    tally.measure(task.no_coverage);
    let mut tests = tally.cargo();
    tally.tests("unit, property and contract tests", tests.args(["test", "--workspace", "--no-fail-fast"]));
    tally.faults(task.no_cluster);
    let mut bench = tally.xtask()?;
    tally.step("benchmarks, once and short", bench.args(["bench", "runtime", "--check"]));
    tally.operator_benchmarks(task.no_cluster)?;
    for engine in ["argocd", "flux"] {
        let mut go = workspace::command("go");
        // Nothing is to depend on where the checkout has its history.
        go.current_dir(workspace::root().join("tests/gitops").join(engine)).env("GOFLAGS", "-buildvcs=false");
        tally.step(&format!("the engine of {engine} on recorded states"), go.args(["test", "./..."]));
    }
    tally.licences();
    if task.no_cluster {
        tally.skip("chart lint and end-to-end tests", "--no-cluster");
    } else if let Err(error) = tally.cluster() {
        eprintln!("the cluster: {error:#}");
        tally.failed += 1;
    }
    tally.lines(task.no_cluster);
    if task.all {
        tally.step("reproducible binaries and images", workspace::xtask()?.args(["reproduce", "--compile"]));
        match tool("mdbook", "0.5.4") {
            Ok(()) => drop(tally.step("the book and its links", workspace::xtask()?.arg("book"))),
            Err(error) => tally.skip("the book", &format!("{error:#}")),
        }
    } else {
        tally.skip("reproducible binaries, and the book", "only with --all");
    }
    for skipped in &tally.skipped {
        println!("skipped: {skipped}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Tally {
    fn skip(&mut self, what: &str, why: &str) {
        self.skipped.push(format!("{what}: {why}"));
    }

    /// Lets what follows count the lines that run.
    fn measure(&mut self, not: bool) {
        if not {
            self.skip("coverage", "--no-coverage");
            return;
        }
        match Coverage::begin() {
            Ok(coverage) => self.coverage = Some(coverage),
            Err(error) => self.skip("coverage", &format!("{error:#}")),
        }
    }

    /// Says which share of the lines has run. Without a cluster it is too small, and only said.
    fn lines(&mut self, no_cluster: bool) {
        let Some(coverage) = self.coverage.take() else { return };
        self.check("coverage", || {
            let poor = coverage.report()?;
            ensure!(poor.is_empty() || no_cluster, "under {LEAST} % of the lines of {} have run", poor.join(", "));
            Ok(())
        });
        if no_cluster {
            self.skip("the least share of lines that run", "--no-cluster");
        }
    }

    /// Cargo, for what is measured.
    fn cargo(&self) -> Command {
        self.measured(workspace::cargo())
    }

    /// Another task of this program, for what is measured.
    fn xtask(&self) -> anyhow::Result<Command> {
        workspace::xtask().map(|xtask| self.measured(xtask))
    }

    fn measured(&self, mut command: Command) -> Command {
        if let Some(coverage) = &self.coverage {
            coverage.instrument(&mut command);
        }
        command
    }

    /// Runs a command that passes or fails as a whole.
    fn step(&mut self, name: &str, command: &mut Command) -> bool {
        self.check(name, || workspace::run(command))
    }

    fn check(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<()>) -> bool {
        let begun = Instant::now();
        println!("== {name}");
        let passed = match run() {
            Ok(()) => true,
            Err(error) => {
                eprintln!("{error:#}");
                false
            }
        };
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        println!("== {name}: {} in {:.0} s", if passed { "passed" } else { "FAILED" }, begun.elapsed().as_secs_f32());
        passed
    }

    /// Runs tests and counts them one by one.
    fn tests(&mut self, name: &str, command: &mut Command) {
        let begun = Instant::now();
        println!("== {name}");
        let (passed, failed) = match count(command) {
            Ok(counted) => counted,
            Err(error) => {
                eprintln!("{error:#}");
                (0, 1)
            }
        };
        self.passed += passed;
        self.failed += failed;
        println!("== {name}: {passed} passed, {failed} failed in {:.0} s", begun.elapsed().as_secs_f32());
    }

    /// The operator under faults, for as long as HIVE_FAULTS_SECONDS says. Its API server needs neither root nor a
    /// cluster, but is built from source once.
    fn faults(&mut self, no_cluster: bool) {
        if no_cluster && !cluster::control_plane_is_built() {
            self.skip("faults", "--no-cluster, and no API server has been built yet");
            return;
        }
        if let Err(error) = debian::faketime() {
            self.skip("wrong clocks of the operator", &format!("{error:#}"));
        }
        let mut program = self.measured(workspace::build(&["agentruntime-operator"]));
        if self.step("the operator's program", &mut program) {
            let mut tests = self.measured(faults::tests());
            self.tests("the operator under faults", &mut tests);
        }
    }

    /// The benchmarks of the operator, once and short; against an API server as the faults have.
    fn operator_benchmarks(&mut self, no_cluster: bool) -> anyhow::Result<()> {
        if no_cluster && !cluster::control_plane_is_built() {
            self.skip("benchmarks of the operator", "--no-cluster, and no API server has been built yet");
            return Ok(());
        }
        let mut bench = self.xtask()?;
        self.step("benchmarks of the operator, once and short", bench.args(["bench", "operator", "--check"]));
        Ok(())
    }

    fn licences(&mut self) {
        if let Err(error) = tool("cargo-deny", "0.20.2") {
            self.skip("licences and sources", &format!("{error:#}"));
            return;
        }
        self.step(
            "licences, bans and sources",
            workspace::cargo().args(["deny", "check", "licenses", "bans", "sources"]),
        );
        // The advisories live in a repository of their own, which a machine with registries only cannot reach.
        let fetched = workspace::cargo().args(["deny", "fetch", "db"]).output().is_ok_and(|o| o.status.success());
        if fetched {
            self.step("advisories", workspace::cargo().args(["deny", "check", "advisories"]));
        } else {
            self.skip("advisories", "the RustSec database cannot be reached from here");
        }
    }

    fn cluster(&mut self) -> anyhow::Result<()> {
        println!("== cluster");
        let cluster = Cluster::up(&Target::Host, &Terminal::new())?;
        self.step(
            "helm lint",
            cluster.helm().current_dir(workspace::root()).args(["lint", "charts/agentruntime-operator"]),
        );
        let images = images::load(&cluster)?;
        self.step("reproducible images", workspace::xtask()?.arg("reproduce"));
        release::install(&cluster, &images)?;
        if let Err(error) = debian::browser() {
            self.skip("the dashboard in a browser", &format!("{error:#}"));
        }
        let mut plugin = self.measured(workspace::build(&["kubectl-hive"]));
        self.step("the plugin that they run", &mut plugin);
        let mut tests = self.cargo();
        // Each test waits for pods more than it computes, so more of them run at once than there are cores.
        tests.args(["test", "--workspace", "--test", "e2e", "--", "--test-threads", "4", "--nocapture"]);
        self.tests("end-to-end tests", &mut tests);
        Ok(())
    }
}

/// Runs a test command, shows what it prints, and adds up its `test result:` lines.
fn count(command: &mut Command) -> anyhow::Result<(u32, u32)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
    let (mut passed, mut failed) = (0, 0);
    let output = child.stdout.take().context("a pipe was asked for")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some((p, f)) = result(&line) {
            passed += p;
            failed += f;
        }
    }
    let status = child.wait()?;
    // A test program that does not build, or dies, has no result line.
    let unseen = u32::from(!status.success() && failed == 0);
    Ok((passed, failed + unseen))
}

/// Reads `test result: ok. 12 passed; 0 failed; …`.
fn result(line: &str) -> Option<(u32, u32)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number =
        |word: &str| counts.split("; ").find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u32>().ok());
    Some((number("passed")?, number("failed")?))
}

/// Finds a tool of cargo's, or installs its pinned version.
fn tool(name: &str, version: &str) -> anyhow::Result<()> {
    let found = Command::new(name).arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    eprintln!("installing {name} {version}, which takes some minutes once");
    let mut install = Command::new("cargo");
    install.args(["install", "--locked", "--quiet", name, "--version", version]);
    // Each runs for a minute or so: to build it well would take longer than that gains.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    workspace::run(&mut install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: ok. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test a::b ... ok"), None);
    }

    #[test]
    fn a_command_that_dies_without_a_result_has_failed() {
        assert_eq!(count(Command::new("sh").args(["-c", "exit 3"])).unwrap(), (0, 1));
    }
}
