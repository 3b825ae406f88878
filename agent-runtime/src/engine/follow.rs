//! Following executions: what happened is told once it is on disk.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::Engine;
use crate::store::{Entry, What};

/// What happened lately, for those who follow; one that falls further behind reads the journal.
const KEPT: usize = 1024;

/// Something that happened in an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Its journal has grown.
    Entry {
        /// The execution.
        execution: String,
        /// The entry's number in its journal.
        seq: u64,
        /// Its state has changed.
        is_state: bool,
    },
    /// Something may have happened unheard: who follows looks.
    Missed,
}

impl Happened {
    /// Whether an execution's journal may have grown beyond an entry.
    #[must_use]
    pub fn goes_beyond(&self, id: &str, after: u64) -> bool {
        match self {
            Self::Entry { execution, seq, .. } => execution == id && *seq > after,
            Self::Missed => true,
        }
    }

    /// Whether an execution's state may have changed.
    #[must_use]
    pub fn changes(&self, id: &str) -> bool {
        match self {
            Self::Entry { execution, is_state, .. } => *is_state && execution == id,
            Self::Missed => true,
        }
    }
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
        // A shared store tells of its own, and of what happens in other replicas.
        if self.happened.receiver_count() == 0 || self.store.shared().is_some() {
            return;
        }
        for (seq, entry) in seqs.zip(entries) {
            let is_state = matches!(entry.what, What::State { .. });
            let happened = Happened::Entry { execution: execution.to_owned(), seq, is_state };
            // Nobody may be left to hear it.
            let _ = self.happened.send(Arc::new(happened));
        }
    }
}
