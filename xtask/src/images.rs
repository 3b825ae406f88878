//! Owns the images: static binaries built on this machine, packed by the Dockerfile, loaded into the cluster.
//!
//! The demo and the tests build them with the profile `quick`; `cargo xtask release` builds what is published.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cluster::{Cluster, Event, Progress};
use sha2::{Digest as _, Sha256};

use crate::workspace;

/// An image of the Dockerfile, or of the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// The image's name, and its stage in the file.
    pub(crate) name: &'static str,
    stage: &'static str,
    file: &'static str,
    package: &'static str,
    pub(crate) binary: &'static str,
}

const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "agent-runtime",
        stage: "agent-runtime",
        file: "Dockerfile",
        package: "agent-runtime",
        binary: "agent-runtime",
    },
    Recipe {
        name: "agentruntime-operator",
        stage: "operator",
        file: "Dockerfile",
        package: "operator",
        binary: "agentruntime-operator",
    },
    Recipe { name: "kubectl-hive", stage: "kubectl-hive", file: "Dockerfile", package: "cli", binary: "kubectl-hive" },
    Recipe { name: "e2e-load", stage: "load", file: "tests/Dockerfile", package: "e2e", binary: "e2e-load" },
];

/// The tag under which the images were loaded: it changes with their content, so no pod runs an old one.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    pub(crate) tag: String,
}

/// How the binaries of the images are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Without link-time optimization and in many codegen units: for the demo and the tests.
    Quick,
    /// As published.
    Release,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Release => "release",
        }
    }
}

/// Packs binaries that were built and loads the images into the cluster.
pub(crate) fn load(cluster: &Cluster, binaries: &[PathBuf]) -> anyhow::Result<Images> {
    let dist = workspace::root().join("dist");
    fs::create_dir_all(&dist)?;
    let mut hash = Sha256::new();
    for (recipe, binary) in RECIPES.iter().zip(binaries) {
        hash.update(fs::read(binary).with_context(|| binary.display().to_string())?);
        hash.update(fs::read(workspace::root().join(recipe.file))?);
        fs::copy(binary, dist.join(recipe.binary))?;
    }
    let hash: String = hash.finalize().iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let images = Images { tag: format!("{}-{hash}", env!("CARGO_PKG_VERSION")) };
    for recipe in RECIPES {
        let name = format!("{}:{}", recipe.name, images.tag);
        let built = pack(&recipe, &name, &dist)?;
        let loaded = cluster.load_image(&built, Some(&name))?;
        forget(&built);
        eprintln!("loaded {}", loaded.join(", "));
    }
    Ok(images)
}

/// The flags of a published binary: it is static, and what its start has to relocate is a bit for each word and not 24
/// bytes, which were 1.5 MB of the runtime's memory. The Dockerfile has the same.
pub(crate) const FLAGS: &str = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs";

/// The images that are published.
pub(crate) fn published() -> impl Iterator<Item = Recipe> {
    RECIPES.into_iter().filter(|recipe| recipe.file == "Dockerfile")
}

/// Builds the binaries of the images, in the order of the recipes.
pub(crate) fn build(profile: Profile) -> anyhow::Result<Vec<PathBuf>> {
    workspace::run(&mut compile(profile, &workspace::target(), FLAGS))?;
    Ok(built(profile, &workspace::target()))
}

/// A build of the binaries beside other work. One that is not waited for is ended.
#[derive(Debug)]
pub(crate) struct Build {
    cargo: Child,
    profile: Profile,
    log: PathBuf,
}

impl Build {
    /// Starts cargo, with its output in a file.
    pub(crate) fn start(profile: Profile) -> anyhow::Result<Self> {
        let target = workspace::target();
        fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
        let log = target.join("images.log");
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        let mut cargo = compile(profile, &target, FLAGS);
        cargo.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { cargo: cargo.spawn().context("cargo cannot be started")?, profile, log })
    }

    /// Waits for the binaries, in the order of the recipes, and reports what is being compiled.
    pub(crate) fn wait(mut self, progress: &dyn Progress) -> anyhow::Result<Vec<PathBuf>> {
        const STEP: &str = "build the images' binaries";
        progress.report(Event::Begin { step: STEP });
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.cargo.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(250));
            progress.report(Event::Tick { step: STEP, elapsed: begun.elapsed(), detail: &cluster::tail(&self.log, 1) });
        };
        if !status.success() {
            progress.report(Event::Failed { step: STEP });
            bail!("the binaries do not build:\n{}\nall of it: {}", cluster::quote(&self.log), self.log.display());
        }
        progress.report(Event::End { step: STEP, took: begun.elapsed() });
        Ok(built(self.profile, &workspace::target()))
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // Nothing is left to end once it has been waited for.
        let _ = self.cargo.kill().and_then(|()| self.cargo.wait());
    }
}

/// Builds the published binaries, and gives the one of this name.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let built = RECIPES.iter().zip(build(Profile::Release)?).find(|(recipe, _)| recipe.binary == name);
    built.map(|(_, path)| path).with_context(|| format!("no image has a binary {name}"))
}

/// The command that builds them in a folder, with these flags.
pub(crate) fn compile(profile: Profile, folder: &Path, flags: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--profile", profile.name(), "--target", &triple()]).arg("--target-dir").arg(folder);
    for recipe in RECIPES {
        cargo.args(["--package", recipe.package]);
    }
    if profile == Profile::Release {
        cargo.arg("--locked");
    }
    // With a target, the flag is for the product alone: build scripts and macros cannot be static.
    cargo.env("RUSTFLAGS", flags);
    cargo
}

/// Where [`compile`] leaves them.
pub(crate) fn built(profile: Profile, folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join(triple()).join(profile.name());
    RECIPES.iter().map(|recipe| folder.join(recipe.binary)).collect()
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Packs one image from binaries in `dist`, which stand in for the stage that builds them.
pub(crate) fn pack(recipe: &Recipe, name: &str, dist: &Path) -> anyhow::Result<String> {
    let context = format!("build={}", dist.display());
    let mut tool = if Command::new("buildah").arg("--version").output().is_ok() {
        let mut buildah = workspace::command("buildah");
        buildah.args(["--storage-driver", "vfs", "bud", "--quiet", "--isolation", "chroot", "--format", "docker"]);
        // The time of the build would be part of the image, and of its digest.
        buildah.args(["--timestamp", "0"]);
        buildah
    } else {
        let mut docker = workspace::command("docker");
        docker.args(["build", "--quiet"]);
        docker
    };
    tool.args(["--build-context", &context, "--target", recipe.stage, "--tag", name, "--file", recipe.file, "."]);
    workspace::read(&mut tool)?;
    Ok(name.to_owned())
}

/// The cluster has it now; in the builder's own store each change would leave one more.
pub(crate) fn forget(name: &str) {
    let removed = Command::new("buildah").args(["--storage-driver", "vfs", "rmi", "--force", name]).output();
    if !removed.is_ok_and(|output| output.status.success()) {
        eprintln!("{name} stays in the image store of this machine");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_in_a_container_has_all_that_cargo_reads() {
        let read = |file: &str| fs::read_to_string(workspace::root().join(file)).unwrap();
        let manifest = read("Cargo.toml");
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
        let members: Vec<String> = serde_json::from_str(members).unwrap();
        let folders = members.iter().filter_map(|member| member.split('/').next());
        let ignored = read(".dockerignore");
        let passes = |name: &str| ignored.lines().any(|line| line.strip_prefix('!') == Some(name));
        for name in folders.chain([".cargo", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"]) {
            assert!(passes(name), ".dockerignore keeps {name} out");
        }
    }

    #[test]
    fn dockerfile_builds_with_the_flags_of_the_tests() {
        let text = fs::read_to_string(workspace::root().join("Dockerfile")).unwrap();
        assert!(text.contains(&format!("RUSTFLAGS=\"{FLAGS}\"")), "the Dockerfile has other flags");
    }

    #[test]
    fn published_binaries_are_built_from_the_lock_file() {
        let locked = |profile| compile(profile, Path::new("/t"), FLAGS).get_args().any(|word| word == "--locked");
        assert!(locked(Profile::Release) && !locked(Profile::Quick));
    }

    #[test]
    fn release_workflow_builds_by_the_release_task() {
        let text = fs::read_to_string(workspace::root().join(".github/workflows/release.yaml")).unwrap();
        assert!(text.contains("cargo xtask release") && !text.contains("cargo build"), "{text}");
    }
}
