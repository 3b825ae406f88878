//! Owns the running of foreign programs to their end.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::progress::{Event, Progress};

/// Lines of a log that an error quotes.
const TAIL: usize = 15;

/// Runs a program and returns what it wrote to its standard output.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(spawn_error(command))?;
    finish(&output, what)
}

/// Runs a program with `input` on its standard input.
pub(crate) fn run_with(command: &mut Command, what: &str, input: &str) -> Result<String, Error> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(spawn_error(command))?;
    let fed = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(input.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(Error::os(what))?;
    let answer = finish(&output, what)?;
    // A program that fails closes its input early, so its own words come first.
    fed.map_err(Error::os(what)).map(|()| answer)
}

/// Runs a program whose failure does not matter, and tells whether it succeeded.
pub(crate) fn attempt(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a long program with its output in `log`, and reports its last line once a second.
pub(crate) fn run_logged(
    command: &mut Command,
    log: &Path,
    step: &str,
    progress: &dyn Progress,
) -> Result<ExitStatus, Error> {
    let file = File::create(log).map_err(Error::io("create", log))?;
    let errors = file.try_clone().map_err(Error::io("open", log))?;
    let mut child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().map_err(spawn_error(command))?;
    let begun = Instant::now();
    let mut told = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait().map_err(Error::os(step))? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(50));
        let elapsed = begun.elapsed();
        if elapsed >= told + Duration::from_secs(1) {
            told = elapsed;
            progress.report(Event::Tick { step, elapsed, detail: &tail(log, 1) });
        }
    }
}

/// The last lines of a log, for an error or a report.
pub fn tail(log: &Path, lines: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
}

/// The last lines of a log, as many as an error quotes.
pub fn quote(log: &Path) -> String {
    tail(log, TAIL)
}

fn finish(output: &Output, what: &str) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(Error::Tool { what: what.to_owned(), status: output.status.to_string(), output: said })
}

fn spawn_error(command: &Command) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let program = command.get_program().to_string_lossy().into_owned();
    move |source| Error::Spawn { program, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_carries_the_programs_own_words() {
        let error = run(Command::new("sh").args(["-c", "echo oops >&2; exit 3"]), "trying").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("trying") && text.contains("oops") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-here"), "trying").unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(run_with(&mut Command::new("cat"), "echo", "hello").unwrap(), "hello");
    }

    #[test]
    fn tail_takes_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&log, 2), "b\nc");
        assert_eq!(tail(&folder.path().join("none"), 2), "");
    }
}
