//! The fence: which command is newer, what is written down before it is answered, and how a pod boots.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::hold::Holds;
use crate::state::{Desired, DrainMode, OnDrainTimeout};

/// What a pod has fsynced before it acknowledged an epoch. It lives as long as the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// UID of the AgentRuntime that owns the pod.
    pub runtime_uid: String,
    /// The highest epoch accepted, from 1; 0 before the first command.
    pub epoch: i64,
    /// The state that epoch asked for.
    pub state: Desired,
    /// The holds in force after it.
    pub holds: Holds,
}

/// The boot ConfigMap's `boot.json`, mounted as a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootFile {
    /// UID of the AgentRuntime that owns the pod.
    pub runtime_uid: String,
    /// The epoch of the state below.
    pub epoch: i64,
    /// The effective desired state.
    pub state: Desired,
    /// How executions in flight are treated.
    #[serde(default)]
    pub mode: DrainMode,
    /// Seconds from a command to its drain deadline, 0 to 86,400; missing means no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<i64>,
    /// What happens at that deadline.
    #[serde(default)]
    pub on_timeout: OnDrainTimeout,
    /// Public keys that sign commands, newest first; empty while commands are unsigned.
    #[serde(default)]
    pub keys: Vec<String>,
    /// A pod that has accepted no epoch from this one on lets go of what it holds itself by; 0 for none.
    #[serde(default)]
    pub release_epoch: i64,
    /// The nonce that asked for it, so that each is obeyed once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_nonce: Option<String>,
}

/// How a command's epoch relates to the one a pod holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Accept it.
    Newer,
    /// Answer with the status; it has been accepted before.
    Same,
    /// Refuse it with 409.
    Stale,
}

/// Compares a command's epoch with the one held.
#[must_use]
pub fn judge(held: i64, commanded: i64) -> Freshness {
    match commanded.cmp(&held) {
        std::cmp::Ordering::Greater => Freshness::Newer,
        std::cmp::Ordering::Equal => Freshness::Same,
        std::cmp::Ordering::Less => Freshness::Stale,
    }
}

/// What a starting process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The epoch to start from.
    pub epoch: i64,
    /// The holds to start with.
    pub holds: Holds,
    /// Whether the gate stays closed until the operator confirms the epoch or the boot hold ends.
    pub await_confirmation: bool,
}

/// Decides how a process boots from its own record and the mounted file.
///
/// The higher epoch wins; a missing file means no change; a managed pod with neither stays paused,
/// because nothing says that it may run. An unmanaged one has only its record to obey. A record or
/// file of another AgentRuntime is ignored: a volume may have served another one before.
#[must_use]
pub fn boot(managed: bool, runtime_uid: &str, record: Option<&Record>, file: Option<&BootFile>) -> Boot {
    let record = record.filter(|r| r.runtime_uid == runtime_uid);
    if !managed {
        let (epoch, holds) = record.map_or((0, Holds::default()), |r| (r.epoch, r.holds));
        return Boot { epoch, holds, await_confirmation: false };
    }
    let file = file.filter(|f| f.runtime_uid == runtime_uid);
    let recorded = record.map(|r| Boot { epoch: r.epoch, holds: r.holds, await_confirmation: true });
    match (recorded, file) {
        (Some(boot), Some(file)) => adopt(boot, file),
        (Some(boot), None) => boot,
        (None, Some(file)) => adopt(Boot { epoch: 0, holds: Holds::default(), await_confirmation: true }, file),
        (None, None) => {
            Boot { epoch: 0, holds: Holds { operator: Desired::Paused, ..Holds::default() }, await_confirmation: true }
        }
    }
}

/// Takes over a file with a higher epoch; anything else changes nothing.
#[must_use]
pub fn adopt(boot: Boot, file: &BootFile) -> Boot {
    match judge(boot.epoch, file.epoch) {
        Freshness::Newer => {
            let holds = boot.holds.released(boot.epoch, file.release_epoch).commanded(file.state);
            Boot { epoch: file.epoch, holds, ..boot }
        }
        Freshness::Same | Freshness::Stale => boot,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(epoch: i64, state: Desired) -> Record {
        let holds = Holds { operator: state, ..Holds::default() };
        Record { runtime_uid: "u".to_owned(), epoch, state, holds }
    }

    fn file(epoch: i64, state: Desired) -> BootFile {
        BootFile {
            runtime_uid: "u".to_owned(),
            epoch,
            state,
            mode: DrainMode::Drain,
            deadline_seconds: None,
            on_timeout: OnDrainTimeout::Wait,
            keys: Vec::new(),
            release_epoch: 0,
            resume_nonce: None,
        }
    }

    #[test]
    fn a_pod_lets_go_at_its_boot_only_of_what_it_set_before_the_release() {
        let held = Holds { local: Desired::Paused, breaker: true, ..Holds::default() };
        let r = Record { holds: held, ..record(4, Desired::Running) };
        for (epoch, release, goes) in [(6, 5, true), (6, 6, true), (6, 4, false), (6, 0, false), (4, 4, false)] {
            let f = BootFile { release_epoch: release, ..file(epoch, Desired::Paused) };
            let got = boot(true, "u", Some(&r), Some(&f)).holds;
            assert_eq!((!got.breaker, got.local == Desired::Running), (goes, goes), "{epoch} {release}");
        }
    }

    #[test]
    fn managed_pod_without_record_and_file_stays_paused() {
        let boot = boot(true, "u", None, None);
        assert_eq!(boot.holds.target(), Desired::Paused);
        assert!(boot.await_confirmation);
    }

    #[test]
    fn missing_file_means_no_change() {
        let r = record(4, Desired::Paused);
        assert_eq!(boot(true, "u", Some(&r), None).holds.target(), Desired::Paused);
    }

    #[test]
    fn stale_mount_does_not_undo_an_accepted_pause() {
        let r = record(5, Desired::Paused);
        let f = file(4, Desired::Running);
        let got = boot(true, "u", Some(&r), Some(&f));
        assert_eq!((got.epoch, got.holds.target()), (5, Desired::Paused));
    }

    #[test]
    fn record_of_another_runtime_is_ignored() {
        let r = Record { runtime_uid: "other".to_owned(), ..record(9, Desired::Running) };
        assert_eq!(boot(true, "u", Some(&r), None).holds.target(), Desired::Paused);
    }

    #[test]
    fn unmanaged_obeys_only_its_record() {
        assert_eq!(boot(false, "", None, None).holds.target(), Desired::Running);
    }

    fn desired() -> impl Strategy<Value = Desired> {
        prop_oneof![Just(Desired::Running), Just(Desired::Paused), Just(Desired::Stopped)]
    }

    proptest! {
        #[test]
        fn the_higher_epoch_decides(a in 0i64..9, b in 0i64..9, x in desired(), y in desired()) {
            let got = boot(true, "u", Some(&record(a, x)), Some(&file(b, y)));
            prop_assert_eq!(got.epoch, a.max(b));
            prop_assert_eq!(got.holds.operator, if b > a { y } else { x });
        }
    }
}
