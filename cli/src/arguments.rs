//! The command line: what can be asked for, and the help on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use crate::completion::{freezes, names};
use crate::kubernetes::Place;
use crate::values::{Labels, Mode, Output, Shell, duration};

const CODES: &str = "Exit codes:
  0  done
  1  it failed: no cluster, no permission, a pod refused
  2  the arguments do not fit
  3  not reached within --timeout; what was asked stays asked
  4  nothing was changed: not confirmed, or a GitOps tool owns the field";

/// Start, pause, resume and stop AI agents that run as pods.
#[derive(Debug, Parser)]
#[command(name = "kubectl-hive", bin_name = "kubectl hive", version, after_help = CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show runtimes, their pods and what holds up a drain
    #[command(
        after_help = "Examples:\n  kubectl hive status\n  kubectl hive status -A -o wide\n  kubectl hive status site-watch --watch --timeout 60s"
    )]
    Status(Status),
    /// Let nothing start any more, and finish what is in flight
    #[command(
        after_help = "Examples:\n  kubectl hive pause site-watch --wait --reason 'bad model release'\n  kubectl hive pause -l team=search --yes"
    )]
    Pause(Change),
    /// Let a paused runtime work again
    #[command(after_help = "Example:\n  kubectl hive resume site-watch --wait")]
    Resume(Change),
    /// Finish what is in flight, then take the pods away
    #[command(after_help = "Example:\n  kubectl hive stop --all --yes --wait --timeout 5m")]
    Stop(Change),
    /// Let a stopped runtime work again
    #[command(after_help = "Example:\n  kubectl hive start site-watch --wait")]
    Start(Change),
    /// Replace the pods, by a new spec.restartNonce
    #[command(after_help = "Example:\n  kubectl hive restart site-watch --wait")]
    Restart(Change),
    /// Hold every runtime of a namespace, of some or of all, without touching any
    #[command(
        after_help = "Examples:\n  kubectl hive freeze bad-model -n shop --reason 'wrong answers' --wait\n  kubectl hive freeze all -A --mode checkpoint --yes"
    )]
    Freeze(Freeze),
    /// Take a freeze away: each runtime is again what its own spec says
    #[command(after_help = "Example:\n  kubectl hive unfreeze bad-model")]
    Unfreeze(Unfreeze),
    /// Say in words why a runtime is in the state it is in
    #[command(after_help = "Example:\n  kubectl hive explain-state site-watch")]
    ExplainState(Named),
    /// Begin an execution
    #[command(
        after_help = "Example:\n  kubectl hive trigger site-watch on-request --data '{\"name\":\"you\"}' --wait 30s"
    )]
    Trigger(Trigger),
    /// List executions, look at one, cancel it or answer its question
    Executions(Executions),
    /// Print what the pods of a runtime print
    #[command(
        after_help = "Examples:\n  kubectl hive logs site-watch --follow\n  kubectl hive logs site-watch --execution 0197e5"
    )]
    Logs(Logs),
    /// Check a file of objects, or an agent's definition, before it is applied
    #[command(after_help = "Example:\n  kubectl hive validate examples/agents/site-watch.yaml")]
    Validate(Validate),
    /// Check that a server of your own speaks the lifecycle contract; pauses, stops and starts it
    #[command(after_help = "Example:\n  kubectl hive conformance http://localhost:8080")]
    Conformance(Conformance),
    /// Serve a page on this machine that shows every runtime as it changes, under your own permissions
    #[command(after_help = "Example:\n  kubectl hive dashboard -A")]
    Dashboard(Dashboard),
    /// Check the cluster, the operator, your permissions and the clock
    #[command(after_help = "Example:\n  kubectl hive doctor --namespace shop")]
    Doctor,
    /// Print what makes the shell complete commands and names
    #[command(after_help = "Example:\n  source <(kubectl hive completion bash)")]
    Completion { shell: Shell },
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Only this runtime
    #[arg(add = ArgValueCompleter::new(names))]
    pub(crate) name: Option<String>,
    /// A label selector
    #[arg(long, short = 'l')]
    pub(crate) selector: Option<String>,
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Show it anew at each change
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Watch until every desired state is reached; exits with 3 if that takes longer, such as 90s or 5m
    #[arg(long, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Change {
    /// The runtimes
    #[arg(add = ArgValueCompleter::new(names), required_unless_present_any = ["selector", "all"])]
    pub(crate) names: Vec<String>,
    /// A label selector
    #[arg(long, short = 'l', conflicts_with = "names")]
    pub(crate) selector: Option<String>,
    /// Every runtime of the namespace, or with -A of the cluster
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub(crate) all: bool,
    /// Do not ask for the number affected
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Why, kept as the annotation agents.hive.dev/reason
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Wait until the pods have acknowledged it, showing what is in flight
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, such as 90s or 5m
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub(crate) timeout: Duration,
    /// Change it although a GitOps tool owns the field and may put it back
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug, Default)]
pub(crate) struct Freeze {
    /// A name for the freeze
    pub(crate) name: String,
    /// Only runtimes with these labels
    #[arg(long, short = 'l')]
    pub(crate) selector: Option<Labels>,
    /// Every namespace with these labels, instead of one namespace
    #[arg(long, conflicts_with = "all_namespaces")]
    pub(crate) namespace_selector: Option<Labels>,
    /// Take the pods away too, once drained
    #[arg(long)]
    pub(crate) stop: bool,
    /// What becomes of what is in flight; what each runtime's own lifecycle says if left out
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// When a drain is overdue, such as 5m
    #[arg(long, value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    /// Why, shown in each runtime's conditions
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// When it ends by itself, such as 2h
    #[arg(long, value_parser = duration)]
    pub(crate) expires_in: Option<Duration>,
    /// How many runtimes go back to work each second when it has ended, 1 to 10000
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(crate) resume_per_second: Option<i32>,
    /// Do not ask for the number affected
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Wait until every runtime has reached it
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, such as 90s or 5m
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct Unfreeze {
    /// The freeze
    #[arg(add = ArgValueCompleter::new(freezes))]
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// The runtime
    #[arg(add = ArgValueCompleter::new(names))]
    pub(crate) name: String,
    /// Go on with what is printed from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// So many lines of each pod
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) tail: Option<i64>,
    /// Only what is newer, such as 5m
    #[arg(long, value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Only lines of this execution
    #[arg(long)]
    pub(crate) execution: Option<String>,
    /// Of the container before this one, which has ended
    #[arg(long, conflicts_with = "follow")]
    pub(crate) previous: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Validate {
    /// A file with AgentRuntimes and AgentFreezes, or with one agent
    pub(crate) file: PathBuf,
    /// Without an API server: only agents are checked
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Conformance {
    /// Where the server is: a runtime that stands alone, idle, without token or signature
    pub(crate) url: String,
    /// How long each change of state may take
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct Dashboard {
    /// Where to serve it; port 0 takes any that is free
    #[arg(long, default_value = "127.0.0.1:8200")]
    pub(crate) listen: SocketAddr,
    /// Only show: no token is needed, and nothing can be changed
    #[arg(long)]
    pub(crate) read_only: bool,
    /// A name by which others reach a page that only shows, beside addresses and localhost
    #[arg(long, value_name = "NAME", requires = "read_only")]
    pub(crate) allow_host: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The runtime
    #[arg(add = ArgValueCompleter::new(names))]
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct Trigger {
    /// The runtime
    #[arg(add = ArgValueCompleter::new(names))]
    pub(crate) name: String,
    /// The entry point
    pub(crate) entry_point: String,
    /// A JSON object: the execution's memory to begin with
    #[arg(long, short, default_value = "{}")]
    pub(crate) data: String,
    /// The same key gives the same execution for 24 hours
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
    /// Wait for its end, at most 5m
    #[arg(long, value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Executions {
    #[command(subcommand)]
    pub(crate) task: ExecutionsTask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExecutionsTask {
    /// The newest executions of each pod
    #[command(after_help = "Example:\n  kubectl hive executions list site-watch --state failed")]
    List {
        /// The runtime
        #[arg(add = ArgValueCompleter::new(names))]
        name: String,
        /// Only in this state, such as running, waiting or failed
        #[arg(long)]
        state: Option<String>,
        /// How many of each pod, 1 to 500
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// One execution, as JSON
    Get(Execution),
    /// End an execution
    Cancel(Execution),
    /// What happens in an execution, from its beginning to its end
    #[command(after_help = "Example:\n  kubectl hive executions events site-watch ID")]
    Events(Execution),
    /// Answer the question that an execution waits with
    #[command(after_help = "Example:\n  kubectl hive executions input site-watch ID yes")]
    Input {
        #[command(flatten)]
        execution: Execution,
        /// The answer: JSON, or else text
        value: String,
        /// The branch that asked, needed only when several do
        #[arg(long)]
        branch: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Execution {
    /// The runtime
    #[arg(add = ArgValueCompleter::new(names))]
    pub(crate) name: String,
    /// The execution's id
    pub(crate) id: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_change_needs_to_know_which_runtimes() {
        assert!(Cli::try_parse_from(["kubectl-hive", "pause"]).is_err());
        assert!(Cli::try_parse_from(["kubectl-hive", "pause", "a", "--all"]).is_err());
        assert!(Cli::try_parse_from(["kubectl-hive", "pause", "--all"]).is_ok());
    }
}
