//! Reading the log after a restart. The adapter lists the directory, feeds the files in the order asked for, performs
//! the repair, and only then lets the log be written to.

use std::collections::VecDeque;

use bytes::Bytes;

use super::writer::{Position, Segment};
use super::{BadLog, DiskOp, Options, Wal, frame, record, segment};
use crate::ids::LogIndex;
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};
use crate::raft::{Entry, HardState, Record, Recovered, SnapshotMeta};
use crate::rng::Rng;

/// Reads segment files one by one.
#[derive(Debug)]
pub struct Recovery {
    options: Options,
    /// Files still to be read, by the frame that each begins with, in order.
    unread: VecDeque<u64>,
    segments: VecDeque<Segment>,
    /// The frame that must come next. `None` before the first file.
    expected: Option<u64>,
    /// Where the last segment read ends.
    tail: Option<Tail>,
    /// A file without header and content, which a crash left while it was being made.
    stillborn: Option<String>,
    hard: HardState,
    entries: Vec<Entry>,
    /// Index of the last entry, or what the next one follows.
    last: LogIndex,
}

/// The end of a segment.
#[derive(Debug)]
struct Tail {
    name: String,
    /// Where the good frames end.
    at: u64,
    /// The last thing written there, and its offset: the last frame or, without one, the header.
    latest: (u64, Bytes),
    /// Up to where something is not zero behind the good frames; equals `at` if nothing is.
    dirty_to: u64,
    /// Why the bytes behind the good frames are no frame.
    reason: Option<&'static str>,
}

/// A write that a crash interrupted, and that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Segment file.
    pub file: String,
    /// Where the write began.
    pub offset: u64,
    /// How much of it there is, in bytes.
    pub bytes: u64,
}

/// A log that was read to its end.
#[derive(Debug)]
pub struct Opened {
    /// Operations to perform, in order, before anything else. They blank a torn tail, and write the last frame once
    /// more: it may have been read from a cache whose content never reached the disk, and counts as durable from here on.
    pub repair: Vec<DiskOp>,
    /// What was cut, for the operator to read about.
    pub torn: Option<TornTail>,
    wal: Wal,
    hard: HardState,
    entries: Vec<Entry>,
}

impl Recovery {
    /// Begins with the names of all files in the log's directory; those that are no segments are left alone.
    #[must_use]
    pub fn begin(options: Options, names: impl IntoIterator<Item = impl AsRef<str>>) -> Recovery {
        let mut unread: Vec<u64> =
            names.into_iter().filter_map(|name| segment::parse_name(name.as_ref())).collect();
        unread.sort_unstable();
        Recovery {
            options,
            unread: unread.into(),
            segments: VecDeque::new(),
            expected: None,
            tail: None,
            stillborn: None,
            hard: HardState::default(),
            entries: Vec::new(),
            last: LogIndex(0),
        }
    }

    /// The file to read next; `None` when all were read.
    #[must_use]
    pub fn next_file(&self) -> Option<String> {
        self.unread.front().map(|first| segment::name(*first))
    }

    /// Takes the whole content of [`Recovery::next_file`].
    ///
    /// # Errors
    /// The log is damaged or written by a newer version. The recovery is of no further use.
    ///
    /// # Panics
    /// No file was asked for.
    pub fn feed(&mut self, file: &[u8]) -> Result<(), BadLog> {
        let first_sequence = self.unread.pop_front().expect("only what was asked for is fed");
        let name = segment::name(first_sequence);
        let is_last = self.unread.is_empty();
        let expected = *self.expected.get_or_insert(first_sequence);
        if first_sequence != expected {
            return Err(self.hole_before(name, first_sequence, expected));
        }
        self.read_segment(name, first_sequence, is_last, file)?;
        if is_last && first_sequence != 1 && !self.segments.iter().any(|segment| segment.has_frames) {
            return Err(BadLog::Missing { file: segment::name(first_sequence), expected: 1 });
        }
        Ok(())
    }

    fn read_segment(
        &mut self,
        name: String,
        first_sequence: u64,
        is_last: bool,
        file: &[u8],
    ) -> Result<(), BadLog> {
        let Some(header) = segment::Header::read(file) else {
            if is_last && frame::is_blank(file.get(segment::HEADER..).unwrap_or_default()) {
                self.stillborn = Some(name);
                return Ok(());
            }
            return Err(damaged(name, 0, "the header of the segment is bad"));
        };
        if header.version > frame::VERSION {
            return Err(newer(name, 0, header.version));
        }
        if header.first_sequence != first_sequence {
            return Err(damaged(name, 0, "the header belongs to another segment"));
        }
        if self.segments.is_empty() {
            self.last = header.follows;
        } else if header.follows != self.last && !planted(Bug::TruncateForgotten) {
            return Err(damaged(name, 0, "the header does not continue the former segment"));
        }
        self.read_frames(name, header, file)
    }

    /// Ends the recovery; `rng` draws what distinguishes this log's segments from anything a client could make up.
    ///
    /// # Panics
    /// A file was asked for and not fed.
    #[must_use]
    pub fn finish(self, rng: Rng) -> Opened {
        assert!(self.unread.is_empty(), "every file was read");
        let mut repair = Vec::new();
        if let Some(name) = self.stillborn {
            repair.extend([DiskOp::Remove { name }, DiskOp::SyncDir]);
        }
        let mut torn = None;
        if let Some(Tail { name, at, latest: (offset, bytes), dirty_to, .. }) = self.tail {
            if dirty_to > at {
                torn = Some(TornTail { file: name.clone(), offset: at, bytes: dirty_to - at });
                repair.push(DiskOp::Zero { name: name.clone(), from: at, to: dirty_to });
            }
            repair.push(DiskOp::Write { name: name.clone(), offset, bytes });
            repair.extend([DiskOp::Sync { name }, DiskOp::SyncDir]);
        }
        let position = Position {
            segments: self.segments,
            next_sequence: self.expected.unwrap_or(1),
            hard: self.hard,
            last: self.last,
        };
        Opened {
            repair,
            torn,
            wal: Wal::new(self.options, rng, position),
            hard: self.hard,
            entries: self.entries,
        }
    }

    fn read_frames(&mut self, name: String, header: segment::Header, file: &[u8]) -> Result<(), BadLog> {
        let mut expected = header.first_sequence;
        let mut at = segment::HEADER;
        let mut latest = 0..segment::HEADER;
        let mut last_index = LogIndex(0);
        let reason = loop {
            let Some(found) = frame::Header::read(file, at) else { break "no frame header" };
            if found.salt != header.salt || found.sequence != expected {
                return Err(damaged(name, at, "the frame belongs to another place"));
            }
            if found.version > frame::VERSION {
                return Err(newer(name, at, found.version));
            }
            let Some(body) = found.body(file, at) else {
                if planted(Bug::TornTailKept) {
                    let to = file.len().min(at + found.size());
                    let body = Bytes::copy_from_slice(&file[at + frame::HEADER..to]);
                    for record in record::decode_what_can_be(&body) {
                        drop(self.apply(record));
                    }
                }
                break "the checksum of the frame is wrong";
            };
            // A copy, so that one surviving entry does not keep the whole file in memory.
            let body = Bytes::copy_from_slice(body);
            let records =
                record::decode(&body).map_err(|error| undecodable(&name, at, &error.to_string()))?;
            if expected == header.first_sequence && !matches!(records.first(), Some(Record::HardState(_))) {
                return Err(undecodable(&name, at, "the segment does not begin with a hard state"));
            }
            for record in records {
                last_index = last_index.max(match &record {
                    Record::Entry(entry) => entry.index,
                    Record::Reset { index, .. } => *index,
                    Record::HardState(_) | Record::Truncate(_) => LogIndex(0),
                });
                self.apply(record).map_err(|reason| undecodable(&name, at, &reason))?;
            }
            latest = at..at + found.size();
            at += found.size();
            expected += 1;
        };
        let dirty_to =
            at + file[at.min(file.len())..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.segments.push_back(Segment {
            first_sequence: header.first_sequence,
            salt: header.salt,
            end: at as u64,
            zeroed: file.len() as u64,
            has_frames: expected > header.first_sequence,
            last_index,
        });
        self.expected = Some(expected);
        self.tail = Some(Tail {
            name: name.clone(),
            at: at as u64,
            latest: (latest.start as u64, Bytes::copy_from_slice(&file[latest])),
            dirty_to: dirty_to as u64,
            reason: (dirty_to > at).then_some(reason),
        });
        if dirty_to > at && self.unread.is_empty() {
            judge_tail(name, header.salt, file, at, expected)?;
        }
        Ok(())
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::HardState(hard) => self.hard = hard,
            Record::Entry(entry) if entry.index == self.last.next() => {
                self.last = entry.index;
                self.entries.push(entry);
            }
            // What a log without its truncations looks like to a reader that does not mind.
            Record::Entry(entry) if planted(Bug::TruncateForgotten) && entry.index <= self.last => {}
            Record::Entry(entry) => {
                return Err(format!("entry {} does not follow entry {}", entry.index, self.last));
            }
            Record::Truncate(index) => {
                let kept = self.entries.partition_point(|entry| entry.index < index);
                self.entries.truncate(kept);
                self.last = self.last.min(index.prev());
            }
            Record::Reset { index, .. } => {
                self.entries.clear();
                self.last = index;
            }
        }
        Ok(())
    }

    /// A file that does not begin with the expected frame: the former file ends too early, or is not there.
    fn hole_before(&mut self, file: String, first: u64, expected: u64) -> BadLog {
        match self.tail.take() {
            Some(Tail { name, at, reason: Some(reason), .. }) if first > expected => {
                damaged(name, at as usize, reason)
            }
            _ => BadLog::Missing { file, expected },
        }
    }
}

impl Opened {
    /// What the log holds, on top of a checkpoint. A checkpoint beyond the log, or in conflict with it, voids the log's
    /// entries: a crash came between an installed snapshot and the log's reset.
    ///
    /// # Errors
    /// [`BadLog::Gap`]: the log begins behind the checkpoint's end. [`BadLog::Absent`]: there is no log.
    pub fn with_snapshot(mut self, snapshot: SnapshotMeta) -> Result<(Wal, Recovered), BadLog> {
        if snapshot.index > LogIndex(0) && self.wal.is_new() {
            // The vote is gone as well, so this server must not take part in elections.
            return Err(BadLog::Absent { checkpoint: snapshot.index });
        }
        let last = self.wal.last_index();
        let follows = self.entries.first().map_or(last, |first| first.index.prev());
        if follows > snapshot.index {
            return Err(BadLog::Gap { log: follows, checkpoint: snapshot.index });
        }
        let conflicts =
            self.entries.iter().any(|entry| entry.index == snapshot.index && entry.term != snapshot.term);
        if last < snapshot.index || conflicts {
            marks::hit(Mark::LogRestartedBehindCheckpoint);
            self.entries.clear();
            self.wal.restart_after(snapshot.index, snapshot.term);
        }
        Ok((self.wal, Recovered { hard: self.hard, snapshot, entries: self.entries }))
    }
}

/// Decides whether the bytes behind the last good frame are a torn write. They are damage if anything was written after
/// them, or if nothing of them is missing.
fn judge_tail(name: String, salt: u64, file: &[u8], at: usize, expected: u64) -> Result<(), BadLog> {
    let later = (at + frame::ALIGN..file.len()).step_by(frame::ALIGN).find(|at| {
        frame::Header::read(file, *at).is_some_and(|found| found.salt == salt && found.sequence >= expected)
    });
    if later.is_some() {
        return Err(damaged(name, at, "a frame is bad, and later ones follow it"));
    }
    let size = frame::Header::read(file, at).map_or(frame::HEADER, |found| found.size());
    if frame::is_torn(file, at, at + size) {
        marks::hit(Mark::TornTailCut);
        return Ok(());
    }
    Err(damaged(name, at, "the last frame is bad, and no interrupted write explains it"))
}

fn damaged(file: String, offset: usize, reason: &str) -> BadLog {
    BadLog::Damaged { file, offset: offset as u64, reason: reason.into() }
}

fn newer(file: String, offset: usize, found: u16) -> BadLog {
    BadLog::NewerVersion { file, offset: offset as u64, found, known: frame::VERSION }
}

fn undecodable(file: &str, offset: usize, reason: &str) -> BadLog {
    BadLog::Undecodable { file: file.into(), offset: offset as u64, reason: reason.into() }
}
