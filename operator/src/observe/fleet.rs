//! What is known of freezes that may hold an object, and of the labels by which they select it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::AgentFreeze;
use jiff::Timestamp;

/// The labels of a namespace or an object.
pub type Labels = BTreeMap<String, String>;

/// What is known of freezes that may hold one object.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// Every freeze that was shown last.
    pub freezes: Vec<Arc<AgentFreeze>>,
    /// The UIDs and generations of freezes of which not even the selectors can be read.
    pub undecodable: Vec<(Option<String>, Option<i64>)>,
    /// Freezes that have ended, with this object's place among those that go back to work.
    pub turns: Vec<Turn>,
    /// The labels of its namespace; none while it has not been shown.
    pub namespace: Option<Labels>,
    /// Freezes or namespaces cannot be read.
    pub unknown: Option<Unknown>,
}

/// An object's place among those that go back to work after a freeze.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The freeze as it was.
    pub freeze: Arc<AgentFreeze>,
    /// When it ended.
    pub ended: Timestamp,
    /// How many go back before this one.
    pub rank: usize,
}

/// Why what was shown last cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Since when.
    pub since: Timestamp,
    /// What went wrong.
    pub why: String,
}
