//! Owns the task `test`: everything that a change must pass, with a count at the end.
//!
//! What computes alone (the cluster's programs, lints, other tools) runs in the background at the lowest priority,
//! beside tests that mostly wait. All test programs are built at once and run without cargo.

mod background;
mod libtest;
mod programs;
mod report;

use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use cluster::{Cluster, Event, Target};

use self::background::{Background, Done, finished, logged};
use self::libtest::Outcome;
use self::programs::{Program, Programs};
use self::report::Report;
use crate::bench::Subject;
use crate::coverage::{Coverage, LEAST};
use crate::images::{self, Build, Profile};
use crate::progress::Terminal;
use crate::{bench, chart, debian, disk, workspace};

/// Test programs that call programs built from Go, and so wait for them.
const NEEDS_GO: [&str; 2] = ["chart", "xtask"];

/// Test programs that a plain `cargo test` leaves out.
const NAMED: [&str; 3] = ["chart", "e2e", "faults"];

/// Test programs with a step of their own.
const OWN_STEP: [&str; 2] = ["e2e", "faults"];

/// All end-to-end tests are started at once: how many of them run is decided where it is known which may.
const E2E_THREADS: &str = "200";

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Leave out what needs a cluster
    #[arg(long)]
    no_cluster: bool,
    /// Leave out the measurement of coverage
    #[arg(long)]
    no_coverage: bool,
    /// Also run what takes too long for every change: build the published binaries twice from nothing, and the book
    #[arg(long)]
    all: bool,
}

/// Runs all parts, also after one has failed.
pub(crate) fn run(task: &Test) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    disk::check(&workspace::target())?;
    let report = Report::default();
    let coverage = counting(task, &report);
    let session = Session { task, report, coverage };
    let (programs, joined) = thread::scope(|scope| {
        let background = Background::start(scope);
        (session.run(&background), background.join())
    });
    if joined.is_err() {
        session.step("parts in the background", || joined);
    }
    if let Some(programs) = programs {
        session.lines(&programs);
    }
    session.rest();
    println!("{}", session.report.text(begun.elapsed()));
    Ok(if session.report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What counts the lines that run, unless that is left out.
fn counting(task: &Test, report: &Report) -> Option<Coverage> {
    if task.no_coverage {
        report.skip("coverage", "--no-coverage");
        return None;
    }
    Coverage::begin().map_err(|error| report.skip("coverage", &format!("{error:#}"))).ok()
}

/// One run.
struct Session<'a> {
    task: &'a Test,
    report: Report,
    coverage: Option<Coverage>,
}

/// Parts in the background that others build on.
struct Prepared {
    packages: Done,
    /// None without a cluster.
    cluster: Option<Done>,
    tools: Done,
}

impl Session<'_> {
    /// Everything but what --all adds. Gives the programs, if they could be built.
    fn run<'scope>(&'scope self, background: &Background<'scope>) -> Option<Programs> {
        self.step("format", || workspace::run(workspace::cargo().args(["fmt", "--all", "--check"])));
        let prepared = self.prepare(background);
        let images = (!self.task.no_cluster).then(|| Build::start(Profile::Quick));
        let programs = self.step("build of the tests", || Programs::build(self.coverage.as_ref(), &NAMED));
        self.compile_only(background);
        let Some(programs) = programs else {
            self.report.skip("all tests", "they do not build");
            return None;
        };
        // A failure was counted; the tests that need what is missing say so themselves.
        let _ = prepared.packages.wait();
        self.units(&programs, |program| !NEEDS_GO.contains(&program.name.as_str()));
        let _ = prepared.tools.wait();
        self.units(&programs, |program| NEEDS_GO.contains(&program.name.as_str()));
        self.step("helm lint", || {
            let mut helm = Command::new(cluster::helm(&ended)?);
            workspace::run(helm.current_dir(workspace::root()).args(["lint", "charts/agentruntime-operator"]))
        });
        if self.task.no_cluster && !cluster::control_plane_is_built() {
            self.report.skip("faults and benchmarks of the operator", "--no-cluster, and no API server is built yet");
        } else {
            let _ = prepared.cluster.map(|programs| programs.wait());
            self.tests(&programs, "faults", &["--nocapture", "--test-threads", "1"]);
            self.step("benchmarks of the operator, once and short", || self.benchmark(Subject::Operator));
        }
        self.step("benchmarks of the runtime, once and short", || self.benchmark(Subject::Runtime));
        match images {
            None => self.report.skip("end-to-end tests", "--no-cluster"),
            Some(images) => {
                if self.step("the cluster, with the chart installed", || install(images?, background, self)).is_some() {
                    self.tests(&programs, "e2e", &["--nocapture", "--test-threads", E2E_THREADS]);
                }
            }
        }
        Some(programs)
    }

    /// Adds what later parts need, in the order in which they do.
    fn prepare<'scope>(&'scope self, background: &Background<'scope>) -> Prepared {
        let packages = background.add(&self.report, "packages of Debian", || {
            self.available("the store that replicas share", debian::postgres());
            self.available("wrong clocks of the operator", debian::faketime());
            if !self.task.no_cluster {
                self.available("the dashboard in a browser", debian::browser());
            }
            Ok(())
        });
        let tools = background.add(&self.report, "Helm and the linters, from source", || {
            for build in [cluster::helm, cluster::kubeconform, cluster::kube_score, cluster::promql] {
                build(&ended)?;
            }
            Ok(())
        });
        if self.task.no_cluster {
            return Prepared { packages, cluster: None, tools };
        }
        let cluster =
            background.add(&self.report, "the cluster's programs, from source", || Ok(cluster::host_programs(&ended)?));
        background.add(&self.report, "what end-to-end tests run beside the product, from source", || {
            cluster::metrics_server(&ended)?;
            cluster::kustomize_controller(&ended)?;
            Ok(())
        });
        Prepared { packages, cluster: Some(cluster), tools }
    }

    /// Adds what nothing else needs, once the test programs are built: cargo's lock is free from then on.
    fn compile_only<'scope>(&'scope self, background: &Background<'scope>) {
        background.add(&self.report, "clippy", || {
            // Test programs that a plain run leaves out are not among all targets.
            let named: Vec<&str> = NAMED.iter().flat_map(|name| ["--test", name]).collect();
            for (name, targets) in [("clippy", &["--all-targets"][..]), ("clippy-named", &named)] {
                let mut clippy = workspace::cargo();
                clippy.args(["clippy", "--workspace"]).args(targets).args(["--", "--deny", "warnings"]);
                logged(name, &mut clippy)?;
            }
            Ok(())
        });
        for engine in ["argocd", "flux"] {
            let name = format!("the engine of {engine} on recorded states");
            background.add(&self.report, &name, move || {
                let mut go = workspace::command("go");
                go.current_dir(workspace::root().join("tests/gitops").join(engine));
                // As the cluster's programs are built, so that both share what is compiled, and without the history of
                // the checkout. Vet would read all that the engines import, for one test file each.
                let flags = std::env::var("GOFLAGS").unwrap_or_default();
                go.env("CGO_ENABLED", "0").env("GOFLAGS", format!("{flags} -buildvcs=false -trimpath"));
                logged(engine, go.args(["test", "-vet=off", "./..."]))
            });
        }
        background.add(&self.report, "licenses, bans and sources", || self.licenses());
    }

    fn units(&self, programs: &Programs, chosen: impl Fn(&Program) -> bool) {
        for program in programs.tests_without(&OWN_STEP).filter(|program| chosen(program)) {
            self.test(program, &[]);
        }
    }

    fn tests(&self, programs: &Programs, name: &str, arguments: &[&str]) {
        match programs.test(name) {
            Ok(program) => self.test(program, arguments),
            Err(error) => drop(self.step::<()>(name, || Err(error))),
        }
    }

    /// Runs tests and counts them one by one.
    fn test(&self, program: &Program, arguments: &[&str]) {
        let begun = Instant::now();
        println!("== {}", program.name);
        let mut command = program.command();
        libtest::timed(command.args(arguments));
        self.count_lines(&mut command);
        let outcome = libtest::run(&mut command, |line| println!("{line}")).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Outcome { failed: 1, ..Outcome::default() }
        });
        let (took, Outcome { passed, failed, .. }) = (begun.elapsed(), &outcome);
        println!("== {}: {passed} passed, {failed} failed in {:.0} s", program.name, took.as_secs_f64());
        self.report.tests(&program.name, took, outcome);
    }

    fn benchmark(&self, what: Subject) -> anyhow::Result<()> {
        let mut bench = bench::check(what);
        self.count_lines(&mut bench);
        workspace::run(&mut bench)
    }

    fn count_lines(&self, command: &mut Command) {
        if let Some(coverage) = &self.coverage {
            coverage.count(command);
        }
    }

    /// Runs a part that passes or fails as a whole, and gives what it made if it passed.
    fn step<T>(&self, name: &str, run: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        let begun = Instant::now();
        println!("== {name}");
        let result = run();
        if let Err(error) = &result {
            eprintln!("{error:#}");
        }
        finished(&self.report, name, begun.elapsed(), result.is_ok());
        result.ok()
    }

    fn available(&self, what: &str, installed: anyhow::Result<()>) {
        if let Err(error) = installed {
            self.report.skip(what, &format!("{error:#}"));
        }
    }

    fn licenses(&self) -> anyhow::Result<()> {
        if let Err(error) = tool("cargo-deny", "0.20.2") {
            self.report.skip("licenses and sources", &format!("{error:#}"));
            return Ok(());
        }
        logged("deny", workspace::cargo().args(["deny", "check", "licenses", "bans", "sources"]))?;
        // The advisories live in a repository of their own, which a machine with registries only cannot reach.
        let fetched = workspace::cargo().args(["deny", "fetch", "db"]).output().is_ok_and(|o| o.status.success());
        if !fetched {
            self.report.skip("advisories", "the RustSec database cannot be reached from here");
            return Ok(());
        }
        logged("advisories", workspace::cargo().args(["deny", "check", "advisories"]))
    }

    /// Reports which share of the lines has run. Without a cluster it is too small, and only reported.
    fn lines(&self, programs: &Programs) {
        let Some(coverage) = &self.coverage else { return };
        let no_cluster = self.task.no_cluster;
        self.step("coverage", || {
            let poor = coverage.report(programs.paths())?;
            ensure!(poor.is_empty() || no_cluster, "under {LEAST} % of the lines of {} have run", poor.join(", "));
            Ok(())
        });
        if no_cluster {
            self.report.skip("the least share of lines that run", "--no-cluster");
        }
    }

    /// What --all adds.
    fn rest(&self) {
        if !self.task.all {
            self.report.skip("published binaries, their reproducibility, and the book", "only with --all");
            return;
        }
        for (name, arguments) in [
            ("the published binaries", &["release"][..]),
            ("reproducible binaries and images", &["reproduce", "--compile"]),
        ] {
            self.step(name, || workspace::run(workspace::xtask()?.args(arguments)));
        }
        match tool("mdbook", "0.5.4") {
            Ok(()) => drop(self.step("the book and its links", || workspace::run(workspace::xtask()?.arg("book")))),
            Err(error) => self.report.skip("the book", &format!("{error:#}")),
        }
    }
}

/// Brings the cluster up and installs the chart with images of this checkout.
fn install<'scope>(images: Build, background: &Background<'scope>, session: &'scope Session<'_>) -> anyhow::Result<()> {
    let terminal = Terminal::new();
    let binaries = images.wait(&terminal)?;
    let cluster = Cluster::up(&Target::Host, &terminal)?;
    let images = images::load(&cluster, &binaries)?;
    chart::install(&cluster, &images)?;
    background
        .add(&session.report, "reproducible images", || logged("reproduce", workspace::xtask()?.arg("reproduce")));
    Ok(())
}

/// Prints what a build in the background has done, and not how far it is.
fn ended(event: Event<'_>) {
    match event {
        Event::End { step, took } => println!("{step}: {:.0} s", took.as_secs_f64()),
        Event::Failed { step } => println!("{step}: failed"),
        Event::Note(text) => println!("{text}"),
        _ => {}
    }
}

/// Finds a tool of cargo's, or installs its pinned version.
fn tool(name: &str, version: &str) -> anyhow::Result<()> {
    let found = Command::new(name).arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    println!("installing {name} {version}, which takes some minutes once");
    let mut install = Command::new("cargo");
    install.args(["install", "--locked", name, "--version", version]);
    // Each runs for a minute or so: to build it well would take longer than that gains.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    logged(name, &mut install)
}
