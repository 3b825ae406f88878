//! What the API server holds, and every picture of it: freezes, labels, and boot files.

use lifecycle::{BootFile, Desired};

use crate::pods::RUNTIME;

/// The label's values as bits, so that a selector is a set of them.
pub(crate) const RED: u8 = 1;
const BLUE: u8 = 2;

/// Which brake: `<uid>.<generation>.<nonce>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) uid: u8,
    pub(crate) generation: u8,
    pub(crate) nonce: u8,
}

impl Id {
    pub(crate) fn of(word: &str) -> Self {
        let mut parts = word.split('.').map(|part| part.parse().unwrap());
        Self { uid: parts.next().unwrap(), generation: parts.next().unwrap(), nonce: parts.next().unwrap() }
    }

    pub(crate) fn word(self) -> String {
        format!("{}.{}.{}", self.uid, self.generation, self.nonce)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Freeze {
    pub(crate) uid: u8,
    pub(crate) generation: u8,
    /// The labels that it selects.
    pub(crate) selector: u8,
}

/// Freezes and labels: as they are, as a watch has shown them, or as a LIST found them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct View {
    pub(crate) freezes: Vec<Freeze>,
    /// The label of the object.
    pub(crate) object: u8,
    /// Whether the label of the namespace is one that freezes select.
    pub(crate) namespace: bool,
}

impl View {
    pub(crate) fn standing(&self) -> impl Iterator<Item = &Freeze> {
        self.freezes.iter().filter(|freeze| self.namespace && freeze.selector & self.object != 0)
    }

    pub(crate) fn demand(&self) -> Desired {
        if self.standing().next().is_some() { Desired::Paused } else { Desired::Running }
    }

    /// Whether the very demand that a brake was set for is there no longer.
    pub(crate) fn is_gone(&self, id: Id) -> bool {
        !self.standing().any(|freeze| (freeze.uid, freeze.generation) == (id.uid, id.generation))
    }
}

/// What people do to freezes and labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Create,
    Delete,
    /// Selects one more label, then the other alone, then the first again.
    Edit,
    RelabelObject,
    RelabelNamespace,
}

impl Event {
    /// What it makes of the store; none where it cannot happen. `uid` is of a freeze that is created, and there are no
    /// more than `freezes` at once.
    pub(crate) fn happen(self, store: &View, uid: u8, freezes: usize) -> Option<View> {
        let mut next = store.clone();
        match self {
            Self::Create if store.freezes.len() < freezes => {
                next.freezes.push(Freeze { uid, generation: 1, selector: RED });
            }
            Self::Create => return None,
            Self::Delete => next.freezes = store.freezes.get(1..)?.to_vec(),
            Self::Edit => {
                let freeze = next.freezes.first_mut()?;
                freeze.generation += 1;
                freeze.selector = match freeze.selector {
                    RED => RED | BLUE,
                    BLUE => RED,
                    _ => BLUE,
                };
            }
            Self::RelabelObject => next.object = (RED | BLUE) - store.object,
            Self::RelabelNamespace => next.namespace = !store.namespace,
        }
        Some(next)
    }
}

/// The boot file. Its resourceVersion is its place in the history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct File {
    pub(crate) epoch: i64,
    pub(crate) state: Desired,
    pub(crate) releases: Vec<Id>,
}

impl File {
    pub(crate) fn boot(&self) -> BootFile {
        BootFile {
            runtime_uid: RUNTIME.to_owned(),
            epoch: self.epoch,
            state: self.state,
            releases: self.names(),
            ..BootFile::default()
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.releases.iter().map(|id| id.word()).collect()
    }
}
