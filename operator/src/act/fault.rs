//! What a failed call says, as plain data for plans.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Error, backoff};
use crate::observe::{Cause, Fault};

/// The first pause after a failure of a write, and the longest.
const SAFETY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const CHILDREN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(20));

impl Error {
    /// What came back.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } => {
                Cause::Refused { code: status.code, message: status.message.clone() }
            }
            Self::NameTaken { whose, .. } => Cause::NameTaken { message: whose.clone() },
            Self::Conflict { .. }
            | Self::NotEnded { .. }
            | Self::Deposed
            | Self::Api { .. }
            | Self::Timeout { .. }
            | Self::Key { .. }
            | Self::Manifest { .. } => Cause::NoAnswer { message: self.to_string() },
        }
    }
}

/// Notes one more failure of a step that brakes and statuses wait for.
pub(crate) fn note_safety(fault: &mut Option<Fault>, of: &str, error: &Error, begun: Timestamp) {
    *fault = Some(Fault::again(fault.take(), of, error.cause(), (begun, Timestamp::now()), |failures| {
        pause(SAFETY, failures)
    }));
}

/// The fault of a step that only children need, after one more failure.
pub(crate) fn of_child(before: Option<Fault>, of: &str, error: &Error, begun: Timestamp) -> Fault {
    Fault::again(before, of, error.cause(), (begun, Timestamp::now()), |failures| pause(CHILDREN, failures))
}

fn pause((first, most): (Duration, Duration), failures: u32) -> SignedDuration {
    let pause = backoff(first, most, failures.saturating_sub(1));
    SignedDuration::try_from(pause).unwrap_or(SignedDuration::from_secs(20))
}
