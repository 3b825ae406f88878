//! Hooks: what pods are told before they are paused and after they are resumed, and what waits for it.
//!
//! Which pods are still to be called stands beside the boot file, in the same object: it is written before the
//! first call, and with the new epoch. So another operator goes on where this one ended. A call that was answered
//! while its operator died is made again, under the same key.

use std::collections::HashMap;
use std::time::Duration;

use crds::{AgentRuntime, FailurePolicy, Hook};
use jiff::Timestamp;
use lifecycle::{BootFile, Desired, State};

use super::effective::{Effective, Kind};
use super::names::uid_of;
use super::policy::in_force;
use super::settings::Settings;
use super::spans::until_retry;
use super::steps::{Call, Deed, Order};
use crate::observe::pod::AGENT_CONTAINER;
use crate::observe::{HookKind, HookOutcome, HookRecord, HookTurn, Observed, PodFacts, calls_ended};

/// What hooks ask for in one plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Hooks {
    /// The pause waits: what is in force stays so.
    pub(super) holds: bool,
    /// What is to stand beside the boot file while its epoch stays.
    pub(super) record: Option<HookRecord>,
    /// Pods to be called once a resume is in force, and when it was asked for.
    resumed: Option<(Timestamp, Vec<String>)>,
    /// Which hook is under way, and in how many pods.
    pub(super) under_way: Option<(HookKind, usize)>,
    /// What a pod answered that is not passed over.
    pub(super) failed: Option<String>,
    calls: Vec<String>,
    again: Option<Duration>,
}

impl Hooks {
    /// What is to stand beside the boot file of a new epoch.
    pub(super) fn resumed(&self, epoch: i64) -> Option<HookRecord> {
        let (begun, left) = self.resumed.clone()?;
        Some(HookRecord { turn: HookTurn { hook: HookKind::PostResume, epoch, begun }, left })
    }

    /// How long until a failed call is made again.
    pub(super) fn again(&self) -> Option<Duration> {
        self.again
    }
}

/// Decides. A freeze is an emergency and waits for nothing; neither does a stop.
pub(super) fn decide(seen: &Observed, effective: &Effective, now: Timestamp) -> Hooks {
    let recorded = seen.boot.as_ref().and_then(|boot| boot.hooks.clone());
    let keep = Hooks { record: recorded.clone(), ..Hooks::default() };
    let Some(file) = in_force(seen).filter(|_| !effective.disabled) else { return keep };
    let lifecycle = &seen.runtime.spec.lifecycle;
    match (file.state, effective.policy.desired) {
        (Desired::Running, Desired::Paused) if effective.kind != Kind::Freeze => {
            let Some(hook) = &lifecycle.pre_pause else { return keep };
            let epoch = file.epoch.saturating_add(1);
            let begun = recorded.filter(|record| is_of(record, HookKind::PrePause, epoch));
            if begun.is_none() && unheard(seen) > 0 {
                return Hooks { holds: true, under_way: Some((HookKind::PrePause, unheard(seen))), ..keep };
            }
            let record = begun.unwrap_or_else(|| HookRecord {
                // The same in each plan, also while the record cannot be written.
                turn: HookTurn { hook: HookKind::PrePause, epoch, begun: seen.onset.as_ref().map_or(now, |o| o.begun) },
                left: running(seen, file),
            });
            let hooks = go_on(seen, file, hook, record, now);
            Hooks { holds: hooks.under_way.is_some(), ..hooks }
        }
        (Desired::Running, Desired::Running) => {
            // What is left of a pause that was taken back is forgotten: the next one is another.
            let begun = recorded.filter(|record| is_of(record, HookKind::PostResume, file.epoch));
            let Some((hook, record)) = lifecycle.post_resume.as_ref().zip(begun) else { return Hooks::default() };
            go_on(seen, file, hook, record, now)
        }
        (Desired::Paused | Desired::Stopped, Desired::Running) if lifecycle.post_resume.is_some() => {
            if unheard(seen) > 0 {
                return Hooks { holds: true, under_way: Some((HookKind::PostResume, unheard(seen))), ..keep };
            }
            let resumed = live(seen).filter(|pod| acknowledged(seen, pod, file)).map(|pod| pod.uid.clone());
            let resumed: Vec<String> = resumed.collect();
            Hooks { resumed: (!resumed.is_empty()).then_some((now, resumed)), ..keep }
        }
        (Desired::Running | Desired::Paused | Desired::Stopped, _) => keep,
    }
}

fn is_of(record: &HookRecord, hook: HookKind, epoch: i64) -> bool {
    (record.turn.hook, record.turn.epoch) == (hook, epoch)
}

/// Takes out of the record what is settled, and calls the others.
fn go_on(seen: &Observed, file: &BootFile, hook: &Hook, mut record: HookRecord, now: Timestamp) -> Hooks {
    let outcome = |uid: &str| {
        let said = seen.contacts.get(uid)?.hook.as_deref()?;
        (said.turn == record.turn).then(|| said.clone())
    };
    let (kind, passes_over) = (record.turn.hook, hook.failure_policy == FailurePolicy::Ignore);
    let settled = |said: &HookOutcome| said.error.is_none() || passes_over;
    let pods = by_uid(seen);
    let mut hooks = Hooks::default();
    for uid in std::mem::take(&mut record.left) {
        let Some(pod) = pods.get(uid.as_str()) else { continue };
        let said = outcome(&uid);
        if said.as_ref().is_some_and(settled) {
            continue;
        }
        let due = said.as_ref().and_then(|said| until_retry(now, said.next_attempt));
        hooks.again = [hooks.again, due].into_iter().flatten().min();
        if due.is_none() && runs(seen, pod, file) {
            hooks.calls.push(uid.clone());
        }
        if let Some(error) = said.and_then(|said| said.error) {
            hooks.failed = Some(format!("spec.lifecycle.{} of {}: {error}", kind.as_str(), pod.name));
        }
        record.left.push(uid);
    }
    if !record.left.is_empty() {
        hooks.under_way = Some((kind, record.left.len()));
        hooks.record = Some(record);
    }
    hooks
}

/// The calls to make now.
pub(super) fn orders(seen: &Observed, hooks: &Hooks) -> Vec<Order> {
    let lifecycle = &seen.runtime.spec.lifecycle;
    let Some(record) = &hooks.record else { return Vec::new() };
    let turn = record.turn;
    let hook = match turn.hook {
        HookKind::PrePause => lifecycle.pre_pause.as_ref(),
        HookKind::PostResume => lifecycle.post_resume.as_ref(),
    };
    let Some(hook) = hook else { return Vec::new() };
    let port = hook.http.as_ref().and_then(|http| http.port).unwrap_or(lifecycle.port);
    let port = u16::try_from(port).unwrap_or(8080);
    let pods = by_uid(seen);
    let called = hooks.calls.iter().filter_map(|uid| pods.get(uid.as_str()));
    called
        .filter_map(|pod| {
            Some(Order {
                pod: pod.uid.clone(),
                name: pod.name.clone(),
                address: (pod.address?, port).into(),
                container: pod.container.clone(),
                ready: pod.ready,
                ended: calls_ended(&seen.contacts, &pod.uid),
                signer: None,
                call: Call::Hook {
                    turn,
                    deed: deed(hook)?,
                    key: [
                        uid_of(&seen.runtime),
                        &turn.epoch.to_string(),
                        turn.hook.as_str(),
                        &turn.begun.to_string(),
                        &pod.uid,
                    ]
                    .join("/"),
                    timeout: Duration::from_secs(u64::try_from(hook.timeout_seconds).unwrap_or(1)),
                },
            })
        })
        .collect()
}

fn deed(hook: &Hook) -> Option<Deed> {
    let exec = hook.exec.as_ref().map(|exec| Deed::Exec {
        container: exec.container.clone().unwrap_or_else(|| AGENT_CONTAINER.to_owned()),
        command: exec.command.clone(),
    });
    exec.or_else(|| Some(Deed::Post(hook.http.as_ref()?.path.clone())))
}

/// What is wrong with the hooks, though the API server would take them: said before the first pause, which would
/// wait for them.
pub(super) fn fault(runtime: &AgentRuntime, settings: &Settings) -> Option<(&'static str, String)> {
    let lifecycle = &runtime.spec.lifecycle;
    let hooks = [(HookKind::PrePause, &lifecycle.pre_pause), (HookKind::PostResume, &lifecycle.post_resume)];
    let needs = hooks.iter().find(|(_, hook)| hook.as_ref().is_some_and(|hook| hook.exec.is_some()));
    let (kind, _) = needs.filter(|_| !settings.exec_hooks)?;
    Some((
        "InvalidSpec",
        format!(
            "spec.lifecycle.{}.exec: this operator may not exec into pods: set operator.execHooks in its chart, or use http",
            kind.as_str()
        ),
    ))
}

fn by_uid(seen: &Observed) -> HashMap<&str, &PodFacts> {
    live(seen).map(|pod| (pod.uid.as_str(), pod)).collect()
}

/// Pods that can be called at all.
fn live(seen: &Observed) -> impl Iterator<Item = &PodFacts> {
    let pods = seen.pods.iter().map(AsRef::as_ref);
    pods.filter(|pod: &&PodFacts| !pod.ended && !pod.terminating && pod.container.is_some() && pod.address.is_some())
}

/// Pods that this operator has not heard of and not tried in vain: it has just begun, and to take them for pods
/// without a hook to call would pass them over.
fn unheard(seen: &Observed) -> usize {
    let asked = |pod: &&PodFacts| {
        let contact = seen.contacts.get(&pod.uid);
        contact.is_some_and(|contact| contact.answer.is_some() || contact.failures > 0)
    };
    live(seen).filter(|pod| pod.unsafe_target.is_none()).filter(|pod| !asked(pod)).count()
}

/// Pods that said in this container that they run, under the epoch in force.
fn running(seen: &Observed, file: &BootFile) -> Vec<String> {
    live(seen).filter(|pod| runs(seen, pod, file)).map(|pod| pod.uid.clone()).collect()
}

fn runs(seen: &Observed, pod: &PodFacts, file: &BootFile) -> bool {
    let answer = seen.contacts.get(&pod.uid).and_then(|contact| contact.answer.as_ref());
    answer.is_some_and(|heard| heard.status.state == State::Running) && acknowledged(seen, pod, file)
}

/// Whether it said in this container that it holds the epoch in force.
fn acknowledged(seen: &Observed, pod: &PodFacts, file: &BootFile) -> bool {
    let answer = seen.contacts.get(&pod.uid).and_then(|contact| contact.answer.as_ref());
    answer.is_some_and(|heard| heard.container == pod.container && heard.status.epoch >= file.epoch)
}
