//! Owns the flags of each component, and the ports they listen on.

use std::path::PathBuf;
use std::process::Command;

use crate::Error;
use crate::network::{DNS_PORT, GATEWAY, NODE, SERVICES};
use crate::packages::{PATH, debian};
use crate::pki::pair;
use crate::place::Place;
use crate::program::Program;
use crate::toolchain::Toolchain;

/// Where the API server listens.
pub(crate) const API_PORT: u16 = 6443;
/// Where etcd serves the API server; not its usual port, which another etcd may have.
const ETCD_PORT: u16 = 12379;
const ETCD_PEER_PORT: u16 = 12380;
/// Where etcd tells its health, without certificates.
pub(crate) const ETCD_HEALTH_PORT: u16 = 12381;
/// Where kubelet tells its health.
pub(crate) const KUBELET_HEALTH_PORT: u16 = 10248;
/// Where kube-proxy tells its health.
pub(crate) const PROXY_HEALTH_PORT: u16 = 10256;
const SCHEDULER_PORT: u16 = 10259;
const MANAGER_PORT: u16 = 10257;

/// Every port that must be free, with the component that wants it.
pub(crate) const PORTS: [(u16, &str); 11] = [
    (API_PORT, "kube-apiserver"),
    (ETCD_PORT, "etcd"),
    (ETCD_PEER_PORT, "etcd"),
    (ETCD_HEALTH_PORT, "etcd"),
    (10250, "kubelet"),
    (KUBELET_HEALTH_PORT, "kubelet"),
    (10249, "kube-proxy"),
    (PROXY_HEALTH_PORT, "kube-proxy"),
    (MANAGER_PORT, "kube-controller-manager"),
    (SCHEDULER_PORT, "kube-scheduler"),
    (DNS_PORT, "coredns"),
];

/// A program that runs as long as the cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Etcd,
    Containerd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
    CoreDns,
}

impl Component {
    /// All of them, in the order of their start.
    pub(crate) const ALL: [Self; 8] = [
        Self::Etcd,
        Self::Containerd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kubelet,
        Self::Proxy,
        Self::CoreDns,
    ];

    /// The name of the program, of its record and of its log.
    pub(crate) fn name(self) -> &'static str {
        self.program().map_or("containerd", Program::name)
    }

    /// Where its output goes.
    pub(crate) fn log(self, place: &Place) -> PathBuf {
        place.logs().join(format!("{}.log", self.name()))
    }

    fn program(self) -> Option<Program> {
        Some(match self {
            Self::Etcd => Program::Etcd,
            Self::ApiServer => Program::KubeApiserver,
            Self::ControllerManager => Program::KubeControllerManager,
            Self::Scheduler => Program::KubeScheduler,
            Self::Kubelet => Program::Kubelet,
            Self::Proxy => Program::KubeProxy,
            Self::CoreDns => Program::CoreDns,
            Self::Containerd => return None,
        })
    }

    /// The whole command line.
    pub(crate) fn command(self, place: &Place, toolchain: &Toolchain) -> Result<Command, Error> {
        let mut command = match self.program() {
            Some(program) => Command::new(toolchain.path(program)?),
            None => debian("containerd"),
        };
        // Nothing of the caller's environment, such as a proxy, may change how the cluster behaves.
        command.env_clear().env("PATH", PATH).env("HOME", "/root").args(self.flags(place));
        Ok(command)
    }

    fn flags(self, place: &Place) -> Vec<String> {
        match self {
            Self::Etcd => etcd(place),
            Self::Containerd => vec![format!("--config={}", place.config().join("containerd.toml").display())],
            Self::ApiServer => api_server(place),
            Self::ControllerManager => controller_manager(place),
            Self::Scheduler => leaderless(place, self.name(), SCHEDULER_PORT),
            Self::Kubelet => kubelet(place),
            Self::Proxy => vec![format!("--config={}", place.config().join("kube-proxy.json").display())],
            Self::CoreDns => vec![format!("-conf={}", place.config().join("Corefile").display())],
        }
    }
}

fn etcd(place: &Place) -> Vec<String> {
    let own = pair(place, "etcd");
    let authority = pair(place, "ca").certificate;
    let client = format!("https://127.0.0.1:{ETCD_PORT}");
    let peer = format!("http://127.0.0.1:{ETCD_PEER_PORT}");
    vec![
        "--name=local".to_owned(),
        format!("--data-dir={}", place.data().join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=local={peer}"),
        format!("--listen-metrics-urls=http://127.0.0.1:{ETCD_HEALTH_PORT}"),
        format!("--cert-file={}", own.certificate.display()),
        format!("--key-file={}", own.key.display()),
        format!("--trusted-ca-file={}", authority.display()),
        // Whoever may write to etcd rules the node, so other users of the machine are kept out.
        "--client-cert-auth".to_owned(),
        // After a crash the cluster is made anew, so nothing has to survive one.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server(place: &Place) -> Vec<String> {
    let authority = pair(place, "ca").certificate;
    let own = pair(place, "apiserver");
    let store = pair(place, "apiserver-etcd");
    let kubelet = pair(place, "apiserver-kubelet");
    let front = pair(place, "front-proxy");
    let accounts = place.pki().join("service-account");
    vec![
        // Pods reach the API server at this address through the Service, so it can't be loopback.
        format!("--advertise-address={GATEWAY}"),
        // Only this machine and its pods are served, whatever other networks it is in.
        format!("--bind-address={GATEWAY}"),
        format!("--secure-port={API_PORT}"),
        format!("--etcd-servers=https://127.0.0.1:{ETCD_PORT}"),
        format!("--etcd-cafile={}", authority.display()),
        format!("--etcd-certfile={}", store.certificate.display()),
        format!("--etcd-keyfile={}", store.key.display()),
        format!("--client-ca-file={}", authority.display()),
        format!("--tls-cert-file={}", own.certificate.display()),
        format!("--tls-private-key-file={}", own.key.display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}.pub", accounts.display()),
        format!("--service-account-signing-key-file={}.key", accounts.display()),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--kubelet-certificate-authority={}", authority.display()),
        format!("--kubelet-client-certificate={}", kubelet.certificate.display()),
        format!("--kubelet-client-key={}", kubelet.key.display()),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={}", pair(place, "front-proxy-ca").certificate.display()),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", front.certificate.display()),
        format!("--proxy-client-key-file={}", front.key.display()),
        format!("--audit-policy-file={}", place.config().join("audit.json").display()),
        format!("--audit-log-path={}", place.audit_log().display()),
        // One file: a test that counts requests must not lose those before a rotation.
        "--audit-log-maxsize=4096".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn controller_manager(place: &Place) -> Vec<String> {
    let authority = pair(place, "ca");
    let mut flags = leaderless(place, "kube-controller-manager", MANAGER_PORT);
    flags.extend([
        "--use-service-account-credentials=true".to_owned(),
        // At the usual rate the accounts of the controllers alone take four seconds.
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
        format!("--root-ca-file={}", authority.certificate.display()),
        format!("--service-account-private-key-file={}", place.pki().join("service-account.key").display()),
        format!("--cluster-signing-cert-file={}", authority.certificate.display()),
        format!("--cluster-signing-key-file={}", authority.key.display()),
        format!("--flex-volume-plugin-dir={}", place.data().join("volume-plugins").display()),
    ]);
    flags
}

/// What manager and scheduler have in common; each is the only one of its kind.
fn leaderless(place: &Place, name: &str, port: u16) -> Vec<String> {
    let kubeconfig = place.config().join(format!("{name}.kubeconfig"));
    ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"]
        .map(|flag| format!("{flag}={}", kubeconfig.display()))
        .into_iter()
        .chain([
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--profiling=false".to_owned(),
        ])
        .collect()
}

fn kubelet(place: &Place) -> Vec<String> {
    vec![
        format!("--config={}", place.config().join("kubelet.json").display()),
        format!("--kubeconfig={}", place.config().join("kubelet.kubeconfig").display()),
        format!("--root-dir={}", place.data().join("kubelet").display()),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={GATEWAY}"),
    ]
}

#[cfg(test)]
#[path = "components_tests.rs"]
mod tests;
