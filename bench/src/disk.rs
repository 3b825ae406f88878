//! The disk: how long one fdatasync takes on it, and waiting while others keep it busy.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::figures;

/// The file is written beforehand, so that no sync has to record its growth; writers start over at its end.
pub(crate) const FILE: u64 = 64 * 1024 * 1024;
const PAGE: u64 = 4096;
/// Pages between two that are written together, as they lie apart in a store; odd, so that all are reached.
const STRIDE: u64 = 37;
/// Syncs that show how the disk is just now.
const LOOK: Duration = Duration::from_millis(100);
/// A disk this many times slower than it can be is kept busy by others.
const BUSY: f64 = 1.5;
/// After this long the figures are taken all the same.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file that is full of zeros and on disk.
pub(crate) fn prepare(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    let block = vec![0; 1024 * 1024];
    for at in (0..FILE).step_by(block.len()) {
        file.write_all_at(&block, at)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Measures the disk with writes of one size.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    pages: u64,
    next: u64,
    /// The shortest median of a sync so far, in milliseconds.
    best: f64,
}

impl Disk {
    /// A probe in a folder, whose writes have this many bytes.
    pub(crate) fn new(folder: &Path, size: u64) -> anyhow::Result<Self> {
        Ok(Self { file: prepare(&folder.join("disk"))?, pages: size.div_ceil(PAGE), next: 0, best: f64::INFINITY })
    }

    /// Writes and syncs again and again, one after the other; the times in milliseconds, sorted.
    pub(crate) fn sync_times(&mut self, length: Duration) -> anyhow::Result<Vec<f64>> {
        let page = [b'x'; PAGE as usize];
        let mut times = Vec::new();
        let end = Instant::now() + length;
        while Instant::now() < end {
            let begun = Instant::now();
            for _ in 0..self.pages {
                self.next = (self.next + STRIDE * PAGE) % FILE;
                self.file.write_all_at(&page, self.next)?;
            }
            self.file.sync_data()?;
            times.push(begun.elapsed());
        }
        let times = figures::milliseconds(times);
        self.best = self.best.min(figures::quantile(&times, 0.5));
        Ok(times)
    }

    /// Waits until the disk is about as fast as it has been, but not for ever: what others write would
    /// be measured otherwise.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let now = figures::quantile(&self.sync_times(LOOK)?, 0.5);
            if now <= self.best * BUSY {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                eprintln!("the disk stays busy: a sync takes {now:.2} ms, and took {:.2} ms before", self.best);
                return Ok(());
            }
            if !told {
                eprintln!("waiting for the disk, which others keep busy");
                told = true;
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pages_are_written_before_one_is_again() {
        let pages = FILE / PAGE;
        let mut seen = vec![false; usize::try_from(pages).unwrap()];
        let mut at = 0;
        for _ in 0..pages {
            at = (at + STRIDE * PAGE) % FILE;
            seen[usize::try_from(at / PAGE).unwrap()] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
