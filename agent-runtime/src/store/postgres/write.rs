//! What is written of the executions that are claimed here.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Postgres, Row as _, Transaction};

use super::claims::Claim;
use super::rows::{count, due, insert, journal, take, use_up};
use super::{PATIENCE, PAUSE, Store, errors};
use crate::store::{Commit, Entry, Error, Execution, State, Used, What, execution_key};

/// What is written under a claim.
#[derive(Clone, Copy, Debug)]
enum Deed<'a> {
    Commit(&'a Commit),
    Append(&'a [Entry], &'a [Used]),
    Reserve(&'a [(Used, i64)]),
}

/// What came of it.
#[derive(Debug)]
enum Done {
    Written(Range<u64>),
    /// The first limit that would be exceeded; nothing was written.
    Exceeds(String),
    /// It had ended before; nothing was written.
    Ended,
    /// Another replica has it; nothing was written.
    Stale,
}

impl Store {
    /// As [`crate::store::Store::commit`].
    pub(in crate::store) async fn commit(&self, commit: &Commit) -> Result<Option<Range<u64>>, Error> {
        let id = commit.execution.id.as_str();
        match self.write(id, Deed::Commit(commit)).await? {
            Done::Written(seqs) => {
                self.notify_entries(id, seqs.clone(), &commit.entries);
                let rests = matches!(commit.execution.state, State::Queued | State::Waiting);
                if rests || !commit.begins.is_empty() {
                    self.notify_work();
                }
                Ok(Some(seqs))
            }
            Done::Ended => Ok(None),
            Done::Stale | Done::Exceeds(_) => Err(Error::Stale(id.to_owned())),
        }
    }

    /// As [`crate::store::Store::append`].
    pub(in crate::store) async fn append(
        &self,
        id: &str,
        entries: &[Entry],
        used: &[Used],
    ) -> Result<Range<u64>, Error> {
        if entries.is_empty() {
            // What was reserved is given back even when the claim is gone; if that fails, less is left than could be.
            let given_back = self.until_done(Duration::ZERO, || self.try_use_up(used)).await;
            return given_back.map(|()| 0..0).or_else(|error| {
                tracing::warn!(execution = id, %error, "what was not used could not be given back");
                Ok(0..0)
            });
        }
        match self.write(id, Deed::Append(entries, used)).await? {
            Done::Written(seqs) => {
                self.notify_entries(id, seqs.clone(), entries);
                Ok(seqs)
            }
            Done::Ended | Done::Stale | Done::Exceeds(_) => Err(Error::Stale(id.to_owned())),
        }
    }

    #[cfg(test)]
    pub(super) async fn append_again(&self, id: &str, entries: &[Entry]) -> Result<Range<u64>, Error> {
        match self.write_after(id, Deed::Append(entries, &[]), true).await? {
            Done::Written(seqs) => Ok(seqs),
            Done::Ended | Done::Stale | Done::Exceeds(_) => Err(Error::Stale(id.to_owned())),
        }
    }

    async fn try_use_up(&self, used: &[Used]) -> Result<(), sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        use_up(&mut tx, used).await?;
        tx.commit().await
    }

    /// As [`crate::store::Store::reserve`].
    pub(in crate::store) async fn reserve(&self, id: &str, limits: &[(Used, i64)]) -> Result<Option<String>, Error> {
        match self.write(id, Deed::Reserve(limits)).await? {
            Done::Written(_) => Ok(None),
            Done::Exceeds(key) => Ok(Some(key)),
            Done::Ended | Done::Stale => Err(Error::Stale(id.to_owned())),
        }
    }

    /// Writes under this replica's claim, and tries again until the claim is lost.
    async fn write(&self, id: &str, deed: Deed<'_>) -> Result<Done, Error> {
        self.write_after(id, deed, false).await
    }

    /// `tried` says that it may have been written already.
    async fn write_after(&self, id: &str, deed: Deed<'_>, mut tried: bool) -> Result<Done, Error> {
        let stale = || Error::Stale(id.to_owned());
        let claim: Arc<Claim> = self.claims().get(id).map(Arc::clone).ok_or_else(stale)?;
        let mut write_no = claim.write_no.lock().await;
        loop {
            if claim.is_lost() {
                return Err(stale());
            }
            match self.once(self.try_write(&claim, *write_no, tried, deed)).await {
                Ok(done) => {
                    if matches!(done, Done::Written(_)) {
                        *write_no += 1;
                    }
                    return Ok(done);
                }
                Err(error) if errors::passes(&error) => {
                    tracing::warn!(execution = id, %error, "a write is tried again");
                    tried = true;
                    tokio::time::sleep(PAUSE.max(self.shared.lease / 100)).await;
                }
                Err(error) => return Err(errors::of(&error)),
            }
        }
    }

    async fn try_write(&self, claim: &Claim, write_no: i64, tried: bool, deed: Deed<'_>) -> Result<Done, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        let entries: &[Entry] = match deed {
            Deed::Commit(commit) => &commit.entries,
            Deed::Append(entries, _) => entries,
            Deed::Reserve(_) => &[],
        };
        let count_of = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let last: Option<i64> = sqlx::query_scalar(
            "UPDATE executions SET write_no = write_no + 1, last_seq = last_seq + $5
             WHERE id = $1 AND claim_no = $2 AND claimed_by = $3 AND write_no = $4 AND ended IS NULL RETURNING last_seq",
        )
        .bind(claim.id())
        .bind(claim.no())
        .bind(&self.shared.replica)
        .bind(write_no)
        .bind(count_of)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(last) = last else {
            return refused(&mut tx, claim, write_no.saturating_add(1), tried, count_of).await;
        };
        journal(&mut tx, claim.id(), last - count_of, entries).await?;
        match deed {
            Deed::Commit(commit) => self.put(&mut tx, commit).await?,
            Deed::Append(_, used) => use_up(&mut tx, used).await?,
            Deed::Reserve(limits) => {
                let mut sorted: Vec<&(Used, i64)> = limits.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
                for (used, limit) in sorted {
                    if take(&mut tx, used).await? > *limit {
                        return Ok(Done::Exceeds(used.key.clone()));
                    }
                }
            }
        }
        tx.commit().await?;
        Ok(Done::Written(range(last, count_of)))
    }

    /// Puts an execution as it is now. One that rests or has ended is given back with that.
    async fn put(&self, tx: &mut Transaction<'_, Postgres>, commit: &Commit) -> Result<(), sqlx::Error> {
        let execution = &commit.execution;
        let gives_back = matches!(execution.state, State::Queued | State::Waiting) || execution.state.is_terminal();
        sqlx::query(
            "UPDATE executions SET state = $2, record = $3, due = $4, asks = $5,
                 ended = CASE WHEN $6 THEN to_timestamp($7) END,
                 claimed_by = CASE WHEN $8 THEN NULL ELSE claimed_by END,
                 lease_until = CASE WHEN $8 THEN NULL ELSE lease_until END
             WHERE id = $1",
        )
        .bind(&execution.id)
        .bind(execution.state.as_str())
        .bind(execution.encode())
        .bind(due(execution))
        .bind(execution.asks())
        .bind(execution.state.is_terminal())
        .bind(execution.ended.unwrap_or_else(Timestamp::now).as_duration().as_secs_f64())
        .bind(gives_back)
        .execute(&mut **tx)
        .await?;
        let mut begun = 0;
        for (begins, priority) in &commit.begins {
            begun += i64::from(insert(tx, begins, *priority).await?);
        }
        use_up(tx, &commit.used).await?;
        if execution.state.is_terminal() {
            sqlx::query("DELETE FROM usage WHERE key = $1")
                .bind(execution_key(&execution.id))
                .execute(&mut **tx)
                .await?;
        }
        if execution.state == State::Failed {
            count(tx, "failed", 1, &execution.id).await?;
        }
        if begun > 0 {
            count(tx, "total", begun, &execution.id).await?;
        }
        Ok(())
    }

    /// As [`crate::store::Store::reopen`].
    pub(in crate::store) async fn reopen(&self, execution: &Execution, entries: &[Entry]) -> Result<bool, Error> {
        // Tried once: a second try could not tell its own first from somebody else's.
        let reopened = self.until_done(Duration::ZERO, || self.try_reopen(execution, entries)).await?;
        if let Some(seqs) = &reopened {
            self.notify_entries(&execution.id, seqs.clone(), entries);
            self.notify_work();
        }
        Ok(reopened.is_some())
    }

    async fn try_reopen(&self, execution: &Execution, entries: &[Entry]) -> Result<Option<Range<u64>>, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        let count_of = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let last: Option<i64> = sqlx::query_scalar(
            "UPDATE executions SET state = $2, record = $3, due = $4, asks = $5, ended = NULL, claim_no = claim_no + 1,
                 claimed_by = NULL, lease_until = NULL, write_no = write_no + 1, last_seq = last_seq + $6
             WHERE id = $1 AND ended IS NOT NULL RETURNING last_seq",
        )
        .bind(&execution.id)
        .bind(execution.state.as_str())
        .bind(execution.encode())
        .bind(due(execution))
        .bind(execution.asks())
        .bind(count_of)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(last) = last else { return Ok(None) };
        journal(&mut tx, &execution.id, last - count_of, entries).await?;
        tx.commit().await?;
        Ok(Some(range(last, count_of)))
    }

    /// As [`crate::store::Store::keep_definition`].
    pub(in crate::store) async fn keep_definition(&self, hash: &str, file: &str, text: &str) -> Result<(), Error> {
        let keep = || async {
            sqlx::query("INSERT INTO definitions (hash, file, text) VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING")
                .bind(hash)
                .bind(file)
                .bind(text)
                .execute(&self.pool())
                .await
        };
        self.until_done(PATIENCE, keep).await.map(drop)
    }
}

/// Why a write under a claim found nothing to write to.
async fn refused(
    tx: &mut Transaction<'_, Postgres>,
    claim: &Claim,
    wanted: i64,
    tried: bool,
    count_of: i64,
) -> Result<Done, sqlx::Error> {
    let row = sqlx::query("SELECT claim_no, write_no, last_seq, ended IS NOT NULL FROM executions WHERE id = $1")
        .bind(claim.id())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(Done::Stale) };
    let (claim_no, write_no, last): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if tried && claim_no == claim.no() && write_no == wanted {
        // It was written, and its answer was lost.
        return Ok(Done::Written(range(last, count_of)));
    }
    Ok(if row.try_get(3)? && claim_no == claim.no() { Done::Ended } else { Done::Stale })
}

fn range(last: i64, count_of: i64) -> Range<u64> {
    let seq = |seq: i64| u64::try_from(seq).unwrap_or(0);
    seq(last - count_of + 1)..seq(last + 1)
}

/// Whether an entry says that the execution's state has changed.
pub(super) fn is_state(entry: &Entry) -> bool {
    matches!(entry.what, What::State { .. })
}
