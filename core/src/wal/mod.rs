//! The durable log of one Raft member: framing, segments, group commit, recovery. Sans-IO: it hands out writes and is
//! told when they are durable; recovery is fed the bytes of the files.
//!
//! **Layout.** The log is a sequence of segment files `wal-<first sequence, 20 digits>.log`. A segment begins with a
//! `segment` header and goes on with frames; behind them it is filled with zeros ahead of the write position, so that
//! a sync seldom has to grow the file. One durable append is one `frame`: sequence number, salt of its segment,
//! checksums, and records. The first frame of each segment begins with the hard state, so that older segments may be
//! removed whole.
//!
//! **One frame at a time.** A frame is written only after the one before it was synced; records that arrive meanwhile
//! are gathered into the next one. Hence at most the last frame of the log can be torn by a crash, and recovery needs
//! no guesses:
//!
//! * a bad frame that anything later was written after (a frame header of a later sequence, a later segment) was
//!   acknowledged once: the log is damaged, the server refuses to start;
//! * a bad last frame of which something is missing (a 512-byte sector, or the end of it, is still blank, as it was
//!   before the write) is a torn write that was never acknowledged: it is cut;
//! * a bad last frame of which nothing is missing was written whole and has rotted since: refused as well.
//!
//! Protocol-aware recovery (Alagappan and others, FAST 2018) explains why the distinction matters: a voter that forgets
//! what it acknowledged may elect a leader without a committed entry.

mod error;
mod frame;
mod record;
mod recovery;
mod segment;
mod writer;

#[cfg(test)]
mod crash_test;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod test_disk;

pub use error::BadLog;
pub use recovery::{Opened, Recovery, TornTail};
pub use writer::Wal;

use bytes::Bytes;

/// Sizes, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment is not continued beyond this size, unless a single frame is larger.
    pub segment_bytes_max: u64,
    /// How far a segment is zero-filled ahead at first; each further step doubles, up to `zero_step_max`. Small, so
    /// that the first write of a new log is quick.
    pub zero_step_first: u64,
    /// Largest step of zero-filling.
    pub zero_step_max: u64,
    /// A frame gathers at most this many bytes of records; a single larger record still goes, alone.
    pub frame_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes_max: 64 << 20,
            zero_step_first: 64 << 10,
            zero_step_max: 1 << 20,
            frame_bytes_max: 4 << 20,
        }
    }
}

/// Work for the log's lane: operations to perform in this order, then one completion. The next one is handed out only
/// after the completion of the former.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Quoted by the completion. Never reused within a process.
    pub id: u64,
    /// What to do.
    pub ops: Vec<DiskOp>,
}

/// One operation on a flat directory of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Make an empty file; it must not exist.
    Create {
        /// File name.
        name: String,
    },
    /// Fill `[from, to)` with zeros, growing the file if need be.
    Zero {
        /// File name.
        name: String,
        /// First byte.
        from: u64,
        /// Byte after the last one.
        to: u64,
    },
    /// Put bytes at an offset, growing the file if need be.
    Write {
        /// File name.
        name: String,
        /// Where.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// Make the content of a file durable.
    Sync {
        /// File name.
        name: String,
    },
    /// Make creations and removals durable.
    SyncDir,
    /// Remove a file.
    Remove {
        /// File name.
        name: String,
    },
}
