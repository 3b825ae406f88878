//! What was seen: plain data that a plan is made from. Nothing here decides anything.

pub mod brake;
pub mod child;
pub mod decoded;
pub mod fault;
pub mod fleet;
pub mod index;
pub mod memory;
pub mod pod;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crds::AgentRuntime;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use lifecycle::BootFile;
use lifecycle::brake::MAX_BRAKES;
use lifecycle::wire::{Holder, Status};
use serde::{Deserialize, Serialize};

pub use brake::{BrakeOutcome, BrakeReply, Nonce, Onset, Step};
pub use fault::{Cause, Fault, Faults, Outstanding};

use crate::plan::HOOKS_ANNOTATION;
use crate::text::cut;

/// Everything that one plan may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object, with the resourceVersion that a status write must carry.
    pub runtime: Arc<AgentRuntime>,
    /// What of it could be decoded.
    pub legible: Legible,
    /// This process has been shown a newer spec of it: the watch is out of order, or the store was put back.
    pub outdated: bool,
    /// The boot ConfigMap.
    pub boot: Option<BootConfigMap>,
    /// Its children that are made by server-side apply.
    pub children: BTreeMap<ChildKey, ChildFacts>,
    /// A kind of children of which no list is complete: what is not seen may be there.
    pub unlisted: Option<&'static str>,
    /// Objects with the names of its children that belong to somebody else, and to whom.
    pub foreign: BTreeMap<ChildKey, String>,
    /// What fails.
    pub faults: Faults,
    /// The hash of the pod template that the API server has taken as a trial.
    pub tried: Option<String>,
    /// What the Deployment says of its rollout.
    pub deployment: Option<DeploymentFacts>,
    /// Every pod of the object, terminating ones too.
    pub pods: Vec<Arc<PodFacts>>,
    /// What was heard from pods, by pod UID.
    pub contacts: HashMap<String, Contact>,
    /// The last barrier LIST.
    pub barrier: Option<Barrier>,
    /// The agent's definition.
    pub agent: AgentText,
    /// When the definition that `spec.agent.configMapRef` names was read last.
    pub agent_read: Option<Timestamp>,
    /// When the epoch of the boot ConfigMap was first seen by this process.
    pub epoch_since: Option<(i64, Timestamp)>,
    /// When this process looked at the object for the first time.
    pub first_seen: Option<Timestamp>,
    /// When this process wrote a status last.
    pub reported: Option<Timestamp>,
    /// The public halves of the keys that sign commands, newest first.
    pub keys: Arc<[String]>,
    /// How large its claim is asked to be, as it stands in the cluster.
    pub claim_size: Option<String>,
    /// Since when its pods are protected from eviction, as the disruption budget says.
    pub protected_since: Option<Timestamp>,
    /// The freezes that may hold it.
    pub fleet: fleet::FleetView,
    /// Since when it is to be held, as the last plan had it.
    pub onset: Option<Onset>,
    /// The names of the last brakes that this process has made for it.
    pub made: Vec<String>,
    /// What a new brake is named by.
    pub nonce: Nonce,
}

impl Observed {
    /// The object, and nothing else that is known of it.
    #[must_use]
    pub fn of(runtime: Arc<AgentRuntime>) -> Self {
        Self {
            runtime,
            legible: Legible::Whole,
            outdated: false,
            boot: None,
            children: BTreeMap::new(),
            unlisted: None,
            foreign: BTreeMap::new(),
            faults: Faults::default(),
            tried: None,
            deployment: None,
            pods: Vec::new(),
            contacts: HashMap::new(),
            barrier: None,
            agent: AgentText::Builtin,
            agent_read: None,
            epoch_since: None,
            first_seen: None,
            reported: None,
            keys: Arc::default(),
            claim_size: None,
            protected_since: None,
            fleet: fleet::FleetView::default(),
            onset: None,
            made: Vec::new(),
            nonce: Nonce::default(),
        }
    }
}

/// What of an object could be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Legible {
    /// All of it.
    #[default]
    Whole,
    /// All but `spec.agent` and `spec.template`, for this reason.
    WithoutPods(String),
    /// Nothing but its metadata, for this reason: the rest is as it was before.
    MetadataAlone(String),
}

/// The agent's definition, as far as it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentText {
    /// The image brings its own.
    Builtin,
    /// The text, and the name of the file it stands in.
    Found {
        /// The definition.
        text: String,
        /// For messages: a file name with the right ending.
        file: String,
    },
    /// The ConfigMap or its key does not exist.
    Missing(String),
    /// It has not been read yet, or cannot be.
    Unknown,
}

/// The boot ConfigMap, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfigMap {
    /// For the compare-and-swap.
    pub resource_version: String,
    /// Its content; none when it does not parse.
    pub file: Option<BootFile>,
    /// The hooks under way.
    pub hooks: Option<HookRecord>,
}

impl BootConfigMap {
    /// The brakes that it lets go of.
    #[must_use]
    pub fn releases(&self) -> &[String] {
        self.file.as_ref().map(|file| file.releases.as_slice()).unwrap_or_default()
    }

    /// What a ConfigMap says.
    #[must_use]
    pub fn read(config_map: &ConfigMap) -> Self {
        let text = config_map.data.as_ref().and_then(|data| data.get("boot.json"));
        let hooks = config_map.annotations().get(HOOKS_ANNOTATION);
        Self {
            resource_version: config_map.resource_version().unwrap_or_default(),
            file: text.and_then(|text| serde_json::from_str(text).ok()),
            hooks: hooks.and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

/// A hook of a pause or a resume, and the pods that have not had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// Of which change.
    #[serde(flatten)]
    pub turn: HookTurn,
    /// UIDs of the pods.
    pub left: Vec<String>,
}

/// One change of state that a hook is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookTurn {
    /// Which hook.
    pub hook: HookKind,
    /// The epoch of the pause or resume.
    pub epoch: i64,
    /// When it was asked for: a pause that is taken back while its hooks are called leaves the epoch as it is.
    pub begun: Timestamp,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookKind {
    /// Before a pause.
    PrePause,
    /// After a resume.
    PostResume,
}

impl HookKind {
    /// The field of spec.lifecycle.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrePause => "prePause",
            Self::PostResume => "postResume",
        }
    }
}

/// How a hook went in one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOutcome {
    /// Of which change.
    pub turn: HookTurn,
    /// What went wrong; none if it succeeded.
    pub error: Option<String>,
    /// How often it failed.
    pub failures: u32,
    /// Not called again before this.
    pub next_attempt: Timestamp,
}

/// A child's kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey {
    /// Which kind.
    pub kind: ChildKind,
    /// The name in the object's namespace.
    pub name: String,
}

/// The kinds of children made by server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// The agent's definition, named by content.
    ConfigMap,
    /// For clients, and the headless one for addresses that are not ready.
    Service,
    /// The pods' identity, without a token.
    ServiceAccount,
    /// Where executions are kept.
    PersistentVolumeClaim,
    /// What a node's drain may take away at once.
    PodDisruptionBudget,
    /// Which ports of the pods can be reached.
    NetworkPolicy,
    /// The pods.
    Deployment,
}

/// A child, as far as planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildFacts {
    /// The hash of the manifest that was applied last, from its annotation.
    pub hash: Option<String>,
    /// Somebody else changed it since.
    pub drifted: bool,
    /// The watch shows what was applied last: what it says of the child's status is not older than that.
    pub shown: bool,
    /// The UID of the child, so that no other of its name is changed; none before the watch has shown it.
    pub uid: Option<String>,
}

/// What the Deployment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentFacts {
    /// Its spec.replicas.
    pub wanted: i32,
    /// Whether its controller has seen the newest spec.
    pub observed: bool,
    /// Pods it counts.
    pub replicas: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that pass their readiness probe.
    pub ready: i32,
    /// Somebody has paused it: it replaces no pod.
    pub paused: bool,
    /// The condition Progressing is False for this reason.
    pub failing: Option<String>,
    /// The rollout strategy that was applied: `surge`, `replace` or `recreate`.
    pub strategy: String,
    /// The hash of the pod template that was applied; empty when it does not say.
    pub template: String,
}

/// A pod, as far as planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its own address, if it has one and may be pushed to.
    pub address: Option<std::net::IpAddr>,
    /// It was deleted and has not ended.
    pub terminating: bool,
    /// Its phase is Succeeded or Failed: nothing runs in it.
    pub ended: bool,
    /// It passes its readiness probe.
    pub ready: bool,
    /// The port that it names `lifecycle`, which may be another than the spec's while pods are replaced.
    pub port: Option<u16>,
    /// The running container's id; a new one voids every acknowledgement.
    pub container: Option<Arc<str>>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Since when that container runs.
    pub started: Option<Timestamp>,
    /// Why it does not run, in Kubernetes' words.
    pub waiting: Option<String>,
    /// Why it is never pushed to, such as hostNetwork.
    pub unsafe_target: Option<String>,
}

/// What was heard from one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contact {
    /// The last answer.
    pub answer: Option<Arc<Heard>>,
    /// Calls that failed since the last answer.
    pub failures: u32,
    /// Since when they fail.
    pub failing_since: Option<Timestamp>,
    /// What the last one said.
    pub error: Option<String>,
    /// Not asked again before this.
    pub next_attempt: Option<Timestamp>,
    /// The epoch of the last command that failed: another one does not wait for its next attempt.
    pub failed_epoch: Option<i64>,
    /// How the last hook went. Boxed, since there are thousands of pods and most have no hook.
    pub hook: Option<Box<HookOutcome>>,
    /// How the last brake went. Boxed for the same reason.
    pub brake: Option<Box<BrakeOutcome>>,
    /// Calls that have ended.
    pub ended: u64,
}

/// Calls to a pod that have ended; none to one of which nothing was heard.
#[must_use]
pub fn calls_ended(contacts: &HashMap<String, Contact>, pod: &str) -> u64 {
    contacts.get(pod).map_or(0, |contact| contact.ended)
}

#[cfg(test)]
impl Contact {
    /// What a test has heard, to be changed.
    pub(crate) fn heard(&mut self) -> &mut Status {
        self.answer.as_mut().map(|heard| Arc::make_mut(heard).said()).unwrap()
    }
}

/// An answer, with what it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// What a plan reads of the status: what differs from pod to pod or goes on by itself stands beside it or is left
    /// out, so that pods that say the same can share it.
    pub status: Arc<Status>,
    /// Which start of the process gave it.
    pub boot_id: Box<str>,
    /// The version of the status, for following it.
    pub version: Box<str>,
    /// When it came.
    pub at: Timestamp,
    /// The container that gave it.
    pub container: Option<Arc<str>>,
    /// Whether the pod was ready when it was asked.
    pub ready: bool,
}

impl Heard {
    /// What is kept of an answer: it stays in memory for each pod.
    #[must_use]
    pub fn new(status: Status, at: Timestamp, container: Option<Arc<str>>, ready: bool) -> Self {
        let status = bounded(status);
        let Status { boot_id, version, .. } = status;
        let status = Status {
            uptime_seconds: 0,
            active_streams: 0,
            total_executions: 0,
            failed_executions: 0,
            boot_id: String::new(),
            version: String::new(),
            pod_uid: None,
            ..status
        };
        Self { status: Arc::new(status), boot_id: boot_id.into(), version: version.into(), at, container, ready }
    }

    #[cfg(test)]
    pub(crate) fn said(&mut self) -> &mut Status {
        Arc::make_mut(&mut self.status)
    }

    /// Whether the other one says the same, as far as a plan reads it: versions and clocks always go on.
    #[must_use]
    pub fn says(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id
            && self.container == other.container
            && self.ready == other.ready
            && self.status == other.status
    }
}

/// What is believed of an answer: any image may say anything, and what it says is kept for each pod and written to a
/// status that has room for 50 of them. A count below zero is none.
fn bounded(status: Status) -> Status {
    let short = |text: String| if text.len() > WORD { cut(&text, WORD) } else { text };
    let few = |texts: Vec<String>, most: usize| texts.into_iter().take(most).map(short).collect();
    let holders = status.held_by.into_iter().take(10);
    Status {
        in_flight: status.in_flight.filter(|count| *count >= 0),
        waiting_for_input: status.waiting_for_input.max(0),
        queued: status.queued.max(0),
        entry_points: few(status.entry_points, 64),
        holds: few(status.holds, 8),
        held_by: holders.map(|h| Holder { execution: short(h.execution), node: short(h.node) }).collect(),
        keys: few(status.keys, 8),
        brakes: status.brakes.map(|ids| few(ids, MAX_BRAKES)),
        features: few(status.features, 8),
        drain_deadline: status.drain_deadline.map(short),
        message: status.message.map(|message| cut(&message, MESSAGE)),
        boot_id: short(status.boot_id),
        version: short(status.version),
        ..status
    }
}

/// The longest name, and the longest message, that is kept of an answer.
const WORD: usize = 128;
const MESSAGE: usize = 512;

/// A LIST of the pods, taken from the API server itself and not from a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The epoch for which it was taken, after every seen pod had acknowledged it.
    pub epoch: i64,
    /// The UIDs of all pods that had not ended.
    pub pods: Vec<String>,
    /// When it was begun.
    pub at: Timestamp,
}
