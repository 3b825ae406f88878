//! Freezes: which of them hold an object, for how long after their end, and how far each has come.

use std::collections::{BTreeMap, HashMap};

use crds::{
    AgentFreeze, AgentFreezeSpec, AgentFreezeStatus, AgentRuntime, AgentRuntimeStatus, DesiredState, FreezeMode,
    HeldState, RuntimeState,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};
use lifecycle::{Desired, DrainMode};

use super::policy::{crd_state, held};
use super::spans::{seconds, stands_since};
use crate::observe::fleet::{Labels, Turn};
use crate::observe::index::Owner;

/// Runtimes listed in a freeze's status at most.
const LISTED: usize = 50;

/// Stands before a freeze's name in the source of what it holds.
pub(super) const SOURCE: &str = "Freeze ";

/// What a freeze asks of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) desired: Desired,
    pub(super) mode: Option<DrainMode>,
    pub(super) deadline_seconds: Option<i64>,
    pub(super) name: String,
    pub(super) why: String,
    /// How many go back to work each second after it.
    pub(super) resume_per_second: Option<i32>,
    /// When it ends by itself.
    pub(super) ends: Option<Timestamp>,
}

/// Whether a freeze selects an object; none when that cannot be known: the namespace has not been seen,
/// or a selector cannot be read.
#[must_use]
pub fn selects(freeze: &AgentFreeze, namespace: Option<&Labels>, runtime: &Labels) -> Option<bool> {
    let meets =
        |selector: &LabelSelector, labels: &Labels| Some(Selector::try_from(selector.clone()).ok()?.matches(labels));
    if let Some(selector) = &freeze.spec.runtime_selector
        && !meets(selector, runtime)?
    {
        return Some(false);
    }
    if freeze.spec.namespace_selector == LabelSelector::default() {
        return Some(true);
    }
    meets(&freeze.spec.namespace_selector, namespace?)
}

/// Whether a freeze may hold pods whose object is gone, and with it the labels by which it would be selected.
fn may_select(freeze: &AgentFreeze, namespace: Option<&Labels>) -> bool {
    let mut by_namespace = freeze.clone();
    by_namespace.spec.runtime_selector = None;
    selects(&by_namespace, namespace, &Labels::new()) != Some(false)
}

/// When a freeze ended or will end by itself. What cannot be read as a time never comes: 9999-12-31T23:59:59Z lies
/// beyond the calendar here, and a freeze does not end by a slip of the pen.
pub(crate) fn expires(freeze: &AgentFreeze) -> Option<Timestamp> {
    freeze.spec.expires_at.as_ref()?.parse().ok()
}

/// Whether a freeze is in force.
fn in_force(freeze: &AgentFreeze, now: Timestamp) -> bool {
    expires(freeze).is_none_or(|ends| ends > now)
}

/// What a freeze in force asks for.
pub(super) fn hold(freeze: &AgentFreeze, now: Timestamp) -> Option<Hold> {
    in_force(freeze, now).then(|| asked(freeze, expires(freeze)))
}

/// What a freeze that has ended still asks of an object whose turn to go back to work has not come.
pub(super) fn turn(turn: &Turn, now: Timestamp) -> Option<Hold> {
    let comes = not_before(&turn.freeze, turn.ended, turn.rank)?;
    (comes > now).then(|| asked(&turn.freeze, Some(comes)))
}

fn asked(freeze: &AgentFreeze, ends: Option<Timestamp>) -> Hold {
    let spec = &freeze.spec;
    Hold {
        desired: held(spec.state),
        mode: spec.mode.map(|mode| match mode {
            FreezeMode::Drain => DrainMode::Drain,
            FreezeMode::Checkpoint => DrainMode::Checkpoint,
            FreezeMode::Cancel => DrainMode::Cancel,
        }),
        deadline_seconds: spec.deadline_seconds.map(i64::from),
        name: freeze.name_any(),
        why: spec.reason.clone(),
        resume_per_second: spec.resume_per_second,
        ends,
    }
}

/// The places of the objects that a freeze held in the order in which they go back to work: by namespace
/// and name, so that another operator comes to the same one.
#[must_use]
pub fn order<'a>(
    freeze: &AgentFreeze,
    runtimes: impl Iterator<Item = &'a AgentRuntime>,
    namespaces: &BTreeMap<String, Labels>,
) -> HashMap<Owner, usize> {
    places(held_by(freeze, runtimes, namespaces).map(name_of).collect())
}

fn places(mut all: Vec<(String, String)>) -> HashMap<Owner, usize> {
    all.sort_unstable();
    all.into_iter().enumerate().map(|(rank, (namespace, name))| (Owner { namespace, name }, rank)).collect()
}

/// Freezes that are gone, as far as the objects that they held still tell, each with their places. When they ended is
/// not known: those that they held go back to work at their rate from now on.
#[must_use]
pub fn recall<'a>(
    runtimes: impl Iterator<Item = &'a AgentRuntime>,
    is_live: impl Fn(&str) -> bool,
) -> Vec<(AgentFreeze, HashMap<Owner, usize>)> {
    let mut held: BTreeMap<(String, HeldState), Vec<&AgentRuntime>> = BTreeMap::new();
    for runtime in runtimes {
        let Some(status) = runtime.status.as_ref().filter(|status| status.resume_per_second.is_some()) else {
            continue;
        };
        let Some(name) = status.source.strip_prefix(SOURCE).filter(|name| !is_live(name)) else { continue };
        let state = match status.desired_state {
            Some(DesiredState::Stopped) => HeldState::Stopped,
            Some(DesiredState::Paused) => HeldState::Paused,
            Some(DesiredState::Running) | None => continue,
        };
        held.entry((name.to_owned(), state)).or_default().push(runtime);
    }
    let rate = |runtime: &&AgentRuntime| runtime.status.as_ref().and_then(|status| status.resume_per_second);
    held.into_iter()
        .map(|((name, state), runtimes)| {
            let resume_per_second = runtimes.iter().filter_map(rate).min();
            let spec = AgentFreezeSpec { state, resume_per_second, ..AgentFreezeSpec::default() };
            (AgentFreeze::new(&name, spec), places(runtimes.into_iter().map(name_of).collect()))
        })
        .collect()
}

/// When the object at this place goes back to work.
fn not_before(freeze: &AgentFreeze, ended: Timestamp, rank: usize) -> Option<Timestamp> {
    let each_second = i64::from(freeze.spec.resume_per_second?).max(1);
    let rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let wait = SignedDuration::from_millis(rank.saturating_mul(1000) / each_second);
    Some(ended.checked_add(wait).unwrap_or(Timestamp::MAX))
}

/// When the last of so many objects has gone back to work.
#[must_use]
pub fn all_resumed(freeze: &AgentFreeze, ended: Timestamp, count: usize) -> Timestamp {
    not_before(freeze, ended, count).unwrap_or(ended)
}

fn held_by<'a>(
    freeze: &AgentFreeze,
    runtimes: impl Iterator<Item = &'a AgentRuntime>,
    namespaces: &BTreeMap<String, Labels>,
) -> impl Iterator<Item = &'a AgentRuntime> {
    runtimes.filter(|runtime| {
        let namespace = namespaces.get(runtime.namespace().as_deref().unwrap_or_default());
        selects(freeze, namespace, runtime.labels()) == Some(true)
    })
}

fn name_of(runtime: &AgentRuntime) -> (String, String) {
    (runtime.namespace().unwrap_or_default(), runtime.name_any())
}

/// The status of a freeze, from what the statuses of the runtimes say and what `stored` says of the state and the epoch of
/// their boot files; none when it says what stands already. What is being deleted counts until it is gone with its pods;
/// `orphans` are objects that are gone, of which nothing is known but that they have pods.
#[must_use]
pub fn report<'a>(
    freeze: &AgentFreeze,
    runtimes: impl Iterator<Item = &'a AgentRuntime>,
    namespaces: &BTreeMap<String, Labels>,
    stored: impl Fn(&AgentRuntime) -> Option<(Desired, i64)>,
    orphans: &[Owner],
    now: Timestamp,
) -> Option<AgentFreezeStatus> {
    if freeze.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let live = in_force(freeze, now);
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
    let counts = Counts { matched, reached: reached.len(), unreachable, overdue };
    let mut names: Vec<_> = pending.into_iter().map(name_of).chain(orphans).collect();
    names.sort_unstable();
    let names = names.into_iter().take(LISTED).map(|(space, name)| format!("{space}/{name}"));
    let next = AgentFreezeStatus {
        observed_generation: freeze.metadata.generation.unwrap_or(0),
        matched: count(counts.matched),
        reached: count(counts.reached),
        unreachable: count(unreachable),
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
}

/// Every pod of the runtime has acknowledged a state at least as severe, and nothing is in flight: by a status of the very
/// epoch that the boot file has. One from before a resume says paused too.
fn is_reached(freeze: &AgentFreeze, status: &AgentRuntimeStatus, stored: Option<(Desired, i64)>) -> bool {
    let asked = held(freeze.spec.state);
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
    let Counts { matched, reached, unreachable, overdue } = counts;
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
    let mut parts = vec![("Ready", ready)];
    match (ready, reason) {
        ("True", _) => {}
        (_, "Expired" | "DrainDeadlineExceeded") => parts.push(("Stalled", "True")),
        _ => parts.push(("Reconciling", "True")),
    }
    let condition = |(kind, status): (&str, &str)| {
        let before = stands_since(freeze.status.iter().flat_map(|s| &s.conditions), kind, status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.clone(),
            observed_generation: freeze.metadata.generation,
            last_transition_time: before.cloned().unwrap_or_else(|| seconds(now)),
        }
    };
    parts.into_iter().map(condition).collect()
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
#[path = "freezes_tests.rs"]
mod tests;
