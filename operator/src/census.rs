//! The census of the fleet for the metrics: how the statuses and the pods' answers stand at one moment.

use std::sync::Arc;
use std::time::Duration;

use crds::{AgentRuntime, DesiredState, RuntimeState};
use jiff::Timestamp;

use crate::telemetry::Census;

/// Counts. `oldest` is when the oldest answer came, `waiting` how many owners wait to be looked at, `illegible` how many
/// objects cannot be decoded as a whole.
pub(crate) fn take(
    runtimes: &[Arc<AgentRuntime>],
    oldest: Option<Timestamp>,
    waiting: usize,
    illegible: usize,
    now: Timestamp,
) -> Census {
    let mut census = Census { waiting, illegible, ..Census::default() };
    for status in runtimes.iter().filter_map(|runtime| runtime.status.as_ref()) {
        let desired = status.desired_state.map_or("unknown", DesiredState::as_str);
        census.runtimes.push((desired, status.state.map_or("unknown", RuntimeState::as_str)));
        census.unacknowledged += i64::from(status.replicas.saturating_sub(status.acknowledged_replicas).max(0));
        let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        census.diverged += usize::from(!ready);
    }
    census.oldest_answer =
        oldest.and_then(|oldest| Duration::try_from(now.duration_since(oldest)).ok()).unwrap_or_default();
    census
}

#[cfg(test)]
mod tests {
    use crds::{AgentRuntimeSpec, AgentRuntimeStatus};

    use super::*;

    #[test]
    fn what_is_not_acknowledged_and_not_reached_is_counted() {
        let mut runtime = AgentRuntime::new("demo", AgentRuntimeSpec::default());
        runtime.status = Some(AgentRuntimeStatus {
            desired_state: Some(DesiredState::Paused),
            state: Some(RuntimeState::Pausing),
            replicas: 3,
            acknowledged_replicas: 1,
            ..AgentRuntimeStatus::default()
        });
        let unvisited = AgentRuntime::new("new", AgentRuntimeSpec::default());
        let now = Timestamp::from_second(100).unwrap();
        let census = take(&[Arc::new(runtime), Arc::new(unvisited)], Timestamp::from_second(60).ok(), 7, 2, now);
        let expected = Census {
            runtimes: vec![("paused", "pausing")],
            diverged: 1,
            unacknowledged: 2,
            oldest_answer: Duration::from_secs(40),
            waiting: 7,
            illegible: 2,
        };
        assert_eq!(census, expected);
    }
}
