//! The store of executions: what is kept of them, and where. What it answers is on disk.

mod journal;
mod record;
mod redb;

use jiff::Timestamp;

pub use self::redb::{Ended, Store};
pub use journal::{Entry, What};
pub use record::{About, Branch, Execution, MAIN, Phase, State};

/// Why the store did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used; the process ends, and the next one reads what was committed.
    #[error("the store cannot be used: {0}")]
    Broken(String),
    /// The store has ended.
    #[error("the store has ended: the process is about to exit")]
    Ended,
    /// The disk is nearly full.
    #[error("the disk of the store is nearly full: make room; what was accepted before goes on")]
    Full,
    /// A record is not one of ours.
    #[error("execution {id} in the store cannot be read: {reason}")]
    Foreign {
        /// The execution.
        id: String,
        /// What is wrong.
        reason: String,
    },
}

/// What became of a request to begin an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk.
    New,
    /// The key was used for the same body before: this is the first execution's id.
    Again(String),
    /// The key was used for another body.
    Clash,
}

/// An idempotency key, whose scope is the entry point.
#[derive(Clone, Debug)]
pub struct Key {
    /// What the client sent.
    pub key: String,
    /// SHA-256 of the body.
    pub body: [u8; 32],
}

/// Something that is written about an execution in one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// As it is now.
    pub execution: Execution,
    /// What happened.
    pub entries: Vec<Entry>,
    /// Executions that its events begin.
    pub begins: Vec<Execution>,
    /// What it used.
    pub used: Vec<Used>,
}

/// An amount of something that has a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// What: see [`day_key`] and [`execution_key`].
    pub key: String,
    /// How much; negative gives back.
    pub amount: i64,
}

/// The key of what all executions use in one day of UTC.
#[must_use]
pub fn day_key(what: &str, now: Timestamp) -> String {
    format!("{what}/{}", now.strftime("%Y-%m-%d"))
}

/// The key of the tokens of one execution.
#[must_use]
pub fn execution_key(id: &str) -> String {
    format!("execution/{id}")
}

/// Keys are kept for a day.
const KEY_LIFETIME_SECONDS: i64 = 24 * 3600;

/// Which executions to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this entry point.
    pub entry_point: Option<String>,
    /// In this state.
    pub state: Option<State>,
}

impl Filter {
    fn admits(&self, execution: &Execution) -> bool {
        self.entry_point.as_ref().is_none_or(|entry| *entry == execution.entry_point)
            && self.state.is_none_or(|state| state == execution.state)
    }
}
