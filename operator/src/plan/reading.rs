//! What all pods together say: one state, whether it is reached, and what stands in the way.

use std::collections::HashSet;
use std::time::Duration;

use crds::RuntimeState;
use jiff::Timestamp;
use lifecycle::wire::HealthLevel;
use lifecycle::{Desired, State};

use super::children::Wanted;
use super::effective::{Effective, Kind};
use super::epoch::Decided;
use super::faults::{self, Trouble};
use super::hooks::Hooks;
use super::names::{boot_name, deployment_name, name_of};
use super::pods::Standing;
use super::policy::{Policy, in_force};
use super::releases;
use super::spans::{since, until};
use crate::observe::{AgentText, ChildKind, HookKind, Legible, Observed};

/// How long a pod may be without its database before the object says so.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pause waits at least for a pod without a container before the object says so.
const UNBORN: Duration = Duration::from_secs(30);
/// The least time between two lists of the pods for one epoch.
const LISTED_AGAIN: Duration = Duration::from_millis(200);

/// What all pods together say.
pub(super) struct Reading<'a> {
    pub(super) epoch: i64,
    /// The nonce of the last release of the pods' own holds.
    pub(super) resume_nonce: Option<String>,
    pub(super) state: RuntimeState,
    /// The effective state is reached by every pod that exists, and the rollout is complete.
    pub(super) ready: bool,
    /// A LIST of the pods is due: none was taken for this epoch, or only that is missing.
    pub(super) needs_barrier: bool,
    /// The same, whether or not it is to be tried now.
    pub(super) wants_barrier: bool,
    /// Why it cannot go on without somebody's help: a reason and a sentence.
    pub(super) stalled: Option<Trouble>,
    pub(super) unknown: Vec<&'a str>,
    pub(super) in_flight: Option<i64>,
    pub(super) deadline: Option<String>,
    pub(super) deadline_in: Option<Duration>,
    /// Which hook is under way, and in how many pods.
    pub(super) hooks: Option<(HookKind, usize)>,
    pub(super) rolled_out: bool,
    /// What is wrong with the spec, though the API server would take it.
    pub(super) fault: Option<Trouble>,
    pub(super) standings: &'a [Standing<'a>],
}

impl<'a> Reading<'a> {
    pub(super) fn of(
        seen: &Observed,
        decided: &Decided,
        effective: &Effective,
        hooks: &Hooks,
        standings: &'a [Standing<'a>],
        wanted: &Wanted,
        now: Timestamp,
    ) -> Self {
        let (policy, file) = (&effective.policy, &decided.file);
        let replicas = wanted.replicas;
        let reached = standings.iter().all(|s| s.reached);
        let leaves = seen.runtime.metadata.deletion_timestamp.is_some();
        let rolled_out = leaves
            || (!wanted.changes_pods
                && wanted.fault.is_none()
                && rolled_out(seen, standings, replicas, policy.desired));
        let barrier_holds = barrier_holds(seen, file.epoch, standings) && !decided.unwritten && !decided.unfenced;
        let tightening = policy.desired != Desired::Running;
        // The first LIST may run while the pushes do: a pod that is made after the boot ConfigMap was
        // written boots closed, and waits for the operator. One more is taken if that one showed a
        // pod that the watch has not.
        let listed = seen.barrier.as_ref().is_some_and(|barrier| barrier.epoch == file.epoch);
        // One that showed a pod that the watch has not shown is repeated, but not at the pace of the network.
        let again = seen.barrier.as_ref().filter(|barrier| barrier.epoch == file.epoch && barrier.at <= now);
        let paced = again.and_then(|barrier| LISTED_AGAIN.checked_sub(since(now, barrier.at)));
        let list_in = paced.filter(|_| tightening && !barrier_holds);
        let paced = paced.is_some_and(|left| !left.is_zero());
        let deadline = standings.iter().filter_map(|s| s.heard).filter_map(|s| s.drain_deadline.clone()).max();
        let at = deadline.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
        let left = standings.iter().filter_map(|standing| unborn_for(seen, standing, policy, now));
        let unborn_in = left.filter(|left| tightening && !left.is_zero()).min();
        let state = overall(standings, policy.desired, reached && (barrier_holds || !tightening), replicas);
        let wants_barrier =
            tightening && !barrier_holds && !decided.unwritten && !decided.unfenced && (reached || !listed);
        let mut reading = Self {
            epoch: file.epoch,
            resume_nonce: file.resume_nonce.clone(),
            state,
            ready: reached
                && rolled_out
                && (barrier_holds || !tightening)
                && !decided.unwritten
                && !decided.unfenced
                && effective.kind != Kind::Rollout
                && hooks.under_way.is_none(),
            hooks: hooks.under_way,
            wants_barrier,
            needs_barrier: wants_barrier && !paced && faults::is_due(seen.faults.pods.as_ref(), "", now),
            stalled: None,
            unknown: standings
                .iter()
                .filter(|s| s.state == RuntimeState::Unknown)
                .map(|s| s.pod.name.as_str())
                .collect(),
            in_flight: standings.iter().try_fold(0i64, |all, s| Some(all.saturating_add(in_flight(s)?))),
            deadline_in: at.and_then(|at| until(now, at)).into_iter().chain(list_in).chain(unborn_in).min(),
            deadline,
            rolled_out,
            fault: wanted.fault.clone(),
            standings,
        };
        let failed = hooks.failed.clone().map(|what| ("HookFailed", what));
        let overdue = at.is_some_and(|at| at <= now);
        reading.stalled = stalled(seen, &reading, effective, wanted, overdue, now).or(failed);
        reading
    }
}

/// Executions in flight in a pod; none when it is not known. A pod without a container has none.
fn in_flight(standing: &Standing<'_>) -> Option<i64> {
    match standing.heard {
        Some(status) if standing.state != RuntimeState::Unknown => status.in_flight,
        Some(_) | None if standing.pod.container.is_none() => Some(0),
        Some(_) | None => None,
    }
}

/// The LIST was taken for this epoch, and every pod in it has acknowledged. A pod that the watch has
/// not shown yet, or that has gone since, asks for another LIST.
fn barrier_holds(seen: &Observed, epoch: i64, standings: &[Standing<'_>]) -> bool {
    let Some(barrier) = seen.barrier.as_ref().filter(|barrier| barrier.epoch == epoch) else { return false };
    let ended = seen.pods.iter().filter(|pod| pod.ended).map(|pod| pod.uid.as_str());
    let reached = standings.iter().filter(|standing| standing.reached).map(|standing| standing.pod.uid.as_str());
    let done: HashSet<&str> = reached.chain(ended).collect();
    barrier.pods.iter().all(|uid| done.contains(uid.as_str()))
}

fn rolled_out(seen: &Observed, standings: &[Standing<'_>], replicas: i32, desired: Desired) -> bool {
    let Some(deployment) = &seen.deployment else { return false };
    // Right after an apply the watch still tells of the rollout before it.
    let shown = seen.children.iter().any(|(key, facts)| key.kind == ChildKind::Deployment && facts.shown);
    let pods = i32::try_from(standings.len()).unwrap_or(i32::MAX);
    let complete = shown
        && deployment.observed
        && deployment.wanted == replicas
        && deployment.replicas == replicas
        && deployment.updated == replicas
        && pods == replicas;
    complete && (desired != Desired::Running || deployment.ready == replicas)
}

/// One word for all pods. What is not proven is unknown, and unknown is never paused.
fn overall(standings: &[Standing<'_>], desired: Desired, proven: bool, replicas: i32) -> RuntimeState {
    let any = |state: RuntimeState| standings.iter().any(|s| s.state == state);
    if any(RuntimeState::Unknown) {
        return RuntimeState::Unknown;
    }
    match desired {
        Desired::Paused if proven => RuntimeState::Paused,
        Desired::Paused if any(RuntimeState::Starting) && !any(RuntimeState::Running) => RuntimeState::Starting,
        Desired::Paused => RuntimeState::Pausing,
        Desired::Stopped if standings.is_empty() && proven => RuntimeState::Stopped,
        Desired::Stopped => RuntimeState::Stopping,
        Desired::Running if standings.is_empty() && replicas == 0 => RuntimeState::Stopped,
        Desired::Running if any(RuntimeState::Running) => RuntimeState::Running,
        Desired::Running if !standings.iter().all(|s| s.acknowledged) => RuntimeState::Starting,
        // What pods hold themselves by is no more proven than what the operator asks for.
        Desired::Running if !standings.is_empty() && standings.iter().all(|s| s.state == RuntimeState::Paused) => {
            RuntimeState::Paused
        }
        Desired::Running if any(RuntimeState::Paused) || any(RuntimeState::Pausing) => RuntimeState::Pausing,
        Desired::Running => RuntimeState::Starting,
    }
}

/// The deadline is looked at before anything else: an error elsewhere must not hide it.
fn stalled(
    seen: &Observed,
    reading: &Reading<'_>,
    effective: &Effective,
    wanted: &Wanted,
    overdue: bool,
    now: Timestamp,
) -> Option<Trouble> {
    let (policy, file) = (&effective.policy, in_force(seen));
    // A rollout goes on past the deadline, without anybody's help.
    if overdue && policy.desired != Desired::Running && !reading.ready && effective.kind != Kind::Rollout {
        let busy = reading.standings.iter().filter(|s| !s.reached).map(|s| s.pod.name.as_str());
        let names: Vec<&str> = busy.take(5).collect();
        return Some(("DrainDeadlineExceeded", format!("still draining past the deadline: {}", names.join(", "))));
    }
    let name = boot_name(name_of(&seen.runtime));
    if let Some((reason, what)) = faults::of_boot(seen, &name, now) {
        return Some((reason, what + &releases::told(seen, policy)));
    }
    if let Some(trouble) = faults::of_pods(seen, now) {
        return Some(trouble);
    }
    if let Some((pod, brake)) = file.and_then(|file| releases::stuck(seen, file, policy)) {
        let what = format!(
            "{pod} still holds by brake {brake}, which was released: it is released again; delete the pod if this lasts"
        );
        return Some(("BrakeStuck", what));
    }
    if let Some(trouble) = illegible(seen).or_else(|| effective.trouble.clone()) {
        return Some(trouble);
    }
    if let Some(kind) = seen.unlisted {
        return Some(("ChildrenUnlisted", format!("{kind} cannot be listed, so children stay as they are")));
    }
    if effective.leaves_children(seen) {
        return None;
    }
    if let AgentText::Missing(what) = &seen.agent {
        return Some(("AgentNotFound", what.clone()));
    }
    if let Some(trouble) = reading.fault.clone().or_else(|| faults::of_children(seen, &wanted.outstanding, now)) {
        return Some(trouble);
    }
    if let Some(trouble) = rollout_trouble(seen, reading, wanted) {
        return Some(trouble);
    }
    if let Some(trouble) = reading.standings.iter().find_map(|standing| storage_trouble(seen, standing, now)) {
        return Some(trouble);
    }
    if policy.desired != Desired::Running && !reading.ready {
        return unborn_trouble(seen, reading, policy, now);
    }
    if policy.desired == Desired::Running {
        if let Some((reason, why)) = reading.standings.iter().find_map(own_trouble) {
            return Some((reason, why));
        }
        if let Some(why) = seen.deployment.as_ref().and_then(|d| d.failing.clone()) {
            return Some(("ProgressDeadlineExceeded", why));
        }
    }
    None
}

/// What of the object itself cannot be read.
fn illegible(seen: &Observed) -> Option<Trouble> {
    match &seen.legible {
        Legible::Whole => None,
        Legible::WithoutPods(why) => Some((
            "InvalidSpec",
            format!("spec.agent or spec.template cannot be decoded, so pods stay as they are: {why}; nest less deeply"),
        )),
        Legible::MetadataAlone(why) => {
            Some(("InvalidSpec", format!("the object cannot be decoded and is held as it was: {why}; apply it again")))
        }
    }
}

/// Why pods are not replaced.
fn rollout_trouble(seen: &Observed, reading: &Reading<'_>, wanted: &Wanted) -> Option<Trouble> {
    let deployment = seen.deployment.as_ref().filter(|deployment| deployment.paused && !reading.rolled_out)?;
    let name = deployment_name(name_of(&seen.runtime));
    let waits = wanted.changes_pods || deployment.updated < deployment.wanted;
    (waits || deployment.replicas > deployment.updated).then(|| {
        let what = format!("Deployment {name} is paused and replaces no pod: kubectl rollout resume deployment/{name}");
        ("RolloutPaused", what)
    })
}

/// How long a pause still waits for a pod without a container before the object says so; none for one that has one.
fn unborn_for(seen: &Observed, standing: &Standing<'_>, policy: &Policy, now: Timestamp) -> Option<Duration> {
    let pod = Some(standing.pod).filter(|pod| pod.container.is_none())?;
    let begun = seen.epoch_since.map_or(Timestamp::UNIX_EPOCH, |(_, from)| from);
    let patience = Duration::from_secs(u64::try_from(policy.deadline_seconds).unwrap_or(0)).max(UNBORN);
    Some(patience.saturating_sub(since(now, pod.created.map_or(begun, |created| created.max(begun)))))
}

/// Why a pause or stop waits for a pod in which nothing has begun to run.
fn unborn_trouble(seen: &Observed, reading: &Reading<'_>, policy: &Policy, now: Timestamp) -> Option<Trouble> {
    let overdue = |standing: &&Standing<'_>| unborn_for(seen, standing, policy, now) == Some(Duration::ZERO);
    let unborn = reading.standings.iter().find(overdue)?;
    let why = unborn.pod.waiting.as_deref().unwrap_or("it has not been started on a node");
    let what = format!("{} has no container yet, and boots by the boot file once it has: {why}", unborn.pod.name);
    Some(("PodsNotStarting", what))
}

/// Why a pod does not come up for want of the database it was given. A Secret that is made right after its object is
/// filled in meanwhile.
fn storage_trouble(seen: &Observed, standing: &Standing<'_>, now: Timestamp) -> Option<Trouble> {
    let from = seen.runtime.spec.database()?;
    let status = standing.heard.filter(|status| status.health.storage == HealthLevel::Unhealthy)?;
    let message = status.message.as_ref().filter(|_| matches!(status.state, State::Starting | State::Stopped))?;
    let patient = standing.pod.started.is_some_and(|started| since(now, started) < STORE_PATIENCE);
    (!patient).then(|| {
        let (pod, name, key) = (&standing.pod.name, &from.name, &from.key);
        let what = format!("spec.storage.postgres.urlSecretRef: key {key} of Secret {name}: {pod}: {message}");
        ("StorageUnavailable", what)
    })
}

/// Why a pod that acknowledged running does not run.
fn own_trouble(standing: &Standing<'_>) -> Option<Trouble> {
    let status = standing.heard.filter(|_| standing.acknowledged)?;
    let name = &standing.pod.name;
    let held = |hold: &str| status.holds.iter().any(|h| h == hold);
    match (standing.state, &status.message) {
        (RuntimeState::Stopped, Some(message)) => Some(("InvalidAgent", format!("{name}: {message}"))),
        (RuntimeState::Paused | RuntimeState::Pausing | RuntimeState::Stopped, _) if held("breaker") => Some((
            "CircuitOpen",
            format!("{name}: the circuit breaker holds it; change spec.resumeNonce once the cause is gone"),
        )),
        (RuntimeState::Paused | RuntimeState::Pausing | RuntimeState::Stopped, _) if held("local") => {
            Some(("LocalHold", format!("{name}: a person holds it; resume it there, or change spec.resumeNonce")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_run_and_has_no_pod_is_starting_and_never_paused() {
        for proven in [false, true] {
            assert_eq!(
                overall(&[], Desired::Running, proven, 1),
                RuntimeState::Starting,
                "nobody has acknowledged a pause"
            );
            assert_eq!(overall(&[], Desired::Running, proven, 0), RuntimeState::Stopped);
        }
    }
}
