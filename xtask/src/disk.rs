//! Owns the check of free space on the disk. Nothing is deleted here: what may go is the reader's to decide.

use std::path::Path;

use anyhow::Context as _;

/// What a run of everything writes from nothing, in bytes: builds with and without instrumentation, images, the cluster.
const NEEDED: u64 = 24 << 30;

/// What a run needs when an earlier one has left its builds, in bytes.
const NEEDED_AGAIN: u64 = 8 << 30;

/// Reports whether the disk of the target folder has room for a run of everything, and if not, how much is needed and
/// what may be removed by hand. The run goes on: what is there already may be enough.
///
/// # Errors
/// The folder cannot be made or looked at.
pub(crate) fn check(target: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    // A debug folder means that most of what is written replaces what is there.
    let needed = if target.join("debug/deps").is_dir() { NEEDED_AGAIN } else { NEEDED };
    println!("{}", report(target, cluster::free(target)?, needed));
    Ok(())
}

fn report(target: &Path, free: u64, needed: u64) -> String {
    let found = format!("disk: {} GiB free on the disk of {}, {} needed", free >> 30, target.display(), needed >> 30);
    if free >= needed {
        return found;
    }
    let incremental = target.join("debug/incremental");
    let others = target.with_file_name("target-*");
    format!(
        "WARNING: {found}. To make room, remove {} and {}, or run `cargo clean` and `go clean -cache -modcache`",
        others.display(),
        incremental.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_names_what_is_needed_and_removable() {
        assert!(!report(Path::new("/c/t"), NEEDED, NEEDED).contains("remove"));
        let text = report(Path::new("/c/t"), NEEDED - 1, NEEDED);
        assert!(text.contains("23 GiB free") && text.contains("24 needed"), "{text}");
        assert!(text.contains("/c/t/debug/incremental") && text.contains("/c/target-*"), "{text}");
    }
}
