//! A program as a step: JSON on stdin, a JSON object on stdout, logs on stderr, and an end with all that descends from it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::fill;
use super::step::{Failure, Outcome, Step};
use crate::definition::Exec;
use crate::{lines, programs};

/// The most that is read of a program's output, in bytes.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How a program's run ended.
enum Ended {
    /// By itself, with what it wrote.
    Itself(std::io::Result<ExitStatus>, Result<Vec<u8>, String>),
    /// It wrote what is not taken.
    Refused(String),
    /// Its time was up.
    Late,
    /// It was interrupted.
    Interrupted,
}

/// Runs a program to its end. Nothing that descends from it is left when this returns.
pub(super) async fn run(
    exec: &Exec,
    inputs: &Map<String, Value>,
    memory: &Map<String, Value>,
    step: &Step<'_>,
    wants_outputs: bool,
) -> Outcome {
    let words: Vec<String> = exec.command.iter().map(|word| fill::text(word, memory)).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Outcome::failed("input", "no command");
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("HIVE_EXECUTION_ID", step.execution)
        .env("HIVE_IDEMPOTENCY_KEY", &step.idempotency_key)
        .envs(step.trace.iter().flat_map(|trace| trace.headers()).map(|(name, value)| (name.to_uppercase(), value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, family) = match programs::spawn(&mut command, &exec.environment, step.hidden) {
        Ok(spawned) => spawned,
        Err(error) => return Outcome::failed("exit", format!("{program} cannot be started: {error}")),
    };
    let body = match serde_json::to_vec(inputs) {
        Ok(body) => body,
        Err(error) => return Outcome::failed("input", format!("its inputs cannot be written: {error}")),
    };
    let ended = tokio::select! {
        ended = work(&mut child, &family, body) => ended,
        () = tokio::time::sleep(exec.timeout) => Ended::Late,
        () = step.permit.interrupted() => Ended::Interrupted,
    };
    if !matches!(ended, Ended::Itself(..)) {
        end(&mut child, &family).await;
    }
    family.end().await;
    match ended {
        Ended::Itself(Ok(status), output) => judge(status, output, wants_outputs),
        Ended::Itself(Err(error), _) => Outcome::Failure(Failure::unknown("exit", format!("{program}: {error}"))),
        Ended::Refused(reason) => Outcome::Failure(Failure::unknown("output", reason)),
        Ended::Late => {
            let reason = format!("{program} did not end within {} s", exec.timeout.as_secs_f32());
            Outcome::Failure(Failure::unknown("timeout", reason))
        }
        Ended::Interrupted => Outcome::Interrupted,
    }
}

/// Feeds a program and reads what it writes, until it ends.
async fn work(child: &mut Child, family: &programs::Family, body: Vec<u8>) -> Ended {
    let stdin = child.stdin.take();
    let pipes = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input closes the pipe: that is its right.
            let _ = stdin.write_all(&body).await;
        }
        Ok(())
    };
    let mut reading = std::pin::pin!(async { tokio::try_join!(read(pipes), feed).map(|(output, ())| output) });
    tokio::select! {
        status = child.wait() => {
            // What it left behind in its group goes with it, and lets go of the output.
            family.signal(Signal::KILL);
            let rest = tokio::time::timeout(GRACE, &mut reading).await;
            let held = || Err("a process that it left behind holds its output open".to_owned());
            Ended::Itself(status, rest.unwrap_or_else(|_| held()))
        }
        output = &mut reading => match output {
            Ok(output) => Ended::Itself(child.wait().await, Ok(output)),
            Err(reason) => Ended::Refused(reason),
        },
    }
}

fn judge(status: ExitStatus, output: Result<Vec<u8>, String>, wants_outputs: bool) -> Outcome {
    if !status.success() {
        let reason = format!("the program ended with {status}");
        // One that was killed says nothing of what it had done.
        let failure =
            if status.code().is_some() { Failure::new("exit", reason) } else { Failure::unknown("exit", reason) };
        return Outcome::Failure(failure);
    }
    let output = match output {
        Ok(output) => output,
        Err(reason) => return Outcome::Failure(Failure::unknown("output", reason)),
    };
    match serde_json::from_slice::<Map<String, Value>>(&output) {
        Ok(values) => Outcome::Success(values),
        Err(_) if !wants_outputs => {
            let text = String::from_utf8_lossy(&output);
            text.lines().filter(|line| !line.is_empty()).for_each(|line| tracing::info!(stream = "stdout", "{line}"));
            Outcome::Success(Map::new())
        }
        Err(error) => Outcome::Failure(Failure::unknown("output", format!("its output is no JSON object: {error}"))),
    }
}

/// Reads both to their ends. Too much of an output is an error at once, before the program dies of a closed pipe.
async fn read((stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>)) -> Result<Vec<u8>, String> {
    let output = async {
        let Some(stdout) = stdout else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        let mut capped = stdout.take(MAX_OUTPUT + 1);
        capped.read_to_end(&mut bytes).await.map_err(|error| format!("its output cannot be read: {error}"))?;
        if bytes.len() as u64 > MAX_OUTPUT {
            return Err(format!("it wrote more than {MAX_OUTPUT} bytes to its output: write less, or to a file"));
        }
        Ok(bytes)
    };
    let logs = async {
        if let Some(stderr) = stderr {
            lines::tell(stderr, |line| tracing::info!(stream = "stderr", "{line}")).await;
        }
        Ok(())
    };
    tokio::try_join!(output, logs).map(|(output, ())| output)
}

/// SIGTERM to the group, two seconds, SIGKILL; returns when the program is reaped.
async fn end(child: &mut Child, family: &programs::Family) {
    family.signal(Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        family.signal(Signal::KILL);
        if let Err(error) = child.wait().await {
            tracing::error!(%error, "a program could not be reaped");
        }
    }
}
