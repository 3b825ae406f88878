//! From a signal to the exit: finish what was accepted, refuse the rest, and be gone on time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::{Broken, Controller};
use crate::server::Leaving;

/// Steps still under way this long before the end are interrupted.
const INTERRUPT_BEFORE_END: Duration = Duration::from_secs(4);
/// Everything is flushed this long before the end.
const FLUSH_BEFORE_END: Duration = Duration::from_secs(2);

/// When what happens, from the signal on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Triggers are refused from here on.
    pub refuse: Duration,
    /// Steps under way are interrupted.
    pub interrupt: Duration,
    /// What is not idle by now is left to the next process.
    pub flush: Duration,
}

/// The schedule for a whole length of `timeout`, at most half of which goes by accepting triggers.
#[must_use]
pub fn schedule(timeout: Duration, lame_duck: Duration) -> Schedule {
    Schedule {
        refuse: lame_duck.min(timeout / 2),
        interrupt: timeout.saturating_sub(INTERRUPT_BEFORE_END),
        flush: timeout.saturating_sub(FLUSH_BEFORE_END),
    }
}

/// Carries out the shutdown. `lingers` is false for a person at a terminal, who waits for nobody.
///
/// # Errors
/// The record could not be written.
pub async fn run(
    controller: &Arc<Controller>,
    server: Option<(Leaving, CancellationToken)>,
    lingers: bool,
) -> Result<(), Broken> {
    let begun = Instant::now();
    let times = schedule(controller.config().shutdown(), controller.config().lame_duck());
    let was_ready = controller.terminate().await?;
    if let Some((leaving, _)) = &server {
        leaving.begin();
    }
    if was_ready && lingers && server.is_some() {
        tokio::time::sleep_until(begun + times.refuse).await;
    }
    controller.end_lame_duck();
    if tokio::time::timeout_at(begun + times.interrupt, controller.quiet()).await.is_err() {
        tracing::warn!(holders = ?controller.gate().holders(10), "interrupted: they go on in the next process");
    }
    controller.stop_admitting().await?;
    controller.gate().interrupt();
    if tokio::time::timeout_at(begun + times.flush, controller.quiet()).await.is_err() {
        tracing::warn!(holders = ?controller.gate().holders(10), "still in flight at the end");
    }
    controller.close();
    if let Some(engine) = controller.engine() {
        // Programs that serve tools go with us; one that does not end in time is killed with its pipes.
        let toolbox = engine.toolbox();
        let closed = tokio::time::timeout_at(begun + times.flush, toolbox.close());
        let (_, ()) = tokio::join!(closed, engine.store().close());
    }
    if let Some((_, stop)) = &server {
        stop.cancel();
    }
    tracing::info!(seconds = begun.elapsed().as_secs_f32(), "shut down");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_keeps_its_order_for_every_length() {
        for seconds in 10..=3600 {
            let timeout = Duration::from_secs(seconds);
            let times = schedule(timeout, Duration::from_secs(60));
            assert!(times.refuse < times.interrupt && times.interrupt < times.flush && times.flush < timeout);
        }
        assert_eq!(schedule(Duration::from_secs(30), Duration::from_secs(5)).refuse, Duration::from_secs(5));
    }
}
