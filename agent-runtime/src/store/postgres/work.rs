//! What there is to do: counted every second, for status and for whoever was not told.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row as _;

use super::{Error, Store};
use lifecycle::Desired;

/// How often it is counted.
const EVERY: Duration = Duration::from_secs(1);
/// How long accepting an epoch waits for claims under way.
const SHARED_WITHIN: Duration = Duration::from_secs(6);

/// What waits at one entry point, over all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Executions that could begin or go on.
    pub queued: usize,
    /// Executions parked until a time or for a person.
    pub parked: usize,
    /// Those of them that wait for a person.
    pub asks: usize,
}

impl Store {
    /// What waited when it was counted last, by entry point.
    #[must_use]
    pub fn waiting(&self) -> HashMap<String, Waiting> {
        self.shared.counts.waiting.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the first execution that rests goes on.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let look = || async {
            sqlx::query_scalar::<_, Option<i64>>(
                "SELECT min(due) FROM executions WHERE ended IS NULL AND due > 0 AND due > $1",
            )
            .bind(now.as_millisecond())
            .fetch_one(&self.pool())
            .await
        };
        let due = self.until_done(Duration::ZERO, look).await?;
        Ok(due.and_then(|due| Timestamp::from_millisecond(due).ok()))
    }

    pub(super) async fn count(&self) -> Result<(), Error> {
        let rows = self.until_done(Duration::ZERO, || self.try_count()).await?;
        let mut waiting = HashMap::new();
        for (name, counted) in rows.0 {
            waiting.insert(name, counted);
        }
        *self.shared.counts.waiting.write().unwrap_or_else(PoisonError::into_inner) = waiting;
        self.shared.counts.total.store(rows.1, Ordering::Relaxed);
        self.shared.counts.failed.store(rows.2, Ordering::Relaxed);
        Ok(())
    }

    async fn try_count(&self) -> Result<(Vec<(String, Waiting)>, i64, i64), sqlx::Error> {
        let pool = self.pool();
        let rows = sqlx::query(
            "SELECT entry_point, count(*) FILTER (WHERE due <= $1), count(*) FILTER (WHERE due > $1),
                 count(*) FILTER (WHERE due > $1 AND asks)
             FROM executions WHERE ended IS NULL AND (claimed_by IS NULL OR lease_until < clock_timestamp())
             GROUP BY entry_point",
        )
        .bind(Timestamp::now().as_millisecond())
        .fetch_all(&pool)
        .await?;
        let count = |row: &sqlx::postgres::PgRow, at: usize| {
            row.try_get::<i64, _>(at).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let mut waiting = Vec::new();
        for row in &rows {
            let counted = Waiting { queued: count(row, 1)?, parked: count(row, 2)?, asks: count(row, 3)? };
            waiting.push((row.try_get(0)?, counted));
        }
        let row = sqlx::query(
            "SELECT COALESCE(sum(value) FILTER (WHERE name = 'total'), 0)::bigint,
                 COALESCE(sum(value) FILTER (WHERE name = 'failed'), 0)::bigint FROM counters",
        )
        .fetch_one(&pool)
        .await?;
        Ok((waiting, row.try_get(0)?, row.try_get(1)?))
    }

    /// Makes the row that claims read, if there is none.
    pub(super) async fn keep_control_row(&self) -> Result<(), Error> {
        let keep = || async {
            sqlx::query(
                "INSERT INTO control (runtime_uid, epoch, desired) VALUES ($1, 0, 'running') ON CONFLICT DO NOTHING",
            )
            .bind(&self.shared.runtime_uid)
            .execute(&self.pool())
            .await
        };
        self.until_done(Duration::ZERO, keep).await.map(drop)
    }

    /// Tells every replica's claims what the operator asked for. When this returns, no claim that read anything else
    /// is committed any more. A newer epoch's word stays.
    ///
    /// # Errors
    /// It is not known to be written.
    pub async fn accept_epoch(&self, epoch: i64, desired: Desired) -> Result<(), Error> {
        let accept = || async {
            let mut tx = self.pool().begin().await?;
            // Whoever claims holds it shared. It is given out in order, so this waits for those before it only.
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 3))")
                .bind(&self.shared.runtime_uid)
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE control SET epoch = $2, desired = $3 WHERE runtime_uid = $1 AND epoch <= $2")
                .bind(&self.shared.runtime_uid)
                .bind(epoch)
                .bind(desired.as_str())
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        };
        let accepted = tokio::time::timeout(SHARED_WITHIN, self.until_done(SHARED_WITHIN / 3, accept)).await;
        accepted.unwrap_or_else(|_| Err(Error::Unreachable("it did not answer in time".to_owned())))?;
        self.notify_work();
        Ok(())
    }
}

/// Counts again and again, and has everybody look who was not told.
pub(super) async fn count(store: Store) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = store.count().await {
            tracing::warn!(%error, "what waits cannot be counted");
        }
        store.shared.work.notify_one();
        store.shared.asked.notify_one();
    }
}
