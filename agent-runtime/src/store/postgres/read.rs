//! What is read, and what is thrown away when it is old.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{PATIENCE, Store};
use crate::store::{Entry, Error, Execution, Filter, KEY_LIFETIME_SECONDS};

/// Executions that are thrown away in one transaction.
const SWEEP: i64 = 200;

impl Store {
    pub(in crate::store) async fn definitions(&self) -> Result<HashMap<String, (String, String)>, Error> {
        let look = || async {
            sqlx::query_as::<_, (String, String, String)>("SELECT hash, file, text FROM definitions")
                .fetch_all(&self.pool())
                .await
        };
        let rows = self.until_done(PATIENCE, look).await?;
        Ok(rows.into_iter().map(|(hash, file, text)| (hash, (file, text))).collect())
    }

    /// File name and text of a definition.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn definition(&self, hash: &str) -> Result<Option<(String, String)>, Error> {
        let look = || async {
            sqlx::query_as("SELECT file, text FROM definitions WHERE hash = $1")
                .bind(hash)
                .fetch_optional(&self.pool())
                .await
        };
        self.until_done(PATIENCE, look).await
    }

    pub(in crate::store) async fn live(&self) -> Result<Vec<Execution>, Error> {
        let look = || async {
            sqlx::query_as("SELECT id, record FROM executions WHERE ended IS NULL ORDER BY id")
                .fetch_all(&self.pool())
                .await
        };
        decode(self.until_done(PATIENCE, look).await?)
    }

    pub(in crate::store) async fn get(&self, id: &str) -> Result<Option<Execution>, Error> {
        let look = || async {
            sqlx::query_scalar::<_, Vec<u8>>("SELECT record FROM executions WHERE id = $1")
                .bind(id)
                .fetch_optional(&self.pool())
                .await
        };
        self.until_done(PATIENCE, look).await?.map(|record| Execution::decode(id, &record)).transpose()
    }

    pub(in crate::store) async fn list(
        &self,
        filter: &Filter,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Execution>, Error> {
        let look = || async {
            sqlx::query_as(
                "SELECT id, record FROM executions WHERE ($1::text IS NULL OR entry_point = $1)
                 AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR id < $3 COLLATE \"C\")
                 ORDER BY id DESC LIMIT $4",
            )
            .bind(&filter.entry_point)
            .bind(filter.state.map(|state| state.as_str()))
            .bind(before)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool())
            .await
        };
        decode(self.until_done(PATIENCE, look).await?)
    }

    pub(in crate::store) async fn journal(
        &self,
        id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Entry)>, Error> {
        let look = || async {
            sqlx::query_as::<_, (i64, Vec<u8>)>(
                "SELECT seq, entry FROM journal WHERE execution = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            )
            .bind(id)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool())
            .await
        };
        let rows = self.until_done(PATIENCE, look).await?;
        rows.into_iter().map(|(seq, bytes)| entry(id, seq, &bytes)).collect()
    }

    pub(in crate::store) async fn last_entry(&self, id: &str) -> Result<Option<Entry>, Error> {
        let look = || async {
            sqlx::query_as::<_, (i64, Vec<u8>)>(
                "SELECT seq, entry FROM journal WHERE execution = $1 ORDER BY seq DESC LIMIT 1",
            )
            .bind(id)
            .fetch_optional(&self.pool())
            .await
        };
        let row = self.until_done(PATIENCE, look).await?;
        row.map(|(seq, bytes)| entry(id, seq, &bytes).map(|(_, entry)| entry)).transpose()
    }

    pub(in crate::store) async fn usage(&self, key: &str) -> Result<i64, Error> {
        let look = || async {
            sqlx::query_scalar("SELECT amount FROM usage WHERE key = $1").bind(key).fetch_optional(&self.pool()).await
        };
        Ok(self.until_done(PATIENCE, look).await?.unwrap_or(0))
    }

    pub(in crate::store) async fn last_tick(&self, entry_point: &str) -> Result<Option<Timestamp>, Error> {
        let look = || async {
            sqlx::query_scalar("SELECT due FROM ticks WHERE entry_point = $1")
                .bind(entry_point)
                .fetch_optional(&self.pool())
                .await
        };
        let due: Option<i64> = self.until_done(PATIENCE, look).await?;
        Ok(due.and_then(|due| Timestamp::from_millisecond(due).ok()))
    }

    pub(in crate::store) async fn sweep(&self, cutoff: Timestamp) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        loop {
            // Replicas that sweep together take different ones.
            let sweep = || async {
                sqlx::query_scalar::<_, String>(
                    "DELETE FROM executions WHERE id IN (
                         SELECT id FROM executions WHERE ended < to_timestamp($1) LIMIT $2 FOR UPDATE SKIP LOCKED)
                     RETURNING id",
                )
                .bind(cutoff.as_duration().as_secs_f64())
                .bind(SWEEP)
                .fetch_all(&self.pool())
                .await
            };
            let gone = self.until_done(PATIENCE, sweep).await?;
            let count = i64::try_from(gone.len()).unwrap_or(SWEEP);
            all.extend(gone);
            if count < SWEEP {
                break;
            }
        }
        let day = cutoff.strftime("%Y-%m-%d").to_string();
        let rest = || async {
            let pool = self.pool();
            sqlx::query("DELETE FROM keys WHERE created < clock_timestamp() - make_interval(secs => $1)")
                .bind(Duration::from_secs(u64::try_from(KEY_LIFETIME_SECONDS).unwrap_or(0)).as_secs_f64())
                .execute(&pool)
                .await?;
            sqlx::query("DELETE FROM usage WHERE key NOT LIKE 'execution/%' AND split_part(key, '/', 2) < $1")
                .bind(&day)
                .execute(&pool)
                .await
        };
        self.until_done(PATIENCE, rest).await?;
        self.forget_orders().await?;
        Ok(all)
    }
}

fn decode(rows: Vec<(String, Vec<u8>)>) -> Result<Vec<Execution>, Error> {
    rows.into_iter().map(|(id, record)| Execution::decode(&id, &record)).collect()
}

fn entry(id: &str, seq: i64, bytes: &[u8]) -> Result<(u64, Entry), Error> {
    let seq = u64::try_from(seq).unwrap_or(0);
    Ok((seq, Entry::decode(id, seq, bytes)?))
}
