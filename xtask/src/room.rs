//! Owns the room on the disk: what can be built again goes when there is little left.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cluster::free;

/// A whole run from nothing takes about as much: builds with debug info and without, images, and the cluster.
const WANTED: u64 = 24 << 30;

/// Removes what earlier runs have built and this one can build again, until there is room for it: first the builds of
/// other lock files, then what the compiler keeps from change to change.
pub(crate) fn make(target: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    for folder in removable(target)? {
        if free(target)? >= WANTED {
            break;
        }
        println!("little room is left: removing {}", folder.display());
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

/// What may go, in this order.
fn removable(target: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let target = target.canonicalize().with_context(|| target.display().to_string())?;
    let of_another_lock = |folder: &PathBuf| {
        let keyed = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("target-"));
        keyed && *folder != target
    };
    let siblings = target.parent().map(folders).transpose()?.unwrap_or_default();
    let mut all: Vec<PathBuf> = siblings.into_iter().filter(of_another_lock).collect();
    all.extend(folders(&target)?.into_iter().map(|profile| profile.join("incremental")).filter(|kept| kept.is_dir()));
    Ok(all)
}

/// The folders in a folder; links are none.
fn folders(of: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let named = || of.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir(of).with_context(named)? {
        let entry = entry.with_context(named)?;
        if entry.file_type().with_context(named)?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_built_again_and_is_not_this_build_may_go() {
        let cache = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = cache.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path.canonicalize().unwrap()
        };
        let target = folder("target-2");
        let (kept, other) = (folder("target-2/debug/incremental"), folder("target-1"));
        folder("target-2/debug/deps");
        folder("go");
        std::os::unix::fs::symlink(&target, cache.path().join("target-3")).unwrap();
        assert_eq!(removable(&target).unwrap(), [other.clone(), kept.clone()]);
        // By its link too, it is this build.
        assert_eq!(removable(&cache.path().join("target-3")).unwrap(), [other, kept]);
    }
}
