//! Whether pods that run are drained before others replace them, and for how long that waits.

use lifecycle::Desired;

use super::blueprint::Blueprint;
use super::names::{deployment_key, name_of};
use super::pods::Standing;
use super::policy::{Policy, in_force, is_left_alone};
use super::spans::since;
use crate::observe::{DeploymentFacts, Observed};

/// Whether nothing can replace the pods at present: what would be applied is refused or cannot work, or somebody has
/// paused the Deployment. Pods that were drained for it would wait for ever.
fn is_withheld(seen: &Observed, blueprint: &Blueprint) -> bool {
    let key = deployment_key(name_of(&seen.runtime));
    let paused = seen.deployment.as_ref().is_some_and(|deployment| deployment.paused);
    let failing = seen.faults.children.contains_key(&key) || seen.foreign.contains_key(&key);
    blueprint.fault.is_some() || failing || paused
}

/// Whether pods that run are to be drained before the Deployment as it is wanted replaces them.
pub(super) fn must_drain(seen: &Observed, blueprint: &Blueprint) -> bool {
    let asked = seen.runtime.spec.lifecycle.drain_before_restart && !is_left_alone(seen);
    let deployment = seen.deployment.as_ref().filter(|deployment| asked && deployment.replicas > 0);
    deployment.is_some_and(|deployment| is_shown(seen) && replaces(deployment, blueprint))
}

/// Whether the API server has taken the template as a trial, and has not refused it since.
pub(super) fn is_tried(seen: &Observed, blueprint: &Blueprint) -> bool {
    seen.tried.as_deref() == Some(blueprint.hash.as_str())
}

/// Whether the pods are to be idle because others replace them: from when the API server has taken the changed template
/// as a trial until the last old pod is told to end, so that none of them goes back to work in between.
pub(super) fn drains(seen: &Observed, blueprint: &Blueprint) -> bool {
    let asked = seen.runtime.spec.lifecycle.drain_before_restart && !is_left_alone(seen);
    let asked = asked && !is_withheld(seen, blueprint);
    let Some(deployment) = seen.deployment.as_ref().filter(|_| asked) else { return false };
    let begun = in_force(seen).is_some_and(|file| file.state == Desired::Paused)
        && (!is_shown(seen) || !deployment.observed || deployment.replicas > deployment.updated);
    deployment.replicas > 0 && ((is_tried(seen, blueprint) && must_drain(seen, blueprint)) || begun)
}

/// Whether what the Deployment runs is not what is wanted. One that an older operator applied does not say.
fn replaces(deployment: &DeploymentFacts, blueprint: &Blueprint) -> bool {
    !deployment.template.is_empty() && deployment.template != blueprint.hash
}

fn is_shown(seen: &Observed) -> bool {
    let key = deployment_key(name_of(&seen.runtime));
    seen.children.get(&key).is_some_and(|facts| facts.shown)
}

/// Whether a pod is still waited for before the pods are replaced: it works, and its deadline has not passed.
pub(super) fn waits_for(standing: &Standing<'_>, seen: &Observed, policy: &Policy, now: jiff::Timestamp) -> bool {
    let deadline = standing.heard.and_then(|status| status.drain_deadline.as_ref()?.parse::<jiff::Timestamp>().ok());
    let patience = std::time::Duration::from_secs(u64::try_from(policy.deadline_seconds).unwrap_or(0));
    let overdue = match (deadline, seen.epoch_since) {
        (Some(deadline), _) => deadline <= now,
        // A runtime that does not say when its drain ends is given the same time by this process's clock.
        (None, Some((_, from))) => standing.acknowledged && since(now, from) >= patience,
        (None, None) => false,
    };
    !overdue && !standing.may_be_taken_away(policy.deadline_seconds)
}
