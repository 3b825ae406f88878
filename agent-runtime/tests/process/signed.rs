//! Signed commands: the operator's are obeyed, and nobody else's. Each test first shows the path open.

use std::time::{SystemTime, UNIX_EPOCH};

use lifecycle::client::{Answer, Error};
use lifecycle::signature::{Seal, SigningKey};
use lifecycle::wire::Command;
use lifecycle::{State, Verb};

use crate::process::{Home, PATIENCE, Runtime, agent, command, eventually};

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()
}

fn seal(key: &SigningKey, epoch: i64) -> Seal<'_> {
    Seal { key, pod_uid: "pod-1", runtime_uid: "runtime-1", epoch, now: now(), lease_end: i64::MAX }
}

fn write_keys(home: &Home, epoch: i64, version: i64, keys: &[&SigningKey]) {
    let keys: Vec<&str> = keys.iter().map(|key| key.public()).collect();
    let keys = serde_json::to_string(&keys).unwrap();
    home.write_boot_file(&format!(
        r#"{{"runtime_uid":"runtime-1","epoch":{epoch},"state":"running","keys":{keys},"keys_version":{version}}}"#
    ));
}

/// The operator's client, as the operator calls it.
async fn send(runtime: &Runtime, seal: &Seal<'_>, verb: Verb, command: &Command) -> Result<Answer, Error> {
    runtime.client.signed(seal).send(runtime.address, verb, command, PATIENCE).await
}

fn why(outcome: Result<Answer, Error>) -> (u16, String) {
    match outcome {
        Err(Error::Refused { code, problem, .. }) => (code, problem.kind),
        other => panic!("not refused: {other:?}"),
    }
}

/// A managed runtime that knows one key, runs, and has obeyed a signed command of epoch 2: the path is open.
async fn open(key: &SigningKey) -> (Home, Runtime) {
    let home = Home::new(&agent(0.1)).managed();
    write_keys(&home, 1, 0, &[key]);
    let runtime = home.start().await;
    send(&runtime, &seal(key, 1), Verb::Start, &command(1)).await.unwrap();
    runtime.reach(State::Running).await;
    send(&runtime, &seal(key, 2), Verb::Pause, &command(2)).await.unwrap();
    runtime.reach(State::Paused).await;
    assert_eq!(runtime.status().await.keys, [key.public()]);
    (home, runtime)
}

/// Refused for this reason, and nothing has changed.
async fn refused(runtime: &Runtime, outcome: Result<Answer, Error>, kind: &str) {
    assert_eq!(why(outcome), (401, kind.to_owned()));
    let status = runtime.status().await;
    assert_eq!((status.epoch, status.state), (2, State::Paused));
}

#[tokio::test]
async fn an_unsigned_command_is_refused_and_reads_and_probes_stay_open() {
    let key = new_key();
    let (_home, runtime) = open(&key).await;
    refused(&runtime, runtime.send(Verb::Resume, &command(3)).await, "signature_missing").await;
    for verb in Verb::ALL {
        refused(&runtime, runtime.send(verb, &Command::default()).await, "signature_missing").await;
    }
    let (code, problem) = runtime.post("/api/v1/lifecycle/resume", &[("Authorization", "Basic eDp5")], "").await;
    assert_eq!((code, problem["type"].as_str()), (401, Some("signature_missing")));
    for path in ["/api/v1/status", "/health/live", "/metrics", "/openapi.json"] {
        assert_eq!(runtime.get(path).await.0, 200, "{path}");
    }
    assert!(send(&runtime, &seal(&key, 3), Verb::Resume, &command(3)).await.unwrap().reached);
}

#[tokio::test]
async fn a_command_by_another_key_is_refused() {
    let (_home, runtime) = open(&new_key()).await;
    let thief = new_key();
    let outcome = send(&runtime, &seal(&thief, 3), Verb::Resume, &command(3)).await;
    refused(&runtime, outcome, "signature_wrong_key").await;
}

#[tokio::test]
async fn a_command_for_another_pod_is_refused_also_by_the_pod_that_took_over_its_address() {
    let key = new_key();
    let (_home, runtime) = open(&key).await;
    // The operator believes that this address is pod-2's: both signature and body say so.
    let meant = Command { pod_uid: Some("pod-2".to_owned()), ..command(3) };
    let other = Seal { pod_uid: "pod-2", ..seal(&key, 3) };
    refused(&runtime, send(&runtime, &other, Verb::Resume, &meant).await, "signature_wrong_pod").await;
    // Somebody replays it with the body changed to fit.
    refused(&runtime, send(&runtime, &other, Verb::Resume, &command(3)).await, "signature_wrong_pod").await;
    let other = Seal { runtime_uid: "runtime-2", ..seal(&key, 3) };
    refused(&runtime, send(&runtime, &other, Verb::Resume, &command(3)).await, "signature_wrong_runtime").await;
}

#[tokio::test]
async fn a_command_outside_its_time_is_refused() {
    let key = new_key();
    let (_home, runtime) = open(&key).await;
    let late = Seal { now: now() - 120, ..seal(&key, 3) };
    refused(&runtime, send(&runtime, &late, Verb::Resume, &command(3)).await, "signature_expired").await;
    let early = Seal { now: now() + 120, ..seal(&key, 3) };
    refused(&runtime, send(&runtime, &early, Verb::Resume, &command(3)).await, "signature_not_yet_valid").await;
    let deposed = Seal { lease_end: now() - 30, ..seal(&key, 3) };
    refused(&runtime, send(&runtime, &deposed, Verb::Resume, &command(3)).await, "signature_expired").await;
}

/// Posts a body under a token, as somebody between operator and pod could.
async fn post(runtime: &Runtime, verb: Verb, token: &str, body: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let (code, answer) = runtime.post(&format!("/api/v1/lifecycle/{verb}"), &[("Authorization", &bearer)], body).await;
    (code, answer["type"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_altered_body_another_verb_and_another_epoch_are_refused() {
    let key = new_key();
    let (_home, runtime) = open(&key).await;
    let body = serde_json::to_string(&command(3)).unwrap();
    let token = seal(&key, 3).token("stop", body.as_bytes());
    let altered = body.replace(":3", ":4");
    assert_ne!(altered, body);
    let kind = |kind: &str| (401, kind.to_owned());
    assert_eq!(post(&runtime, Verb::Stop, &token, &altered).await, kind("signature_altered_body"));
    assert_eq!(post(&runtime, Verb::Stop, &token, "").await, kind("signature_altered_body"));
    assert_eq!(post(&runtime, Verb::Resume, &token, &body).await, kind("signature_wrong_verb"));
    assert_eq!(post(&runtime, Verb::Stop, "a.b.c", &body).await, kind("signature_malformed"));
    // Without an epoch it would be a person's, and could be sent again.
    let token_of_nothing = seal(&key, 3).token("resume", b"");
    assert_eq!(post(&runtime, Verb::Resume, &token_of_nothing, "").await, kind("signature_wrong_epoch"));
    assert_eq!(runtime.status().await.epoch, 2);
    assert_eq!(post(&runtime, Verb::Stop, &token, &body).await.0, 200, "it is good as it was signed");
}

#[tokio::test]
async fn a_command_replayed_after_a_newer_epoch_is_stale() {
    let key = new_key();
    let (home, runtime) = open(&key).await;
    let body = serde_json::to_string(&command(3)).unwrap();
    let token = seal(&key, 3).token("resume", body.as_bytes());
    assert_eq!(post(&runtime, Verb::Resume, &token, &body).await.0, 200);
    home.wait_for_lines("ticks", 1).await;
    send(&runtime, &seal(&key, 4), Verb::Pause, &command(4)).await.unwrap();
    runtime.reach(State::Paused).await;
    let before = home.lines("ticks").len();
    assert_eq!(post(&runtime, Verb::Resume, &token, &body).await, (409, "stale_epoch".to_owned()));
    let status = runtime.status().await;
    assert_eq!((status.epoch, status.state, home.lines("ticks").len()), (4, State::Paused, before));
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart_and_an_old_one_ends() {
    let (old, new) = (new_key(), new_key());
    let (home, runtime) = open(&old).await;
    let boot = runtime.status().await.boot_id;
    write_keys(&home, 1, 1, &[&new, &old]);
    eventually("both keys are known", || async { runtime.status().await.keys.len() == 2 }).await;
    send(&runtime, &seal(&old, 3), Verb::Resume, &command(3)).await.unwrap();
    send(&runtime, &seal(&new, 4), Verb::Pause, &command(4)).await.unwrap();
    write_keys(&home, 1, 2, &[&new]);
    eventually("the old key is gone", || async { runtime.status().await.keys == [new.public()] }).await;
    let kind = why(send(&runtime, &seal(&old, 5), Verb::Resume, &command(5)).await);
    assert_eq!(kind, (401, "signature_wrong_key".to_owned()));
    // A key that the file has just brought is known at once.
    let newest = new_key();
    write_keys(&home, 1, 3, &[&newest]);
    assert!(send(&runtime, &seal(&newest, 5), Verb::Resume, &command(5)).await.is_ok());
    assert_eq!(runtime.status().await.boot_id, boot, "the same process all along");
}

#[tokio::test]
async fn a_killed_runtime_with_a_stale_mount_obeys_neither_an_old_key_nor_everybody() {
    let (old, new) = (new_key(), new_key());
    let (home, runtime) = open(&old).await;
    write_keys(&home, 1, 1, &[&new]);
    send(&runtime, &seal(&new, 3), Verb::Pause, &command(3)).await.unwrap();
    runtime.kill().await;
    for stale in [vec![&old], Vec::new()] {
        write_keys(&home, 1, 0, &stale);
        let runtime = home.start().await;
        let status = runtime.reach(State::Paused).await;
        assert_eq!(status.keys, [new.public()]);
        let kind = why(send(&runtime, &seal(&old, 4), Verb::Resume, &command(4)).await);
        assert_eq!(kind, (401, "signature_wrong_key".to_owned()));
        assert_eq!(why(runtime.send(Verb::Resume, &command(4)).await).1, "signature_missing");
        assert!(send(&runtime, &seal(&new, 3), Verb::Pause, &command(3)).await.is_ok());
        runtime.kill().await;
    }
}

#[tokio::test]
async fn a_newer_file_without_keys_opens_the_pod_and_one_with_keys_closes_it() {
    let key = new_key();
    let (home, runtime) = open(&key).await;
    write_keys(&home, 1, 1, &[]);
    eventually("it is open", || async { runtime.status().await.keys.is_empty() }).await;
    assert!(runtime.send(Verb::Resume, &command(3)).await.unwrap().reached);
    assert!(send(&runtime, &seal(&key, 4), Verb::Pause, &command(4)).await.is_ok(), "a signature does no harm");
    write_keys(&home, 1, 2, &[&key]);
    eventually("it is closed", || async { runtime.status().await.keys.len() == 1 }).await;
    assert_eq!(why(runtime.send(Verb::Resume, &command(5)).await).1, "signature_missing");
}

#[tokio::test]
async fn protected_reads_need_the_token_or_for_the_status_the_signature() {
    let key = new_key();
    let home = Home::new(&agent(0.1))
        .managed()
        .with("HIVE_LIFECYCLE_PROTECT_READS", "true")
        .with("HIVE_LIFECYCLE_TOKEN", "secret");
    write_keys(&home, 1, 0, &[&key]);
    let runtime = home.start().await;
    let signed = seal(&key, 1);
    let client = runtime.client.signed(&signed);
    let status = client.status(runtime.address, None, PATIENCE).await.unwrap();
    assert_eq!(status.keys, [key.public()]);
    let unsigned = runtime.client.status(runtime.address, None, PATIENCE).await.unwrap_err();
    assert!(matches!(unsigned, Error::Refused { code: 401, .. }), "{unsigned}");
    let bearer = [("Authorization", "Bearer secret")];
    eventually("the store is open", || async { runtime.call("GET", "/api/v1/executions", &bearer, "").await.0 == 200 })
        .await;
    for path in ["/api/v1/status", "/metrics", "/api/v1/executions", "/openapi.json"] {
        assert_eq!(runtime.get(path).await.0, 401, "{path}");
        assert_eq!(runtime.call("GET", path, &bearer, "").await.0, 200, "{path}");
    }
    assert_eq!(runtime.get("/health/live").await.0, 200);
    // The signature is for the status alone, and the token for no verb.
    let stolen = format!("Bearer {}", signed.token("status", b""));
    assert_eq!(runtime.call("GET", "/metrics", &[("Authorization", &stolen)], "").await.0, 401);
    assert_eq!(runtime.post("/api/v1/lifecycle/pause", &bearer, "").await.0, 401);
    assert_eq!(runtime.post("/api/v1/entry-points/slow/trigger", &[], "{}").await.0, 401);
    send(&runtime, &seal(&key, 1), Verb::Start, &command(1)).await.unwrap();
    eventually("a trigger with the token", || async {
        runtime.post("/api/v1/entry-points/slow/trigger", &bearer, "{}").await.0 == 202
    })
    .await;
}
