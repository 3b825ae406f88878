//! The machine: what it is, which core serves and which one asks.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the two sides are pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) client: usize,
}

impl Cores {
    /// The first and the last core that this process may use.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("the kernel does not say which cores may be used")?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let server = all.first().copied().context("no core may be used")?;
        Ok(Self { server, client: all.last().copied().unwrap_or(server) })
    }

    /// How it is told in a report.
    pub(crate) fn told(self) -> String {
        if self.server == self.client {
            return format!("server and client share core {}: rates are lower than they could be", self.server);
        }
        format!("the server is pinned to core {}, the client to core {}", self.server, self.client)
    }
}

/// Keeps this thread, and what it starts, on one core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot use core {core}"))
}

/// One line for each thing that figures depend on.
pub(crate) fn described(folder: &Path) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    vec![
        ("date", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("processor", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system", file_system(&read("/proc/self/mounts"), folder)),
    ]
}

/// The type of the file system that a folder lies on.
fn file_system(mounts: &str, folder: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    // Of two at the same place, the later one hides the earlier.
    let deepest = mounts.filter(|(at, _)| folder.starts_with(at)).max_by_key(|(at, _)| at.len());
    deepest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_holds_a_folder() {
        let mounts = "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /da tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/bench")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/srv")), "ext4");
    }
}
