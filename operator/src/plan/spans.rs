//! Spans of time as plans reckon them, by a clock that may be put back.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// No pause before another call is longer.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The time from `now` to `then`, or none when it has passed.
pub(super) fn until(now: Timestamp, then: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// The time until what failed is tried again, or none when that is due. What lies further ahead than any pause was
/// noted by a clock that has been put back since.
pub(super) fn until_retry(now: Timestamp, next: Timestamp) -> Option<Duration> {
    until(now, next).filter(|left| *left <= LONGEST_RETRY)
}

/// The time from `then` to `now`; zero when `then` is in the future.
pub(super) fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// Since when one of these conditions has had this status; none if it has another now.
pub(super) fn stands_since<'a>(
    conditions: impl IntoIterator<Item = &'a Condition>,
    kind: &str,
    status: &str,
) -> Option<&'a Time> {
    let standing = conditions.into_iter().find(|condition| condition.type_ == kind && condition.status == status);
    standing.map(|condition| &condition.last_transition_time)
}

/// The API server keeps whole seconds; a finer time would never compare equal to what it gives back.
pub(super) fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
