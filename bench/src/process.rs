//! Processes that are measured: how they are begun, what they said last, and what the kernel says of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Nothing of the caller's environment changes a figure.
pub(crate) fn isolated(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // Where a build that counts which lines run says what ran; such builds are checked and not measured.
    command.envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)));
    command
}

/// The end of a log; nothing if there is none.
pub(crate) fn last_lines(log: &Path, most: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(most).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Memory in use, in MB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kilobytes / 1024.0)
}

/// Seconds of a core that it has used, counted in ticks of the clock.
pub(crate) fn busy(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks: fields are counted from its end.
    let (_, fields) = text.rsplit_once(") ").context("an unknown format of stat")?;
    let times = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(times.sum::<Result<f64, _>>()? / rustix::param::clock_ticks_per_second() as f64)
}

/// Seconds for which its present threads have run, to the nanosecond: what an idle process uses is less than a tick.
pub(crate) fn running(pid: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_run() {
        let pid = std::process::id();
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 20 {}
        assert!(resident(pid).unwrap() > 0.5);
        assert!((0.01..3600.0).contains(&running(pid).unwrap()));
        assert!(busy(pid).unwrap() < 3600.0);
    }
}
