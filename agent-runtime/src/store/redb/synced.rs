//! The store's file with its syncs in one place. A build for tests can be killed there: before or after
//! the n-th sync of the process, as `HIVE_TEST_KILL_AT_SYNC` says, such as `7:before`.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

/// A file whose syncs are those of [`sync`].
#[derive(Debug)]
pub(super) struct Synced<B>(pub(super) B);

/// Runs one sync.
pub(super) fn sync<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(debug_assertions)]
    let number = kill::next();
    #[cfg(debug_assertions)]
    kill::at(number, "before");
    let done = run()?;
    #[cfg(debug_assertions)]
    kill::at(number, "after");
    Ok(done)
}

#[cfg(debug_assertions)]
mod kill {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static SYNCS: AtomicU64 = AtomicU64::new(0);

    /// The number of the next sync, from 1.
    pub(super) fn next() -> u64 {
        SYNCS.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Kills the process if this is where the environment says.
    pub(super) fn at(number: u64, side: &str) {
        static WANTED: OnceLock<Option<String>> = OnceLock::new();
        let wanted = WANTED.get_or_init(|| std::env::var("HIVE_TEST_KILL_AT_SYNC").ok());
        if wanted.as_deref().and_then(|wanted| wanted.split_once(':')) == Some((&number.to_string(), side)) {
            // As on a slow disk: whatever is answered too early gets out before the end.
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Nothing runs after a SIGKILL to oneself.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

impl<B: StorageBackend> StorageBackend for Synced<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        sync(|| self.0.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
