//! The fence on disk: the record that is fsynced before an answer, and the boot file that is mounted.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use lifecycle::{BootFile, Record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The record's name in its folder.
const RECORD: &str = "fence.json";
/// Bytes of one half of it: what a disk writes at once, so that the other half is never touched.
const HALF: usize = 4096;
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

/// Reads the boot file; none if it is missing, which means that nothing changes.
///
/// # Errors
/// It cannot be read or is not a boot file.
pub fn read_boot(folder: &Path) -> Result<Option<BootFile>, Error> {
    let path = folder.join(BOOT);
    bytes(&path)?.map(|bytes| parse(&path, &bytes)).transpose()
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    let foreign = |error: serde_json::Error| Error::Foreign { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(bytes).map_err(foreign)
}

/// One half of the record's file.
#[derive(Debug, Serialize, Deserialize)]
struct Half {
    /// How many records have been written; the half with the higher number holds.
    number: u64,
    record: Record,
    /// SHA-256 of the number and of the record as a version without brakes reads it: that version computes it again,
    /// and would take a half of which this was the sum of more for one that was cut off, and believe the other.
    sum: String,
    /// SHA-256 of the number and the whole record, if that has brakes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    braked_sum: Option<String>,
}

impl Half {
    fn of(number: u64, record: &Record) -> Self {
        let braked_sum = braked_sum(number, record);
        Self { number, record: record.clone(), sum: sum(number, &record.without_brakes()), braked_sum }
    }

    /// As it lies in the file; none if the record does not fit.
    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        if bytes.len() >= HALF {
            return Err(std::io::Error::other(format!("a record of {} bytes, and {HALF} is the most", bytes.len())));
        }
        bytes.resize(HALF - 1, b' ');
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// None if it was cut off by a crash, or never written.
    fn read(bytes: &[u8]) -> Option<Self> {
        let half: Self = serde_json::from_slice(bytes).ok()?;
        let is_whole = half.sum == sum(half.number, &half.record.without_brakes())
            && half.braked_sum == braked_sum(half.number, &half.record);
        is_whole.then_some(half)
    }

    fn place(number: u64) -> u64 {
        (number % 2) * HALF as u64
    }
}

fn sum(number: u64, record: &Record) -> String {
    let text = serde_json::to_vec(&(number, record)).unwrap_or_default();
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn braked_sum(number: u64, record: &Record) -> Option<String> {
    (!record.brakes.is_empty()).then(|| sum(number, record))
}

/// The record's file: two halves that are written in turn. A record is one write in place and one sync,
/// with nothing for the file system to record, and a crash leaves the half before it whole.
#[derive(Debug)]
pub struct Fence {
    folder: PathBuf,
    /// None before the first record of this process is written.
    file: Option<File>,
    /// The number of the last record.
    number: u64,
    /// The file is there and has halves.
    is_made: bool,
}

impl Fence {
    /// Reads the record of a folder; none if there never was one.
    ///
    /// # Errors
    /// It cannot be read or is not a record.
    pub fn open(folder: &Path) -> Result<(Self, Option<Record>), Error> {
        let path = folder.join(RECORD);
        let mut fence = Self { folder: folder.to_owned(), file: None, number: 0, is_made: false };
        let Some(bytes) = bytes(&path)? else { return Ok((fence, None)) };
        let Some((first, second)) = bytes.split_at_checked(HALF).filter(|_| bytes.len() == 2 * HALF) else {
            // Before there were halves, the file was the record alone.
            return parse(&path, &bytes).map(|record| (fence, Some(record)));
        };
        let newest = [first, second].into_iter().filter_map(Half::read).max_by_key(|half| half.number);
        let foreign = || Error::Foreign { path, reason: "neither of its halves is whole".to_owned() };
        let Half { number, record, .. } = newest.ok_or_else(foreign)?;
        (fence.number, fence.is_made) = (number, true);
        Ok((fence, Some(record)))
    }

    /// Writes the record: when this returns it survives a crash, and a crash before leaves the old one whole.
    ///
    /// # Errors
    /// It is not known to be on disk.
    pub fn write(&mut self, record: &Record) -> Result<(), Error> {
        let outcome = if self.is_made { self.overwrite(record) } else { self.make(record) };
        outcome.map_err(|source| Error::Io { path: self.folder.join(RECORD), source })
    }

    fn overwrite(&mut self, record: &Record) -> std::io::Result<()> {
        let number = self.number + 1;
        let bytes = Half::of(number, record).bytes()?;
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().write(true).open(self.folder.join(RECORD))?,
        };
        file.write_all_at(&bytes, Half::place(number))?;
        file.sync_data()?;
        (self.file, self.number) = (Some(file), number);
        Ok(())
    }

    /// Makes the file: the other half is blank.
    fn make(&mut self, record: &Record) -> std::io::Result<()> {
        let number = self.number + 1;
        std::fs::create_dir_all(&self.folder)?;
        let fresh = self.folder.join(format!("{RECORD}.new"));
        let file = File::create(&fresh)?;
        file.write_all_at(&[b' '; 2 * HALF], 0)?;
        file.write_all_at(&Half::of(number, record).bytes()?, Half::place(number))?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.folder.join(RECORD))?;
        // The rename itself is durable only with its folder.
        File::open(&self.folder)?.sync_all()?;
        (self.file, self.number, self.is_made) = (Some(file), number, true);
        Ok(())
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
