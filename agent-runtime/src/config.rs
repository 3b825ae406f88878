//! Settings, from the environment and the command line, resolved once.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::store::{self, postgres};

/// Executes an agent durably and speaks the lifecycle contract.
#[derive(Debug, Parser)]
#[command(name = "agent-runtime", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an agent until SIGTERM or SIGINT.
    Serve(Box<Serve>),
    /// Check an agent's definition and say what is wrong with it, by file and line.
    Validate {
        /// The definition, YAML or JSON.
        file: PathBuf,
    },
    /// Print the JSON Schema of an agent's definition.
    Schema,
    /// Print the OpenAPI document of the server.
    Openapi,
    /// Ask the runtime of this machine whether it is alive; for a container's HEALTHCHECK.
    Healthcheck {
        /// The port of the lifecycle server.
        #[arg(long, env = "HIVE_LIFECYCLE_PORT", default_value_t = 8080)]
        port: u16,
    },
    /// Serve pages for the examples to watch: / answers at once, /slow?seconds=N after N seconds.
    #[command(hide = true)]
    SampleSite {
        /// The port.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
}

/// How to run an agent.
#[derive(Clone, Debug, Parser)]
pub struct Serve {
    /// The agent's definition, YAML or JSON.
    pub file: PathBuf,

    /// Serve the lifecycle API. Off by default: an agent runs the same without it.
    #[arg(long, env = "HIVE_LIFECYCLE_ENABLED", default_value = "false", action = ArgAction::Set)]
    pub lifecycle_enabled: bool,

    /// Address of the lifecycle server.
    #[arg(long, env = "HIVE_LIFECYCLE_HOST", default_value = "::")]
    pub host: std::net::IpAddr,

    /// Port of the lifecycle server; 0 takes a free one and logs it.
    #[arg(long, env = "HIVE_LIFECYCLE_PORT", default_value_t = 8080)]
    pub port: u16,

    /// Connections at once; more wait until one is closed.
    #[arg(long, env = "HIVE_MAX_CONNECTIONS", default_value_t = 4096,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(8..=65_536))]
    pub max_connections: usize,

    /// Seconds from SIGTERM to exit.
    #[arg(long, env = "HIVE_GRACEFUL_SHUTDOWN_TIMEOUT", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub shutdown_seconds: u64,

    /// Seconds after SIGTERM for which triggers are still accepted: clients may not have heard of it yet.
    #[arg(long, env = "HIVE_LAME_DUCK_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub lame_duck_seconds: u64,

    /// Folder of the execution store.
    #[arg(long, env = "HIVE_DATA_DIR", default_value = ".hive")]
    pub data_dir: PathBuf,

    /// PostgreSQL database of an execution store that replicas share, as postgres://user:password@host/database; without
    /// it each process has a store of its own in its data folder.
    #[arg(long, env = "HIVE_STORE_URL", hide_env_values = true)]
    pub store_url: Option<String>,

    /// File with that address, for a secret that is mounted.
    #[arg(long, env = "HIVE_STORE_URL_FILE", conflicts_with = "store_url")]
    pub store_url_file: Option<PathBuf>,

    /// Seconds for which an execution of a shared store is a replica's without a sign of life. Steps are interrupted at
    /// two thirds of it, and must be able to end within the rest.
    #[arg(long, env = "HIVE_STORE_LEASE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(9..=600))]
    pub store_lease_seconds: u64,

    /// Folder of the record of the accepted epoch and holds; it must live as long as the pod. The data folder if not set.
    #[arg(long, env = "HIVE_RECORD_DIR")]
    pub record_dir: Option<PathBuf>,

    /// Folder in which the operator's boot.json is mounted.
    #[arg(long, env = "HIVE_BOOT_DIR")]
    pub boot_dir: Option<PathBuf>,

    /// Seconds that a managed pod waits for the operator before it believes its boot file.
    #[arg(long, env = "HIVE_BOOT_HOLD_SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub boot_hold_seconds: u64,

    /// UID of the AgentRuntime that manages this pod; empty when nothing does.
    #[arg(long, env = "HIVE_RUNTIME_UID", default_value = "")]
    pub runtime_uid: String,

    /// UID of this pod.
    #[arg(long, env = "HIVE_POD_UID", default_value = "")]
    pub pod_uid: String,

    /// What triggers get while paused: refused with 503, or accepted for later.
    #[arg(long, env = "HIVE_WHILE_PAUSED", default_value = "reject")]
    pub while_paused: WhilePaused,

    /// Executions begun each second after a resume or start, until none waits any more; without it all at once.
    #[arg(long, env = "HIVE_RESUME_RATE", value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub resume_rate: Option<u32>,

    /// The MCP servers whose tools the agent uses; mcp_servers.json beside the agent if not set.
    #[arg(long, env = "HIVE_MCP_SERVERS")]
    pub mcp_servers: Option<PathBuf>,

    /// Run the agent although tools that it names are offered by no server.
    #[arg(long, env = "HIVE_ALLOW_MISSING_TOOLS", default_value = "false", action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    pub allow_missing_tools: bool,

    /// Days for which executions that have ended are kept.
    #[arg(long, env = "HIVE_RETENTION_DAYS", default_value_t = 7, value_parser = clap::value_parser!(i64).range(1..=3650))]
    pub retention_days: i64,

    /// A token that whatever changes something must bear. Verbs of a managed pod bear the operator's signature instead.
    #[arg(long, env = "HIVE_LIFECYCLE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Protect reads too: they need the token, or for the status the operator's signature. Probes stay open.
    #[arg(long, env = "HIVE_LIFECYCLE_PROTECT_READS", default_value = "false", action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    pub protect_reads: bool,

    /// Which log lines are written, as a tracing filter.
    #[arg(long, env = "HIVE_LOG", default_value = "info")]
    pub log: String,
}

/// What triggers get while paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhilePaused {
    /// 503 with Retry-After.
    Reject,
    /// 202: on disk, started after the resume.
    Queue,
}

impl Serve {
    /// Whether an operator manages this runtime.
    #[must_use]
    pub fn managed(&self) -> bool {
        !self.runtime_uid.is_empty()
    }

    /// Folder of the record.
    #[must_use]
    pub fn records(&self) -> &std::path::Path {
        self.record_dir.as_deref().unwrap_or(&self.data_dir)
    }

    /// How to reach the store that replicas share; none when this process has its own.
    ///
    /// # Errors
    /// The file with the address cannot be read, or is empty. It may yet come: a mounted secret is filled in later.
    pub fn shared_store(&self) -> Result<Option<postgres::Settings>, store::Error> {
        let url = match (&self.store_url, &self.store_url_file) {
            (Some(url), _) => Some(url.trim().to_owned()).filter(|url| !url.is_empty()),
            (None, Some(path)) => Some(read_url(path)?),
            (None, None) => None,
        };
        let lease = Duration::from_secs(self.store_lease_seconds);
        Ok(url.map(|url| postgres::Settings { url, runtime_uid: self.runtime_uid.clone(), lease }))
    }

    /// The file of the MCP servers.
    #[must_use]
    pub fn servers(&self) -> PathBuf {
        self.mcp_servers.clone().unwrap_or_else(|| self.file.with_file_name("mcp_servers.json"))
    }

    /// The time from SIGTERM to exit.
    #[must_use]
    pub fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }

    /// How long triggers are accepted after SIGTERM.
    #[must_use]
    pub fn lame_duck(&self) -> Duration {
        Duration::from_secs(self.lame_duck_seconds)
    }

    /// How long a managed pod waits for the operator.
    #[must_use]
    pub fn boot_hold(&self) -> Duration {
        Duration::from_secs(self.boot_hold_seconds)
    }
}

/// A file that is named and empty is no wish for a store of one's own: work would be lost with the pod.
fn read_url(path: &std::path::Path) -> Result<String, store::Error> {
    let unreadable = |why: &dyn std::fmt::Display| {
        store::Error::Unreachable(format!("HIVE_STORE_URL_FILE {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    let url = text.trim();
    if url.is_empty() { Err(unreadable(&"it is empty")) } else { Ok(url.to_owned()) }
}
