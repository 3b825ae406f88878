//! The store of executions: what is kept of them, and where. What it answers is on disk.

mod journal;
pub mod postgres;
mod record;
mod redb;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;

pub use self::redb::Ended;
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
    /// The database of a shared store does not answer.
    #[error("the database is out of reach: {0}")]
    Unreachable(String),
    /// A write of an execution that another replica has taken over was refused.
    #[error("execution {0} is not this replica's any more")]
    Stale(String),
    /// The database is not this version's.
    #[error("the database cannot be used: {0}")]
    Schema(String),
    /// The address of the database is wrong.
    #[error("HIVE_STORE_URL: {0}")]
    Url(String),
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
    /// Too many wait at its entry point. Only a shared store counts them itself.
    Full,
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
    /// Executions that its events begin, with their priorities.
    pub begins: Vec<(Execution, i32)>,
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

/// One level of priority is gained for each minute waited.
pub(crate) const LEVEL_MILLIS: i64 = 60_000;

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

/// A handle to the store.
#[derive(Clone, Debug)]
pub enum Store {
    /// A file of this process's own.
    Redb(redb::Store),
    /// A database that replicas share.
    Postgres(postgres::Store),
}

impl Store {
    /// Opens the store in a folder, or makes it. `ended` is told when a write failed for good.
    ///
    /// # Errors
    /// The folder or the file cannot be used, or another process holds it.
    pub fn open(folder: &Path, ended: Ended) -> Result<Self, Error> {
        redb::Store::open(folder, ended).map(Self::Redb)
    }

    /// Connects to a store that replicas share.
    ///
    /// # Errors
    /// The database is out of reach, or is not this version's.
    pub async fn connect(settings: postgres::Settings) -> Result<Self, Error> {
        postgres::Store::open(settings).await.map(Self::Postgres)
    }

    /// The store, if replicas share it.
    #[must_use]
    pub fn shared(&self) -> Option<&postgres::Store> {
        match self {
            Self::Redb(_) => None,
            Self::Postgres(store) => Some(store),
        }
    }

    /// Writes a new execution, its idempotency key and the count of accepted ones in one transaction.
    ///
    /// # Errors
    /// Nothing was accepted.
    pub async fn accept(&self, execution: Execution, key: Option<Key>) -> Result<Accepted, Error> {
        match self {
            Self::Redb(store) => store.accept(execution, key).await,
            Self::Postgres(store) => store.accept(&execution, 0, usize::MAX, key.as_ref()).await,
        }
    }

    /// What became of an idempotency key that was used before. A store that replicas share says it when it accepts.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn known(&self, entry_point: &str, key: &Key) -> Result<Option<Accepted>, Error> {
        match self {
            Self::Redb(store) => store.known(entry_point, key),
            Self::Postgres(_) => Ok(None),
        }
    }

    /// Writes a timer's tick, and its execution unless it is to be skipped. False if the tick was there already.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn tick(&self, entry_point: String, due: Timestamp, execution: Option<Execution>) -> Result<bool, Error> {
        match self {
            Self::Redb(store) => store.tick(entry_point, due, execution).await,
            Self::Postgres(store) => {
                store.tick(&entry_point, due, execution.as_ref().map(|execution| (execution, 0)), true).await
            }
        }
    }

    /// Writes an execution's progress or end, with what happened and what it led to, in one
    /// transaction. The first end wins: none if it had ended before, else the numbers of its entries.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn commit(&self, commit: Commit) -> Result<Option<Range<u64>>, Error> {
        match self {
            Self::Redb(store) => store.commit(commit).await,
            Self::Postgres(store) => store.commit(&commit).await,
        }
    }

    /// Appends to an execution's journal, and counts what was used.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn append(&self, id: String, entries: Vec<Entry>, spent: Vec<Used>) -> Result<Range<u64>, Error> {
        match self {
            Self::Redb(store) => store.append(id, entries, spent).await,
            Self::Postgres(store) => store.append(&id, &entries, &spent).await,
        }
    }

    /// Counts something against limits before an execution uses it: the name of the first limit that it
    /// would exceed, and then nothing is counted.
    ///
    /// # Errors
    /// Nothing was counted.
    pub async fn reserve(&self, id: &str, limits: Vec<(Used, i64)>) -> Result<Option<String>, Error> {
        match self {
            Self::Redb(store) => store.reserve(limits).await,
            Self::Postgres(store) => store.reserve(id, &limits).await,
        }
    }

    /// Makes an execution live again that has ended. False if it has not.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn reopen(&self, execution: Execution, entries: Vec<Entry>) -> Result<bool, Error> {
        match self {
            Self::Redb(store) => store.reopen(execution, entries).await,
            Self::Postgres(store) => store.reopen(&execution, &entries).await,
        }
    }

    /// Keeps a definition under its hash, for executions that begin with it. It is on disk before any of them.
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn keep_definition(&self, hash: String, file: String, text: String) -> Result<(), Error> {
        match self {
            Self::Redb(store) => store.keep_definition(hash, file, text).await,
            Self::Postgres(store) => store.keep_definition(&hash, &file, &text).await,
        }
    }

    /// Every definition that was kept: file name and text by hash.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn definitions(&self) -> Result<HashMap<String, (String, String)>, Error> {
        match self {
            Self::Redb(store) => store.definitions(),
            Self::Postgres(store) => store.definitions().await,
        }
    }

    /// One execution.
    ///
    /// # Errors
    /// The store or the record cannot be read.
    pub async fn get(&self, id: &str) -> Result<Option<Execution>, Error> {
        match self {
            Self::Redb(store) => store.get(id),
            Self::Postgres(store) => store.get(id).await,
        }
    }

    /// The newest executions that a filter admits, at most `limit`, older than `before` if it is given.
    ///
    /// # Errors
    /// The store or a record cannot be read.
    pub async fn list(&self, filter: &Filter, before: Option<&str>, limit: usize) -> Result<Vec<Execution>, Error> {
        match self {
            Self::Redb(store) => {
                // It may read many records from the disk: off the threads that serve.
                let (store, filter, before) = (store.clone(), filter.clone(), before.map(str::to_owned));
                let look = move || store.list(&filter, before.as_deref(), limit);
                tokio::task::spawn_blocking(look).await.map_err(|error| Error::Broken(error.to_string()))?
            }
            Self::Postgres(store) => store.list(filter, before, limit).await,
        }
    }

    /// What happened in an execution after an entry, with the entries' numbers, at most `limit`.
    ///
    /// # Errors
    /// The store or an entry cannot be read.
    pub async fn journal(&self, id: &str, after: u64, limit: usize) -> Result<Vec<(u64, Entry)>, Error> {
        match self {
            Self::Redb(store) => store.journal(id, after, limit),
            Self::Postgres(store) => store.journal(id, after, limit).await,
        }
    }

    /// The last thing that happened in an execution.
    ///
    /// # Errors
    /// The store or the entry cannot be read.
    pub async fn last_entry(&self, id: &str) -> Result<Option<Entry>, Error> {
        match self {
            Self::Redb(store) => store.last_entry(id),
            Self::Postgres(store) => store.last_entry(id).await,
        }
    }

    /// What was used of a limit.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn usage(&self, key: &str) -> Result<i64, Error> {
        match self {
            Self::Redb(store) => store.usage(key),
            Self::Postgres(store) => store.usage(key).await,
        }
    }

    /// The last tick of an entry point.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn last_tick(&self, entry_point: &str) -> Result<Option<Timestamp>, Error> {
        match self {
            Self::Redb(store) => store.last_tick(entry_point),
            Self::Postgres(store) => store.last_tick(entry_point).await,
        }
    }

    /// Throws away executions that ended before `cutoff`, with their journals, keys that have expired,
    /// and what was used on days before `cutoff`. Gives the executions' ids.
    ///
    /// # Errors
    /// The store failed; what was thrown away so far stays so.
    pub async fn sweep(&self, cutoff: Timestamp) -> Result<Vec<String>, Error> {
        match self {
            Self::Redb(store) => store.sweep(cutoff).await,
            Self::Postgres(store) => store.sweep(cutoff).await,
        }
    }

    /// Executions accepted over all restarts.
    #[must_use]
    pub fn total(&self) -> i64 {
        match self {
            Self::Redb(store) => store.total(),
            Self::Postgres(store) => store.total(),
        }
    }

    /// Executions failed over all restarts.
    #[must_use]
    pub fn failed(&self) -> i64 {
        match self {
            Self::Redb(store) => store.failed(),
            Self::Postgres(store) => store.failed(),
        }
    }

    /// Whether the store takes new work.
    #[must_use]
    pub fn healthy(&self) -> bool {
        match self {
            Self::Redb(store) => store.healthy(),
            Self::Postgres(store) => store.healthy(),
        }
    }

    /// Waits until everything that was asked for is on disk, and ends.
    pub async fn close(&self) {
        match self {
            Self::Redb(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }

    /// Every execution that has not ended, oldest first.
    ///
    /// # Errors
    /// The store or a record cannot be read.
    pub async fn live(&self) -> Result<Vec<Execution>, Error> {
        match self {
            Self::Redb(store) => store.live(),
            Self::Postgres(store) => store.live().await,
        }
    }
}

#[cfg(test)]
#[path = "conformance_tests.rs"]
mod conformance;
