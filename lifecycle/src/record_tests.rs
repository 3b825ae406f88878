//! What a record with brakes is to this version, and to the one that knows none.

use proptest::prelude::*;

use super::*;
use crate::brake::Brake;
use crate::fence::{self, BootFile};
use crate::state::DrainMode;

/// The record as 0.1.0 has it, and as it reads one: what it does not know it skips.
mod v0_1_0 {
    use serde::{Deserialize, Serialize};

    use crate::fence::Keys;
    use crate::state::Desired;

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Record {
        pub(super) runtime_uid: String,
        pub(super) epoch: i64,
        pub(super) state: Desired,
        pub(super) holds: Holds,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(super) keys: Option<Keys>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Holds {
        #[serde(default)]
        pub(super) operator: Desired,
        #[serde(default)]
        pub(super) local: Desired,
        #[serde(default)]
        pub(super) breaker: bool,
    }

    /// What it boots into by the record and a boot file of the same AgentRuntime.
    pub(super) fn boot(record: &Record, file: Option<(i64, Desired)>) -> (i64, Desired) {
        match file {
            Some((epoch, state)) if epoch > record.epoch => (epoch, state),
            Some(_) | None => (record.epoch, record.holds.operator.max(record.holds.local)),
        }
    }
}

fn record(epoch: i64, operator: Desired) -> Record {
    let holds = Holds { operator, ..Holds::default() };
    Record { runtime_uid: "u".to_owned(), epoch, state: operator, holds, ..Record::default() }
}

fn brake(id: &str, epoch: i64, state: Desired) -> Brake {
    Brake { id: id.to_owned(), epoch, state, mode: DrainMode::Drain }
}

fn written(record: &Record) -> String {
    serde_json::to_string(record).unwrap()
}

#[test]
fn a_record_without_brakes_is_written_as_before_them() {
    let keys = Some(Keys { epoch: 4, version: 1, public: vec!["key".to_owned()] });
    let plain = Record { keys, ..record(4, Desired::Running) };
    assert_eq!(
        written(&plain),
        r#"{"runtime_uid":"u","epoch":4,"state":"running","holds":{"operator":"running","local":"running","breaker":false},"keys":{"epoch":4,"version":1,"public":["key"]}}"#
    );
}

#[test]
fn a_record_with_brakes_says_so_in_the_words_of_0_1_0() {
    let brakes = [brake("u.1.a", 5, Desired::Paused)].into_iter().collect();
    let braked = Record { brakes, ..record(4, Desired::Running) };
    assert_eq!(
        written(&braked),
        r#"{"runtime_uid":"u","epoch":5,"state":"paused","holds":{"operator":"paused","local":"running","breaker":false},"braked":{"epoch":4,"state":"running","operator":"running","brakes":[{"id":"u.1.a","epoch":5,"state":"paused","mode":"drain"}]}}"#
    );
}

fn desired() -> impl Strategy<Value = Desired> {
    prop::sample::select(vec![Desired::Running, Desired::Paused, Desired::Stopped])
}

fn brakes() -> impl Strategy<Value = Brakes> {
    let one = (0u8..9, 0i64..9, any::<bool>(), 0usize..3).prop_map(|(id, epoch, stopped, mode)| Brake {
        id: format!("u.{id}.x"),
        epoch,
        state: if stopped { Desired::Stopped } else { Desired::Paused },
        mode: [DrainMode::Drain, DrainMode::Checkpoint, DrainMode::Cancel][mode],
    });
    prop::collection::vec(one, 0..5).prop_map(|all| all.into_iter().collect())
}

fn any_record() -> impl Strategy<Value = Record> {
    (0i64..9, desired(), desired(), desired(), any::<bool>(), brakes()).prop_map(
        |(epoch, state, operator, local, breaker, brakes)| Record {
            runtime_uid: "u".to_owned(),
            epoch,
            state,
            holds: Holds { operator, local, breaker },
            keys: None,
            brakes,
        },
    )
}

proptest! {
    #[test]
    fn a_record_is_read_back_as_it_was(record in any_record()) {
        let again: Record = serde_json::from_str(&written(&record)).unwrap();
        prop_assert_eq!(again, record);
    }

    /// Also by a boot file that the sender of a brake had seen.
    #[test]
    fn a_reader_of_0_1_0_is_held_by_a_record_with_brakes(record in any_record(), file in 0i64..9, state in desired()) {
        let old: v0_1_0::Record = serde_json::from_str(&written(&record)).unwrap();
        prop_assert!(old.state >= record.brakes.target() && old.holds.operator >= record.brakes.target());
        prop_assert!(old.epoch >= record.epoch && old.holds.breaker == record.holds.breaker);
        if file <= record.brakes.epoch() {
            prop_assert!(v0_1_0::boot(&old, Some((file, state))).1 >= record.brakes.target());
        }
        // What it writes is a record of this version too, and it never knew the brakes.
        let back: Record = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        prop_assert_eq!(back, record.without_brakes());
    }

    #[test]
    fn a_boot_with_a_recorded_brake_keeps_it(record in any_record(), epoch in 0i64..12, state in desired()) {
        let file = BootFile { runtime_uid: "u".to_owned(), epoch, state, ..BootFile::default() };
        for managed in [true, false] {
            for file in [None, Some(&file)] {
                prop_assert_eq!(&fence::boot(managed, "u", Some(&record), file).brakes, &record.brakes);
            }
        }
        prop_assert!(fence::boot(true, "other", Some(&record), Some(&file)).brakes.is_empty());
    }

    #[test]
    fn a_boot_file_releases_by_name_and_epoch_alone(record in any_record(), epoch in 0i64..12) {
        let releases = record.brakes.ids();
        let file = BootFile { runtime_uid: "u".to_owned(), epoch, releases, ..BootFile::default() };
        let left = fence::boot(true, "u", Some(&record), Some(&file)).brakes;
        for brake in record.brakes.iter() {
            let goes = epoch > brake.epoch && epoch >= record.epoch;
            prop_assert_eq!(left.iter().all(|kept| kept.id != brake.id), goes);
        }
    }
}
