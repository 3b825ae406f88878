//! What is asked of an execution under way, and how it is answered.

use serde_json::Value;
use tokio::sync::oneshot;

use super::plan::Unanswered;

/// Orders that wait for an execution under way.
pub(super) const ORDERS: usize = 16;

/// Tells who ordered whether it was done. One that is dropped was not heard: what it was meant for rests or has ended.
pub(super) type Teller = oneshot::Sender<Result<(), Unanswered>>;

/// What is asked of an execution under way.
#[derive(Debug)]
pub(super) enum Order {
    /// To end it.
    Cancel {
        /// Told once that is on disk.
        told: Teller,
    },
    /// To take a person's answer.
    Answer {
        /// The branch that asked, if it is named.
        branch: Option<String>,
        /// The answer.
        value: Value,
        /// Told whether it was taken.
        told: Teller,
    },
}
