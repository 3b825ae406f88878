//! The status of a freeze: how far it has come, from what the statuses of runtimes say and what their pods said last.

use std::collections::BTreeMap;

use crds::{AgentFreeze, AgentFreezeStatus, AgentRuntime, AgentRuntimeStatus, FreezePods, HeldState, RuntimeState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lifecycle::Desired;

use super::freeze_pods::PodCounts;
use super::freezes::{expires, held_by, in_force, may_select, name_of};
use super::policy::{self, crd_state};
use super::spans::{seconds, stands_since};
use crate::observe::fleet::Labels;
use crate::observe::index::Owner;

/// Runtimes listed in a freeze's status at most.
const LISTED: usize = 50;

/// What the status of a freeze is made from, beside the runtimes.
pub struct Sight<'a> {
    /// The labels of every namespace.
    pub namespaces: &'a BTreeMap<String, Labels>,
    /// The state and the epoch of an object's boot file in the store.
    pub stored: &'a dyn Fn(&AgentRuntime) -> Option<(Desired, i64)>,
    /// How an object's pods stand to a freeze that asks for this state.
    pub pods: &'a dyn Fn(&AgentRuntime, Desired) -> PodCounts,
    /// Objects that are gone, of which nothing is known but that they have pods.
    pub orphans: &'a [Owner],
    /// Whose pods a list showed that the watch has not shown; none without a list that was begun after the freeze was seen.
    pub unseen: Option<&'a [Owner]>,
}

/// The status of a freeze; none when it says what stands already. What is being deleted counts until it is gone with its
/// pods.
#[must_use]
pub fn report<'a>(
    freeze: &AgentFreeze,
    runtimes: impl Iterator<Item = &'a AgentRuntime>,
    sight: &Sight<'_>,
    now: Timestamp,
) -> Option<AgentFreezeStatus> {
    if freeze.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let live = in_force(freeze, now);
    let Sight { namespaces, stored, orphans, .. } = sight;
    let matched: Vec<&AgentRuntime> = held_by(freeze, runtimes, namespaces).filter(|_| live).collect();
    let status = |runtime: &'a AgentRuntime| runtime.status.as_ref();
    let (pending, reached): (Vec<&AgentRuntime>, Vec<&AgentRuntime>) = matched
        .iter()
        .partition(|runtime| !status(runtime).is_some_and(|status| is_reached(freeze, status, stored(runtime))));
    let is_unknown = |status: &AgentRuntimeStatus| status.state == Some(RuntimeState::Unknown);
    let unreachable = pending.iter().filter(|runtime| status(runtime).is_some_and(is_unknown)).count();
    let overdue = pending.iter().filter(|runtime| status(runtime).is_some_and(is_overdue)).count();
    let orphans = orphans.iter().filter(|owner| live && may_select(freeze, namespaces.get(&owner.namespace)));
    let orphans: Vec<_> = orphans.map(|owner| (owner.namespace.clone(), owner.name.clone())).collect();
    let (matched, unreachable) = (matched.len() + orphans.len(), unreachable + orphans.len());
    let asked = policy::held(freeze.spec.state);
    let held = pending.iter().chain(&reached);
    let pods = held.map(|runtime| (sight.pods)(runtime, asked)).fold(PodCounts::default(), PodCounts::and);
    let listed = sight.unseen.is_some_and(|unseen| {
        let concerns = |owner: &&Owner| may_select(freeze, namespaces.get(&owner.namespace));
        orphans.is_empty() && unseen.iter().find(concerns).is_none()
    });
    let counts = Counts { matched, reached: reached.len(), unreachable, overdue, pods, listed };
    let mut names: Vec<_> = pending.into_iter().map(name_of).chain(orphans).collect();
    names.sort_unstable();
    let names = names.into_iter().take(LISTED).map(|(space, name)| format!("{space}/{name}"));
    let next = AgentFreezeStatus {
        observed_generation: freeze.metadata.generation.unwrap_or(0),
        matched: count(counts.matched),
        reached: count(counts.reached),
        unreachable: count(unreachable),
        pods: FreezePods {
            total: count(pods.total),
            holding: count(pods.holding),
            idle: count(pods.idle),
            unreachable: count(pods.unreachable),
        },
        pending: names.collect(),
        conditions: conditions(freeze, live, &counts, now),
    };
    (freeze.status.as_ref() != Some(&next)).then_some(next)
}

struct Counts {
    matched: usize,
    reached: usize,
    unreachable: usize,
    overdue: usize,
    pods: PodCounts,
    /// A list has shown no pod that is not counted.
    listed: bool,
}

/// Every pod of the runtime has acknowledged a state at least as severe, and nothing is in flight: by a status of the very
/// epoch that the boot file has. One from before a resume says paused too.
fn is_reached(freeze: &AgentFreeze, status: &AgentRuntimeStatus, stored: Option<(Desired, i64)>) -> bool {
    let asked = policy::held(freeze.spec.state);
    let wanted = crd_state(asked);
    let speaks = match stored {
        Some((state, epoch)) => state >= asked && status.epoch == epoch,
        // One that was never commanded has no pod.
        None => status.epoch == 0 && status.replicas == 0,
    };
    let there = match freeze.spec.state {
        HeldState::Paused => matches!(status.state, Some(RuntimeState::Paused | RuntimeState::Stopped)),
        HeldState::Stopped => status.state == Some(RuntimeState::Stopped),
    };
    speaks && there && status.desired_state.is_some_and(|desired| desired >= wanted)
}

fn is_overdue(status: &AgentRuntimeStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == "Stalled" && c.reason == "DrainDeadlineExceeded")
}

fn conditions(freeze: &AgentFreeze, live: bool, counts: &Counts, now: Timestamp) -> Vec<Condition> {
    let Counts { matched, reached, unreachable, overdue, .. } = counts;
    let (ready, reason, message) = if !live {
        (
            "False",
            "Expired",
            "spec.expiresAt has passed and it holds nothing: delete it, or set a later time".to_owned(),
        )
    } else if matched == reached {
        ("True", "Frozen", format!("each of {matched} runtimes has acknowledged it, and nothing is in flight"))
    } else if *unreachable > 0 {
        (
            "Unknown",
            "RuntimesUnreachable",
            format!("{unreachable} of {matched} runtimes have a pod that does not answer"),
        )
    } else if *overdue > 0 {
        ("False", "DrainDeadlineExceeded", format!("{overdue} of {matched} runtimes still drain past their deadline"))
    } else {
        ("False", "Freezing", format!("{reached} of {matched} runtimes have acknowledged it"))
    };
    let message = message + never_ends(freeze);
    let [holding, idle] = of_pods(live, counts);
    let mut parts = vec![("Ready", ready, reason, message.clone()), holding, idle];
    match (ready, reason) {
        ("True", _) => {}
        (_, "Expired" | "DrainDeadlineExceeded") => parts.push(("Stalled", "True", reason, message)),
        _ => parts.push(("Reconciling", "True", reason, message)),
    }
    let condition = |(kind, status, reason, message): Part| {
        let before = stands_since(freeze.status.iter().flat_map(|s| &s.conditions), kind, status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: freeze.metadata.generation,
            last_transition_time: before.cloned().unwrap_or_else(|| seconds(now)),
        }
    };
    parts.into_iter().map(condition).collect()
}

type Part = (&'static str, &'static str, &'static str, String);

/// Holding and Idle: what pods say now, which is known before any boot file or status is written.
fn of_pods(live: bool, counts: &Counts) -> [Part; 2] {
    let PodCounts { total, holding, idle, unreachable } = counts.pods;
    if !live {
        let what = || "spec.expiresAt has passed and it holds nothing".to_owned();
        return [("Holding", "False", "Expired", what()), ("Idle", "False", "Expired", what())];
    }
    if unreachable > 0 {
        let what = || format!("{unreachable} of {total} pods do not answer");
        return [("Holding", "Unknown", "PodsUnreachable", what()), ("Idle", "Unknown", "PodsUnreachable", what())];
    }
    if !counts.listed {
        let what = || "not every pod that the API server lists is known yet".to_owned();
        return [("Holding", "Unknown", "PodsUnlisted", what()), ("Idle", "Unknown", "PodsUnlisted", what())];
    }
    let holds = if holding == total {
        ("Holding", "True", "PodsHolding", format!("each of {total} pods holds on disk, and nothing begins"))
    } else {
        ("Holding", "False", "Braking", format!("{holding} of {total} pods hold"))
    };
    let idles = if idle == total {
        ("Idle", "True", "NothingInFlight", format!("nothing is in flight in any of {total} pods"))
    } else {
        ("Idle", "False", "Draining", format!("{idle} of {total} pods hold with nothing in flight"))
    };
    [holds, idles]
}

/// What is to be known of an end that was asked for and will not come.
fn never_ends(freeze: &AgentFreeze) -> &'static str {
    match (&freeze.spec.expires_at, expires(freeze)) {
        (Some(_), None) => "; it does not end by itself: spec.expiresAt is no time that can come",
        (Some(_), Some(_)) | (None, _) => "",
    }
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "freeze_status_tests.rs"]
mod tests;
