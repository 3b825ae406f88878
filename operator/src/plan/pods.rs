//! How each pod stands, and what is asked of it.

use std::net::SocketAddr;
use std::time::Duration;

use crds::{AgentRuntime, RuntimeState};
use jiff::Timestamp;
use lifecycle::wire::{Command, Status};
use lifecycle::{Desired, State};

use super::epoch::Decided;
use super::keys;
use super::names::uid_of;
use super::policy::Policy;
use super::spans::{since, until_retry};
use super::steps::{Call, Order};
use crate::observe::{Contact, Heard, Observed, PodFacts, calls_ended};

/// Pods that have converged are asked again after about this long.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Pods that are due within this time are asked together: each look at an object is a look at all its pods.
const TOGETHER: Duration = Duration::from_secs(5);
/// How long a drain is followed by one call.
const FOLLOW: Duration = Duration::from_secs(20);
/// The least time between an answer and the next question: an image that answers a long poll at once, or whose status
/// changes all the time, is asked no more often.
const APART: Duration = Duration::from_millis(50);
/// How long a container may take from its start to its first answer before it counts as unknown.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// A pod and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Standing<'a> {
    pub(super) pod: &'a PodFacts,
    /// The last answer, if the container that gave it still runs.
    pub(super) heard: Option<&'a Status>,
    /// The pod holds the epoch durably.
    pub(super) acknowledged: bool,
    /// The pod is where the epoch wants it.
    pub(super) reached: bool,
    /// What status says of it.
    pub(super) state: RuntimeState,
    /// Why nothing is known, or what it says of itself.
    pub(super) message: Option<String>,
    /// How long it has been out of reach.
    out_of_reach: Option<Duration>,
}

impl Standing<'_> {
    /// Whether the pod accepts work: it passes its probe, and has not said since that it runs nothing.
    /// A probe notices a pause a second later, which would be one more change of the status.
    pub(super) fn serves(&self) -> bool {
        self.pod.ready && self.heard.is_none_or(|status| status.state == State::Running)
    }

    /// Whether work may be under way in it: it does not say that there is none.
    pub(super) fn is_busy(&self) -> bool {
        self.pod.container.is_some()
            && self.state != RuntimeState::Starting
            && !self.heard.is_some_and(|status| self.state != RuntimeState::Unknown && status.idle())
    }

    /// Whether a stop may take this pod away.
    pub(super) fn may_be_taken_away(&self, drain_seconds: i64) -> bool {
        let patience = Duration::from_secs(u64::try_from(drain_seconds).unwrap_or(0));
        self.reached || self.pod.ended || self.out_of_reach.is_some_and(|gone| gone >= patience)
    }
}

pub(super) fn standings<'a>(seen: &'a Observed, epoch: i64, desired: Desired, now: Timestamp) -> Vec<Standing<'a>> {
    let live = seen.pods.iter().filter(|pod| !pod.ended);
    let begun = seen.epoch_since.map_or(now, |(_, from)| from);
    live.map(|pod| standing(pod, seen.contacts.get(&pod.uid), (epoch, begun), desired, now)).collect()
}

fn standing<'a>(
    pod: &'a PodFacts,
    contact: Option<&'a Contact>,
    (epoch, begun): (i64, Timestamp),
    desired: Desired,
    now: Timestamp,
) -> Standing<'a> {
    // An answer belongs to the container that gave it: a restarted one has acknowledged nothing yet.
    let answer = contact.and_then(|c| c.answer.as_ref()).filter(|a| a.container == pod.container);
    let heard = answer.map(|a| a.status.as_ref()).filter(|_| pod.container.is_some());
    let failing = contact.and_then(|c| c.failing_since);
    let acknowledged = heard.is_some_and(|s| s.epoch >= epoch && !s.awaiting_confirmation);
    let there = heard.is_some_and(|s| is_there(s, desired));
    // A pod on its way out stops answering when its process ends, which proves nothing bad: what it
    // acknowledged is on its disk, and an old pod of a running object is to go.
    let leaving = pod.terminating && (desired == Desired::Running || (acknowledged && there));
    let (state, message) = match (heard, failing) {
        (_, Some(_)) if pod.container.is_some() && leaving => (RuntimeState::Stopping, None),
        (_, Some(_)) if pod.container.is_some() && !coming_up(pod, now, heard) => {
            (RuntimeState::Unknown, contact.and_then(|c| c.error.clone()))
        }
        (Some(status), _) => (report(status), status.message.clone()),
        (None, _) => silent(pod, now),
    };
    let reached = acknowledged && there && state != RuntimeState::Unknown;
    let out_of_reach = match (pod.container.is_some(), failing) {
        (true, Some(from)) => Some(since(now, from)),
        // No container runs: nothing can be executing, and a stop need not wait for one to come up.
        (false, _) => Some(Duration::MAX),
        // One that is never called cannot say that it has stopped, and holds a stop up no longer than one that hangs.
        (true, None) if pod.unsafe_target.is_some() => Some(since(now, begun)),
        (true, None) => None,
    };
    Standing { pod, heard, acknowledged, reached, state, message, out_of_reach }
}

fn is_there(status: &Status, desired: Desired) -> bool {
    match desired {
        Desired::Running => status.state == State::Running,
        Desired::Paused => matches!(status.state, State::Paused | State::Stopped) && status.idle(),
        Desired::Stopped => status.state == State::Stopped && status.idle(),
    }
}

fn coming_up(pod: &PodFacts, now: Timestamp, heard: Option<&Status>) -> bool {
    heard.is_none() && pod.started.is_none_or(|started| since(now, started) < FIRST_ANSWER)
}

fn silent(pod: &PodFacts, now: Timestamp) -> (RuntimeState, Option<String>) {
    if let Some(why) = &pod.unsafe_target {
        return (RuntimeState::Unknown, Some(why.clone()));
    }
    match (&pod.container, &pod.waiting) {
        (None, Some(why)) => (RuntimeState::Starting, Some(why.clone())),
        (None, None) => (RuntimeState::Starting, None),
        (Some(_), _) if coming_up(pod, now, None) => (RuntimeState::Starting, None),
        (Some(_), _) => (RuntimeState::Unknown, Some("it has not answered yet".to_owned())),
    }
}

fn report(status: &Status) -> RuntimeState {
    match status.state {
        State::Stopped => RuntimeState::Stopped,
        State::Starting => RuntimeState::Starting,
        State::Running => RuntimeState::Running,
        State::Pausing => RuntimeState::Pausing,
        State::Paused if status.idle() => RuntimeState::Paused,
        // A pod that says paused without saying that nothing is in flight is taken for busy.
        State::Paused => RuntimeState::Pausing,
        State::Stopping => RuntimeState::Stopping,
    }
}

/// What is asked of the pods now. A pod that acknowledged the epoch is never commanded again in the
/// same boot, so a person's own pause is not fought.
pub(super) fn orders(
    runtime: &AgentRuntime,
    seen: &Observed,
    standings: &[Standing<'_>],
    decided: &Decided,
    policy: &Policy,
    now: Timestamp,
) -> Vec<Order> {
    let port = u16::try_from(runtime.spec.lifecycle.port).unwrap_or(8080);
    let reachable = standings.iter().filter(|s| s.pod.container.is_some());
    reachable
        .filter_map(|standing| {
            let address = SocketAddr::new(standing.pod.address?, standing.pod.port.unwrap_or(port));
            let call = call(runtime, seen, standing, decided, policy, now)?;
            Some(Order {
                pod: standing.pod.uid.clone(),
                name: standing.pod.name.clone(),
                address,
                container: standing.pod.container.clone(),
                ready: standing.pod.ready,
                ended: calls_ended(&seen.contacts, &standing.pod.uid),
                signer: keys::signer(runtime, &decided.file, standing.heard),
                call,
            })
        })
        .collect()
}

fn call(
    runtime: &AgentRuntime,
    seen: &Observed,
    standing: &Standing<'_>,
    decided: &Decided,
    policy: &Policy,
    now: Timestamp,
) -> Option<Call> {
    let file = &decided.file;
    let contact = seen.contacts.get(&standing.pod.uid);
    let commands = !standing.acknowledged && !decided.unwritten;
    // A new epoch is worth a call to a pod that was away a moment ago.
    let fresh = commands && contact.is_some_and(|contact| contact.failed_epoch != Some(file.epoch));
    let waits = contact.and_then(|c| c.next_attempt).and_then(|next| until_retry(now, next)).is_some();
    if waits && !fresh {
        return None;
    }
    let loosening_a_dying_pod = standing.pod.terminating && policy.desired == Desired::Running;
    let knows_brakes = standing.heard.is_some_and(Status::knows_brakes);
    // What a pod knows is heard before a command that is to let go of its brakes: without their names it would not.
    let asks = policy.desired == Desired::Running && !file.releases.is_empty() && standing.heard.is_none();
    // Commands speak of the file in the store alone: a pod that boots obeys nothing else.
    if commands && !loosening_a_dying_pod && !asks {
        let body = Command {
            epoch: Some(file.epoch),
            runtime_uid: Some(uid_of(runtime).to_owned()),
            pod_uid: Some(standing.pod.uid.clone()),
            mode: Some(policy.mode),
            deadline_seconds: Some(policy.deadline_seconds),
            on_timeout: Some(policy.on_timeout),
            release_epoch: Some(file.release_epoch).filter(|release| *release > 0),
            // Others refuse a field that they do not know.
            releases: file.releases.iter().filter(|_| knows_brakes).cloned().collect(),
        };
        return Some(Call::Command { verb: policy.desired.verb(), body: Box::new(body) });
    }
    let Some(status) = standing.heard else { return Some(Call::Ask { after: None }) };
    let answer = contact.and_then(|c| c.answer.as_ref())?;
    // Work that protects a pod is to be noticed when it begins and ends.
    if since(now, answer.at) < APART && answer.at <= now {
        return None;
    }
    let followed =
        runtime.spec.lifecycle.disruption_protection_seconds.is_some() && standing.state == RuntimeState::Running;
    if followed || (!standing.reached && !settled_elsewhere(status)) {
        return Some(Call::Ask { after: Some((answer.version.to_string(), FOLLOW)) });
    }
    let old = until_due(standing.pod, answer, now).is_none();
    let changed = answer.ready != standing.pod.ready;
    let failing = contact.is_some_and(|c| c.failing_since.is_some());
    (old || changed || failing).then_some(Call::Ask { after: None })
}

/// The time until a pod that has converged is asked again, or none when that is due.
fn until_due(pod: &PodFacts, answer: &Heard, now: Timestamp) -> Option<Duration> {
    // An answer from the future came before the clock was put back.
    let age = if answer.at > now { Duration::MAX } else { since(now, answer.at) };
    ask_every(pod).checked_sub(age).filter(|left| *left >= TOGETHER)
}

/// `ASK_EVERY`, up to a sixth less or more by the pod's UID: pods that came up together are not asked together.
fn ask_every(pod: &PodFacts) -> Duration {
    let mixed = pod.uid.bytes().fold(7u32, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    ASK_EVERY * (100 + mixed % 41) / 120
}

/// States that last: following them by long poll would only hold connections.
fn settled_elsewhere(status: &Status) -> bool {
    matches!(status.state, State::Running | State::Stopped)
        || (status.state == State::Paused && status.holds.iter().any(|hold| hold != "operator"))
}

/// When to look again, though nothing happened. A pod that is asked by this look is due once more when its answer is
/// old: one that changes nothing wakes nobody.
pub(super) fn look_again(seen: &Observed, standings: &[Standing<'_>], now: Timestamp) -> Duration {
    let due = standings.iter().filter_map(|standing| {
        let contact = seen.contacts.get(&standing.pod.uid)?;
        let retry = contact.next_attempt.and_then(|next| until_retry(now, next));
        let routine = contact
            .answer
            .as_ref()
            .map(|answer| until_due(standing.pod, answer, now).unwrap_or_else(|| ask_every(standing.pod)));
        let paced = contact.answer.as_ref().and_then(|answer| APART.checked_sub(since(now, answer.at)));
        let paced = paced.filter(|_| !standing.reached && retry.is_none());
        paced.or(retry).or(routine)
    });
    let coming = standings.iter().any(|s| s.heard.is_none() && s.pod.container.is_some());
    let first = if coming { Duration::from_secs(1) } else { Duration::from_secs(300) };
    due.min().unwrap_or(first).min(first).max(Duration::from_millis(50))
}
