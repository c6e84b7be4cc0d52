//! Why a log cannot be used.

use thiserror::Error;

use crate::ids::LogIndex;

/// What to do about a log that has lost something: nothing on this server can bring it back, its peers have it.
macro_rules! remedy {
    () => {
        "run `proconsul operator raft repair -data-dir DIR` and start the server again: it joins as a new one and \
         is restored from its peers"
    };
}

/// The log must not be used. Nothing was changed on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadLog {
    /// Something that was durable once is unreadable.
    #[error("the Raft log is damaged: {file}, offset {offset}: {reason}; {}", remedy!())]
    Damaged {
        /// Segment file.
        file: String,
        /// Byte in it where the damage begins.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A segment file is not there.
    #[error("the Raft log is damaged: the file before {file} is missing or ends early (frame {expected} is not there); {}", remedy!())]
    Missing {
        /// The file that does not continue its predecessor.
        file: String,
        /// The frame that should have come.
        expected: u64,
    },
    /// A later version of the program wrote this.
    #[error(
        "{file}, offset {offset}: written by a newer version (log format {found}, this program knows {known}); start \
         the newer version again"
    )]
    NewerVersion {
        /// Segment file.
        file: String,
        /// Byte in it.
        offset: u64,
        /// The format version found.
        found: u16,
        /// The latest one that is known here.
        known: u16,
    },
    /// A frame whose checksum is right holds something that is no record, or not the next one.
    #[error("{file}, offset {offset}: not a record that this version understands ({reason}); start the version that wrote it, or: {}", remedy!())]
    Undecodable {
        /// Segment file.
        file: String,
        /// Byte in it where the frame begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The log continues a checkpoint that is not there.
    #[error("the Raft log begins after index {log}, but the checkpoint ends with index {checkpoint}; {}", remedy!())]
    Gap {
        /// What the log's first entry follows.
        log: LogIndex,
        /// What the checkpoint includes.
        checkpoint: LogIndex,
    },
    /// There is a checkpoint, and no log with the vote beside it.
    #[error("the Raft log is missing beside a checkpoint that ends with index {checkpoint}; {}", remedy!())]
    Absent {
        /// What the checkpoint includes.
        checkpoint: LogIndex,
    },
}
