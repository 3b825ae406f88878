use jiff::Timestamp;
use lifecycle::Desired;

use super::*;
use crate::store::conformance::server::Server;
use crate::store::{Accepted, Commit, Entry, Execution, MAIN, State, What};

const LEASE: Duration = Duration::from_secs(30);

async fn open(url: &str) -> Store {
    let settings = Settings { url: url.to_owned(), runtime_uid: "u".to_owned(), lease: LEASE };
    Store::open(settings).await.expect("it opens")
}

fn execution(entry: &str) -> Execution {
    Execution::new(entry, "hash", "first", serde_json::Map::new(), Timestamp::now())
}

async fn accept(store: &Store) -> Execution {
    let one = execution("main");
    assert_eq!(store.accept(&one, 0, usize::MAX, None).await.unwrap(), Accepted::New);
    one
}

async fn claim(store: &Store) -> Option<(Execution, i64)> {
    let claimed = store.claim("main", usize::MAX, Timestamp::now()).await.unwrap()?;
    Some(store.hold(claimed, CancellationToken::new()))
}

fn entry() -> Entry {
    let what = What::Said { text: "t".to_owned(), reminder: false };
    Entry { at: Timestamp::now(), branch: MAIN.to_owned(), node: "n".to_owned(), visit: 0, attempt: 0, what }
}

fn succeeded(execution: &Execution) -> Commit {
    let execution = Execution { state: State::Succeeded, ended: Some(Timestamp::now()), ..execution.clone() };
    Commit { execution, entries: vec![entry()], begins: Vec::new(), used: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_a_stale_claim_is_refused_and_the_new_ones_stand() {
    let Some(server) = Server::start() else { return };
    let url = server.database("d");
    let (one, other) = (open(&url).await, open(&url).await);
    let first = accept(&one).await;
    let (held, _) = claim(&one).await.unwrap();
    assert!(claim(&other).await.is_none(), "its lease holds");
    assert!(matches!(other.seize(&first.id).await.unwrap(), Seized::Runs));
    // As if its replica had stalled for the lease.
    server.sql("d", "UPDATE executions SET lease_until = clock_timestamp() - interval '1 s'");
    let (taken, _) = claim(&other).await.unwrap();
    assert_eq!((&taken.id, &held.id), (&first.id, &first.id));
    let stale = |error: Error| assert!(matches!(&error, Error::Stale(id) if *id == first.id), "{error}");
    let used = crate::store::Used { key: "k".to_owned(), amount: 1 };
    stale(one.append(&first.id, &[entry()], &[]).await.unwrap_err());
    stale(one.reserve(&first.id, &[(used, 9)]).await.unwrap_err());
    stale(one.commit(&succeeded(&held)).await.unwrap_err());
    assert_eq!((one.journal(&first.id, 0, 9).await.unwrap().len(), one.usage("k").await.unwrap()), (0, 0));
    assert_eq!(other.append(&first.id, &[entry()], &[]).await.unwrap(), 1..2);
    assert_eq!(other.commit(&succeeded(&taken)).await.unwrap(), Some(2..3));
    stale(one.commit(&succeeded(&held)).await.unwrap_err());
    assert_eq!(server.sql("d", "SELECT claim_no, claimed_by IS NULL, state FROM executions"), ["2|t|succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_an_earlier_claim_of_the_same_replica_is_refused() {
    let Some(server) = Server::start() else { return };
    let url = server.database("d");
    // So long that nothing else finds out first that the claim is an old one.
    let settings = Settings { url, runtime_uid: "u".to_owned(), lease: LEASE * 60 };
    let store = Store::open(settings).await.unwrap();
    let first = accept(&store).await;
    claim(&store).await.unwrap();
    let before = Arc::clone(&store.claims()[&first.id]);
    server.sql("d", "UPDATE executions SET lease_until = clock_timestamp() - interval '1 s'");
    let (again, _) = claim(&store).await.unwrap();
    // As a write has it that was under way meanwhile.
    let now = store.claims().insert(first.id.clone(), before).unwrap();
    let error = store.append(&first.id, &[entry()], &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Stale(id) if *id == first.id), "{error}");
    assert!(store.journal(&first.id, 0, 9).await.unwrap().is_empty());
    store.claims().insert(first.id.clone(), now);
    assert_eq!(store.commit(&succeeded(&again)).await.unwrap(), Some(1..2));
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_hold_over_replicas_and_claims_come_by_priority() {
    let Some(server) = Server::start() else { return };
    let url = server.database("d");
    let stores = [open(&url).await, open(&url).await, open(&url).await];
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let store = stores[n % 3].clone();
        tasks.spawn(async move { store.accept(&execution("main"), 0, 10, None).await.unwrap() });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|accepted| **accepted == Accepted::New).count(), 10);
    let urgent = execution("main");
    stores[0].accept(&urgent, 1, 11, None).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..30 {
        let store = stores[n % 3].clone();
        tasks.spawn(async move { store.claim("main", 4, Timestamp::now()).await.unwrap().map(|c| c.execution.id) });
    }
    let claimed: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 4, "as many as may run at once");
    assert!(claimed.contains(&urgent.id), "one level of priority is worth a minute");
    let limits = [("main".to_owned(), 4)];
    assert!(stores[1].heads(&limits, Timestamp::now()).await.unwrap().is_empty(), "it is full");
    assert_eq!(stores[1].heads(&[("main".to_owned(), 5)], Timestamp::now()).await.unwrap(), ["main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_pause_is_accepted_no_replica_claims_and_an_older_word_does_not_count() {
    let Some(server) = Server::start() else { return };
    let url = server.database("d");
    let (one, other) = (open(&url).await, open(&url).await);
    for _ in 0..200 {
        accept(&one).await;
    }
    let paused = Arc::new(AtomicBool::new(false));
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (store, paused) = (other.clone(), Arc::clone(&paused));
        claimers.spawn(async move {
            let mut claimed = 0;
            loop {
                let was_paused = paused.load(Ordering::SeqCst);
                let found = claim(&store).await.is_some();
                assert!(!(was_paused && found), "a claim after the answer");
                claimed += usize::from(found);
                if was_paused {
                    return claimed;
                }
            }
        });
    }
    while server.sql("d", "SELECT count(*) > 20 FROM executions WHERE claim_no > 0") != ["t"] {}
    one.accept_epoch(5, Desired::Paused).await.unwrap();
    let at_answer = server.sql("d", "SELECT count(*) FROM executions WHERE claim_no > 0");
    paused.store(true, Ordering::SeqCst);
    let claimed: usize = claimers.join_all().await.into_iter().sum();
    assert_eq!(vec![claimed.to_string()], at_answer);
    assert!(claimed < 200, "the test saw no pause");
    assert!(!other.tick("t", Timestamp::now(), Some((&execution("t"), 0)), true).await.unwrap(), "no tick either");
    other.accept_epoch(4, Desired::Running).await.unwrap();
    assert!(claim(&other).await.is_none(), "epoch 4 is older");
    other.accept_epoch(6, Desired::Running).await.unwrap();
    assert!(claim(&one).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_done_once() {
    let Some(server) = Server::start() else { return };
    let url = server.database("d");
    let store = open(&url).await;
    let first = accept(&store).await;
    let (held, no) = claim(&store).await.unwrap();
    assert_eq!(store.append(&first.id, &[entry(), entry()], &[]).await.unwrap(), 1..3);
    // As if the answer had not come: the number of the last write is the one before.
    *store.claims()[&first.id].write_no.try_lock().unwrap() -= 1;
    let again = store.append(&first.id, &[entry(), entry()], &[]).await.unwrap_err();
    assert!(matches!(again, Error::Stale(_)), "a first try that finds another number is refused: {again}");
    assert_eq!(store.append_again(&first.id, &[entry(), entry()]).await.unwrap(), 1..3);
    assert_eq!(store.journal(&first.id, 0, 9).await.unwrap().len(), 2);
    assert_eq!(store.commit(&succeeded(&held)).await.unwrap(), Some(3..4));
    store.let_go(&first.id, no).await;
    assert_eq!(server.sql("d", "SELECT sum(value) FROM counters"), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_in_the_middle_of_writes_loses_none_and_doubles_none() {
    let Some(mut server) = Server::start() else { return };
    let url = server.database("d");
    let store = open(&url).await;
    let first = accept(&store).await;
    claim(&store).await.unwrap();
    let writer = {
        let (store, id) = (store.clone(), first.id.clone());
        tokio::spawn(async move {
            for n in 0..300_u64 {
                assert_eq!(store.append(&id, &[entry()], &[]).await.unwrap(), n + 1..n + 2);
            }
        })
    };
    for (count, signal) in [(50, "QUIT"), (150, "INT")] {
        let wanted = format!("SELECT count(*) >= {count} FROM journal");
        while server.sql("d", &wanted) != ["t"] {}
        server.down(signal);
        server.up();
    }
    writer.await.unwrap();
    assert_eq!(server.sql("d", "SELECT count(*), max(seq) FROM journal"), ["300|300"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_altered_database_is_refused_for_good_and_one_out_of_reach_is_not() {
    let Some(mut server) = Server::start() else { return };
    let url = server.database("d");
    open(&url).await.close().await;
    open(&url).await.close().await;
    let refused = async || {
        let settings = Settings { url: url.clone(), runtime_uid: String::new(), lease: LEASE };
        Store::open(settings).await.unwrap_err()
    };
    server.sql("d", "INSERT INTO _sqlx_migrations SELECT 99, 'later', now(), true, 'x', 1");
    let newer = refused().await;
    assert!(matches!(&newer, Error::Schema(why) if why.contains("99")), "{newer}");
    server.sql("d", "DELETE FROM _sqlx_migrations WHERE version = 99; UPDATE _sqlx_migrations SET checksum = 'x'");
    let altered = refused().await;
    assert!(matches!(&altered, Error::Schema(_)), "{altered}");
    server.down("INT");
    let away = refused().await;
    assert!(matches!(&away, Error::Unreachable(_)), "{away}");
    let settings = Settings { url: "mysql://x".to_owned(), runtime_uid: String::new(), lease: LEASE };
    assert!(matches!(Store::open(settings).await, Err(Error::Url(_))));
}
