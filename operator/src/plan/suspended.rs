//! An object that asks to be left alone, or whose children cannot be applied: what is still done about it.

use crds::DesiredState;
use lifecycle::Desired;

use super::children::{self, Wanted};
use super::epoch::Decided;
use super::names::{deployment_name, name_of};
use super::pods::Standing;
use super::policy::Policy;
use super::steps::Scale;
use crate::observe::Observed;

/// One that was never visited gets no boot ConfigMap: it has no pod that could read it.
pub(super) fn untouched(seen: &Observed, policy: &Policy) -> Option<Decided> {
    let runtime = seen.runtime.as_ref();
    let known = seen.boot.is_some() || runtime.status.as_ref().is_some_and(|status| status.epoch > 0);
    (!known).then(|| Decided { file: policy.file(runtime, 0), write: None })
}

/// Its children stay as they are, except that a freeze that stops it takes its pods away, and its end
/// brings them back.
pub(super) fn wanted(seen: &Observed, policy: &Policy, standings: &[Standing<'_>]) -> Wanted {
    let now = seen.deployment.as_ref().map_or(0, |deployment| deployment.wanted);
    let was_stopped = seen.runtime.status.as_ref().is_some_and(|s| s.desired_state == Some(DesiredState::Stopped));
    let replicas = match policy.desired {
        Desired::Stopped => children::replicas(seen, policy, standings),
        Desired::Running | Desired::Paused if was_stopped => seen.runtime.spec.replicas,
        Desired::Running | Desired::Paused => now,
    };
    Wanted::withheld(replicas)
}

/// The number of pods alone, where nothing else is applied: of an object that is left alone, and for a stop,
/// which takes the pods away whatever is wrong with the rest.
pub(super) fn scale(seen: &Observed, policy: &Policy, disabled: bool, wanted: &Wanted) -> Option<Scale> {
    let now = seen.deployment.as_ref()?.wanted;
    let due = wanted.withheld && wanted.replicas != now && (disabled || policy.desired == Desired::Stopped);
    due.then(|| Scale { deployment: deployment_name(name_of(&seen.runtime)), replicas: wanted.replicas })
}
