//! The operator's settings, from flags or the environment.

use std::net::SocketAddr;
use std::time::Duration;

/// Reconciles AgentRuntime objects: pushes spec.desiredState to each pod and reports what the pods acknowledged.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "agentruntime-operator", version)]
pub struct Cli {
    /// The settings.
    #[command(flatten)]
    pub config: Config,

    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of running.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Ask the operator of this container whether it is alive; for the image's HEALTHCHECK.
    Healthcheck,
    /// Make a runtime, pause it, resume it and delete it, with the operator that is installed; for `helm test`.
    Selftest(crate::selftest::SelfTest),
}

/// The settings.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Image of the agent runtime, for objects whose template names none.
    #[arg(long, env = "AGENT_RUNTIME_IMAGE", default_value = "agent-runtime:0.1.0")]
    pub runtime_image: String,

    /// Address of /metrics, /healthz and /readyz. [::] is every address, of IPv4 too.
    #[arg(long, env = "OPERATOR_LISTEN", default_value = "[::]:9090")]
    pub listen: SocketAddr,

    /// Namespace of the Lease; the operator's own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// This replica's name in the Lease.
    #[arg(long, env = "POD_NAME", default_value = "agentruntime-operator")]
    pub identity: String,

    /// Seconds for which the Lease is held without renewal.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,

    /// Commands under way at once, over all pods; at most half of them to the pods of one object.
    #[arg(long, env = "COMMAND_CONCURRENCY", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub command_concurrency: u16,

    /// Status requests under way at once, over all pods; at most half of them to the pods of one object.
    #[arg(long, env = "POLL_CONCURRENCY", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub poll_concurrency: u16,

    /// Objects reconciled at once.
    #[arg(long, env = "RECONCILE_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub reconcile_concurrency: u16,

    /// Namespaces whose AgentRuntimes are reconciled, with commas between; all of them if none is given.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Obey AgentFreezes. Only an operator that may read neither them nor namespaces does without.
    #[arg(long, env = "OBEY_FREEZES", default_value_t = true, action = clap::ArgAction::Set)]
    pub obey_freezes: bool,

    /// Run commands in pods, for hooks by exec. The operator's role must allow it.
    #[arg(long, env = "EXEC_HOOKS", default_value_t = false, action = clap::ArgAction::Set)]
    pub exec_hooks: bool,

    /// Days after which the key that signs commands is replaced.
    #[arg(long, env = "KEY_ROTATION_DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub key_rotation_days: u16,

    /// Seconds of silence after which a connection to the API server counts as dead. Watches hear something every
    /// minute, so less than that has them begun again for nothing.
    #[arg(long, env = "API_SILENCE_SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(2..=600))]
    pub api_silence_seconds: u16,

    /// Push to pods at loopback addresses, which whoever writes a pod's status could otherwise use to have the
    /// operator call itself. For tests that simulate pods: a release build knows no such flag.
    #[cfg(debug_assertions)]
    #[arg(long, env = "ALLOW_LOOPBACK_PODS", hide = true)]
    pub allow_loopback_pods: bool,

    /// Which log lines are written, as a tracing filter. kube_client warns with whole pages of what it could not read.
    #[arg(long, env = "OPERATOR_LOG", default_value = "info,kube=warn,kube_client=error")]
    pub log: String,
}

impl Config {
    /// The same without empty names, which an empty environment variable gives.
    #[must_use]
    pub fn cleaned(mut self) -> Self {
        self.watch_namespaces.retain(|namespace| !namespace.is_empty());
        self
    }

    /// How long a lease lasts without renewal.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(u64::from(self.lease_seconds))
    }

    /// How long a connection to the API server may be silent. A half-open one would hold up a list for ever.
    #[must_use]
    pub fn api_silence(&self) -> Duration {
        Duration::from_secs(u64::from(self.api_silence_seconds))
    }

    /// Whether pods may have loopback addresses; never in a release build.
    #[must_use]
    pub fn loopback_pods(&self) -> bool {
        #[cfg(debug_assertions)]
        return self.allow_loopback_pods;
        #[cfg(not(debug_assertions))]
        return false;
    }

    /// How old the key that signs commands may become.
    #[must_use]
    pub fn key_age(&self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_hours(i64::from(self.key_rotation_days) * 24)
    }
}
