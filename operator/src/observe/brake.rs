//! What is known of brakes: those that this process has made for an object, and how each went in a pod.

use std::sync::Arc;

use jiff::Timestamp;
use lifecycle::{Desired, DrainMode};

/// Since when an object is to be held, and the brakes made for it. Another onset has others: a name that was released is
/// never given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onset {
    /// When it was asked for. Of what stood in the boot file when this process saw it first, the beginning of all time.
    pub begun: Timestamp,
    /// Since when it is as severe as it is now.
    pub since: Timestamp,
    /// The state that is asked for.
    pub state: Desired,
    /// How it treats executions in flight.
    pub mode: DrainMode,
    /// The brakes made for it, each more severe than the one before.
    pub steps: Vec<Step>,
}

/// A brake that this process has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is released by.
    pub id: String,
    /// What it holds pods in.
    pub state: Desired,
    /// How it treats executions in flight.
    pub mode: DrainMode,
}

/// Tells the brakes of this process, and of this look at an object, from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// Of the process: random, so that no two leaders give the same name.
    pub process: Arc<str>,
    /// Of the look.
    pub look: u64,
}

impl Default for Nonce {
    fn default() -> Self {
        Self { process: "0".into(), look: 0 }
    }
}

/// How the last brake went in one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrakeOutcome {
    /// Which brake.
    pub id: String,
    /// In which container.
    pub container: Option<Arc<str>>,
    /// What the pod answered.
    pub reply: BrakeReply,
    /// How often it failed in a row.
    pub failures: u32,
    /// Not called again before this; of one that holds, when every call from before it has ended.
    pub next_attempt: Timestamp,
}

/// What a pod answered to a brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeReply {
    /// It holds by it.
    Held,
    /// Its image knows no brakes.
    Unknown,
    /// It has accepted a higher epoch, which its status tells.
    Stale,
    /// It has not set it, or nothing is known of that.
    Failed,
}
