//! A writer that does nothing but group commit: no other can accept more in a second with the same promise.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use crate::disk::{self, FILE};
use crate::machine;

/// Bytes that each waiter hands over, about as many as one execution's record has.
const RECORD: usize = 512;
/// A handle to the writer; its thread ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    waiting: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Writer {
    /// Starts the thread over a file in a folder, on a core of its own if one is given.
    pub(crate) fn start(folder: &Path, core: Option<usize>) -> anyhow::Result<Self> {
        let file = disk::prepare(&folder.join("log"))?;
        let (waiting, waiters) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            if let Err(error) = core.map_or(Ok(()), machine::pin).and_then(|()| write_all(&file, waiters)) {
                // Whoever waits is told by its channel.
                eprintln!("the null writer ended: {error:#}");
            }
        });
        Ok(Self { waiting })
    }

    /// Returns when a record is on disk.
    pub(crate) async fn write(&self) -> anyhow::Result<()> {
        let (sender, written) = oneshot::channel();
        self.waiting.send(sender).ok().context("the null writer has ended")?;
        written.await.context("the null writer has ended")
    }
}

fn write_all(file: &File, mut waiters: mpsc::UnboundedReceiver<oneshot::Sender<()>>) -> anyhow::Result<()> {
    let mut at = 0;
    let mut bytes = Vec::new();
    while let Some(first) = waiters.blocking_recv() {
        let mut group = vec![first];
        while let Ok(more) = waiters.try_recv() {
            group.push(more);
        }
        bytes.resize(group.len() * RECORD, b'x');
        if at + bytes.len() as u64 > FILE {
            at = 0;
        }
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        at += bytes.len() as u64;
        // A waiter that has gone needs no answer.
        for waiter in group {
            let _ = waiter.send(());
        }
    }
    Ok(())
}

/// Records a second that the writer reaches with this many waiters, each of which writes again at once.
pub(crate) fn rate(folder: &Path, core: usize, waiters: usize, length: Duration) -> anyhow::Result<f64> {
    let writer = Writer::start(folder, Some(core))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let end = Instant::now() + length;
    let count = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..waiters {
            let writer = writer.clone();
            tasks.spawn(async move {
                let mut count = 0u64;
                while Instant::now() < end {
                    writer.write().await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut total = 0;
        while let Some(counted) = tasks.join_next().await {
            total += counted??;
        }
        anyhow::Ok(total)
    })?;
    Ok(count as f64 / length.as_secs_f64())
}
