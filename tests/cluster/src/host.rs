//! Owns the cluster on this machine: what is started in which order, and how all of it goes away.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::components::{Component, ETCD_HEALTH_PORT, KUBELET_HEALTH_PORT, PROXY_HEALTH_PORT};
use crate::health::{self, Answer};
use crate::network::{NODE, SERVICE_DNS};
use crate::place::{Place, remove, write_private};
use crate::process::Records;
use crate::program::Program;
use crate::progress::{Event, Progress, step};
use crate::toolchain::Toolchain;
use crate::{Error, config, containers, image, mounts, network, packages, pki, preflight, tool};

/// How long one component may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A cluster of our own processes.
pub(crate) struct Host<'a> {
    place: &'a Place,
    toolchain: &'a Toolchain,
    records: Records,
}

impl<'a> Host<'a> {
    pub(crate) fn new(place: &'a Place, toolchain: &'a Toolchain) -> Self {
        Self { place, toolchain, records: Records::new(place.pids()) }
    }

    /// Brings the cluster up, unless it is.
    pub(crate) fn up(&self, progress: &dyn Progress) -> Result<(), Error> {
        match self.whole() {
            Ok(()) => {
                progress.report(Event::Note("the cluster is up already"));
                return Ok(());
            }
            Err(reason) if self.traces() => {
                progress.report(Event::Note(&format!("the last cluster is not whole ({reason}) and is made anew")));
                step(progress, "remove the last cluster", || self.clean())?;
            }
            Err(_) => {}
        }
        preflight::room(self.place)?;
        preflight::ports()?;
        network::check()?;
        self.put_logs_aside()?;
        self.place.create()?;
        packages::ensure(self.place, progress)?;
        self.toolchain.ensure(&Program::HOST, progress)?;
        self.start(progress)
    }

    /// Removes processes, mounts, network and state; the logs stay.
    pub(crate) fn down(&self, progress: &dyn Progress) -> Result<(), Error> {
        step(progress, "remove the cluster", || self.clean())
    }

    /// Whether the cluster can be used as it is, and if not, why.
    pub(crate) fn whole(&self) -> Result<(), String> {
        for component in Component::ALL {
            if !self.alive(component) {
                return Err(format!("{} does not run", component.name()));
            }
        }
        health::http(KUBELET_HEALTH_PORT, "/healthz")?;
        self.node_ready()?;
        names()
    }

    /// The process of a component, if it runs.
    pub(crate) fn process(&self, component: Component) -> Option<i32> {
        self.records.get(component.name()).filter(|record| record.alive()).map(|record| record.pid())
    }

    fn alive(&self, component: Component) -> bool {
        self.process(component).is_some()
    }

    /// Whether an earlier cluster left anything.
    fn traces(&self) -> bool {
        !self.records.all().is_empty() || self.place.network_mark().exists()
    }

    /// The logs of the last cluster are kept until there are those of another.
    fn put_logs_aside(&self) -> Result<(), Error> {
        let (logs, aside) = (self.place.logs(), self.place.root().join("logs.previous"));
        if logs.exists() {
            remove(&aside)?;
            fs::rename(&logs, &aside).map_err(Error::io("rename", &logs))?;
        }
        Ok(())
    }

    fn start(&self, progress: &dyn Progress) -> Result<(), Error> {
        let begin = |components: &[Component]| components.iter().try_for_each(|component| self.spawn(*component));
        let http = |port, path: &'static str| move || Ok(health::http(port, path));
        step(progress, "certificates", || pki::create(self.place))?;
        step(progress, "bridge and configuration", || {
            let bridge_filter = network::create(self.place)?;
            config::write(self.place, bridge_filter)?;
            self.write_kubeconfig()
        })?;
        step(progress, "etcd", || {
            begin(&[Component::Etcd, Component::Containerd])?;
            self.wait(Component::Etcd, "etcd's health", http(ETCD_HEALTH_PORT, "/health"))
        })?;
        step(progress, "kube-apiserver", || {
            begin(&[Component::ApiServer])?;
            self.wait(Component::ApiServer, "the API server's readiness", || Ok(self.ready()))
        })?;
        step(progress, "containerd and the sandbox image", || {
            self.wait(Component::Containerd, "containerd's answer", || {
                let said = tool::run(containers::ctr(self.place).arg("version"), "asking containerd for its version");
                Ok(said.map(drop).map_err(|error| error.to_string()))
            })?;
            image::import(self.place, &image::pause(self.place, self.toolchain)?).map(drop)
        })?;
        step(progress, "controllers, scheduler, kubelet, proxy and name server", || {
            self.apply(&config::objects().to_string())?;
            begin(&[Component::ControllerManager, Component::Scheduler, Component::Kubelet])?;
            begin(&[Component::Proxy, Component::CoreDns])?;
            self.wait(Component::Kubelet, "the node's readiness", || Ok(self.node_ready()))
        })?;
        step(progress, "Services, names and accounts", || {
            self.wait(Component::Proxy, "kube-proxy's health", http(PROXY_HEALTH_PORT, "/healthz"))?;
            self.wait(Component::CoreDns, "the name server's answer", || Ok(names()))?;
            // Pods can be made only once the namespace has its account and its root certificate.
            self.wait(Component::ControllerManager, "the default service account", || {
                Ok(self
                    .ask(&["-n", "default", "get", "serviceaccount/default", "configmap/kube-root-ca.crt"])
                    .map(drop))
            })
        })
    }

    fn spawn(&self, component: Component) -> Result<(), Error> {
        let mut command = component.command(self.place, self.toolchain)?;
        self.records.spawn(component.name(), &mut command, &component.log(self.place)).map(drop)
    }

    /// Waits for a component, and gives up at once when it ends.
    fn wait(&self, component: Component, what: &str, mut probe: impl FnMut() -> Answer) -> Result<(), Error> {
        health::wait_for(what, LIMIT, &self.place.logs(), || {
            if self.alive(component) {
                return probe();
            }
            let log = component.log(self.place);
            Err(Error::Died { component: component.name().to_owned(), tail: tool::quote(&log), log })
        })
    }

    /// One file without references, so that it can be copied elsewhere.
    fn write_kubeconfig(&self) -> Result<(), Error> {
        let linked = self.place.config().join("admin.kubeconfig");
        let mut command = Command::new(self.toolchain.path(Program::Kubectl)?);
        command.args(["config", "view", "--raw", "--flatten", "--kubeconfig"]).arg(linked);
        write_private(&self.place.kubeconfig(), &tool::run(&mut command, "writing the kubeconfig")?)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<Command, Error> {
        let mut command = Command::new(self.toolchain.path(Program::Kubectl)?);
        command.env_clear().arg("--kubeconfig").arg(self.place.kubeconfig()).arg("--request-timeout=5s");
        // Without a home, kubectl would keep its cache in the folder that we were started in.
        command.arg("--cache-dir").arg(self.place.run().join("kubectl"));
        command.args(arguments);
        Ok(command)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let answer = self.kubectl(arguments).and_then(|mut command| tool::run(&mut command, "asking the API server"));
        answer.map_err(|error| error.to_string())
    }

    fn ready(&self) -> Result<(), String> {
        self.ask(&["get", "--raw", "/readyz"]).map(drop)
    }

    fn node_ready(&self) -> Result<(), String> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        match self.ask(&["get", "node", NODE, "-o", path])?.as_str() {
            "True" => Ok(()),
            _ => Err("the node is not ready".to_owned()),
        }
    }

    fn apply(&self, objects: &str) -> Result<(), Error> {
        let mut command = self.kubectl(&["apply", "--server-side", "--filename", "-"])?;
        tool::run_with(&mut command, "making the first objects", objects).map(drop)
    }

    /// The state is thrown away, so nobody needs time to say goodbye and every signal is the last.
    fn clean(&self) -> Result<(), Error> {
        self.kill_components()?;
        containers::kill_all(self.place)?;
        mounts::remove_below(self.place.root())?;
        network::remove_all(self.place)?;
        containers::remove_traces(self.place);
        for folder in [Place::data, Place::run, Place::config, Place::pki, Place::scratch].map(|of| of(self.place)) {
            remove(&folder)?;
        }
        remove(&self.place.kubeconfig())?;
        // Last, because these say that there is something to remove.
        remove(&self.place.pids())?;
        remove(&self.place.target())
    }

    fn kill_components(&self) -> Result<(), Error> {
        let records = self.records.all();
        for record in &records {
            record.signal(Signal::KILL)?;
        }
        health::wait_for("the end of all components", LIMIT, &self.place.logs(), || {
            Ok(match records.iter().find(|record| record.alive()) {
                None => Ok(()),
                Some(record) => Err(format!("process {} still runs", record.pid())),
            })
        })
    }
}

/// Whether names are resolved through the Service, which needs kube-proxy and the name server.
fn names() -> Result<(), String> {
    health::name(SERVICE_DNS, "kubernetes.default.svc.cluster.local")
}
