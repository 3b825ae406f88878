//! The effective state and its epoch: raised by one exactly when the state, the mode or the drain policy changes.

use crds::AgentRuntime;
use jiff::Timestamp;
use lifecycle::{BootFile, Desired};
use serde_json::json;

use super::hooks::Hooks;
use super::names::{boot_name, name_of};
use super::policy::{Policy, in_force, is_disabled};
use super::settings::Settings;
use super::steps::{BootWrite, Confirm};
use super::{keys, manifest};
use crate::observe::{HookRecord, Observed};

/// The boot file in force after this plan, and the write that makes it so.
pub(super) struct Decided {
    pub(super) file: BootFile,
    pub(super) write: Option<BootWrite>,
}

/// On the boot ConfigMap: which pods the hooks of a pause or resume are still to be called in.
pub const HOOKS_ANNOTATION: &str = "agents.hive.dev/hooks";

/// Keeps the epoch, or raises it. A lost or foreign ConfigMap is made again above everything that
/// status, a pod or this process has ever shown, so that no pod refuses it as stale. Other keys are written
/// under the same epoch.
pub(super) fn decide(seen: &Observed, settings: &Settings, policy: &Policy, hooks: &Hooks) -> Decided {
    let runtime = seen.runtime.as_ref();
    let status = runtime.status.as_ref().map_or(0, |s| s.epoch);
    let answered = seen.contacts.values().filter_map(|c| c.answer.as_ref()).map(|a| a.status.epoch).max();
    // What this process has written may have been read by a pod that nobody has heard from since.
    let written = seen.epoch_since.map_or(0, |(epoch, _)| epoch);
    let known = status.max(answered.unwrap_or(0)).max(written);
    let current = in_force(seen);
    let (keys, nonce) = (keys::named(seen, current), nonce(runtime, current));
    let kept = current.filter(|file| policy.is_in(file) && file.epoch >= known && file.resume_nonce == nonce);
    let file = match kept {
        Some(file) if file.keys == keys => {
            let same = seen.boot.as_ref().is_some_and(|boot| boot.hooks == hooks.record);
            let write = (!same).then(|| write(seen, file, hooks.record.clone(), None));
            return Decided { file: file.clone(), write };
        }
        // Other keys are no other state: pods that acknowledged the epoch have still acknowledged it.
        Some(file) => BootFile { keys, keys_version: file.keys_version + 1, ..file.clone() },
        None => {
            let epoch = current.map_or(0, |file| file.epoch).max(known) + 1;
            let release_epoch = release_epoch(runtime, current, epoch);
            BootFile { keys, release_epoch, resume_nonce: nonce, ..policy.file(runtime, epoch) }
        }
    };
    let record = if kept.is_some() { hooks.record.clone() } else { hooks.resumed(file.epoch) };
    let confirm = lets_run(seen, current, &file).then_some(Confirm { freezes: settings.obey_freezes });
    Decided { write: Some(write(seen, &file, record, confirm)), file }
}

/// Whether the file lets run what one holds back that this process has not written, or has written for a newer spec.
fn lets_run(seen: &Observed, current: Option<&BootFile>, next: &BootFile) -> bool {
    let Some(current) = current else { return next.state == Desired::Running && next.epoch > 1 };
    let ours = seen.epoch_since.is_some_and(|(epoch, from)| epoch == current.epoch && from > Timestamp::UNIX_EPOCH);
    let loosens = next.state == Desired::Running && current.state != Desired::Running;
    (!ours || seen.outdated) && (loosens || next.release_epoch > current.release_epoch)
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
    BootWrite { name, replaces, confirm, file: file.clone(), hooks, manifest }
}

/// The nonce of the last release. Taking `spec.resumeNonce` away asks for nothing.
fn nonce(runtime: &AgentRuntime, current: Option<&BootFile>) -> Option<String> {
    let before = || match current {
        Some(file) => file.resume_nonce.clone(),
        None => runtime.status.as_ref()?.resume_nonce.clone(),
    };
    // One that asks to be left alone asks for nothing.
    runtime.spec.resume_nonce.clone().filter(|_| !is_disabled(runtime)).or_else(before)
}

/// The epoch of the last release: a changed nonce makes it this one.
fn release_epoch(runtime: &AgentRuntime, current: Option<&BootFile>, epoch: i64) -> i64 {
    let (before, release) = match current {
        Some(file) => (file.resume_nonce.clone(), file.release_epoch),
        // The file is lost, and with it which pods had obeyed; status tells whether the nonce is new.
        None => (runtime.status.as_ref().and_then(|status| status.resume_nonce.clone()), 0),
    };
    if nonce(runtime, current) == before { release } else { epoch }
}
