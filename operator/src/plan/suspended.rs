//! An object that asks to be left alone, or whose children cannot be applied: what is still done about it.

use crds::DesiredState;
use jiff::Timestamp;
use lifecycle::Desired;

use super::children::{self, Wanted};
use super::effective::Effective;
use super::epoch::Decided;
use super::faults;
use super::names::{deployment_key, name_of};
use super::pods::Standing;
use super::policy::Policy;
use super::steps::Scale;
use crate::observe::Observed;

/// One that was never visited gets no boot ConfigMap: it has no pod that could read it.
pub(super) fn untouched(seen: &Observed, policy: &Policy) -> Option<Decided> {
    let runtime = seen.runtime.as_ref();
    let known = seen.boot.is_some() || runtime.status.as_ref().is_some_and(|status| status.epoch > 0);
    (!known).then(|| Decided { file: policy.file(runtime, 0), write: None, unwritten: false, unfenced: false })
}

/// Its children stay as they are, except that a freeze that stops it takes its pods away, and its end
/// brings them back.
pub(super) fn wanted(seen: &Observed, policy: &Policy, standings: &[Standing<'_>]) -> Wanted {
    // Where Deployments cannot be listed, that there is no pod proves nothing.
    let unseen = if seen.unlisted.is_some() { seen.runtime.spec.replicas } else { 0 };
    let now = seen.deployment.as_ref().map_or(unseen, |deployment| deployment.wanted);
    let was_stopped = seen.runtime.status.as_ref().is_some_and(|s| s.desired_state == Some(DesiredState::Stopped));
    let replicas = match policy.desired {
        Desired::Stopped => children::replicas(seen, policy, standings),
        Desired::Running | Desired::Paused if was_stopped => seen.runtime.spec.replicas,
        Desired::Running | Desired::Paused => now,
    };
    Wanted::withheld(replicas)
}

/// The number of pods alone: of an object that is left alone, and for a stop, which takes the pods away whatever is wrong
/// with the rest, once the boot file in the store says so.
pub(super) fn scale(
    seen: &Observed,
    policy: &Policy,
    effective: &Effective,
    wanted: &Wanted,
    now: Timestamp,
) -> Option<Scale> {
    let shown = seen.deployment.as_ref()?.wanted;
    let key = deployment_key(name_of(&seen.runtime));
    let uid = seen.children.get(&key)?.uid.clone()?;
    let alone = effective.disabled || policy.desired == Desired::Stopped;
    let due = wanted.replicas != shown && alone && seen.runtime.metadata.deletion_timestamp.is_none();
    let due = due && faults::is_due(seen.faults.scale.as_ref(), "", now);
    due.then_some(Scale { deployment: key, uid, replicas: wanted.replicas })
}
