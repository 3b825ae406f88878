//! Owns the task `mutants`: breaks one rule at a time in a copy, and sees that the test that guards it fails.

mod list;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;

use self::list::MUTANTS;
use crate::workspace;

/// Seconds that one test may take, as `timeout` reads it. One that hangs has noticed the mutant too.
const PATIENCE: &str = "240";
/// What `timeout` ends with when the time is up.
const TIMED_OUT: i32 = 124;

/// A rule that is broken.
struct Mutant {
    /// The number that it has in docs/TESTING.md, or a word for what is not one of those rules.
    rule: &'static str,
    file: &'static str,
    /// Stands in the file exactly once.
    from: &'static str,
    to: &'static str,
    guard: Guard,
    test: &'static str,
}

/// Where the test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Guard {
    /// In a library.
    Lib,
    /// In the test program of this name.
    Program(&'static str),
    /// In a Go module of the folder.
    Go(&'static str),
}

#[derive(Debug, Args)]
pub(crate) struct Mutants {
    /// Only the mutants of this rule, by its number or word in docs/TESTING.md
    #[arg(long)]
    rule: Vec<String>,
    /// Only those that are guarded by tests with this text in their name
    #[arg(long)]
    test: Option<String>,
}

/// What became of one mutant.
enum Fate {
    Caught(Vec<String>),
    Survived,
    /// It does not build, or its test does not run: no proof of anything.
    Void(anyhow::Error),
}

/// Tries each mutant; one that its test does not notice is a fault of the test.
pub(crate) fn run(task: &Mutants) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let tree = copy()?;
    let chosen: Vec<&Mutant> = MUTANTS
        .iter()
        .filter(|mutant| task.rule.is_empty() || task.rule.iter().any(|rule| rule == mutant.rule))
        .filter(|mutant| task.test.as_ref().is_none_or(|text| mutant.test.contains(text)))
        .collect();
    let red = unbroken(&chosen, &tree)?;
    let (mut caught, mut survived, mut void) = (0, 0, 0);
    for mutant in &chosen {
        let began = Instant::now();
        let fate = match red.contains(&(mutant.guard, mutant.test)) {
            true => Fate::Void(anyhow::anyhow!("{} fails though nothing is broken", mutant.test)),
            false => attempt(mutant, &tree)?,
        };
        let seconds = began.elapsed().as_secs();
        let said = match fate {
            Fate::Caught(tests) => {
                caught += 1;
                format!("caught by {}", tests.join(", "))
            }
            Fate::Survived => {
                survived += 1;
                format!("SURVIVED {}", mutant.test)
            }
            Fate::Void(error) => {
                void += 1;
                format!("VOID: {error:#}")
            }
        };
        println!("rule {}: {said} ({seconds} s, {})", mutant.rule, mutant.file);
    }
    println!("{caught} caught, {survived} survived, {void} void in {} s", begun.elapsed().as_secs());
    Ok(if survived + void == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests that fail while nothing is broken: their failing says nothing.
fn unbroken(chosen: &[&Mutant], tree: &Path) -> anyhow::Result<BTreeSet<(Guard, &'static str)>> {
    let mut guards = BTreeMap::<Guard, BTreeSet<&'static str>>::new();
    for mutant in chosen {
        guards.entry(mutant.guard).or_default().insert(mutant.test);
    }
    let mut red = BTreeSet::new();
    for (guard, tests) in guards {
        if guard == Guard::Program("process") {
            // A server that its tests start.
            let mut examples = cargo(guard, tree, "cargo");
            workspace::run(examples.args(["build", "--quiet", "--workspace", "--example", "mcp_server"]))?;
        }
        build(guard, tree)?;
        for test in tests {
            if !matches!(execute(guard, test, tree)?, Fate::Survived) {
                println!("{test} fails though nothing is broken");
                red.insert((guard, test));
            }
        }
    }
    Ok(red)
}

fn attempt(mutant: &Mutant, tree: &Path) -> anyhow::Result<Fate> {
    let path = tree.join(mutant.file);
    let whole = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    fs::write(&path, broken(mutant, &whole)?)?;
    let fate = match build(mutant.guard, tree) {
        Ok(()) => execute(mutant.guard, mutant.test, tree),
        Err(error) => Ok(Fate::Void(error)),
    };
    fs::write(&path, whole)?;
    fate
}

fn broken(mutant: &Mutant, whole: &str) -> anyhow::Result<String> {
    if whole.matches(mutant.from).count() != 1 {
        bail!("{}: what rule {} changes does not stand there exactly once", mutant.file, mutant.rule);
    }
    Ok(whole.replace(mutant.from, mutant.to))
}

/// A cargo for the copy, with a target folder of its own: what is broken is never mistaken for what is not.
fn cargo(guard: Guard, tree: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(tree).env("CARGO_TARGET_DIR", target()).env("INSTA_UPDATE", "no");
    match guard {
        Guard::Go(folder) => {
            command.current_dir(tree.join(folder)).env("GOFLAGS", "-buildvcs=false");
        }
        Guard::Lib | Guard::Program(_) => {}
    }
    command
}

fn target() -> PathBuf {
    workspace::target().join("mutants/target")
}

/// What runs a guard's tests. With the features that the whole workspace gives its dependencies, which are the same
/// for each guard: a selected package would have each of them built once more.
fn arguments(guard: Guard) -> Vec<&'static str> {
    match guard {
        Guard::Lib => vec!["cargo", "test", "--workspace", "--lib"],
        Guard::Program(program) => vec!["cargo", "test", "--workspace", "--test", program],
        Guard::Go(_) => vec!["go", "test", "-v", "-count=1", "./..."],
    }
}

/// That the copy builds is a part of the proof: a mutant that does not is none.
fn build(guard: Guard, tree: &Path) -> anyhow::Result<()> {
    let arguments = arguments(guard);
    let (Some((program, rest)), false) = (arguments.split_first(), matches!(guard, Guard::Go(_))) else {
        return Ok(());
    };
    let output = cargo(guard, tree, program).args(rest).args(["--quiet", "--no-run"]).output()?;
    if !output.status.success() {
        bail!("it does not build: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn execute(guard: Guard, test: &str, tree: &Path) -> anyhow::Result<Fate> {
    let mut timeout = cargo(guard, tree, "timeout");
    timeout.args(["--kill-after=10", PATIENCE]).args(arguments(guard));
    match guard {
        Guard::Go(_) => timeout.args(["-run", test]),
        Guard::Lib | Guard::Program(_) => timeout.arg(test),
    };
    let output = timeout.output().context("timeout cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(TIMED_OUT) {
        return Ok(Fate::Caught(vec![format!("{test}, which hangs")]));
    }
    let failed: Vec<String> = said.lines().filter_map(failure).map(str::to_owned).collect();
    let passed = said.lines().any(|line| passes(line).is_some());
    Ok(match (output.status.success(), failed.is_empty(), passed) {
        (false, false, _) => Fate::Caught(failed),
        (true, true, true) => Fate::Survived,
        _ => Fate::Void(anyhow::anyhow!("{test} was not run: {}", String::from_utf8_lossy(&output.stderr))),
    })
}

/// Reads `test plan::tests::that_it_holds ... FAILED` and `--- FAIL: TestThatItHolds (0.00s)`.
fn failure(line: &str) -> Option<&str> {
    let of_cargo = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
    of_cargo.or_else(|| line.strip_prefix("--- FAIL: ")?.split(' ').next())
}

fn passes(line: &str) -> Option<&str> {
    let of_cargo = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok"));
    of_cargo.or_else(|| line.strip_prefix("--- PASS: ")?.split(' ').next())
}

/// What is under version control, in a folder of its own: the checkout itself is never changed.
fn copy() -> anyhow::Result<PathBuf> {
    let tree = workspace::target().join("mutants/tree");
    let listed = Command::new("git").current_dir(workspace::root()).args(["ls-files", "-z"]).output()?;
    if !listed.status.success() {
        bail!("git does not list the files of the checkout");
    }
    for name in String::from_utf8(listed.stdout)?.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (workspace::root().join(name), tree.join(name));
        if !from.is_file() {
            continue;
        }
        let current = fs::read(&from).with_context(|| from.display().to_string())?;
        // What has not changed keeps its time, so that it is not built again.
        if fs::read(&to).is_ok_and(|old| old == current) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_changes_one_place() {
        for mutant in MUTANTS {
            let text = fs::read_to_string(workspace::root().join(mutant.file)).unwrap();
            assert_ne!(broken(mutant, &text).unwrap(), text);
        }
    }

    #[test]
    fn the_results_of_cargo_and_of_go_are_read() {
        assert_eq!(failure("test plan::tests::it_holds ... FAILED"), Some("plan::tests::it_holds"));
        assert_eq!(failure("--- FAIL: TestItHolds (0.00s)"), Some("TestItHolds"));
        assert_eq!((failure("test a ... ok"), passes("test a ... ok")), (None, Some("a")));
        assert_eq!(passes("--- PASS: TestItHolds (0.00s)"), Some("TestItHolds"));
    }
}
