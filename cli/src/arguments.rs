//! The command line: what can be asked for, and the help on it.

use std::ffi::OsStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::kubernetes::Kubernetes;

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

/// Which cluster and which namespace, as kubectl has them.
#[derive(Args, Debug, Default)]
pub(crate) struct Place {
    /// The context of the kubeconfig (KUBECONFIG, else ~/.kube/config)
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// The namespace; the context's own if not given
    #[arg(long, short, global = true)]
    pub(crate) namespace: Option<String>,
    /// Every namespace, for what works on many
    #[arg(long, short = 'A', global = true)]
    pub(crate) all_namespaces: bool,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What the user's shell is to source.
pub(crate) fn completion(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => "source <(COMPLETE=bash kubectl-hive)",
        Shell::Zsh => "source <(COMPLETE=zsh kubectl-hive)",
        Shell::Fish => "COMPLETE=fish kubectl-hive | source",
    }
}

/// Whole seconds, minutes or hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b's') => (text.strip_suffix('s'), 1),
        Some(b'm') => (text.strip_suffix('m'), 60),
        Some(b'h') => (text.strip_suffix('h'), 3600),
        _ => (None, 0),
    };
    let seconds = number.and_then(|number| number.parse::<u64>().ok()).and_then(|number| number.checked_mul(factor));
    seconds.map(Duration::from_secs).ok_or_else(|| "give seconds, minutes or hours, such as 90s or 5m".to_owned())
}

/// The place that stands on a command line which is not finished, and so cannot be parsed.
fn place(words: impl Iterator<Item = String>) -> Place {
    let mut place = Place::default();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word, words.peek().cloned()),
        };
        match flag.as_str() {
            "-n" | "--namespace" => place.namespace = value,
            "--context" => place.context = value,
            _ => {}
        }
    }
    place
}

/// The names in the present namespace that begin so. A shell wants silence rather than an error.
fn names(begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy().into_owned();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let listed = runtime.block_on(async {
        let asked = async { Kubernetes::connect(&place(std::env::args())).await?.list(None).await };
        tokio::time::timeout(Duration::from_secs(2), asked).await
    });
    let all = listed.ok().and_then(Result::ok).unwrap_or_default();
    let names = all.into_iter().filter_map(|runtime| runtime.metadata.name);
    names.filter(|name| name.starts_with(&begun)).map(CompletionCandidate::new).collect()
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

    #[test]
    fn a_line_that_is_not_finished_says_where() {
        let of = |line: &str| place(line.split(' ').map(str::to_owned));
        assert_eq!(of("kubectl-hive -n shop pause").namespace.as_deref(), Some("shop"));
        assert_eq!(of("kubectl-hive pause --namespace=shop --context east a").context.as_deref(), Some("east"));
        assert_eq!(of("kubectl-hive pause").namespace, None);
    }

    #[test]
    fn durations_are_whole_and_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "m", "-1s", "1.5h", "99999999999999999999h", "5é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
