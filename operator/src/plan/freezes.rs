//! Freezes: which of them hold an object, for how long after their end, and how far each has come.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crds::{AgentFreeze, AgentFreezeSpec, AgentRuntime, DesiredState, FreezeMode, HeldState};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};
use lifecycle::{Desired, DrainMode};

use super::policy;
use crate::observe::fleet::{Labels, Turn};
use crate::observe::index::Owner;

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
    /// The UID and the generation of the freeze.
    pub(super) of: (String, i64),
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
pub(super) fn may_select(freeze: &AgentFreeze, namespace: Option<&Labels>) -> bool {
    let mut by_namespace = freeze.clone();
    by_namespace.spec.runtime_selector = None;
    selects(&by_namespace, namespace, &Labels::new()) != Some(false)
}

/// When a freeze ended or will end by itself. What cannot be read as a time never comes: 9999-12-31T23:59:59Z lies
/// beyond the calendar here, and a freeze does not end by a slip of the pen.
pub(crate) fn expires(freeze: &AgentFreeze) -> Option<Timestamp> {
    freeze.spec.expires_at.as_ref()?.parse().ok()
}

/// The name of a freeze that has ended by itself, by this clock and not by the API server's. A clock that is not known
/// agrees with none.
pub(crate) fn ended(freeze: &AgentFreeze, now: Timestamp, api_server: Option<Timestamp>) -> Option<String> {
    let ends = expires(freeze).filter(|ends| *ends <= now)?;
    // The header has whole seconds.
    let agrees = api_server.is_some_and(|date| ends.as_second() <= date.as_second());
    (!agrees).then(|| freeze.name_any())
}

/// Whether a freeze is in force.
pub(super) fn in_force(freeze: &AgentFreeze, now: Timestamp) -> bool {
    expires(freeze).is_none_or(|ends| ends > now)
}

/// What a freeze in force asks for.
pub(super) fn hold(freeze: &AgentFreeze, now: Timestamp) -> Option<Hold> {
    in_force(freeze, now).then(|| asked(freeze, expires(freeze)))
}

/// What a freeze that has ended still asks of an object whose turn to go back to work has not come.
pub(super) fn turn(turn: &Turn, now: Timestamp) -> Option<Hold> {
    let comes = not_before(&turn.freeze, turn.ended, turn.rank);
    (comes > now).then(|| asked(&turn.freeze, Some(comes)))
}

fn asked(freeze: &AgentFreeze, ends: Option<Timestamp>) -> Hold {
    let spec = &freeze.spec;
    Hold {
        desired: policy::held(spec.state),
        mode: spec.mode.map(|mode| match mode {
            FreezeMode::Drain => DrainMode::Drain,
            FreezeMode::Checkpoint => DrainMode::Checkpoint,
            FreezeMode::Cancel => DrainMode::Cancel,
        }),
        deadline_seconds: spec.deadline_seconds.map(i64::from),
        name: freeze.name_any(),
        why: spec.reason.clone(),
        resume_per_second: Some(spec.resume_per_second.unwrap_or(RESUME_PER_SECOND)),
        ends,
        of: (freeze.uid().unwrap_or_default(), freeze.metadata.generation.unwrap_or(0)),
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

/// How many runtimes go back to work each second after a freeze that does not say.
pub(super) const RESUME_PER_SECOND: i32 = 100;

/// When the object at this place goes back to work.
fn not_before(freeze: &AgentFreeze, ended: Timestamp, rank: usize) -> Timestamp {
    let each_second = i64::from(freeze.spec.resume_per_second.unwrap_or(RESUME_PER_SECOND)).max(1);
    let rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let wait = SignedDuration::from_millis(rank.saturating_mul(1000) / each_second);
    ended.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// The objects whose statuses say that a freeze holds them.
pub(crate) fn held(freeze: &AgentFreeze, runtimes: &[Arc<AgentRuntime>]) -> HashSet<Owner> {
    let source = format!("{SOURCE}{}", freeze.name_any());
    let holds = |runtime: &&Arc<AgentRuntime>| runtime.status.as_ref().is_some_and(|status| status.source == source);
    runtimes.iter().filter(holds).map(|runtime| Owner::of(runtime)).collect()
}

/// When the last of so many objects has gone back to work.
#[must_use]
pub fn all_resumed(freeze: &AgentFreeze, ended: Timestamp, count: usize) -> Timestamp {
    not_before(freeze, ended, count)
}

pub(super) fn held_by<'a>(
    freeze: &AgentFreeze,
    runtimes: impl Iterator<Item = &'a AgentRuntime>,
    namespaces: &BTreeMap<String, Labels>,
) -> impl Iterator<Item = &'a AgentRuntime> {
    runtimes.filter(|runtime| {
        let namespace = namespaces.get(runtime.namespace().as_deref().unwrap_or_default());
        selects(freeze, namespace, runtime.labels()) == Some(true)
    })
}

pub(super) fn name_of(runtime: &AgentRuntime) -> (String, String) {
    (runtime.namespace().unwrap_or_default(), runtime.name_any())
}

#[cfg(test)]
#[path = "freezes_tests.rs"]
mod tests;
