//! Brakes: what holds pods before the boot file in the store says so, and where it cannot be written.
//!
//! A brake depends on nothing but what is asked for, the pod's address and the pod. It is let go of by its name alone, in
//! a boot file of a higher epoch that was confirmed by the store (`epoch.rs`).

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use lifecycle::wire::{BrakeCommand, Status};
use lifecycle::{BootFile, Desired, State};

use super::effective::{self, Effective, Kind};
use super::hooks::{self, Hooks};
use super::names::uid_of;
use super::policy::{Policy, in_force};
use super::spans::{since, until_retry};
use super::steps::{Call, Order};
use super::{epoch, keys};
use crate::observe::{BrakeOutcome, BrakeReply, Observed, Onset, PodFacts, Step, calls_ended};

/// How long a pause or stop waits for its boot file to be stored before its pods are braked. A freeze does not wait.
const FILE_PATIENCE: Duration = Duration::from_millis(250);
/// How long after its beginning a freeze brakes pods though the file is stored: they hear of it in one call, while the
/// command waits behind those of other objects.
const ONSET: Duration = Duration::from_secs(10);
/// How long a hook waits for its record to be written.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// What is to be done about brakes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrakePlan {
    /// Brakes to set, and hooks whose record cannot be written. Nothing is written before them.
    pub orders: Vec<Order>,
    /// Since when the object is to be held; none if it is not.
    pub onset: Option<Onset>,
    /// When to look again though nothing happens.
    pub again: Option<Duration>,
}

/// What a look at an object that waits for no write plans.
#[must_use]
pub fn brakes(seen: &Observed, now: Timestamp) -> BrakePlan {
    let effective = effective::decide(seen, false, now);
    let hooks = hooks::decide(seen, &effective, now);
    let mut plan = decide(seen, &effective, &hooks, now);
    let unwritten = seen.boot.as_ref().is_none_or(|boot| boot.hooks != hooks.record);
    if let Some(onset) = plan.onset.as_ref().filter(|_| hooks.holds && unwritten) {
        match RECORD_PATIENCE.checked_sub(since(now, onset.begun)).filter(|left| !left.is_zero()) {
            Some(left) => plan.again = Some(plan.again.map_or(left, |again| again.min(left))),
            None => plan.orders.extend(hooks::orders(seen, &hooks)),
        }
    }
    // No visit need come for these while a write hangs.
    plan.again = [plan.again, effective.edge, hooks.again()].into_iter().flatten().min();
    plan
}

/// Decides. Every pod that may not be held is braked, each time that the object is looked at.
pub(super) fn decide(seen: &Observed, effective: &Effective, hooks: &Hooks, now: Timestamp) -> BrakePlan {
    let Some(mut onset) = onset(seen, effective, now) else { return BrakePlan::default() };
    if hooks.holds {
        // Nothing is to be held before they are done.
        onset.since = now;
    }
    let age = since(now, onset.since);
    let fenced = is_fenced(seen, &effective.policy);
    let waits = FILE_PATIENCE.checked_sub(age).filter(|left| !left.is_zero());
    let waits = waits.filter(|_| !effective.frozen && seen.faults.boot.is_none());
    // What is fenced already is commanded.
    if hooks.holds || (fenced && !(effective.frozen && age < ONSET)) {
        return BrakePlan { onset: Some(onset), ..BrakePlan::default() };
    }
    if waits.is_some() {
        return BrakePlan { onset: Some(onset), again: waits, ..BrakePlan::default() };
    }
    set(seen, effective, onset, now)
}

/// Since when the object is to be held; none if it is to run. A rollout drains what runs, and holds nothing.
fn onset(seen: &Observed, effective: &Effective, now: Timestamp) -> Option<Onset> {
    let policy = &effective.policy;
    if policy.desired == Desired::Running || effective.kind == Kind::Rollout {
        return None;
    }
    let (state, mode) = (policy.desired, policy.mode);
    // One from the future was noted before the clock was put back.
    let before = seen.onset.clone().filter(|before| before.since <= now);
    let mut onset = before.unwrap_or_else(|| {
        let begun = if is_fenced(seen, policy) { Timestamp::UNIX_EPOCH } else { now };
        Onset { begun, since: begun, state, mode, steps: Vec::new() }
    });
    if state > onset.state || mode > onset.mode {
        onset.since = now;
    }
    (onset.state, onset.mode) = (state, mode);
    // What was let go of holds nothing any more, and its name is not given again.
    let released = in_force(seen).map(|file| file.releases.as_slice()).unwrap_or_default();
    onset.steps.retain(|step| !released.contains(&step.id));
    Some(onset)
}

/// Whether the boot file in the store asks for as much.
fn is_fenced(seen: &Observed, policy: &Policy) -> bool {
    in_force(seen).is_some_and(|file| says(file, policy))
}

fn says(file: &BootFile, policy: &Policy) -> bool {
    file.state >= policy.desired && file.mode >= policy.mode
}

fn set(seen: &Observed, effective: &Effective, mut onset: Onset, now: Timestamp) -> BrakePlan {
    let (file, policy) = (in_force(seen), &effective.policy);
    let epoch = epoch::known(seen, file);
    let mut plan = BrakePlan::default();
    onset.steps.retain(|step| !is_lost(seen, step));
    for pod in seen.pods.iter().filter(|pod| !pod.ended && pod.container.is_some()) {
        let contact = seen.contacts.get(&pod.uid);
        let answer =
            contact.and_then(|contact| contact.answer.as_ref()).filter(|heard| heard.container == pod.container);
        let heard = answer.map(|heard| heard.status.as_ref());
        if heard.is_some_and(|status| !status.knows_brakes() || holds(status, file, policy, &onset.steps)) {
            continue;
        }
        let Some(address) = address(seen, pod) else { continue };
        let step = step(seen, effective, &mut onset);
        let last = contact.and_then(|contact| contact.brake.as_deref()).filter(|last| last.container == pod.container);
        if last.is_some_and(|last| last.reply == BrakeReply::Unknown) {
            continue;
        }
        if let Some(left) = last.and_then(|last| retry_in(last, &step, now)) {
            plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
            continue;
        }
        let signer = keys::signer(&seen.runtime, &keyed(seen, file, epoch), heard);
        plan.orders.push(Order {
            pod: pod.uid.clone(),
            name: pod.name.clone(),
            address,
            container: pod.container.clone(),
            ready: pod.ready,
            ended: calls_ended(&seen.contacts, &pod.uid),
            signer,
            call: Call::Brake { body: Box::new(body(seen, policy, &step, epoch, pod)) },
        });
    }
    plan.onset = Some(onset);
    plan
}

/// Whether a pod holds as much as is asked for, and goes on to do so whatever is on its way to it: by the file in the
/// store, or by a brake of this onset. What another leader set may be let go of by a file that it is writing now.
fn holds(status: &Status, file: Option<&BootFile>, policy: &Policy, steps: &[Step]) -> bool {
    let (resting, rests) = match policy.desired {
        Desired::Stopped => (matches!(status.state, State::Stopping | State::Stopped), status.state == State::Stopped),
        Desired::Paused | Desired::Running => {
            let rests = matches!(status.state, State::Paused | State::Stopped);
            (rests || matches!(status.state, State::Pausing | State::Stopping), rests)
        }
    };
    // How work in flight is treated does not matter where there is none.
    let treats = |step: &Step| step.mode >= policy.mode || (rests && status.idle());
    if steps.iter().any(|step| step.state >= policy.desired && treats(step) && lists(status, &step.id)) {
        return true;
    }
    let fenced = |file: &BootFile| says(file, policy) && status.epoch >= file.epoch && !status.awaiting_confirmation;
    resting && file.is_some_and(fenced)
}

fn lists(status: &Status, id: &str) -> bool {
    status.brake_ids().iter().any(|listed| listed == id)
}

/// Whether a pod has held by a brake and no longer does: somebody has let go of it, and the next one is another.
fn is_lost(seen: &Observed, step: &Step) -> bool {
    seen.pods.iter().any(|pod| {
        let Some(contact) = seen.contacts.get(&pod.uid) else { return false };
        let held = contact
            .brake
            .as_deref()
            .filter(|last| last.id == step.id && last.reply == BrakeReply::Held && last.container == pod.container);
        // Answers may overtake each other: one from before the brake says nothing.
        let answer = held.and_then(|last| contact.answer.as_ref().filter(|heard| heard.at > last.next_attempt));
        answer.is_some_and(|heard| !lists(&heard.status, &step.id))
    })
}

/// The brake for what is asked now. One that asks for more than the last is another.
fn step(seen: &Observed, effective: &Effective, onset: &mut Onset) -> Step {
    let (state, mode) = (effective.policy.desired, effective.policy.mode);
    if let Some(step) = onset.steps.iter().find(|step| step.state >= state && step.mode >= mode) {
        return step.clone();
    }
    let (uid, generation) = effective
        .freeze
        .clone()
        .unwrap_or_else(|| (uid_of(&seen.runtime).to_owned(), seen.runtime.metadata.generation.unwrap_or(0)));
    let id = format!("{uid}.{generation}.{}-{:x}", seen.nonce.process, seen.nonce.look);
    let step = Step { id, state, mode };
    onset.steps.push(step.clone());
    step
}

/// How long until a brake that failed is set again. Another brake does not wait.
fn retry_in(last: &BrakeOutcome, step: &Step, now: Timestamp) -> Option<Duration> {
    if last.id != step.id || last.reply == BrakeReply::Held {
        return None;
    }
    until_retry(now, last.next_attempt)
}

fn address(seen: &Observed, pod: &PodFacts) -> Option<SocketAddr> {
    let port = u16::try_from(seen.runtime.spec.lifecycle.port).unwrap_or(8080);
    Some(SocketAddr::new(pod.address?, pod.port.unwrap_or(port)))
}

/// The keys by which a brake of this epoch is signed.
fn keyed(seen: &Observed, file: Option<&BootFile>, epoch: i64) -> BootFile {
    let keys = file.map_or_else(|| keys::named(seen, None), |file| file.keys.clone());
    BootFile { epoch, keys, ..BootFile::default() }
}

fn body(seen: &Observed, policy: &Policy, step: &Step, epoch: i64, pod: &PodFacts) -> BrakeCommand {
    BrakeCommand {
        id: step.id.clone(),
        state: step.state,
        mode: Some(step.mode),
        deadline_seconds: Some(policy.deadline_seconds),
        on_timeout: Some(policy.on_timeout),
        epoch,
        runtime_uid: Some(uid_of(&seen.runtime).to_owned()),
        pod_uid: Some(pod.uid.clone()),
    }
}
