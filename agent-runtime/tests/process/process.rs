//! A runtime of the test's own, and what the tests ask of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lifecycle::client::{Answer, Client, Error};
use lifecycle::wire::{Command, Status};
use lifecycle::{State, Verb};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command as Spawn};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with an agent, and the settings of the runtimes that run it one after the other.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) environment: Vec<(String, String)>,
    agent: String,
}

/// A runtime that is up.
pub(crate) struct Runtime {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
}

/// An agent whose entry point `slow` takes `seconds` and then adds a line to the file `done`, and
/// whose timer adds a line to `ticks` every 100 ms.
pub(crate) fn agent(seconds: f32) -> String {
    format!(
        r#"
agent: {{id: test}}
graph:
  async_entry_points:
    - {{id: slow, entry_node: work, trigger_type: api, max_concurrent: 4, max_queued: 20}}
    - {{id: tick, entry_node: tick, trigger_type: timer, trigger_config: {{interval_seconds: 0.1}}}}
  nodes:
    - {{id: work, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> started; sleep {seconds}; echo $HIVE_EXECUTION_ID >> done"], max_retries: 0}}
    - {{id: tick, node_type: exec, command: [/bin/sh, -c, "echo x >> ticks"], max_retries: 0}}
"#
    )
}

/// As [`agent`] without its timer, and `slow` goes on until the test lets it go: whatever the machine is
/// busy with, it is in flight until then.
pub(crate) fn held() -> String {
    r#"
graph:
  async_entry_points:
    - {id: slow, entry_node: work, trigger_type: api, max_concurrent: 4, max_queued: 20}
  nodes:
    - {id: work, node_type: exec, command: [/bin/sh, -c, "echo $HIVE_IDEMPOTENCY_KEY >> started; while [ ! -e go ] && [ -e started ]; do sleep 0.02; done; echo $HIVE_EXECUTION_ID >> done"], max_retries: 0}
"#
    .to_owned()
}

impl Home {
    pub(crate) fn new(agent: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agent.yaml"), agent).unwrap();
        Self { folder, environment: Vec::new(), agent: "agent.yaml".to_owned() }
    }

    /// Runs the agent in a file of another name.
    pub(crate) fn file(mut self, name: &str) -> Self {
        name.clone_into(&mut self.agent);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As the operator's pods are: managed, with a boot folder.
    pub(crate) fn managed(self) -> Self {
        let boot = self.folder.path().join("boot");
        std::fs::create_dir(&boot).unwrap();
        let boot = boot.display().to_string();
        self.with("HIVE_RUNTIME_UID", "runtime-1").with("HIVE_POD_UID", "pod-1").with("HIVE_BOOT_DIR", &boot)
    }

    pub(crate) fn write_boot(&self, epoch: i64, state: &str) {
        self.write_boot_file(&format!(r#"{{"runtime_uid":"runtime-1","epoch":{epoch},"state":"{state}"}}"#));
    }

    /// As the kubelet does: the new file replaces the old one at once.
    pub(crate) fn write_boot_file(&self, text: &str) {
        let path = self.folder.path().join("boot");
        std::fs::write(path.join("new"), text).unwrap();
        std::fs::rename(path.join("new"), path.join("boot.json")).unwrap();
    }

    pub(crate) fn spawn(&self) -> Child {
        Spawn::new(env!("CARGO_BIN_EXE_agent-runtime"))
            .args(["serve", &self.agent])
            .current_dir(self.folder.path())
            .envs([
                ("HIVE_LIFECYCLE_ENABLED", "true"),
                ("HIVE_LIFECYCLE_HOST", "127.0.0.1"),
                ("HIVE_LIFECYCLE_PORT", "0"),
            ])
            .env("HIVE_GRACEFUL_SHUTDOWN_TIMEOUT", "10")
            .envs(self.environment.iter().cloned())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Starts a runtime and waits until it listens.
    pub(crate) async fn start(&self) -> Runtime {
        self.start_if_it_lives().await.expect("it ended before it listened")
    }

    /// The same, for one that may be killed before it listens.
    pub(crate) async fn start_if_it_lives(&self) -> Option<Runtime> {
        let mut child = self.spawn();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let line: Value = serde_json::from_str(&line).unwrap();
                if let Some(address) = line.pointer("/fields/address").and_then(Value::as_str) {
                    return Some(address.parse().unwrap());
                }
            }
            None
        });
        let address = address.await.unwrap()?;
        // Somebody has to read on, or the pipe fills.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Runtime { child, address, client: Client::default() })
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Lets the work of [`held`] come to its end.
    pub(crate) fn let_go(&self) {
        std::fs::write(self.path("go"), "").unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Waits until a file has this many lines.
    pub(crate) async fn wait_for_lines(&self, file: &str, count: usize) {
        eventually(&format!("{count} lines in {file}"), || async { self.lines(file).len() >= count }).await;
    }
}

impl Drop for Runtime {
    /// Ends it as a person would, so that its coverage is written; a second signal ends it at once.
    fn drop(&mut self) {
        for _ in 0..2 {
            let Some(pid) =
                self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
            else {
                return;
            };
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            for _ in 0..40 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        }
    }
}

impl Runtime {
    pub(crate) async fn status(&self) -> Status {
        self.client.status(self.address, None, PATIENCE).await.unwrap()
    }

    pub(crate) async fn send(&self, verb: Verb, command: &Command) -> Result<Answer, Error> {
        self.client.send(self.address, verb, command, PATIENCE).await
    }

    /// A person's verb.
    pub(crate) async fn ask(&self, verb: Verb) -> Answer {
        self.send(verb, &Command::default()).await.unwrap()
    }

    /// Follows the status by long poll until it is in a state.
    pub(crate) async fn reach(&self, state: State) -> Status {
        let follow = async {
            let mut status = self.status().await;
            while status.state != state {
                let after = Some((status.version.as_str(), Duration::from_secs(20)));
                status = self.client.status(self.address, after, PATIENCE).await.unwrap();
            }
            status
        };
        tokio::time::timeout(PATIENCE, follow).await.unwrap_or_else(|_| panic!("{state} was not reached"))
    }

    /// Triggers `slow` and gives the execution's id.
    pub(crate) async fn trigger(&self) -> String {
        let (code, body) = self.post("/api/v1/entry-points/slow/trigger", &[], "{}").await;
        assert_eq!(code, 202, "{body}");
        body["execution"].as_str().unwrap().to_owned()
    }

    /// Triggers `slow` and waits until it is in flight.
    pub(crate) async fn work(&self, home: &Home) -> String {
        let before = home.lines("started").len();
        let id = self.trigger().await;
        home.wait_for_lines("started", before + 1).await;
        id
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        self.call("POST", path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &[], "").await
    }

    /// The names of what has happened in an execution, in order; of what came after one of them if it is given.
    pub(crate) async fn events(&self, id: &str, after: Option<&str>) -> Vec<String> {
        let headers: Vec<_> = after.map(|after| ("Last-Event-ID", after)).into_iter().collect();
        let (code, text) = self.call("GET", &format!("/api/v1/executions/{id}/events"), &headers, "").await;
        assert_eq!(code, 200, "{text}");
        let lines = text.as_str().unwrap().lines().filter_map(|line| line.strip_prefix("event: "));
        lines.map(str::to_owned).collect()
    }

    /// An answer, from one that may be killed meanwhile; none once it is gone.
    pub(crate) async fn try_post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, Value)> {
        Some(self.try_call("POST", path, headers, body).await?).filter(|(code, _)| *code != 0)
    }

    pub(crate) async fn try_get(&self, path: &str) -> Option<(u16, Value)> {
        Some(self.try_call("GET", path, &[], "").await?).filter(|(code, _)| *code != 0)
    }

    /// Waits for a state; none once it is gone.
    pub(crate) async fn try_reach(&self, state: State) -> Option<()> {
        while self.try_get("/api/v1/status").await?.1["state"] != state.to_string() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(())
    }

    /// One exchange over a connection of its own, so that no client library hides anything.
    pub(crate) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        self.try_call(method, path, headers, body).await.expect("it takes connections")
    }

    async fn try_call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, Value)> {
        let answer = self.try_exchange(method, path, headers, body).await?;
        let code = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Some((code, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }

    /// The whole answer, head and body.
    pub(crate) async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        self.try_exchange(method, path, headers, body).await.expect("it takes connections")
    }

    async fn try_exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        let mut stream = tokio::net::TcpStream::connect(self.address).await.ok()?;
        // A server that refuses early may have closed before all is written.
        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    }

    /// As a crash: SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it exits").unwrap().code()
    }
}

/// Looks every few milliseconds until something is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let watch = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, watch).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A command of the operator to this test's pod.
pub(crate) fn command(epoch: i64) -> Command {
    Command {
        epoch: Some(epoch),
        runtime_uid: Some("runtime-1".to_owned()),
        pod_uid: Some("pod-1".to_owned()),
        ..Command::default()
    }
}

pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
