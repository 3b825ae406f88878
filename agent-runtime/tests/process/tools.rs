//! Tools of real MCP servers, over both transports.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent_runtime::tools::{Cx, Error, Servers, Toolbox};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::process::eventually;

/// The server of the examples, built beside the binary.
pub(crate) fn mcp_server() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_agent-runtime")).with_file_name("examples").join("mcp_server")
}

/// Starts the server over HTTP and gives its address.
pub(crate) async fn over_http(count: &Path) -> (Child, String) {
    let mut child = Command::new(mcp_server())
        .args(["--http", "0"])
        .env("MCP_COUNT_FILE", count)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap().to_owned();
    (child, format!("http://{address}/mcp"))
}

async fn connect(folder: &Path, servers: Value) -> Result<Toolbox, Error> {
    let servers = Servers::parse("mcp_servers.json", &servers.to_string()).unwrap();
    Toolbox::connect(servers, folder.join("files")).await
}

fn stdio() -> Value {
    json!({"local": {"transport": "stdio", "command": mcp_server(), "timeout_seconds": 3}})
}

async fn call(toolbox: &Toolbox, tool: &str, arguments: Value) -> Result<String, Error> {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let cx = Cx { execution: "e", idempotency_key: "e/main/n/0/1", trace: None };
    toolbox.call(tool, &arguments, &cx).await.map(|output| output.text)
}

#[tokio::test]
async fn both_transports_list_and_call_and_bear_the_idempotency_key() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let (_server, url) = over_http(&count).await;
    let local = json!({"command": mcp_server(), "env": {"MCP_COUNT_FILE": count}});
    for servers in [json!({"local": local}), json!({"remote": {"transport": "http", "url": url}})] {
        let toolbox = connect(folder.path(), servers).await.unwrap();
        assert!(toolbox.get("web_search").is_some() && toolbox.get("save_data").is_some());
        assert!(toolbox.get("nothing").is_none());
        assert_eq!(call(&toolbox, "echo", json!({"text": "ä"})).await.unwrap(), "ä");
        assert_eq!(call(&toolbox, "nothing", json!({})).await, Err(Error::Unknown("nothing".to_owned())));
        toolbox.close().await;
    }
    let counted = std::fs::read_to_string(count).unwrap();
    assert_eq!(counted, "echo e/main/n/0/1\necho e/main/n/0/1\n");
}

#[tokio::test]
async fn calls_run_side_by_side_and_each_has_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let toolbox = connect(folder.path(), stdio()).await.unwrap();
    let begun = Instant::now();
    let (slow, short) =
        tokio::join!(call(&toolbox, "slow", json!({"seconds": 30})), call(&toolbox, "slow", json!({"seconds": 0.5})),);
    assert!(matches!(slow, Err(Error::Timeout { seconds: 3, .. })), "{slow:?}");
    assert_eq!(short.unwrap(), "awake");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(call(&toolbox, "echo", json!({"text": "still there"})).await.unwrap(), "still there");
    toolbox.close().await;
}

#[tokio::test]
async fn a_dead_server_is_started_again_by_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let toolbox = connect(folder.path(), stdio()).await.unwrap();
    let died = call(&toolbox, "die", json!({})).await;
    assert!(matches!(died, Err(Error::Lost { .. } | Error::Timeout { .. })), "{died:?}");
    assert_eq!(call(&toolbox, "echo", json!({"text": "again"})).await.unwrap(), "again");
    toolbox.close().await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (servers, word) in [
        (json!({"gone": {"command": "/no/such/program"}}), "gone"),
        (json!({"mute": {"command": "/bin/false"}}), "mute"),
        (json!({"far": {"url": "http://127.0.0.1:9/mcp"}}), "far"),
    ] {
        let error = connect(folder.path(), servers).await.unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("cannot be reached"), "{error}");
    }
}

#[tokio::test]
async fn a_closed_server_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("sleep 1000 & echo $$ $! > pids; exec {}", mcp_server().display());
    let servers = json!({"local": {"command": "/bin/sh", "args": ["-c", script], "cwd": folder.path()}});
    let toolbox = connect(folder.path(), servers).await.unwrap();
    let pids = std::fs::read_to_string(folder.path().join("pids")).unwrap();
    toolbox.close().await;
    let runs = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    eventually("both are gone", || async { !pids.split_whitespace().any(runs) }).await;
}
