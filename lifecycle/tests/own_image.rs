//! The example of an image of one's own keeps every promise of the contract, also over a crash.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifecycle::client::Client;
use lifecycle::{State, Verb, conformance, wire};

const CALL: Duration = Duration::from_secs(5);

struct Agent {
    process: Child,
    address: SocketAddr,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(data: &Path, managed: bool) -> Agent {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/images/python/agent.py");
    let mut python = Command::new("python3");
    python.arg(file).env("HIVE_DATA_DIR", data).env("HIVE_LIFECYCLE_PORT", "0").stdout(Stdio::piped());
    if managed {
        python.env("HIVE_RUNTIME_UID", "runtime").env("HIVE_POD_UID", "pod").env("HIVE_BOOT_HOLD_SECONDS", "600");
    }
    let mut process = python.spawn().unwrap_or_else(|error| panic!("python3 is needed: {error}"));
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().trim_start_matches("http://").parse().unwrap();
    Agent { process, address }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn the_python_example_keeps_every_promise() {
    let agent = start(&folder("conformance"), false);
    let client = Client::new(Duration::from_secs(2));
    let checks = conformance::run(&client, agent.address, Duration::from_secs(20), |_| {}).await;
    let broken: Vec<String> =
        checks.iter().filter_map(|c| c.outcome.as_ref().err().map(|why| format!("{}: {why}", c.promise))).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checks.len() > 25 && checks.iter().all(|check| !check.is_skipped), "brakes are tried as well");
}

#[tokio::test]
async fn a_pause_of_the_python_example_outlives_kill_9_and_a_new_process_waits_for_the_operator() {
    let data = folder("crash");
    let client = Client::new(Duration::from_secs(2));
    let status = async |agent: &Agent| client.status(agent.address, None, CALL).await.unwrap();
    let command = |epoch| wire::Command {
        epoch: Some(epoch),
        runtime_uid: Some("runtime".to_owned()),
        pod_uid: Some("pod".to_owned()),
        ..wire::Command::default()
    };
    let agent = start(&data, true);
    assert_eq!(status(&agent).await.state, State::Paused, "managed, and nothing says that it may run");
    client.send(agent.address, Verb::Resume, &command(3), CALL).await.unwrap();
    assert_eq!(status(&agent).await.state, State::Running);
    client.send(agent.address, Verb::Pause, &command(4), CALL).await.unwrap();
    drop(agent);
    let agent = start(&data, true);
    let now = status(&agent).await;
    assert_eq!((now.state, now.epoch, now.in_flight), (State::Paused, 4, Some(0)));
    client.send(agent.address, Verb::Resume, &command(5), CALL).await.unwrap();
    drop(agent);
    let agent = start(&data, true);
    let now = status(&agent).await;
    assert!(now.awaiting_confirmation && now.in_flight == Some(0), "it runs when the operator says so again: {now:?}");
}

#[tokio::test]
async fn python_example_keeps_a_brake_over_kill_9_and_an_unrelated_epoch() {
    let data = folder("brake");
    let client = Client::new(Duration::from_secs(2));
    let brake = wire::BrakeCommand {
        id: "uid.1.a".to_owned(),
        state: lifecycle::Desired::Paused,
        epoch: 3,
        ..wire::BrakeCommand::default()
    };
    let command = |epoch, releases| wire::Command { epoch: Some(epoch), releases, ..wire::Command::default() };
    let agent = start(&data, true);
    client.send(agent.address, Verb::Resume, &command(3, Vec::new()), CALL).await.unwrap();
    client.brake(agent.address, &brake, CALL).await.unwrap();
    drop(agent);
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("fence.json")).unwrap()).unwrap();
    assert_eq!(record["state"], "paused", "what an image from before brakes reads");
    let agent = start(&data, true);
    let answer = client.send(agent.address, Verb::Resume, &command(4, Vec::new()), CALL).await.unwrap();
    assert_eq!((answer.status.state, answer.status.brake_ids()), (State::Paused, &["uid.1.a".to_owned()][..]));
    let answer = client.send(agent.address, Verb::Resume, &command(4, vec!["uid.1.a".to_owned()]), CALL).await.unwrap();
    assert_eq!((answer.status.state, answer.status.brake_ids().len()), (State::Running, 0));
}

#[test]
fn the_example_is_short() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/images/python/agent.py"));
    let text = text.unwrap();
    let aside = ["#", "\"\"\"", "import ", "from "];
    let is_code = |line: &&str| !line.trim().is_empty() && !aside.iter().any(|word| line.trim().starts_with(word));
    let code: Vec<&str> = text.lines().filter(is_code).collect();
    assert!(code.len() <= 85, "{} lines", code.len());
    assert!(code.iter().all(|line| line.len() <= 120), "lines that nobody reads");
}
