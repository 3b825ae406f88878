//! The status: only what pods acknowledged, and nothing that has not been proven.

use std::time::Duration;

use crds::{AgentRuntime, AgentRuntimeStatus, PodReport, RuntimeHealth, RuntimeState};
use jiff::Timestamp;
use lifecycle::Desired;
use lifecycle::wire::{CounterScope, Health, Status};

use super::conditions;
use super::effective::Effective;
use super::freezes;
use super::manifest::selector;
use super::names::name_of;
use super::pods::Standing;
use super::policy::crd_state;
use super::reading::Reading;
use super::spans::since;
use super::steps::Announcement;
use crate::observe::{AgentText, Observed};

/// How long a transition may take before a status on the way is written. Most end sooner, and then
/// the API server sees one write instead of two.
const QUIET: Duration = Duration::from_secs(1);
/// The time between two statuses that only say how far the same step has come.
pub(super) const PROGRESS: Duration = Duration::from_secs(1);
/// How long a process may take to hear each pod once before it says that some have not answered.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// Pods listed in status at most.
const LISTED: usize = 50;

/// The status to write; none when it says what stands already.
pub(super) fn write(
    seen: &Observed,
    reading: &Reading<'_>,
    effective: &Effective,
    now: Timestamp,
) -> Option<AgentRuntimeStatus> {
    let runtime = seen.runtime.as_ref();
    let policy = &effective.policy;
    let counting = policy.desired != Desired::Running;
    let heard = || reading.standings.iter().filter_map(|s| s.heard);
    let total = |of: fn(&Status) -> i64| counting.then(|| over_pods(heard(), of));
    let count = |is: fn(&Standing<'_>) -> bool| to_i32(reading.standings.iter().filter(|s| is(s)).count());
    // What a spec asks for of which nothing is done is not answered.
    let generation = match runtime.status.as_ref() {
        Some(status) if effective.disabled => status.observed_generation,
        None if effective.disabled => -1,
        Some(_) | None => runtime.metadata.generation.unwrap_or(0),
    };
    let set = conditions::of(runtime, reading, effective, generation, now);
    let status = AgentRuntimeStatus {
        observed_generation: generation,
        epoch: reading.epoch,
        desired_state: Some(crd_state(policy.desired)),
        source: effective.source.clone(),
        reason: set.iter().find(|c| c.type_ == "Ready").map(|c| c.reason.clone()).unwrap_or_default(),
        state: Some(reading.state),
        replicas: to_i32(reading.standings.len()),
        ready_replicas: count(|s| s.serves()),
        acknowledged_replicas: count(|s| s.acknowledged),
        updated_replicas: seen.deployment.as_ref().map_or(0, |d| d.updated),
        selector: selector(&[name_of(runtime).to_owned()]),
        in_flight: reading.in_flight.filter(|_| counting),
        waiting_for_input: total(|s| s.waiting_for_input),
        queued: total(|s| s.queued),
        resume_per_second: effective.resume_per_second,
        resume_nonce: reading.resume_nonce.clone(),
        restart_nonce: if reading.rolled_out {
            runtime.spec.restart_nonce.clone()
        } else {
            runtime.status.as_ref().and_then(|status| status.restart_nonce.clone())
        },
        drain_deadline: reading.deadline.clone().filter(|_| counting && !reading.ready),
        entry_points: heard().map(|s| &s.entry_points).max_by_key(|names| names.len()).cloned().unwrap_or_default(),
        health: worst(heard().map(|s| s.health)),
        pods: reports(reading, counting),
        conditions: set,
    };
    (runtime.status.as_ref() != Some(&status)).then_some(status)
}

/// What pods count themselves is added up; what they count in a store that they share is the same in each, give or
/// take the moment in which it was read.
fn over_pods<'a>(all: impl Iterator<Item = &'a Status>, of: fn(&Status) -> i64) -> i64 {
    let (mut own, mut shared): (i64, i64) = (0, 0);
    for status in all {
        match status.counter_scope {
            CounterScope::Pod => own = i64::saturating_add(own, of(status)),
            CounterScope::Store => shared = shared.max(of(status)),
        }
    }
    own.saturating_add(shared)
}

fn worst(all: impl Iterator<Item = Health>) -> Option<RuntimeHealth> {
    let health = all.reduce(|a, b| Health {
        storage: a.storage.max(b.storage),
        llm: a.llm.max(b.llm),
        tools: a.tools.max(b.tools),
    })?;
    Some(RuntimeHealth {
        storage: health.storage.as_str().to_owned(),
        llm: health.llm.as_str().to_owned(),
        tools: health.tools.as_str().to_owned(),
    })
}

fn reports(reading: &Reading<'_>, counting: bool) -> Vec<PodReport> {
    let mut order: Vec<&Standing<'_>> = reading.standings.iter().collect();
    let first = |a: &&Standing<'_>, b: &&Standing<'_>| (a.reached, &a.pod.name).cmp(&(b.reached, &b.pod.name));
    if order.len() > LISTED {
        order.select_nth_unstable_by(LISTED, first);
        order.truncate(LISTED);
    }
    order.sort_by(first);
    let held_by = |s: &Standing<'_>| {
        let holders = s.heard.filter(|_| counting).map(|status| status.held_by.iter());
        holders.into_iter().flatten().map(|h| format!("{} at {}", h.execution, h.node)).collect()
    };
    order
        .into_iter()
        .map(|s| PodReport {
            name: s.pod.name.clone(),
            uid: s.pod.uid.clone(),
            state: s.state,
            acknowledged_epoch: s.heard.map_or(0, |status| status.epoch),
            in_flight: s.heard.and_then(|status| status.in_flight).filter(|_| counting),
            held_by: held_by(s),
            message: s.message.clone(),
        })
        .collect()
}

/// How long a status on the way is still kept back: most changes are done before people would read it. After that, one
/// that only says how far the same step has come, so that the drains of many pods are no load on the API server.
pub(super) fn kept_back(
    seen: &Observed,
    raised_now: bool,
    next: &AgentRuntimeStatus,
    now: Timestamp,
) -> Option<Duration> {
    if raised_now {
        return Some(QUIET);
    }
    // What comes from the future was noted before the clock was put back: how old it is is not known.
    let stands = seen.runtime.status.as_ref();
    // What stands says that nothing runs, and the pods may run by now.
    let overdue = |stands: &AgentRuntimeStatus| stands.desired_state > next.desired_state && claims_rest(stands);
    if stands.is_some_and(overdue) {
        return None;
    }
    let left = |of: Duration, from: Timestamp| {
        let age = (from <= now).then(|| since(now, from))?;
        of.checked_sub(age).filter(|left| !left.is_zero())
    };
    let begun = seen.epoch_since.and_then(|(_, from)| left(QUIET, from));
    let paced = seen.reported.and_then(|at| left(PROGRESS, at));
    // Pods that have neither answered nor failed to are not out of reach: this process has just begun to ask.
    let unasked = stands.is_some_and(|stands| stands.observed_generation >= 0) && unasked(seen);
    let unread = seen.agent == AgentText::Unknown && seen.faults.agent.is_none();
    let begins = unasked || ((unread || seen.unlisted.is_some()) && stands.is_some());
    let asking = seen.first_seen.filter(|_| begins).and_then(|from| left(FIRST_ROUND, from));
    begun.max(paced).max(asking)
}

/// Whether a status says that nothing runs.
pub(super) fn claims_rest(status: &AgentRuntimeStatus) -> bool {
    matches!(status.state, Some(RuntimeState::Paused | RuntimeState::Stopped))
}

fn unasked(seen: &Observed) -> bool {
    let live = seen.pods.iter().filter(|pod| !pod.ended && pod.container.is_some() && pod.address.is_some());
    live.into_iter().any(|pod| {
        let contact = seen.contacts.get(&pod.uid);
        contact.is_none_or(|contact| contact.answer.is_none() && contact.failures == 0)
    })
}

/// What people are told: each change of the reason of Ready, once.
pub(super) fn announcements(runtime: &AgentRuntime, next: &AgentRuntimeStatus) -> Vec<Announcement> {
    let before = runtime.status.as_ref().map(|s| s.reason.as_str()).unwrap_or_default();
    if before == next.reason {
        return Vec::new();
    }
    let ready = next.conditions.iter().find(|c| c.type_ == "Ready");
    let note = ready.map(|c| c.message.clone()).unwrap_or_default();
    let warning = next.conditions.iter().any(|c| c.type_ == "Stalled") || next.state == Some(RuntimeState::Unknown);
    let sources = runtime.status.iter().chain([next]).map(|status| status.source.as_str());
    let freeze = sources.into_iter().any(|source| source.starts_with(freezes::SOURCE));
    vec![Announcement { warning, freeze, reason: next.reason.clone(), note }]
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
