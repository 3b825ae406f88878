//! Clients that misbehave, and too many of them: each costs little, and nobody else notices.

use std::time::Duration;

use lifecycle::{State, Verb};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::process::{Home, PATIENCE, Runtime, eventually, held};

async fn running(home: &Home) -> Runtime {
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime
}

async fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
}

#[tokio::test]
async fn refusals_for_now_say_when_to_come_again() {
    let home = Home::new(&held().replace("max_queued: 20", "max_queued: 1"));
    let runtime = running(&home).await;
    let trigger = "/api/v1/entry-points/slow/trigger";
    let mut full = String::new();
    for _ in 0..10 {
        full = runtime.exchange("POST", trigger, &[], "{}").await;
    }
    assert!(
        full.starts_with("HTTP/1.1 429") && full.contains("retry-after: ") && full.contains("queue_full"),
        "{full}"
    );
    assert!(full.contains("content-type: application/problem+json"), "{full}");
    runtime.ask(Verb::Pause).await;
    let paused = runtime.exchange("POST", trigger, &[], "{}").await;
    assert!(paused.starts_with("HTTP/1.1 503") && paused.contains("retry-after: "), "{paused}");
}

#[tokio::test]
async fn a_query_or_a_path_that_does_not_fit_is_a_problem_too() {
    let home = Home::new(&held());
    let runtime = running(&home).await;
    for (method, path) in [
        ("GET", "/api/v1/status?sparkle=1"),
        ("GET", "/api/v1/status?wait=long"),
        ("GET", "/api/v1/executions?state=asleep"),
        ("GET", "/api/v1/executions?limit=-1"),
        ("POST", "/api/v1/entry-points/slow/trigger?wait=x"),
        ("POST", "/api/v1/executions/cancel?everything=yes"),
        ("GET", "/api/v1/executions/%ff"),
        ("POST", "/api/v1/lifecycle/%ff"),
    ] {
        let (code, problem) = runtime.call(method, path, &[], "").await;
        assert_eq!((code, problem["type"].as_str()), (400, Some("invalid_request")), "{method} {path}: {problem}");
    }
}

#[tokio::test]
async fn a_head_has_its_limits() {
    let home = Home::new(&held());
    let runtime = running(&home).await;
    let long = "x".repeat(100 * 1024);
    assert_eq!(runtime.call("GET", "/health/live", &[("X-Long", &long)], "").await.0, 431);
    let many: Vec<(String, String)> = (0..150).map(|n| (format!("X-{n}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(runtime.call("GET", "/health/live", &many, "").await.0, 431);
    assert_eq!(runtime.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn connections_have_a_cap_and_one_more_is_served_when_one_is_closed() {
    let home = Home::new(&held()).with("HIVE_MAX_CONNECTIONS", "8");
    let runtime = running(&home).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(TcpStream::connect(runtime.address).await.unwrap());
    }
    let mut more = TcpStream::connect(runtime.address).await.unwrap();
    send(&mut more, "/health/live").await;
    let mut answer = [0; 12];
    // Not a synchronisation: in this time it would be answered if it were let in.
    let early = tokio::time::timeout(Duration::from_secs(1), more.read_exact(&mut answer)).await;
    assert!(early.is_err(), "it is let in above the cap");
    open.pop();
    tokio::time::timeout(PATIENCE, more.read_exact(&mut answer)).await.expect("it is let in").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_client_that_says_nothing_more_is_cut_and_so_is_one_that_takes_nothing() {
    let home = Home::new(&held());
    let runtime = running(&home).await;
    // An answer that no buffer of the kernel holds.
    let big = json!({"text": "x".repeat(1000 * 1024)}).to_string();
    for _ in 0..20 {
        assert_eq!(runtime.post("/api/v1/entry-points/slow/trigger", &[], &big).await.0, 202);
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(runtime.address).await.unwrap();
    send(&mut deaf, "/api/v1/executions?limit=20").await;
    let mut idle = TcpStream::connect(runtime.address).await.unwrap();
    send(&mut idle, "/health/live").await;
    let mut rest = Vec::new();
    // The server ends it: without that, reading to the end would never return.
    let _ = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut rest)).await.expect("it is cut");
    let gone = || async {
        let peer = deaf.local_addr().unwrap().port();
        let tcp = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // The server's end of the connection: remote port, and 01 is established.
        !tcp.lines().any(|line| {
            line.split_whitespace().nth(2).is_some_and(|to| to.ends_with(&format!(":{peer:04X}")))
                && line.contains(" 01 ")
        })
    };
    eventually("the deaf one is cut", gone).await;
}

/// The version once nothing has changed for two seconds: what the start counted changes it up to a second later.
async fn settled(runtime: &Runtime) -> String {
    let mut version = runtime.status().await.version;
    loop {
        let (_, status) = runtime.get(&format!("/api/v1/status?after={version}&wait=2")).await;
        match status["version"].as_str().unwrap() {
            same if same == version => return version,
            other => version = other.to_owned(),
        }
    }
}

#[tokio::test]
async fn at_most_64_wait_by_long_poll_and_a_change_answers_all_of_them() {
    let home = Home::new(&held());
    let runtime = running(&home).await;
    let version = settled(&runtime).await;
    let answered = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut all = Vec::new();
    for _ in 0..70 {
        let mut stream = TcpStream::connect(runtime.address).await.unwrap();
        send(&mut stream, &format!("/api/v1/status?after={version}&wait=30")).await;
        let answered = std::sync::Arc::clone(&answered);
        all.push(tokio::spawn(async move {
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            head
        }));
    }
    let count = || answered.load(std::sync::atomic::Ordering::SeqCst);
    eventually("those above the bound are answered at once", || async { count() >= 6 }).await;
    // Not a synchronisation: one that did not wait would be answered in this time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(), 6);
    runtime.ask(Verb::Pause).await;
    for task in all {
        let head = tokio::time::timeout(Duration::from_secs(15), task).await.expect("a change is told").unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn streams_and_long_polls_end_with_the_process_and_cannot_hold_it() {
    let home = Home::new(&held());
    let mut runtime = running(&home).await;
    let id = runtime.work(&home).await;
    let mut stream = TcpStream::connect(runtime.address).await.unwrap();
    send(&mut stream, &format!("/api/v1/executions/{id}/events")).await;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut poll = TcpStream::connect(runtime.address).await.unwrap();
    let begun = std::time::Instant::now();
    runtime.signal(Signal::TERM);
    eventually("it is not ready", || async { runtime.get("/health/ready").await.0 == 503 }).await;
    let version = runtime.status().await.version;
    send(&mut poll, &format!("/api/v1/status?after={version}&wait=30")).await;
    assert_eq!(runtime.exit_code().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(String::from_utf8_lossy(&rest).contains("event: begun"));
    home.let_go();
}

#[tokio::test]
async fn every_answer_closes_its_connection_once_the_process_is_about_to_end() {
    let home = Home::new(&held());
    let mut runtime = running(&home).await;
    runtime.work(&home).await;
    let kept = |answer: &str| !answer.contains("connection: close");
    let get = |path: &'static str| {
        let address = runtime.address;
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            send(&mut stream, path).await;
            let mut answer = vec![0; 4096];
            let length = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..length]).into_owned()
        }
    };
    assert!(kept(&get("/health/live").await), "until then connections are kept");
    runtime.signal(Signal::TERM);
    eventually("it is not ready", || async { runtime.get("/health/ready").await.0 == 503 }).await;
    for path in ["/health/live", "/health/ready", "/api/v1/status", "/nowhere"] {
        let answer = get(path).await;
        assert!(!kept(&answer), "{path}: {answer}");
    }
    home.let_go();
    assert_eq!(runtime.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_list_goes_on_from_page_to_page_and_ends() {
    let home = Home::new(&held());
    let runtime = running(&home).await;
    home.let_go();
    let mut accepted = Vec::new();
    for _ in 0..7 {
        accepted.push(runtime.trigger().await);
    }
    accepted.reverse();
    let (mut seen, mut before, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (code, page) = runtime.get(&format!("/api/v1/executions?entry_point=slow&limit=3{before}")).await;
        assert_eq!(code, 200, "{page}");
        seen.extend(page["executions"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page.get("next").and_then(Value::as_str) else { break };
        before = format!("&before={next}");
    }
    assert_eq!((seen, pages), (accepted, 3), "newest first, none twice, none left out");
}
