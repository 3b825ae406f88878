//! The objects as their watch shows them, and those that are gone while their pods are not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::{AgentRuntime, AgentRuntimeSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::observe::Legible;
use crate::observe::decoded::Decoded;
use crate::observe::index::Owner;

/// One object, as far as it can be read.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) runtime: Arc<AgentRuntime>,
    pub(crate) legible: Legible,
}

/// Every object that is to be governed.
#[derive(Debug)]
pub(crate) struct Runtimes {
    state: Mutex<State>,
    synced: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    live: HashMap<Owner, Shown>,
    // A list under way; it replaces `live` as a whole.
    incoming: HashMap<Owner, Shown>,
    /// Deleted, with pods that have not gone: they are governed by what was shown last.
    gone: HashMap<Owner, Shown>,
}

impl Default for Runtimes {
    fn default() -> Self {
        Self { state: Mutex::default(), synced: watch::Sender::new(false) }
    }
}

impl Runtimes {
    /// Takes in an event, and says who is to be looked at for it. `has_pods` says who has pods that have not gone.
    pub(crate) fn take_in(&self, event: Event<Decoded<AgentRuntime>>, has_pods: impl Fn(&Owner) -> bool) -> Vec<Owner> {
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.incoming.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (owner, shown) = state.read(object);
                state.incoming.insert(owner, shown);
                Vec::new()
            }
            Event::InitDone => {
                let incoming = std::mem::take(&mut state.incoming);
                let before = std::mem::replace(&mut state.live, incoming);
                let missing: Vec<_> = before.into_iter().filter(|(owner, _)| !state.live.contains_key(owner)).collect();
                let mut touched: Vec<Owner> = missing.iter().map(|(owner, _)| owner.clone()).collect();
                missing.into_iter().for_each(|(owner, shown)| state.end(owner, shown, &has_pods));
                let again: Vec<Owner> = state.live.keys().cloned().collect();
                again.iter().for_each(|owner| drop(state.gone.remove(owner)));
                touched.extend(again);
                self.synced.send_replace(true);
                touched
            }
            Event::Apply(object) => {
                let (owner, shown) = state.read(object);
                state.gone.remove(&owner);
                state.live.insert(owner.clone(), shown);
                vec![owner]
            }
            Event::Delete(object) => {
                let (owner, shown) = state.read(object);
                state.live.remove(&owner);
                state.end(owner.clone(), shown, &has_pods);
                vec![owner]
            }
        }
    }

    /// One object; also one that is gone while its pods are not.
    pub(crate) fn get(&self, owner: &Owner) -> Option<Shown> {
        let state = self.lock();
        state.live.get(owner).or_else(|| state.gone.get(owner)).cloned()
    }

    /// Every object, also those that are gone while their pods are not.
    pub(crate) fn all(&self) -> Vec<Arc<AgentRuntime>> {
        let state = self.lock();
        state.live.values().chain(state.gone.values()).map(|shown| Arc::clone(&shown.runtime)).collect()
    }

    /// Whether an object is gone, and its pods were not when it went.
    pub(crate) fn is_gone(&self, owner: &Owner) -> bool {
        let state = self.lock();
        !state.live.contains_key(owner) && state.gone.contains_key(owner)
    }

    /// Forgets an object that is gone, as its last pod is.
    pub(crate) fn forget(&self, owner: &Owner) {
        self.lock().gone.remove(owner);
    }

    /// Objects of which a part cannot be decoded.
    pub(crate) fn illegible(&self) -> usize {
        self.lock().live.values().filter(|shown| shown.legible != Legible::Whole).count()
    }

    /// Waits until the first list is complete.
    pub(crate) async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = synced.wait_for(|done| *done).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What cannot be read of it is as it was shown last.
    fn read(&self, object: Decoded<AgentRuntime>) -> (Owner, Shown) {
        let metadata = &object.metadata;
        let owner = Owner {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let (mut runtime, legible) = match (object.object, object.error) {
            (Some(runtime), None) => (runtime, Legible::Whole),
            (Some(runtime), Some(error)) => (runtime, Legible::WithoutPods(error)),
            (None, error) => {
                let known = self.live.get(&owner).filter(|known| known.runtime.uid() == metadata.uid);
                let spec = known.map_or_else(AgentRuntimeSpec::default, |known| known.runtime.spec.clone());
                let mut runtime = AgentRuntime::new(&owner.name, spec);
                runtime.status = known.and_then(|known| known.runtime.status.clone());
                (runtime, Legible::MetadataAlone(error.unwrap_or_default()))
            }
        };
        runtime.metadata.clone_from(&object.metadata);
        // Who owns which field is read by nobody here, and is most of an object.
        runtime.metadata.managed_fields = None;
        (owner, Shown { runtime: Arc::new(runtime), legible })
    }

    /// Keeps what was shown last of an object whose pods have not gone.
    fn end(&mut self, owner: Owner, shown: Shown, has_pods: impl Fn(&Owner) -> bool) {
        if !has_pods(&owner) {
            return;
        }
        let mut runtime = Arc::unwrap_or_clone(shown.runtime);
        runtime.metadata.deletion_timestamp.get_or_insert(Time(Timestamp::now()));
        self.gone.insert(owner, Shown { runtime: Arc::new(runtime), legible: shown.legible });
    }
}
