//! What a plan is made of: each step that those who do I/O carry out.

use std::sync::Arc;
use std::time::Duration;

use crds::AgentRuntimeStatus;
use lifecycle::brake::BRAKE;
use lifecycle::wire::{BrakeCommand, Command};
use lifecycle::{BootFile, Verb};
use serde_json::Value;

use super::brakes::BrakePlan;
use super::keys::Signer;
use crate::observe::{ChildKey, ChildKind, HookRecord, HookTurn, Outstanding};

/// What is to be done: what is safety's in this order, and by itself what concerns children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Brakes, which go out before anything is written.
    pub brakes: BrakePlan,
    /// Write the boot ConfigMap by compare-and-swap; everything after waits for it.
    pub boot: Option<BootWrite>,
    /// What is to be done about children. No pause, stop or freeze waits for it.
    pub children: ChildrenPlan,
    /// What is to be done by this plan, or later because it has failed.
    pub outstanding: Outstanding,
    /// A number of pods: a stop takes them away whatever is wrong with the rest.
    pub scale: Option<Scale>,
    /// Calls to pods. The executor does not wait for them.
    pub orders: Vec<Order>,
    /// Take a LIST of the pods from the API server for this epoch and plan again before any status is written.
    pub barrier: Option<i64>,
    /// The status to write, if it differs from what stands.
    pub status: Option<Box<AgentRuntimeStatus>>,
    /// What to tell people.
    pub events: Vec<Announcement>,
    /// When to look again though nothing happened.
    pub again: Option<Duration>,
}

impl Plan {
    /// Whether the status to write says that every pod has acknowledged and reached the desired state.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    }
}

/// What is to be done about children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChildrenPlan {
    /// What the API server's store is to show before children are touched, else they are left as they are.
    pub confirm: Option<Confirm>,
    /// Children to apply, each of which may fail by itself.
    pub apply: Vec<Child>,
    /// Children that nothing uses any more.
    pub delete: Vec<DeleteChild>,
    /// The definition that `spec.agent.configMapRef` names is to be read.
    pub read_agent: bool,
    /// The Deployment is to be applied once the status of this plan is written.
    pub after_status: bool,
    /// When to look again though nothing happened.
    pub again: Option<Duration>,
}

impl ChildrenPlan {
    /// Keeps the Deployment back. A pod that it makes while a status is on its way that says that nothing runs has not
    /// acknowledged that, and may have mounted an older boot file.
    pub(super) fn wait_for_status(&mut self) {
        let count = self.apply.len();
        self.apply.retain(|child| child.key.kind != ChildKind::Deployment || child.trial);
        self.after_status = self.apply.len() < count;
    }

    /// Whether there is something to do now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.read_agent || !self.apply.is_empty() || !self.delete.is_empty()
    }
}

/// A child to delete, and no other of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteChild {
    /// Its kind and name.
    pub key: ChildKey,
    /// Its UID.
    pub uid: String,
}

/// A compare-and-swap of the boot ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct BootWrite {
    /// Its name.
    pub name: String,
    /// The version it replaces; none to create it.
    pub replaces: Option<String>,
    /// What the API server's store is to show first, else nothing is written.
    pub confirm: Option<Confirm>,
    /// What it is tried for, as a fault names it.
    pub demand: String,
    /// The content.
    pub file: BootFile,
    /// The hooks under way, which stand beside it.
    pub hooks: Option<HookRecord>,
    /// The whole object.
    pub manifest: serde_json::Map<String, Value>,
}

/// A write that lets run what another process held back is made from the store and not from caches: the watch of the
/// ConfigMap may be ahead of those of the object and of the freezes, and the pause that they would show was acknowledged.
/// So are children by a spec that is older than one that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// The freezes are to be those that were seen, and not the object alone.
    pub freezes: bool,
}

/// A child to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind and name.
    pub key: ChildKey,
    /// The hash that stands in its annotation.
    pub hash: String,
    /// The API server is only asked whether it would take it.
    pub trial: bool,
    /// The UID of the child that is there; none for one that is to be made, which must not be there.
    pub uid: Option<String>,
    /// The whole object.
    pub manifest: serde_json::Map<String, Value>,
}

/// The field of the AgentRuntime that a refusal of such a child is about.
pub(super) fn field_of(kind: ChildKind) -> &'static str {
    match kind {
        ChildKind::PersistentVolumeClaim => "spec.storage.volumeClaim",
        ChildKind::ConfigMap => "spec.agent",
        ChildKind::Service | ChildKind::ServiceAccount | ChildKind::PodDisruptionBudget | ChildKind::Deployment => {
            "spec.template"
        }
        ChildKind::NetworkPolicy => "spec.networkPolicyPeers, or a port in spec.template",
    }
}

/// A new number of pods, and nothing else of the Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The Deployment.
    pub deployment: ChildKey,
    /// Its UID.
    pub uid: String,
    /// How many pods.
    pub replicas: i32,
}

/// A call to a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The pod's UID.
    pub pod: String,
    /// The pod's name, for logs.
    pub name: String,
    /// Where it listens.
    pub address: std::net::SocketAddr,
    /// The container whose answer this will be.
    pub container: Option<Arc<str>>,
    /// Whether the pod is ready now.
    pub ready: bool,
    /// Calls to the pod that had ended; after another one this order is planned from an old picture.
    pub ended: u64,
    /// What the call is signed with; none where commands are not signed.
    pub signer: Option<Signer>,
    /// What is asked.
    pub call: Call,
}

/// What is asked of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Hold, by a name. It waits for no other call to the pod, and ends one that would let it run.
    Brake {
        /// Its body.
        body: Box<BrakeCommand>,
    },
    /// Obey. Ends an outstanding `Ask`; a higher epoch replaces a lower.
    Command {
        /// The verb.
        verb: Verb,
        /// Its body.
        body: Box<Command>,
    },
    /// A hook of the user's, which ends an outstanding `Ask`; a command ends it.
    Hook {
        /// Of which change.
        turn: HookTurn,
        /// What is done.
        deed: Deed,
        /// The same for each repetition.
        key: String,
        /// How long it may take.
        timeout: Duration,
    },
    /// Say how it stands, after waiting for a change of this version for at most this long.
    Ask {
        /// The version already known, and how long to wait for another.
        after: Option<(String, Duration)>,
    },
}

impl Call {
    /// A short stable word, for metrics and traces.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Brake { .. } => BRAKE,
            Self::Command { verb, .. } => verb.as_str(),
            Self::Hook { turn, .. } => turn.hook.as_str(),
            Self::Ask { .. } => "status",
        }
    }
}

/// What a hook does in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A POST to a path.
    Post(String),
    /// A command in a container.
    Exec {
        /// The container.
        container: String,
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// An Event for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Normal or Warning.
    pub warning: bool,
    /// A freeze holds the object, or did: part of the record of an emergency.
    pub freeze: bool,
    /// A stable CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}
