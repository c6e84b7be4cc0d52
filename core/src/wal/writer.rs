//! The writing side: gathers records into frames, rolls and removes segments, and keeps one write in flight.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{DiskOp, Options, Write, frame, record, segment};
use crate::ids::{LogIndex, Term};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};
use crate::raft::{HardState, Record};
use crate::rng::Rng;

/// The durable log of one Raft member, open for writing.
#[derive(Debug)]
pub struct Wal {
    options: Options,
    /// Draws salts.
    rng: Rng,
    /// Oldest first. The last one is written to; the ones before it are complete. Empty only in a new log.
    segments: VecDeque<Segment>,
    /// Sequence number of the next frame to hand out.
    next_sequence: u64,
    /// The hard state as of the last frame handed out.
    hard: HardState,
    /// Index of the last entry as of the last frame handed out.
    written_last: LogIndex,
    /// Index of the last entry as of the last record pushed. The next entry follows it.
    last: LogIndex,
    /// Goes ahead of whatever is pushed next.
    reset: Option<(LogIndex, Term)>,
    /// Frames that wait for the write in flight, oldest first.
    gathered: VecDeque<Gathered>,
    in_flight: Option<InFlight>,
    next_write: u64,
    /// Entries below this index are not needed.
    needed_from: LogIndex,
}

/// A segment file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) first_sequence: u64,
    pub(super) salt: u64,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Up to where the file is filled with zeros. May be less than `end` after a very large frame.
    pub(super) zeroed: u64,
    /// Whether it holds at least one frame, and so a hard state.
    pub(super) has_frames: bool,
    /// The highest index of an entry in it, or of a reset; zero if there is none.
    pub(super) last_index: LogIndex,
}

/// A frame in the making.
#[derive(Debug)]
struct Gathered {
    buffer: Vec<u8>,
    /// The last push that is complete with this frame.
    token: Option<u64>,
    /// The last hard state in it.
    hard: Option<HardState>,
    /// The highest index of an entry or reset in it.
    highest: LogIndex,
    /// Index of the log's last entry behind it.
    last: LogIndex,
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    token: Option<u64>,
}

/// What recovery found, as far as writing goes on from it.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) segments: VecDeque<Segment>,
    pub(super) next_sequence: u64,
    pub(super) hard: HardState,
    pub(super) last: LogIndex,
}

impl Segment {
    pub(super) fn name(&self) -> String {
        segment::name(self.first_sequence)
    }
}

impl Wal {
    pub(super) fn new(options: Options, rng: Rng, position: Position) -> Wal {
        assert!(
            (1..=options.zero_step_max).contains(&options.zero_step_first),
            "zero-filling makes progress"
        );
        let Position { segments, next_sequence, hard, last } = position;
        Wal {
            options,
            rng,
            segments,
            next_sequence,
            hard,
            written_last: last,
            last,
            reset: None,
            gathered: VecDeque::new(),
            in_flight: None,
            next_write: 1,
            needed_from: LogIndex(0),
        }
    }

    /// Adds records behind everything pushed before. `token` grows from push to push; it is returned by
    /// [`Wal::on_done`] when these records are durable.
    ///
    /// # Panics
    /// There are no records, or an entry does not follow the log's last one: a defect of the caller.
    pub fn push(&mut self, token: u64, records: Vec<Record>, out: &mut Vec<Write>) {
        assert!(!records.is_empty(), "a push has records");
        if let Some((index, term)) = self.reset.take() {
            self.gather(&Record::Reset { index, term });
        }
        for record in &records {
            self.gather(record);
        }
        self.gathered.back_mut().expect("records were just gathered").token = Some(token);
        self.emit(out);
    }

    /// The write in flight is durable. Returns the highest token that is durable by it, if there is a new one, and
    /// hands out the next write.
    ///
    /// # Panics
    /// `write` is not the one in flight: the adapter broke its contract.
    pub fn on_done(&mut self, write: u64, out: &mut Vec<Write>) -> Option<u64> {
        let done = self.in_flight.take().expect("a completion has its write");
        assert_eq!(done.id, write, "completions come in the order of the writes");
        self.emit(out);
        done.token
    }

    /// Entries below `index` are not needed any more: a durable checkpoint includes them. Removes whole segments.
    pub fn drop_before(&mut self, index: LogIndex, out: &mut Vec<Write>) {
        self.needed_from = self.needed_from.max(index);
        self.emit(out);
    }

    /// Index of the last entry, durable or not; or what the next one follows.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.last
    }

    /// Number of bytes that wait for the write in flight.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.gathered.iter().map(|frame| frame.buffer.len()).sum()
    }

    /// Number of segment files.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Whether nothing was ever written.
    pub(super) fn is_new(&self) -> bool {
        !self.segments.iter().any(|segment| segment.has_frames)
    }

    /// Every entry is void, the next one follows this one. Recorded together with the next push; until then, each
    /// restart comes to the same result.
    pub(super) fn restart_after(&mut self, index: LogIndex, term: Term) {
        self.reset = Some((index, term));
        self.last = index;
    }

    fn gather(&mut self, record: &Record) {
        let fresh = || Gathered {
            buffer: frame::buffer(),
            token: None,
            hard: None,
            highest: LogIndex(0),
            last: LogIndex(0),
        };
        if self.gathered.is_empty() {
            self.gathered.push_back(fresh());
        }
        if planted(Bug::TruncateForgotten) && matches!(record, Record::Truncate(_)) {
            self.follow(record);
            return;
        }
        let frame = self.gathered.back_mut().expect("just made");
        let before = frame.buffer.len();
        frame.buffer = record::encode(record, std::mem::take(&mut frame.buffer));
        if before > frame::HEADER && frame.buffer.len() > frame::HEADER + self.options.frame_bytes_max {
            marks::hit(Mark::FrameSplit);
            let tail = frame.buffer.split_off(before);
            let mut next = fresh();
            next.buffer.extend_from_slice(&tail);
            self.gathered.push_back(next);
        }
        self.follow(record);
    }

    /// Keeps account of what a record does to the log.
    fn follow(&mut self, record: &Record) {
        let frame = self.gathered.back_mut().expect("a frame is being gathered");
        match record {
            Record::HardState(hard) => frame.hard = Some(*hard),
            Record::Entry(entry) => {
                assert_eq!(entry.index, self.last.next(), "an entry follows the log's last one");
                self.last = entry.index;
                frame.highest = frame.highest.max(entry.index);
            }
            Record::Truncate(index) => self.last = self.last.min(index.prev()),
            Record::Reset { index, .. } => {
                self.last = *index;
                frame.highest = frame.highest.max(*index);
            }
        }
        frame.last = self.last;
    }

    /// Hands out the next write, if none is in flight and there is something to do.
    fn emit(&mut self, out: &mut Vec<Write>) {
        if self.in_flight.is_some() {
            return;
        }
        let mut ops = Vec::new();
        let mut token = None;
        // A frame may be empty only when a planted defect swallowed its records.
        if let Some(frame) = self.gathered.pop_front() {
            token = frame.token;
            if frame.buffer.len() > frame::HEADER {
                self.write_frame(frame, &mut ops);
            }
        }
        if let Some(name) = self.pop_removable() {
            marks::hit(Mark::SegmentRemoved);
            // One at a time: a crash may undo any removal that was not synced, and must not leave a hole.
            ops.extend([DiskOp::Remove { name }, DiskOp::SyncDir]);
        }
        if ops.is_empty() && token.is_none() {
            return;
        }
        let id = self.next_write;
        self.next_write += 1;
        self.in_flight = Some(InFlight { id, token });
        out.push(Write { id, ops });
    }

    fn write_frame(&mut self, frame: Gathered, ops: &mut Vec<DiskOp>) {
        let mut buffer = frame.buffer;
        let size = frame::size(buffer.len() - frame::HEADER) as u64;
        let fits = self.segments.back().is_some_and(|segment| {
            !segment.has_frames || segment.end + size <= self.options.segment_bytes_max
        });
        if !fits {
            self.begin_segment(ops);
        }
        let segment = self.segments.back_mut().expect("begun if there was none");
        if !segment.has_frames {
            let mut headed = record::encode(&Record::HardState(self.hard), frame::buffer());
            headed.extend_from_slice(&buffer[frame::HEADER..]);
            buffer = headed;
        }
        frame::seal(&mut buffer, self.next_sequence, segment.salt);
        self.next_sequence += 1;
        let name = segment.name();
        let offset = segment.end;
        segment.end += buffer.len() as u64;
        segment.has_frames = true;
        segment.last_index = segment.last_index.max(frame.highest);
        ops.push(DiskOp::Write { name: name.clone(), offset, bytes: Bytes::from(buffer) });
        if segment.end > segment.zeroed {
            let step = segment.zeroed.clamp(self.options.zero_step_first, self.options.zero_step_max);
            let to = (segment.end + step).min(self.options.segment_bytes_max);
            if to > segment.end {
                ops.push(DiskOp::Zero { name: name.clone(), from: segment.end, to });
            }
            segment.zeroed = to.max(segment.end);
        }
        if !planted(Bug::SyncSkipped) {
            ops.push(DiskOp::Sync { name });
        }
        self.hard = frame.hard.unwrap_or(self.hard);
        self.written_last = frame.last;
    }

    /// Begins a segment. Its header is durable before a frame is written, so that a bad header always means either a
    /// segment without frames or damage.
    fn begin_segment(&mut self, ops: &mut Vec<DiskOp>) {
        let salt = self.rng.next_u64();
        let header = segment::Header::new(self.next_sequence, salt, self.written_last).encode();
        let segment = Segment {
            first_sequence: self.next_sequence,
            salt,
            end: segment::HEADER as u64,
            zeroed: self.options.zero_step_first.max(segment::HEADER as u64),
            has_frames: false,
            last_index: LogIndex(0),
        };
        let name = segment.name();
        ops.push(DiskOp::Create { name: name.clone() });
        ops.push(DiskOp::Write { name: name.clone(), offset: 0, bytes: Bytes::copy_from_slice(&header) });
        ops.push(DiskOp::Zero { name: name.clone(), from: segment.end, to: segment.zeroed });
        ops.push(DiskOp::Sync { name });
        ops.push(DiskOp::SyncDir);
        self.segments.push_back(segment);
    }

    /// Takes the oldest segment if nothing in it is needed. A later one has frames, and so the hard state; whatever is
    /// not yet durable of it becomes so before the removal.
    fn pop_removable(&mut self) -> Option<String> {
        let oldest = self.segments.front()?;
        let is_needed = oldest.last_index >= self.needed_from && !planted(Bug::SegmentRemovedEarly);
        let removable = !is_needed && self.segments.iter().skip(1).any(|later| later.has_frames);
        if !removable {
            return None;
        }
        self.segments.pop_front().map(|segment| segment.name())
    }
}
