//! A leader: rules 9 to 13 as pure functions of what its watches, the pod's answers and the store have shown. Which of
//! two is deposed makes no difference to what they do.

use lifecycle::Desired;

use crate::store::{File, Id, View};
use crate::world::Broken;

/// The brakes that a pod lists, each with its epoch.
pub(crate) type Listed = Vec<(Id, i64)>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Leader {
    /// What its watches have shown.
    pub(crate) seen: View,
    /// The nonce of what it brakes for, once it has sent a brake.
    pub(crate) nonce: Option<u8>,
    /// What it has asked first of the two that it plans from: the pod, the store.
    pub(crate) asked: (Option<Listed>, Option<View>),
    /// The file that it is about to write in place of the newest.
    pub(crate) plan: Option<File>,
}

/// Which watch catches up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    Freezes,
    Object,
    Namespace,
}

impl Leader {
    pub(crate) fn new(seen: View) -> Self {
        Self { seen, nonce: None, asked: (None, None), plan: None }
    }

    pub(crate) fn watch(&mut self, watch: Watch, store: &View) {
        let before = self.reason();
        match watch {
            Watch::Freezes => self.seen.freezes.clone_from(&store.freezes),
            Watch::Object => self.seen.object = store.object,
            Watch::Namespace => self.seen.namespace = store.namespace,
        }
        // Rule 2: new for each onset.
        if self.reason() != before {
            self.nonce = None;
        }
    }

    /// What it brakes for.
    pub(crate) fn reason(&self) -> Option<(u8, u8)> {
        self.seen.standing().next().map(|freeze| (freeze.uid, freeze.generation))
    }

    /// The brake that it has sent for it.
    pub(crate) fn sent(&self) -> Option<Id> {
        let (uid, generation) = self.reason()?;
        self.nonce.map(|nonce| Id { uid, generation, nonce })
    }

    /// The file that it wants in place of the newest; none if that will do, or if it may not. `proof` is what the store
    /// has said.
    pub(crate) fn plan(&self, newest: &File, listed: &Listed, proof: Option<&View>, broken: Broken) -> Option<File> {
        let state = self.seen.demand();
        // Rule 12.
        let is_confirmed = broken == Broken::Confirm || proof.is_some_and(|proof| proof.demand() <= state);
        if state < newest.state && !is_confirmed {
            return None;
        }
        let gone = self.gone(state, listed, proof, broken);
        // What the file names stays named: as long as any pod might list it, which is longest.
        let more = gone.iter().map(|(id, _)| *id).filter(|id| !newest.releases.contains(id));
        let mut releases: Vec<Id> = newest.releases.iter().copied().chain(more).collect();
        releases.sort();
        // Rule 13: raised for a brake that holds more than the file asks for, and that its epoch does not exceed.
        let is_stuck = state == Desired::Running && gone.iter().any(|(_, epoch)| *epoch >= newest.epoch);
        let is_raised = state != newest.state || is_stuck;
        let epoch = newest.epoch + i64::from(is_raised);
        (is_raised || releases.len() > newest.releases.len()).then_some(File { epoch, state, releases })
    }

    /// Rules 11 and 12: which brakes a file with this state may name.
    fn gone(&self, state: Desired, listed: &Listed, proof: Option<&View>, broken: Broken) -> Listed {
        let proof = if broken == Broken::Proof { Some(&self.seen) } else { proof };
        let Some(proof) = proof.filter(|proof| broken == Broken::Confirm || proof.demand() <= state) else {
            return Vec::new();
        };
        listed.iter().copied().filter(|(id, _)| proof.is_gone(*id)).collect()
    }
}
