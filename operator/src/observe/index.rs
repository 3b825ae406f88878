//! What a watch has shown, by AgentRuntime: the pods and children of one object are found without a scan.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::AgentRuntime;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

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

type Map<V> = HashMap<Owner, HashMap<String, Arc<V>>>;

/// What is kept of the objects of one kind, by owner and name.
#[derive(Debug)]
pub struct Index<V> {
    state: Mutex<State<V>>,
    synced: watch::Sender<bool>,
}

#[derive(Debug)]
struct State<V> {
    live: Map<V>,
    // A list under way; it replaces `live` as a whole, so that what vanished meanwhile vanishes here.
    incoming: Map<V>,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        let state = State { live: HashMap::new(), incoming: HashMap::new() };
        Self { state: Mutex::new(state), synced: watch::Sender::new(false) }
    }
}

impl<V> Index<V> {
    /// Takes in one event, keeps of its object what `keep` makes of it, and says whose objects changed.
    pub fn take_in<K>(&self, event: Event<K>, keep: impl Fn(&Owner, K) -> V) -> Vec<Owner>
    where
        K: Resource<DynamicType = ()>,
    {
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.incoming.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                put(&mut state.incoming, object, keep);
                Vec::new()
            }
            Event::InitDone => {
                let incoming = std::mem::take(&mut state.incoming);
                let before = std::mem::replace(&mut state.live, incoming);
                let touched: HashSet<Owner> = before.into_keys().chain(state.live.keys().cloned()).collect();
                self.synced.send_replace(true);
                touched.into_iter().collect()
            }
            Event::Apply(object) => put(&mut state.live, object, keep).into_iter().collect(),
            Event::Delete(object) => {
                let owner = owner_of(&object);
                if let Some(owner) = &owner {
                    let empty = state.live.get_mut(owner).is_some_and(|objects| {
                        objects.remove(&object.name_any());
                        objects.is_empty()
                    });
                    if empty {
                        state.live.remove(owner);
                    }
                }
                owner.into_iter().collect()
            }
        }
    }

    /// All objects of an owner.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Vec<Arc<V>> {
        self.lock().live.get(owner).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// Everybody who owns one.
    #[must_use]
    pub fn owners(&self) -> Vec<Owner> {
        self.lock().live.keys().cloned().collect()
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

fn put<K, V>(map: &mut Map<V>, object: K, keep: impl Fn(&Owner, K) -> V) -> Option<Owner>
where
    K: Resource<DynamicType = ()>,
{
    let owner = owner_of(&object)?;
    let name = object.name_any();
    let kept = keep(&owner, object);
    map.entry(owner.clone()).or_default().insert(name, Arc::new(kept));
    Some(owner)
}

fn owner_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<Owner> {
    let name = object.labels().get(RUNTIME_LABEL)?.clone();
    Some(Owner { namespace: object.namespace()?, name })
}
