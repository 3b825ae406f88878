//! Bad input: a clear refusal, and nothing lost.

use lifecycle::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::{Home, PATIENCE, agent};

#[tokio::test]
async fn each_kind_of_bad_input_has_its_own_answer() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let large = "x".repeat(10 * 1024 * 1024);
    let trigger = "/api/v1/entry-points/slow/trigger";
    let long_key = "k".repeat(300);
    for (method, path, headers, body, code, kind) in [
        ("POST", "/api/v1/lifecycle/explode", vec![], "", 404, "unknown_verb"),
        ("POST", "/api/v1/lifecycle/pause", vec![], "{", 400, "invalid_request"),
        ("POST", "/api/v1/lifecycle/pause", vec![], r#"{"epoch":0}"#, 400, "invalid_request"),
        ("POST", "/api/v1/lifecycle/pause", vec![], r#"{"sparkle":1}"#, 400, "invalid_request"),
        ("POST", "/api/v1/lifecycle/pause", vec![], r#"{"deadline_seconds":-1}"#, 400, "invalid_request"),
        ("GET", "/api/v1/lifecycle/pause", vec![], "", 405, "method_not_allowed"),
        ("POST", trigger, vec![], "[1]", 400, "invalid_request"),
        ("POST", trigger, vec![("Idempotency-Key", long_key.as_str())], "{}", 400, "invalid_request"),
        ("POST", trigger, vec![], large.as_str(), 413, "body_too_large"),
        ("POST", "/api/v1/entry-points/none/trigger", vec![], "{}", 404, "unknown_entry_point"),
        ("GET", "/api/v1/executions/none", vec![], "", 404, "unknown_execution"),
        ("GET", "/nowhere", vec![], "", 404, "not_found"),
    ] {
        let (got, problem) = runtime.call(method, path, &headers, body).await;
        assert_eq!((got, problem["type"].as_str()), (code, Some(kind)), "{method} {path}: {problem}");
        assert_eq!(problem["status"], code);
    }
    assert_eq!(runtime.status().await.state, State::Running);
}

#[tokio::test]
async fn a_full_queue_is_refused_with_retry_after_and_keeps_what_it_has() {
    let home = Home::new(&agent(30.0));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(runtime.post("/api/v1/entry-points/slow/trigger", &[], "{}").await.0);
    }
    let accepted = codes.iter().filter(|code| **code == 202).count();
    assert!((20..=24).contains(&accepted) && codes.last() == Some(&429), "{codes:?}");
}

#[tokio::test]
async fn a_half_sent_request_is_cut() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    for half in ["GET /api/v1/sta", "POST /api/v1/lifecycle/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"] {
        let mut stream = tokio::net::TcpStream::connect(runtime.address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // The server ends it: without that, reading to the end would never return.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is cut");
    }
    assert_eq!(runtime.status().await.state, State::Running);
}

#[tokio::test]
async fn a_token_is_asked_for_where_something_changes() {
    let home = Home::new(&agent(0.1)).with("HIVE_LIFECYCLE_TOKEN", "secret");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    assert_eq!(runtime.post("/api/v1/lifecycle/pause", &[], "").await.0, 401);
    assert_eq!(runtime.post("/api/v1/lifecycle/pause", &[("Authorization", "Bearer wrong")], "").await.0, 401);
    assert_eq!(runtime.get("/api/v1/status").await.0, 200);
    let (code, _) = runtime.post("/api/v1/lifecycle/pause", &[("Authorization", "Bearer secret")], "").await;
    assert!(code == 200 || code == 202);
}

#[test]
fn validate_says_what_is_wrong_by_file_and_line() {
    let home = Home::new("graph:\n  nodes:\n    - {id: a, node_type: wait}\n");
    let validate = |home: &Home| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_agent-runtime"));
        command.args(["validate", "agent.yaml"]).current_dir(home.folder.path()).output().unwrap()
    };
    let output = validate(&home);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("agent.yaml:3: graph.nodes[0].seconds"), "{text}");
    let good = validate(&Home::new(&agent(0.1)));
    assert!(good.status.success() && String::from_utf8(good.stdout).unwrap().contains("entry point slow"));
}
