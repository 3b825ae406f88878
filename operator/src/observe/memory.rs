//! What this process wrote and the watch may not have shown yet. It spares writes; nothing depends on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crds::AgentRuntime;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Barrier, BootConfigMap, ChildFacts, ChildKey, Refusal};

/// One object's recent writes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    boot: Option<Written<BootConfigMap>>,
    runtime: Option<Written<Arc<AgentRuntime>>>,
    children: HashMap<ChildKey, AppliedChild>,
    seen: HashMap<ChildKey, String>,
    /// The last barrier LIST.
    pub barrier: Option<Barrier>,
    /// The epoch in force, and since when this process knows it.
    pub epoch_since: Option<(i64, Timestamp)>,
    /// What the API server refused.
    pub refusal: Option<Refusal>,
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
    pub fn boot(&self, seen: Option<BootConfigMap>) -> Option<BootConfigMap> {
        match &self.boot {
            Some(written) if written.replaced == seen.as_ref().map(|s| s.resource_version.clone()) => {
                Some(written.value.clone())
            }
            Some(_) | None => seen,
        }
    }

    /// The object: our own status write while the watch still shows what it replaced.
    #[must_use]
    pub fn runtime(&self, seen: Arc<AgentRuntime>) -> Arc<AgentRuntime> {
        match &self.runtime {
            Some(written) if written.replaced == seen.resource_version() => Arc::clone(&written.value),
            Some(_) | None => seen,
        }
    }

    /// The children: one that we applied counts as applied until the watch shows otherwise.
    #[must_use]
    pub fn children(&mut self, seen: &HashMap<ChildKey, SeenChild>) -> BTreeMap<ChildKey, ChildFacts> {
        self.seen = seen.iter().map(|(key, child)| (key.clone(), child.version.clone())).collect();
        let keys = seen.keys().chain(self.children.keys());
        keys.filter_map(|key| Some((key.clone(), self.child(key, seen.get(key))?))).collect()
    }

    fn child(&self, key: &ChildKey, seen: Option<&SeenChild>) -> Option<ChildFacts> {
        let version = seen.map(|s| s.version.clone());
        match (self.children.get(key), seen) {
            (Some(applied), _) if applied.replaced == version => {
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
    pub fn wrote_status(&mut self, replaced: Option<String>, value: Arc<AgentRuntime>) {
        self.runtime = Some(Written { replaced, value });
    }

    /// Notes a child that was applied.
    pub fn applied(&mut self, key: ChildKey, hash: String, replaced: Option<String>, version: String) {
        self.children.insert(key, AppliedChild { hash, replaced, version });
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
