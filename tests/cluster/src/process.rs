//! Owns the processes: starts them with a record of who they are, and stops only those on record.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::place::write_private;

/// Tells one process from all others, even after its number is used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pid: i32,
    /// Clock ticks from the boot to the start of the process.
    start: u64,
    /// Numbers and ticks begin anew with each boot.
    boot: String,
}

impl Record {
    /// Notes who a running process is.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let (state, start) = stat(pid)?;
        (state != 'Z').then(|| Self { pid, start, boot: boot() })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the very process still runs; one that has ended but is not reaped does not.
    pub(crate) fn alive(&self) -> bool {
        self.boot == boot() && stat(self.pid).is_some_and(|(state, start)| start == self.start && state != 'Z')
    }

    /// Sends a signal to the very process; `false` when it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool, Error> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        // The descriptor holds on to one process, so what is checked next is also what gets the signal.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
        if !self.alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(Error::os(format!("signal process {}", self.pid))(error)),
        }
    }
}

/// The records of the components, one file each.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Starts a component that outlives us, with its output in `log`.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command, log: &Path) -> Result<Record, Error> {
        let output = File::create(log).map_err(Error::io("create", log))?;
        let errors = output.try_clone().map_err(Error::io("open", log))?;
        let program = command.get_program().to_string_lossy().into_owned();
        // A group of its own keeps the terminal's interrupt away.
        command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut child = command.spawn().map_err(|source| Error::Spawn { program, source })?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let record = Record::of(pid);
        // A caller that lives on must not gather processes that ended and were not reaped.
        thread::spawn(move || child.wait());
        let record = record.ok_or_else(|| Error::Died {
            component: name.to_owned(),
            log: log.to_owned(),
            tail: crate::tool::quote(log),
        })?;
        let text = serde_json::to_string(&record).map_err(Error::json("the record of a process"))?;
        write_private(&self.path(name), &text)?;
        Ok(record)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }

    /// Every record, of processes dead or alive.
    pub(crate) fn all(&self) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries.filter_map(|entry| serde_json::from_slice(&fs::read(entry.ok()?.path()).ok()?).ok()).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

/// The numbers of all processes.
pub(crate) fn every_pid() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time. The name before them stands in brackets and may hold anything, even brackets.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(records: &Records, log: &Path) -> Record {
        records.spawn("sleeper", Command::new("sleep").arg("60"), log).unwrap()
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4242 1000 10";
        assert_eq!(parse_stat(text), Some(('S', 4242)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_process_is_found_again_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().to_owned());
        let record = sleeper(&records, &folder.path().join("log"));
        assert_eq!(records.get("sleeper"), Some(record.clone()));
        assert_eq!(records.all(), vec![record.clone()]);
        assert!(record.alive());
        assert!(record.signal(Signal::KILL).unwrap());
        while record.alive() {
            thread::yield_now();
        }
        assert!(!record.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn a_number_used_again_is_left_alone() {
        let me = Record::of(std::process::id().cast_signed()).unwrap();
        assert!(me.alive());
        let earlier = Record { start: me.start - 1, ..me.clone() };
        assert!(!earlier.alive() && !earlier.signal(Signal::KILL).unwrap());
        let other_boot = Record { boot: "another".to_owned(), ..me };
        assert!(!other_boot.alive() && !other_boot.signal(Signal::KILL).unwrap());
    }
}
