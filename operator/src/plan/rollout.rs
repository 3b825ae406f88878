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
    let paused = seen.deployment.as_ref().is_some_and(|deployment| deployment.paused);
    let failing = !seen.faults.children.is_empty() || !seen.foreign.is_empty();
    blueprint.fault.is_some() || failing || paused
}

/// Whether the pods are to be idle because others replace them: from the change of the template until the last
/// old pod is told to end, so that none of them goes back to work in between.
pub(super) fn drains(seen: &Observed, blueprint: &Blueprint) -> bool {
    let runtime = seen.runtime.as_ref();
    let asked = runtime.spec.lifecycle.drain_before_restart && !is_withheld(seen, blueprint) && !is_left_alone(seen);
    let Some(deployment) = seen.deployment.as_ref().filter(|_| asked) else { return false };
    let shown = is_shown(seen);
    let changed = shown && replaces(deployment, blueprint);
    let begun = in_force(seen).is_some_and(|file| file.state == Desired::Paused)
        && (!shown || !deployment.observed || deployment.replicas > deployment.updated);
    deployment.replicas > 0 && (changed || begun)
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
