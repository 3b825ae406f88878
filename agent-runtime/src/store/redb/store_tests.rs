use super::*;

fn execution(entry: &str) -> Execution {
    Execution::new(entry, "hash", "first", serde_json::Map::new(), Timestamp::now())
}

fn open(folder: &Path) -> Store {
    Store::open(folder, Ended::new()).expect("it opens")
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
