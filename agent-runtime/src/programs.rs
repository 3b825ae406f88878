//! Programs that the runtime starts, with everything that descends from them. A program has ended when none of that is
//! left: also what has put itself into a session of its own and what has lost its parents, which the kernel gives to
//! this process (it is their subreaper).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, pidfd_open,
    pidfd_send_signal, set_child_subreaper, set_dumpable_behavior, waitid,
};
use tokio::process::{Child, Command};

/// What descends from a program is known by this variable, whose value is the program's own.
const MARK: &str = "HIVE_PROGRAM";
/// Variables that no program inherits: what they hold would let it command this runtime, read its store, or spend on
/// its account. One that an agent or a server's entry sets itself is passed on.
const SECRETS: &[&str] = &[
    "HIVE_LIFECYCLE_TOKEN",
    "HIVE_STORE_URL",
    "HIVE_STORE_URL_FILE",
    "HIVE_LLM_API_KEY",
    "HIVE_LLM_API_KEY_FILE",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
];
/// Between two looks at what is left of a program.
const LOOK: Duration = Duration::from_millis(20);
/// What is still left of one is told of this often.
const TELL: u32 = 500;

/// The children that their starters wait for themselves. Locked while one is started, so that none is reaped before it
/// is known.
static AWAITED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Takes in what loses its parents below this process, and keeps what it holds in memory from programs of the same
/// user: they could read its environment and its command line, and with those command it.
///
/// # Errors
/// The kernel refuses.
pub fn begin() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    hide()
}

/// Keeps what this process holds in memory from others of the same user.
///
/// # Errors
/// The kernel refuses.
pub fn hide() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// A program with all that descends from it. What is left of it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Family {
    mark: String,
    group: Option<Pid>,
    is_over: bool,
}

/// Starts a program in a process group of its own, without what it must not know. `own` is what is set for it.
pub(crate) fn spawn(
    command: &mut Command,
    own: &BTreeMap<String, String>,
    hidden: &[String],
) -> io::Result<(Child, Family)> {
    let mark = uuid::Uuid::now_v7().simple().to_string();
    let secrets = SECRETS.iter().copied().chain(hidden.iter().map(String::as_str));
    for name in secrets.filter(|name| !own.contains_key(*name)) {
        command.env_remove(name);
    }
    command.envs(own).env(MARK, &mark).process_group(0).kill_on_drop(true);
    let mut awaited = awaited();
    let child = command.spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    awaited.extend(id);
    Ok((child, Family { mark, group: id.and_then(Pid::from_raw), is_over: false }))
}

impl Family {
    /// Tells the program's group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The group may be gone already.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Ends all that is left, and returns when it is gone. What the kernel does not let go of yet, such as one that
    /// waits for a disk, is waited for: until then it runs, and whatever asks is told so.
    pub(crate) async fn end(mut self) {
        let mut rounds = 0u32;
        loop {
            self.signal(Signal::KILL);
            let mark = self.mark.clone();
            let left = tokio::task::spawn_blocking(move || kill_marked(&mark)).await.unwrap_or(0);
            if left == 0 {
                break;
            }
            rounds = rounds.saturating_add(1);
            if rounds.is_multiple_of(TELL) {
                tracing::warn!(left, "what a program left behind does not end, though it was killed");
            }
            tokio::time::sleep(LOOK).await;
        }
        self.is_over = true;
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(Signal::KILL);
            kill_marked(&self.mark);
        }
        if let Some(group) = self.group {
            awaited().remove(&group.as_raw_nonzero().get());
        }
    }
}

/// Kills what bears a mark, and gives how many there were that had not ended yet.
fn kill_marked(mark: &str) -> usize {
    let wanted = format!("{MARK}={mark}");
    let bears = |pid: &Pid| {
        let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let mut left = 0;
    for pid in descendants().into_iter().filter(bears) {
        // By a handle, and looked at again through it: its number may be another's by now.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if bears(&pid) {
            left += usize::from(pidfd_send_signal(&handle, Signal::KILL).is_ok());
        }
    }
    reap();
    left
}

/// A process as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    pid: i32,
    parent: i32,
    is_dead: bool,
}

/// Reads `/proc/PID/stat`: the number, the name in parentheses, which may hold anything, the state and the parent.
fn listed(stat: &str) -> Option<Listed> {
    let (pid, rest) = stat.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    Some(Listed { pid: pid.parse().ok()?, parent: fields.next()?.parse().ok()?, is_dead: matches!(state, "Z" | "X") })
}

fn processes() -> Vec<Listed> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = all.flatten().filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    numbers.filter_map(|entry| listed(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

/// What descends from this process and has not ended.
fn descendants() -> Vec<Pid> {
    let all = processes();
    below(getpid().as_raw_nonzero().get(), &all).into_iter().filter_map(Pid::from_raw).collect()
}

/// Which of all descend from one and have not ended.
fn below(root: i32, all: &[Listed]) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<Listed>> = BTreeMap::new();
    for one in all {
        children.entry(one.parent).or_default().push(*one);
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(parent) = open.pop() {
        // Taken out, so that a list that changed while it was read leads into no circle.
        for one in children.remove(&parent).unwrap_or_default() {
            open.push(one.pid);
            if !one.is_dead {
                found.push(one.pid);
            }
        }
    }
    found
}

/// Reaps what has ended and that nobody waits for: what lost its parents.
pub(crate) fn reap() {
    let own = getpid().as_raw_nonzero().get();
    let dead: Vec<i32> = {
        let all = processes();
        all.into_iter().filter(|one| one.parent == own && one.is_dead).map(|one| one.pid).collect()
    };
    let awaited = awaited();
    for pid in dead.into_iter().filter(|pid| !awaited.contains(pid)).filter_map(Pid::from_raw) {
        // Another may have reaped it since.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Reaps what loses its parents and ends, until the process does.
pub(crate) async fn reap_on() {
    let Ok(mut children) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()) else { return };
    while children.recv().await.is_some() {
        // One look for all that end together.
        tokio::time::sleep(LOOK).await;
        let _ = tokio::task::spawn_blocking(reap).await;
    }
}

fn awaited() -> MutexGuard<'static, BTreeSet<i32>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "programs_tests.rs"]
mod tests;
