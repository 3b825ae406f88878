//! The store of several replicas: one PostgreSQL database. Who runs what is settled there: an execution is
//! claimed under a lease on the database's clock, and every write of it names its claim.

mod accept;
mod claims;
mod connect;
mod errors;
mod orders;
mod read;
mod rows;
mod tell;
mod work;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::Error;
use claims::Claim;
pub use claims::{Claimed, Seized};
pub use orders::{Asked, Reply};
pub use tell::Heard;
use tell::Told;
pub use work::Waiting;

/// One try of anything in the database; the server gives up on a statement before that.
const TRY: Duration = Duration::from_secs(10);
/// A request that the database does not take is tried again for this long.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How a replica uses its database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://user:password@host/database`.
    pub url: String,
    /// UID of the AgentRuntime; empty when nothing manages this runtime.
    pub runtime_uid: String,
    /// How long a claim holds without being renewed.
    pub lease: Duration,
}

/// A handle to the database.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Replaced when connections hang.
    pool: watch::Sender<PgPool>,
    options: sqlx::postgres::PgConnectOptions,
    runtime_uid: String,
    lease: Duration,
    /// What this replica signs its claims with; another in each process.
    replica: String,
    /// What this replica runs, by execution.
    claims: Mutex<HashMap<String, Arc<Claim>>>,
    counts: Counts,
    told: tokio::sync::mpsc::Sender<Told>,
    heard: broadcast::Sender<Heard>,
    /// There may be something to claim.
    work: Notify,
    /// Something may be asked of what runs here.
    asked: Notify,
    ended: CancellationToken,
}

/// What was counted last.
#[derive(Debug, Default)]
struct Counts {
    total: AtomicI64,
    failed: AtomicI64,
    healthy: AtomicBool,
    waiting: RwLock<HashMap<String, Waiting>>,
}

impl Store {
    /// Connects, brings the tables up to date, and begins to renew leases.
    ///
    /// # Errors
    /// The database is out of reach, or its tables are not this version's.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        let options = connect::options(&settings.url)?;
        let pool = connect::pool(options.clone());
        connect::migrate(&pool).await?;
        let (told, tells) = tokio::sync::mpsc::channel(tell::AHEAD);
        let shared = Shared {
            pool: watch::Sender::new(pool),
            options,
            runtime_uid: settings.runtime_uid,
            lease: settings.lease,
            replica: uuid::Uuid::now_v7().simple().to_string(),
            claims: Mutex::default(),
            counts: Counts { healthy: AtomicBool::new(true), ..Counts::default() },
            told,
            heard: broadcast::Sender::new(tell::KEPT),
            work: Notify::new(),
            asked: Notify::new(),
            ended: CancellationToken::new(),
        };
        let store = Self { shared: Arc::new(shared) };
        store.keep_control_row().await?;
        store.count().await?;
        let ended = store.shared.ended.clone();
        let tasks: [futures::future::BoxFuture<'static, ()>; 5] = [
            Box::pin(claims::renew(store.clone())),
            Box::pin(claims::watch(store.clone())),
            Box::pin(tell::listen(store.clone())),
            Box::pin(tell::tell(store.clone(), tells)),
            Box::pin(work::count(store.clone())),
        ];
        for task in tasks {
            let ended = ended.clone();
            tokio::spawn(async move { ended.run_until_cancelled(task).await });
        }
        Ok(store)
    }

    /// Executions accepted by all replicas.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.shared.counts.total.load(Ordering::Relaxed)
    }

    /// Executions failed in all replicas.
    #[must_use]
    pub fn failed(&self) -> i64 {
        self.shared.counts.failed.load(Ordering::Relaxed)
    }

    /// Whether the database answered lately.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.counts.healthy.load(Ordering::Relaxed)
    }

    /// Closes the connections. What is still under way ends with its lease.
    pub async fn close(&self) {
        self.shared.ended.cancel();
        let pool = self.pool();
        let _ = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    }

    /// Returns when there may be something to claim.
    pub async fn work(&self) {
        self.shared.work.notified().await;
    }

    /// Returns when something may be asked of what runs here.
    pub async fn asked(&self) {
        self.shared.asked.notified().await;
    }

    fn pool(&self) -> PgPool {
        self.shared.pool.borrow().clone()
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<String, Arc<Claim>>> {
        self.shared.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One try, which ends in time whatever the network does.
    async fn once<T>(&self, deed: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let outcome = match tokio::time::timeout(TRY, deed).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Its connections may lead nowhere any more: others are made.
                self.shared.pool.send_replace(connect::pool(self.shared.options.clone()));
                Err(sqlx::Error::PoolTimedOut)
            }
        };
        let answered = !outcome.as_ref().is_err_and(errors::passes);
        self.shared.counts.healthy.store(answered, Ordering::Relaxed);
        outcome
    }

    /// Tries until it is done, has failed for good, or `patience` has run out. What is done twice must be as if it
    /// were done once: an answer may have been lost.
    async fn until_done<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        patience: Duration,
        deed: impl Fn() -> F,
    ) -> Result<T, Error> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.once(deed()).await {
                Ok(done) => return Ok(done),
                Err(error) if errors::passes(&error) && begun.elapsed() < patience => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(errors::of(&error)),
            }
        }
    }
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
