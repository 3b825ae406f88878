//! Owns the choice of cluster: ours on this machine, kind's, or one that is there.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::image::Archive;
use crate::place::{Place, remove, write_private};
use crate::program::Program;
use crate::progress::{Progress, step};
use crate::toolchain::Toolchain;
use crate::{Error, tool};

/// The name of the cluster that kind makes.
const KIND_NAME: &str = "agentruntime";

/// Which cluster to use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Our own processes on this machine.
    #[default]
    Host,
    /// A container of Docker, made by kind.
    Kind,
    /// A context of the user's kubeconfig. The cluster behind it is never made nor removed.
    Context(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("this machine"),
            Self::Kind => f.write_str("kind"),
            Self::Context(name) => write!(f, "context {name}"),
        }
    }
}

impl Target {
    /// The cluster in use, if any.
    pub(crate) fn read(place: &Place) -> Option<Self> {
        serde_json::from_slice(&fs::read(place.target()).ok()?).ok()
    }

    /// Notes that this is the cluster in use.
    pub(crate) fn write(&self, place: &Place) -> Result<(), Error> {
        write_private(&place.target(), &serde_json::to_string(self).map_err(Error::json("the target"))?)
    }
}

/// The kind program: the one installed, or the one of the pinned module.
fn kind(toolchain: &Toolchain) -> Result<Command, Error> {
    let installed = tool::attempt(Command::new("kind").arg("version"));
    Ok(if installed { Command::new("kind") } else { Command::new(toolchain.path(Program::Kind)?) })
}

/// Makes kind's cluster, unless it is there.
pub(crate) fn kind_up(place: &Place, toolchain: &Toolchain, progress: &dyn Progress) -> Result<(), Error> {
    tool::run(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]), "asking Docker")
        .map_err(|error| Error::NoDocker(error.to_string()))?;
    toolchain.ensure(&Program::CLIENTS, progress)?;
    if !tool::attempt(Command::new("kind").arg("version")) {
        toolchain.ensure(&[Program::Kind], progress)?;
    }
    let there = tool::run(kind(toolchain)?.args(["get", "clusters"]), "listing the clusters of kind")?;
    let verb = if there.lines().any(|name| name == KIND_NAME) { "export" } else { "create" };
    step(progress, "kind", || {
        let mut command = kind(toolchain)?;
        command.args(if verb == "export" { ["export", "kubeconfig"] } else { ["create", "cluster"] });
        command.args(["--name", KIND_NAME, "--kubeconfig"]).arg(place.kubeconfig());
        if verb == "create" {
            command.args(["--wait", "180s"]);
        }
        tool::run(&mut command, "making the cluster of kind").map(drop)
    })
}

/// Removes kind's cluster.
pub(crate) fn kind_down(place: &Place, toolchain: &Toolchain, progress: &dyn Progress) -> Result<(), Error> {
    let remove_it = || {
        let mut command = kind(toolchain)?;
        command.args(["delete", "cluster", "--name", KIND_NAME, "--kubeconfig"]).arg(place.kubeconfig());
        tool::run(&mut command, "removing the cluster of kind").map(drop)
    };
    step(progress, "remove the cluster of kind", remove_it)?;
    forget(place)
}

/// Loads an archive into kind's node.
pub(crate) fn kind_load(toolchain: &Toolchain, archive: &Archive) -> Result<(), Error> {
    let mut command = kind(toolchain)?;
    command.args(["load", "image-archive", "--name", KIND_NAME]).arg(&archive.path);
    tool::run(&mut command, "loading the image into kind").map(drop)
}

/// Copies one context of the user's kubeconfig, so that all else is the same as with a cluster of ours.
pub(crate) fn context_up(
    place: &Place,
    toolchain: &Toolchain,
    context: &str,
    progress: &dyn Progress,
) -> Result<(), Error> {
    toolchain.ensure(&Program::CLIENTS, progress)?;
    let kubectl = toolchain.path(Program::Kubectl)?;
    let mut view = Command::new(&kubectl);
    view.args(["config", "view", "--minify", "--flatten", "--raw", "--context", context]);
    write_private(&place.kubeconfig(), &tool::run(&mut view, &format!("reading the context {context}"))?)?;
    let mut ask = Command::new(kubectl);
    ask.arg("--kubeconfig").arg(place.kubeconfig()).args(["--request-timeout=10s", "get", "--raw", "/readyz"]);
    let asked = tool::run(&mut ask, &format!("reaching the cluster of context {context}")).map(drop);
    if asked.is_err() {
        remove(&place.kubeconfig())?;
    }
    asked
}

/// Leaves a cluster as it is.
pub(crate) fn forget(place: &Place) -> Result<(), Error> {
    remove(&place.kubeconfig())?;
    remove(&place.target())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_back() {
        for target in [Target::Host, Target::Kind, Target::Context("prod".to_owned())] {
            let text = serde_json::to_string(&target).unwrap();
            assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
        }
        assert_eq!(Target::Context("prod".to_owned()).to_string(), "context prod");
    }
}
