//! Where a build for tests is killed, as `HIVE_TEST_KILL_AT_SYNC` says: `7:before` or `7:after` the seventh sync of
//! the process, or `7:lost`, before it and with nothing left of what no sync had secured, as by a loss of power.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use redb::StorageBackend;
use rustix::process::{Signal, getpid, kill_process};

static SYNCS: AtomicU64 = AtomicU64::new(0);
/// What stood where something was written since the last sync, in the order of the writes.
static UNSYNCED: Mutex<Vec<(u64, Vec<u8>)>> = Mutex::new(Vec::new());

/// The number of the next sync, from 1.
pub(super) fn next() -> u64 {
    SYNCS.fetch_add(1, Ordering::Relaxed) + 1
}

fn wanted() -> Option<(&'static str, &'static str)> {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("HIVE_TEST_KILL_AT_SYNC").ok());
    wanted.as_deref().and_then(|wanted| wanted.split_once(':'))
}

fn is_at(number: u64, side: &str) -> bool {
    wanted() == Some((&number.to_string(), side))
}

/// Kills the process if this is where the environment says.
pub(super) fn at(number: u64, side: &str) {
    if is_at(number, side) {
        kill();
    }
}

fn kill() {
    // As on a slow disk: whatever is answered too early gets out before the end.
    std::thread::sleep(Duration::from_millis(20));
    // Nothing runs after a SIGKILL to oneself.
    let _ = kill_process(getpid(), Signal::KILL);
}

/// Notes what stands where something is about to be written.
pub(super) fn writes(file: &impl StorageBackend, offset: u64, length: usize) -> io::Result<()> {
    if wanted().is_none_or(|(_, side)| side != "lost") {
        return Ok(());
    }
    let mut before = vec![0; length];
    let there = usize::try_from(file.len()?.saturating_sub(offset)).unwrap_or(usize::MAX);
    if let Some(part) = before.get_mut(..there.min(length)) {
        file.read(offset, part)?;
    }
    UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner).push((offset, before));
    Ok(())
}

/// Everything that was written is on disk.
pub(super) fn synced() {
    UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Takes back what no sync has secured and kills the process, if this is where the environment says.
pub(super) fn loses(number: u64, file: &impl StorageBackend) -> io::Result<()> {
    if is_at(number, "lost") {
        let unsynced = std::mem::take(&mut *UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner));
        for (offset, before) in unsynced.into_iter().rev() {
            file.write(offset, &before)?;
        }
        kill();
    }
    Ok(())
}
