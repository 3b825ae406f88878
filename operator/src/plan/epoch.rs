//! The effective state and its epoch: raised by one exactly when the state, the mode or the drain policy changes.

use std::time::Duration;

use jiff::Timestamp;
use lifecycle::wire::Status;
use lifecycle::{BootFile, Desired, State};
use serde_json::json;

use super::hooks::Hooks;
use super::names::{boot_name, name_of};
use super::policy::{Policy, in_force, is_left_alone};
use super::settings::Settings;
use super::spans::since;
use super::steps::{BootWrite, Confirm};
use super::{faults, keys, manifest, releases};
use crate::observe::{HookRecord, Observed};

/// The boot file in force after this plan, and the write that makes it so.
pub(super) struct Decided {
    pub(super) file: BootFile,
    pub(super) write: Option<BootWrite>,
    /// The file in the store asks for something else and cannot be written now: pods are told nothing by it.
    pub(super) unwritten: bool,
    /// There is no file, nor will there be: a pod that starts again may obey another one, so nothing is called at rest.
    pub(super) unfenced: bool,
}

impl Decided {
    /// Whether the store has the file already.
    pub(super) fn is_stored(&self) -> bool {
        self.write.is_none() && !self.unwritten && !self.unfenced
    }
}

/// On the boot ConfigMap: which pods the hooks of a pause or resume are still to be called in.
pub const HOOKS_ANNOTATION: &str = "agents.hive.dev/hooks";

/// How far an epoch that a pod answers may be above what this operator knows to have been written. An image that counts
/// by itself would raise it for ever, and at the end of the numbers there is no newer one.
const BELIEVED: i64 = 1000;
/// An epoch that pods answer is gone above no more often than this.
const RAISE: Duration = Duration::from_secs(1);
/// How often the epoch of an object without a file is raised: an image that obeys none would have it raised for ever.
const WITHOUT_FILE: i64 = 8;

/// Keeps the epoch, or raises it. A lost ConfigMap is made again above everything that status, a pod or this process has
/// ever shown, so that no pod refuses it as stale. Other keys are written under the same epoch.
pub(super) fn decide(seen: &Observed, settings: &Settings, policy: &Policy, hooks: &Hooks, now: Timestamp) -> Decided {
    let runtime = seen.runtime.as_ref();
    let current = in_force(seen);
    let known = known(seen, current);
    let (keys, nonce) = (keys::named(seen, current), nonce(seen, current));
    let asked = |file: &&BootFile| policy.is_in(file) && file.resume_nonce == nonce;
    let kept = current.filter(asked).filter(|file| file.epoch >= known || !may_raise(seen, file, now));
    let kept = kept.filter(|file| !is_contradicted(seen, file));
    // Pods that hold more than is asked for are let go of by another epoch.
    let frees = !hooks.holds && kept.is_some_and(|file| releases::are_due(seen, file, policy, now));
    let kept = kept.filter(|_| !frees);
    let (file, same) = match kept {
        Some(file) if file.keys == keys => {
            (file.clone(), seen.boot.as_ref().is_some_and(|boot| boot.hooks == hooks.record))
        }
        // Other keys are no other state: pods that acknowledged the epoch have still acknowledged it.
        Some(file) => (BootFile { keys, keys_version: file.keys_version.saturating_add(1), ..file.clone() }, false),
        None => {
            let epoch = current.map_or(0, |file| file.epoch).max(known).saturating_add(1);
            let release_epoch = release_epoch(seen, current, epoch);
            let file = BootFile { keys, release_epoch, resume_nonce: nonce, ..policy.file(runtime, epoch) };
            // A file that tightens is not confirmed, and lets go of nothing that another one did not.
            let releases = if frees || loosens(current, &file) {
                releases::listed(seen, current)
            } else {
                releases::carried(seen, current)
            };
            (BootFile { releases, ..file }, false)
        }
    };
    if same {
        return Decided { file, write: None, unwritten: false, unfenced: false };
    }
    if current.is_none() && runtime.metadata.deletion_timestamp.is_some() {
        return without_file(seen, policy, known);
    }
    // What pods hold by is to be known before they are let go of.
    let unheard = loosens(current, &file) && releases::unheard(seen);
    if unheard || !faults::is_due(seen.faults.boot.as_ref(), &demand(&file), now) {
        let stored = current.cloned().unwrap_or_else(|| policy.file(runtime, known));
        return Decided { file: stored, write: None, unwritten: kept.is_none(), unfenced: false };
    }
    let record = if kept.is_some() { hooks.record.clone() } else { hooks.resumed(file.epoch) };
    let confirms = loosens(current, &file) || names_more(current, &file);
    let confirm = confirms.then_some(Confirm { freezes: settings.obey_freezes });
    Decided { write: Some(write(seen, &file, record, confirm)), file, unwritten: false, unfenced: false }
}

/// What a write of a file is tried for: another demand is tried at once, whatever became of the one before.
pub(super) fn demand(file: &BootFile) -> String {
    format!("{} {:?} {:?} {:?}", file.state, file.mode, file.deadline_seconds, file.resume_nonce)
}

/// What is being deleted and has lost its file gets no new one, and its pods are commanded all the same: no other is made.
/// The epoch rises when one of them obeys another command by the present one.
fn without_file(seen: &Observed, policy: &Policy, known: i64) -> Decided {
    let file = |epoch| BootFile { keys: keys::named(seen, None), ..policy.file(&seen.runtime, epoch) };
    let written = seen.epoch_since.map_or(known, |(epoch, _)| epoch);
    let raises = is_disobeyed(seen, &file(known)) && known < written.saturating_add(WITHOUT_FILE);
    let epoch = if raises { known.saturating_add(1) } else { known };
    // Nothing is let run by a file that no store has.
    Decided { file: file(epoch), write: None, unwritten: policy.desired == Desired::Running, unfenced: true }
}

/// The highest epoch that may have been given out.
pub(super) fn known(seen: &Observed, current: Option<&BootFile>) -> i64 {
    let status = seen.runtime.status.as_ref().map_or(0, |s| s.epoch);
    // What this process has written may have been read by a pod that nobody has heard from since.
    let written = seen.epoch_since.map_or(0, |(epoch, _)| epoch);
    let stored = current.map_or(0, |file| file.epoch);
    let ours = status.max(written).max(stored);
    let answers = seen.contacts.values().filter_map(|contact| contact.answer.as_ref());
    let answered = answers.map(|answer| answer.status.epoch).filter(|epoch| *epoch <= ours.saturating_add(BELIEVED));
    answered.max().unwrap_or(0).max(ours)
}

/// Whether the epoch may be raised again though nothing else is asked for.
fn may_raise(seen: &Observed, file: &BootFile, now: Timestamp) -> bool {
    let raised = seen.epoch_since.filter(|(epoch, from)| *epoch == file.epoch && *from <= now);
    raised.is_none_or(|(_, from)| since(now, from) >= RAISE)
}

/// Whether a pod holds this very epoch and obeys another command by it. The epoch was given out twice: the store was put
/// back, or the file was lost with the status not yet written. One that this process has written is its own.
fn is_contradicted(seen: &Observed, file: &BootFile) -> bool {
    let ours = seen.epoch_since.is_some_and(|(epoch, from)| epoch == file.epoch && from > Timestamp::UNIX_EPOCH);
    !ours && is_disobeyed(seen, file)
}

/// Whether a pod obeys another command by the epoch of a file.
fn is_disobeyed(seen: &Observed, file: &BootFile) -> bool {
    let live = seen.pods.iter().filter(|pod| !pod.ended && pod.container.is_some());
    let answers = live.filter_map(|pod| {
        let answer = seen.contacts.get(&pod.uid)?.answer.as_ref()?;
        (answer.container == pod.container).then_some(answer.status.as_ref())
    });
    let contradicts = |status: &Status| {
        let held = status.holds.iter().any(|hold| hold == "operator");
        let settled = status.epoch == file.epoch && !status.awaiting_confirmation;
        settled
            && match file.state {
                Desired::Running => held,
                Desired::Paused => status.state == State::Running && !held,
                Desired::Stopped => matches!(status.state, State::Running | State::Pausing | State::Paused),
            }
    };
    answers.into_iter().any(contradicts)
}

/// Whether the file holds in less than another one, or lets go of what pods hold themselves by. It is confirmed whoever
/// wrote that: a watch may be dead without a sign, and another leader may have said meanwhile that nothing runs.
fn loosens(current: Option<&BootFile>, next: &BootFile) -> bool {
    let Some(current) = current else { return next.state == Desired::Running && next.epoch > 1 };
    next.state < current.state || next.release_epoch > current.release_epoch
}

/// Whether the file lets go of brakes that the present one does not.
fn names_more(current: Option<&BootFile>, next: &BootFile) -> bool {
    next.releases.iter().any(|id| !current.is_some_and(|file| file.releases.contains(id)))
}

fn write(seen: &Observed, file: &BootFile, hooks: Option<HookRecord>, confirm: Option<Confirm>) -> BootWrite {
    let runtime = seen.runtime.as_ref();
    let name = boot_name(name_of(runtime));
    let replaces = seen.boot.as_ref().map(|boot| boot.resource_version.clone());
    let mut manifest = manifest::object(runtime, "v1", "ConfigMap", &name);
    let text = serde_json::to_string(file).unwrap_or_default();
    manifest::set(&mut manifest, "data", json!({ "boot.json": text }));
    if let Some(version) = &replaces {
        manifest::set_metadata(&mut manifest, "resourceVersion", json!(version));
    }
    if let Some(record) = &hooks {
        let text = serde_json::to_string(record).unwrap_or_default();
        manifest::set_metadata(&mut manifest, "annotations", json!({ HOOKS_ANNOTATION: text }));
    }
    BootWrite { name, replaces, confirm, demand: demand(file), file: file.clone(), hooks, manifest }
}

/// The nonce of the last release. Taking `spec.resumeNonce` away asks for nothing.
fn nonce(seen: &Observed, current: Option<&BootFile>) -> Option<String> {
    let runtime = seen.runtime.as_ref();
    let before = || match current {
        Some(file) => file.resume_nonce.clone(),
        None => runtime.status.as_ref()?.resume_nonce.clone(),
    };
    // One that asks to be left alone asks for nothing.
    runtime.spec.resume_nonce.clone().filter(|_| !is_left_alone(seen)).or_else(before)
}

/// The epoch of the last release: a changed nonce makes it this one.
fn release_epoch(seen: &Observed, current: Option<&BootFile>, epoch: i64) -> i64 {
    let runtime = seen.runtime.as_ref();
    let (before, release) = match current {
        Some(file) => (file.resume_nonce.clone(), file.release_epoch),
        // The file is lost, and with it which pods had obeyed; status tells whether the nonce is new.
        None => (runtime.status.as_ref().and_then(|status| status.resume_nonce.clone()), 0),
    };
    if nonce(seen, current) == before { release } else { epoch }
}
