//! A store's file as it was before it was opened. Opening marks the file and may begin to repair it,
//! which must not touch one that cannot be read: somebody may still save what is in it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

/// What opening changes in a file that it then refuses: its first page, in bytes.
const PAGE: u64 = 4096;

/// What is needed to put a file back.
#[derive(Debug)]
pub(super) struct Original {
    first_page: Vec<u8>,
    /// None when there was no file.
    length: Option<u64>,
}

impl Original {
    /// Remembers the file at a path, which need not be there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { first_page: Vec::new(), length: None });
            }
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut first_page = Vec::new();
        file.take(PAGE).read_to_end(&mut first_page)?;
        Ok(Self { first_page, length: Some(length) })
    }

    /// Puts the file back.
    pub(super) fn restore(&self, path: &Path) -> io::Result<()> {
        let Some(length) = self.length else { return Ok(()) };
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(&self.first_page)?;
        file.set_len(length)?;
        file.sync_all()
    }
}
