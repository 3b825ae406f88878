//! Claims: who runs an execution, until when. Renewed at a third of the lease; at two thirds without, what
//! runs under it is interrupted, so that it has ended when another replica may take it.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::{Postgres, Row as _, Transaction};
use tokio_util::sync::CancellationToken;

use super::{Error, PATIENCE, Store};
use crate::store::{Execution, State};

/// How often leases are looked at, as a part of them.
const LOOKS: u32 = 60;

/// An execution that is this replica's to run.
#[derive(Debug)]
pub struct Claimed {
    /// The execution.
    pub execution: Execution,
    claim: Arc<Claim>,
}

/// What became of taking an execution that should rest.
#[derive(Debug)]
pub enum Seized {
    /// It rests, and is the caller's now, under this claim.
    Rests(Box<Execution>, i64),
    /// It runs, in this replica or another.
    Runs,
    /// It has ended.
    Ended(State),
    /// There is no such execution.
    Unknown,
}

/// One claim of one execution.
#[derive(Debug)]
pub(super) struct Claim {
    id: String,
    no: i64,
    /// Before the claim, or its last renewal that succeeded, was sent.
    renewed: Mutex<Instant>,
    is_lost: AtomicBool,
    /// Interrupts what runs under it.
    interrupt: Mutex<CancellationToken>,
    /// The number of the last write; writes of one execution take turns.
    pub(super) write_no: tokio::sync::Mutex<i64>,
}

impl Claim {
    fn new(id: &str, no: i64, write_no: i64, sent: Instant) -> Self {
        Self {
            id: id.to_owned(),
            no,
            renewed: Mutex::new(sent),
            is_lost: AtomicBool::new(false),
            interrupt: Mutex::default(),
            write_no: tokio::sync::Mutex::new(write_no),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn no(&self) -> i64 {
        self.no
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Nothing more is written under it, and nothing goes on.
    fn lose(&self, why: &str) {
        if !self.is_lost.swap(true, Ordering::AcqRel) {
            tracing::warn!(execution = %self.id, claim = self.no, why, "a claim is lost: what ran under it is interrupted");
        }
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    fn age(&self) -> Duration {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Store {
    /// Entry points that have something to claim and room to run it, best first. `limits` names entry points with
    /// the number of their executions that may run at once over all replicas.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn heads(&self, limits: &[(String, usize)], now: Timestamp) -> Result<Vec<String>, Error> {
        let names: Vec<&str> = limits.iter().map(|(name, _)| name.as_str()).collect();
        let most: Vec<i64> = limits.iter().map(|(_, most)| i64::try_from(*most).unwrap_or(i64::MAX)).collect();
        let look = || async {
            let rows = sqlx::query(
                "SELECT lane.name FROM unnest($1::text[], $2::bigint[]) AS lane (name, most)
                 CROSS JOIN LATERAL (
                     SELECT rank, id FROM executions
                     WHERE ended IS NULL AND entry_point = lane.name AND due <= $3
                       AND (claimed_by IS NULL OR lease_until < clock_timestamp())
                     ORDER BY rank, id LIMIT 1) AS head
                 WHERE (SELECT desired FROM control WHERE runtime_uid = $4) = 'running'
                   AND (SELECT count(*) FROM executions
                        WHERE ended IS NULL AND entry_point = lane.name AND claimed_by IS NOT NULL
                          AND lease_until >= clock_timestamp()) < lane.most
                 ORDER BY head.rank, head.id",
            )
            .bind(&names)
            .bind(&most)
            .bind(now.as_millisecond())
            .bind(&self.shared.runtime_uid)
            .fetch_all(&self.pool())
            .await?;
            rows.into_iter().map(|row| row.try_get(0)).collect()
        };
        self.until_done(Duration::ZERO, look).await
    }

    /// Claims the first execution of an entry point that may run; the caller holds a permit. None when there is
    /// none, as many run as may, or the operator's last word is not that it runs.
    ///
    /// # Errors
    /// It is not known whether anything was claimed: what was, is taken up when its lease has ended.
    pub async fn claim(&self, entry_point: &str, most: usize, now: Timestamp) -> Result<Option<Claimed>, Error> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let found = self.until_done(Duration::ZERO, || self.try_claim(entry_point, most, now)).await?;
        found.map(|(id, record, claim)| Ok(Claimed { execution: Execution::decode(&id, &record)?, claim })).transpose()
    }

    /// Whether the operator's last word is that executions run. Until the transaction ends, no other is accepted.
    pub(super) async fn is_wanted(&self, tx: &mut Transaction<'_, Postgres>) -> Result<bool, sqlx::Error> {
        sqlx::query("SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 3))")
            .bind(&self.shared.runtime_uid)
            .execute(&mut **tx)
            .await?;
        // A statement of its own, which sees what was accepted while the lock was waited for.
        let desired: Option<String> = sqlx::query_scalar("SELECT desired FROM control WHERE runtime_uid = $1")
            .bind(&self.shared.runtime_uid)
            .fetch_optional(&mut **tx)
            .await?;
        Ok(desired.as_deref() == Some("running"))
    }

    async fn try_claim(
        &self,
        entry_point: &str,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<(String, Vec<u8>, Arc<Claim>)>, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        if !self.is_wanted(&mut tx).await? {
            return Ok(None);
        }
        // One claim of an entry point at a time, so that the number of those that run is exact.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 2))")
            .bind(entry_point)
            .execute(&mut *tx)
            .await?;
        let sent = Instant::now();
        let row = sqlx::query(
            "UPDATE executions SET claim_no = claim_no + 1, claimed_by = $4,
                 lease_until = clock_timestamp() + make_interval(secs => $5)
             WHERE id = (
                 SELECT id FROM executions
                 WHERE ended IS NULL AND entry_point = $1 AND due <= $3
                   AND (claimed_by IS NULL OR lease_until < clock_timestamp())
                   AND (SELECT count(*) FROM executions
                        WHERE ended IS NULL AND entry_point = $1 AND claimed_by IS NOT NULL
                          AND lease_until >= clock_timestamp()) < $2
                 ORDER BY rank, id LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING id, record, claim_no, write_no",
        )
        .bind(entry_point)
        .bind(most)
        .bind(now.as_millisecond())
        .bind(&self.shared.replica)
        .bind(self.shared.lease.as_secs_f64())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (id, record): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        let claim = Claim::new(&id, row.try_get(2)?, row.try_get(3)?, sent);
        tx.commit().await?;
        Ok(Some((id, record, Arc::new(claim))))
    }

    /// Takes an execution that rests, or whose lease has ended, to write to it; nothing is run under this. Works
    /// whatever the operator's last word is.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn seize(&self, id: &str) -> Result<Seized, Error> {
        // What runs here under an older claim must be gone before it is written to under another.
        if self.claims().contains_key(id) {
            return Ok(Seized::Runs);
        }
        let found = self.until_done(PATIENCE, || self.try_seize(id)).await?;
        Ok(match found {
            Ok((record, claim)) => {
                let execution = Execution::decode(id, &record)?;
                let no = claim.no;
                self.claims().insert(id.to_owned(), Arc::new(claim));
                Seized::Rests(Box::new(execution), no)
            }
            Err(other) => other,
        })
    }

    async fn try_seize(&self, id: &str) -> Result<Result<(Vec<u8>, Claim), Seized>, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        let row = sqlx::query(
            "SELECT record, claim_no, write_no, ended IS NOT NULL, state,
                 claimed_by IS NOT NULL AND lease_until >= clock_timestamp()
             FROM executions WHERE id = $1 FOR UPDATE",
        )
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(Err(Seized::Unknown)) };
        if row.try_get(3)? {
            let state: String = row.try_get(4)?;
            let state = [State::Succeeded, State::Failed].into_iter().find(|known| known.as_str() == state);
            return Ok(Err(Seized::Ended(state.unwrap_or(State::Cancelled))));
        }
        if row.try_get(5)? {
            return Ok(Err(Seized::Runs));
        }
        let sent = Instant::now();
        sqlx::query(
            "UPDATE executions SET claim_no = claim_no + 1, claimed_by = $2,
                 lease_until = clock_timestamp() + make_interval(secs => $3) WHERE id = $1",
        )
        .bind(id)
        .bind(&self.shared.replica)
        .bind(self.shared.lease.as_secs_f64())
        .execute(&mut *tx)
        .await?;
        let no: i64 = row.try_get(1)?;
        let claim = Claim::new(id, no + 1, row.try_get(2)?, sent);
        let record = row.try_get(0)?;
        tx.commit().await?;
        Ok(Ok((record, claim)))
    }

    /// Begins to renew a claim, and to interrupt what runs under it if that cannot be done.
    /// Gives the execution and the claim's number.
    #[must_use]
    pub fn hold(&self, claimed: Claimed, interrupt: CancellationToken) -> (Execution, i64) {
        let no = claimed.claim.no;
        *claimed.claim.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = interrupt;
        self.claims().insert(claimed.execution.id.clone(), claimed.claim);
        (claimed.execution, no)
    }

    /// Gives back a claim under which nothing was begun.
    pub async fn return_claim(&self, claimed: Claimed) {
        if let Err(error) = self.give_back(claimed.claim.id(), claimed.claim.no()).await {
            tracing::debug!(%error, "a claim ends with its lease");
        }
    }

    /// What ran under this replica's claim of an execution has ended.
    pub async fn let_go(&self, id: &str, no: i64) {
        let claim = match self.claims().entry(id.to_owned()) {
            Entry::Occupied(held) if held.get().no == no => held.remove(),
            Entry::Occupied(_) | Entry::Vacant(_) => return,
        };
        // Its last write has given it back, unless that failed.
        if !claim.is_lost()
            && let Err(error) = self.give_back(id, claim.no()).await
        {
            tracing::debug!(%error, "a claim ends with its lease");
        }
    }

    pub(super) async fn give_back(&self, id: &str, no: i64) -> Result<(), Error> {
        let give = || async {
            sqlx::query(
                "UPDATE executions SET claimed_by = NULL, lease_until = NULL
                 WHERE id = $1 AND claim_no = $2 AND claimed_by = $3",
            )
            .bind(id)
            .bind(no)
            .bind(&self.shared.replica)
            .execute(&self.pool())
            .await
        };
        self.until_done(Duration::ZERO, give).await.map(drop)
    }

    /// The ids of what runs here.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        self.claims().keys().cloned().collect()
    }

    /// Executions that were being cancelled when their replica was lost.
    ///
    /// # Errors
    /// The database is out of reach.
    pub async fn left_cancelling(&self) -> Result<Vec<String>, Error> {
        let look = || async {
            sqlx::query_scalar(
                "SELECT id FROM executions WHERE ended IS NULL AND claimed_by IS NOT NULL
                 AND lease_until < clock_timestamp() AND state = 'cancelling' LIMIT 100",
            )
            .fetch_all(&self.pool())
            .await
        };
        self.until_done(Duration::ZERO, look).await
    }
}

/// Renews leases at a third of them.
pub(super) async fn renew(store: Store) {
    let lease = store.shared.lease;
    let mut next = Instant::now();
    loop {
        tokio::time::sleep_until(next.into()).await;
        let held: Vec<Arc<Claim>> = store.claims().values().cloned().collect();
        let held: Vec<Arc<Claim>> = held.into_iter().filter(|claim| !claim.is_lost()).collect();
        let sent = Instant::now();
        // One that fails is tried again soon.
        next = sent + lease / 12;
        if held.is_empty() {
            continue;
        }
        match tokio::time::timeout(lease / 6, store.once(try_renew(&store, &held))).await {
            Ok(Ok(kept)) => {
                next = sent + lease / 3;
                for claim in &held {
                    if kept.contains(&claim.id) {
                        *claim.renewed.lock().unwrap_or_else(PoisonError::into_inner) = sent;
                    } else if store.claims().get(&claim.id).is_some_and(|now| Arc::ptr_eq(now, claim))
                        && claim.write_no.try_lock().is_ok()
                        && !given_back(&store, claim).await
                    {
                        claim.lose("another replica has it");
                    }
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "leases could not be renewed"),
            Err(_) => tracing::warn!("leases could not be renewed in time"),
        }
    }
}

/// Whether a claim's own last write has given it back.
async fn given_back(store: &Store, claim: &Claim) -> bool {
    let look = async {
        sqlx::query_scalar::<_, bool>("SELECT claim_no = $2 AND claimed_by IS NULL FROM executions WHERE id = $1")
            .bind(&claim.id)
            .bind(claim.no)
            .fetch_optional(&store.pool())
            .await
    };
    matches!(store.once(look).await, Ok(Some(true) | None))
}

async fn try_renew(store: &Store, held: &[Arc<Claim>]) -> Result<Vec<String>, sqlx::Error> {
    let ids: Vec<&str> = held.iter().map(|claim| claim.id.as_str()).collect();
    let numbers: Vec<i64> = held.iter().map(|claim| claim.no).collect();
    sqlx::query_scalar(
        "UPDATE executions SET lease_until = clock_timestamp() + make_interval(secs => $4)
         FROM unnest($1::text[], $2::bigint[]) AS held (id, no)
         WHERE executions.id = held.id AND claim_no = held.no AND claimed_by = $3 AND lease_until >= clock_timestamp()
         RETURNING executions.id",
    )
    .bind(ids)
    .bind(numbers)
    .bind(&store.shared.replica)
    .bind(store.shared.lease.as_secs_f64())
    .fetch_all(&store.pool())
    .await
}

/// Interrupts what runs under a claim that could not be renewed for two thirds of its lease.
pub(super) async fn watch(store: Store) {
    let lease = store.shared.lease;
    loop {
        tokio::time::sleep(lease / LOOKS).await;
        let held: Vec<Arc<Claim>> = store.claims().values().cloned().collect();
        held.iter()
            .filter(|claim| claim.age() >= lease * 2 / 3)
            .for_each(|claim| claim.lose("it was not renewed in time"));
    }
}
