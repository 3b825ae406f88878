//! What is read from the store, and what is thrown away when it is old.

use std::collections::HashMap;

use jiff::Timestamp;
use redb::ReadableTable as _;

use super::tables::{DEFINITIONS, EXECUTIONS, JOURNAL, LIVE, TICKS, USAGE, read_key};
use super::{Entry, Error, Execution, KEY_LIFETIME_SECONDS, Store};
use crate::store::Filter;

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

    /// The newest executions that a filter admits, at most `limit`, older than `before` if it is given.
    ///
    /// # Errors
    /// The file or a record cannot be read.
    pub fn list(&self, filter: &Filter, before: Option<&str>, limit: usize) -> Result<Vec<Execution>, Error> {
        let txn = self.begin_read()?;
        let broken = |error: redb::Error| Error::Broken(error.to_string());
        let table = txn.open_table(EXECUTIONS).map_err(|error| broken(error.into()))?;
        let range = match before {
            Some(id) => table.range::<&str>(..id),
            None => table.range::<&str>(..),
        };
        let mut found = Vec::new();
        for entry in range.map_err(|error| broken(error.into()))?.rev() {
            let (id, record) = entry.map_err(|error| broken(error.into()))?;
            let execution = Execution::decode(id.value(), record.value())?;
            if filter.admits(&execution) {
                found.push(execution);
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// What happened in an execution after an entry, with the entries' numbers, at most `limit`.
    ///
    /// # Errors
    /// The file or an entry cannot be read.
    pub fn journal(&self, id: &str, after: u64, limit: usize) -> Result<Vec<(u64, Entry)>, Error> {
        let found = self.read(|txn| {
            let table = txn.open_table(JOURNAL)?;
            let mut found = Vec::new();
            for entry in table.range((id, after.saturating_add(1))..=(id, u64::MAX))?.take(limit) {
                let (key, bytes) = entry?;
                found.push((key.value().1, bytes.value().to_vec()));
            }
            Ok(found)
        })?;
        found.into_iter().map(|(seq, bytes)| Ok((seq, Entry::decode(id, seq, &bytes)?))).collect()
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
            all.extend(old.iter().cloned());
            let now = Timestamp::now();
            self.write(move |tables| {
                let (executions, journal) = (tables.executions.open()?, tables.journal.open()?);
                for id in &old {
                    executions.remove(id.as_str())?;
                    journal.retain_in((id.as_str(), 0)..=(id.as_str(), u64::MAX), |_, _| false)?;
                }
                let fresh = |at: i64| now.as_second() - at < KEY_LIFETIME_SECONDS;
                tables.idempotency.open()?.retain(|_, value| fresh(read_key(value).0))?;
                let day = cutoff.strftime("%Y-%m-%d").to_string();
                let kept = |key: &str| key.starts_with("execution/") || key.rsplit('/').next() >= Some(day.as_str());
                tables.usage.open()?.retain(|key, _| kept(key))?;
                Ok(())
            })
            .await?;
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
        let mut old = Vec::new();
        for entry in table.iter().map_err(|error| broken(error.into()))? {
            let (id, record) = entry.map_err(|error| broken(error.into()))?;
            let execution = Execution::decode(id.value(), record.value())?;
            if execution.created >= cutoff || old.len() >= limit {
                break;
            }
            if execution.ended.is_some_and(|ended| ended < cutoff) {
                old.push(execution.id);
            }
        }
        Ok(old)
    }
}
