//! Debian's packages that some tests need: found, or installed.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::workspace;

/// PostgreSQL. The tests start servers of their own, so none is to run by itself.
pub(crate) fn postgres() -> anyhow::Result<()> {
    if Path::new("/usr/lib/postgresql").is_dir() {
        return Ok(());
    }
    install(&["postgresql-common"])?;
    let settings = "/etc/postgresql-common/createcluster.conf";
    let before = std::fs::read_to_string(settings).unwrap_or_default();
    if !before.contains("\ncreate_main_cluster") {
        std::fs::write(settings, before + "\ncreate_main_cluster = false\n").context(settings)?;
    }
    install(&["postgresql"])
}

/// What sets the clock of a process.
pub(crate) fn faketime() -> anyhow::Result<()> {
    if Path::new("/usr/lib/x86_64-linux-gnu/faketime").is_dir() {
        return Ok(());
    }
    install(&["libfaketime"])
}

/// A browser and what drives it.
pub(crate) fn browser() -> anyhow::Result<()> {
    if Path::new("/usr/bin/chromedriver").exists() {
        return Ok(());
    }
    install(&["chromium", "chromium-driver"])
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    eprintln!("installing {} from Debian", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        workspace::run(apt.env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
    };
    let arguments: Vec<&str> =
        ["install", "--yes", "--no-install-recommends"].iter().chain(packages).copied().collect();
    // Lists may be stale or absent on a bare machine.
    apt(&arguments).or_else(|_| apt(&["update"]).and_then(|()| apt(&arguments)))
}
