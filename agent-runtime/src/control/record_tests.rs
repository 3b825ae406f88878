use lifecycle::{Brake, Desired, DrainMode, Holds};

use super::*;

fn record(epoch: i64) -> Record {
    Record { runtime_uid: "u".into(), epoch, state: Desired::Paused, holds: Holds::default(), ..Record::default() }
}

fn read(folder: &Path) -> Option<Record> {
    Fence::open(folder).unwrap().1
}

#[test]
fn a_record_is_read_back_and_a_missing_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (mut fence, none) = Fence::open(folder.path()).unwrap();
    assert_eq!(none, None);
    for epoch in 1..6 {
        fence.write(&record(epoch)).unwrap();
        assert_eq!(read(folder.path()), Some(record(epoch)));
    }
}

#[test]
fn records_of_another_process_are_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    for epoch in 1..6 {
        Fence::open(folder.path()).unwrap().0.write(&record(epoch)).unwrap();
        assert_eq!(read(folder.path()), Some(record(epoch)));
    }
}

#[test]
fn a_half_written_record_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RECORD);
    let mut fence = Fence::open(folder.path()).unwrap().0;
    for epoch in 1..4 {
        fence.write(&record(epoch)).unwrap();
        let before = std::fs::read(&path).unwrap();
        fence.write(&record(100)).unwrap();
        let after = std::fs::read(&path).unwrap();
        // Without the end of its line a half is whole.
        let torn = |at: &usize| before[*at] != after[*at] && after[*at] != b'\n';
        let changed: Vec<usize> = (0..after.len()).filter(torn).collect();
        for cut in &changed[1..] {
            let torn: Vec<u8> =
                before.iter().zip(&after).enumerate().map(|(at, (b, a))| *if at < *cut { a } else { b }).collect();
            std::fs::write(&path, torn).unwrap();
            assert_eq!(read(folder.path()), Some(record(epoch)), "cut at {cut}");
        }
        std::fs::write(&path, before).unwrap();
        fence = Fence::open(folder.path()).unwrap().0;
    }
}

#[test]
fn a_record_of_which_nothing_is_whole_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RECORD);
    Fence::open(folder.path()).unwrap().0.write(&record(1)).unwrap();
    let mut whole = std::fs::read(&path).unwrap();
    let at = whole.windows(7).position(|bytes| bytes == b"\"epoch\"").unwrap();
    whole[at + 8] = b'2';
    for bytes in [whole, b"{\"runtime_uid\":\"u\",".to_vec(), Vec::new(), vec![b' '; 2 * HALF]] {
        std::fs::write(&path, bytes).unwrap();
        let error = Fence::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("fence.json") && error.contains("delete it"), "{error}");
    }
}

#[test]
fn a_crash_while_the_file_is_made_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fence.json.new"), b"{\"runt").unwrap();
    assert_eq!(read(folder.path()), None);
}

#[test]
fn a_record_without_halves_is_read_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(RECORD), serde_json::to_vec(&record(3)).unwrap()).unwrap();
    let (mut fence, before) = Fence::open(folder.path()).unwrap();
    assert_eq!(before, Some(record(3)));
    fence.write(&record(4)).unwrap();
    assert_eq!(read(folder.path()), Some(record(4)));
}

#[test]
fn a_record_that_does_not_fit_is_refused_and_the_one_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut fence = Fence::open(folder.path()).unwrap().0;
    fence.write(&record(1)).unwrap();
    assert!(fence.write(&Record { runtime_uid: "u".repeat(HALF), ..record(2) }).is_err());
    assert_eq!(read(folder.path()), Some(record(1)));
}

/// A record with as many brakes of the longest ids as there may be.
fn braked(epoch: i64) -> Record {
    let brake = |n: usize| Brake {
        id: format!("{n}{}", "x".repeat(127)),
        epoch: i64::MAX,
        state: Desired::Stopped,
        mode: DrainMode::Checkpoint,
    };
    let public = vec!["k".repeat(43), "k".repeat(43)];
    let keys = Some(lifecycle::Keys { epoch: i64::MAX, version: i64::MAX, public });
    Record {
        runtime_uid: "u".repeat(36),
        state: Desired::Running,
        keys,
        brakes: (0..8).map(brake).collect(),
        ..record(epoch)
    }
}

#[test]
fn the_longest_record_with_brakes_fits_and_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut fence = Fence::open(folder.path()).unwrap().0;
    for record in [record(1), braked(2), braked(3), record(4)] {
        fence.write(&record).unwrap();
        assert_eq!(read(folder.path()), Some(record));
    }
}

/// The half as 0.1.0 has it: it computes the sum of what it knows of the record.
#[derive(Serialize, Deserialize)]
struct OldHalf {
    number: u64,
    record: OldRecord,
    sum: String,
}

#[derive(Serialize, Deserialize)]
struct OldRecord {
    runtime_uid: String,
    epoch: i64,
    state: Desired,
    holds: Holds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<lifecycle::Keys>,
}

#[test]
fn a_reader_of_0_1_0_believes_the_half_with_brakes_and_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let mut fence = Fence::open(folder.path()).unwrap().0;
    let open = Record { state: Desired::Running, ..record(2) };
    fence.write(&open).unwrap();
    fence.write(&Record { brakes: braked(2).brakes, ..open.clone() }).unwrap();
    let bytes = std::fs::read(folder.path().join(RECORD)).unwrap();
    let halves = bytes.chunks(HALF).map(|half| serde_json::from_slice::<OldHalf>(half).unwrap());
    let sum = |half: &OldHalf| -> String {
        let text = serde_json::to_vec(&(half.number, &half.record)).unwrap();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let newest = halves.filter(|half| half.sum == sum(half)).max_by_key(|half| half.number).unwrap();
    assert_eq!(
        (newest.number, newest.record.state, newest.record.holds.operator),
        (2, Desired::Stopped, Desired::Stopped)
    );
    assert!(newest.record.epoch >= 2);
}

#[test]
fn a_record_without_brakes_lies_on_disk_byte_for_byte_as_before() {
    let folder = tempfile::tempdir().unwrap();
    Fence::open(folder.path()).unwrap().0.write(&record(7)).unwrap();
    let bytes = std::fs::read(folder.path().join(RECORD)).unwrap();
    let half = String::from_utf8(bytes[HALF..].to_vec()).unwrap();
    let old: OldHalf = serde_json::from_str(&half).unwrap();
    assert_eq!(half.trim_end(), serde_json::to_string(&old).unwrap());
}

#[test]
fn a_half_written_record_with_brakes_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RECORD);
    for overwritten in [record(1), braked(1)] {
        let _ = std::fs::remove_file(&path);
        let mut fence = Fence::open(folder.path()).unwrap().0;
        for record in [&record(1), &overwritten, &record(5)] {
            fence.write(record).unwrap();
        }
        // Its half is written again, and cut off at every byte.
        let before = std::fs::read(&path).unwrap();
        fence.write(&braked(6)).unwrap();
        let after = std::fs::read(&path).unwrap();
        let end = after.iter().rposition(|byte| !b" \n".contains(byte)).unwrap();
        for cut in (0..end).filter(|at| before[*at] != after[*at]) {
            let torn: Vec<u8> = after[..cut].iter().chain(&before[cut..]).copied().collect();
            std::fs::write(&path, torn).unwrap();
            assert_eq!(read(folder.path()), Some(record(5)), "cut at {cut}");
        }
    }
}
