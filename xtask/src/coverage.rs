//! Owns the measurement of coverage: a build of the workspace's crates that counts what runs, and what that adds up to.
//!
//! Dependencies are those of the plain build, and a process that is killed has counted what it ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::workspace;

/// What is measured.
const CRATES: [&str; 6] = ["agent-runtime", "cli", "crds", "lifecycle", "operator", "otlp"];

/// The smallest share of a crate's lines that is let through, in percent.
pub(crate) const LEAST: f64 = 90.0;

/// What cargo calls in the place of rustc, for crates of the workspace alone. Counters lie where the file is mapped, so
/// that they outlive a kill. Not dash: it forgets variables with a hyphen, and cargo names binaries by such.
const WRAPPER: &str =
    "#!/usr/bin/env bash\nexec \"$@\" -Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation\n";

/// A measurement that has begun.
#[derive(Debug)]
pub(crate) struct Coverage {
    folder: PathBuf,
    tools: PathBuf,
}

/// The lines of one file: whether each was run.
type Lines = BTreeMap<usize, bool>;

impl Coverage {
    /// Forgets what was counted before.
    ///
    /// # Errors
    /// The toolchain's own LLVM tools are not there and cannot be added.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let tools = tools()?;
        let folder = workspace::target().join("coverage");
        let counts = folder.join("counts");
        if counts.exists() {
            fs::remove_dir_all(&counts).with_context(|| counts.display().to_string())?;
        }
        fs::create_dir_all(&counts).with_context(|| counts.display().to_string())?;
        let wrapper = folder.join("rustc");
        if fs::read_to_string(&wrapper).ok().as_deref() != Some(WRAPPER) {
            fs::write(&wrapper, WRAPPER).with_context(|| wrapper.display().to_string())?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { folder, tools })
    }

    /// Lets a command of cargo's build what counts.
    pub(crate) fn instrument(&self, command: &mut Command) {
        command.env("RUSTC_WORKSPACE_WRAPPER", self.folder.join("rustc"));
        self.count(command);
    }

    /// Lets a program count; processes of one program count into one file.
    pub(crate) fn count(&self, command: &mut Command) {
        command.env("LLVM_PROFILE_FILE", self.folder.join("counts/%m%c.profraw"));
    }

    /// Adds up, prints a line for each crate, and leaves `lcov.info` for editors. Gives the crates of which fewer lines
    /// have run than are let through, and names the files that miss most. `programs` are all that may have counted:
    /// they know which counter is which line.
    pub(crate) fn report<'a>(&self, programs: impl Iterator<Item = &'a Path>) -> anyhow::Result<Vec<&'static str>> {
        let merged = self.folder.join("all.profdata");
        let mut merge = Command::new(self.tools.join("llvm-profdata"));
        merge.args(["merge", "--sparse", "--failure-mode=all", "-o"]).arg(&merged);
        workspace::run(merge.arg(self.folder.join("counts")))?;
        let mut export = Command::new(self.tools.join("llvm-cov"));
        export.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged);
        for (index, program) in programs.collect::<BTreeSet<_>>().into_iter().enumerate() {
            // The first of them is an argument without a name.
            export.args((index > 0).then_some("--object")).arg(program);
        }
        let lcov = workspace::read(export.args(CRATES.map(sources)))?;
        fs::write(self.folder.join("lcov.info"), &lcov)?;
        let files = read(&lcov).into_iter().filter(|(path, _)| !is_test(path)).map(without_tests);
        let files: BTreeMap<PathBuf, Lines> = files.collect::<anyhow::Result<_>>()?;
        Ok(CRATES.into_iter().filter(|name| tell(name, &files) < LEAST).collect())
    }
}

/// The folder of `llvm-cov` and `llvm-profdata` of this toolchain: those of others may not read what it writes.
fn tools() -> anyhow::Result<PathBuf> {
    let libraries = workspace::read(Command::new("rustc").args(["--print", "target-libdir"]))?;
    let tools = Path::new(libraries.trim()).with_file_name("bin");
    if !tools.join("llvm-cov").exists() {
        workspace::run(workspace::command("rustup").args(["component", "add", "llvm-tools"]))?;
    }
    Ok(tools)
}

fn sources(name: &str) -> PathBuf {
    workspace::root().join(name).join("src")
}

/// Prints how much of a crate is covered, and of which files most is not. Gives the share in percent.
fn tell(name: &str, files: &BTreeMap<PathBuf, Lines>) -> f64 {
    let folder = sources(name);
    let own = files.iter().filter_map(|(path, lines)| Some((path.strip_prefix(&folder).ok()?, lines)));
    let missed = |lines: &Lines| lines.values().filter(|run| !**run).count();
    let mut own: Vec<_> = own.map(|(path, lines)| (missed(lines), lines.len(), path)).collect();
    own.sort_by(|one, other| other.cmp(one));
    let sum = |of: fn(&(usize, usize, &Path)) -> usize| own.iter().map(of).sum::<usize>();
    let (missed, total) = (sum(|file| file.0), sum(|file| file.1));
    let share = percent(total.saturating_sub(missed), total);
    println!("{name}: {share:.1} % of {total} lines");
    for (missed, total, path) in own.iter().take(5).filter(|_| share < LEAST) {
        println!("  {missed} of {total} lines of {} are not", path.display());
    }
    share
}

/// Reads `SF:`, the file, and `DA:`, a line and how often it ran.
fn read(lcov: &str) -> BTreeMap<PathBuf, Lines> {
    let mut files: BTreeMap<PathBuf, Lines> = BTreeMap::new();
    let mut file = PathBuf::new();
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path.into();
        } else if let Some((number, count)) = line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>())
        {
            files.entry(file.clone()).or_default().insert(number, count > 0);
        }
    }
    files
}

fn is_test(path: &Path) -> bool {
    path.to_string_lossy().ends_with("_tests.rs")
}

/// Leaves out the tests of a file, which stand at its end.
fn without_tests((path, mut lines): (PathBuf, Lines)) -> anyhow::Result<(PathBuf, Lines)> {
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if let Some(tests) = tests_begin(&text) {
        lines.split_off(&tests);
    }
    Ok((path, lines))
}

/// The number of the line where a file's tests begin.
fn tests_begin(text: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(2).position(|two| two == ["#[cfg(test)]", "mod tests {"]).map(|index| index + 1)
}

#[expect(clippy::cast_precision_loss, reason = "lines of code")]
fn percent(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_file() {
        let files = read("SF:/a.rs\nFN:1,x\nDA:3,0\nDA:4,17\nend_of_record\nSF:/b.rs\nDA:1,1\nend_of_record\n");
        assert_eq!(files[Path::new("/a.rs")], BTreeMap::from([(3, false), (4, true)]));
        assert_eq!(files[Path::new("/b.rs")], BTreeMap::from([(1, true)]));
    }

    #[test]
    fn a_files_own_tests_do_not_count() {
        assert_eq!(tests_begin("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), Some(3));
        assert_eq!(tests_begin("#[cfg(test)]\nmod plan_tests;\nfn a() {}\n"), None);
    }
}
