//! The rows that every kind of write has: executions, their journals, and what is counted.

use jiff::Timestamp;
use sqlx::{Postgres, Transaction};

use crate::store::{Entry, Execution, LEVEL_MILLIS, State, Used};

/// Parts of a counter.
const SHARDS: u8 = 16;

/// Milliseconds since the epoch of time before which an execution rests.
pub(super) fn due(execution: &Execution) -> i64 {
    let rests = execution.due().filter(|_| execution.state == State::Waiting);
    rests.map_or(0, Timestamp::as_millisecond)
}

/// False if it is there already.
pub(super) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    execution: &Execution,
    priority: i32,
) -> Result<bool, sqlx::Error> {
    let rank = execution.created.as_millisecond().saturating_sub(i64::from(priority).saturating_mul(LEVEL_MILLIS));
    let inserted = sqlx::query(
        "INSERT INTO executions (id, entry_point, state, record, rank, due, asks) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&execution.id)
    .bind(&execution.entry_point)
    .bind(execution.state.as_str())
    .bind(execution.encode())
    .bind(rank)
    .bind(due(execution))
    .bind(execution.asks())
    .execute(&mut **tx)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

pub(super) async fn journal(
    tx: &mut Transaction<'_, Postgres>,
    id: &str,
    last: i64,
    entries: &[Entry],
) -> Result<(), sqlx::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let encoded: Vec<Vec<u8>> = entries.iter().map(Entry::encode).collect();
    sqlx::query(
        "INSERT INTO journal (execution, seq, entry)
         SELECT $1, $2 + place, entry FROM unnest($3::bytea[]) WITH ORDINALITY AS fresh (entry, place)",
    )
    .bind(id)
    .bind(last)
    .bind(encoded)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn use_up(tx: &mut Transaction<'_, Postgres>, used: &[Used]) -> Result<(), sqlx::Error> {
    // In one order everywhere, so that two writers never wait for one another.
    let mut sorted: Vec<&Used> = used.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    for used in sorted {
        take(tx, used).await?;
    }
    Ok(())
}

/// Counts what is used; gives what is used by now, never less than nothing.
pub(super) async fn take(tx: &mut Transaction<'_, Postgres>, used: &Used) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO usage (key, amount) VALUES ($1, GREATEST($2, 0))
         ON CONFLICT (key) DO UPDATE SET amount = GREATEST(usage.amount + $2, 0) RETURNING amount",
    )
    .bind(&used.key)
    .bind(used.amount)
    .fetch_one(&mut **tx)
    .await
}

/// Counts in the part of a counter that an execution's id names.
pub(super) async fn count(
    tx: &mut Transaction<'_, Postgres>,
    name: &str,
    by: i64,
    id: &str,
) -> Result<(), sqlx::Error> {
    let shard = id.bytes().last().unwrap_or(0) % SHARDS;
    sqlx::query(
        "INSERT INTO counters (name, shard, value) VALUES ($1, $2, $3)
         ON CONFLICT (name, shard) DO UPDATE SET value = counters.value + excluded.value",
    )
    .bind(name)
    .bind(i32::from(shard))
    .bind(by)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
