//! The log's lane: performs what the core's log hands out, over any [`Disk`].

use std::io;

use bytes::BytesMut;
use proconsul_core::boundary::{Input, Lane};
use proconsul_core::rng::Rng;
use proconsul_core::wal::{BadLog, DiskOp, Opened, Options, Recovery, Write};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::ports::{Disk, is_full};

/// How much of a segment is read at a time.
const READ_BYTES_MAX: u64 = 4 << 20;

/// What the log's lane is handed.
#[derive(Debug)]
pub enum LogJob {
    /// To be performed.
    Write(Write),
    /// The write that found no room may find some now.
    TryAgain,
}

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

/// Performs writes in order until the channel closes or one of them fails, and reports each by [`Input::Logged`]. A failed
/// write is never repeated, and nothing is written after it.
///
/// One that finds no room has not failed. It is reported by [`Input::Full`], kept, and gone on with at the very operation
/// when that is asked for. This forgets nothing and promises nothing: the frame was not synced, so it was not acknowledged;
/// all before it is durable, for there is only one frame at a time; no page of it was refused by a sync, for there was none;
/// and what is written later is the same bytes at the same place, over whatever part of them is there already. A crash
/// meanwhile leaves a part of a last frame, which recovery cuts like any other torn tail.
pub async fn write_log<D: Disk>(disk: &mut D, mut jobs: mpsc::Receiver<LogJob>, done: mpsc::Sender<Input>) {
    while let Some(job) = jobs.recv().await {
        let LogJob::Write(write) = job else { continue };
        let mut result = Ok(());
        for op in write.ops {
            result = loop {
                match perform(disk, op.clone()).await {
                    Err(error) if takes_room(&op) && is_full(&error) => {
                        let full = Input::Full { lane: Lane::Log, reason: error.to_string() };
                        if done.send(full).await.is_err() {
                            return;
                        }
                        match jobs.recv().await {
                            Some(LogJob::TryAgain) => {}
                            Some(LogJob::Write(_)) => unreachable!("one write is under way at a time"),
                            None => return,
                        }
                    }
                    result => break result,
                }
            };
            if result.is_err() {
                break;
            }
        }
        let failed = result.is_err();
        let result = result.map_err(|error| error.to_string());
        let heard = done.send(Input::Logged { write: write.id, result }).await;
        if failed || heard.is_err() {
            return;
        }
    }
}

/// Whether an operation may find none.
fn takes_room(op: &DiskOp) -> bool {
    match op {
        DiskOp::Create { .. } | DiskOp::Zero { .. } | DiskOp::Write { .. } => true,
        DiskOp::Sync { .. } | DiskOp::SyncDir | DiskOp::Remove { .. } => false,
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use proconsul_core::ids::{LogIndex, Term};
    use proconsul_core::raft::{Entry, Payload, Record, SnapshotMeta};

    use super::*;
    use crate::files::FileDisk;

    /// A disk that grows to a size and no further.
    struct Quota {
        disk: FileDisk,
        left: std::sync::Arc<std::sync::atomic::AtomicU64>,
        sync_fails: bool,
    }

    impl Quota {
        async fn room(&mut self, name: &str, end: u64) -> io::Result<u64> {
            use std::sync::atomic::Ordering::SeqCst;
            let grows = end.saturating_sub(self.disk.len(name).await?);
            let left = self.left.load(SeqCst);
            self.left.store(left.saturating_sub(grows), SeqCst);
            Ok(end - grows.saturating_sub(left))
        }
    }

    fn full() -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, "No space left on device")
    }

    #[async_trait]
    impl Disk for Quota {
        async fn list(&mut self) -> io::Result<Vec<String>> {
            self.disk.list().await
        }
        async fn len(&mut self, name: &str) -> io::Result<u64> {
            self.disk.len(name).await
        }
        async fn read_at(&mut self, name: &str, offset: u64, length: u64) -> io::Result<Bytes> {
            self.disk.read_at(name, offset, length).await
        }
        async fn create(&mut self, name: &str) -> io::Result<()> {
            self.disk.create(name).await
        }
        async fn write_at(&mut self, name: &str, offset: u64, bytes: Bytes) -> io::Result<()> {
            let end = offset + bytes.len() as u64;
            let to = self.room(name, end).await?;
            self.disk.write_at(name, offset, bytes.slice(..to.saturating_sub(offset) as usize)).await?;
            if to < end { Err(full()) } else { Ok(()) }
        }
        async fn zero(&mut self, name: &str, from: u64, end: u64) -> io::Result<()> {
            let to = self.room(name, end).await?;
            self.disk.zero(name, from, to.max(from)).await?;
            if to < end { Err(full()) } else { Ok(()) }
        }
        async fn sync(&mut self, name: &str) -> io::Result<()> {
            if self.sync_fails { Err(full()) } else { self.disk.sync(name).await }
        }
        async fn sync_dir(&mut self) -> io::Result<()> {
            self.disk.sync_dir().await
        }
        async fn remove(&mut self, name: &str) -> io::Result<()> {
            self.disk.remove(name).await
        }
    }

    fn entry(index: u64) -> Record {
        let payload = Payload::Command(Bytes::from(vec![index as u8; 700]));
        Record::Entry(Entry { term: Term(1), index: LogIndex(index), payload })
    }

    const SMALL: Options =
        Options { segment_bytes_max: 4096, zero_step_first: 256, zero_step_max: 512, frame_bytes_max: 2000 };

    #[tokio::test]
    async fn a_log_on_a_disk_that_is_full_at_any_moment_goes_on_where_it_was() {
        use std::sync::atomic::Ordering::SeqCst;
        for step in 1..40u64 {
            let dir = tempfile::tempdir().expect("a directory");
            let left = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
            let disk = FileDisk::open(dir.path()).expect("a directory");
            let mut quota = Quota { disk, left: std::sync::Arc::clone(&left), sync_fails: false };
            let opened = open_log(&mut quota, SMALL, Rng::from_seed(1)).await.expect("empty");
            let (mut wal, _) = opened.with_snapshot(SnapshotMeta::default()).expect("empty");
            let (jobs, from_core) = mpsc::channel(1);
            let (to_core, mut done) = mpsc::channel(1);
            let lane = tokio::spawn(async move { write_log(&mut quota, from_core, to_core).await });
            let (mut out, mut refused) = (Vec::new(), 0);
            for index in 1..=10 {
                wal.push(index, vec![entry(index)], &mut out);
                while let Some(write) = out.pop() {
                    jobs.send(LogJob::Write(write)).await.expect("it runs");
                    loop {
                        match done.recv().await.expect("it runs") {
                            Input::Logged { write, result: Ok(()) } => {
                                wal.on_done(write, &mut out);
                                break;
                            }
                            Input::Full { lane: Lane::Log, .. } => refused += 1,
                            other => panic!("{other:?}"),
                        }
                        // What a crash would leave now has all that was acknowledged, and nothing that cannot be read.
                        let copy = copy_of(dir.path());
                        let mut disk = FileDisk::open(copy.path()).expect("a directory");
                        let opened =
                            open_log(&mut disk, SMALL, Rng::from_seed(2)).await.expect("torn at most");
                        let (_, found) = opened.with_snapshot(SnapshotMeta::default()).expect("no gap");
                        assert!((index - 1..=index).contains(&(found.entries.len() as u64)));
                        left.fetch_add(step * 37, SeqCst);
                        jobs.send(LogJob::TryAgain).await.expect("it runs");
                    }
                }
            }
            assert!(refused > 2, "{refused}");
            drop(jobs);
            lane.await.expect("no panic");
            let mut disk = FileDisk::open(dir.path()).expect("a directory");
            let opened = open_log(&mut disk, SMALL, Rng::from_seed(2)).await.expect("a good log");
            assert_eq!(opened.torn, None);
            let (_, found) = opened.with_snapshot(SnapshotMeta::default()).expect("no gap");
            assert_eq!(found.entries.len(), 10);
        }
    }

    fn copy_of(path: &std::path::Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a directory");
        for file in std::fs::read_dir(path).expect("a directory") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
        }
        copy
    }

    #[tokio::test]
    async fn a_sync_that_finds_no_room_has_failed_for_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = FileDisk::open(dir.path()).expect("a directory");
        let mut quota = Quota { disk, left: std::sync::Arc::new(u64::MAX.into()), sync_fails: false };
        let opened = open_log(&mut quota, SMALL, Rng::from_seed(1)).await.expect("empty");
        let (mut wal, _) = opened.with_snapshot(SnapshotMeta::default()).expect("empty");
        quota.sync_fails = true;
        let mut out = Vec::new();
        wal.push(1, vec![entry(1)], &mut out);
        let (jobs, from_core) = mpsc::channel(1);
        let (to_core, mut done) = mpsc::channel(1);
        jobs.send(LogJob::Write(out.remove(0))).await.expect("room for one");
        write_log(&mut quota, from_core, to_core).await;
        assert!(matches!(done.recv().await, Some(Input::Logged { result: Err(_), .. })));
    }
}
