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
    assert!(text.starts_with("agent.yaml:3:12: graph.nodes[0].seconds"), "{text}");
    let good = validate(&Home::new(&agent(0.1)));
    assert!(good.status.success() && String::from_utf8(good.stdout).unwrap().contains("entry point slow"));
}

#[test]
fn every_example_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_agent-runtime"));
        let output = command.arg("validate").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("warning"), "{}", path.display());
        count += 1;
    }
    assert!(count >= 6);
}

#[tokio::test]
async fn the_healthcheck_of_the_image_tells_alive_from_gone() {
    let home = Home::new(&agent(0.1));
    let mut runtime = home.start().await;
    let check = |port: u16| async move {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent-runtime"));
        command.args(["healthcheck", "--port", &port.to_string()]).status().await.unwrap().success()
    };
    let port = runtime.address.port();
    assert!(check(port).await);
    runtime.signal(rustix::process::Signal::INT);
    assert_eq!(runtime.exit_code().await, Some(0));
    assert!(!check(port).await);
}

#[tokio::test]
async fn the_sample_site_answers_at_once_and_slowly() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent-runtime"));
    let mut site = command.args(["sample-site", "--port", &port.to_string()]).kill_on_drop(true).spawn().unwrap();
    let watched = format!(
        "graph:\n  entry_points: {{slow: fast}}\n  nodes:\n    - {{id: fast, node_type: http, url: 'http://127.0.0.1:{port}/', output_keys: [status, body], max_retries: 5}}\n    - {{id: later, node_type: http, method: POST, url: 'http://127.0.0.1:{port}/slow?seconds=1', body: {{page: '{{{{body}}}}'}}, headers: {{X-Page: '{{{{status}}}}'}}, max_retries: 0}}\n    - {{id: missing, node_type: http, url: 'http://127.0.0.1:{port}/none', max_retries: 0}}\n    - {{id: sent, node_type: http, url: 'http://127.0.0.1:{port}/slow?seconds=1', output_keys: [elapsed_ms], max_retries: 0}}\n  edges:\n    - {{id: a, source: fast, target: missing}}\n    - {{id: b, source: missing, target: later, condition: on_failure}}\n    - {{id: c, source: later, target: sent, condition: on_failure}}\n"
    );
    let home = Home::new(&watched);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.trigger().await;
    let path = format!("/api/v1/executions/{id}");
    crate::process::eventually("it has ended", || async { runtime.get(&path).await.1["ended"].is_string() }).await;
    let (_, execution) = runtime.get(&path).await;
    let memory = &execution["memory"];
    assert_eq!((&execution["state"], &memory["status"]), (&"succeeded".into(), &200.into()), "{execution}");
    assert!(memory["elapsed_ms"].as_i64() >= Some(1000), "{execution}");
    assert_eq!(runtime.status().await.health.tools.as_str(), "degraded", "some requests failed");
    let pid = site.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(site.wait().await.unwrap().success());
}

/// Documents that are generated, and the command that generates each.
#[test]
fn published_documents_are_those_of_this_version() {
    for (command, file) in [("schema", "agent.schema.json"), ("openapi", "openapi.json")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_agent-runtime")).arg(command).output().unwrap();
        let path = format!("{}/../docs/{file}", env!("CARGO_MANIFEST_DIR"));
        let published = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(published == output.stdout, "stale: cargo run -p agent-runtime -- {command} > docs/{file}");
    }
}

#[tokio::test]
async fn every_operation_of_the_document_is_there_and_every_error_is_a_problem() {
    let home = Home::new(&agent(0.1));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (_, document) = runtime.get("/openapi.json").await;
    assert_eq!(runtime.get("/agent.schema.json").await.0, 200);
    let mut count = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = path.replace("{verb}", "explode").replace("{id}", "none").replace("{name}", "none");
            let (code, body) = runtime.call(&method.to_uppercase(), &path, &[], "").await;
            let kind = body["type"].as_str().unwrap_or_default();
            assert!(kind != "not_found" && code != 405 && code != 0, "{method} {path}: {code} {body}");
            assert!(code < 400 || body["detail"].is_string(), "{method} {path}: {code} {body}");
            count += 1;
        }
    }
    assert!(count >= 16, "{count}");
}
