//! The store of executions: one redb file, one writer thread, group commit. What it answers is on disk.

mod record;
mod tables;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::Timestamp;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};

pub use record::{Execution, Position, State};
pub use writer::Ended;

use tables::{COUNTERS, DEFINITIONS, EXECUTIONS, IDEMPOTENCY, LIVE, TICKS};
use writer::Writer;

/// Why the store did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used; the process ends, and the next one reads what was committed.
    #[error("the store cannot be used: {0}")]
    Broken(String),
    /// The store has ended.
    #[error("the store has ended: the process is about to exit")]
    Ended,
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

/// Keys are kept for a day.
const KEY_LIFETIME_SECONDS: i64 = 24 * 3600;

/// A handle to the store.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
    writer: Writer,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: AtomicI64,
    failed: AtomicI64,
    healthy: AtomicBool,
}

impl Store {
    /// Opens the store in a folder, or makes it. `ended` is told when a write failed for good.
    ///
    /// # Errors
    /// The folder or the file cannot be used, or another process holds it.
    pub fn open(folder: &Path, ended: Ended) -> Result<Self, Error> {
        let path = folder.join("executions.redb");
        let broken = |what: &dyn std::fmt::Display| Error::Broken(format!("{}: {what}", path.display()));
        std::fs::create_dir_all(folder).map_err(|error| broken(&error))?;
        let database = Arc::new(Database::create(&path).map_err(|error| broken(&error))?);
        tables::create(&database).map_err(|error| broken(&error))?;
        let counts = Arc::new(Counts { healthy: AtomicBool::new(true), ..Counts::default() });
        let store = Self { writer: Writer::start(Arc::clone(&database), ended), database, counts };
        let (total, failed) = store.read_counters().map_err(|error| broken(&error))?;
        store.counts.total.store(total, Ordering::Relaxed);
        store.counts.failed.store(failed, Ordering::Relaxed);
        Ok(store)
    }

    /// Writes a new execution, its idempotency key and the count of accepted ones in one transaction.
    ///
    /// # Errors
    /// Nothing was accepted.
    pub async fn accept(&self, execution: Execution, key: Option<Key>) -> Result<Accepted, Error> {
        let now = Timestamp::now().as_second();
        let accepted = self.write(move |txn| {
            if let Some(key) = &key {
                let name = format!("{}\u{0}{}", execution.entry_point, key.key);
                let mut keys = txn.open_table(IDEMPOTENCY)?;
                let before = keys.get(name.as_str())?.map(|found| tables::read_key(found.value()));
                if let Some((_, body, id)) = before.filter(|(at, ..)| now - at < KEY_LIFETIME_SECONDS) {
                    return Ok(if body == key.body { Accepted::Again(id) } else { Accepted::Clash });
                }
                keys.insert(name.as_str(), (now, &key.body, execution.id.as_str()))?;
            }
            put_new(txn, &execution)?;
            Ok(Accepted::New)
        });
        let accepted = accepted.await?;
        if accepted == Accepted::New {
            self.counts.total.fetch_add(1, Ordering::Relaxed);
        }
        Ok(accepted)
    }

    /// Writes a timer's tick, and its execution unless it is to be skipped. False if the tick was there already.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn tick(&self, entry_point: String, due: Timestamp, execution: Option<Execution>) -> Result<bool, Error> {
        let begins = execution.is_some();
        let inserted = self.write(move |txn| {
            let mut ticks = txn.open_table(TICKS)?;
            let last = ticks.get(entry_point.as_str())?.map(|found| found.value());
            if last.is_some_and(|last| last >= due.as_millisecond()) {
                return Ok(false);
            }
            ticks.insert(entry_point.as_str(), due.as_millisecond())?;
            if let Some(execution) = &execution {
                put_new(txn, execution)?;
            }
            Ok(true)
        });
        let inserted = inserted.await?;
        if inserted && begins {
            self.counts.total.fetch_add(1, Ordering::Relaxed);
        }
        Ok(inserted)
    }

    /// Writes an execution's progress or end. The first end wins: false if it had ended before.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn progress(&self, execution: Execution) -> Result<bool, Error> {
        let failed = execution.state == State::Failed;
        let written = self.write(move |txn| {
            let mut live = txn.open_table(LIVE)?;
            if live.get(execution.id.as_str())?.is_none() {
                return Ok(false);
            }
            if execution.state.is_terminal() {
                live.remove(execution.id.as_str())?;
            }
            if execution.state == State::Failed {
                add(txn, "failed")?;
            }
            txn.open_table(EXECUTIONS)?.insert(execution.id.as_str(), execution.encode().as_slice())?;
            Ok(true)
        });
        let written = written.await?;
        if written && failed {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(written)
    }

    /// Keeps a definition under its hash, for executions that began with it.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn keep_definition(&self, hash: String, file: String, text: String) -> Result<(), Error> {
        self.write(move |txn| {
            txn.open_table(DEFINITIONS)?.insert(hash.as_str(), (file.as_str(), text.as_str()))?;
            Ok(())
        })
        .await
    }

    /// Every definition that was kept: file name and text by hash.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn definitions(&self) -> Result<HashMap<String, (String, String)>, Error> {
        self.read(|txn| {
            let table = txn.open_table(DEFINITIONS)?;
            let mut all = HashMap::new();
            for entry in table.iter()? {
                let (hash, kept) = entry?;
                let (file, text) = kept.value();
                all.insert(hash.value().to_owned(), (file.to_owned(), text.to_owned()));
            }
            Ok(all)
        })
    }

    /// Every execution that has not ended, oldest first.
    ///
    /// # Errors
    /// The file or a record cannot be read.
    pub fn live(&self) -> Result<Vec<Execution>, Error> {
        let found = self.read(|txn| {
            let (live, all) = (txn.open_table(LIVE)?, txn.open_table(EXECUTIONS)?);
            let mut found = Vec::new();
            for entry in live.iter()? {
                let id = entry?.0.value().to_owned();
                if let Some(record) = all.get(id.as_str())? {
                    found.push((id, record.value().to_vec()));
                }
            }
            Ok(found)
        })?;
        found.into_iter().map(|(id, bytes)| Execution::decode(&id, &bytes)).collect()
    }

    /// One execution.
    ///
    /// # Errors
    /// The file or the record cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<Execution>, Error> {
        let found = self.read(|txn| Ok(txn.open_table(EXECUTIONS)?.get(id)?.map(|record| record.value().to_vec())))?;
        found.map(|bytes| Execution::decode(id, &bytes)).transpose()
    }

    /// The newest executions, at most `limit`, older than `before` if it is given.
    ///
    /// # Errors
    /// The file or a record cannot be read.
    pub fn list(&self, before: Option<&str>, limit: usize) -> Result<Vec<Execution>, Error> {
        let found = self.read(|txn| {
            let table = txn.open_table(EXECUTIONS)?;
            let range = match before {
                Some(id) => table.range::<&str>(..id)?,
                None => table.range::<&str>(..)?,
            };
            let mut found = Vec::new();
            for entry in range.rev().take(limit) {
                let (id, record) = entry?;
                found.push((id.value().to_owned(), record.value().to_vec()));
            }
            Ok(found)
        })?;
        found.into_iter().map(|(id, bytes)| Execution::decode(&id, &bytes)).collect()
    }

    /// The last tick of an entry point.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last_tick(&self, entry_point: &str) -> Result<Option<Timestamp>, Error> {
        let last = self.read(|txn| Ok(txn.open_table(TICKS)?.get(entry_point)?.map(|found| found.value())))?;
        Ok(last.and_then(|millis| Timestamp::from_millisecond(millis).ok()))
    }

    /// Executions accepted over all restarts.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// Executions failed over all restarts.
    #[must_use]
    pub fn failed(&self) -> i64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Whether the last write succeeded.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.counts.healthy.load(Ordering::Relaxed)
    }

    /// Waits until everything that was asked for is on disk, and ends the writer.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = self.writer.run(operation).await;
        self.counts.healthy.store(outcome.is_ok(), Ordering::Relaxed);
        outcome
    }

    fn read<T>(&self, look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        let txn = self.database.begin_read().map_err(|error| Error::Broken(error.to_string()))?;
        look(&txn).map_err(|error| Error::Broken(error.to_string()))
    }

    fn read_counters(&self) -> Result<(i64, i64), Error> {
        self.read(|txn| {
            let table = txn.open_table(COUNTERS)?;
            let count = |name: &str| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |found| found.value()));
            Ok((count("total")?, count("failed")?))
        })
    }
}

fn put_new(txn: &redb::WriteTransaction, execution: &Execution) -> Result<(), redb::Error> {
    txn.open_table(EXECUTIONS)?.insert(execution.id.as_str(), execution.encode().as_slice())?;
    txn.open_table(LIVE)?.insert(execution.id.as_str(), ())?;
    add(txn, "total")
}

fn add(txn: &redb::WriteTransaction, counter: &str) -> Result<(), redb::Error> {
    let mut counters = txn.open_table(COUNTERS)?;
    let before = counters.get(counter)?.map_or(0, |found| found.value());
    counters.insert(counter, before + 1)?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
