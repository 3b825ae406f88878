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
                Store::connect(settings).await.expect("it opens")
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
    let of = |page: Vec<Execution>| page.into_iter().map(|e| e.id).collect::<Vec<_>>();
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
        let found = store.list(&filter, None, 9).await.unwrap();
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
