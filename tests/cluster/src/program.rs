//! Owns what is built from Go source: the programs, their modules and their packages.

use std::path::{Path, PathBuf};

/// What the linker is told: no tables of symbols.
pub(crate) const FLAGS: &str = "-s -w";

/// The same, and the version that the programs of Kubernetes report, which is v0.0.0 otherwise. Others ignore it.
const KUBERNETES_FLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.35.4 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=35";

/// A program built from Go source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    KubeProxy,
    Kubectl,
    Etcd,
    CoreDns,
    Helm,
    Pause,
    Kind,
    Kubeconform,
    KubeScore,
    KustomizeController,
    Promql,
    MetricsServer,
}

impl Program {
    /// What a cluster on this machine needs.
    pub(crate) const HOST: [Self; 10] = [
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Kubectl,
        Self::Etcd,
        Self::CoreDns,
        Self::Helm,
        Self::Pause,
    ];

    /// What the use of somebody else's cluster needs.
    pub(crate) const CLIENTS: [Self; 2] = [Self::Kubectl, Self::Helm];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Kubectl => "kubectl",
            Self::Etcd => "etcd",
            Self::CoreDns => "coredns",
            Self::Helm => "helm",
            Self::Pause => "pause",
            Self::Kind => "kind",
            Self::Kubeconform => "kubeconform",
            Self::KubeScore => "kube-score",
            Self::KustomizeController => "kustomize-controller",
            Self::Promql => "promql",
            Self::MetricsServer => "metrics-server",
        }
    }

    /// The module that pins it. Programs of one module share what is compiled for them.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::Kubectl
            | Self::Etcd
            | Self::CoreDns
            | Self::Helm => "kubernetes",
            Self::Pause
            | Self::Kind
            | Self::Kubeconform
            | Self::KubeScore
            | Self::KustomizeController
            | Self::Promql
            | Self::MetricsServer => self.name(),
        }
    }

    /// Its package, whose last part is the program's name where the module has more programs than one: Go names
    /// them so.
    pub(crate) fn package(self) -> String {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::Kubectl => format!("k8s.io/kubernetes/cmd/{}", self.name()),
            Self::Etcd | Self::CoreDns => format!("./{}", self.name()),
            Self::Helm => "helm.sh/helm/v4/cmd/helm".to_owned(),
            Self::Pause | Self::Promql => ".".to_owned(),
            Self::Kind => "sigs.k8s.io/kind".to_owned(),
            Self::Kubeconform => "github.com/yannh/kubeconform/cmd/kubeconform".to_owned(),
            Self::KubeScore => "github.com/zegl/kube-score/cmd/kube-score".to_owned(),
            Self::KustomizeController => "github.com/fluxcd/kustomize-controller".to_owned(),
            Self::MetricsServer => "sigs.k8s.io/metrics-server/cmd/metrics-server".to_owned(),
        }
    }

    /// What the linker is told.
    pub(crate) fn flags(self) -> &'static str {
        if self.module() == "kubernetes" { KUBERNETES_FLAGS } else { FLAGS }
    }

    /// The folder of its module.
    pub(crate) fn source(self) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/modules")).join(self.module())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_the_programs_of_a_shared_module_as_we_do() {
        for program in Program::HOST.into_iter().filter(|program| program.module() != program.name()) {
            assert_eq!(program.package().rsplit('/').next(), Some(program.name()));
        }
    }
}
