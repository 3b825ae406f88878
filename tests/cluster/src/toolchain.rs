//! Owns the programs built from pinned Go modules, and their cache outside the checkout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::place::{self, private_folder};
use crate::program::{FLAGS, Program};
use crate::progress::{Progress, step};
use crate::{Error, tool};

/// The oldest Go that builds every module.
const GO: (u32, u32) = (1, 26);

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
    let folder = toolchain.cache.join(format!("{name}-{}", key(&pins(module, FLAGS)?)));
    let target = folder.join(&name);
    let _lock = toolchain.lock()?;
    if !target.is_file() {
        check_go(&name)?;
        let step_name = format!("build {name}");
        let goals = [(name, ".".to_owned())];
        step(progress, &step_name, || compile(module, &goals, FLAGS, &folder, &step_name, progress))?;
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
        Ok(self.folder(program)?.join(program.name()))
    }

    /// Where all programs of its module are.
    fn folder(&self, program: Program) -> Result<PathBuf, Error> {
        let pins = pins(&program.source(), program.flags())?;
        Ok(self.cache.join(format!("{}-{}", program.module(), key(&pins))))
    }

    /// Builds those programs that are not in the cache; all of one module at once, as one program is linked by one
    /// core while another is still compiled.
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
        let modules = by_module(&missing);
        for (number, programs) in modules.iter().enumerate() {
            let name = format!("build {} ({} of {})", names(programs), number + 1, modules.len());
            step(progress, &name, || self.build(programs, &name, progress))?;
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

    /// Builds programs of one module.
    fn build(&self, programs: &[Program], step: &str, progress: &dyn Progress) -> Result<(), Error> {
        let Some(first) = programs.first() else { return Ok(()) };
        let goals: Vec<_> = programs.iter().map(|program| (program.name().to_owned(), program.package())).collect();
        compile(&first.source(), &goals, first.flags(), &self.folder(*first)?, step, progress)
    }
}

/// Programs that are built together, in the order of their first.
fn by_module(programs: &[Program]) -> Vec<Vec<Program>> {
    let mut modules: Vec<Vec<Program>> = Vec::new();
    for program in programs {
        match modules.iter_mut().find(|module| module.iter().any(|other| other.module() == program.module())) {
            Some(module) => module.push(*program),
            None => modules.push(vec![*program]),
        }
    }
    modules
}

/// As short as a line of progress has to be.
fn names(programs: &[Program]) -> String {
    match programs {
        [] => String::new(),
        [only] => only.name().to_owned(),
        [first, second] => format!("{} and {}", first.name(), second.name()),
        [first, others @ ..] => format!("{} and {} more", first.name(), others.len()),
    }
}

/// Go in a module.
fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(module).env("CGO_ENABLED", "0");
    command
}

/// Builds programs, each a name and a package of one module, into a folder, which gets the log, too.
fn compile(
    module: &Path,
    goals: &[(String, String)],
    flags: &str,
    folder: &Path,
    step: &str,
    progress: &dyn Progress,
) -> Result<(), Error> {
    private_folder(folder)?;
    let log = folder.join("build.log");
    // Built in another folder, so that an interrupted build is never taken for a whole one.
    let drafts = folder.join("new");
    place::remove(&drafts)?;
    private_folder(&drafts)?;
    let mut command = go(module);
    command.args(["build", "-v", "-trimpath", "-ldflags", flags, "-o"]);
    // One program is named here, whatever its package; of several, each is named by Go.
    match goals {
        [(name, _)] => command.arg(drafts.join(name)),
        _ => command.arg(&drafts),
    };
    command.args(goals.iter().map(|(_, package)| package));
    if !tool::run_logged(&mut command, &log, step, progress)?.success() {
        let names: Vec<&str> = goals.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::Build { program: names.join(", "), tail: tool::quote(&log), log });
    }
    for (name, _) in goals {
        let draft = drafts.join(name);
        fs::rename(&draft, folder.join(name)).map_err(Error::io("rename", &draft))?;
    }
    place::remove(&drafts)?;
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

/// What decides how the programs of a module come out: its pins, its own source, and what the linker is told.
fn pins(module: &Path, flags: &str) -> Result<Vec<u8>, Error> {
    let mut files = Vec::new();
    find(module, &mut files)?;
    // The order of a folder's files is not the same everywhere.
    files.sort();
    let mut pins = flags.as_bytes().to_vec();
    for file in files {
        pins.extend(fs::read(&file).map_err(Error::io("read", file))?);
    }
    Ok(pins)
}

/// Adds the files of a module that Go reads.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|kind| ["go", "mod", "sum"].iter().any(|ours| kind == *ours)) {
            files.push(path);
        }
    }
    Ok(())
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
            assert!(program.source().join("go.mod").is_file(), "{path:?}");
            assert!(path.ends_with(program.name()), "{path:?}");
            assert!(path.parent().unwrap().to_string_lossy().starts_with(&format!("/cache/{}-", program.module())));
        }
    }

    #[test]
    fn whatever_decides_a_build_decides_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path();
        fs::create_dir(module.join("coredns")).unwrap();
        let mut seen = vec![pins(module, "-s").unwrap(), pins(module, "-s -w").unwrap()];
        for file in ["go.mod", "go.sum", "tools.go", "coredns/main.go"] {
            fs::write(module.join(file), "one").unwrap();
            seen.push(pins(module, "-s").unwrap());
            fs::write(module.join(file), "another").unwrap();
            seen.push(pins(module, "-s").unwrap());
        }
        let kept = seen.last().cloned().unwrap();
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
        fs::write(module.join("README.md"), "no matter").unwrap();
        assert_eq!(pins(module, "-s").unwrap(), kept);
    }

    #[test]
    fn programs_of_one_module_are_built_together() {
        let modules = by_module(&[Program::Kubectl, Program::Pause, Program::Etcd, Program::Helm]);
        assert_eq!(modules, [vec![Program::Kubectl, Program::Etcd, Program::Helm], vec![Program::Pause]]);
        let told: Vec<String> = modules.iter().map(|programs| names(programs)).collect();
        assert_eq!(told, ["kubectl and 2 more", "pause"]);
    }

    #[test]
    fn versions_of_go() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel"), None);
        assert!(version("go1.19.8").unwrap() < GO);
    }
}
