//! A store's file while it is new. It is made under another name without a sync, as nothing has been
//! promised yet; the first commit syncs it whole and gives it its name. So a crash leaves either no store
//! or a whole one, and a start does not wait for the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use super::synced::{self, sync};

/// Syncs are left out.
const MADE: u8 = 0;
/// The next sync gives the file its name.
const COMMITS: u8 = 1;
/// It is a file like any other.
const NAMED: u8 = 2;

/// The file of a store that did not exist.
#[derive(Debug)]
pub(super) struct Fresh {
    inner: FileBackend,
    state: std::sync::Arc<State>,
}

/// What a new store has promised so far.
#[derive(Debug)]
pub(super) struct State {
    stage: AtomicU8,
    file: File,
    from: PathBuf,
    to: PathBuf,
}

impl State {
    /// From now on a sync is a sync.
    pub(super) fn commits(&self) {
        self.stage.store(COMMITS, Ordering::Release);
    }

    fn sync(&self) -> io::Result<bool> {
        match self.stage.load(Ordering::Acquire) {
            MADE => Ok(true),
            COMMITS => {
                sync(|| self.file.sync_all())?;
                std::fs::rename(&self.from, &self.to)?;
                // The rename itself is durable only with its folder.
                if let Some(folder) = self.to.parent() {
                    sync(|| File::open(folder)?.sync_all())?;
                }
                self.stage.store(NAMED, Ordering::Release);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl Fresh {
    /// The file of a store that is to be at a path; none if one is there.
    ///
    /// # Errors
    /// The file cannot be made, or another process is making it.
    pub(super) fn at(path: &Path) -> Result<Option<Self>, DatabaseError> {
        if path.try_exists()? {
            return Ok(None);
        }
        let from = path.with_extension("redb.new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&from)?;
        if file.try_lock().is_err() {
            return Err(DatabaseError::DatabaseAlreadyOpen);
        }
        // Whoever held the lock before has given the file its name, or thrown it away.
        let is_same = std::fs::metadata(&from).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino()));
        if !is_same || path.try_exists()? {
            return Err(DatabaseError::DatabaseAlreadyOpen);
        }
        // What a process left that ended before its first commit.
        file.set_len(0)?;
        let state = State { stage: AtomicU8::new(MADE), file: file.try_clone()?, from, to: path.to_owned() };
        Ok(Some(Self { inner: FileBackend::new(file)?, state: std::sync::Arc::new(state) }))
    }

    /// Tells when the first promise is made.
    pub(super) fn state(&self) -> std::sync::Arc<State> {
        std::sync::Arc::clone(&self.state)
    }
}

impl StorageBackend for Fresh {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.state.sync()? { Ok(()) } else { synced::sync_data(&self.inner) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        synced::write(&self.inner, offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
