use super::*;
use crate::store::{Filter, MAIN, What};

fn execution(entry: &str) -> Execution {
    Execution::new(entry, "hash", "first", serde_json::Map::new(), Timestamp::now())
}

fn as_is(execution: Execution) -> Commit {
    Commit { execution, entries: Vec::new(), begins: Vec::new(), used: Vec::new() }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, Ended::new()).expect("it opens")
}

fn key(name: &str, body: u8) -> Option<Key> {
    Some(Key { key: name.to_owned(), body: [body; 32] })
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = execution("main");
    assert_eq!(store.accept(first.clone(), None).await.unwrap(), Accepted::New);
    store.close().await;
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.live().unwrap(), [first]);
    assert_eq!(store.total(), 1);
}

#[tokio::test]
async fn a_key_gives_the_first_execution_again_and_another_body_clashes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = execution("main");
    assert_eq!(store.accept(first.clone(), key("k", 1)).await.unwrap(), Accepted::New);
    let again = store.accept(execution("main"), key("k", 1)).await.unwrap();
    assert_eq!(again, Accepted::Again(first.id.clone()));
    assert_eq!(store.accept(execution("main"), key("k", 2)).await.unwrap(), Accepted::Clash);
    assert_eq!(store.accept(execution("other"), key("k", 2)).await.unwrap(), Accepted::New);
    assert_eq!(store.total(), 2);
}

#[tokio::test]
async fn of_concurrent_duplicates_one_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        tasks.spawn(async move { store.accept(execution("main"), key("k", 1)).await.unwrap() });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|accepted| **accepted == Accepted::New).count(), 1);
    assert_eq!(store.live().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tick_is_inserted_once_and_never_backwards() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let at = |second| Timestamp::from_second(second).unwrap();
    assert!(store.tick("t".to_owned(), at(10), Some(execution("t"))).await.unwrap());
    assert!(!store.tick("t".to_owned(), at(10), Some(execution("t"))).await.unwrap());
    assert!(!store.tick("t".to_owned(), at(9), Some(execution("t"))).await.unwrap());
    assert!(store.tick("t".to_owned(), at(11), None).await.unwrap());
    assert_eq!((store.live().unwrap().len(), store.last_tick("t").unwrap()), (1, Some(at(11))));
}

#[tokio::test]
async fn the_first_end_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = execution("main");
    store.accept(first.clone(), None).await.unwrap();
    assert!(store.commit(as_is(Execution { state: State::Failed, ..first.clone() })).await.unwrap().is_some());
    assert!(store.commit(as_is(Execution { state: State::Succeeded, ..first.clone() })).await.unwrap().is_none());
    assert_eq!(store.get(&first.id).unwrap().unwrap().state, State::Failed);
    assert_eq!((store.live().unwrap().len(), store.failed()), (0, 1));
}

#[tokio::test]
async fn a_list_is_newest_first_and_goes_on_from_an_id() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut ids = Vec::new();
    for _ in 0..5 {
        let one = execution("main");
        ids.push(one.id.clone());
        store.accept(one, None).await.unwrap();
    }
    ids.reverse();
    let page: Vec<_> = store.list(&Filter::default(), None, 2).unwrap().into_iter().map(|e| e.id).collect();
    assert_eq!(page, ids[..2]);
    let rest: Vec<_> = store.list(&Filter::default(), Some(&page[1]), 9).unwrap().into_iter().map(|e| e.id).collect();
    assert_eq!(rest, ids[2..]);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("executions.redb");
    std::fs::write(&path, b"not a store at all").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let error = Store::open(folder.path(), Ended::new()).expect_err("it is refused");
    assert!(error.to_string().contains("executions.redb"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"not a store at all");
}

fn entry(text: &str) -> Entry {
    let what = What::Said { text: text.to_owned(), reminder: false };
    Entry { at: Timestamp::now(), branch: MAIN.to_owned(), node: "n".to_owned(), visit: 0, attempt: 0, what }
}

#[tokio::test]
async fn a_journal_is_numbered_without_gaps_and_read_on_from_any_entry() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (one, other) = (execution("main"), execution("main"));
    for execution in [&one, &other] {
        store.accept(execution.clone(), None).await.unwrap();
    }
    assert_eq!(store.append(one.id.clone(), vec![entry("a"), entry("b")], Vec::new()).await.unwrap(), 1..3);
    assert_eq!(store.append(other.id.clone(), vec![entry("x")], Vec::new()).await.unwrap(), 1..2);
    let commit = Commit { entries: vec![entry("c")], ..as_is(one.clone()) };
    assert_eq!(store.commit(commit).await.unwrap(), Some(3..4));
    let seqs: Vec<u64> = store.journal(&one.id, 1, 9).unwrap().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, [2, 3]);
    assert_eq!(store.last_entry(&other.id).unwrap().unwrap().what, entry("x").what);
    assert_eq!(store.last_entry("none").unwrap(), None);
}

#[tokio::test]
async fn a_reservation_that_exceeds_any_limit_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let used = |key: &str, amount| Used { key: key.to_owned(), amount };
    assert_eq!(store.reserve(vec![(used("a", 6), 10), (used("b", 6), 100)]).await.unwrap(), None);
    assert_eq!(store.reserve(vec![(used("b", 6), 100), (used("a", 6), 10)]).await.unwrap(), Some("a".to_owned()));
    assert_eq!((store.usage("a").unwrap(), store.usage("b").unwrap()), (6, 6));
    store.append("x".to_owned(), Vec::new(), vec![used("a", -9)]).await.unwrap();
    assert_eq!(store.usage("a").unwrap(), 0, "giving back never goes below nothing");
}

#[tokio::test]
async fn limits_hold_though_many_reserve_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let store = store.clone();
        let wanted = (Used { key: "day".to_owned(), amount: 10 }, 100);
        tasks.spawn(async move { store.reserve(vec![wanted]).await.unwrap().is_none() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|granted| *granted).count(), 10);
}

#[tokio::test]
async fn what_ended_long_ago_is_swept_with_its_journal_and_what_lives_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let long_ago = Timestamp::from_second(1_000_000).unwrap();
    let old = Execution { created: long_ago, ..execution("main") };
    let lives = Execution { created: long_ago, ..execution("main") };
    let fresh = execution("main");
    for execution in [&old, &lives, &fresh] {
        store.accept(execution.clone(), None).await.unwrap();
    }
    for (execution, ended) in [(&old, long_ago), (&fresh, Timestamp::now())] {
        let ended = Execution { state: State::Succeeded, ended: Some(ended), ..execution.clone() };
        store.commit(Commit { entries: vec![entry("end")], ..as_is(ended) }).await.unwrap();
    }
    let cutoff = Timestamp::from_second(2_000_000).unwrap();
    assert_eq!(store.sweep(cutoff).await.unwrap(), std::slice::from_ref(&old.id));
    assert_eq!(store.get(&old.id).unwrap(), None);
    assert!(store.journal(&old.id, 0, 9).unwrap().is_empty() && !store.journal(&fresh.id, 0, 9).unwrap().is_empty());
    assert_eq!(store.live().unwrap(), [lives]);
}

#[tokio::test]
async fn what_has_ended_is_opened_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = execution("main");
    store.accept(first.clone(), None).await.unwrap();
    assert!(!store.reopen(first.clone(), Vec::new()).await.unwrap(), "it lives");
    store.commit(as_is(Execution { state: State::Failed, ..first.clone() })).await.unwrap();
    assert!(store.reopen(first.clone(), Vec::new()).await.unwrap());
    assert_eq!(store.live().unwrap(), [first]);
}

#[tokio::test]
async fn a_new_store_has_its_name_from_its_first_promise_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, unnamed) = (folder.path().join("executions.redb"), folder.path().join("executions.redb.new"));
    std::fs::write(&unnamed, b"what a crash left that had promised nothing").unwrap();
    let store = open(folder.path());
    assert!(!path.exists() && unnamed.exists());
    let first = execution("main");
    store.accept(first.clone(), None).await.unwrap();
    assert!(path.exists() && !unnamed.exists());
    store.close().await;
    drop(store);
    assert_eq!(open(folder.path()).live().unwrap(), [first]);
}

#[tokio::test]
async fn a_store_is_one_process_s_from_before_its_first_promise() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(Store::open(folder.path(), Ended::new()).is_err());
    store.accept(execution("main"), None).await.unwrap();
    assert!(Store::open(folder.path(), Ended::new()).is_err());
    assert_eq!(store.live().unwrap().len(), 1);
}

#[tokio::test]
async fn a_definition_is_on_disk_before_what_comes_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.keep_definition("h".to_owned(), "f".to_owned(), "text".to_owned()).await.unwrap();
    store.accept(execution("main"), None).await.unwrap();
    assert_eq!(store.definitions().unwrap()["h"], ("f".to_owned(), "text".to_owned()));
}

#[tokio::test]
async fn a_store_that_another_process_holds_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let held = Store::open(folder.path(), Ended::new()).unwrap();
    held.accept(Execution::new("e", "d", "n", serde_json::Map::new(), Timestamp::now()), None).await.unwrap();
    let modified = || std::fs::metadata(folder.path().join("executions.redb")).unwrap().modified().unwrap();
    let before = modified();
    let refused = Store::open(folder.path(), Ended::new()).unwrap_err().to_string();
    assert!(refused.contains("Another process holds it"), "{refused}");
    assert_eq!(modified(), before);
}
