//! Every rule of the operator, as one pure function: what was seen and the time in, what is to be done out.

mod agent;
mod children;
mod conditions;
mod effective;
mod epoch;
pub mod freezes;
mod hooks;
mod keys;
mod manifest;
mod pods;
mod protection;
mod reading;
mod rollout;
mod sketch;
mod status;
mod suspended;
mod template;
mod windows;

use std::time::Duration;

use crds::{AgentRuntime, AgentRuntimeStatus};
use jiff::Timestamp;
use lifecycle::wire::Command;
use lifecycle::{BootFile, Desired, Verb};
use serde_json::Value;

use crate::observe::{ChildKey, ChildKind, HookRecord, HookTurn, Observed};

pub use children::{HASH_ANNOTATION, STRATEGY_ANNOTATION, TEMPLATE_ANNOTATION, deployment_name};
pub use effective::RECONCILE_ANNOTATION;
pub use epoch::{HOOKS_ANNOTATION, boot_name};
pub use keys::{KeyFacts, Reach, Signer, Step as KeyStep, step as key_step};
pub use manifest::{MANAGED_BY, selector};
pub use protection::PROTECTED_SINCE;
pub use sketch::Sketch;
pub use suspended::Scale;

use effective::{Kind, held};

/// How long a transition may take before a status on the way is written. Most end sooner, and then
/// the API server sees one write instead of two.
const QUIET: Duration = Duration::from_secs(1);
/// The time between two statuses that only say how far the same step has come.
const PROGRESS: Duration = Duration::from_secs(1);
/// No pause before another call is longer.
const LONGEST_RETRY: Duration = Duration::from_secs(20);

/// Settings of the operator that shape its plans.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image for templates that name none.
    pub runtime_image: String,
    /// The operator's own namespace, from which pods let calls in.
    pub namespace: String,
    /// The operator may run commands in pods.
    pub exec_hooks: bool,
    /// Freezes hold what they select.
    pub obey_freezes: bool,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Write the boot ConfigMap by compare-and-swap; everything after waits for it.
    pub boot: Option<BootWrite>,
    /// What the API server's store is to show before children are touched, else they are left as they are.
    pub confirm: Option<Confirm>,
    /// Children to apply.
    pub apply: Vec<Child>,
    /// Children that nothing uses any more.
    pub delete: Vec<ChildKey>,
    /// A number of pods, for an object whose children are left alone otherwise.
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

/// A compare-and-swap of the boot ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct BootWrite {
    /// Its name.
    pub name: String,
    /// The version it replaces; none to create it.
    pub replaces: Option<String>,
    /// What the API server's store is to show first, else nothing is written.
    pub confirm: Option<Confirm>,
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
    /// The whole object.
    pub manifest: serde_json::Map<String, Value>,
}

impl Child {
    /// The field of the AgentRuntime that a refusal of this child is about.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self.key.kind {
            ChildKind::PersistentVolumeClaim => "spec.storage.volumeClaim",
            ChildKind::ConfigMap => "spec.agent",
            ChildKind::Service | ChildKind::ServiceAccount | ChildKind::PodDisruptionBudget | ChildKind::Deployment => {
                "spec.template"
            }
            ChildKind::NetworkPolicy => "spec.networkPolicyPeers, or a port in spec.template",
        }
    }
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
    pub container: Option<String>,
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
    /// A stable CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// Decides what is to be done. Reads no clock and does no I/O: the same input gives the same plan.
#[must_use]
pub fn plan(seen: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    plan_with(seen, settings, now, &mut Sketch::default())
}

/// The same plan, made sooner by what was drawn of the object before.
#[must_use]
pub fn plan_with(seen: &Observed, settings: &Settings, now: Timestamp, sketch: &mut Sketch) -> Plan {
    let runtime = seen.runtime.as_ref();
    if runtime.metadata.deletion_timestamp.is_some() {
        // Owner references take the children away; pods drain by themselves on SIGTERM.
        return Plan::default();
    }
    sketch.renew(seen, settings);
    let drains = rollout::blueprint(seen, settings, sketch).is_some_and(|blueprint| rollout::drains(seen, blueprint));
    let mut effective = effective::decide(seen, drains, now);
    let hooks = hooks::decide(seen, &effective, now);
    effective.hold_back(seen, hooks.holds);
    let policy = effective.policy.clone();
    let untouched = Some(&effective).filter(|e| e.disabled).and_then(|_| suspended::untouched(seen, &policy));
    let decided = untouched.unwrap_or_else(|| epoch::decide(seen, settings, &policy, &hooks));
    let standings = pods::standings(seen, decided.file.epoch, policy.desired, now);
    let protection = protection::decide(seen, &standings, now);
    let wanted = if effective.disabled {
        suspended::wanted(seen, &policy, &standings)
    } else {
        let waits = effective.kind == Kind::Rollout
            && (hooks.holds || standings.iter().any(|standing| rollout::waits_for(standing, seen, &policy, now)));
        children::plan(seen, settings, &policy, &standings, protection, waits, sketch)
    };
    let scale = suspended::scale(seen, &policy, effective.disabled, &wanted);
    let reading = reading::Reading::of(seen, &decided.file, &effective, &hooks, &standings, &wanted, now);
    let barrier = reading.needs_barrier.then_some(decided.file.epoch);
    let next = status::write(seen, &reading, &effective, now);
    let settled = reading.ready || reading.stalled.is_some();
    let kept_back = match &next {
        Some(next) if !settled => status::kept_back(seen, decided.write.is_some(), next, now),
        Some(_) | None => None,
    };
    let (status, events) = match next {
        Some(next) if barrier.is_none() && kept_back.is_none() => {
            let events = status::announcements(runtime, &next);
            (Some(Box::new(next)), events)
        }
        Some(_) | None => (None, Vec::new()),
    };
    let mut orders = pods::orders(runtime, seen, &standings, &decided.file, &policy, now);
    orders.extend(hooks::orders(seen, &hooks));
    let edges = [hooks.again(), kept_back, reading.deadline_in, effective.edge, protection.edge()];
    let again = edges.into_iter().chain([Some(pods::look_again(seen, &standings, now))]);
    // A spec from before one that was shown would take a rollout back.
    let touches = !wanted.apply.is_empty() || !wanted.delete.is_empty() || scale.is_some();
    let confirm = (seen.outdated && touches).then_some(Confirm { freezes: false });
    Plan {
        boot: decided.write,
        confirm,
        apply: wanted.apply,
        delete: wanted.delete,
        scale,
        orders,
        barrier,
        status,
        events,
        again: again.flatten().min(),
    }
}

fn name_of(runtime: &AgentRuntime) -> &str {
    runtime.metadata.name.as_deref().unwrap_or_default()
}

fn uid_of(runtime: &AgentRuntime) -> &str {
    runtime.metadata.uid.as_deref().unwrap_or_default()
}

fn desired(state: crds::DesiredState) -> Desired {
    match state {
        crds::DesiredState::Running => Desired::Running,
        crds::DesiredState::Paused => Desired::Paused,
        crds::DesiredState::Stopped => Desired::Stopped,
    }
}

fn crd_state(desired: Desired) -> crds::DesiredState {
    match desired {
        Desired::Running => crds::DesiredState::Running,
        Desired::Paused => crds::DesiredState::Paused,
        Desired::Stopped => crds::DesiredState::Stopped,
    }
}

/// The time from `now` to `then`, or none when it has passed.
fn until(now: Timestamp, then: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// The time until what failed is tried again, or none when that is due. What lies further ahead than any pause was
/// noted by a clock that has been put back since.
fn until_retry(now: Timestamp, next: Timestamp) -> Option<Duration> {
    until(now, next).filter(|left| *left <= LONGEST_RETRY)
}

/// The time from `then` to `now`; zero when `then` is in the future.
fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
