//! The operators that are compared: how each is started, looked at and ended.

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::Context as _;

use super::plane::Plane;
use crate::http::Connection;
use crate::process;

/// Seconds for which a leader holds its Lease without renewal; the default of all who have one.
pub(crate) const LEASE_SECONDS: u16 = 15;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Our operator.
    Ours,
    /// The one in Go.
    ControllerRuntime,
    /// The one in Python.
    Kopf,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::ControllerRuntime => "controller-runtime",
            Self::Kopf => "kopf",
        })
    }
}

/// What all contenders are started with.
pub(crate) struct Arena {
    pub(crate) plane: Plane,
    /// Our operator's program.
    pub(crate) ours: PathBuf,
    /// The Go peer's program.
    pub(crate) controller_runtime: Option<PathBuf>,
    /// The Python peer's interpreter, and the folder of its program.
    pub(crate) kopf: Option<(PathBuf, PathBuf)>,
    /// Logs go in here.
    pub(crate) folder: PathBuf,
    pub(crate) pods: SimulatedPods,
    pub(crate) lease_seconds: u16,
}

/// A contender's process, ended with the value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Arena {
    /// Who takes part, in the order of every round.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let mut all = vec![Contender::Ours];
        all.extend(self.controller_runtime.as_ref().map(|_| Contender::ControllerRuntime));
        all.extend(self.kopf.as_ref().map(|_| Contender::Kopf));
        all
    }

    /// Starts one for a namespace, as the replica of this name. A peer stands for election only if it is told to.
    pub(crate) fn start(
        &self,
        contender: Contender,
        namespace: &str,
        replica: &str,
        elects: bool,
    ) -> anyhow::Result<Process> {
        let mut command = match contender {
            Contender::Ours => {
                let mut command = process::isolated(&self.ours);
                command.env("WATCH_NAMESPACES", namespace).env("POD_NAMESPACE", namespace).env("POD_NAME", replica);
                command.env("LEASE_SECONDS", self.lease_seconds.to_string());
                command.env("OPERATOR_LISTEN", "127.0.0.1:0").env("ALLOW_LOOPBACK_PODS", "true");
                command.env("OPERATOR_LOG", "warn");
                command
            }
            Contender::ControllerRuntime => {
                let mut command = process::isolated(self.controller_runtime.as_ref().context("there is no Go peer")?);
                command.args(["--namespace", namespace]);
                if elects {
                    command.args(["--lease-seconds", &self.lease_seconds.to_string()]);
                }
                command
            }
            Contender::Kopf => {
                let (python, folder) = self.kopf.as_ref().context("there is no Python peer")?;
                let mut command = process::isolated(python);
                command.args(["-m", "kopf", "run", "--standalone", "--quiet", "--namespace", namespace]);
                command.arg(folder.join("operator.py"));
                command
            }
        };
        let log = self.folder.join(format!("{contender}-{namespace}-{replica}.log"));
        let output = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        command.env("KUBECONFIG", &self.plane.kubeconfig).env("HOME", &self.folder);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("{contender} cannot be started"))?;
        Ok(Process { child })
    }

    /// The end of what a contender said.
    pub(crate) fn log(&self, contender: Contender, namespace: &str, replica: &str) -> String {
        process::last_lines(&self.folder.join(format!("{contender}-{namespace}-{replica}.log")), 8)
    }
}

impl Process {
    /// Memory that it has in use, in MB.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        process::resident(self.child.id())
    }

    /// Seconds of a core that it has used.
    pub(crate) fn busy(&self) -> anyhow::Result<f64> {
        process::running(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // As a crash: it gives nothing back.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The process that all simulated pods live in.
#[derive(Debug)]
pub(crate) struct SimulatedPods {
    child: Child,
    pub(crate) port: u16,
}

impl SimulatedPods {
    pub(crate) fn start() -> anyhow::Result<Self> {
        // Free now, and taken by the child at once: nothing else here listens meanwhile.
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        let mut command = process::isolated(&std::env::current_exe()?);
        let child = command.args(["pods", &port.to_string()]).stdin(Stdio::null()).spawn()?;
        let pods = Self { child, port };
        let begun = std::time::Instant::now();
        while let Err(error) = Connection::open(pods.control()) {
            if begun.elapsed() > std::time::Duration::from_secs(10) {
                return Err(error);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(pods)
    }

    /// How many of these pods do not say that they are paused.
    pub(crate) fn unpaused(&self, first: u32, count: usize) -> anyhow::Result<usize> {
        Ok(self.ask(&format!("unpaused/{first}/{count}"))?.parse()?)
    }

    /// From now on this pod never answers.
    pub(crate) fn hang(&self, pod: Ipv4Addr) -> anyhow::Result<()> {
        self.ask(&format!("hang/{pod}")).map(drop)
    }

    /// From now on it answers again.
    pub(crate) fn heal(&self, pod: Ipv4Addr) -> anyhow::Result<()> {
        self.ask(&format!("heal/{pod}")).map(drop)
    }

    fn ask(&self, order: &str) -> anyhow::Result<String> {
        Connection::open(self.control())?.demand("GET", &format!("/control/{order}"), "")
    }

    fn control(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

impl Drop for SimulatedPods {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
