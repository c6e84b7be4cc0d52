//! Files of the Raft log.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

/// Whether an error means that there is no room: nothing is wrong with what was written before, and the same may work
/// later. Of operations that take room only: a sync that fails may have lost what it was to make durable, and no word
/// of the system takes that back.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// A flat directory of files, used by one lane, one call at a time.
///
/// Writing makes nothing durable; [`Disk::sync`] does for the content of a file, [`Disk::sync_dir`] for creations and
/// removals. Every error names the file and what was to be done with it. After a failed sync nothing may be assumed of
/// what was written since the last good one: the caller stops, and never tries again. A [`Disk::create`],
/// [`Disk::write_at`] or [`Disk::zero`] that finds no room ([`is_full`]) may have been done in part, and may be called
/// again.
#[async_trait]
pub trait Disk: Send + 'static {
    /// Names of all files, in order.
    async fn list(&mut self) -> io::Result<Vec<String>>;

    /// Size of a file in bytes.
    async fn len(&mut self, name: &str) -> io::Result<u64>;

    /// At most `length` bytes from `offset`; may be fewer, none only at the end of the file.
    async fn read_at(&mut self, name: &str, offset: u64, length: u64) -> io::Result<Bytes>;

    /// Makes an empty file; one of that name must not exist.
    async fn create(&mut self, name: &str) -> io::Result<()>;

    /// Puts all the bytes at an offset, growing the file if need be.
    async fn write_at(&mut self, name: &str, offset: u64, bytes: Bytes) -> io::Result<()>;

    /// Fills `[from, to)` with zeros, growing the file if need be.
    async fn zero(&mut self, name: &str, from: u64, to: u64) -> io::Result<()>;

    /// Makes the content of a file durable.
    async fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    async fn sync_dir(&mut self) -> io::Result<()>;

    /// Removes a file.
    async fn remove(&mut self, name: &str) -> io::Result<()>;
}
