//! Room on the disk. New work is refused while there is room only for what was accepted before.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is kept free for executions that were accepted, in bytes; on a small disk a tenth of it.
const RESERVE: u64 = 32 * 1024 * 1024;
/// How long an answer of the kernel is believed.
const BELIEVED: Duration = Duration::from_millis(200);

/// Watches the disk of a folder.
#[derive(Debug)]
pub(super) struct Space {
    folder: PathBuf,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Space {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), last: Mutex::default() }
    }

    /// Whether there is too little room for new work. A disk that cannot be asked is taken to have room.
    pub(super) fn is_low(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, low)) = *last
            && at.elapsed() < BELIEVED
        {
            return low;
        }
        let low = rustix::fs::statvfs(&self.folder).is_ok_and(|disk| {
            let (free, all) =
                (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
            free < RESERVE.min(all / 10)
        });
        *last = Some((Instant::now(), low));
        low
    }
}
