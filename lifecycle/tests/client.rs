//! The client against servers that misbehave, each a socket that sends fixed bytes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lifecycle::Verb;
use lifecycle::client::{Client, Error, MAX_ANSWER_BYTES};
use lifecycle::wire::Command;
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

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let error = pause(server(http("200 OK", "", &"x".repeat(MAX_ANSWER_BYTES + 1))).await).await;
    assert!(error.to_string().contains("more than"), "{error}");
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
