//! Owns the test programs of the workspace: one build of all of them, and how each is run.
//!
//! They are built at once and run directly, so that later steps neither wait for cargo's lock nor resolve again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::coverage::Coverage;
use crate::workspace;

/// How many tests of one program run at once, at the least.
const LEAST_THREADS: usize = 8;

/// A program that cargo has built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// The name of its target, which for a library's tests is that of the library.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The folder of its package.
    folder: PathBuf,
    kind: Kind,
}

/// What a program is to cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A file of tests, with a name of its own.
    Tests,
    /// The unit tests of a library or of a program, with its name.
    Units,
    /// No test.
    Program,
}

/// All programs of the workspace.
#[derive(Debug)]
pub(crate) struct Programs {
    all: Vec<Program>,
}

impl Programs {
    /// Builds what `cargo test` runs, the programs and examples that tests start, and the test programs that only run
    /// when they are named.
    ///
    /// # Errors
    /// Something does not build; cargo has printed what.
    pub(crate) fn build(coverage: Option<&Coverage>, named: &[&str]) -> anyhow::Result<Self> {
        let mut test = workspace::cargo();
        let mut all = compile(coverage, test.args(["test", "--workspace", "--no-run"]))?;
        let mut test = workspace::cargo();
        test.args(["test", "--workspace", "--no-run"]).args(named.iter().flat_map(|name| ["--test", name]));
        all.extend(compile(coverage, &mut test)?);
        // A program without test programs beside it is only built when it is named.
        all.extend(compile(coverage, &mut workspace::build(&["agent-runtime", "agentruntime-operator", "bench"]))?);
        all.sort();
        all.dedup();
        Ok(Self { all })
    }

    /// Those that run tests, but for the files of tests of these names.
    pub(crate) fn tests_without<'a>(&'a self, apart: &'a [&str]) -> impl Iterator<Item = &'a Program> {
        let is_apart = |program: &Program| program.kind == Kind::Tests && apart.contains(&program.name.as_str());
        self.all.iter().filter(move |program| program.kind != Kind::Program && !is_apart(program))
    }

    /// The file of tests of a name.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn test(&self, name: &str) -> anyhow::Result<&Program> {
        let mut found = self.all.iter().filter(|program| program.kind == Kind::Tests && program.name == name);
        match (found.next(), found.next()) {
            (Some(program), None) => Ok(program),
            (first, _) => bail!("{} test programs are named {name}", if first.is_some() { "several" } else { "no" }),
        }
    }

    /// Where all of them are.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().map(|program| program.path.as_path())
    }
}

/// Runs a build of cargo's, and gives the programs that it reports.
fn compile(coverage: Option<&Coverage>, cargo: &mut Command) -> anyhow::Result<Vec<Program>> {
    cargo.arg("--message-format=json-render-diagnostics");
    if let Some(coverage) = coverage {
        coverage.instrument(cargo);
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("the tests do not build: cargo ended with {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    Ok(messages.iter().filter_map(program).collect())
}

impl Program {
    /// The command that runs it as cargo does.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        // Otherwise each program would ask cargo for it.
        command.env("INSTA_WORKSPACE_ROOT", workspace::root());
        // Many tests wait for processes and servers more than they compute.
        let threads =
            std::thread::available_parallelism().map_or(LEAST_THREADS, |cores| cores.get().max(LEAST_THREADS));
        command.env("RUST_TEST_THREADS", threads.to_string());
        // What a plain run of cargo leaves out is not left out here.
        command.env("HIVE_ALL_TESTS", "1");
        command
    }
}

/// Reads what cargo reports of one program.
fn program(message: &Value) -> Option<Program> {
    let text = |pointer: &str| message.pointer(pointer)?.as_str();
    let manifest = PathBuf::from(text("/manifest_path")?);
    Some(Program {
        name: text("/target/name")?.to_owned(),
        path: text("/executable")?.into(),
        folder: manifest.parent()?.to_owned(),
        kind: match (message.pointer("/profile/test")?.as_bool()?, text("/target/kind/0")?) {
            (false, _) => Kind::Program,
            (true, "test") => Kind::Tests,
            (true, _) => Kind::Units,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: &str, test: bool) -> Value {
        json!({
            "reason": "compiler-artifact", "manifest_path": "/w/a/Cargo.toml", "executable": format!("/t/{kind}-{test}"),
            "target": { "name": "a", "kind": [kind] }, "profile": { "test": test },
        })
    }

    #[test]
    fn message_of_a_program_gives_its_name_and_folder() {
        let read = program(&message("lib", true)).unwrap();
        assert_eq!((read.name.as_str(), read.folder.as_path(), read.kind), ("a", Path::new("/w/a"), Kind::Units));
        assert_eq!(read.command().get_current_dir(), Some(Path::new("/w/a")));
    }

    #[test]
    fn message_of_a_library_is_no_program() {
        assert_eq!(program(&json!({ "reason": "compiler-artifact", "executable": null })), None);
        assert_eq!(program(&json!({ "reason": "build-finished", "success": true })), None);
    }

    /// A library and a file of tests may share a name, as `faults` does.
    #[test]
    fn programs_of_one_name_are_told_apart_by_kind() {
        let messages = [message("lib", true), message("test", true), message("bin", false)];
        let programs = Programs { all: messages.iter().filter_map(program).collect() };
        assert_eq!(programs.test("a").unwrap().path, Path::new("/t/test-true"));
        let others: Vec<&Path> = programs.tests_without(&["a"]).map(|program| program.path.as_path()).collect();
        assert_eq!(others, [Path::new("/t/lib-true")]);
        assert!(programs.test("b").is_err());
    }
}
