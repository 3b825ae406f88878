//! Owns the task `reproduce`: the same source gives the same binaries, and the same binaries the same images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::images::Profile;
use crate::{images, workspace};

#[derive(Debug, Args)]
pub(crate) struct Reproduce {
    /// Compile everything twice from nothing, in two folders, and compare the binaries; this takes long
    #[arg(long)]
    compile: bool,
}

/// Compares, and fails with the name of what differs.
pub(crate) fn run(task: &Reproduce) -> anyhow::Result<ExitCode> {
    let binaries = if task.compile { compiled_twice()? } else { images::build(Profile::Quick)? };
    for recipe in images::published() {
        let [first, second] = ["a", "b"].map(|name| digest(&recipe, &binaries, name));
        let (first, second) = (first?, second?);
        if first != second {
            bail!("{}: packed twice from the same binary it is {first} and {second}", recipe.name);
        }
        println!("{} {first}", recipe.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds twice, in folders whose paths have different lengths; no path of this machine may be in a binary.
fn compiled_twice() -> anyhow::Result<Vec<PathBuf>> {
    let target = workspace::target().join("reproduce");
    let mut builds = Vec::new();
    for name in ["one", "another"] {
        let folder = target.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let flags = remapped(&folder);
        workspace::run(&mut images::compile(Profile::Release, &folder, &flags))?;
        builds.push(images::built(Profile::Release, &folder));
    }
    for (first, second) in builds.iter().flat_map(|build| build.iter()).zip(builds.iter().skip(1).flatten()) {
        let (one, two) = (sum(first)?, sum(second)?);
        let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if one != two {
            bail!("{name}: built twice it is {one} and {two}");
        }
        println!("{name} sha256:{one}");
    }
    builds.pop().context("two were built")
}

/// Flags that write the same paths into a binary wherever it is built.
fn remapped(target: &Path) -> String {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.unwrap_or_default();
    let root = workspace::root().display();
    format!(
        "{} --remap-path-prefix={home}=/cargo --remap-path-prefix={}=/target --remap-path-prefix={root}=/src",
        images::FLAGS,
        target.display()
    )
}

fn sum(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The digest of the image's manifest, which covers its layers and its configuration.
fn digest(recipe: &images::Recipe, binaries: &[PathBuf], name: &str) -> anyhow::Result<String> {
    let folder = workspace::target().join("reproduce").join(format!("context-{name}"));
    fs::create_dir_all(&folder)?;
    for binary in binaries {
        fs::copy(binary, folder.join(binary.file_name().context("a binary has a name")?))?;
    }
    let tag = format!("reproduce-{}:{name}", recipe.name);
    images::pack(recipe, &tag, &folder)?;
    let layout = folder.join(format!("{}.oci", recipe.name));
    if layout.exists() {
        fs::remove_dir_all(&layout)?;
    }
    let to = format!("oci:{}", layout.display());
    workspace::read(workspace::command("buildah").args(["--storage-driver", "vfs", "push", "--quiet", &tag, &to]))?;
    images::forget(&tag);
    let index: Value = serde_json::from_str(&fs::read_to_string(layout.join("index.json"))?)?;
    let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str);
    digest.map(str::to_owned).with_context(|| format!("{} has no manifest", layout.display()))
}
