//! Owns what containers are on the host: their processes, control groups and shims.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::packages::debian;
use crate::place::Place;
use crate::process::{Record, every_pid};
use crate::{Error, health};

/// The namespace of containerd that kubelet's containers are in.
const NAMESPACE: &str = "k8s.io";

const CGROUPS: &str = "/sys/fs/cgroup";

/// Folders that containerd and kubelet make for their sockets, wherever their state is.
const SOCKETS: [&str; 2] = ["/run/containerd/s", "/var/lib/kubelet/device-plugins"];

/// Links to the logs of containers, for those who look in the usual place.
const LOG_LINKS: &str = "/var/log/containers";

/// containerd's own tool, speaking with our containerd.
pub(crate) fn ctr(place: &Place) -> Command {
    let mut command = debian("ctr");
    command.arg("--address").arg(place.socket()).args(["--namespace", NAMESPACE]);
    command
}

/// The containers and sandboxes our containerd has or had, by their folders.
pub(crate) fn ids(place: &Place) -> BTreeSet<String> {
    let folder = place.containerd_state().join("io.containerd.runtime.v2.task").join(NAMESPACE);
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Kills the containers and their shims. To be called once containerd has ended, so that none is added.
pub(crate) fn kill_all(place: &Place) -> Result<(), Error> {
    let ids = ids(place);
    let socket = place.socket();
    let limit = Duration::from_secs(20);
    health::wait_for("the end of all containers", limit, &place.logs(), || {
        let mut left = 0_usize;
        for record in processes(&ids, &socket) {
            record.signal(Signal::KILL)?;
            left += 1;
        }
        Ok(if left == 0 { Ok(()) } else { Err(format!("{left} processes are left")) })
    })
}

/// Everything that runs in the containers' control groups, and the shims that call our containerd theirs.
fn processes(ids: &BTreeSet<String>, socket: &Path) -> Vec<Record> {
    let contained = groups(ids).iter().flat_map(|group| members(group)).collect::<BTreeSet<i32>>();
    let shims = every_pid().into_iter().filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_shim(&line, &socket.to_string_lossy()))
    });
    contained.into_iter().chain(shims).filter_map(Record::of).collect()
}

fn is_shim(line: &[u8], socket: &str) -> bool {
    let mut words = line.split(|byte| *byte == 0);
    words.next().is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"))
        && words.any(|word| word == socket.as_bytes())
}

/// The control groups of the containers, one below each controller where they are of version 1.
fn groups(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut parents = vec![Path::new(CGROUPS).join(NAMESPACE)];
    parents.extend(folders(Path::new(CGROUPS)).into_iter().map(|controller| controller.join(NAMESPACE)));
    parents.iter().flat_map(|parent| ids.iter().map(|id| parent.join(id))).filter(|group| group.is_dir()).collect()
}

fn members(group: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = listed.lines().filter_map(|line| line.parse().ok());
    own.chain(folders(group).iter().flat_map(|child| members(child))).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes what the dead containers leave outside our folder. Only what is empty or dead goes.
pub(crate) fn remove_traces(place: &Place) {
    let groups = groups(&ids(place));
    for group in &groups {
        remove_group(group);
    }
    for parent in groups.iter().filter_map(|group| group.parent()) {
        // The kernel refuses while another containerd has containers there.
        fs::remove_dir(parent).ok();
    }
    for socket in SOCKETS.iter().flat_map(|folder| entries(Path::new(folder))) {
        if UnixStream::connect(&socket).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            fs::remove_file(&socket).ok();
        }
    }
    for link in entries(Path::new(LOG_LINKS)) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(place.root())) {
            fs::remove_file(&link).ok();
        }
    }
    for folder in SOCKETS.into_iter().chain(["/run/containerd", "/var/lib/kubelet", LOG_LINKS]) {
        fs::remove_dir(folder).ok();
    }
}

/// A control group can be removed only after those below it.
fn remove_group(group: &Path) {
    for child in folders(group) {
        remove_group(&child);
    }
    fs::remove_dir(group).ok();
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Every process of a container, the first one first, by the id that the pod's status gives it.
pub(crate) fn every_process(place: &Place, id: &str) -> Result<Vec<Record>, Error> {
    let first = first_process(place, id)?;
    let id = id.strip_prefix("containerd://").unwrap_or(id).to_owned();
    let members = groups(&BTreeSet::from([id])).iter().flat_map(|group| members(group)).collect::<BTreeSet<i32>>();
    Ok(first.into_iter().chain(members.into_iter().filter_map(Record::of)).collect())
}

/// The first process of a container, by the id that the pod's status gives it.
fn first_process(place: &Place, id: &str) -> Result<Option<Record>, Error> {
    let id = id.strip_prefix("containerd://").unwrap_or(id);
    let tasks = crate::tool::run(ctr(place).args(["tasks", "list"]), "listing the containers")?;
    Ok(parse_tasks(&tasks, id).and_then(Record::of))
}

/// Reads lines of `TASK PID STATUS`.
fn parse_tasks(tasks: &str, id: &str) -> Option<i32> {
    tasks.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let pid = (words.next() == Some(id)).then(|| words.next()).flatten()?.parse().ok()?;
        (words.next() != Some("STOPPED")).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_of_another_containerd_is_left_alone() {
        let line = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0abc\0-address\0/ours/containerd.sock\0";
        assert!(is_shim(line, "/ours/containerd.sock"));
        assert!(!is_shim(line, "/run/containerd/containerd.sock"));
        assert!(!is_shim(b"ctr\0--address\0/ours/containerd.sock\0", "/ours/containerd.sock"));
    }

    #[test]
    fn the_process_of_a_task_is_read() {
        let tasks = "TASK    PID     STATUS\nabc     4711    RUNNING\ndef     12      STOPPED\n";
        assert_eq!(parse_tasks(tasks, "abc"), Some(4711));
        assert_eq!(parse_tasks(tasks, "def"), None);
        assert_eq!(parse_tasks(tasks, "ghi"), None);
    }

    #[test]
    fn members_are_found_in_groups_below() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("child")).unwrap();
        fs::write(folder.path().join("cgroup.procs"), "1\n2\n").unwrap();
        fs::write(folder.path().join("child/cgroup.procs"), "3\n").unwrap();
        assert_eq!(members(folder.path()), vec![1, 2, 3]);
    }
}
