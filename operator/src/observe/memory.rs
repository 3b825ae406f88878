//! What this process wrote and the watch may not have shown yet. It spares writes; nothing depends on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{AgentRuntime, ConfigMapKey};
use jiff::Timestamp;
use kube::ResourceExt as _;
use lifecycle::brake::MAX_RELEASES;

use super::{AgentText, Barrier, BootConfigMap, ChildFacts, ChildKey, DeploymentFacts, Faults, Onset};
use crate::trace::Transition;

/// How long a watch may be behind a write: after that it is believed, whatever has become of the store's versions.
const BEHIND: Duration = Duration::from_secs(60);

/// One object's recent writes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    boot: Option<Written<BootConfigMap>>,
    runtime: Option<Written<Arc<AgentRuntime>>>,
    /// The newest generation that was shown.
    generation: Option<i64>,
    children: HashMap<ChildKey, AppliedChild>,
    seen: HashMap<ChildKey, SeenChild>,
    /// The last barrier LIST.
    pub barrier: Option<Barrier>,
    /// The epoch in force, and since when this process knows it.
    pub epoch_since: Option<(i64, Timestamp)>,
    /// When the object was looked at for the first time.
    pub first_seen: Option<Timestamp>,
    /// When a status was written last.
    pub reported: Option<Timestamp>,
    /// Since when the object is to be held, and the brakes made for it.
    pub onset: Option<Onset>,
    /// The names of the last brakes made for it, until a boot file lets go of them.
    pub made: Vec<String>,
    /// The last epoch whose length was noted.
    pub measured: Option<i64>,
    /// What fails.
    pub faults: Faults,
    /// The pod template that the API server has taken as a trial.
    pub tried: Option<String>,
    /// The definition that `spec.agent.configMapRef` names, as it was read last, and when.
    pub agent: Option<AgentRead>,
    /// For the trace of the epoch in force.
    pub transition: Transition,
    /// When the object was last reconciled.
    pub visited: Option<Instant>,
    /// The number of pods that a change was tried for whose outcome is not known.
    pub scaling: Option<i32>,
    /// Visits of the safety lane that failed in a row.
    pub failures: u32,
}

/// A definition in a ConfigMap, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRead {
    /// Where.
    pub from: ConfigMapKey,
    /// For which generation of the spec, so that one that is new is read again.
    pub generation: Option<i64>,
    /// What stood there.
    pub text: AgentText,
    /// When.
    pub at: Timestamp,
}

/// A write that counts while the watch shows a version before it: what it replaced, and what that replaced if it was a
/// write of this process too. What the watch shows else came after it, be it while the answer was on its way.
#[derive(Clone, Debug)]
struct Written<T> {
    before: Vec<Option<String>>,
    value: T,
}

/// So many writes in a row are believed before the watch has shown the first.
const IN_A_ROW: usize = 16;

impl<T> Written<T> {
    fn of(value: T, replaced: Option<String>, last: Option<Self>, version: impl Fn(&T) -> Option<String>) -> Self {
        let last = last.filter(|last| version(&last.value) == replaced && last.before.len() < IN_A_ROW);
        let mut before = last.map(|last| last.before).unwrap_or_default();
        before.push(replaced);
        Self { before, value }
    }
}

#[derive(Clone, Debug)]
struct AppliedChild {
    hash: String,
    /// What the watch showed when it was written.
    shown: Option<String>,
    version: String,
    resource_version: String,
    uid: Option<String>,
    /// The number of pods, of a Deployment.
    replicas: Option<i32>,
    /// When it was written.
    written: Instant,
    /// The watch has shown it since.
    caught_up: bool,
    /// The watch still shows what was before.
    pending: bool,
}

/// A child as the watch shows it.
#[derive(Clone, Debug, Default)]
pub struct SeenChild {
    /// Its UID.
    pub uid: Option<String>,
    /// The hash in its annotation.
    pub hash: Option<String>,
    /// Somebody else has written a part of it that the operator describes, as far as its fields tell who owns them.
    pub edited: bool,
    /// What changes when somebody else changes it: the generation where there is one, else the resourceVersion.
    pub version: String,
    /// What changes with each write.
    pub resource_version: String,
}

impl Memory {
    /// The boot ConfigMap: our own write while the watch still shows what it replaced.
    #[must_use]
    pub fn boot(&mut self, seen: Option<BootConfigMap>) -> Option<BootConfigMap> {
        // Once the watch has moved on it is believed for good: what is gone then is really gone.
        let shown = seen.as_ref().map(|seen| seen.resource_version.clone());
        self.boot = self.boot.take().filter(|written| written.before.contains(&shown));
        self.boot.as_ref().map(|written| written.value.clone()).or(seen)
    }

    /// The same, for somebody who only looks.
    #[must_use]
    pub fn newest_boot(&self, seen: Option<BootConfigMap>) -> Option<BootConfigMap> {
        let shown = seen.as_ref().map(|s| s.resource_version.clone());
        let written = self.boot.as_ref().filter(|written| written.before.contains(&shown));
        written.map(|written| written.value.clone()).or(seen)
    }

    /// The object: our own status write while the watch still shows what it replaced.
    #[must_use]
    pub fn runtime(&mut self, seen: Arc<AgentRuntime>) -> Arc<AgentRuntime> {
        let shown = seen.resource_version();
        self.runtime = self.runtime.take().filter(|written| written.before.contains(&shown));
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
        self.seen.clone_from(seen);
        for (key, applied) in &mut self.children {
            let shown = seen.get(key).map(|child| child.resource_version.as_str());
            // A watch that is out of order may go back once more.
            let gone = shown.is_none() && applied.caught_up;
            applied.pending = !gone && applied.written.elapsed() < BEHIND && applied.is_ahead_of(shown);
            applied.caught_up |= !applied.pending;
        }
        self.children.retain(|key, applied| applied.pending || seen.contains_key(key));
        let keys = seen.keys().chain(self.children.keys());
        keys.filter_map(|key| Some((key.clone(), self.child(key, seen.get(key))?))).collect()
    }

    fn child(&self, key: &ChildKey, seen: Option<&SeenChild>) -> Option<ChildFacts> {
        match (self.children.get(key), seen) {
            (Some(applied), _) if applied.pending => Some(ChildFacts {
                hash: Some(applied.hash.clone()),
                drifted: false,
                shown: false,
                uid: applied.uid.clone(),
            }),
            (Some(applied), Some(seen)) => {
                Some(ChildFacts { drifted: applied.version != seen.version, ..ChildFacts::shown(seen) })
            }
            // What was changed while no operator ran is told by who owns its fields alone.
            (None, Some(seen)) => Some(ChildFacts { drifted: seen.edited, ..ChildFacts::shown(seen) }),
            (_, None) => None,
        }
    }

    /// Takes a change of the number of pods for our own that was tried and is shown, and whose answer was lost: else it would
    /// be taken for somebody else's, and the Deployment applied once more.
    pub fn find_scaled(&mut self, key: &ChildKey, seen: Option<&SeenChild>, shown: Option<&DeploymentFacts>) {
        let tried = self.scaling.filter(|tried| shown.is_some_and(|shown| shown.wanted == *tried));
        let (Some(_), Some(seen), Some(applied)) = (tried, seen, self.children.get_mut(key)) else { return };
        let next = applied.version.parse::<i64>().ok().and_then(|version| version.checked_add(1));
        if next.is_some() && next == seen.version.parse().ok() {
            applied.version.clone_from(&seen.version);
            applied.resource_version.clone_from(&seen.resource_version);
            self.scaling = None;
        }
    }

    /// What a Deployment says: the number of pods is the one written last while the watch shows what was before.
    #[must_use]
    pub fn deployment(&self, key: &ChildKey, seen: Option<DeploymentFacts>) -> Option<DeploymentFacts> {
        let written = self.children.get(key).filter(|applied| applied.pending).and_then(|applied| applied.replicas);
        seen.map(|facts| DeploymentFacts { wanted: written.unwrap_or(facts.wanted), ..facts })
    }

    /// Notes since when the object is to be held, and the brakes made for that. `released` have been let go of.
    pub fn braked(&mut self, onset: Option<&Onset>, released: &[String]) {
        let steps = onset.into_iter().flat_map(|onset| &onset.steps);
        let fresh = steps.map(|step| &step.id).filter(|id| !self.made.contains(*id));
        let fresh: Vec<String> = fresh.cloned().collect();
        self.made.extend(fresh);
        self.made.retain(|id| !released.contains(id));
        let surplus = self.made.len().saturating_sub(MAX_RELEASES);
        self.made.drain(..surplus);
        self.onset = onset.cloned();
    }

    /// Notes what stands in the store of the boot ConfigMap, in the place of this version.
    pub fn wrote_boot(&mut self, value: BootConfigMap, replaced: Option<String>) {
        let version = |boot: &BootConfigMap| Some(boot.resource_version.clone());
        self.boot = Some(Written::of(value, replaced, self.boot.take(), version));
    }

    /// Notes a status write, in the place of this version.
    pub fn wrote_status(&mut self, value: Arc<AgentRuntime>, replaced: Option<String>, now: Timestamp) {
        let version = |runtime: &Arc<AgentRuntime>| runtime.resource_version();
        self.runtime = Some(Written::of(value, replaced, self.runtime.take(), version));
        self.reported = Some(now);
    }

    /// Notes a child that was written.
    pub fn applied(&mut self, key: &ChildKey, hash: String, written: WrittenChild) {
        let WrittenChild { uid, version, resource_version, replicas } = written;
        let shown = self.seen.get(key).map(|child| child.resource_version.clone());
        let written = Instant::now();
        // The outcome of any earlier change is known by this one.
        self.scaling = None;
        let mut applied = AppliedChild {
            hash,
            shown,
            version,
            resource_version,
            uid,
            replicas,
            written,
            caught_up: false,
            pending: true,
        };
        // A write that changed nothing leaves nothing to wait for, and one that the watch has shown already.
        applied.pending = applied.is_ahead_of(applied.shown.as_deref());
        self.children.insert(key.clone(), applied);
    }

    /// The hash of a child, as it was applied or is shown.
    #[must_use]
    pub fn hash_of(&self, key: &ChildKey) -> Option<String> {
        let applied = self.children.get(key).map(|applied| applied.hash.clone());
        applied.or_else(|| self.seen.get(key)?.hash.clone())
    }

    /// Notes a child that was deleted.
    pub fn deleted(&mut self, key: &ChildKey) {
        self.children.remove(key);
        self.faults.children.remove(key);
    }
}

impl AppliedChild {
    /// Whether the watch has not come as far as this write. Versions of one kind can be compared as numbers; those of an
    /// API server that has others are the same or not.
    fn is_ahead_of(&self, shown: Option<&str>) -> bool {
        let Some(shown) = shown else { return self.shown.is_none() };
        match (shown.parse::<u64>(), self.resource_version.parse::<u64>()) {
            (Ok(shown), Ok(written)) => shown < written,
            _ => self.shown.as_deref() == Some(shown) && shown != self.resource_version,
        }
    }
}

impl ChildFacts {
    fn shown(seen: &SeenChild) -> Self {
        Self { hash: seen.hash.clone(), drifted: false, shown: true, uid: seen.uid.clone() }
    }
}

/// A child as the API server gave it back.
#[derive(Clone, Debug, Default)]
pub struct WrittenChild {
    /// Its UID.
    pub uid: Option<String>,
    /// Its generation, or its resourceVersion.
    pub version: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// The number of pods, of a Deployment.
    pub replicas: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::ChildKind;

    fn key() -> ChildKey {
        ChildKey { kind: ChildKind::Service, name: "demo".to_owned() }
    }

    fn seen(version: &str) -> HashMap<ChildKey, SeenChild> {
        let uid = Some("uid-1".to_owned());
        let child = SeenChild {
            uid,
            hash: Some("h".to_owned()),
            version: version.to_owned(),
            resource_version: version.to_owned(),
            edited: false,
        };
        HashMap::from([(key(), child)])
    }

    fn written(version: &str) -> WrittenChild {
        WrittenChild {
            uid: Some("uid-1".to_owned()),
            version: version.to_owned(),
            resource_version: version.to_owned(),
            replicas: None,
        }
    }

    #[test]
    fn child_edited_while_no_operator_ran_has_drifted_until_applied() {
        let mut memory = Memory::default();
        let mut shown = seen("1");
        shown.values_mut().for_each(|child| child.edited = true);
        assert!(memory.children(&shown)[&key()].drifted);
        memory.applied(&key(), "h".to_owned(), written("1"));
        assert!(!memory.children(&shown)[&key()].drifted, "what the other wrote besides stays, and is left alone");
    }

    #[test]
    fn pods_of_a_deployment_are_as_written_until_the_watch_moves_on() {
        let mut memory = Memory::default();
        let facts = |wanted| Some(DeploymentFacts { wanted, ..DeploymentFacts::default() });
        let _ = memory.children(&seen("1"));
        memory.applied(&key(), "h".to_owned(), WrittenChild { replicas: Some(0), ..written("2") });
        assert_eq!(memory.deployment(&key(), facts(3)), facts(0), "the watch is behind");
        let _ = memory.children(&seen("2"));
        assert_eq!(memory.deployment(&key(), facts(3)), facts(3), "what is shown counts from then on");
    }

    #[test]
    fn a_child_counts_as_applied_until_the_watch_moves_on() {
        let mut memory = Memory::default();
        memory.applied(&key(), "h".to_owned(), written("1"));
        let before = memory.children(&HashMap::new());
        let facts =
            |shown| ChildFacts { hash: Some("h".to_owned()), drifted: false, shown, uid: Some("uid-1".to_owned()) };
        assert_eq!(before[&key()], facts(false));
        let shown = memory.children(&seen("1"));
        assert_eq!(shown[&key()], facts(true));
        let changed = memory.children(&seen("2"));
        assert!(changed[&key()].drifted, "somebody else wrote it");
    }

    fn object(version: &str) -> Arc<AgentRuntime> {
        let mut object = AgentRuntime::new("demo", crds::AgentRuntimeSpec::default());
        object.metadata.resource_version = Some(version.to_owned());
        Arc::new(object)
    }

    #[test]
    fn a_status_of_its_own_is_believed_until_the_watch_moves_on() {
        let mut memory = Memory::default();
        let _ = memory.runtime(object("1"));
        memory.wrote_status(object("2"), Some("1".to_owned()), Timestamp::UNIX_EPOCH);
        let mut version = |seen: &str| memory.runtime(object(seen)).resource_version();
        assert_eq!(version("1").as_deref(), Some("2"), "the watch is behind");
        assert_eq!(version("3").as_deref(), Some("3"), "somebody else wrote it");
        assert_eq!(version("1").as_deref(), Some("1"), "what is shown counts from then on");
    }

    #[test]
    fn spec_that_is_shown_before_the_answer_of_a_status_write_is_obeyed() {
        let mut memory = Memory::default();
        let _ = memory.runtime(object("1"));
        // Another lane looks while the answer is on its way.
        let _ = memory.runtime(object("3"));
        memory.wrote_status(object("2"), Some("1".to_owned()), Timestamp::UNIX_EPOCH);
        assert_eq!(memory.runtime(object("3")).resource_version().as_deref(), Some("3"));
        // Of two in a row the second counts, whichever of those before it the watch shows.
        memory.wrote_status(object("4"), Some("3".to_owned()), Timestamp::UNIX_EPOCH);
        memory.wrote_status(object("5"), Some("4".to_owned()), Timestamp::UNIX_EPOCH);
        let mut version = |seen: &str| memory.runtime(object(seen)).resource_version();
        assert_eq!(["3", "4", "6"].map(|seen| version(seen).unwrap()), ["5", "5", "6"]);
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
        let _ = memory.children(&seen("1"));
        memory.applied(&key(), "h".to_owned(), written("1"));
        assert!(memory.children(&seen("1"))[&key()].shown);
    }

    #[test]
    fn second_boot_write_is_believed_while_the_watch_is_behind_both() {
        let file = |version: &str| BootConfigMap { resource_version: version.to_owned(), file: None, hooks: None };
        let mut memory = Memory::default();
        let version = |memory: &mut Memory| memory.boot(Some(file("1"))).map(|boot| boot.resource_version);
        assert_eq!(version(&mut memory).as_deref(), Some("1"));
        for (replaced, written) in [("1", "2"), ("2", "3")] {
            memory.wrote_boot(file(written), Some(replaced.to_owned()));
            assert_eq!(version(&mut memory).as_deref(), Some(written));
        }
    }

    #[test]
    fn write_that_moves_no_generation_is_believed_until_it_is_shown() {
        let mut memory = Memory::default();
        let mut before = seen("7");
        before.values_mut().for_each(|child| child.version = "1".to_owned());
        let _ = memory.children(&before);
        let labels = WrittenChild { resource_version: "8".to_owned(), ..written("1") };
        memory.applied(&key(), "new".to_owned(), labels);
        assert_eq!(memory.children(&before)[&key()].hash.as_deref(), Some("new"), "it is not applied once more");
        before.values_mut().for_each(|child| child.resource_version = "9".to_owned());
        let shown = memory.children(&before);
        assert_eq!((shown[&key()].hash.as_deref(), shown[&key()].drifted), (Some("h"), false), "the watch is believed");
    }

    #[test]
    fn scale_whose_answer_was_lost_is_known_by_what_is_shown() {
        let mut memory = Memory::default();
        let _ = memory.children(&seen("1"));
        memory.applied(&key(), "h".to_owned(), written("1"));
        memory.scaling = Some(0);
        let shown = seen("2");
        let facts = |wanted| DeploymentFacts { wanted, ..DeploymentFacts::default() };
        memory.find_scaled(&key(), shown.get(&key()), Some(&facts(3)));
        assert!(memory.children(&shown)[&key()].drifted, "somebody else wrote another number");
        memory.find_scaled(&key(), shown.get(&key()), Some(&facts(0)));
        assert!(!memory.children(&shown)[&key()].drifted);
    }

    #[test]
    fn a_child_that_somebody_deletes_is_missed() {
        let mut memory = Memory::default();
        memory.applied(&key(), "h".to_owned(), written("1"));
        assert_eq!(memory.children(&seen("1")).len(), 1);
        assert!(memory.children(&HashMap::new()).is_empty());
    }

    #[test]
    fn a_boot_config_map_that_somebody_deletes_is_missed() {
        let ours = BootConfigMap { resource_version: "1".to_owned(), file: None, hooks: None };
        let mut memory = Memory::default();
        memory.wrote_boot(ours.clone(), None);
        assert_eq!(memory.boot(None), Some(ours.clone()), "the watch is behind");
        assert_eq!(memory.boot(Some(ours.clone())), Some(ours));
        assert_eq!(memory.boot(None), None, "it is gone");
    }
}
