//! The log's lane: performs what the core's log hands out, over any [`Disk`].

use std::io;

use bytes::BytesMut;
use proconsul_core::rng::Rng;
use proconsul_core::wal::{BadLog, DiskOp, Opened, Options, Recovery, Write};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::ports::Disk;

/// How much of a segment is read at a time.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Completion of a [`Write`]: its id, and the environment's words if it failed.
pub type Logged = (u64, Result<(), String>);

/// Why the log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The files cannot be read or repaired.
    #[error("the Raft log cannot be opened: {0}")]
    Disk(#[from] io::Error),
    /// What they hold must not be used.
    #[error(transparent)]
    Bad(#[from] BadLog),
}

/// Reads the log and repairs what a crash left behind. On return everything that was read is durable.
///
/// # Errors
/// The disk's; or the log is damaged, in which case nothing was changed.
pub async fn open_log<D: Disk>(disk: &mut D, options: Options, rng: Rng) -> Result<Opened, OpenError> {
    let mut recovery = Recovery::begin(options, disk.list().await?);
    while let Some(name) = recovery.next_file() {
        let file = read(disk, &name).await?;
        recovery.feed(&file)?;
    }
    let opened = recovery.finish(rng);
    for op in &opened.repair {
        perform(disk, op.clone()).await?;
    }
    Ok(opened)
}

/// Performs writes in order until the channel closes or one of them fails, and reports each. A failed write is never
/// repeated, and nothing is written after it.
pub async fn write_log<D: Disk>(disk: &mut D, mut writes: mpsc::Receiver<Write>, done: mpsc::Sender<Logged>) {
    while let Some(write) = writes.recv().await {
        let mut result = Ok(());
        for op in write.ops {
            result = perform(disk, op).await;
            if result.is_err() {
                break;
            }
        }
        let failed = result.is_err();
        let heard = done.send((write.id, result.map_err(|error| error.to_string()))).await;
        if failed || heard.is_err() {
            return;
        }
    }
}

async fn perform<D: Disk>(disk: &mut D, op: DiskOp) -> io::Result<()> {
    match op {
        DiskOp::Create { name } => disk.create(&name).await,
        DiskOp::Zero { name, from, to } => disk.zero(&name, from, to).await,
        DiskOp::Write { name, offset, bytes } => disk.write_at(&name, offset, bytes).await,
        DiskOp::Sync { name } => disk.sync(&name).await,
        DiskOp::SyncDir => disk.sync_dir().await,
        DiskOp::Remove { name } => disk.remove(&name).await,
    }
}

/// A whole file. One that is shorter than the directory says is an error: half a log must not be taken for a torn one.
async fn read<D: Disk>(disk: &mut D, name: &str) -> io::Result<BytesMut> {
    let length = disk.len(name).await?;
    let mut file = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
    while (file.len() as u64) < length {
        let at = file.len() as u64;
        let part = disk.read_at(name, at, (length - at).min(READ_BYTES_MAX)).await?;
        if part.is_empty() {
            let text = format!("{name} ends at offset {at}, though its size is {length} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        file.extend_from_slice(&part);
    }
    Ok(file)
}
