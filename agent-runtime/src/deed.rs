//! Work that is done whether or not whoever asked for it stays, and work whose end must be noticed.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Something panicked before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} ended by a fault of the runtime, of which the log tells: see what became of it, and ask again")]
pub struct UndoneError(pub &'static str);

/// Carries something out to its end, though whoever waits for it hangs up: a client that does undoes nothing, and
/// leaves nothing half done.
///
/// # Errors
/// It panicked.
pub(crate) async fn carried_out<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, UndoneError> {
    tokio::spawn(work.in_current_span()).await.map_err(|error| {
        tracing::error!(what, %error, "it panicked");
        UndoneError(what)
    })
}

/// Runs what the process cannot do without. If it panics the process ends, and the next one takes up what it did:
/// one that goes on half-dead does neither.
pub(crate) fn watched<T: Send>(
    what: &'static str,
    broken: CancellationToken,
    work: impl Future<Output = T> + Send + 'static,
) {
    tokio::spawn(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(what, "it panicked: the process ends, and the next one takes up what it did");
            broken.cancel();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_whose_asker_left_is_done_all_the_same() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (may, told) = (Arc::clone(&go), Arc::clone(&done));
        let asked = carried_out("it", async move {
            may.notified().await;
            told.notify_one();
        });
        let left = tokio::spawn(asked);
        tokio::task::yield_now().await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_for_its_asker() {
        let undone: Result<(), UndoneError> = carried_out("it", async { panic!("a fault") }).await;
        assert_eq!(undone, Err(UndoneError("it")));
    }

    #[tokio::test]
    async fn watched_work_that_panics_ends_the_process_and_one_that_ends_does_not() {
        let (broken, ended) = (CancellationToken::new(), Arc::new(Notify::new()));
        let told = Arc::clone(&ended);
        watched("it", broken.clone(), async move { told.notify_one() });
        ended.notified().await;
        assert!(!broken.is_cancelled());
        watched("it", broken.clone(), async { panic!("a fault") as () });
        broken.cancelled().await;
    }
}
