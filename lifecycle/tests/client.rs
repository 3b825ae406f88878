//! The client against servers that misbehave, each a socket that sends fixed bytes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lifecycle::Verb;
use lifecycle::client::{Client, Error, MAX_ANSWER_BYTES};
use lifecycle::wire::{BrakeCommand, Command};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_millis(700);

/// Answers every connection with the same bytes, and counts nothing.
async fn server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&answer).await;
                // Held open: a client must not wait for the end of the connection.
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    address
}

fn http(code: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {code}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

async fn pause(address: SocketAddr) -> Error {
    match Client::default().send(address, Verb::Pause, &Command::default(), DEADLINE).await {
        Err(error) => error,
        Ok(answer) => panic!("it was believed: {answer:?}"),
    }
}

#[tokio::test]
async fn what_is_not_the_contracts_is_foreign() {
    for answer in [
        http("200 OK", "", "<html>"),
        http("200 OK", "", "{\"state\":\"resting\"}"),
        http("500 Internal Server Error", "", "oops"),
        http("204 No Content", "", ""),
    ] {
        let error = pause(server(answer).await).await;
        assert_eq!(error.label(), "foreign", "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = server(http("200 OK", "", "{}")).await;
    let error =
        pause(server(http("307 Temporary Redirect", &format!("Location: http://{elsewhere}/\r\n"), "")).await).await;
    assert!(matches!(error, Error::Foreign { code: 307, .. }), "{error}");
}

async fn brake(address: SocketAddr) -> Error {
    match Client::default().brake(address, &BrakeCommand::default(), DEADLINE).await {
        Err(error) => error,
        Ok(answer) => panic!("it was believed: {answer:?}"),
    }
}

#[tokio::test]
async fn brake_answered_404_405_or_501_is_no_brakes() {
    let problem = r#"{"type":"unknown_verb","title":"Not Found","status":404,"detail":"no such verb"}"#;
    for (code, body) in [("404 Not Found", problem), ("404 Not Found", "<html>"), ("405 No", ""), ("501 No", "no")] {
        let error = brake(server(http(code, "", body)).await).await;
        let known = code.get(..3).and_then(|code| code.parse().ok());
        assert!(matches!(error, Error::NoBrakes { code, .. } if Some(code) == known), "{error}");
        assert_eq!(error.label(), "no_brakes");
    }
    for code in ["500 Internal Server Error", "403 Forbidden"] {
        let error = brake(server(http(code, "", "no")).await).await;
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_status_without_brakes_is_not_one_with_none() {
    let status = |brakes: &str| -> lifecycle::wire::Status {
        let rest = r#""state":"running","uptime_seconds":1,"active_streams":0,"total_executions":0"#;
        let more = r#""failed_executions":0,"entry_points":[],"health":{}"#;
        serde_json::from_str(&format!("{{{rest},{more}{brakes}}}")).unwrap()
    };
    let (old, new) = (status(""), status(r#","brakes":[],"features":["brake"]"#));
    assert_eq!((old.knows_brakes(), old.brake_ids().len(), old.has_feature("brake")), (false, 0, false));
    assert_eq!((new.knows_brakes(), new.brake_ids().len(), new.has_feature("brake")), (true, 0, true));
    assert!(serde_json::to_string(&new).unwrap().contains(r#""brakes":[]"#));
}

/// Notes the first line of each request.
async fn listener() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
            let _ = told.send(head.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(&http("200 OK", "", "{}")).await;
        }
    });
    (address, heard)
}

#[tokio::test]
async fn the_path_is_fixed_by_the_verb_and_nothing_that_a_pod_says_changes_it() {
    let (address, mut heard) = listener().await;
    for verb in Verb::ALL {
        let _ = Client::default().send(address, verb, &Command::default(), DEADLINE).await;
        assert_eq!(heard.recv().await.unwrap(), format!("POST /api/v1/lifecycle/{verb} HTTP/1.1"));
    }
    let _ = Client::default().brake(address, &BrakeCommand::default(), DEADLINE).await;
    assert_eq!(heard.recv().await.unwrap(), "POST /api/v1/lifecycle/brake HTTP/1.1");
    let hostile = Some(("7 HTTP/1.1\r\nX: /../", Duration::from_secs(1)));
    let _ = Client::default().status(address, hostile, DEADLINE).await;
    assert_eq!(heard.recv().await.unwrap(), "GET /api/v1/status HTTP/1.1");
}

/// The environment is a process's, so the test runs itself in one that names a proxy.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    let target = "HIVE_TEST_TARGET";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(address) = std::env::var(target) {
        let address = address.parse().unwrap();
        let _ = runtime.block_on(Client::default().send(address, Verb::Pause, &Command::default(), DEADLINE));
        return;
    }
    let (address, mut heard) = runtime.block_on(listener());
    let (proxy, mut asked) = runtime.block_on(listener());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_proxy_of_the_environment_is_not_asked"]).env(target, address.to_string());
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, format!("http://{proxy}"));
    }
    assert!(child.output().unwrap().status.success());
    assert_eq!(heard.try_recv().unwrap(), "POST /api/v1/lifecycle/pause HTTP/1.1");
    assert!(asked.try_recv().is_err(), "the proxy was asked");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let error = pause(server(http("200 OK", "", &"x".repeat(MAX_ANSWER_BYTES + 1))).await).await;
    assert!(error.to_string().contains("more than"), "{error}");
}

/// The states of the connections to a port, as Linux numbers them.
#[cfg(target_os = "linux")]
fn connections(port: u16) -> Vec<String> {
    let listening = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    let state = |row: &str| {
        let mut words = row.split_whitespace().skip(1);
        let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
        let is_ours = local.ends_with(&end) || remote.ends_with(&end);
        (is_ours && state != listening).then(|| state.to_owned())
    };
    table.lines().filter_map(state).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_leaves_nothing_behind_in_the_kernel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.write_all(&http("200 OK", "", "oops")).await.unwrap();
        stream
    };
    // It does not close its end, so that it is the client's doing how the connection ends.
    let (stream, _) = tokio::join!(server, pause(address));
    // One that is closed and not reset stays for a minute, as FIN_WAIT2 (05).
    let patience = Instant::now() + Duration::from_secs(10);
    while !connections(address.port()).is_empty() {
        assert!(Instant::now() < patience, "{:?}", connections(address.port()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let begun = Instant::now();
    let error = pause(server(Vec::new()).await).await;
    assert_eq!(error.label(), "unreachable");
    assert!(begun.elapsed() < DEADLINE * 4, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn half_an_answer_is_unreachable() {
    let error = pause(server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()).await).await;
    assert_eq!(error.label(), "unreachable", "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = pause(address).await;
    assert!(error.label() == "unreachable" && error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_problem_is_a_refusal_with_its_words() {
    let problem = r#"{"type":"held","title":"Conflict","status":409,"detail":"ask the operator"}"#;
    let error = pause(server(http("409 Conflict", "", problem)).await).await;
    assert_eq!(error.label(), "refused");
    assert!(error.to_string().contains("ask the operator"), "{error}");
}

#[tokio::test]
async fn a_version_that_is_none_never_reaches_the_url() {
    let address = server(http("200 OK", "", "{}")).await;
    let wait = Duration::from_secs(30);
    let begun = Instant::now();
    let asked = Client::default().status(address, Some(("a&wait=9\r\nX: y", wait)), DEADLINE).await;
    assert!(asked.is_err() && begun.elapsed() < wait, "it is asked without the version, and without its wait");
}

#[test]
fn the_probe_tells_200_from_all_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let good = runtime.block_on(server(http("200 OK", "", "alive")));
    let bad = runtime.block_on(server(http("503 Service Unavailable", "", "")));
    assert!(lifecycle::probe::check(good.port(), "/health/live").is_ok());
    assert!(lifecycle::probe::check(bad.port(), "/health/live").is_err());
}

#[test]
fn words_are_the_same_in_code_and_on_the_wire() {
    use lifecycle::wire::HealthLevel;
    use lifecycle::{Desired, State};
    let wire = |value: serde_json::Value| value.as_str().unwrap().to_owned();
    for verb in Verb::ALL {
        assert_eq!(wire(serde_json::to_value(verb).unwrap()), verb.to_string());
        assert_eq!(verb.as_str().parse::<Verb>().unwrap(), verb);
    }
    for desired in [Desired::Running, Desired::Paused, Desired::Stopped] {
        assert_eq!(wire(serde_json::to_value(desired).unwrap()), desired.to_string());
        assert_eq!(desired.state().as_str(), desired.as_str());
    }
    for state in [State::Starting, State::Pausing, State::Stopping] {
        assert_eq!(wire(serde_json::to_value(state).unwrap()), state.to_string());
    }
    for level in [HealthLevel::Healthy, HealthLevel::Unknown, HealthLevel::Degraded, HealthLevel::Unhealthy] {
        assert_eq!(wire(serde_json::to_value(level).unwrap()), level.as_str());
    }
    assert!("explode".parse::<Verb>().unwrap_err().to_string().contains("restart"));
}
