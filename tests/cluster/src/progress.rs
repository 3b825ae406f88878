//! Owns the reports of what is going on: steps with names and times.

use std::time::{Duration, Instant};

use crate::Error;

/// One thing worth telling while the cluster comes up.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step begins.
    Begin {
        /// Its name.
        step: &'a str,
    },
    /// A long step is still at it; sent about once a second.
    Tick {
        /// Its name.
        step: &'a str,
        /// The time since it began.
        elapsed: Duration,
        /// What it said last; may be empty.
        detail: &'a str,
    },
    /// A step is done.
    End {
        /// Its name.
        step: &'a str,
        /// The time it took.
        took: Duration,
    },
    /// A step has failed; its error follows as the result.
    Failed {
        /// Its name.
        step: &'a str,
    },
    /// Something the user should know.
    Note(&'a str),
}

/// Whoever wants to know.
pub trait Progress {
    /// Takes one report.
    fn report(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>)> Progress for F {
    fn report(&self, event: Event<'_>) {
        self(event);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _: Event<'_>) {}
}

/// Runs one step between its two reports.
pub(crate) fn step<T>(
    progress: &dyn Progress,
    name: &str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    progress.report(Event::Begin { step: name });
    let begun = Instant::now();
    let result = work();
    progress.report(match result {
        Ok(_) => Event::End { step: name, took: begun.elapsed() },
        Err(_) => Event::Failed { step: name },
    });
    result
}
