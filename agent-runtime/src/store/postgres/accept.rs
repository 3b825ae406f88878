//! What is taken in: new executions, with their keys, and the ticks of timers.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Postgres, Row as _, Transaction};

use super::rows::{count, insert};
use super::{PATIENCE, Store};
use crate::store::{Accepted, Error, Execution, KEY_LIFETIME_SECONDS, Key};

impl Store {
    /// Writes a new execution and its idempotency key. `most` is the number that may wait at its entry point.
    ///
    /// # Errors
    /// It is not known to be written.
    pub async fn accept(
        &self,
        execution: &Execution,
        priority: i32,
        most: usize,
        key: Option<&Key>,
    ) -> Result<Accepted, Error> {
        let accepted = self.until_done(PATIENCE, || self.try_accept(execution, priority, most, key)).await?;
        if accepted == Accepted::New {
            self.notify_work();
        }
        Ok(accepted)
    }

    async fn try_accept(
        &self,
        execution: &Execution,
        priority: i32,
        most: usize,
        key: Option<&Key>,
    ) -> Result<Accepted, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        if let Some(key) = key
            && let Some(before) = take_key(&mut tx, execution, key).await?
        {
            return Ok(before);
        }
        // Whoever counts, counts alone, so that the bound is exact.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))")
            .bind(&execution.entry_point)
            .execute(&mut *tx)
            .await?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT FROM executions WHERE ended IS NULL AND entry_point = $1 AND due <= $2
                   AND NOT EXISTS (SELECT FROM executions WHERE id = $4)
                   AND (claimed_by IS NULL OR lease_until < clock_timestamp()) LIMIT $3) AS line",
        )
        .bind(&execution.entry_point)
        .bind(Timestamp::now().as_millisecond())
        .bind(most)
        .bind(&execution.id)
        .fetch_one(&mut *tx)
        .await?;
        if waiting >= most {
            return Ok(Accepted::Full);
        }
        if insert(&mut tx, execution, priority).await? {
            count(&mut tx, "total", 1, &execution.id).await?;
        }
        tx.commit().await?;
        Ok(Accepted::New)
    }

    /// Writes a timer's tick, and its execution unless it is to be skipped: because one of the timer has not ended,
    /// where that matters. False if the tick was there already, was skipped, or the operator's last word is not
    /// that it runs.
    ///
    /// # Errors
    /// It is not known to be written.
    pub async fn tick(
        &self,
        entry_point: &str,
        due: Timestamp,
        begins: Option<(&Execution, i32)>,
        overlaps: bool,
    ) -> Result<bool, Error> {
        let ticked = self.until_done(PATIENCE, || self.try_tick(entry_point, due, begins, overlaps)).await?;
        if ticked && begins.is_some() {
            self.notify_work();
        }
        Ok(ticked)
    }

    async fn try_tick(
        &self,
        entry_point: &str,
        due: Timestamp,
        begins: Option<(&Execution, i32)>,
        overlaps: bool,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        if !self.is_wanted(&mut tx).await? {
            return Ok(false);
        }
        let id = begins.map(|(execution, _)| execution.id.as_str());
        let first = sqlx::query(
            "INSERT INTO ticks (entry_point, due, execution) VALUES ($1, $2, $3)
             ON CONFLICT (entry_point) DO UPDATE SET due = excluded.due, execution = excluded.execution
             WHERE ticks.due < excluded.due",
        )
        .bind(entry_point)
        .bind(due.as_millisecond())
        .bind(id)
        .execute(&mut *tx)
        .await?;
        if first.rows_affected() == 0 {
            // The answer of our own first try may have been lost.
            let ours: Option<bool> = sqlx::query_scalar("SELECT execution = $2 FROM ticks WHERE entry_point = $1")
                .bind(entry_point)
                .bind(id)
                .fetch_one(&mut *tx)
                .await?;
            return Ok(ours == Some(true));
        }
        let active: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM executions WHERE ended IS NULL AND entry_point = $1)")
                .bind(entry_point)
                .fetch_one(&mut *tx)
                .await?;
        let skipped = active && !overlaps;
        if let Some((execution, priority)) = begins.filter(|_| !skipped)
            && insert(&mut tx, execution, priority).await?
        {
            count(&mut tx, "total", 1, &execution.id).await?;
        }
        tx.commit().await?;
        Ok(!skipped)
    }
}

/// Takes a key for an execution; what it was used for before, if that is still remembered.
async fn take_key(
    tx: &mut Transaction<'_, Postgres>,
    execution: &Execution,
    key: &Key,
) -> Result<Option<Accepted>, sqlx::Error> {
    let taken = sqlx::query(
        "INSERT INTO keys (entry_point, key, body, execution, created) VALUES ($1, $2, $3, $4, clock_timestamp())
         ON CONFLICT (entry_point, key) DO UPDATE
         SET body = excluded.body, execution = excluded.execution, created = excluded.created
         WHERE keys.created < clock_timestamp() - make_interval(secs => $5)",
    )
    .bind(&execution.entry_point)
    .bind(&key.key)
    .bind(key.body.as_slice())
    .bind(&execution.id)
    .bind(seconds(KEY_LIFETIME_SECONDS))
    .execute(&mut **tx)
    .await?;
    if taken.rows_affected() > 0 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT body, execution FROM keys WHERE entry_point = $1 AND key = $2")
        .bind(&execution.entry_point)
        .bind(&key.key)
        .fetch_one(&mut **tx)
        .await?;
    let (body, before): (Vec<u8>, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(if before == execution.id {
        // Our own first try, whose answer was lost.
        Accepted::New
    } else if body == key.body {
        Accepted::Again(before)
    } else {
        Accepted::Clash
    }))
}

fn seconds(seconds: i64) -> f64 {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).as_secs_f64()
}
