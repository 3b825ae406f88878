//! The one thread that writes. What waits is committed together, without a window: while one commit
//! syncs, the next group gathers.

use std::sync::Arc;

use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::tables::Tables;

/// Operations that may wait; more wait at the sender.
const QUEUE: usize = 1024;
/// Operations in one commit.
const GROUP: usize = 256;

/// Cancelled when a write failed for good: the process must end.
pub type Ended = CancellationToken;

/// Runs inside the transaction and gives back what answers the waiter after the commit.
type Operation = Box<dyn FnOnce(&mut Tables<'_>) -> Answer + Send>;
/// What an operation leaves behind for its waiter.
type Answer = Result<Tell, Failed>;
/// Tells a waiter how its transaction ended.
type Tell = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// An operation that failed, with the way to tell its waiter.
struct Failed {
    error: redb::Error,
    tell: Tell,
}

#[derive(Clone, Debug)]
pub(super) struct Writer {
    operations: mpsc::Sender<Operation>,
    done: CancellationToken,
    closing: CancellationToken,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>, ended: Ended) -> Self {
        let (operations, waiting) = mpsc::channel(QUEUE);
        let (done, closing) = (CancellationToken::new(), CancellationToken::new());
        let guard = done.clone().drop_guard();
        let until = closing.clone();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            write_all(&database, waiting, &ended, &until, &runtime);
            // The file is let go before anybody hears of the end, so that it can be opened again.
            drop(database);
            drop(guard);
        });
        Self { operations, done, closing }
    }

    /// Runs an operation in the next transaction and returns after its commit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel::<Result<T, Error>>();
        let boxed: Operation = Box::new(move |tables| match operation(tables) {
            Ok(value) => Ok(Box::new(move |committed: Result<(), Error>| {
                // A waiter that hung up undoes nothing.
                let _ = sender.send(committed.map(|()| value));
            })),
            Err(error) => {
                let tell = Box::new(move |outcome: Result<(), Error>| {
                    if let Err(error) = outcome {
                        let _ = sender.send(Err(error));
                    }
                });
                Err(Failed { error, tell })
            }
        });
        self.operations.send(boxed).await.map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?
    }

    /// Runs an operation in the next transaction, before every one that comes later, and does not wait
    /// for it. If it fails the store ends.
    pub(super) async fn put(
        &self,
        operation: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), Error> {
        let told_to_nobody = || -> Tell { Box::new(|_| ()) };
        let boxed: Operation = Box::new(move |tables| match operation(tables) {
            Ok(()) => Ok(told_to_nobody()),
            Err(error) => Err(Failed { error, tell: told_to_nobody() }),
        });
        self.operations.send(boxed).await.map_err(|_| Error::Ended)
    }

    /// Ends the thread once all that waits is committed.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.done.cancelled().await;
    }
}

fn write_all(
    database: &Database,
    mut waiting: mpsc::Receiver<Operation>,
    ended: &Ended,
    closing: &CancellationToken,
    runtime: &tokio::runtime::Handle,
) {
    loop {
        let next = runtime.block_on(async {
            tokio::select! {
                biased;
                next = waiting.recv() => next,
                () = closing.cancelled() => None,
            }
        });
        let Some(first) = next else { return };
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(more) = waiting.try_recv()
        {
            group.push(more);
        }
        if let Err(error) = commit(database, group) {
            tracing::error!(%error, "the store failed: the process ends, and the next one reads what was committed");
            ended.cancel();
            return;
        }
    }
}

/// Runs a group in one transaction. One that fails takes the whole group with it: redb poisons a
/// transaction whose operation failed half-way, and no waiter may be told of what is not on disk.
fn commit(database: &Database, group: Vec<Operation>) -> Result<(), Error> {
    let mut waiters: Vec<Tell> = Vec::with_capacity(group.len());
    let outcome = (|| {
        let txn = database.begin_write().map_err(|error| error.to_string())?;
        let mut tables = Tables::of(&txn);
        for operation in group {
            match operation(&mut tables) {
                Ok(waiter) => waiters.push(waiter),
                Err(failed) => {
                    waiters.push(failed.tell);
                    return Err(failed.error.to_string());
                }
            }
        }
        drop(tables);
        txn.commit().map_err(|error| error.to_string())
    })();
    let outcome = outcome.map_err(Error::Broken);
    for waiter in waiters {
        waiter(outcome.clone());
    }
    outcome
}
