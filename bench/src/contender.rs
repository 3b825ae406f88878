//! The servers that are compared: how each is started, watched and ended.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::http::{self, Connection};
use crate::machine::{self, Cores};
use crate::process;

/// A server that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);
/// Executions at once, for ours and the peer.
const AT_ONCE: usize = 8;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The agent runtime.
    Ours,
    /// The FastAPI service.
    Peer,
    /// The null server.
    Null,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
            Self::Null => "null",
        })
    }
}

/// What all contenders are started with.
#[derive(Clone, Debug)]
pub(crate) struct Arena {
    /// Our release binary.
    pub(crate) runtime: PathBuf,
    /// The peer's interpreter, and the folder of its app.
    pub(crate) peer: Option<(PathBuf, PathBuf)>,
    /// Data folders are made in here, anew for every process.
    pub(crate) folder: PathBuf,
    pub(crate) cores: Cores,
}

/// What a server is there for.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// To be looked at.
    Idle,
    /// To accept triggers that are not executed.
    Accept,
    /// To execute triggers, each of which asks this URL once.
    Ask(String),
}

/// A server that is ready.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    /// From the start of the process to its first 200 of the readiness probe.
    pub(crate) ready_after: Duration,
}

impl Arena {
    /// Who takes part, in the order of every round.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let mut all = vec![Contender::Ours, Contender::Peer, Contender::Null];
        all.retain(|contender| *contender != Contender::Peer || self.peer.is_some());
        all
    }

    /// Starts one over an empty folder and waits until it is ready.
    pub(crate) fn start(&self, contender: Contender, work: &Work) -> anyhow::Result<Server> {
        let folder = self.folder.join(contender.to_string());
        fs::remove_dir_all(&folder).or_else(|_| fs::create_dir_all(&self.folder))?;
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // Free now, and taken by the child at once: nothing else here listens meanwhile.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = self.command(contender, work, &folder, address.port())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(folder.join("stderr"))?);
        let core = self.cores.server;
        let begun = Instant::now();
        // A child stays on the cores of the thread that starts it.
        let starting = std::thread::spawn(move || {
            machine::pin(core)?;
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))
        });
        let child = starting.join().map_err(|_| anyhow::anyhow!("the starting thread died"))??;
        let mut server = Server { child, folder, address, ready_after: Duration::ZERO };
        server.wait_until_ready(begun).with_context(|| contender.to_string())?;
        server.ready_after = begun.elapsed();
        Ok(server)
    }

    fn command(&self, contender: Contender, work: &Work, folder: &Path, port: u16) -> anyhow::Result<Command> {
        let port = port.to_string();
        let mut command = match contender {
            Contender::Ours => {
                let agent = folder.join("agent.yaml");
                fs::write(&agent, definition(work))?;
                let mut command = process::isolated(&self.runtime);
                command.arg("serve").arg(agent).args(["--lifecycle-enabled", "true", "--host", "127.0.0.1"]);
                command.args(["--port", &port]);
                command
            }
            Contender::Peer => {
                let (python, app) = self.peer.as_ref().context("there is no peer")?;
                let mut command = process::isolated(python);
                command.args(["-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", &port, "--workers", "1"]);
                command.args(["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]);
                command.arg("--app-dir").arg(app).env("MAX_CONCURRENT", AT_ONCE.to_string());
                if let Work::Ask(url) = work {
                    command.env("STEP_URL", url);
                }
                command
            }
            Contender::Null => {
                let mut command = process::isolated(&std::env::current_exe()?);
                command.args(["null", &port]);
                if matches!(work, Work::Accept) {
                    command.arg(folder);
                }
                command
            }
        };
        command.env("HIVE_DATA_DIR", folder).env("HIVE_WHILE_PAUSED", "queue");
        Ok(command)
    }
}

/// An agent with one entry point and one node, whose line is never full.
fn definition(work: &Work) -> String {
    let node = match work {
        Work::Idle | Work::Accept => "node_type: wait, seconds: 3600".to_owned(),
        Work::Ask(url) => format!("node_type: http, url: \"{url}\", max_retries: 0"),
    };
    format!(
        "agent: {{ id: bench, name: Bench }}\ngraph:\n  async_entry_points:\n    - {{ id: main, entry_node: step, \
         trigger_type: api, max_concurrent: {AT_ONCE}, max_queued: 100000000 }}\n  nodes:\n    - {{ id: step, {node} }}\n"
    )
}

impl Server {
    fn wait_until_ready(&mut self, begun: Instant) -> anyhow::Result<()> {
        let probe = http::request("GET", "/health/ready", "");
        loop {
            let answer = Connection::open(self.address).and_then(|mut connection| connection.ask(&probe));
            if let Ok((200, _)) = answer {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.log());
            }
            if begun.elapsed() > PATIENCE {
                bail!("it was not ready within {} s: {}", PATIENCE.as_secs(), self.log());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// What it said, the end of it.
    fn log(&self) -> String {
        process::last_lines(&self.folder.join("stderr"), 5)
    }

    /// Memory that it has in use, in MB.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        process::resident(self.child.id())
    }

    /// Seconds for which it has kept its core busy.
    pub(crate) fn busy(&self) -> anyhow::Result<f64> {
        process::busy(self.child.id())
    }

    /// Bytes that it has sent towards the disk.
    pub(crate) fn written(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
        line.trim().parse().context("write_bytes is no number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of it is needed any more, so it is not asked to end in good order.
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = fs::remove_dir_all(&self.folder);
    }
}
