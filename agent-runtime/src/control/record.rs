//! The fence on disk: the record that is fsynced before an answer, and the boot file that is mounted.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use lifecycle::{BootFile, Record};
use serde::de::DeserializeOwned;

/// The record's name in its folder.
const RECORD: &str = "fence.json";
/// The boot file's name in its folder.
const BOOT: &str = "boot.json";

/// Why a file of the fence cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The content is not the fence's. Guessing could start what must stay paused.
    #[error("{path}: {reason}. Nothing is run: restore the file, or delete it to believe the operator's boot file")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the record; none if there never was one.
///
/// # Errors
/// It cannot be read or is not a record.
pub fn read_record(folder: &Path) -> Result<Option<Record>, Error> {
    read(&folder.join(RECORD))
}

/// Reads the boot file; none if it is missing, which means that nothing changes.
///
/// # Errors
/// It cannot be read or is not a boot file.
pub fn read_boot(folder: &Path) -> Result<Option<BootFile>, Error> {
    read(&folder.join(BOOT))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path.to_owned(), source }),
    };
    let foreign = |error: serde_json::Error| Error::Foreign { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(foreign)
}

/// Writes the record: when this returns it survives a crash, and a crash before leaves the old one whole.
///
/// # Errors
/// It is not known to be on disk.
pub fn write_record(folder: &Path, record: &Record) -> Result<(), Error> {
    let path = folder.join(RECORD);
    let fresh = folder.join(format!("{RECORD}.new"));
    let outcome = (|| {
        std::fs::create_dir_all(folder)?;
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        // The rename itself is durable only with its folder.
        File::open(folder)?.sync_all()
    })();
    outcome.map_err(|source| Error::Io { path, source })
}

#[cfg(test)]
mod tests {
    use lifecycle::{Desired, Holds};

    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_record(folder.path()).unwrap(), None);
        let record =
            Record { runtime_uid: "u".into(), epoch: 3, state: Desired::Paused, holds: Holds::default(), keys: None };
        write_record(folder.path(), &record).unwrap();
        assert_eq!(read_record(folder.path()).unwrap(), Some(record));
    }

    #[test]
    fn a_half_written_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RECORD), b"{\"runtime_uid\":\"u\",").unwrap();
        let error = read_record(folder.path()).unwrap_err().to_string();
        assert!(error.contains("fence.json") && error.contains("delete it"), "{error}");
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_record() {
        let folder = tempfile::tempdir().unwrap();
        let record =
            Record { runtime_uid: "u".into(), epoch: 3, state: Desired::Paused, holds: Holds::default(), keys: None };
        write_record(folder.path(), &record).unwrap();
        std::fs::write(folder.path().join("fence.json.new"), b"{\"runt").unwrap();
        assert_eq!(read_record(folder.path()).unwrap(), Some(record));
    }
}
