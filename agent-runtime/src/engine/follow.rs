//! Following executions: what happened is told once it is on disk.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::Engine;
use crate::store::Entry;

/// What happened lately, for those who follow; one that falls further behind reads the journal.
const KEPT: usize = 1024;

/// Something that happened in an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// The execution.
    pub execution: String,
    /// The entry's number in its journal.
    pub seq: u64,
    /// The entry.
    pub entry: Entry,
}

pub(super) fn channel() -> broadcast::Sender<Arc<Happened>> {
    broadcast::Sender::new(KEPT)
}

impl Engine {
    /// Tells what happens from now on, in every execution.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Happened>> {
        self.happened.subscribe()
    }

    /// Shows entries that are on disk.
    pub(super) fn show(&self, execution: &str, seqs: Range<u64>, entries: &[Entry]) {
        if self.happened.receiver_count() == 0 {
            return;
        }
        for (seq, entry) in seqs.zip(entries) {
            let happened = Happened { execution: execution.to_owned(), seq, entry: entry.clone() };
            // Nobody may be left to hear it.
            let _ = self.happened.send(Arc::new(happened));
        }
    }
}
