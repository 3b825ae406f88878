//! Owns the running of one test program of the standard harness, and the reading of what it prints.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// What one test program has counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    /// Each test with the time it took.
    pub(crate) tests: Vec<(Duration, String)>,
    /// Whether there was a result.
    pub(crate) ended: bool,
    /// What the program itself says of how long its tests took.
    pub(crate) own: Vec<(Duration, String)>,
}

/// Has the harness print how long each test takes. It is the test program that reads the variable, not a compiler.
pub(crate) fn timed(command: &mut Command) -> &mut Command {
    command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "unstable-options", "--report-time"])
}

/// Runs a test program, hands on each line that it prints, and adds up its results.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn run(command: &mut Command, mut line_printed: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let shown = format!("{} cannot be started", command.get_program().display());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context(shown)?;
    let mut outcome = Outcome::default();
    let output = child.stdout.take().context("the output is piped")?;
    // Tests print what programs print, which need not be text.
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        line_printed(&line);
        outcome.read(&line);
    }
    if !outcome.own.is_empty() {
        // Its tests wait for each other, which the harness cannot tell from running.
        outcome.tests = std::mem::take(&mut outcome.own);
    }
    let status = child.wait()?;
    if outcome.failed == 0 && (!status.success() || !outcome.ended) {
        // A program that dies has no result line.
        outcome.failed = 1;
        line_printed(&format!("{} ended with {status}", command.get_program().display()));
    }
    Ok(outcome)
}

impl Outcome {
    fn read(&mut self, line: &str) {
        self.own.extend(own(line));
        if let Some((passed, failed)) = result(line) {
            self.ended = true;
            self.passed += passed;
            self.failed += failed;
        }
        self.tests.extend(test(line));
    }
}

/// Reads `test result: ok. 12 passed; 0 failed; …`.
fn result(line: &str) -> Option<(u32, u32)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number =
        |word: &str| counts.split("; ").find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u32>().ok());
    Some((number("passed")?, number("failed")?))
}

/// Reads `test plan::it_holds ... ok <0.125s>`.
fn test(line: &str) -> Option<(Duration, String)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = outcome.split_once('<')?.1.strip_suffix("s>")?.parse().ok()?;
    Some((Duration::try_from_secs_f64(seconds).ok()?, name.to_owned()))
}

/// Reads `took 12.3 s: e2e boot`.
fn own(line: &str) -> Option<(Duration, String)> {
    let (seconds, name) = line.strip_prefix("took ")?.split_once(" s: ")?;
    Some((Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_line_gives_its_counts() {
        let line = "test result: ok. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test a::b ... ok"), None);
    }

    #[test]
    fn test_line_gives_its_name_and_time() {
        assert_eq!(test("test a::b ... ok <1.500s>"), Some((Duration::from_millis(1500), "a::b".to_owned())));
        assert_eq!(test("test a::b ... FAILED <0.250s>"), Some((Duration::from_millis(250), "a::b".to_owned())));
        assert_eq!(test("test a::b ... ignored"), None);
        assert_eq!(test("test result: ok. 1 passed; 0 failed"), None);
    }

    #[test]
    fn times_that_a_program_tells_replace_those_of_the_harness() {
        let script =
            "echo 'test a ... ok <9.000s>'; echo 'took 2.5 s: e2e a'; echo 'test result: ok. 1 passed; 0 failed'";
        let outcome = run(Command::new("sh").args(["-c", script]), |_| {}).unwrap();
        assert_eq!(outcome.tests, [(Duration::from_millis(2500), "e2e a".to_owned())]);
    }

    #[test]
    fn program_without_a_result_has_failed_whatever_its_exit_code() {
        for code in ["exit 3", "exit 0"] {
            let outcome = run(Command::new("sh").args(["-c", code]), |_| {}).unwrap();
            assert_eq!((outcome.passed, outcome.failed), (0, 1), "{code}");
        }
    }

    #[test]
    fn output_that_is_no_text_is_read_to_its_end() {
        let script = "printf 'a\\377b\\n'; echo 'test result: ok. 1 passed; 0 failed'";
        let outcome = run(Command::new("sh").args(["-c", script]), |_| {}).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (1, 0));
    }

    /// The flags are read by this very program's harness.
    #[test]
    fn harness_reports_times() {
        let mut own = Command::new(std::env::current_exe().unwrap());
        let outcome = run(timed(own.arg("result_line_gives_its_counts")), |_| {}).unwrap();
        assert_eq!((outcome.passed, outcome.failed, outcome.tests.len()), (1, 0, 1));
    }
}
