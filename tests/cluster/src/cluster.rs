//! Owns the handle to the cluster in use: what tests and tasks do with it.

use std::path::{Path, PathBuf};
use std::process::Command;

pub use rustix::process::Signal;
use serde_json::Value;

use crate::components::Component;
use crate::host::Host;
use crate::place::Place;
use crate::program::Program;
use crate::progress::Progress;
use crate::target::{self, Target};
use crate::toolchain::Toolchain;
use crate::{Error, containers, image, preflight, tool};

/// A cluster that is up.
#[derive(Debug, Clone)]
pub struct Cluster {
    target: Target,
    place: Place,
    toolchain: Toolchain,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
}

/// One component of a cluster on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComponentStatus {
    /// Its name, which is also that of its log.
    pub name: &'static str,
    /// Its process, if it runs.
    pub pid: Option<i32>,
}

/// What there is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The cluster in use.
    pub target: Target,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The components; none for a cluster that is not on this machine.
    pub components: Vec<ComponentStatus>,
    /// Whether the cluster can be used, and if not, why.
    pub ready: Result<(), String>,
}

/// Builds the programs of [`Target::Host`] that are not in the cache, ahead of [`Cluster::up`].
///
/// # Errors
/// One of them cannot be built: Go is missing, or a module cannot be fetched.
pub fn host_programs(progress: &dyn Progress) -> Result<(), Error> {
    Toolchain::find()?.ensure(&Program::HOST, progress)
}

impl Cluster {
    /// Brings a cluster up, or takes the one that is up already.
    ///
    /// What an unclean end has left is removed first. With [`Target::Host`] this needs root; it
    /// installs missing Debian packages and builds missing programs, and reports both.
    pub fn up(target: &Target, progress: &dyn Progress) -> Result<Self, Error> {
        if *target == Target::Host {
            preflight::root()?;
        }
        let (place, toolchain) = (Place::find()?, Toolchain::find()?);
        let _turn = place.lock()?;
        if let Some(current) = Target::read(&place).filter(|current| current != target) {
            return Err(Error::OtherTarget { current: current.to_string(), wanted: target.to_string() });
        }
        match target {
            Target::Host => Host::new(&place, &toolchain).up(progress)?,
            Target::Kind => target::kind_up(&place, &toolchain, progress)?,
            Target::Context(name) => target::context_up(&place, &toolchain, name, progress)?,
        }
        target.write(&place)?;
        Self::new(target.clone(), place, toolchain)
    }

    /// Takes the cluster that is up.
    pub fn attach() -> Result<Self, Error> {
        let (place, toolchain) = (Place::find()?, Toolchain::find()?);
        let target = Target::read(&place).ok_or(Error::NotUp)?;
        if target == Target::Host && Host::new(&place, &toolchain).process(Component::ApiServer).is_none() {
            return Err(Error::NotUp);
        }
        Self::new(target, place, toolchain)
    }

    /// Removes the cluster in use and whatever an unclean end has left; harmless when there is nothing.
    ///
    /// The cluster behind a context is only forgotten. Logs stay until the next `up`.
    pub fn down(progress: &dyn Progress) -> Result<(), Error> {
        let (place, toolchain) = (Place::find()?, Toolchain::find()?);
        if !place.root().exists() {
            return Ok(());
        }
        let target = Target::read(&place).unwrap_or_default();
        if target == Target::Host {
            preflight::root()?;
        }
        let _turn = place.lock()?;
        match target {
            Target::Host => Host::new(&place, &toolchain).down(progress),
            Target::Kind => target::kind_down(&place, &toolchain, progress),
            Target::Context(_) => target::forget(&place),
        }
    }

    /// Says what there is; [`Error::NotUp`] when there is nothing.
    pub fn status() -> Result<Status, Error> {
        let (place, toolchain) = (Place::find()?, Toolchain::find()?);
        let target = Target::read(&place).ok_or(Error::NotUp)?;
        let kubeconfig = place.kubeconfig();
        if target == Target::Host {
            let host = Host::new(&place, &toolchain);
            let status =
                |component: Component| ComponentStatus { name: component.name(), pid: host.process(component) };
            let components = Component::ALL.map(status).to_vec();
            return Ok(Status { target, kubeconfig, components, ready: host.whole() });
        }
        let mut ask = Self::new(target.clone(), place, toolchain)?.kubectl();
        let answer = tool::run(ask.args(["--request-timeout=5s", "get", "--raw", "/readyz"]), "asking the API server");
        let ready = answer.map(drop).map_err(|error| error.to_string());
        Ok(Status { target, kubeconfig, components: Vec::new(), ready })
    }

    fn new(target: Target, place: Place, toolchain: Toolchain) -> Result<Self, Error> {
        Ok(Self {
            kubeconfig: place.kubeconfig(),
            kubectl: toolchain.path(Program::Kubectl)?,
            helm: toolchain.path(Program::Helm)?,
            target,
            place,
            toolchain,
        })
    }

    /// Which cluster this is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The administrator's kubeconfig, complete in one file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl of the cluster's own version, for this cluster.
    pub fn kubectl(&self) -> Command {
        self.client(&self.kubectl)
    }

    /// Helm, for this cluster.
    pub fn helm(&self) -> Command {
        self.client(&self.helm)
    }

    fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Loads an image, so that pods with `imagePullPolicy: IfNotPresent` or `Never` find it.
    ///
    /// `source` is an archive (of OCI or of Docker) or the name of an image that buildah has, under
    /// its vfs or overlay driver. `name` is what pods call it; without it an archive's images keep
    /// the names they have, and an image of buildah keeps its own. Names are completed like
    /// containerd completes those in pods: `operator` is `docker.io/library/operator:latest`.
    /// Returns the full names.
    pub fn load_image(&self, source: &str, name: Option<&str>) -> Result<Vec<String>, Error> {
        if let Target::Context(_) = self.target {
            return Err(self.unsupported("loading an image"));
        }
        let archive = image::archive(source, name, &self.place.scratch())?;
        match self.target {
            Target::Kind => {
                target::kind_load(&self.toolchain, &archive)?;
                Ok(archive.name.clone().into_iter().collect())
            }
            Target::Host | Target::Context(_) => image::import(&self.place, &archive),
        }
    }

    /// The API server's audit log: a line of JSON for each request, without bodies.
    pub fn audit_log(&self) -> Result<PathBuf, Error> {
        self.on_host("reading the audit log").map(|_| self.place.audit_log())
    }

    /// The logs, by name; the audit log is among them.
    pub fn logs() -> Result<Vec<(&'static str, PathBuf)>, Error> {
        let place = Place::find()?;
        let mut logs: Vec<_> =
            Component::ALL.iter().map(|component| (component.name(), component.log(&place))).collect();
        logs.push(("audit", place.audit_log()));
        logs.retain(|(_, path)| path.is_file());
        Ok(logs)
    }

    /// Sends a signal to a running container, from outside of it: to its first process, and one that stops
    /// or continues (`Signal::STOP`, `Signal::CONT`) to all of them.
    ///
    /// Unlike a signal from within, this one can stop and kill (`Signal::KILL`) the first process.
    pub fn signal_container(&self, namespace: &str, pod: &str, container: &str, signal: Signal) -> Result<(), Error> {
        self.on_host("signalling a container")?;
        let mut get = self.kubectl();
        get.args(["--namespace", namespace, "get", "pod", pod, "--output=json"]);
        let text = tool::run(&mut get, "reading the pod")?;
        let status: Value = serde_json::from_str(&text).map_err(Error::json("kubectl get pod"))?;
        let mut processes = match container_id(&status, container) {
            Some(id) => containers::every_process(&self.place, id)?,
            None => Vec::new(),
        };
        if ![Signal::STOP, Signal::CONT].contains(&signal) {
            processes.truncate(1);
        }
        let mut sent = false;
        for process in processes {
            sent |= process.signal(signal)?;
        }
        if sent {
            return Ok(());
        }
        let [namespace, pod, container] = [namespace, pod, container].map(str::to_owned);
        Err(Error::NoContainer { namespace, pod, container })
    }

    fn on_host(&self, what: &'static str) -> Result<(), Error> {
        if self.target == Target::Host { Ok(()) } else { Err(self.unsupported(what)) }
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { what, target: self.target.to_string() }
    }
}

/// The id of a container, be it one of the usual, of the initial or of the ephemeral ones.
fn container_id<'a>(pod: &'a Value, container: &str) -> Option<&'a str> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let statuses = lists.iter().filter_map(|list| pod.get("status")?.get(list)?.as_array()).flatten();
    statuses
        .filter(|status| status.get("name").and_then(Value::as_str) == Some(container))
        .find_map(|status| status.get("containerID").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_found_by_its_name() {
        let pod = json!({ "status": {
            "initContainerStatuses": [{ "name": "side", "containerID": "containerd://1" }],
            "containerStatuses": [{ "name": "other", "containerID": "containerd://2" }, { "name": "waiting" }],
        }});
        assert_eq!(container_id(&pod, "side"), Some("containerd://1"));
        assert_eq!(container_id(&pod, "other"), Some("containerd://2"));
        assert_eq!(container_id(&pod, "waiting"), None);
        assert_eq!(container_id(&json!({}), "other"), None);
    }
}
