//! Owns what comes from Debian: which programs are needed, and their installation when they are missing.

use std::path::Path;
use std::process::Command;

use crate::place::Place;
use crate::progress::{Event, Progress, step};
use crate::{Error, tool};

/// Where Debian keeps programs; an ordinary user's PATH lacks the folders of the administrator.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where Debian keeps the CNI plugins.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Each package with the program that tells whether it is there.
const PACKAGES: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("buildah", "buildah"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("socat", "socat"),
    ("openssl", "openssl"),
];

/// A program of Debian, found whatever the caller's PATH is.
pub(crate) fn debian(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", PATH);
    command
}

/// Installs what is missing, after saying so.
pub(crate) fn ensure(place: &Place, progress: &dyn Progress) -> Result<(), Error> {
    let missing = missing(there);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let names = packages.join(" ");
    if !there("apt-get") {
        let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
        return Err(Error::NoApt { missing: programs, packages: names });
    }
    progress.report(Event::Note(&format!("not installed yet; will be installed from Debian: {names}")));
    let log = place.logs().join("apt-get.log");
    let install = ["install", "--yes", "--no-install-recommends"];
    step(progress, "apt-get install", || {
        // Lists may be stale or absent on a bare machine, so a failure is tried once more with fresh ones.
        let done = apt(&install, &packages, &log, progress)?
            || (apt(&["update"], &[], &log, progress)? && apt(&install, &packages, &log, progress)?);
        if done && self::missing(there).is_empty() {
            Ok(())
        } else {
            Err(Error::Apt { packages: names.clone(), tail: tool::quote(&log), log })
        }
    })
}

fn apt(verb: &[&str], packages: &[&str], log: &Path, progress: &dyn Progress) -> Result<bool, Error> {
    let mut command = debian("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(verb).args(packages);
    Ok(tool::run_logged(&mut command, log, "apt-get install", progress)?.success())
}

fn missing(there: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    PACKAGES.into_iter().filter(|(program, _)| !there(program)).collect()
}

fn there(program: &str) -> bool {
    // An absolute path replaces the folder it is joined to.
    PATH.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_asked_for() {
        assert!(missing(|_| true).is_empty());
        let found = missing(|program| !program.contains("cni") && program != "ip");
        assert_eq!(found, vec![("/usr/lib/cni/bridge", "containernetworking-plugins"), ("ip", "iproute2")]);
    }

    #[test]
    fn programs_are_looked_up_by_name_and_by_path() {
        assert!(there("sh") && there("/bin/sh"));
        assert!(!there("no-such-program") && !there("/no/such/program"));
    }
}
