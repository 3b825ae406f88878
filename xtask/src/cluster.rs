//! Owns the task `cluster`: what a developer does with the test cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use cluster::{Cluster, Status, Target};

use crate::progress::Terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Bring the cluster up, or take the one that is up
    ///
    /// Runs etcd, the control plane, containerd, kubelet, kube-proxy and CoreDNS as processes of this
    /// machine, without Docker. Needs Debian, root and, for the first build, Go and the network. The
    /// first build takes about eight minutes on two cores; its programs are kept in
    /// ~/.cache/agentruntime. Missing Debian packages are installed after they are named.
    ///
    /// AGENTRUNTIME_CLUSTER_DIR says where the cluster lives (~/.cache/agentruntime/cluster).
    Up(Up),
    /// Build the programs of the cluster that are not in the cache, and start nothing
    Build,
    /// Remove the cluster: processes, containers, mounts, network and state
    ///
    /// Also removes what an unclean end has left. Logs stay until the next `up`. The cluster of
    /// `up --context` is only forgotten.
    Down,
    /// Show the cluster in use; fails unless it is ready
    Status,
    /// Load an image into the cluster
    ///
    /// Pods find it with imagePullPolicy IfNotPresent or Never.
    Load(Load),
    /// List the logs, or show one
    Logs(Logs),
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Up {
    /// Use a cluster of kind, in Docker
    #[arg(long)]
    kind: bool,
    /// Use the cluster of this context of your kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// An archive (oci-archive or docker-archive), or an image that buildah has
    image: String,
    /// What pods call the image; by default the name it has
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The component, or "audit" for the requests to the API server
    component: Option<String>,
    /// Go on as the log grows
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to show
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: u32,
}

/// Runs the task.
pub(crate) fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Up(up) => bring_up(&up),
        Task::Build => Ok(cluster::host_programs(&Terminal::new()).map(|()| ExitCode::SUCCESS)?),
        Task::Down => Cluster::down(&Terminal::new()).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Task::Status => show_status(&Cluster::status()?),
        Task::Load(load) => load_image(&load),
        Task::Logs(logs) => show_logs(&logs),
    }
}

impl Up {
    /// The cluster that is asked for.
    pub(crate) fn target(&self) -> Target {
        match &self.context {
            Some(context) => Target::Context(context.clone()),
            None if self.kind => Target::Kind,
            None => Target::Host,
        }
    }
}

fn bring_up(up: &Up) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::up(&up.target(), &Terminal::new())?;
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("export PATH={}:$PATH", folders([&cluster.kubectl(), &cluster.helm()]).join(":"));
    Ok(ExitCode::SUCCESS)
}

/// The folders of programs, each once.
fn folders<const N: usize>(programs: [&Command; N]) -> Vec<String> {
    let mut folders: Vec<String> = Vec::new();
    for folder in programs.iter().filter_map(|program| Path::new(program.get_program()).parent()) {
        let folder = folder.display().to_string();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn show_status(status: &Status) -> anyhow::Result<ExitCode> {
    println!("{:<26}{}", "cluster", status.target);
    println!("{:<26}{}", "kubeconfig", status.kubeconfig.display());
    for component in &status.components {
        let state = component.pid.map_or_else(|| "does not run".to_owned(), |pid| format!("process {pid}"));
        println!("{:<26}{state}", component.name);
    }
    match &status.ready {
        Ok(()) => println!("{:<26}yes", "ready"),
        Err(reason) => bail!("the cluster is not ready: {reason}; `cargo xtask cluster up` makes it anew"),
    }
    Ok(ExitCode::SUCCESS)
}

fn load_image(load: &Load) -> anyhow::Result<ExitCode> {
    for name in Cluster::attach()?.load_image(&load.image, load.name.as_deref())? {
        println!("{name}");
    }
    Ok(ExitCode::SUCCESS)
}

fn show_logs(wanted: &Logs) -> anyhow::Result<ExitCode> {
    let logs = Cluster::logs()?;
    let Some(component) = &wanted.component else {
        for (name, path) in logs {
            println!("{name:<26}{}", path.display());
        }
        return Ok(ExitCode::SUCCESS);
    };
    let path = find_log(component, &logs)?;
    let mut tail = Command::new("tail");
    tail.arg(format!("--lines={}", wanted.lines));
    if wanted.follow {
        tail.arg("--follow=name");
    }
    let status = tail.arg(path).status().context("tail cannot be started: install coreutils")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find_log<'a>(name: &str, logs: &'a [(&'static str, PathBuf)]) -> anyhow::Result<&'a PathBuf> {
    if let Some((_, path)) = logs.iter().find(|(known, _)| *known == name) {
        return Ok(path);
    }
    let known = logs.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
    if known.is_empty() {
        bail!("there are no logs: run `cargo xtask cluster up`");
    }
    bail!("there is no log called {name}: choose one of {known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_one_folder_name_it_once() {
        let [kubectl, helm, other] = ["/a/kubectl", "/a/helm", "/b/x"].map(Command::new);
        assert_eq!(folders([&kubectl, &helm, &other]), ["/a", "/b"]);
    }

    #[test]
    fn an_unknown_log_names_those_there_are() {
        let logs = [("etcd", PathBuf::from("/logs/etcd.log"))];
        assert_eq!(find_log("etcd", &logs).unwrap(), &PathBuf::from("/logs/etcd.log"));
        assert!(find_log("x", &logs).unwrap_err().to_string().contains("etcd"));
        assert!(find_log("x", &[]).unwrap_err().to_string().contains("cluster up"));
    }
}
