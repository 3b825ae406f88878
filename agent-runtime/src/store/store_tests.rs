use super::*;

fn execution(entry: &str) -> Execution {
    Execution::new(entry, "hash", "first", serde_json::Map::new(), Timestamp::now())
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
    assert!(store.progress(Execution { state: State::Failed, ..first.clone() }).await.unwrap());
    assert!(!store.progress(Execution { state: State::Succeeded, ..first.clone() }).await.unwrap());
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
    let page: Vec<_> = store.list(None, 2).unwrap().into_iter().map(|e| e.id).collect();
    assert_eq!(page, ids[..2]);
    let rest: Vec<_> = store.list(Some(&page[1]), 9).unwrap().into_iter().map(|e| e.id).collect();
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
