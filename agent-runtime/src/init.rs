//! Process 1 of a container: runs the runtime as its child, hands signals on, and reaps what the
//! programs of an agent leave behind. The kernel gives every orphan to process 1.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this process is process 1.
#[must_use]
pub fn is_first() -> bool {
    getpid().is_init()
}

/// Runs this program again as a child until it ends, and gives its exit code.
///
/// # Errors
/// The child cannot be started, or signals cannot be listened for.
pub fn run() -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (mut children, mut term) = (signal(SignalKind::child())?, signal(SignalKind::terminate())?);
        let mut int = signal(SignalKind::interrupt())?;
        // Not through tokio, which would wait for the child itself.
        let child = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).spawn()?;
        let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        loop {
            if let Some(code) = reap(child)? {
                return Ok(ExitCode::from(code));
            }
            let told = tokio::select! {
                _ = children.recv() => continue,
                _ = term.recv() => Signal::TERM,
                _ = int.recv() => Signal::INT,
            };
            if let Some(child) = child {
                // It may have ended already, which the next round finds.
                let _ = kill_process(child, told);
            }
        }
    })
}

/// Reaps every process that has ended; gives the exit code of the child if it is among them.
fn reap(child: Option<Pid>) -> std::io::Result<Option<u8>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == child => {
                let killed = status.terminating_signal().map(|signal| signal.saturating_add(128));
                let code = status.exit_status().or(killed).unwrap_or(1);
                return Ok(Some(u8::try_from(code).unwrap_or(1)));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            // It has nobody left to wait for: the child is gone.
            Err(rustix::io::Errno::CHILD) => return Ok(Some(1)),
            Err(error) => return Err(error.into()),
        }
    }
}
