//! What a watch has shown, by AgentRuntime: the pods and children of one object are found without a scan.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::AgentRuntime;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use super::PodFacts;

/// The label that names the AgentRuntime of a child or pod.
pub const RUNTIME_LABEL: &str = "agents.hive.dev/runtime";

/// The namespace and name of an AgentRuntime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Owner {
    /// The name of an AgentRuntime itself.
    #[must_use]
    pub fn of(runtime: &AgentRuntime) -> Self {
        Self { namespace: runtime.namespace().unwrap_or_default(), name: runtime.name_any() }
    }
}

/// What is found by its name, and told by its UID from another of that name.
pub trait Named {
    /// The name in its namespace.
    fn name(&self) -> &str;
    /// The UID.
    fn uid(&self) -> &str;
}

impl<K: Resource> Named for K {
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }
}

impl Named for PodFacts {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }
}

/// What an event changed.
#[derive(Debug)]
pub struct Change<V> {
    /// Whose objects are others now.
    pub touched: Vec<Owner>,
    /// What has left its owner: deleted, relabelled, or missing in a list that was taken anew.
    pub gone: Vec<Arc<V>>,
}

impl<V> Default for Change<V> {
    fn default() -> Self {
        Self { touched: Vec::new(), gone: Vec::new() }
    }
}

/// What is kept of the objects of one kind, by owner and name.
#[derive(Debug)]
pub struct Index<V> {
    state: Mutex<State<V>>,
    synced: watch::Sender<bool>,
    hasher: RandomState,
}

#[derive(Debug)]
struct State<V> {
    live: Shown<V>,
    // A list under way; it replaces `live` as a whole, so that what vanished meanwhile vanishes here.
    incoming: Shown<V>,
}

/// Objects by owner, and owners by object: a label that is changed takes an object from one owner to another, or away.
#[derive(Debug)]
struct Shown<V> {
    /// In the order of their names, which each bears itself: of thousands of pods a second copy of the name would be a
    /// good part of what is kept.
    objects: HashMap<Arc<Owner>, Vec<Arc<V>>>,
    /// By the hash of namespace and name, for the same reason.
    owners: HashMap<u64, Arc<Owner>>,
}

impl<V> Default for Shown<V> {
    fn default() -> Self {
        Self { objects: HashMap::new(), owners: HashMap::new() }
    }
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        let state = State { live: Shown::default(), incoming: Shown::default() };
        Self { state: Mutex::new(state), synced: watch::Sender::new(false), hasher: RandomState::new() }
    }
}

impl<V: Named> Index<V> {
    /// Takes in one event, and keeps of its object what `keep` makes of it.
    pub fn take_in<K>(&self, event: Event<K>, keep: impl Fn(&Owner, K) -> V) -> Change<V>
    where
        K: Resource<DynamicType = ()>,
    {
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.incoming = Shown::default();
                Change::default()
            }
            Event::InitApply(object) => {
                state.incoming.put(self.key(&object), object, keep);
                Change::default()
            }
            Event::InitDone => {
                let incoming = std::mem::take(&mut state.incoming);
                let before = std::mem::replace(&mut state.live, incoming);
                self.synced.send_replace(true);
                before.replaced_by(&state.live)
            }
            Event::Apply(object) => state.live.put(self.key(&object), object, keep),
            Event::Delete(object) => state.live.remove(self.key(&object), object.name()),
        }
    }

    fn key(&self, object: &impl Resource) -> u64 {
        let meta = object.meta();
        self.hasher.hash_one((meta.namespace.as_deref(), meta.name.as_deref()))
    }

    /// All objects of an owner.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Vec<Arc<V>> {
        self.lock().live.objects.get(owner).cloned().unwrap_or_default()
    }

    /// Whether an owner has this one.
    #[must_use]
    pub fn has(&self, owner: &Owner, name: &str, uid: &str) -> bool {
        self.lock().live.has(owner, name, uid)
    }

    /// Everybody who owns one.
    #[must_use]
    pub fn owners(&self) -> Vec<Owner> {
        self.lock().live.objects.keys().map(|owner| owner.as_ref().clone()).collect()
    }

    /// Whether the first list is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = synced.wait_for(|done| *done).await;
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Named> Shown<V> {
    fn has(&self, owner: &Owner, name: &str, uid: &str) -> bool {
        let objects = self.objects.get(owner).map(Vec::as_slice).unwrap_or_default();
        let found = place(objects, name).ok().and_then(|place| objects.get(place));
        found.is_some_and(|object| object.uid() == uid)
    }

    /// Puts what is kept of an object where its label says, and takes it from where it was.
    fn put<K>(&mut self, key: u64, object: K, keep: impl Fn(&Owner, K) -> V) -> Change<V>
    where
        K: Resource<DynamicType = ()>,
    {
        let owner = owner_of(&object);
        let moves = self.owners.get(&key).is_some_and(|before| Some(before.as_ref()) != owner.as_ref());
        let mut change = if moves { self.remove(key, object.name()) } else { Change::default() };
        let Some(owner) = owner else { return change };
        let kept = Arc::new(keep(&owner, object));
        let shared = self.objects.get_key_value(&owner).map(|(owner, _)| Arc::clone(owner));
        let shared = shared.unwrap_or_else(|| Arc::new(owner.clone()));
        let objects = self.objects.entry(Arc::clone(&shared)).or_default();
        match place(objects, kept.name()) {
            Ok(place) => {
                if let Some(now) = objects.get_mut(place) {
                    let before = std::mem::replace(now, kept);
                    change.gone.extend(Some(before).filter(|before| before.uid() != now.uid()));
                }
            }
            Err(place) => objects.insert(place, kept),
        }
        self.owners.insert(key, shared);
        change.touched.push(owner);
        change
    }

    /// Takes an object away.
    fn remove(&mut self, key: u64, name: &str) -> Change<V> {
        let Some(owner) = self.owners.remove(&key) else { return Change::default() };
        let objects = self.objects.get_mut(&owner);
        let found = objects.and_then(|objects| Some(objects.remove(place(objects, name).ok()?)));
        if self.objects.get(&owner).is_some_and(Vec::is_empty) {
            self.objects.remove(&owner);
        }
        Change { touched: vec![owner.as_ref().clone()], gone: found.into_iter().collect() }
    }

    /// Everybody who has or had one is touched: a list does not say what in it is new.
    fn replaced_by(self, next: &Self) -> Change<V> {
        let touched: HashSet<&Arc<Owner>> = self.objects.keys().chain(next.objects.keys()).collect();
        let touched = touched.into_iter().map(|owner| owner.as_ref().clone()).collect();
        let gone = self.objects.into_iter().flat_map(|(owner, objects)| {
            let left = move |object: &Arc<V>| !next.has(&owner, object.name(), object.uid());
            objects.into_iter().filter(left)
        });
        Change { touched, gone: gone.collect() }
    }
}

/// Where the object of a name is, or where it would be.
fn place<V: Named>(objects: &[Arc<V>], name: &str) -> Result<usize, usize> {
    objects.binary_search_by(|object| object.name().cmp(name))
}

fn owner_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<Owner> {
    let name = object.labels().get(RUNTIME_LABEL)?.clone();
    Some(Owner { namespace: object.namespace()?, name })
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
