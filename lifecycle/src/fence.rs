//! The fence: which command is newer, what is written down before it is answered, and how a pod boots.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::brake::Brakes;
use crate::hold::Holds;
use crate::state::{Desired, DrainMode, OnDrainTimeout};

pub use crate::record::Record;

/// Whose commands a pod obeys, and how new that knowledge is. Of two the later in `(epoch, version)` holds:
/// keys change without a change of state, and a mount may be older than what the pod has acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// The epoch of the boot file that named them.
    pub epoch: i64,
    /// How often they had changed within that epoch.
    pub version: i64,
    /// Ed25519 public keys in base64url, newest first. Empty: commands are not signed.
    pub public: Vec<String>,
}

impl Keys {
    /// Whether these were named later than the others.
    #[must_use]
    pub fn is_newer(&self, than: Option<&Self>) -> bool {
        than.is_none_or(|than| (self.epoch, self.version) > (than.epoch, than.version))
    }
}

/// The boot ConfigMap's `boot.json`, mounted as a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Raised by one when the keys change and the epoch does not; a higher epoch begins at 0 again.
    #[serde(default)]
    pub keys_version: i64,
    /// Brakes that no longer stand, by their ids: a pod that boots by this file lets go of them. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<String>,
}

impl BootFile {
    /// Whose commands this file says are to be obeyed.
    #[must_use]
    pub fn named_keys(&self) -> Keys {
        Keys { epoch: self.epoch, version: self.keys_version, public: self.keys.clone() }
    }
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
    /// The brakes to start with.
    pub brakes: Brakes,
    /// Whether the gate stays closed until the operator confirms the epoch or the boot hold ends.
    pub await_confirmation: bool,
    /// Whose commands are obeyed; none while nothing has said so.
    pub keys: Option<Keys>,
}

/// Decides how a process boots from its own record and the mounted file.
///
/// The higher epoch wins; a missing file means no change; a managed pod with neither stays paused,
/// because nothing says that it may run. An unmanaged one has only its record to obey. A record or
/// file of another AgentRuntime is ignored: a volume may have served another one before. Recorded
/// brakes stay, unless the file names them.
#[must_use]
pub fn boot(managed: bool, runtime_uid: &str, record: Option<&Record>, file: Option<&BootFile>) -> Boot {
    let record = record.filter(|r| r.runtime_uid == runtime_uid);
    if !managed {
        let (epoch, holds) = record.map_or((0, Holds::default()), |r| (r.epoch, r.holds));
        let brakes = record.map(|r| r.brakes.clone()).unwrap_or_default();
        return Boot { epoch, holds, brakes, await_confirmation: false, keys: None };
    }
    let file = file.filter(|f| f.runtime_uid == runtime_uid);
    let nothing =
        Boot { epoch: 0, holds: Holds::default(), brakes: Brakes::default(), await_confirmation: true, keys: None };
    let recorded = record.map(|r| Boot {
        epoch: r.epoch,
        holds: r.holds,
        brakes: r.brakes.clone(),
        keys: r.keys.clone(),
        ..nothing.clone()
    });
    match (recorded, file) {
        (Some(boot), Some(file)) => adopt(boot, file),
        (Some(boot), None) => boot,
        (None, Some(file)) => adopt(nothing, file),
        (None, None) => Boot { holds: Holds { operator: Desired::Paused, ..Holds::default() }, ..nothing },
    }
}

/// Takes over a file with a higher epoch, newer keys, and the releases that it names; anything else changes nothing.
#[must_use]
pub fn adopt(mut boot: Boot, file: &BootFile) -> Boot {
    let named = file.named_keys();
    if named.is_newer(boot.keys.as_ref()) {
        boot.keys = Some(named);
    }
    boot.brakes.release(boot.epoch, file.epoch, &file.releases);
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
        Record { runtime_uid: "u".to_owned(), epoch, state, holds, ..Record::default() }
    }

    fn file(epoch: i64, state: Desired) -> BootFile {
        BootFile { runtime_uid: "u".to_owned(), epoch, state, ..BootFile::default() }
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

    #[test]
    fn a_stale_mount_does_not_open_a_pod_that_knows_keys() {
        let known = Keys { epoch: 4, version: 1, public: vec!["new".to_owned()] };
        let r = Record { keys: Some(known.clone()), ..record(5, Desired::Paused) };
        // The mount of before the rotation, and the one of before signing.
        for (epoch, version, keys) in [(4, 0, vec!["old".to_owned()]), (3, 9, Vec::new())] {
            let f = BootFile { keys, keys_version: version, ..file(epoch, Desired::Running) };
            assert_eq!(boot(true, "u", Some(&r), Some(&f)).keys, Some(known.clone()));
        }
        assert_eq!(boot(true, "u", Some(&r), None).keys, Some(known));
    }

    #[test]
    fn keys_change_without_a_change_of_state() {
        let r = Record { keys: Some(file(5, Desired::Paused).named_keys()), ..record(5, Desired::Paused) };
        let f = BootFile { keys: vec!["new".to_owned()], keys_version: 1, ..file(5, Desired::Paused) };
        let got = boot(true, "u", Some(&r), Some(&f));
        assert_eq!((got.epoch, got.keys), (5, Some(f.named_keys())));
    }

    #[test]
    fn a_pod_that_nothing_has_told_knows_no_keys_which_is_not_the_same_as_none_needed() {
        assert_eq!(boot(true, "u", None, None).keys, None);
        assert_eq!(boot(true, "u", Some(&record(1, Desired::Running)), None).keys, None);
        let told = boot(true, "u", None, Some(&file(1, Desired::Running)));
        assert_eq!(told.keys.map(|keys| keys.public), Some(Vec::new()));
    }

    fn desired() -> impl Strategy<Value = Desired> {
        prop_oneof![Just(Desired::Running), Just(Desired::Paused), Just(Desired::Stopped)]
    }

    proptest! {
        #[test]
        fn keys_only_move_forward(files in prop::collection::vec((0i64..4, 0i64..4), 1..20)) {
            let mut got = boot(true, "u", None, None);
            let mut newest = (-1, -1);
            for (epoch, version) in files {
                let keys = vec![format!("{epoch}.{version}")];
                let f = BootFile { keys, keys_version: version, ..file(epoch, Desired::Running) };
                got = adopt(got, &f);
                newest = newest.max((epoch, version));
                let held = got.keys.clone().unwrap();
                prop_assert_eq!((held.epoch, held.version), newest);
                prop_assert_eq!(held.public, vec![format!("{}.{}", newest.0, newest.1)]);
            }
        }

        #[test]
        fn the_higher_epoch_decides(a in 0i64..9, b in 0i64..9, x in desired(), y in desired()) {
            let got = boot(true, "u", Some(&record(a, x)), Some(&file(b, y)));
            prop_assert_eq!(got.epoch, a.max(b));
            prop_assert_eq!(got.holds.operator, if b > a { y } else { x });
        }
    }
}
