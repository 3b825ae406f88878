//! What is read from the store, and what is thrown away when it is old.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use redb::ReadableTable as _;

use super::tables::{DEFINITIONS, EXECUTIONS, JOURNAL, LIVE, TICKS, USAGE, read_key};
use super::{Entry, Error, Execution, KEY_LIFETIME_SECONDS, Store, add, execution_key};
use crate::store::{Entries, Filter, Listed};

/// Executions that are thrown away in one transaction, so that no trigger waits long behind them.
const SWEEP: usize = 200;

impl Store {
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

    /// The ids of all that has not ended, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn live_ids(&self) -> Result<Vec<String>, Error> {
        self.read(|txn| txn.open_table(LIVE)?.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect())
    }

    /// Every execution that has not ended and can be read, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
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
        Ok(self.unreadable.sift(found.into_iter().map(|(id, bytes)| Execution::decode(&id, &bytes))).0)
    }

    /// One execution.
    ///
    /// # Errors
    /// The file or the record cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<Execution>, Error> {
        let found = self.read(|txn| Ok(txn.open_table(EXECUTIONS)?.get(id)?.map(|record| record.value().to_vec())))?;
        let read = found.map(|bytes| Execution::decode(id, &bytes)).transpose();
        read.inspect_err(|error| drop(self.unreadable.note(error)))
    }

    /// How many records were found that cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable.count()
    }

    /// Ends what cannot be read: it is not run any more. False if there is no such execution or it has ended.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn give_up(&self, id: &str) -> Result<bool, Error> {
        let name = id.to_owned();
        let lived = self.write(move |tables| {
            let lived = tables.live.open()?.remove(name.as_str())?.is_some();
            if lived {
                tables.usage.open()?.remove(execution_key(&name).as_str())?;
                add(tables, "failed")?;
            }
            Ok(lived)
        });
        let lived = lived.await?;
        self.counts.failed.fetch_add(i64::from(lived), Ordering::Relaxed);
        Ok(lived)
    }

    /// The newest executions that a filter admits, at most `limit`, older than `before` if it is given.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, filter: &Filter, before: Option<&str>, limit: usize) -> Result<Listed, Error> {
        let txn = self.begin_read()?;
        let broken = |error: redb::Error| Error::Broken(error.to_string());
        let table = txn.open_table(EXECUTIONS).map_err(|error| broken(error.into()))?;
        let range = match before {
            Some(id) => table.range::<&str>(..id),
            None => table.range::<&str>(..),
        };
        let mut found = Listed::default();
        for entry in range.map_err(|error| broken(error.into()))?.rev() {
            let (id, record) = entry.map_err(|error| broken(error.into()))?;
            match Execution::decode(id.value(), record.value()) {
                Ok(execution) if filter.admits(&execution) => found.executions.push(execution),
                Ok(_) => {}
                Err(error) => found.unreadable.extend(self.unreadable.note(&error)),
            }
            if found.executions.len() + found.unreadable.len() >= limit {
                found.last = Some(id.value().to_owned());
                break;
            }
        }
        Ok(found)
    }

    /// What happened in an execution after an entry, with the entries' numbers, at most `limit`; an error in the
    /// place of each that cannot be read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn entries(&self, id: &str, after: u64, limit: usize) -> Result<Entries, Error> {
        let found = self.read(|txn| {
            let table = txn.open_table(JOURNAL)?;
            let mut found = Vec::new();
            for entry in table.range((id, after.saturating_add(1))..=(id, u64::MAX))?.take(limit) {
                let (key, bytes) = entry?;
                found.push((key.value().1, bytes.value().to_vec()));
            }
            Ok(found)
        })?;
        Ok(found.into_iter().map(|(seq, bytes)| (seq, Entry::decode(id, seq, &bytes))).collect())
    }

    /// The last thing that happened in an execution.
    ///
    /// # Errors
    /// The file or the entry cannot be read.
    pub fn last_entry(&self, id: &str) -> Result<Option<Entry>, Error> {
        let found = self.read(|txn| {
            let table = txn.open_table(JOURNAL)?;
            let last = table.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?;
            Ok(last.map(|(key, bytes)| (key.value().1, bytes.value().to_vec())))
        })?;
        found.map(|(seq, bytes)| Entry::decode(id, seq, &bytes)).transpose()
    }

    /// What was used of a limit.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn usage(&self, key: &str) -> Result<i64, Error> {
        self.read(|txn| Ok(txn.open_table(USAGE)?.get(key)?.map_or(0, |found| found.value())))
    }

    /// The last tick of an entry point.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last_tick(&self, entry_point: &str) -> Result<Option<Timestamp>, Error> {
        let last = self.read(|txn| Ok(txn.open_table(TICKS)?.get(entry_point)?.map(|found| found.value())))?;
        Ok(last.and_then(|millis| Timestamp::from_millisecond(millis).ok()))
    }

    /// Throws away executions that ended before `cutoff`, with their journals, keys that have expired,
    /// and what was used on days before `cutoff`. Gives the executions' ids.
    ///
    /// # Errors
    /// The store failed; what was thrown away so far stays so.
    pub async fn sweep(&self, cutoff: Timestamp) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        loop {
            let old = self.ended_before(cutoff, SWEEP)?;
            let count = old.len();
            let now = Timestamp::now();
            let gone = self.write(move |tables| {
                let (executions, journal) = (tables.executions.open()?, tables.journal.open()?);
                let mut gone = Vec::new();
                for id in old {
                    // Somebody may have had it tried again since it was looked at.
                    if tables.live.open()?.get(id.as_str())?.is_some() {
                        continue;
                    }
                    executions.remove(id.as_str())?;
                    journal.retain_in((id.as_str(), 0)..=(id.as_str(), u64::MAX), |_, _| false)?;
                    gone.push(id);
                }
                let fresh = |at: i64| now.as_second() - at < KEY_LIFETIME_SECONDS;
                tables.idempotency.open()?.retain(|_, value| fresh(read_key(value).0))?;
                let day = cutoff.strftime("%Y-%m-%d").to_string();
                let kept = |key: &str| key.starts_with("execution/") || key.rsplit('/').next() >= Some(day.as_str());
                tables.usage.open()?.retain(|key, _| kept(key))?;
                Ok(gone)
            });
            let gone = gone.await?;
            gone.iter().for_each(|id| self.unreadable.forget(id));
            all.extend(gone);
            if count < SWEEP {
                return Ok(all);
            }
        }
    }

    /// Ids are of the time at which executions were accepted, so those accepted after `cutoff` are not looked at.
    fn ended_before(&self, cutoff: Timestamp, limit: usize) -> Result<Vec<String>, Error> {
        let txn = self.begin_read()?;
        let broken = |error: redb::Error| Error::Broken(error.to_string());
        let table = txn.open_table(EXECUTIONS).map_err(|error| broken(error.into()))?;
        let live = txn.open_table(LIVE).map_err(|error| broken(error.into()))?;
        let lives = |id: &str| live.get(id).map(|found| found.is_some()).map_err(|error| broken(error.into()));
        let mut old = Vec::new();
        for entry in table.iter().map_err(|error| broken(error.into()))? {
            let (id, record) = entry.map_err(|error| broken(error.into()))?;
            if old.len() >= limit {
                break;
            }
            let execution = match Execution::decode(id.value(), record.value()) {
                Ok(execution) => execution,
                Err(error) => {
                    drop(self.unreadable.note(&error));
                    // When it ended is not known; its id says when it was accepted.
                    if accepted(id.value()).is_some_and(|at| at < cutoff) && !lives(id.value())? {
                        old.push(id.value().to_owned());
                    }
                    continue;
                }
            };
            if execution.created >= cutoff {
                break;
            }
            if execution.ended.is_some_and(|ended| ended < cutoff) {
                old.push(execution.id);
            }
        }
        Ok(old)
    }
}

/// When an execution was accepted: its id is a UUID of version 7, which begins with that.
fn accepted(id: &str) -> Option<Timestamp> {
    let (seconds, nanos) = uuid::Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}
