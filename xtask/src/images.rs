//! Owns the images: static binaries built on this machine, packed by the Dockerfile, loaded into the cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use cluster::Cluster;
use sha2::{Digest as _, Sha256};

use crate::workspace;

/// The largest image that is let through, in bytes.
const MAX_BYTES: u64 = 30 * 1000 * 1000;

/// An image of the Dockerfile, or of the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// The image's name, and its stage in the file.
    pub(crate) name: &'static str,
    stage: &'static str,
    file: &'static str,
    package: &'static str,
    binary: &'static str,
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

/// Builds the images and loads them into the cluster.
pub(crate) fn load(cluster: &Cluster) -> anyhow::Result<Images> {
    let binaries = build()?;
    let dist = workspace::root().join("dist");
    fs::create_dir_all(&dist)?;
    let mut hash = Sha256::new();
    for (recipe, binary) in RECIPES.iter().zip(&binaries) {
        let bytes = fs::read(binary).with_context(|| binary.display().to_string())?;
        if u64::try_from(bytes.len())? > MAX_BYTES {
            bail!("{} has {} bytes, more than {MAX_BYTES}", recipe.name, bytes.len());
        }
        hash.update(&bytes);
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
/// bytes, which were 1.5 MB of the runtime's memory. The Dockerfile and the release's workflow have the same.
pub(crate) const FLAGS: &str = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs";

/// The images that are published.
pub(crate) fn published() -> impl Iterator<Item = Recipe> {
    RECIPES.into_iter().filter(|recipe| recipe.file == "Dockerfile")
}

/// Builds the binaries of the images.
pub(crate) fn build() -> anyhow::Result<Vec<PathBuf>> {
    build_in(&workspace::target(), FLAGS)
}

/// Builds them, and gives the one of this name.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let built = RECIPES.iter().zip(build()?).find(|(recipe, _)| recipe.binary == name);
    built.map(|(_, path)| path).with_context(|| format!("no image has a binary {name}"))
}

/// Builds them in a folder, with these flags.
pub(crate) fn build_in(folder: &Path, flags: &str) -> anyhow::Result<Vec<PathBuf>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    eprintln!("building the release binaries; the first time takes some minutes");
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--target", &target]).arg("--target-dir").arg(folder);
    for recipe in RECIPES {
        cargo.args(["--package", recipe.package]);
    }
    // With a target, the flag is for the product alone: build scripts and macros cannot be static.
    workspace::run(cargo.env("RUSTFLAGS", flags))?;
    let folder = folder.join(target).join("release");
    Ok(RECIPES.iter().map(|recipe| folder.join(recipe.binary)).collect())
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
    fn whoever_builds_the_images_builds_what_the_tests_ran() {
        for file in ["Dockerfile", ".github/workflows/release.yaml"] {
            let text = fs::read_to_string(workspace::root().join(file)).unwrap();
            assert!(text.contains(&format!("RUSTFLAGS=\"{FLAGS}\"")), "{file} has other flags");
        }
    }
}
