//! Owns what can go wrong; each message says what to do about it.

use std::path::PathBuf;
use std::time::Duration;

/// Why the cluster could not be brought up, reached or taken down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces, mounts and iptables need root.
    #[error(
        "the cluster needs root: run `sudo --preserve-env=HOME,PATH cargo xtask cluster …`, or use `--kind` or `--context`"
    )]
    NotRoot,
    /// No Go toolchain on the PATH.
    #[error(
        "Go is not installed, and {program} must be built: install Go {wanted} or later from https://go.dev/dl and put its bin folder on the PATH"
    )]
    NoGo {
        /// The first program to be built.
        program: String,
        /// The oldest version that will do.
        wanted: String,
    },
    /// A Go toolchain that cannot build the pinned modules.
    #[error("Go {found} is too old: install Go {wanted} or later from https://go.dev/dl")]
    OldGo {
        /// What `go env GOVERSION` says.
        found: String,
        /// The oldest version that will do.
        wanted: String,
    },
    /// Programs from Debian are missing and apt-get cannot fetch them.
    #[error("{missing} missing and apt-get is not here: install the packages {packages} by hand")]
    NoApt {
        /// The programs.
        missing: String,
        /// The Debian packages that hold them.
        packages: String,
    },
    /// apt-get ran and failed.
    #[error(
        "apt-get could not install {packages}: see {log}, mend it (network? `apt-get update`?) and run `up` again\n{tail}"
    )]
    Apt {
        /// The Debian packages asked for.
        packages: String,
        /// Where its output is.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// Somebody else listens where a component must.
    #[error("port {port} for {component} is taken by {owner}: stop that program and run `up` again")]
    PortTaken {
        /// The port.
        port: u16,
        /// The component that needs it.
        component: &'static str,
        /// Who has it.
        owner: String,
    },
    /// An interface with the name of our bridge that we did not make.
    #[error(
        "the interface {0} belongs to somebody else: remove it (`ip link delete {0}`) or stop the other Kubernetes first"
    )]
    BridgeTaken(&'static str),
    /// Too little room.
    #[error(
        "only {free_gib:.1} GiB are free at {path}, {wanted_gib} GiB are needed: make room, or move the folders with AGENTRUNTIME_CLUSTER_DIR and XDG_CACHE_HOME"
    )]
    DiskFull {
        /// The folder.
        path: PathBuf,
        /// What is free.
        free_gib: f64,
        /// What is wanted.
        wanted_gib: u64,
    },
    /// Unix sockets bear no longer path.
    #[error("{0} is too long for the path of a socket: choose a shorter AGENTRUNTIME_CLUSTER_DIR")]
    LongPath(PathBuf),
    /// Neither AGENTRUNTIME_CLUSTER_DIR nor HOME is set.
    #[error("there is no home folder: set HOME or AGENTRUNTIME_CLUSTER_DIR")]
    NoHome,
    /// A Go build failed.
    #[error("building {program} failed: see {log}; a first build needs the network for the Go modules\n{tail}")]
    Build {
        /// The program.
        program: String,
        /// The output of the compiler.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// A tool ran and failed.
    #[error("{what} failed ({status}): {output}")]
    Tool {
        /// What it was meant to do.
        what: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A tool could not be started at all.
    #[error("{program} cannot be started: {source}; is it installed and on the PATH?")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A component ended while it was waited for.
    #[error("{component} ended while the cluster started: see {log}\n{tail}")]
    Died {
        /// The component.
        component: String,
        /// Its log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// A component did not become ready in time.
    #[error("{what} did not happen within {} s: see the logs in {logs}{hint}", limit.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// Where the logs are.
        logs: PathBuf,
        /// What the last try said.
        hint: String,
    },
    /// Something of the cluster would not go away.
    #[error("{what} is still there after `down`: {advice}")]
    Remains {
        /// The thing.
        what: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// Nothing runs.
    #[error("no cluster is up: run `cargo xtask cluster up`")]
    NotUp,
    /// `up` was asked for another kind of cluster than the one there is.
    #[error("the cluster in use is {current}, not {wanted}: run `cargo xtask cluster down` first")]
    OtherTarget {
        /// What is there.
        current: String,
        /// What was asked for.
        wanted: String,
    },
    /// Docker or its daemon is missing.
    #[error("--kind needs Docker: {0}; install and start Docker, or leave --kind away to run without it")]
    NoDocker(String),
    /// What only a cluster of our own can do.
    #[error("{what} is not possible with {target}: use a cluster that `cargo xtask cluster up` made")]
    Unsupported {
        /// The wish.
        what: &'static str,
        /// The cluster in use.
        target: String,
    },
    /// The image is neither a file nor known to buildah.
    #[error(
        "{0} is neither an image archive nor an image of buildah: build it with `buildah --storage-driver vfs bud`, or name an oci-archive"
    )]
    NoImage(String),
    /// The container to be signalled does not run.
    #[error(
        "no running container {container} in pod {namespace}/{pod}: see `kubectl -n {namespace} describe pod {pod}`"
    )]
    NoContainer {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// A file or folder could not be used.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    Os {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A tool's answer was not what it should be.
    #[error("{what} answered something unexpected: {source}")]
    Json {
        /// Which answer.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Error {
    /// Names the file in an input or output error.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Names the deed in an error of the operating system.
    pub(crate) fn os<E: Into<std::io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Os { action, source: source.into() }
    }

    /// Names the answer that could not be read.
    pub(crate) fn json(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { what, source }
    }
}
