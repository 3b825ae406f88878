//! Owns the task `release`: the binaries that are published, in `dist/release`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::images::{self, Profile};
use crate::workspace;

/// Where the binaries are left.
const FOLDER: &str = "dist/release";

/// The largest published binary, in bytes; an image is its binary.
const MAX_BYTES: u64 = 30 * 1000 * 1000;

/// Builds with the profile `release` and copies the published binaries.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let folder = workspace::root().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (recipe, binary) in images::published().zip(images::build(Profile::Release)?) {
        let bytes = fs::metadata(&binary).with_context(|| binary.display().to_string())?.len();
        ensure!(bytes <= MAX_BYTES, "{} has {bytes} bytes, more than {MAX_BYTES}", recipe.name);
        fs::copy(&binary, folder.join(recipe.binary)).with_context(|| binary.display().to_string())?;
        println!("wrote {FOLDER}/{} ({bytes} bytes)", recipe.binary);
    }
    Ok(ExitCode::SUCCESS)
}
