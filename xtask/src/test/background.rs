//! Owns the parts of a run that only compute: they take the processors while others wait, and never from them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::report::Report;
use crate::workspace;

/// How many parts may wait; one more waits to be added.
const PARTS: usize = 32;

/// Parts to be run one after the other, beside what the caller does.
pub(crate) struct Background<'scope> {
    parts: SyncSender<Box<dyn FnOnce() + Send + 'scope>>,
    thread: ScopedJoinHandle<'scope, ()>,
}

/// Whether a part has been done, for those that build on it.
#[derive(Debug)]
pub(crate) struct Done(Receiver<bool>);

impl Done {
    /// Waits for the part.
    ///
    /// # Errors
    /// It has failed, which the report counts already.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        match self.0.recv() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(anyhow!("a part in the background failed before")),
        }
    }
}

impl<'scope> Background<'scope> {
    /// Starts the thread.
    pub(crate) fn start<'env>(scope: &'scope Scope<'scope, 'env>) -> Self {
        let (parts, waiting) = mpsc::sync_channel::<Box<dyn FnOnce() + Send + 'scope>>(PARTS);
        let thread = scope.spawn(move || {
            yield_processors();
            waiting.into_iter().for_each(|part| part());
        });
        Self { parts, thread }
    }

    /// Adds a part, to be run after those before it.
    pub(crate) fn add<F>(&self, report: &'scope Report, name: &str, run: F) -> Done
    where
        F: FnOnce() -> anyhow::Result<()> + Send + 'scope,
    {
        let (told, done) = mpsc::sync_channel(1);
        let name = name.to_owned();
        let part = move || {
            let begun = Instant::now();
            println!("== {name}: started in the background");
            let result = run();
            if let Err(error) = &result {
                eprintln!("{name}: {error:#}");
            }
            finished(report, &format!("{name} (background)"), begun.elapsed(), result.is_ok());
            // Nobody may wait for it.
            let _ = told.send(result.is_ok());
        };
        // The thread takes parts for as long as this value lives.
        let _ = self.parts.send(Box::new(part));
        Done(done)
    }

    /// Waits for all parts.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        drop(self.parts);
        self.thread.join().map_err(|_| anyhow!("the parts in the background ended with a panic"))
    }
}

/// Prints and counts a part that has ended.
pub(crate) fn finished(report: &Report, name: &str, took: Duration, passed: bool) {
    println!("== {name}: {} in {:.0} s", if passed { "passed" } else { "FAILED" }, took.as_secs_f64());
    report.step(name, took, passed);
}

/// Gives this thread, and what it starts, only the time that nobody else wants. Without it all works, only slower.
fn yield_processors() {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    let idle = Command::new("chrt").args(["--idle", "--pid", "0", &own]).output();
    if !idle.is_ok_and(|output| output.status.success()) {
        let _ = rustix::process::nice(19);
    }
}

/// Runs a command with its output in a file, which is printed only if it fails.
///
/// # Errors
/// The command cannot be started, or fails.
pub(crate) fn logged(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let folder = workspace::target().join("test-logs");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let log: PathBuf = folder.join(format!("{name}.log"));
    let output = File::create(&log).with_context(|| log.display().to_string())?;
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}:\n{}", cluster::tail(&log, 200));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_run_in_order_and_a_failure_is_counted_once() {
        let report = Report::default();
        let order = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let background = Background::start(scope);
            let note = |name: &'static str| order.lock().unwrap().push(name);
            let first = background.add(&report, "first", move || {
                note("first");
                bail!("broken")
            });
            let second = background.add(&report, "second", move || {
                note("second");
                Ok(())
            });
            assert!(first.wait().is_err());
            assert!(second.wait().is_ok());
            background.join().unwrap();
        });
        assert_eq!(order.into_inner().unwrap(), ["first", "second"]);
        assert!(report.text(Duration::ZERO).ends_with("1 passed, 1 failed"));
    }
}
