//! Owns the programs built from pinned Go modules, and their cache outside the checkout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::place::{self, private_folder};
use crate::progress::{Progress, step};
use crate::{Error, tool};

/// The oldest Go that builds every module.
const GO: (u32, u32) = (1, 26);

/// What the programs of Kubernetes call themselves; without it they say v0.0.0.
const KUBERNETES_VERSION: &str = "-s -w \
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

/// Helm, built from its pinned module if it is not in the cache.
///
/// # Errors
/// It cannot be built: Go is missing, or the module cannot be fetched.
pub fn helm(progress: &dyn Progress) -> Result<PathBuf, Error> {
    built(Program::Helm, progress)
}

/// kubeconform, which holds manifests against the schemas of their kinds; built as [`helm`] is.
///
/// # Errors
/// As [`helm`].
pub fn kubeconform(progress: &dyn Progress) -> Result<PathBuf, Error> {
    built(Program::Kubeconform, progress)
}

/// kube-score, a linter of manifests; built as [`helm`] is.
///
/// # Errors
/// As [`helm`].
pub fn kube_score(progress: &dyn Progress) -> Result<PathBuf, Error> {
    built(Program::KubeScore, progress)
}

/// A reader of Prometheus' rules and expressions by its own parser; built as [`helm`] is.
///
/// # Errors
/// As [`helm`].
pub fn promql(progress: &dyn Progress) -> Result<PathBuf, Error> {
    built(Program::Promql, progress)
}

/// The kustomize-controller of Flux; built as [`helm`] is.
///
/// # Errors
/// As [`helm`].
pub fn kustomize_controller(progress: &dyn Progress) -> Result<PathBuf, Error> {
    built(Program::KustomizeController, progress)
}

/// The metrics-server of Kubernetes, which autoscalers ask; built as [`helm`] is.
///
/// # Errors
/// As [`helm`].
pub fn metrics_server(progress: &dyn Progress) -> Result<PathBuf, Error> {
    built(Program::MetricsServer, progress)
}

/// The program of a Go module of this repository, built as [`helm`] is. Its name is that of the folder.
///
/// # Errors
/// As [`helm`].
pub fn program_of(module: &Path, progress: &dyn Progress) -> Result<PathBuf, Error> {
    let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let toolchain = Toolchain::find()?;
    let mut source = pins(module)?;
    let main = module.join("main.go");
    source.extend(fs::read(&main).map_err(Error::io("read", main))?);
    let target = toolchain.cache.join(format!("{name}-{}", key(&source))).join(&name);
    let _lock = toolchain.lock()?;
    if !target.is_file() {
        check_go(&name)?;
        let name = format!("build {name}");
        step(progress, &name, || compile(module, ".", "-s -w", &target, &name, progress))?;
    }
    Ok(target)
}

fn built(program: Program, progress: &dyn Progress) -> Result<PathBuf, Error> {
    let toolchain = Toolchain::find()?;
    toolchain.ensure(&[program], progress)?;
    toolchain.path(program)
}

/// The source of a module that one of the pinned modules asks for, such as `k8s.io/kubernetes` of `kubernetes`.
///
/// # Errors
/// Go is missing, or the module cannot be fetched.
pub fn source_of(pinned: &str, module: &str) -> Result<PathBuf, Error> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/modules")).join(pinned);
    let mut fetch = Command::new("go");
    fetch.current_dir(&folder).args(["mod", "download", "-json", module]);
    let answer = tool::run(&mut fetch, &format!("fetching the module {module}"))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).map_err(Error::json("go mod download"))?;
    Ok(PathBuf::from(answer.get("Dir").and_then(serde_json::Value::as_str).unwrap_or_default()))
}

impl Program {
    /// What a cluster on this machine needs; the longest build comes first and warms the compiler's cache.
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

    fn module(self) -> &'static str {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::Kubectl => "kubernetes",
            Self::Etcd
            | Self::CoreDns
            | Self::Helm
            | Self::Pause
            | Self::Kind
            | Self::Kubeconform
            | Self::KubeScore
            | Self::KustomizeController
            | Self::Promql
            | Self::MetricsServer => self.name(),
        }
    }

    fn package(self) -> String {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::Kubectl => format!("k8s.io/kubernetes/cmd/{}", self.name()),
            Self::Etcd => "go.etcd.io/etcd/server/v3".to_owned(),
            Self::CoreDns => "github.com/coredns/coredns".to_owned(),
            Self::Helm => "helm.sh/helm/v4/cmd/helm".to_owned(),
            Self::Pause | Self::Promql => ".".to_owned(),
            Self::Kind => "sigs.k8s.io/kind".to_owned(),
            Self::Kubeconform => "github.com/yannh/kubeconform/cmd/kubeconform".to_owned(),
            Self::KubeScore => "github.com/zegl/kube-score/cmd/kube-score".to_owned(),
            Self::KustomizeController => "github.com/fluxcd/kustomize-controller".to_owned(),
            Self::MetricsServer => "sigs.k8s.io/metrics-server/cmd/metrics-server".to_owned(),
        }
    }

    fn source(self) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/modules")).join(self.module())
    }
}

/// The cache of built programs.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    cache: PathBuf,
}

impl Toolchain {
    /// The cache of this user.
    pub(crate) fn find() -> Result<Self, Error> {
        Ok(Self { cache: place::cache()?.join("go") })
    }

    /// Where a program is, or will be once it is built.
    pub(crate) fn path(&self, program: Program) -> Result<PathBuf, Error> {
        let pins = pins(&program.source())?;
        Ok(self.cache.join(format!("{}-{}", program.module(), key(&pins))).join(program.name()))
    }

    /// Builds those programs that are not in the cache.
    pub(crate) fn ensure(&self, programs: &[Program], progress: &dyn Progress) -> Result<(), Error> {
        if self.missing(programs)?.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        // Asked again under the lock: another run may have built them meanwhile.
        let missing = self.missing(programs)?;
        if let Some(first) = missing.first() {
            check_go(first.name())?;
        }
        for (number, program) in missing.iter().enumerate() {
            let name = format!("build {} ({} of {})", program.name(), number + 1, missing.len());
            step(progress, &name, || self.build(*program, &name, progress))?;
        }
        Ok(())
    }

    /// Two runs never build the same program at once. The lock goes with the file.
    fn lock(&self) -> Result<File, Error> {
        private_folder(&self.cache)?;
        let path = self.cache.join("lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        lock.lock().map_err(Error::io("lock", &path))?;
        Ok(lock)
    }

    fn missing(&self, programs: &[Program]) -> Result<Vec<Program>, Error> {
        let mut missing = Vec::new();
        for program in programs {
            if !self.path(*program)?.is_file() {
                missing.push(*program);
            }
        }
        Ok(missing)
    }

    fn build(&self, program: Program, step: &str, progress: &dyn Progress) -> Result<(), Error> {
        let flags = if program.module() == "kubernetes" { KUBERNETES_VERSION } else { "-s -w" };
        compile(&program.source(), &program.package(), flags, &self.path(program)?, step, progress)
    }
}

/// Builds a package of a module into a file, whose folder gets the log.
fn compile(
    module: &Path,
    package: &str,
    flags: &str,
    target: &Path,
    step: &str,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(target);
    private_folder(folder)?;
    let log = target.with_extension("log");
    // Built under another name, so that an interrupted build is never taken for a whole one.
    let draft = target.with_extension("new");
    let mut command = Command::new("go");
    command.current_dir(module).env("CGO_ENABLED", "0");
    command.args(["build", "-v", "-trimpath", "-ldflags", flags, "-o"]).arg(&draft).arg(package);
    if !tool::run_logged(&mut command, &log, step, progress)?.success() {
        let program = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(Error::Build { program, tail: tool::quote(&log), log });
    }
    fs::rename(&draft, target).map_err(Error::io("rename", &draft))?;
    place::remove(&log)
}

/// The programs of a control plane, for tests that need an API server and no nodes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControlPlane {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub api_server: PathBuf,
}

/// Whether the programs of a control plane are in the cache, so that nothing has to be built.
pub fn control_plane_is_built() -> bool {
    let missing = Toolchain::find().and_then(|toolchain| toolchain.missing(&[Program::KubeApiserver, Program::Etcd]));
    missing.is_ok_and(|missing| missing.is_empty())
}

/// Builds the programs of a control plane if they are not in the cache. Needs Go for that, and no root.
pub fn control_plane(progress: &dyn Progress) -> Result<ControlPlane, Error> {
    let toolchain = Toolchain::find()?;
    toolchain.ensure(&[Program::KubeApiserver, Program::Etcd], progress)?;
    Ok(ControlPlane { etcd: toolchain.path(Program::Etcd)?, api_server: toolchain.path(Program::KubeApiserver)? })
}

/// What pins a module: its go.sum where it depends on others, and its own source where it has some.
fn pins(module: &Path) -> Result<Vec<u8>, Error> {
    let mut pins = Vec::new();
    for file in ["go.sum", "main.go"].map(|name| module.join(name)).into_iter().filter(|file| file.is_file()) {
        pins.extend(fs::read(&file).map_err(Error::io("read", file))?);
    }
    Ok(pins)
}

/// Names the cache folder: the first 16 hexadecimal digits of the sum.
fn key(pins: &[u8]) -> String {
    Sha256::digest(pins).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn check_go(first: &str) -> Result<(), Error> {
    let wanted = format!("{}.{}", GO.0, GO.1);
    let found = match tool::run(Command::new("go").args(["env", "GOVERSION"]), "asking Go for its version") {
        Ok(found) => found.trim().to_owned(),
        Err(Error::Spawn { .. }) => return Err(Error::NoGo { program: first.to_owned(), wanted }),
        Err(error) => return Err(error),
    };
    match version(&found) {
        Some(version) if version >= GO => Ok(()),
        _ => Err(Error::OldGo { found, wanted }),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("go")?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_head_of_the_sum() {
        assert_eq!(key(b""), "e3b0c44298fc1c14");
        assert_ne!(key(b"a"), key(b"b"));
    }

    #[test]
    fn every_program_has_its_pins() {
        let toolchain = Toolchain { cache: PathBuf::from("/cache") };
        let others = [
            Program::Kind,
            Program::Kubeconform,
            Program::KubeScore,
            Program::KustomizeController,
            Program::Promql,
            Program::MetricsServer,
        ];
        for program in Program::HOST.into_iter().chain(others) {
            let path = toolchain.path(program).unwrap();
            assert!(!pins(&program.source()).unwrap().is_empty(), "{path:?}");
            assert!(path.ends_with(program.name()), "{path:?}");
            assert!(path.parent().unwrap().to_string_lossy().starts_with(&format!("/cache/{}-", program.module())));
        }
    }

    #[test]
    fn versions_of_go() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel"), None);
        assert!(version("go1.19.8").unwrap() < GO);
    }
}
