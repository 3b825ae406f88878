//! What this process wrote and the watch may not have shown yet. It spares writes; nothing depends on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crds::AgentRuntime;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Barrier, BootConfigMap, ChildFacts, ChildKey, Refusal};
use crate::trace::Transition;

/// One object's recent writes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    boot: Option<Written<BootConfigMap>>,
    runtime: Option<Written<Arc<AgentRuntime>>>,
    /// The newest generation that was shown.
    generation: Option<i64>,
    children: HashMap<ChildKey, AppliedChild>,
    seen: HashMap<ChildKey, String>,
    /// The last barrier LIST.
    pub barrier: Option<Barrier>,
    /// The epoch in force, and since when this process knows it.
    pub epoch_since: Option<(i64, Timestamp)>,
    /// When a status was written last.
    pub reported: Option<Timestamp>,
    /// The last epoch whose length was noted.
    pub measured: Option<i64>,
    /// What the API server refused.
    pub refusal: Option<Refusal>,
    /// For the trace of the epoch in force.
    pub transition: Transition,
    /// When the object was last reconciled.
    pub visited: Option<std::time::Instant>,
    /// Reconciles that failed in a row.
    pub failures: u32,
}

/// A write, with the version that it replaced.
#[derive(Clone, Debug)]
struct Written<T> {
    replaced: Option<String>,
    value: T,
}

#[derive(Clone, Debug)]
struct AppliedChild {
    hash: String,
    replaced: Option<String>,
    version: String,
    /// The watch still shows what was replaced.
    pending: bool,
}

/// A child as the watch shows it.
#[derive(Clone, Debug)]
pub struct SeenChild {
    /// The hash in its annotation.
    pub hash: Option<String>,
    /// What changes when somebody else changes it: the generation where there is one, else the resourceVersion.
    pub version: String,
}

impl Memory {
    /// The boot ConfigMap: our own write while the watch still shows what it replaced.
    #[must_use]
    pub fn boot(&mut self, seen: Option<BootConfigMap>) -> Option<BootConfigMap> {
        let shown = seen.as_ref().map(|s| s.resource_version.clone());
        // Once the watch has moved on it is believed for good: what is gone then is really gone.
        self.boot = self.boot.take().filter(|written| written.replaced == shown);
        self.boot.as_ref().map(|written| written.value.clone()).or(seen)
    }

    /// The object: our own status write while the watch still shows what it replaced.
    #[must_use]
    pub fn runtime(&mut self, seen: Arc<AgentRuntime>) -> Arc<AgentRuntime> {
        self.runtime = self.runtime.take().filter(|written| written.replaced == seen.resource_version());
        self.runtime.as_ref().map_or(seen, |written| Arc::clone(&written.value))
    }

    /// Whether a newer spec of the object has been shown than this one.
    #[must_use]
    pub fn is_outdated(&mut self, seen: &AgentRuntime) -> bool {
        self.generation = self.generation.max(seen.metadata.generation);
        self.generation > seen.metadata.generation
    }

    /// The children: one that we applied counts as applied until the watch shows otherwise.
    #[must_use]
    pub fn children(&mut self, seen: &HashMap<ChildKey, SeenChild>) -> BTreeMap<ChildKey, ChildFacts> {
        self.seen = seen.iter().map(|(key, child)| (key.clone(), child.version.clone())).collect();
        for (key, applied) in &mut self.children {
            applied.pending = applied.pending && self.seen.get(key) == applied.replaced.as_ref();
        }
        self.children.retain(|key, applied| applied.pending || seen.contains_key(key));
        let keys = seen.keys().chain(self.children.keys());
        keys.filter_map(|key| Some((key.clone(), self.child(key, seen.get(key))?))).collect()
    }

    fn child(&self, key: &ChildKey, seen: Option<&SeenChild>) -> Option<ChildFacts> {
        match (self.children.get(key), seen) {
            (Some(applied), _) if applied.pending => {
                Some(ChildFacts { hash: Some(applied.hash.clone()), drifted: false, shown: false })
            }
            (Some(applied), Some(seen)) => {
                let drifted = applied.version != seen.version;
                Some(ChildFacts { hash: seen.hash.clone(), drifted, shown: true })
            }
            (None, Some(seen)) => Some(ChildFacts { hash: seen.hash.clone(), drifted: false, shown: true }),
            (_, None) => None,
        }
    }

    /// Notes a write of the boot ConfigMap.
    pub fn wrote_boot(&mut self, replaced: Option<String>, value: BootConfigMap) {
        self.boot = Some(Written { replaced, value });
    }

    /// Notes a status write.
    pub fn wrote_status(&mut self, replaced: Option<String>, value: Arc<AgentRuntime>, now: Timestamp) {
        self.runtime = Some(Written { replaced, value });
        self.reported = Some(now);
    }

    /// Notes a child that was applied.
    pub fn applied(&mut self, key: ChildKey, hash: String, replaced: Option<String>, version: String) {
        // An apply that changed nothing leaves nothing to wait for.
        let pending = replaced.as_ref() != Some(&version);
        self.children.insert(key, AppliedChild { hash, replaced, version, pending });
    }

    /// The version of a child that the watch showed last.
    #[must_use]
    pub fn seen_version(&self, key: &ChildKey) -> Option<String> {
        self.seen.get(key).cloned()
    }

    /// Notes a child that was deleted.
    pub fn deleted(&mut self, key: &ChildKey) {
        self.children.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::ChildKind;

    fn key() -> ChildKey {
        ChildKey { kind: ChildKind::Service, name: "demo".to_owned() }
    }

    fn seen(version: &str) -> HashMap<ChildKey, SeenChild> {
        HashMap::from([(key(), SeenChild { hash: Some("h".to_owned()), version: version.to_owned() })])
    }

    #[test]
    fn a_child_counts_as_applied_until_the_watch_moves_on() {
        let mut memory = Memory::default();
        memory.applied(key(), "h".to_owned(), None, "1".to_owned());
        let before = memory.children(&HashMap::new());
        assert_eq!(before[&key()], ChildFacts { hash: Some("h".to_owned()), drifted: false, shown: false });
        let shown = memory.children(&seen("1"));
        assert_eq!(shown[&key()], ChildFacts { hash: Some("h".to_owned()), drifted: false, shown: true });
        let changed = memory.children(&seen("2"));
        assert!(changed[&key()].drifted, "somebody else wrote it");
    }

    #[test]
    fn a_status_of_its_own_is_believed_until_the_watch_moves_on() {
        let object = |version: &str| {
            let mut object = AgentRuntime::new("demo", crds::AgentRuntimeSpec::default());
            object.metadata.resource_version = Some(version.to_owned());
            Arc::new(object)
        };
        let mut memory = Memory::default();
        memory.wrote_status(Some("1".to_owned()), object("2"), Timestamp::UNIX_EPOCH);
        let mut version = |seen: &str| memory.runtime(object(seen)).resource_version();
        assert_eq!(version("1").as_deref(), Some("2"), "the watch is behind");
        assert_eq!(version("3").as_deref(), Some("3"), "somebody else wrote it");
        assert_eq!(version("1").as_deref(), Some("1"), "what is shown counts from then on");
    }

    #[test]
    fn an_object_is_outdated_once_a_newer_spec_was_shown() {
        let mut memory = Memory::default();
        let mut outdated = |generation: i64| {
            let mut object = AgentRuntime::new("demo", crds::AgentRuntimeSpec::default());
            object.metadata.generation = Some(generation);
            memory.is_outdated(&object)
        };
        assert_eq!([1, 2, 2, 1, 3].map(&mut outdated), [false, false, false, true, false]);
    }

    #[test]
    fn an_apply_that_changes_nothing_is_not_waited_for() {
        let mut memory = Memory::default();
        memory.applied(key(), "h".to_owned(), Some("1".to_owned()), "1".to_owned());
        assert!(memory.children(&seen("1"))[&key()].shown);
    }

    #[test]
    fn a_child_that_somebody_deletes_is_missed() {
        let mut memory = Memory::default();
        memory.applied(key(), "h".to_owned(), None, "1".to_owned());
        assert_eq!(memory.children(&seen("1")).len(), 1);
        assert!(memory.children(&HashMap::new()).is_empty());
    }

    #[test]
    fn a_boot_config_map_that_somebody_deletes_is_missed() {
        let ours = BootConfigMap { resource_version: "1".to_owned(), file: None, hooks: None };
        let mut memory = Memory::default();
        memory.wrote_boot(None, ours.clone());
        assert_eq!(memory.boot(None), Some(ours.clone()), "the watch is behind");
        assert_eq!(memory.boot(Some(ours.clone())), Some(ours));
        assert_eq!(memory.boot(None), None, "it is gone");
    }
}
