//! Several runtimes on one database: each execution is one replica's at a time, whatever becomes of replicas and of
//! the database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lifecycle::wire::BrakeCommand;
use lifecycle::{Desired, State, Verb};
use serde_json::Value;

use crate::postgres_server::Server;
use crate::process::{Home, PATIENCE, Runtime, agent, command, eventually, held};

/// Seconds of a lease in these tests: the least that can be set.
pub(crate) const LEASE: &str = "9";

/// Notes each claim with what it took over, and each write: what the database saw, whatever the runtimes say.
const AUDIT: &str = "
    CREATE TABLE claims_seen (execution text, claim_no bigint, claimed_by text, was_held boolean, at timestamptz);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.claim_no > OLD.claim_no AND NEW.claimed_by IS NOT NULL THEN
            INSERT INTO claims_seen VALUES (NEW.id, NEW.claim_no, NEW.claimed_by,
                OLD.ended IS NOT NULL OR (OLD.claimed_by IS NOT NULL AND OLD.lease_until >= clock_timestamp()),
                clock_timestamp());
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER see BEFORE UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION see();";

/// Each step notes who began it and when it ended, in files that the replicas share.
const AGENT: &str = r#"
graph:
  async_entry_points:
    - {id: slow, entry_node: a, trigger_type: api, max_concurrent: 12, max_queued: 1000}
    - {id: tick, entry_node: t, trigger_type: timer, trigger_config: {interval_seconds: 0.5, overlap: allow}}
  nodes:
    - {id: a, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY $PPID >> LEDGER/begun; echo $HIVE_STORE_URL >> LEDGER/told; sleep 0.3; echo $HIVE_IDEMPOTENCY_KEY >> LEDGER/ended"]}
    - {id: b, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY $PPID >> LEDGER/begun; sleep 0.2; echo $HIVE_IDEMPOTENCY_KEY >> LEDGER/ended"]}
    - {id: t, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "echo {{scheduled_time}} >> LEDGER/ticks"]}
  edges: [{source: a, target: b}]
"#;

/// Replicas of one agent: each has a folder of its own, and all have one database and one ledger.
pub(crate) struct Replicas {
    pub(crate) server: Server,
    url: String,
    ledger: tempfile::TempDir,
    agent: String,
}

impl Replicas {
    pub(crate) fn new(agent: &str) -> Option<Self> {
        Server::start().map(|server| Self::of(agent, server))
    }

    /// The same, with a server that listens on this port of the loopback too.
    pub(crate) fn on(agent: &str, port: u16) -> Option<Self> {
        Server::start_on(port, &[], &[]).map(|server| Self::of(agent, server))
    }

    fn of(agent: &str, server: Server) -> Self {
        let url = server.database("runtime");
        let ledger = tempfile::tempdir().unwrap();
        let agent = agent.replace("LEDGER", &ledger.path().display().to_string());
        Self { server, url, ledger, agent }
    }

    pub(crate) fn home(&self) -> Home {
        self.home_at(&self.url)
    }

    /// One that reaches the database by another address.
    pub(crate) fn home_at(&self, url: &str) -> Home {
        Home::new(&self.agent).with("HIVE_STORE_URL", url).with("HIVE_STORE_LEASE_SECONDS", LEASE)
    }

    pub(crate) async fn start(&self) -> (Home, Runtime) {
        let home = self.home();
        let runtime = home.start().await;
        runtime.reach(State::Running).await;
        (home, runtime)
    }

    pub(crate) fn sql(&self, statements: &str) -> Vec<String> {
        self.server.sql("runtime", statements)
    }

    /// A file that all replicas share.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.ledger.path().join(file)
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits, for longer than a lease, until everything that was triggered has ended.
    async fn all_ended(&self) {
        let watch = async {
            while self.sql("SELECT count(*) FROM executions WHERE ended IS NULL AND entry_point = 'slow'") != ["0"] {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 4, watch).await.expect("everything ends");
    }
}

/// Triggers with a key, again until it is accepted, at one of several runtimes.
async fn trigger(runtimes: &[&Runtime], n: usize, accepted: &mut BTreeMap<String, String>) {
    let key = format!("k{n}");
    let begun = std::time::Instant::now();
    for runtime in runtimes.iter().cycle().skip(n % runtimes.len()) {
        let (code, body) = runtime.post("/api/v1/entry-points/slow/trigger", &[("Idempotency-Key", &key)], "{}").await;
        if let (202, Some(id)) = (code, body["execution"].as_str()) {
            accepted.insert(key, id.to_owned());
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{code} {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stalls a replica at a moment at which it holds executions, whose ids it gives.
async fn stop_while_it_holds(
    replicas: &Replicas,
    runtime: &Runtime,
    feeds: &Runtime,
    from: usize,
    accepted: &mut BTreeMap<String, String>,
) -> Vec<String> {
    let pid = format!(" {}", runtime.child.id().unwrap());
    let begun = replicas.lines("begun").into_iter().find(|line| line.ends_with(&pid)).expect("it has begun something");
    let first = begun.split('/').next().unwrap();
    let claimed_by = format!("SELECT claimed_by FROM claims_seen WHERE execution = '{first}' AND claim_no = 1");
    let name = replicas.sql(&claimed_by).remove(0);
    let holds =
        format!("SELECT id FROM executions WHERE ended IS NULL AND entry_point = 'slow' AND claimed_by = '{name}'");
    for n in from..from + 500 {
        trigger(&[feeds], n, accepted).await;
        runtime.signal(rustix::process::Signal::STOP);
        let held = replicas.sql(&holds);
        if !held.is_empty() {
            return held;
        }
        runtime.signal(rustix::process::Signal::CONT);
    }
    panic!("it never held anything");
}

/// What must hold whatever happened: every accepted execution has succeeded once, no claim took one that another
/// held, and each outcome stands in the journal once.
fn check(replicas: &Replicas, accepted: &BTreeMap<String, String>) {
    let ids: BTreeSet<&String> = accepted.values().collect();
    assert_eq!(ids.len(), accepted.len(), "one execution for each key");
    let ended = replicas.sql("SELECT id FROM executions WHERE entry_point = 'slow' AND state = 'succeeded'");
    let ended: BTreeSet<&String> = ended.iter().collect();
    assert!(ids.is_subset(&ended), "none is lost: {:?}", ids.difference(&ended));
    assert_eq!(ended.len(), ids.len(), "none is doubled");
    let seen = replicas.sql("SELECT * FROM claims_seen WHERE was_held");
    assert!(seen.is_empty(), "claimed while another had it: {seen:?}");
    let doubled = replicas.sql(
        "SELECT execution, e->>'node', count(*) FROM (SELECT execution, convert_from(entry, 'UTF8')::jsonb AS e FROM journal) j
         WHERE e->>'event' = 'succeeded' GROUP BY 1, 2 HAVING count(*) > 1",
    );
    assert!(doubled.is_empty(), "an outcome that was written twice: {doubled:?}");
    let ticks = replicas.sql("SELECT count(*) - count(DISTINCT convert_from(record, 'UTF8')::jsonb->'memory'->'scheduled_time') FROM executions WHERE entry_point = 'tick'");
    assert_eq!(ticks, ["0"], "no tick twice");
    assert!(replicas.lines("told").iter().all(String::is_empty), "no program is told the database's address");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_under_load_with_one_killed_one_stalled_and_one_paused_run_each_execution_once_at_a_time() {
    let Some(replicas) = Replicas::new(AGENT) else { return };
    let (_first_home, stays) = replicas.start().await;
    replicas.sql(AUDIT);
    let (mut homes, mut others) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (home, runtime) = replicas.start().await;
        homes.push(home);
        others.push(runtime);
    }
    let (paused, stalled, killed) = (others.remove(0), others.remove(0), others.remove(0));
    let mut accepted = BTreeMap::new();
    let pids = [&stays, &paused, &stalled, &killed].map(|runtime| runtime.child.id().unwrap().to_string());
    let have_begun = || {
        let begun = replicas.lines("begun");
        let by: BTreeSet<String> = begun.iter().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect();
        pids.iter().all(|pid| by.contains(pid))
    };
    for n in 0.. {
        trigger(&[&stays, &paused, &stalled, &killed], n, &mut accepted).await;
        if n >= 40 && have_begun() {
            break;
        }
    }
    let of_killed = stop_while_it_holds(&replicas, &killed, &stays, 1000, &mut accepted).await;
    killed.kill().await;
    paused.ask(Verb::Pause).await;
    assert_eq!(paused.reach(State::Paused).await.in_flight, Some(0));
    let at_pause = replicas.lines("begun");
    let of_stalled = stop_while_it_holds(&replicas, &stalled, &stays, 2000, &mut accepted).await;
    for n in 3000..3060 {
        trigger(&[&stays], n, &mut accepted).await;
    }
    replicas.all_ended().await;
    let of_paused = |lines: &[String]| lines.iter().filter(|line| line.ends_with(&format!(" {}", pids[1]))).count();
    assert_eq!(of_paused(&replicas.lines("begun")), of_paused(&at_pause), "nothing began where it was paused");
    for held in [of_killed, of_stalled] {
        // What the server had from it when it stopped may have been written still.
        let claims = format!(
            "SELECT count(*) > 0 FROM claims_seen WHERE claim_no > 1 AND execution IN ('{}')",
            held.join("', '")
        );
        assert_eq!(replicas.sql(&claims), ["t"], "{held:?} were taken over");
    }
    let before = replicas
        .sql("SELECT count(*) FROM journal WHERE execution IN (SELECT id FROM executions WHERE entry_point = 'slow')");
    stalled.signal(rustix::process::Signal::CONT);
    eventually("the stalled one lets go of what it had", || async { stalled.status().await.in_flight == Some(0) })
        .await;
    let after = replicas
        .sql("SELECT count(*) FROM journal WHERE execution IN (SELECT id FROM executions WHERE entry_point = 'slow')");
    assert_eq!(before, after, "what a stale claim would have written is refused");
    check(&replicas, &accepted);
    trigger(&[&stalled], 5000, &mut accepted).await;
    replicas.all_ended().await;
    check(&replicas, &accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_database_in_the_middle_of_a_load_loses_nothing() {
    let Some(mut replicas) = Replicas::new(AGENT) else { return };
    let (_home, one) = replicas.start().await;
    let (_other_home, other) = replicas.start().await;
    replicas.sql(AUDIT);
    let mut accepted = BTreeMap::new();
    for (round, signal) in ["QUIT", "INT"].into_iter().enumerate() {
        for n in 0..25 {
            trigger(&[&one, &other], round * 100 + n, &mut accepted).await;
        }
        replicas.server.down(signal);
        eventually("it says that its database is away", || async {
            one.status().await.health.storage.as_str() == "unhealthy" && one.get("/health/ready").await.0 == 503
        })
        .await;
        let (code, problem) = one.post("/api/v1/entry-points/slow/trigger", &[], "{}").await;
        assert_eq!((code, &problem["type"]), (503, &Value::String("storage_unavailable".to_owned())), "{problem}");
        assert_eq!((one.get("/health/live").await.0, one.status().await.state), (200, State::Running));
        replicas.server.up();
        eventually("it is ready again", || async { one.get("/health/ready").await.0 == 200 }).await;
    }
    for n in 500..520 {
        trigger(&[&one, &other], n, &mut accepted).await;
    }
    replicas.all_ended().await;
    check(&replicas, &accepted);
    let status = one.status().await;
    assert_eq!(serde_json::to_value(status.counter_scope).unwrap(), "store");
    eventually("both count all", || async {
        let (one, other) = (one.status().await, other.status().await);
        one.failed_executions == 0 && one.total_executions >= 70 && one.total_executions == other.total_executions
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_whose_database_is_away_at_the_start_says_so_and_begins_when_it_is_there() {
    let Some(mut replicas) = Replicas::new(&agent(0.0)) else { return };
    replicas.server.down("INT");
    let home = replicas.home();
    let runtime = home.start().await;
    eventually("it says why", || async {
        runtime.status().await.message.is_some_and(|message| message.contains("out of reach"))
    })
    .await;
    let (code, problem) = runtime.get("/health/ready").await;
    assert_eq!((code, runtime.status().await.state), (503, State::Starting), "{problem}");
    assert_eq!(runtime.status().await.health.storage.as_str(), "unhealthy");
    replicas.server.up();
    runtime.reach(State::Running).await;
    runtime.trigger().await;
    home.wait_for_lines("done", 1).await;
    replicas.sql("INSERT INTO _sqlx_migrations SELECT 99, 'later', now(), true, 'x', 1");
    let home = replicas.home();
    let newer = home.start().await;
    let status = newer.reach(State::Stopped).await;
    assert!(status.message.as_deref().is_some_and(|message| message.contains("99")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_address_that_is_not_there_yet_or_is_empty_is_waited_for() {
    let Some(replicas) = Replicas::new(&agent(0.0)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let home = Home::new(&replicas.agent).with("HIVE_STORE_URL_FILE", &file.display().to_string());
    let runtime = home.start().await;
    let says = |what: &'static str| {
        let runtime = &runtime;
        eventually(what, move || async move {
            let status = runtime.status().await;
            let message = status.message.unwrap_or_default();
            message.contains("HIVE_STORE_URL_FILE") && message.contains(what) && status.state == State::Starting
        })
    };
    says("No such file").await;
    std::fs::write(&file, "\n").unwrap();
    says("it is empty").await;
    std::fs::write(&file, &replicas.url).unwrap();
    assert_eq!(runtime.reach(State::Running).await.counter_scope, lifecycle::wire::CounterScope::Store);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_accepted_pause_stops_the_claims_of_every_replica_and_a_local_one_only_its_own() {
    let Some(mut replicas) = Replicas::new(&agent(0.0)) else { return };
    let (one, other) = (replicas.home().managed(), replicas.home().managed());
    let mut runtimes = Vec::new();
    for home in [&one, &other] {
        home.write_boot(1, "running");
        let runtime = home.start().await;
        runtime.send(Verb::Start, &command(1)).await.unwrap();
        runtime.reach(State::Running).await;
        runtimes.push(runtime);
    }
    let [first, second] = runtimes.as_slice() else { panic!("two") };
    first.ask(Verb::Pause).await;
    first.reach(State::Paused).await;
    second.trigger().await;
    other.wait_for_lines("done", 1).await;
    first.ask(Verb::Resume).await;
    first.reach(State::Running).await;
    first.send(Verb::Pause, &command(2)).await.unwrap();
    first.reach(State::Paused).await;
    second.trigger().await;
    let queued = "SELECT count(*) FROM executions WHERE entry_point = 'slow' AND state = 'queued' AND claim_no = 0";
    // Not a synchronisation: the other replica looks for work every second, and must find none.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((replicas.sql(queued), second.status().await.state), (vec!["1".to_owned()], State::Running));
    assert_eq!((one.lines("done").len(), other.lines("done").len()), (0, 1));
    // With the database away a pause holds here, and is acknowledged only when the others' claims know it.
    second.send(Verb::Resume, &command(3)).await.unwrap();
    first.send(Verb::Resume, &command(3)).await.unwrap();
    eventually("it runs", || async { one.lines("done").len() + other.lines("done").len() == 2 }).await;
    replicas.server.down("INT");
    let refused = first.send(Verb::Pause, &command(4)).await.unwrap_err();
    assert!(refused.to_string().contains("out of reach"), "{refused}");
    first.reach(State::Paused).await;
    replicas.server.up();
    eventually("it is told when the database is there", || async {
        replicas.sql("SELECT epoch, desired FROM control WHERE runtime_uid = 'runtime-1'") == ["4|paused"]
    })
    .await;
    assert!(first.send(Verb::Pause, &command(4)).await.unwrap().reached);
}

#[tokio::test(flavor = "multi_thread")]
async fn brake_is_told_to_no_shared_store_and_waits_for_none() {
    let Some(mut replicas) = Replicas::new(&agent(0.0)) else { return };
    let (one, other) = (replicas.home().managed(), replicas.home().managed());
    let mut runtimes = Vec::new();
    for home in [&one, &other] {
        home.write_boot(1, "running");
        let runtime = home.start().await;
        runtime.send(Verb::Start, &command(1)).await.unwrap();
        runtime.reach(State::Running).await;
        runtimes.push(runtime);
    }
    let [first, second] = runtimes.as_slice() else { panic!("two") };
    let brake = BrakeCommand { id: "a".to_owned(), state: Desired::Paused, epoch: 1, ..BrakeCommand::default() };
    first.client.brake(first.address, &brake, PATIENCE).await.unwrap();
    first.reach(State::Paused).await;
    second.trigger().await;
    other.wait_for_lines("done", 1).await;
    assert_eq!(replicas.sql("SELECT epoch, desired FROM control WHERE runtime_uid = 'runtime-1'"), ["1|running"]);
    // While a command waits for a database that is away, a brake waits for neither.
    replicas.server.down("INT");
    let brake = BrakeCommand { epoch: 2, ..brake };
    let braked = async {
        eventually("the command is obeyed", || async { second.status().await.epoch == 2 }).await;
        let begun = Instant::now();
        let answer = second.client.brake(second.address, &brake, PATIENCE).await.unwrap();
        (answer.status.brake_ids().to_vec(), begun.elapsed())
    };
    let pause = command(2);
    let (paused, (brakes, took)) = tokio::join!(second.send(Verb::Pause, &pause), braked);
    assert!(paused.is_err_and(|error| error.to_string().contains("out of reach")));
    assert_eq!(brakes, ["a"]);
    assert!(took < Duration::from_secs(1), "{took:?}");
    replicas.server.up();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_another_replica_is_cancelled_answered_and_followed_through_this_one() {
    let Some(replicas) = Replicas::new(&held()) else { return };
    let (home, runs) = replicas.start().await;
    let id = runs.work(&home).await;
    let (_other_home, other) = replicas.start().await;
    let path = format!("/api/v1/executions/{id}");
    assert_eq!(other.get(&path).await.1["state"], "running");
    let answered = other.post(&format!("{path}/input"), &[], r#"{"value": 1}"#).await;
    assert_eq!((answered.0, &answered.1["type"]), (409, &Value::String("not_asked".to_owned())), "{}", answered.1);
    let events_path = format!("{path}/events");
    let events = other.call("GET", &events_path, &[], "");
    let cancels = async {
        let (code, body) = other.post(&format!("{path}/cancel"), &[], "").await;
        assert_eq!(code, 202, "{body}");
    };
    let ((code, events), ()) = tokio::join!(events, cancels);
    let events = events.as_str().unwrap().to_owned();
    assert_eq!(code, 200);
    assert!(events.contains("cancelling") && events.contains(r#""state":"cancelled""#), "{events}");
    assert_eq!(runs.get(&path).await.1["state"], "cancelled");
    assert_eq!(runs.status().await.in_flight, Some(0));
    assert_eq!(other.post(&format!("{path}/cancel"), &[], "").await.0, 409);
    let (code, _) = other.post(&format!("{path}/retry"), &[], "").await;
    assert_eq!(code, 202);
    let (code, _) = other.get("/api/v1/executions/none").await;
    assert_eq!(code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_was_being_cancelled_where_a_replica_was_lost_is_cancelled_though_all_are_paused() {
    let Some(replicas) = Replicas::new(&held()) else { return };
    let (home, lost) = replicas.start().await;
    let (_other_home, other) = replicas.start().await;
    other.ask(Verb::Pause).await;
    let id = lost.work(&home).await;
    lost.kill().await;
    // As a replica leaves it that is lost between the word and the end.
    replicas.sql("UPDATE executions SET state = 'cancelling', record = convert_to(replace(convert_from(record, 'UTF8'), '\"state\":\"running\"', '\"state\":\"cancelling\"'), 'UTF8')");
    let path = format!("/api/v1/executions/{id}");
    eventually("it is cancelled", || async { other.get(&path).await.1["state"] == "cancelled" }).await;
    assert_eq!(other.status().await.state, State::Paused);
}
