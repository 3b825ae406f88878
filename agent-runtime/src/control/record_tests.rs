use lifecycle::{Desired, Holds};

use super::*;

fn record(epoch: i64) -> Record {
    Record { runtime_uid: "u".into(), epoch, state: Desired::Paused, holds: Holds::default(), keys: None }
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
