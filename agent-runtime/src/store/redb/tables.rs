//! The tables of the redb file, what makes them, and how a transaction opens them.

use redb::{Database, Key, ReadableDatabase as _, Table, TableDefinition, Value, WriteTransaction};

type Text = &'static str;
type Bytes = &'static [u8];
/// Second, SHA-256 of the body and execution.
type Use = (i64, &'static [u8; 32], Text);

/// Executions by id, as JSON. Ids are UUIDs of version 7, so their order is that of their age.
pub(super) const EXECUTIONS: TableDefinition<'static, Text, Bytes> = TableDefinition::new("executions");
/// What happened in an execution, as JSON, by its id and a number from 1.
pub(super) const JOURNAL: TableDefinition<'static, (Text, u64), Bytes> = TableDefinition::new("journal");
/// What was used of a limit: `tokens`, `steps` or `millis` and the day, or the execution.
pub(super) const USAGE: TableDefinition<'static, Text, i64> = TableDefinition::new("usage");
/// Ids of executions that have not ended.
pub(super) const LIVE: TableDefinition<'static, Text, ()> = TableDefinition::new("live");
/// What keys were used for, by entry point, a zero byte and the key.
pub(super) const IDEMPOTENCY: TableDefinition<'static, Text, Use> = TableDefinition::new("idempotency");
/// File name and text of definitions, by hash.
pub(super) const DEFINITIONS: TableDefinition<'static, Text, (Text, Text)> = TableDefinition::new("definitions");
/// The last tick by entry point, in milliseconds since the epoch of time.
pub(super) const TICKS: TableDefinition<'static, Text, i64> = TableDefinition::new("ticks");
/// `total` and `failed`.
pub(super) const COUNTERS: TableDefinition<'static, Text, i64> = TableDefinition::new("counters");

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

/// A table that a transaction opens when it first needs it, and once: to open and close one for each
/// operation of a group costs more than what most of them write.
pub(super) struct Lazy<'txn, K: Key + 'static, V: Value + 'static> {
    txn: &'txn WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'txn, K, V>>,
}

impl<'txn, K: Key + 'static, V: Value + 'static> Lazy<'txn, K, V> {
    fn new(txn: &'txn WriteTransaction, definition: TableDefinition<'static, K, V>) -> Self {
        Self { txn, definition, table: None }
    }

    pub(super) fn open(&mut self) -> Result<&mut Table<'txn, K, V>, redb::Error> {
        match self.table {
            Some(ref mut table) => Ok(table),
            None => Ok(self.table.insert(self.txn.open_table(self.definition)?)),
        }
    }
}

/// What the operations of one transaction write to.
pub(super) struct Tables<'txn> {
    pub(super) executions: Lazy<'txn, Text, Bytes>,
    pub(super) journal: Lazy<'txn, (Text, u64), Bytes>,
    pub(super) usage: Lazy<'txn, Text, i64>,
    pub(super) live: Lazy<'txn, Text, ()>,
    pub(super) idempotency: Lazy<'txn, Text, Use>,
    pub(super) definitions: Lazy<'txn, Text, (Text, Text)>,
    pub(super) ticks: Lazy<'txn, Text, i64>,
    pub(super) counters: Lazy<'txn, Text, i64>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn of(txn: &'txn WriteTransaction) -> Self {
        Self {
            executions: Lazy::new(txn, EXECUTIONS),
            journal: Lazy::new(txn, JOURNAL),
            usage: Lazy::new(txn, USAGE),
            live: Lazy::new(txn, LIVE),
            idempotency: Lazy::new(txn, IDEMPOTENCY),
            definitions: Lazy::new(txn, DEFINITIONS),
            ticks: Lazy::new(txn, TICKS),
            counters: Lazy::new(txn, COUNTERS),
        }
    }
}

pub(super) fn read_key((at, body, id): (i64, &[u8; 32], &str)) -> (i64, [u8; 32], String) {
    (at, *body, id.to_owned())
}
