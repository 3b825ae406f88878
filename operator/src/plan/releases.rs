//! Which brakes a boot file lets go of. A name in it is proof that its reason is gone: the file was confirmed by the store
//! after the answer that showed the brake, and asks for all that stands by then.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lifecycle::brake::{MAX_RELEASES, is_id};
use lifecycle::wire::Status;
use lifecycle::{BootFile, Desired, State};

use super::policy::{Policy, in_force};
use super::spans::since;
use crate::observe::{Observed, PodFacts};

/// How often the epoch is raised for a brake alone: a pod that goes on to list one would have it raised for ever.
const RAISE: Duration = Duration::from_secs(10);

/// Whether another epoch is to let go of a brake that holds a pod in more than is asked for. One that the file names
/// already may have been set by a higher epoch than its own.
pub(super) fn are_due(seen: &Observed, file: &BootFile, policy: &Policy, now: Timestamp) -> bool {
    let begun = seen.epoch_since.filter(|(epoch, from)| *epoch == file.epoch && *from <= now);
    let may_raise = begun.is_none_or(|(_, from)| since(now, from) >= RAISE);
    // One that does not answer is let go of when it does.
    let answers = |pod: &PodFacts| seen.contacts.get(&pod.uid).is_some_and(|contact| contact.failing_since.is_none());
    may_raise && braked(seen).any(|(pod, status)| answers(pod) && is_held_back(status, file, policy))
}

fn is_held_back(status: &Status, file: &BootFile, policy: &Policy) -> bool {
    let unnamed = || status.brake_ids().iter().any(|id| !file.releases.contains(id));
    holds_more(status, policy) && (status.epoch >= file.epoch || unnamed())
}

/// The pod and the brake of one that was let go of in vain.
pub(super) fn stuck<'a>(seen: &'a Observed, file: &BootFile, policy: &Policy) -> Option<(&'a str, &'a str)> {
    let obeys = |status: &Status| status.epoch >= file.epoch && !status.awaiting_confirmation;
    let mut held = braked(seen).filter(|(_, status)| obeys(status) && holds_more(status, policy));
    held.find_map(|(pod, status)| {
        let id = status.brake_ids().iter().find(|id| file.releases.contains(id))?;
        Some((pod.name.as_str(), id.as_str()))
    })
}

/// Whether a pod may hold by a brake of which nothing is known: this process has just begun, and has not asked it yet.
pub(super) fn unheard(seen: &Observed) -> bool {
    let asked = |pod: &&Arc<PodFacts>| {
        let contact = seen.contacts.get(&pod.uid);
        contact.is_some_and(|contact| contact.answer.is_some() || contact.failing_since.is_some())
    };
    let live = seen.pods.iter().filter(|pod| !pod.ended && pod.container.is_some() && pod.address.is_some());
    live.filter(|pod| !asked(pod)).count() > 0
}

/// What is to be known of pods while the boot file that holds them cannot be written.
pub(super) fn told(seen: &Observed, policy: &Policy) -> String {
    let live = || seen.pods.iter().filter(|pod| !pod.ended && pod.container.is_some());
    let held = braked(seen).filter(|(pod, _)| pod.container.is_some()).count();
    let opens = in_force(seen).is_some_and(|file| file.state < policy.desired);
    if policy.desired == Desired::Running || !opens {
        return String::new();
    }
    format!(
        "; {held} of {} pods hold by brakes, and one that is replaced meanwhile runs until it is braked",
        live().count()
    )
}

/// Whether a pod is in a more severe state than is asked for.
fn holds_more(status: &Status, policy: &Policy) -> bool {
    match policy.desired {
        Desired::Running => true,
        Desired::Paused => matches!(status.state, State::Stopping | State::Stopped),
        Desired::Stopped => false,
    }
}

/// The names of all brakes that this process has made or pods list, for a file that is confirmed. A pod may hold by one
/// that it has not told of.
pub(super) fn listed(seen: &Observed, current: Option<&BootFile>) -> Vec<String> {
    let mut names = Vec::new();
    let heard = braked(seen).flat_map(|(_, status)| status.brake_ids());
    let known = seen.made.iter().chain(heard).filter(|id| is_id(id)).cloned();
    for id in known.chain(carried(seen, current)) {
        if names.len() < MAX_RELEASES && !names.contains(&id) {
            names.push(id);
        }
    }
    names
}

/// The names that the present file has, until every pod has answered without them. They were proven when they came in.
pub(super) fn carried(seen: &Observed, current: Option<&BootFile>) -> Vec<String> {
    let live = || seen.pods.iter().filter(|pod| !pod.ended);
    let silent = live().any(|pod| answer(seen, pod).is_none());
    let is_listed = |id: &String| braked(seen).any(|(_, status)| status.brake_ids().contains(id));
    let names = current.into_iter().flat_map(|file| &file.releases);
    names.filter(|id| silent || is_listed(id)).cloned().collect()
}

/// The pods that list brakes.
fn braked(seen: &Observed) -> impl Iterator<Item = (&PodFacts, &Status)> {
    let live = seen.pods.iter().filter(|pod| !pod.ended);
    live.filter_map(|pod| Some((pod.as_ref(), answer(seen, pod)?))).filter(|(_, status)| !status.brake_ids().is_empty())
}

/// Whether a pod holds by a brake that the file in the store does not let go of.
pub(super) fn any_unnamed(seen: &Observed) -> bool {
    let named = in_force(seen).map(|file| file.releases.as_slice()).unwrap_or_default();
    braked(seen).any(|(_, status)| status.brake_ids().iter().any(|id| !named.contains(id)))
}

/// What a pod said last. A brake outlives the container that set it.
fn answer<'a>(seen: &'a Observed, pod: &PodFacts) -> Option<&'a Status> {
    seen.contacts.get(&pod.uid)?.answer.as_ref().map(|heard| heard.status.as_ref())
}
