//! What every store keeps to: the same tests against each.

use std::time::Duration;

use super::postgres::{Seized, Settings};
use super::*;

#[path = "../../tests/process/postgres_server.rs"]
#[allow(dead_code, reason = "the tests of the process use more of it")]
pub(super) mod server;

/// Where a store is, over restarts of its process.
enum Place {
    Folder(tempfile::TempDir),
    Database(String),
}

impl Place {
    async fn open(&self) -> Store {
        match self {
            Self::Folder(folder) => Store::open(folder.path(), Ended::new()).expect("it opens"),
            Self::Database(url) => {
                let lease = Duration::from_secs(30);
                let settings = Settings { url: url.clone(), runtime_uid: String::new(), lease };
                Store::connect(settings, Ended::new()).await.expect("it opens")
            }
        }
    }
}

/// Makes an execution this process's to write, as the engine does before it runs it.
async fn take(store: &Store, id: &str) {
    if let Some(shared) = store.shared() {
        assert!(matches!(shared.seize(id).await.unwrap(), Seized::Rests(..)));
    }
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod redb {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::Folder(tempfile::tempdir().unwrap())).await;
            })*
        }

        mod postgres {
            #[tokio::test(flavor = "multi_thread")]
            async fn passes_each_of_them() {
                let Some(server) = super::server::Server::start() else { return };
                $(
                    eprintln!(stringify!($name));
                    super::$name(super::Place::Database(server.database(stringify!($name)))).await;
                )*
            }
        }
    };
}

suite![
    what_was_accepted_is_there_after_a_restart,
    a_key_gives_the_first_execution_again_and_another_body_clashes,
    of_concurrent_duplicates_one_is_accepted,
    a_tick_is_inserted_once_and_never_backwards,
    the_first_end_wins,
    a_list_is_newest_first_and_goes_on_from_an_id,
    a_list_holds_what_its_filter_admits,
    a_journal_is_numbered_without_gaps_and_read_on_from_any_entry,
    what_an_execution_leads_to_is_written_with_it,
    a_reservation_that_exceeds_any_limit_counts_nothing,
    limits_hold_though_many_reserve_at_once,
    what_ended_long_ago_is_swept_with_its_journal_and_what_lives_stays,
    what_has_ended_is_opened_again_once,
    a_definition_is_kept_once,
    what_cannot_be_read_is_named_and_left_out_and_all_else_goes_on,
    what_cannot_be_read_can_be_given_up_and_is_swept,
    whatever_is_accepted_is_read_again_and_the_rest_is_refused,
];

fn execution(entry: &str) -> Execution {
    Execution::new(entry, "hash", "first", serde_json::Map::new(), Timestamp::now())
}

fn as_is(execution: Execution) -> Commit {
    Commit { execution, entries: Vec::new(), begins: Vec::new(), used: Vec::new() }
}

fn key(name: &str, body: u8) -> Option<Key> {
    Some(Key { key: name.to_owned(), body: [body; 32] })
}

fn entry(text: &str) -> Entry {
    let what = What::Said { text: text.to_owned(), reminder: false };
    Entry { at: Timestamp::now(), branch: MAIN.to_owned(), node: "n".to_owned(), visit: 0, attempt: 0, what }
}

/// Opens the place as another process would.
async fn again(place: &Place, store: Store) -> Store {
    store.close().await;
    drop(store);
    place.open().await
}

async fn what_was_accepted_is_there_after_a_restart(place: Place) {
    let store = place.open().await;
    let first = execution("main");
    assert_eq!(store.accept(first.clone(), None).await.unwrap(), Accepted::New);
    let store = again(&place, store).await;
    assert_eq!(store.live().await.unwrap(), [first]);
    assert_eq!(store.total(), 1);
}

async fn a_key_gives_the_first_execution_again_and_another_body_clashes(place: Place) {
    let store = place.open().await;
    let first = execution("main");
    assert_eq!(store.accept(first.clone(), key("k", 1)).await.unwrap(), Accepted::New);
    let repeated = store.accept(execution("main"), key("k", 1)).await.unwrap();
    assert_eq!(repeated, Accepted::Again(first.id.clone()));
    assert_eq!(store.accept(execution("main"), key("k", 2)).await.unwrap(), Accepted::Clash);
    assert_eq!(store.accept(execution("other"), key("k", 2)).await.unwrap(), Accepted::New);
    let store = again(&place, store).await;
    assert_eq!(store.accept(execution("main"), key("k", 1)).await.unwrap(), Accepted::Again(first.id));
    assert_eq!((store.total(), store.live().await.unwrap().len()), (2, 2));
}

async fn of_concurrent_duplicates_one_is_accepted(place: Place) {
    let store = place.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        tasks.spawn(async move { store.accept(execution("main"), key("k", 1)).await.unwrap() });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|accepted| **accepted == Accepted::New).count(), 1);
    assert_eq!(store.live().await.unwrap().len(), 1);
}

async fn a_tick_is_inserted_once_and_never_backwards(place: Place) {
    let store = place.open().await;
    let at = |second| Timestamp::from_second(second).unwrap();
    assert!(store.tick("t".to_owned(), at(10), Some(execution("t"))).await.unwrap());
    assert!(!store.tick("t".to_owned(), at(10), Some(execution("t"))).await.unwrap());
    assert!(!store.tick("t".to_owned(), at(9), Some(execution("t"))).await.unwrap());
    assert!(store.tick("t".to_owned(), at(11), None).await.unwrap());
    assert_eq!((store.live().await.unwrap().len(), store.last_tick("t").await.unwrap()), (1, Some(at(11))));
}

async fn the_first_end_wins(place: Place) {
    let store = place.open().await;
    let first = execution("main");
    store.accept(first.clone(), None).await.unwrap();
    take(&store, &first.id).await;
    assert!(store.commit(as_is(Execution { state: State::Failed, ..first.clone() })).await.unwrap().is_some());
    assert!(store.commit(as_is(Execution { state: State::Succeeded, ..first.clone() })).await.unwrap().is_none());
    assert_eq!(store.get(&first.id).await.unwrap().unwrap().state, State::Failed);
    let store = again(&place, store).await;
    assert_eq!((store.live().await.unwrap().len(), store.failed()), (0, 1));
}

async fn a_list_is_newest_first_and_goes_on_from_an_id(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let one = execution("main");
        ids.push(one.id.clone());
        store.accept(one, None).await.unwrap();
    }
    ids.reverse();
    let of = |page: Listed| page.executions.into_iter().map(|e| e.id).collect::<Vec<_>>();
    let page = of(store.list(&Filter::default(), None, 2).await.unwrap());
    assert_eq!(page, ids[..2]);
    assert_eq!(of(store.list(&Filter::default(), Some(&page[1]), 9).await.unwrap()), ids[2..]);
}

async fn a_list_holds_what_its_filter_admits(place: Place) {
    let store = place.open().await;
    let (one, other) = (execution("main"), execution("other"));
    for execution in [&one, &other] {
        store.accept(execution.clone(), None).await.unwrap();
    }
    take(&store, &other.id).await;
    store.commit(as_is(Execution { state: State::Waiting, ..other.clone() })).await.unwrap();
    for (entry_point, state, expected) in [
        (Some("main"), None, vec![&one.id]),
        (None, Some(State::Waiting), vec![&other.id]),
        (Some("main"), Some(State::Waiting), vec![]),
        (None, None, vec![&other.id, &one.id]),
    ] {
        let filter = Filter { entry_point: entry_point.map(str::to_owned), state };
        let found = store.list(&filter, None, 9).await.unwrap().executions;
        assert_eq!(found.iter().map(|e| &e.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

async fn a_journal_is_numbered_without_gaps_and_read_on_from_any_entry(place: Place) {
    let store = place.open().await;
    let (one, other) = (execution("main"), execution("main"));
    for execution in [&one, &other] {
        store.accept(execution.clone(), None).await.unwrap();
        take(&store, &execution.id).await;
    }
    assert_eq!(store.append(one.id.clone(), vec![entry("a"), entry("b")], Vec::new()).await.unwrap(), 1..3);
    assert_eq!(store.append(other.id.clone(), vec![entry("x")], Vec::new()).await.unwrap(), 1..2);
    let commit = Commit { entries: vec![entry("c")], ..as_is(one.clone()) };
    assert_eq!(store.commit(commit).await.unwrap(), Some(3..4));
    let seqs: Vec<u64> = store.journal(&one.id, 1, 9).await.unwrap().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, [2, 3]);
    assert_eq!(store.journal(&one.id, 0, 1).await.unwrap().len(), 1);
    assert_eq!(store.last_entry(&other.id).await.unwrap().unwrap().what, entry("x").what);
    assert_eq!(store.last_entry("none").await.unwrap(), None);
}

async fn what_an_execution_leads_to_is_written_with_it(place: Place) {
    let store = place.open().await;
    let (first, second) = (execution("main"), execution("other"));
    store.accept(first.clone(), None).await.unwrap();
    take(&store, &first.id).await;
    let used = vec![Used { key: "steps".to_owned(), amount: 2 }];
    let ended = Execution { state: State::Succeeded, ended: Some(Timestamp::now()), ..first };
    store.commit(Commit { begins: vec![(second.clone(), 0)], used, ..as_is(ended) }).await.unwrap();
    let store = again(&place, store).await;
    assert_eq!(store.live().await.unwrap(), [second]);
    assert_eq!((store.total(), store.failed(), store.usage("steps").await.unwrap()), (2, 0, 2));
}

async fn a_reservation_that_exceeds_any_limit_counts_nothing(place: Place) {
    let store = place.open().await;
    let one = execution("main");
    store.accept(one.clone(), None).await.unwrap();
    take(&store, &one.id).await;
    let id = one.id.as_str();
    let used = |key: &str, amount| Used { key: key.to_owned(), amount };
    assert_eq!(store.reserve(id, vec![(used("a", 6), 10), (used("b", 6), 100)]).await.unwrap(), None);
    let exceeded = store.reserve(id, vec![(used("b", 6), 100), (used("a", 6), 10)]).await.unwrap();
    assert_eq!(exceeded, Some("a".to_owned()));
    assert_eq!((store.usage("a").await.unwrap(), store.usage("b").await.unwrap()), (6, 6));
    store.append(one.id.clone(), Vec::new(), vec![used("a", -9)]).await.unwrap();
    assert_eq!(store.usage("a").await.unwrap(), 0, "giving back never goes below nothing");
}

async fn limits_hold_though_many_reserve_at_once(place: Place) {
    let store = place.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (store, one) = (store.clone(), execution("main"));
        tasks.spawn(async move {
            store.accept(one.clone(), None).await.unwrap();
            take(&store, &one.id).await;
            let wanted = (Used { key: "day".to_owned(), amount: 10 }, 100);
            store.reserve(&one.id, vec![wanted]).await.unwrap().is_none()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|granted| *granted).count(), 10);
    assert_eq!(store.usage("day").await.unwrap(), 100);
}

async fn what_ended_long_ago_is_swept_with_its_journal_and_what_lives_stays(place: Place) {
    let store = place.open().await;
    let long_ago = Timestamp::from_second(1_000_000).unwrap();
    let old = Execution { created: long_ago, ..execution("main") };
    let lives = Execution { created: long_ago, ..execution("main") };
    let fresh = execution("main");
    for execution in [&old, &lives, &fresh] {
        store.accept(execution.clone(), None).await.unwrap();
    }
    for (execution, ended) in [(&old, long_ago), (&fresh, Timestamp::now())] {
        take(&store, &execution.id).await;
        let ended = Execution { state: State::Succeeded, ended: Some(ended), ..execution.clone() };
        store.commit(Commit { entries: vec![entry("end")], ..as_is(ended) }).await.unwrap();
    }
    let cutoff = Timestamp::from_second(2_000_000).unwrap();
    assert_eq!(store.sweep(cutoff).await.unwrap(), std::slice::from_ref(&old.id));
    assert_eq!(store.get(&old.id).await.unwrap(), None);
    assert!(store.journal(&old.id, 0, 9).await.unwrap().is_empty());
    assert!(!store.journal(&fresh.id, 0, 9).await.unwrap().is_empty());
    assert_eq!(store.live().await.unwrap(), [lives]);
}

async fn what_has_ended_is_opened_again_once(place: Place) {
    let store = place.open().await;
    let first = execution("main");
    store.accept(first.clone(), None).await.unwrap();
    assert!(!store.reopen(first.clone(), Vec::new()).await.unwrap(), "it lives");
    take(&store, &first.id).await;
    store.commit(as_is(Execution { state: State::Failed, ..first.clone() })).await.unwrap();
    assert!(store.reopen(first.clone(), vec![entry("again")]).await.unwrap());
    assert!(!store.reopen(first.clone(), vec![entry("again")]).await.unwrap());
    assert_eq!(store.live().await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(store.journal(&first.id, 0, 9).await.unwrap().len(), 1);
}

async fn a_definition_is_kept_once(place: Place) {
    let store = place.open().await;
    for text in ["text", "other"] {
        store.keep_definition("h".to_owned(), "f".to_owned(), text.to_owned()).await.unwrap();
        store.accept(execution("main"), None).await.unwrap();
    }
    let store = again(&place, store).await;
    assert_eq!(store.definitions().await.unwrap()["h"], ("f".to_owned(), "text".to_owned()));
}

/// A record as an earlier version, or a later one, may have left it.
const SPOILT: [&[u8]; 4] = [b"", b"{", b"{\"id\":1}", b"\xff\x00"];

async fn what_cannot_be_read_is_named_and_left_out_and_all_else_goes_on(place: Place) {
    let store = place.open().await;
    let mut all = Vec::new();
    for n in 0..3 * SPOILT.len() {
        let one = execution("main");
        store.accept(one.clone(), None).await.unwrap();
        all.push(one);
        if let Some(bytes) = SPOILT.get(n / 3).filter(|_| n % 3 == 1) {
            store.spoil(&all[n].id, bytes).await;
        }
    }
    let deep = format!("{{\"id\":{}{}}}", "[".repeat(300), "]".repeat(300));
    store.spoil(&all[0].id, deep.as_bytes()).await;
    let store = again(&place, store).await;
    let bad: Vec<&str> =
        all.iter().enumerate().filter(|(n, _)| n % 3 == 1 || *n == 0).map(|(_, one)| one.id.as_str()).collect();
    let good: Vec<Execution> = all.iter().filter(|one| !bad.contains(&one.id.as_str())).cloned().collect();
    assert_eq!(store.live().await.unwrap(), good);
    assert_eq!(store.unreadable(), bad.len());
    // Page by page, each is in one of them: found or named.
    let (mut found, mut named, mut before, mut pages) = (Vec::new(), Vec::new(), None::<String>, 0);
    loop {
        let page = store.list(&Filter::default(), before.as_deref(), 2).await.unwrap();
        found.extend(page.executions);
        named.extend(page.unreadable.into_iter().map(|one| one.id));
        pages += 1;
        let Some(last) = page.last else { break };
        before = Some(last);
    }
    found.reverse();
    named.reverse();
    assert_eq!((found, pages), (good.clone(), all.len() / 2 + 1));
    assert_eq!(named, bad);
    let error = store.get(bad[0]).await.unwrap_err();
    assert!(matches!(&error, Error::Foreign { id, .. } if id == bad[0]), "{error}");
    store.sweep(Timestamp::now()).await.unwrap();
    if let Some(shared) = store.shared() {
        // Each is claimed once at most, gives its place back, and those behind it run.
        let mut claimed = Vec::new();
        for _ in 0..all.len() {
            match shared.claim("main", usize::MAX, Timestamp::now()).await {
                Ok(Some(one)) => claimed.push(shared.hold(one, tokio_util::sync::CancellationToken::new()).0.id),
                Ok(None) => break,
                Err(error) => assert!(matches!(error, Error::Foreign { .. }), "{error}"),
            }
        }
        assert_eq!(claimed, good.iter().map(|one| one.id.clone()).collect::<Vec<_>>());
        assert!(shared.heads(&[("main".to_owned(), 99)], Timestamp::now()).await.unwrap().is_empty());
    }
}

async fn what_cannot_be_read_can_be_given_up_and_is_swept(place: Place) {
    let store = place.open().await;
    let one = execution("main");
    store.accept(one.clone(), None).await.unwrap();
    store.spoil(&one.id, b"{").await;
    assert!(store.give_up(&one.id).await.unwrap());
    assert!(!store.give_up(&one.id).await.unwrap() && !store.give_up("none").await.unwrap());
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    assert_eq!(store.sweep(later).await.unwrap(), [one.id]);
    assert_eq!(store.unreadable(), 0);
    let store = again(&place, store).await;
    assert_eq!((store.unreadable(), store.failed(), store.live().await.unwrap().len()), (0, 1, 0));
}

async fn whatever_is_accepted_is_read_again_and_the_rest_is_refused(place: Place) {
    let store = place.open().await;
    let mut accepted = 0;
    for levels in [1, 60, 64, 100, 120, 126, 127, 128, 200] {
        let nested = (0..levels).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        let mut one = execution("main");
        one.memory.insert("k".to_owned(), nested.clone());
        let taken = store.accept(one.clone(), None).await;
        accepted += usize::from(taken.is_ok());
        match taken {
            Ok(_) => assert_eq!(store.get(&one.id).await.unwrap(), Some(one.clone()), "{levels}"),
            Err(error) => assert!(matches!(error, Error::Unstorable { .. }) && levels > 64, "{levels}: {error}"),
        }
        let holder = execution("main");
        store.accept(holder.clone(), None).await.unwrap();
        take(&store, &holder.id).await;
        let what = What::Input { value: nested };
        let entry = Entry { what, ..entry("") };
        let noted = store.append(holder.id.clone(), vec![entry.clone()], Vec::new()).await;
        let read = store.journal(&holder.id, 0, 9).await.unwrap();
        assert_eq!(
            read.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(),
            noted.map(|_| entry).into_iter().collect::<Vec<_>>()
        );
    }
    assert!(accepted >= 3);
    let store = again(&place, store).await;
    assert_eq!((store.live().await.unwrap().len(), store.unreadable()), (accepted + 9, 0));
}
