//! A program as a step: JSON on stdin, a JSON object on stdout, logs on stderr, in a process group of its own.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::fill;
use super::step::{Outcome, Step};
use crate::definition::Exec;

/// The most that is read of a program's output, in bytes.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a program to its end. Its group is gone when this returns.
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
    let spawned = Command::new(program)
        .args(arguments)
        .envs(&exec.environment)
        .env_remove("HIVE_LIFECYCLE_TOKEN")
        .env_remove("HIVE_STORE_URL")
        .env("HIVE_EXECUTION_ID", step.execution)
        .env("HIVE_IDEMPOTENCY_KEY", &step.idempotency_key)
        .envs(step.trace.iter().flat_map(|trace| trace.headers()).map(|(name, value)| (name.to_uppercase(), value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Outcome::failed("exit", format!("{program} cannot be started: {error}")),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut left = Left { group };
    let stdin = child.stdin.take();
    let pipes = (child.stdout.take(), child.stderr.take());
    let body = serde_json::to_vec(inputs).unwrap_or_default();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input closes the pipe: that is its right.
            let _ = stdin.write_all(&body).await;
        }
    };
    let work = async {
        let mut reading = std::pin::pin!(async { tokio::join!(read(pipes), feed).0 });
        tokio::select! {
            status = child.wait() => {
                // What it left behind in its group goes with it, and lets go of the output.
                signal(group, Signal::KILL);
                let rest = tokio::time::timeout(GRACE, &mut reading).await;
                let held = || Err("a process that it left behind holds its output open".to_owned());
                (status, rest.unwrap_or_else(|_| held()))
            }
            output = &mut reading => {
                let status = child.wait().await;
                signal(group, Signal::KILL);
                (status, output)
            }
        }
    };
    let ended = tokio::select! {
        ended = work => Some(ended),
        () = tokio::time::sleep(exec.timeout) => None,
        () = step.permit.interrupted() => {
            end(&mut child, group).await;
            left.group = None;
            return Outcome::Interrupted;
        }
    };
    if ended.is_none() {
        end(&mut child, group).await;
    }
    left.group = None;
    match ended {
        Some((Ok(status), output)) => judge(status, output, wants_outputs),
        Some((Err(error), _)) => Outcome::failed("exit", format!("{program}: {error}")),
        None => Outcome::failed("timeout", format!("{program} did not end within {} s", exec.timeout.as_secs_f32())),
    }
}

fn judge(status: ExitStatus, output: Result<Vec<u8>, String>, wants_outputs: bool) -> Outcome {
    if !status.success() {
        return Outcome::failed("exit", format!("the program ended with {status}"));
    }
    let output = match output {
        Ok(output) => output,
        Err(reason) => return Outcome::failed("output", reason),
    };
    match serde_json::from_slice::<Map<String, Value>>(&output) {
        Ok(values) => Outcome::Success(values),
        Err(_) if !wants_outputs => {
            let text = String::from_utf8_lossy(&output);
            text.lines().filter(|line| !line.is_empty()).for_each(|line| tracing::info!(stream = "stdout", "{line}"));
            Outcome::Success(Map::new())
        }
        Err(error) => Outcome::failed("output", format!("its output is no JSON object: {error}")),
    }
}

async fn read((stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>)) -> Result<Vec<u8>, String> {
    let output = async {
        let Some(stdout) = stdout else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        let mut capped = stdout.take(MAX_OUTPUT + 1);
        capped.read_to_end(&mut bytes).await.map_err(|error| format!("its output cannot be read: {error}"))?;
        if bytes.len() as u64 > MAX_OUTPUT {
            return Err(format!("it wrote more than {MAX_OUTPUT} bytes"));
        }
        Ok(bytes)
    };
    let logs = async {
        let Some(stderr) = stderr else { return };
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::info!(stream = "stderr", "{line}");
        }
    };
    tokio::join!(output, logs).0
}

/// SIGTERM to the group, two seconds, SIGKILL; returns when the program is reaped.
async fn end(child: &mut Child, group: Option<Pid>) {
    signal(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        signal(group, Signal::KILL);
        if let Err(error) = child.wait().await {
            tracing::error!(%error, "a program could not be reaped");
        }
    }
    signal(group, Signal::KILL);
}

/// The group of a program that has not ended. It goes when nobody waits for it any more: the process ends.
struct Left {
    group: Option<Pid>,
}

impl Drop for Left {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already.
        let _ = kill_process_group(group, signal);
    }
}
