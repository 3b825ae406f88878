//! What the pods are to do and how, as a spec, a boot file or a hold says it.

use crds::{AgentRuntime, DesiredState, DrainTimeoutPolicy, HeldState, PauseMode};
use kube::ResourceExt as _;
use lifecycle::{BootFile, Desired, DrainMode, OnDrainTimeout};

use super::names::uid_of;
use crate::observe::{Legible, Observed};

/// On an object: `disabled` leaves its spec and its children alone. Freezes act all the same.
pub const RECONCILE_ANNOTATION: &str = "agents.hive.dev/reconcile";

/// What the pods are to do, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) desired: Desired,
    pub(super) mode: DrainMode,
    pub(super) deadline_seconds: i64,
    pub(super) on_timeout: OnDrainTimeout,
}

impl Policy {
    /// What the spec alone asks for.
    pub(super) fn of(runtime: &AgentRuntime) -> Self {
        let lifecycle = &runtime.spec.lifecycle;
        Self {
            desired: desired(runtime.spec.desired_state),
            mode: match lifecycle.pause_mode {
                PauseMode::Drain => DrainMode::Drain,
                PauseMode::Checkpoint => DrainMode::Checkpoint,
            },
            deadline_seconds: i64::from(lifecycle.drain_timeout_seconds),
            on_timeout: match lifecycle.on_drain_timeout {
                DrainTimeoutPolicy::Wait => OnDrainTimeout::Wait,
                DrainTimeoutPolicy::Checkpoint => OnDrainTimeout::Checkpoint,
            },
        }
    }

    /// What a boot file commands.
    pub(super) fn from(file: &BootFile) -> Self {
        Self {
            desired: file.state,
            mode: file.mode,
            deadline_seconds: file.deadline_seconds.unwrap_or(0),
            on_timeout: file.on_timeout,
        }
    }

    /// The boot file that commands it, under this epoch; it names no keys.
    pub(super) fn file(&self, runtime: &AgentRuntime, epoch: i64) -> BootFile {
        BootFile {
            runtime_uid: uid_of(runtime).to_owned(),
            epoch,
            state: self.desired,
            mode: self.mode,
            deadline_seconds: Some(self.deadline_seconds),
            on_timeout: self.on_timeout,
            ..BootFile::default()
        }
    }

    /// Whether a boot file commands it.
    pub(super) fn is_in(&self, file: &BootFile) -> bool {
        file.state == self.desired
            && file.mode == self.mode
            && file.deadline_seconds == Some(self.deadline_seconds)
            && file.on_timeout == self.on_timeout
    }
}

/// Whether the object asks to be left alone.
pub(super) fn is_disabled(runtime: &AgentRuntime) -> bool {
    runtime.annotations().get(RECONCILE_ANNOTATION).is_some_and(|value| value == "disabled")
}

/// Whether its spec and its children are left alone: it asks for that, or its spec cannot be read.
pub(super) fn is_left_alone(seen: &Observed) -> bool {
    is_disabled(&seen.runtime) || matches!(seen.legible, Legible::MetadataAlone(_))
}

/// The boot file in force.
pub(super) fn in_force(seen: &Observed) -> Option<&BootFile> {
    let uid = uid_of(&seen.runtime);
    seen.boot.as_ref()?.file.as_ref().filter(|file| file.runtime_uid == uid)
}

pub(super) fn desired(state: DesiredState) -> Desired {
    match state {
        DesiredState::Running => Desired::Running,
        DesiredState::Paused => Desired::Paused,
        DesiredState::Stopped => Desired::Stopped,
    }
}

pub(super) fn crd_state(desired: Desired) -> DesiredState {
    match desired {
        Desired::Running => DesiredState::Running,
        Desired::Paused => DesiredState::Paused,
        Desired::Stopped => DesiredState::Stopped,
    }
}

/// The state that a window or a freeze holds in.
pub(super) fn held(state: HeldState) -> Desired {
    match state {
        HeldState::Paused => Desired::Paused,
        HeldState::Stopped => Desired::Stopped,
    }
}
