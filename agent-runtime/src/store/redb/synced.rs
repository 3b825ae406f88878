//! The store's file with its writes and syncs in one place, where a build for tests can be killed.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

#[cfg(debug_assertions)]
use super::kill;

/// A file whose writes and syncs are those of this module.
#[derive(Debug)]
pub(super) struct Synced<B>(pub(super) B);

/// Syncs what secures all that was written to a new file: its content, or its name.
pub(super) fn sync<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(debug_assertions)]
    let number = kill::next();
    #[cfg(debug_assertions)]
    // What is lost of a file without a name is the whole file.
    ["before", "lost"].iter().for_each(|side| kill::at(number, side));
    let done = run()?;
    #[cfg(debug_assertions)]
    {
        kill::synced();
        kill::at(number, "after");
    }
    Ok(done)
}

/// Syncs a file.
pub(super) fn sync_data(file: &impl StorageBackend) -> io::Result<()> {
    #[cfg(debug_assertions)]
    let number = kill::next();
    #[cfg(debug_assertions)]
    {
        kill::at(number, "before");
        kill::loses(number, file)?;
    }
    file.sync_data()?;
    #[cfg(debug_assertions)]
    {
        kill::synced();
        kill::at(number, "after");
    }
    Ok(())
}

/// Writes to a file.
pub(super) fn write(file: &impl StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
    #[cfg(debug_assertions)]
    kill::writes(file, offset, data.len())?;
    file.write(offset, data)
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
        sync_data(&self.0)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write(&self.0, offset, data)
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
