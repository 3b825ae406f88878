//! The store of one replica: one redb file, one writer thread, group commit. What it answers is on disk.

mod fresh;
mod keeping;
#[cfg(debug_assertions)]
mod kill;
mod original;
mod space;
mod synced;
mod tables;
mod writer;

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::Timestamp;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable};

pub use writer::Ended;

use super::{Accepted, Commit, Entry, Error, Execution, KEY_LIFETIME_SECONDS, Key, State, Used, execution_key};
use synced::Synced;
use tables::{COUNTERS, DEFINITIONS, IDEMPOTENCY, Tables};
use writer::Writer;

/// Bytes of the file that are kept in memory at most.
const CACHE: usize = 32 * 1024 * 1024;

/// A handle to the store.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
    writer: Writer,
    counts: Arc<Counts>,
    space: Arc<space::Space>,
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
        let before = original::Original::of(&path).map_err(|error| broken(&error))?;
        let database = open_database(&path).map(Arc::new).map_err(|error| {
            // Whoever holds it has written since: what was read before must not be put over that.
            if matches!(error, redb::Error::DatabaseAlreadyOpen) {
                return broken(&format!("{error}. Another process holds it: give each its own data folder"));
            }
            match before.restore(&path) {
                Ok(()) => broken(&format!("{error}. The file is as it was: restore it from a copy, or move it away")),
                Err(restore) => broken(&format!("{error}; and the file could not be left as it was: {restore}")),
            }
        })?;
        let counts = Arc::new(Counts { healthy: AtomicBool::new(true), ..Counts::default() });
        let space = Arc::new(space::Space::of(folder));
        let store = Self { writer: Writer::start(Arc::clone(&database), ended), database, counts, space };
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
        self.has_room()?;
        let now = Timestamp::now().as_second();
        let accepted = self.write(move |tables| {
            if let Some(key) = &key {
                let name = key_name(&execution.entry_point, key);
                let keys = tables.idempotency.open()?;
                if let Some(before) = used_before(keys, &name, key, now)? {
                    return Ok(before);
                }
                keys.insert(name.as_str(), (now, &key.body, execution.id.as_str()))?;
            }
            put_new(tables, &execution)?;
            Ok(Accepted::New)
        });
        let accepted = accepted.await?;
        if accepted == Accepted::New {
            self.counts.total.fetch_add(1, Ordering::Relaxed);
        }
        Ok(accepted)
    }

    /// What a key was used for before; none if it was not.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn known(&self, entry_point: &str, key: &Key) -> Result<Option<Accepted>, Error> {
        let now = Timestamp::now().as_second();
        self.read(|txn| used_before(&txn.open_table(IDEMPOTENCY)?, &key_name(entry_point, key), key, now))
    }

    /// Writes a timer's tick, and its execution unless it is to be skipped. False if the tick was there already.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn tick(&self, entry_point: String, due: Timestamp, execution: Option<Execution>) -> Result<bool, Error> {
        self.has_room()?;
        let begins = execution.is_some();
        let inserted = self.write(move |tables| {
            let ticks = tables.ticks.open()?;
            let last = ticks.get(entry_point.as_str())?.map(|found| found.value());
            if last.is_some_and(|last| last >= due.as_millisecond()) {
                return Ok(false);
            }
            ticks.insert(entry_point.as_str(), due.as_millisecond())?;
            if let Some(execution) = &execution {
                put_new(tables, execution)?;
            }
            Ok(true)
        });
        let inserted = inserted.await?;
        if inserted && begins {
            self.counts.total.fetch_add(1, Ordering::Relaxed);
        }
        Ok(inserted)
    }

    /// Writes an execution's progress or end, with what happened and what it led to, in one
    /// transaction. The first end wins: none if it had ended before, else the numbers of its entries.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn commit(&self, commit: Commit) -> Result<Option<Range<u64>>, Error> {
        let failed = commit.execution.state == State::Failed;
        let begun = i64::try_from(commit.begins.len()).unwrap_or(i64::MAX);
        let written = self.write(move |tables| {
            let execution = &commit.execution;
            let live = tables.live.open()?;
            if live.get(execution.id.as_str())?.is_none() {
                return Ok(None);
            }
            if execution.state.is_terminal() {
                live.remove(execution.id.as_str())?;
                tables.usage.open()?.remove(execution_key(&execution.id).as_str())?;
            }
            if execution.state == State::Failed {
                add(tables, "failed")?;
            }
            tables.executions.open()?.insert(execution.id.as_str(), execution.encode().as_slice())?;
            for (begun, _) in &commit.begins {
                put_new(tables, begun)?;
            }
            used(tables, &commit.used)?;
            append(tables, &execution.id, &commit.entries).map(Some)
        });
        let written = written.await?;
        if written.is_some() {
            self.counts.failed.fetch_add(i64::from(failed), Ordering::Relaxed);
            self.counts.total.fetch_add(begun, Ordering::Relaxed);
        }
        Ok(written)
    }

    /// Appends to an execution's journal, and counts what was used.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn append(&self, id: String, entries: Vec<Entry>, spent: Vec<Used>) -> Result<Range<u64>, Error> {
        self.write(move |tables| {
            used(tables, &spent)?;
            append(tables, &id, &entries)
        })
        .await
    }

    /// Counts something against limits before it is used: the name of the first limit that it would
    /// exceed, and then nothing is counted.
    ///
    /// # Errors
    /// Nothing was counted.
    pub async fn reserve(&self, limits: Vec<(Used, i64)>) -> Result<Option<String>, Error> {
        self.write(move |tables| {
            let usage = tables.usage.open()?;
            for (used, limit) in &limits {
                let before = usage.get(used.key.as_str())?.map_or(0, |found| found.value());
                if before.saturating_add(used.amount) > *limit {
                    return Ok(Some(used.key.clone()));
                }
            }
            for (used, _) in &limits {
                let before = usage.get(used.key.as_str())?.map_or(0, |found| found.value());
                usage.insert(used.key.as_str(), before.saturating_add(used.amount))?;
            }
            Ok(None)
        })
        .await
    }

    /// Makes an execution live again that has ended. False if it has not.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn reopen(&self, execution: Execution, entries: Vec<Entry>) -> Result<bool, Error> {
        self.write(move |tables| {
            let id = execution.id.as_str();
            if tables.live.open()?.insert(id, ())?.is_some() {
                return Ok(false);
            }
            tables.executions.open()?.insert(id, execution.encode().as_slice())?;
            append(tables, id, &entries)?;
            Ok(true)
        })
        .await
    }

    /// Keeps a definition under its hash, for executions that begin with it. It is on disk before any
    /// of them, since writes keep their order; it is not waited for.
    ///
    /// # Errors
    /// The file cannot be read, or the store has ended.
    pub async fn keep_definition(&self, hash: String, file: String, text: String) -> Result<(), Error> {
        if self.read(|txn| Ok(txn.open_table(DEFINITIONS)?.get(hash.as_str())?.is_some()))? {
            return Ok(());
        }
        let keep = move |tables: &mut Tables<'_>| {
            tables.definitions.open()?.insert(hash.as_str(), (file.as_str(), text.as_str()))?;
            Ok(())
        };
        self.writer.put(keep).await
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

    /// Whether the last write succeeded and the disk has room for more.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.counts.healthy.load(Ordering::Relaxed) && !self.space.is_low()
    }

    fn has_room(&self) -> Result<(), Error> {
        if self.space.is_low() { Err(Error::Full) } else { Ok(()) }
    }

    /// Waits until everything that was asked for is on disk, and ends the writer.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = self.writer.run(operation).await;
        self.counts.healthy.store(outcome.is_ok(), Ordering::Relaxed);
        outcome
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, Error> {
        self.database.begin_read().map_err(|error| Error::Broken(error.to_string()))
    }

    fn read<T>(&self, look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        look(&self.begin_read()?).map_err(|error| Error::Broken(error.to_string()))
    }

    fn read_counters(&self) -> Result<(i64, i64), Error> {
        self.read(|txn| {
            let table = txn.open_table(COUNTERS)?;
            let count = |name: &str| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |found| found.value()));
            Ok((count("total")?, count("failed")?))
        })
    }
}

/// Opens the file, or makes it.
fn open_database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    let Some(fresh) = fresh::Fresh::at(path)? else {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let database = builder.create_with_backend(Synced(FileBackend::new(file)?))?;
        tables::create(&database)?;
        return Ok(database);
    };
    let state = fresh.state();
    let database = builder.create_with_backend(fresh)?;
    tables::create(&database)?;
    state.commits();
    Ok(database)
}

/// A key under its entry point.
fn key_name(entry_point: &str, key: &Key) -> String {
    format!("{entry_point}\u{0}{}", key.key)
}

/// What a key was used for in the last day.
fn used_before(
    keys: &impl ReadableTable<&'static str, (i64, &'static [u8; 32], &'static str)>,
    name: &str,
    key: &Key,
    now: i64,
) -> Result<Option<Accepted>, redb::Error> {
    let before = keys.get(name)?.map(|found| tables::read_key(found.value()));
    let before = before.filter(|(at, ..)| now - at < KEY_LIFETIME_SECONDS);
    Ok(before.map(|(_, body, id)| if body == key.body { Accepted::Again(id) } else { Accepted::Clash }))
}

/// Gives the numbers of the new entries.
fn append(tables: &mut Tables<'_>, id: &str, entries: &[Entry]) -> Result<Range<u64>, redb::Error> {
    let journal = tables.journal.open()?;
    let last = journal.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?;
    let first = last.map_or(1, |(key, _)| key.value().1 + 1);
    let mut next = first;
    for entry in entries {
        journal.insert((id, next), entry.encode().as_slice())?;
        next += 1;
    }
    Ok(first..next)
}

fn used(tables: &mut Tables<'_>, all: &[Used]) -> Result<(), redb::Error> {
    if all.is_empty() {
        return Ok(());
    }
    let usage = tables.usage.open()?;
    for used in all {
        let before = usage.get(used.key.as_str())?.map_or(0, |found| found.value());
        usage.insert(used.key.as_str(), before.saturating_add(used.amount).max(0))?;
    }
    Ok(())
}

fn put_new(tables: &mut Tables<'_>, execution: &Execution) -> Result<(), redb::Error> {
    tables.executions.open()?.insert(execution.id.as_str(), execution.encode().as_slice())?;
    tables.live.open()?.insert(execution.id.as_str(), ())?;
    add(tables, "total")
}

fn add(tables: &mut Tables<'_>, counter: &str) -> Result<(), redb::Error> {
    let counters = tables.counters.open()?;
    let before = counters.get(counter)?.map_or(0, |found| found.value());
    counters.insert(counter, before + 1)?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
