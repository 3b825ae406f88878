//! Owns how progress looks: a spinner for people, plain lines for logs.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use cluster::{Event, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a log hears that a long step is still at it.
const REMINDER: Duration = Duration::from_secs(30);

/// Shows progress on standard error.
pub(crate) struct Terminal {
    spinner: Option<ProgressBar>,
    /// When the current step was last heard of.
    told: Cell<Duration>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let spinner = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
        });
        Self { spinner, told: Cell::new(Duration::ZERO) }
    }

    fn line(&self, text: &str) {
        // When nobody reads any longer, the work must still be finished.
        let write = || writeln!(io::stderr(), "{text}").ok();
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        };
    }
}

impl Progress for Terminal {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Begin { step } => {
                self.told.set(Duration::ZERO);
                if let Some(spinner) = &self.spinner {
                    spinner.reset_elapsed();
                    spinner.set_message(step.to_owned());
                    spinner.enable_steady_tick(Duration::from_millis(120));
                }
            }
            Event::Tick { step, elapsed, detail } => match &self.spinner {
                Some(spinner) => spinner.set_message(format!("{step}: {detail}")),
                None if elapsed >= self.told.get() + REMINDER => {
                    self.told.set(elapsed);
                    self.line(&format!("{step}: {} s, {detail}", elapsed.as_secs()));
                }
                None => {}
            },
            Event::End { step, took } => self.line(&done(step, took)),
            Event::Failed { step } => self.line(&format!("{step}: failed")),
            Event::Note(text) => self.line(text),
            _ => {}
        }
        if let (Some(spinner), Event::End { .. } | Event::Failed { .. }) = (&self.spinner, event) {
            spinner.disable_steady_tick();
            spinner.set_message("");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn done(step: &str, took: Duration) -> String {
    format!("{step}: {:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_done_tells_its_time() {
        assert_eq!(done("etcd", Duration::from_millis(1234)), "etcd: 1.2 s");
    }
}
