//! Brakes: the real client against the real server, one test for each rule at the pod.

use lifecycle::client::{Answer, Error};
use lifecycle::signature::{Seal, SigningKey};
use lifecycle::wire::{BrakeCommand, Command};
use lifecycle::{Desired, DrainMode, State, Verb};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Home, PATIENCE, Runtime, agent, command, eventually, held};

fn brake(id: &str, epoch: i64) -> BrakeCommand {
    BrakeCommand {
        id: id.to_owned(),
        state: Desired::Paused,
        epoch,
        runtime_uid: Some("runtime-1".to_owned()),
        pod_uid: Some("pod-1".to_owned()),
        ..BrakeCommand::default()
    }
}

fn releases(epoch: i64, ids: &[&str]) -> Command {
    Command { releases: ids.iter().map(|id| (*id).to_owned()).collect(), ..command(epoch) }
}

async fn set(runtime: &Runtime, brake: &BrakeCommand) -> Result<Answer, Error> {
    runtime.client.brake(runtime.address, brake, PATIENCE).await
}

/// A managed runtime that runs at epoch 2.
async fn running(agent: &str) -> (Home, Runtime) {
    let home = Home::new(agent).managed();
    home.write_boot(2, "running");
    let runtime = home.start().await;
    runtime.send(Verb::Start, &command(2)).await.unwrap();
    runtime.reach(State::Running).await;
    (home, runtime)
}

/// The record of a runtime, as it lies on disk: of the two halves the later one.
fn record(home: &Home) -> Value {
    let bytes = std::fs::read(home.path(".hive/fence.json")).unwrap();
    let halves = bytes.chunks(4096).filter_map(|half| serde_json::from_slice::<Value>(half).ok());
    halves.max_by_key(|half| half["number"].as_u64()).unwrap()["record"].clone()
}

#[tokio::test]
async fn brake_is_a_verb_of_its_own_and_listed_in_every_status() {
    let (_home, runtime) = running(&agent(0.1)).await;
    let (_, status) = runtime.get("/api/v1/status").await;
    assert_eq!((status["brakes"].to_string(), status["features"].to_string()), ("[]".into(), "[\"brake\"]".into()));
    let answer = set(&runtime, &brake("uid.1.a", 2)).await.unwrap();
    assert_eq!((answer.status.brake_ids(), answer.status.epoch), (&["uid.1.a".to_owned()][..], 2));
    let status = runtime.reach(State::Paused).await;
    assert_eq!(status.holds, ["brake"]);
    assert!(set(&runtime, &brake("uid.1.a", 2)).await.unwrap().reached, "the same again");
    for wrong in [
        BrakeCommand { pod_uid: Some("pod-2".to_owned()), ..brake("b", 2) },
        BrakeCommand { runtime_uid: Some("runtime-2".to_owned()), ..brake("b", 2) },
    ] {
        assert!(matches!(set(&runtime, &wrong).await, Err(Error::Refused { code: 421, .. })), "{wrong:?}");
    }
    for wrong in [
        brake("", 2),
        brake("a b", 2),
        brake(&"a".repeat(129), 2),
        brake("b", -1),
        BrakeCommand { state: Desired::Running, ..brake("b", 2) },
        BrakeCommand { deadline_seconds: Some(86_401), ..brake("b", 2) },
    ] {
        assert!(matches!(set(&runtime, &wrong).await, Err(Error::Refused { code: 400, .. })), "{wrong:?}");
    }
    let (code, _) = runtime.post("/api/v1/lifecycle/brake", &[], r#"{"id":"b","state":"paused"}"#).await;
    assert_eq!(code, 400, "without an epoch it could not be released");
}

#[tokio::test]
async fn brake_is_signed_as_such_and_its_signature_covers_the_epoch() {
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let seal = |epoch| Seal { key: &key, pod_uid: "pod-1", runtime_uid: "runtime-1", epoch, now, lease_end: i64::MAX };
    let home = Home::new(&agent(0.1)).managed();
    home.write_boot_file(&format!(
        r#"{{"runtime_uid":"runtime-1","epoch":2,"state":"running","keys":["{}"]}}"#,
        key.public()
    ));
    let runtime = home.start().await;
    let kind = |outcome| match outcome {
        Err(Error::Refused { code: 401, problem, .. }) => problem.kind,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(kind(set(&runtime, &brake("a", 2)).await), "signature_missing");
    let other = seal(3);
    let wrong_epoch = runtime.client.signed(&other).brake(runtime.address, &brake("a", 2), PATIENCE).await;
    assert_eq!(kind(wrong_epoch), "signature_wrong_epoch");
    let body = serde_json::to_string(&brake("a", 2)).unwrap();
    let bearer = format!("Bearer {}", seal(2).token("pause", body.as_bytes()));
    let (code, problem) = runtime.post("/api/v1/lifecycle/brake", &[("Authorization", &bearer)], &body).await;
    assert_eq!((code, problem["type"].as_str()), (401, Some("signature_wrong_verb")));
    let good = seal(2);
    let answer = runtime.client.signed(&good).brake(runtime.address, &brake("a", 2), PATIENCE).await.unwrap();
    assert_eq!(answer.status.brake_ids(), ["a"]);
}

#[tokio::test]
async fn brake_ids_are_eight_at_most_and_a_ninth_is_brakes_full() {
    let (home, runtime) = running(&agent(0.1)).await;
    let long = |n: u32| format!("{n}{}", "x".repeat(127));
    for n in 1..=8 {
        set(&runtime, &brake(&long(n), 2)).await.unwrap();
    }
    let Err(Error::Refused { code: 409, problem, .. }) = set(&runtime, &brake("ninth", 2)).await else {
        panic!("full")
    };
    assert_eq!((problem.kind.as_str(), problem.runtime.unwrap().brake_ids().len()), ("brakes_full", 8));
    set(&runtime, &brake(&long(8), 2)).await.unwrap();
    runtime.kill().await;
    let runtime = home.start().await;
    assert_eq!(runtime.status().await.brake_ids().len(), 8, "the longest record is read back");
}

#[tokio::test]
async fn brake_below_the_accepted_epoch_is_stale_with_the_status() {
    let (home, runtime) = running(&agent(0.1)).await;
    let Err(Error::Stale { status, .. }) = set(&runtime, &brake("a", 1)).await else { panic!("stale") };
    assert_eq!((status.epoch, status.state, status.brake_ids().len()), (2, State::Running, 0));
    home.wait_for_lines("ticks", home.lines("ticks").len() + 1).await;
    set(&runtime, &brake("a", 7)).await.unwrap();
    assert_eq!(runtime.reach(State::Paused).await.epoch, 2, "a higher one is not accepted by it");
}

#[tokio::test]
async fn brake_is_on_disk_when_it_is_answered_and_outlives_kill_9() {
    let (home, runtime) = running(&held()).await;
    runtime.work(&home).await;
    let answer = set(&runtime, &brake("a", 2)).await.unwrap();
    assert_eq!((answer.reached, answer.status.state), (false, State::Pausing), "it waits for nothing");
    runtime.kill().await;
    home.let_go();
    let recorded = record(&home);
    assert_eq!((&recorded["epoch"], &recorded["state"]), (&2.into(), &"paused".into()));
    let mut runtime = home.start().await;
    let status = runtime.reach(State::Paused).await;
    assert!(status.awaiting_confirmation, "no brake confirms a boot");
    assert_eq!(status.brake_ids(), ["a"]);
    // One that comes on the way out is kept as well.
    runtime.signal(Signal::TERM);
    let _ = set(&runtime, &brake("b", 2)).await;
    runtime.exit_code().await;
    let runtime = home.start().await;
    assert_eq!(runtime.status().await.brake_ids().first().map(String::as_str), Some("a"));
}

#[tokio::test]
async fn brake_stops_or_pauses_by_its_state_mode_and_deadline() {
    let (home, runtime) = running(&held()).await;
    runtime.work(&home).await;
    let stops = BrakeCommand { state: Desired::Stopped, deadline_seconds: Some(0), ..brake("a", 2) };
    assert!(!set(&runtime, &stops).await.unwrap().reached);
    runtime.reach(State::Stopped).await;
    assert!(home.lines("done").is_empty(), "the deadline interrupted it");
    assert!(set(&runtime, &brake("b", 2)).await.unwrap().reached, "stopped is more than paused");
    assert_eq!(runtime.status().await.state, State::Stopped);
}

#[tokio::test]
async fn brake_is_released_by_nothing_but_its_name() {
    let (home, runtime) = running(&agent(0.1)).await;
    set(&runtime, &brake("a", 2)).await.unwrap();
    runtime.reach(State::Paused).await;
    let before = home.lines("ticks").len();
    for verb in [Verb::Resume, Verb::Start] {
        let (code, problem) = runtime.post(&format!("/api/v1/lifecycle/{verb}"), &[], "").await;
        assert_eq!((code, problem["type"].as_str()), (409, Some("held")), "a person");
    }
    let late = Command { release_epoch: Some(9), ..command(3) };
    let answer = runtime.send(Verb::Start, &late).await.unwrap();
    assert_eq!((answer.status.epoch, answer.status.brake_ids()), (3, &["a".to_owned()][..]), "a late leader");
    let answer = runtime.send(Verb::Pause, &command(4)).await.unwrap();
    assert_eq!(answer.status.brake_ids(), ["a"]);
    let answer = runtime.send(Verb::Start, &releases(5, &["b", "c"])).await.unwrap();
    assert_eq!((answer.status.state, answer.status.brake_ids()), (State::Paused, &["a".to_owned()][..]));
    assert_eq!(home.lines("ticks").len(), before);
    // With the epoch that it has accepted already.
    runtime.send(Verb::Start, &releases(5, &["a"])).await.unwrap();
    let status = runtime.reach(State::Running).await;
    assert!(status.brake_ids().is_empty() && status.holds.is_empty());
    home.wait_for_lines("ticks", before + 1).await;
}

#[tokio::test]
async fn brake_is_gone_from_disk_with_its_release_and_not_before() {
    let (home, runtime) = running(&agent(0.1)).await;
    let mut plain = record(&home);
    set(&runtime, &brake("a", 2)).await.unwrap();
    assert_ne!(record(&home), plain);
    let too_many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    let outcome = runtime.send(Verb::Start, &Command { releases: too_many, ..command(3) }).await;
    assert!(matches!(outcome, Err(Error::Refused { code: 400, .. })), "{outcome:?}");
    runtime.send(Verb::Start, &releases(3, &["a"])).await.unwrap();
    plain["epoch"] = 3.into();
    assert_eq!(record(&home).to_string(), plain.to_string(), "as before there was one");
}

#[tokio::test]
async fn boot_with_a_recorded_brake_keeps_it_past_the_boot_hold() {
    let (home, runtime) = running(&agent(0.1)).await;
    set(&runtime, &brake("a", 2)).await.unwrap();
    runtime.reach(State::Paused).await;
    runtime.kill().await;
    let before = home.lines("ticks").len();
    // A leader that did not know the freeze wrote a newer file.
    home.write_boot(3, "running");
    let home = home.with("HIVE_BOOT_HOLD_SECONDS", "1");
    let runtime = home.start().await;
    eventually("the hold ends", || async { !runtime.status().await.awaiting_confirmation }).await;
    let status = runtime.status().await;
    assert_eq!((status.epoch, status.state, status.brake_ids()), (3, State::Paused, &["a".to_owned()][..]));
    runtime.kill().await;
    assert_eq!(home.lines("ticks").len(), before);
    // And the same one names it.
    home.write_boot_file(r#"{"runtime_uid":"runtime-1","epoch":3,"state":"running","releases":["a"]}"#);
    let runtime = home.start().await;
    assert!(runtime.status().await.brake_ids().is_empty());
    assert!(record(&home)["braked"].is_null(), "a name is taken back once no pod lists it");
    runtime.reach(State::Running).await;
}

#[tokio::test]
async fn boot_hold_ends_a_brake_that_the_mounted_file_comes_to_name() {
    let (home, runtime) = running(&agent(0.1)).await;
    set(&runtime, &brake("a", 2)).await.unwrap();
    runtime.send(Verb::Start, &command(3)).await.unwrap();
    runtime.kill().await;
    let home = home.with("HIVE_BOOT_HOLD_SECONDS", "3");
    let runtime = home.start().await;
    assert_eq!(runtime.reach(State::Paused).await.brake_ids(), ["a"]);
    home.write_boot_file(r#"{"runtime_uid":"runtime-1","epoch":3,"state":"running","releases":["a"]}"#);
    eventually("it is released", || async { runtime.status().await.brake_ids().is_empty() }).await;
    runtime.reach(State::Running).await;
}

#[tokio::test]
async fn boot_with_a_brake_in_mode_cancel_cancels_what_was_left() {
    // The brake was on disk when the process ended, or comes to the next one before it is confirmed.
    for recorded in [true, false] {
        let (home, runtime) = running(&held()).await;
        let id = runtime.work(&home).await;
        let cancels = BrakeCommand { mode: Some(DrainMode::Cancel), ..brake("a", 2) };
        runtime.kill().await;
        let runtime = home.start().await;
        runtime.reach(State::Paused).await;
        if recorded {
            // In mode drain it leaves what was running.
            set(&runtime, &brake("a", 2)).await.unwrap();
            runtime.kill().await;
            tighten(&home);
        } else {
            set(&runtime, &cancels).await.unwrap();
            runtime.kill().await;
        }
        let runtime = home.start().await;
        runtime.reach(State::Paused).await;
        let state = async || runtime.get(&format!("/api/v1/executions/{id}")).await.1["state"].clone();
        eventually("it is cancelled", || async { state().await == "cancelled" }).await;
        runtime.send(Verb::Start, &releases(3, &["a"])).await.unwrap();
        runtime.reach(State::Running).await;
        assert_eq!(state().await, "cancelled", "recorded = {recorded}");
    }
}

/// As if the process had ended after it recorded a brake in mode cancel, and before it cancelled anything.
fn tighten(home: &Home) {
    use agent_runtime::control::record::Fence;
    let (mut fence, recorded) = Fence::open(&home.path(".hive")).unwrap();
    let mut recorded = recorded.unwrap();
    recorded.brakes =
        recorded.brakes.iter().map(|brake| lifecycle::Brake { mode: DrainMode::Cancel, ..brake.clone() }).collect();
    fence.write(&recorded).unwrap();
}

#[tokio::test]
async fn brake_in_mode_cancel_ends_what_is_in_flight_at_once() {
    let (home, runtime) = running(&held()).await;
    let id = runtime.work(&home).await;
    set(&runtime, &BrakeCommand { mode: Some(DrainMode::Cancel), ..brake("a", 2) }).await.unwrap();
    runtime.reach(State::Paused).await;
    let (_, execution) = runtime.get(&format!("/api/v1/executions/{id}")).await;
    assert_eq!(execution["state"], "cancelled");
    assert!(home.lines("done").is_empty());
}
