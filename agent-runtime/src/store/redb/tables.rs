//! The tables of the redb file, and what makes them.

use redb::{Database, ReadableDatabase as _, TableDefinition};

/// Executions by id, as JSON. Ids are UUIDs of version 7, so their order is that of their age.
pub(super) const EXECUTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("executions");
/// What happened in an execution, as JSON, by its id and a number from 1.
pub(super) const JOURNAL: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("journal");
/// What was used of a limit: `tokens`, `steps` or `millis` and the day, or the execution.
pub(super) const USAGE: TableDefinition<'_, &str, i64> = TableDefinition::new("usage");
/// Ids of executions that have not ended.
pub(super) const LIVE: TableDefinition<'_, &str, ()> = TableDefinition::new("live");
/// Second, SHA-256 of the body and execution, by entry point, a zero byte and the key.
pub(super) const IDEMPOTENCY: TableDefinition<'_, &str, (i64, &[u8; 32], &str)> = TableDefinition::new("idempotency");
/// File name and text of definitions, by hash.
pub(super) const DEFINITIONS: TableDefinition<'_, &str, (&str, &str)> = TableDefinition::new("definitions");
/// The last tick by entry point, in milliseconds since the epoch of time.
pub(super) const TICKS: TableDefinition<'_, &str, i64> = TableDefinition::new("ticks");
/// `total` and `failed`.
pub(super) const COUNTERS: TableDefinition<'_, &str, i64> = TableDefinition::new("counters");

/// How many there are.
const TABLES: usize = 8;

/// Makes the tables that are missing, so that readers find them all.
pub(super) fn create(database: &Database) -> Result<(), redb::Error> {
    if database.begin_read()?.list_tables()?.count() == TABLES {
        return Ok(());
    }
    let txn = database.begin_write()?;
    txn.open_table(EXECUTIONS)?;
    txn.open_table(JOURNAL)?;
    txn.open_table(USAGE)?;
    txn.open_table(LIVE)?;
    txn.open_table(IDEMPOTENCY)?;
    txn.open_table(DEFINITIONS)?;
    txn.open_table(TICKS)?;
    txn.open_table(COUNTERS)?;
    txn.commit()?;
    Ok(())
}

pub(super) fn read_key((at, body, id): (i64, &[u8; 32], &str)) -> (i64, [u8; 32], String) {
    (at, *body, id.to_owned())
}
