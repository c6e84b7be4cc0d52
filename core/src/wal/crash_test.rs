//! Whatever a crash leaves of the disk, recovery returns what was acknowledged, at most one frame more, and nothing
//! else; and whatever rots, it notices.

use bytes::Bytes;
use proptest::prelude::*;

use super::test_disk::TestDisk;
use super::{BadLog, DiskOp, Options, Wal, Write, frame, record, segment};
use crate::ids::{LogIndex, Term, Uuid};
use crate::raft::{Entry, HardState, Payload, Record, Recovered, SnapshotMeta};
use crate::rng::Rng;
use crate::testing::frugal;
use crate::testing::fuzz::{cases, damaged, hostile};

const SMALL: Options =
    Options { segment_bytes_max: 4096, zero_step_first: 256, zero_step_max: 1024, frame_bytes_max: 1500 };

fn hard(term: u64) -> Record {
    Record::HardState(HardState { term: Term(term), vote: Some(Uuid(u128::from(term))) })
}

fn entry(term: u64, index: u64, size: usize) -> Record {
    // No byte is zero, so that no sector of an entry looks blank.
    let payload = Payload::Command(Bytes::from(vec![(index % 255) as u8 + 1; size]));
    Record::Entry(Entry { term: Term(term), index: LogIndex(index), payload })
}

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    hard: HardState,
    entries: Vec<Entry>,
    last: u64,
}

impl Model {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::HardState(hard) => self.hard = *hard,
            Record::Entry(entry) => {
                self.last = entry.index.0;
                self.entries.push(entry.clone());
            }
            Record::Truncate(index) => {
                self.entries.retain(|entry| entry.index < *index);
                self.last = self.last.min(index.0 - 1);
            }
            Record::Reset { index, .. } => {
                self.entries.clear();
                self.last = index.0;
            }
        }
    }

    fn matches(&self, found: &Recovered, needed_from: u64) -> bool {
        let needed = self.entries.iter().filter(|entry| entry.index.0 >= needed_from).count();
        self.hard == found.hard && self.entries.ends_with(&found.entries) && found.entries.len() >= needed
    }
}

/// A log on a disk, beside what it should hold.
struct World {
    disk: TestDisk,
    wal: Wal,
    /// All that is durable.
    durable: Model,
    /// All that was pushed.
    pushed: Model,
    in_flight: Vec<Write>,
    token: u64,
    acknowledged: u64,
    needed_from: u64,
    snapshot: SnapshotMeta,
}

impl World {
    fn new() -> World {
        World::with(SMALL)
    }

    fn with(options: Options) -> World {
        let disk = TestDisk::default();
        let (wal, _) =
            disk.recover(options).expect("empty").with_snapshot(SnapshotMeta::default()).expect("empty");
        World {
            disk,
            wal,
            durable: Model::default(),
            pushed: Model::default(),
            in_flight: Vec::new(),
            token: 0,
            acknowledged: 0,
            needed_from: 0,
            snapshot: SnapshotMeta::default(),
        }
    }

    fn push(&mut self, records: Vec<Record>) {
        records.iter().for_each(|record| self.pushed.apply(record));
        self.token += 1;
        self.wal.push(self.token, records, &mut self.in_flight);
        assert!(self.in_flight.len() <= 1, "one write at a time");
    }

    /// The records of a write.
    fn records(write: &Write) -> Vec<Record> {
        let body = write.ops.iter().find_map(|op| match op {
            DiskOp::Write { offset, bytes, .. } if *offset >= segment::HEADER as u64 => {
                let body = frame::Header::read(bytes, 0).expect("a frame").body(bytes, 0).expect("a body");
                Some(Bytes::copy_from_slice(body))
            }
            _ => None,
        });
        body.map(|body| record::decode(&body).expect("records")).unwrap_or_default()
    }

    /// Performs the write in flight; `false` if there was none.
    fn complete(&mut self) -> bool {
        let Some(write) = self.in_flight.pop() else { return false };
        self.disk.perform_all(&write);
        Self::records(&write).iter().for_each(|record| self.durable.apply(record));
        if let Some(token) = self.wal.on_done(write.id, &mut self.in_flight) {
            assert!(token > self.acknowledged, "tokens grow");
            self.acknowledged = token;
        }
        true
    }

    fn complete_all(&mut self) {
        while self.complete() {}
        assert_eq!(self.durable, self.pushed);
        assert_eq!(self.acknowledged, self.token);
    }

    /// A checkpoint of everything durable up to an index; the log before it is not needed.
    fn checkpoint(&mut self, index: u64) {
        // Only what is committed is in a checkpoint: it is not about to be voided, and checkpoints go forward.
        let found = self.durable.entries.iter().find(|entry| entry.index.0 == index);
        if let Some(entry) =
            found.filter(|entry| self.pushed.entries.contains(entry) && index >= self.needed_from)
        {
            self.snapshot = SnapshotMeta { index: entry.index, term: entry.term, ..SnapshotMeta::default() };
            self.needed_from = index + 1;
            self.wal.drop_before(LogIndex(index + 1), &mut self.in_flight);
        }
    }

    /// Power is lost somewhere in the write in flight; the server starts again, and may lose power while it does.
    fn crash(&mut self, rng: &mut Rng) {
        let mut more = self.durable.clone();
        if let Some(write) = self.in_flight.pop() {
            let performed = rng.below(write.ops.len() as u64 + 1) as usize;
            write.ops[..performed].iter().for_each(|op| self.disk.perform(op));
            Self::records(&write).iter().for_each(|record| more.apply(record));
        }
        // A process that dies leaves the caches of the system as they are; only power loss empties them.
        if rng.below(4) > 0 {
            self.disk.crash(rng);
        }
        loop {
            let opened = self.disk.recover(SMALL).expect("a crash is no damage");
            let repair = opened.repair.clone();
            let (wal, found) = opened.with_snapshot(self.snapshot.clone()).expect("the checkpoint fits");
            let interrupted = rng.below(3) == 0;
            let performed =
                if interrupted { rng.below(repair.len() as u64 + 1) as usize } else { repair.len() };
            repair[..performed].iter().for_each(|op| self.disk.perform(op));
            let model =
                [&self.durable, &more].into_iter().find(|model| model.matches(&found, self.needed_from));
            let Some(model) = model else {
                panic!("found {found:?}\nwanted {:?}\nor {more:?}", self.durable)
            };
            assert_eq!(wal.last_index().0, model.last);
            if !interrupted {
                // What was found counts only once the repair is done.
                self.durable = model.clone();
                self.wal = wal;
                break;
            }
            self.disk.crash(rng);
        }
        self.pushed = self.durable.clone();
        self.acknowledged = self.token;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Vote,
    Conflict(u64),
    Install(u64),
    Complete,
    Checkpoint(u64),
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 0..40usize, 2 => 40..700usize, 1 => 700..3000usize, 1 => Just(6000usize)];
    let step = prop_oneof![
        6 => prop::collection::vec(size, 1..5).prop_map(Step::Append),
        2 => Just(Step::Vote),
        1 => (0..4u64).prop_map(Step::Conflict),
        1 => (0..20u64).prop_map(Step::Install),
        6 => Just(Step::Complete),
        2 => (0..8u64).prop_map(Step::Checkpoint),
        3 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_loses_nothing_acknowledged_and_invents_nothing(steps in steps()) {
        let mut world = World::new();
        let mut term = 1;
        for step in steps {
            let last = world.pushed.last;
            match step {
                Step::Append(sizes) => {
                    let records = sizes.iter().enumerate().map(|(at, size)| entry(term, last + 1 + at as u64, *size));
                    world.push(records.collect());
                }
                Step::Vote => {
                    term += 1;
                    world.push(vec![hard(term)]);
                }
                Step::Conflict(back) => {
                    // What a checkpoint includes is committed and never conflicts.
                    let from = last.saturating_sub(back).max(world.needed_from).max(1);
                    if world.pushed.entries.first().is_some_and(|first| first.index.0 <= from) && from <= last {
                        world.push(vec![Record::Truncate(LogIndex(from)), entry(term, from, 10)]);
                    }
                }
                Step::Install(ahead) => {
                    world.complete_all();
                    // The snapshot is durable before the log starts over.
                    let index = LogIndex(world.pushed.last + ahead);
                    if index.0 == 0 || world.wal.is_new() {
                        continue;
                    }
                    world.snapshot = SnapshotMeta { index, term: Term(term), ..SnapshotMeta::default() };
                    world.needed_from = index.0 + 1;
                    world.push(vec![Record::Reset { index, term: Term(term) }]);
                    world.complete_all();
                }
                Step::Complete => drop(world.complete()),
                Step::Checkpoint(back) => world.checkpoint(world.durable.last.saturating_sub(back)),
                Step::Crash(seed) => world.crash(&mut Rng::from_seed(seed)),
            }
        }
        world.complete_all();
        world.crash(&mut Rng::from_seed(0));
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn hostile_files_are_refused_or_hold_nothing_that_was_not_written(
        which in any::<prop::sample::Index>(),
        damage in damaged(Just(b"0123456789abcdefghijklmnopqrstuvwxyz".repeat(120))),
        anything in hostile(Just(Vec::new()), 5_000),
        replaced in any::<bool>(),
    ) {
        let world = written();
        let mut disk = world.disk.clone();
        let name = which.get(&disk.files.keys().cloned().collect::<Vec<_>>()).clone();
        let file = &mut disk.files.get_mut(&name).expect("one of them").view;
        if replaced {
            *file = anything;
        } else {
            // What happened to the sample happens to the file.
            let (before, after) = &damage;
            let spoiled = |at: usize| before.get(at) != after.get(at);
            let len = if after.len() < before.len() { file.len() * after.len() / before.len() } else { file.len() };
            file.truncate(len);
            (0..len).filter(|at| spoiled(*at)).for_each(|at| file[at] ^= after.get(at).copied().unwrap_or(1).max(1));
        }
        let bytes = disk.files.values().map(|file| file.view.len()).sum();
        if let Ok(opened) = frugal(bytes, || disk.recover(SMALL))
            && let Ok((_, found)) = opened.with_snapshot(world.snapshot.clone())
        {
            for entry in &found.entries {
                prop_assert!(world.pushed.entries.contains(entry), "{:?} was never written", entry);
            }
        }
    }
}

/// A log of several segments, all of it durable.
fn written() -> World {
    written_with(300, SMALL.segment_bytes_max)
}

/// The same with entries of another size.
fn written_with(size: usize, segment_bytes_max: u64) -> World {
    let mut world = World::with(Options { segment_bytes_max, ..SMALL });
    world.push(vec![hard(3)]);
    for index in 1..=26 {
        world.complete_all();
        world.push(vec![entry(3, index, size + index as usize)]);
    }
    world.complete_all();
    assert!(world.disk.files.len() >= 3);
    world
}

fn ends(world: &World) -> Vec<(String, usize)> {
    let end = |view: &[u8]| view.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    world.disk.files.iter().map(|(name, file)| (name.clone(), end(&file.view))).collect()
}

#[test]
fn every_flipped_bit_of_the_log_is_refused() {
    let world = written_with(10, 1024);
    let mut disk = world.disk.clone();
    for (name, end) in ends(&world) {
        for bit in 0..end * 8 {
            disk.flip(&name, bit);
            assert!(disk.recover(SMALL).is_err(), "{name} bit {bit}");
            disk.flip(&name, bit);
        }
    }
}

#[test]
fn a_flipped_bit_behind_the_log_loses_nothing() {
    let world = written_with(10, 1024);
    let mut disk = world.disk.clone();
    for (name, end) in ends(&world) {
        for bit in end * 8..world.disk.files[&name].view.len() * 8 {
            disk.flip(&name, bit);
            if let Ok(opened) = disk.recover(SMALL) {
                let (_, found) = opened.with_snapshot(SnapshotMeta::default()).expect("no checkpoint");
                assert!(world.durable.matches(&found, 0), "{name} bit {bit}");
            }
            disk.flip(&name, bit);
        }
    }
}

#[test]
fn a_blanked_sector_in_the_middle_is_refused_with_file_and_offset() {
    let mut world = written();
    let (name, _) = ends(&world).swap_remove(0);
    world.disk.files.get_mut(&name).expect("first").view[1024..1536].fill(0);
    let error = world.disk.recover(SMALL).expect_err("frames are gone");
    let BadLog::Damaged { file, offset, .. } = &error else { panic!("{error}") };
    assert!(*file == name && (513..=1536).contains(offset), "{error}");
    assert!(error.to_string().contains("operator raft repair -data-dir DIR"), "{error}");
}

#[test]
fn a_missing_segment_is_refused() {
    let world = written();
    let names: Vec<String> = world.disk.files.keys().cloned().collect();
    let mut disk = world.disk.clone();
    disk.files.remove(&names[1]);
    assert!(matches!(disk.recover(SMALL), Err(BadLog::Missing { file, .. }) if file == names[2]));
    let mut disk = world.disk.clone();
    disk.files.remove(&names[0]);
    let opened = disk.recover(SMALL).expect("looks like a log whose beginning was dropped");
    assert!(matches!(opened.with_snapshot(SnapshotMeta::default()), Err(BadLog::Gap { .. })));
    let snapshot = SnapshotMeta { index: LogIndex(5), ..SnapshotMeta::default() };
    let empty = TestDisk::default().recover(SMALL).expect("nothing to read");
    assert!(matches!(empty.with_snapshot(snapshot), Err(BadLog::Absent { .. })));
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let mut world = written();
    let (name, end) = ends(&world).pop().expect("segments");
    world.push(vec![entry(3, 27, 1200)]);
    let write = world.in_flight.pop().expect("in flight");
    write.ops.iter().for_each(|op| world.disk.perform(op));
    let lost = (end + 600).next_multiple_of(512);
    let file = world.disk.files.get_mut(&name).expect("the last one");
    file.view[lost..lost + 512].fill(0);
    let opened = world.disk.recover(SMALL).expect("torn, not damaged");
    let torn = opened.torn.clone().expect("something was cut");
    assert!(torn.file == name && torn.offset >= end as u64 && torn.offset < lost as u64, "{torn:?}");
    opened.repair.iter().for_each(|op| world.disk.perform(op));
    let (wal, found) = opened.with_snapshot(SnapshotMeta::default()).expect("no checkpoint");
    assert!(world.durable.matches(&found, 0));
    world.wal = wal;
    world.pushed = world.durable.clone();
    world.acknowledged = world.token;
    assert_eq!(world.disk.recover(SMALL).expect("repaired").torn, None);
    world.push(vec![entry(3, 27, 10)]);
    world.complete_all();
    world.crash(&mut Rng::from_seed(1));
}

#[test]
fn damage_followed_by_a_torn_write_is_still_refused() {
    let mut world = written();
    let (name, end) = ends(&world).pop().expect("segments");
    world.push(vec![entry(3, 27, 1200)]);
    let write = world.in_flight.pop().expect("in flight");
    write.ops.iter().for_each(|op| world.disk.perform(op));
    let file = world.disk.files.get_mut(&name).expect("the last one");
    file.view[(end + 600).next_multiple_of(512)..].fill(0);
    world.disk.flip(&name, (end - 20) * 8);
    assert!(matches!(world.disk.recover(SMALL), Err(BadLog::Damaged { .. })));
}

#[test]
fn segments_roll_and_are_dropped_when_a_checkpoint_covers_them() {
    let mut world = written();
    let before = world.wal.segment_count();
    assert!(before >= 3);
    world.checkpoint(15);
    world.complete_all();
    assert!(world.wal.segment_count() < before);
    world.checkpoint(26);
    world.complete_all();
    assert_eq!(world.wal.segment_count(), 1);
    assert_eq!(world.disk.files.len(), 1);
    let (_, found) =
        world.disk.recover(SMALL).expect("good").with_snapshot(world.snapshot.clone()).expect("fits");
    assert_eq!(found.hard.term, Term(3));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let world = written();
    let name = world.disk.files.keys().next().expect("a segment").clone();
    let mut disk = world.disk.clone();
    let file = &mut disk.files.get_mut(&name).expect("a segment").view;
    let header = segment::Header { version: 2, ..segment::Header::read(file).expect("good") };
    file[..segment::HEADER].copy_from_slice(&header.encode());
    let error = disk.recover(SMALL).expect_err("newer");
    assert!(matches!(error, BadLog::NewerVersion { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("written by a newer version"), "{error}");
}

#[test]
fn a_good_checksum_over_something_else_is_refused_and_does_not_panic() {
    let mut world = World::new();
    world.push(vec![hard(1)]);
    world.complete_all();
    let (name, end) = ends(&world).pop().expect("a segment");
    let end = end.next_multiple_of(8);
    let file = &mut world.disk.files.get_mut(&name).expect("a segment").view;
    let mut odd = frame::buffer();
    odd.extend_from_slice(&[0x77; 30]);
    frame::seal(&mut odd, 2, segment::Header::read(file).expect("good").salt);
    file.resize(8192, 0);
    file[end..end + odd.len()].copy_from_slice(&odd);
    assert!(matches!(world.disk.recover(SMALL), Err(BadLog::Undecodable { .. })));
}

#[test]
fn records_that_arrive_during_a_write_share_the_next_frame() {
    let mut world = World::new();
    world.push(vec![entry(1, 1, 10)]);
    for index in 2..=10 {
        world.push(vec![entry(1, index, 10)]);
    }
    assert_eq!(World::records(&world.in_flight[0]).len(), 2);
    assert!(world.complete());
    assert_eq!((world.acknowledged, World::records(&world.in_flight[0]).len()), (1, 9));
    assert!(world.complete());
    assert_eq!(world.acknowledged, 10);
    assert!(!world.complete());
}

#[test]
fn a_large_backlog_is_split_and_a_large_record_goes_alone() {
    let mut world = World::new();
    world.push(vec![hard(1)]);
    world.push(vec![entry(1, 1, 600), entry(1, 2, 600), entry(1, 3, 600), entry(1, 4, 9000), entry(1, 5, 1)]);
    let mut counts = Vec::new();
    while world.complete() {
        counts.extend(world.in_flight.first().map(|write| (World::records(write).len(), world.acknowledged)));
    }
    // The one with the large record begins a segment, and so does the one behind it: hence the hard states.
    assert_eq!(counts, [(2, 1), (1, 1), (2, 1), (2, 1)]);
    assert_eq!(world.acknowledged, 2);
    world.crash(&mut Rng::from_seed(2));
}

#[test]
fn a_checkpoint_beyond_the_log_starts_the_log_over() {
    let mut world = written();
    let snapshot = SnapshotMeta { index: LogIndex(50), term: Term(4), ..SnapshotMeta::default() };
    let opened = world.disk.recover(SMALL).expect("good");
    let (wal, found) = opened.with_snapshot(snapshot.clone()).expect("the checkpoint is later");
    assert!(found.entries.is_empty());
    assert_eq!(found.hard.term, Term(3));
    world.wal = wal;
    world.snapshot = snapshot;
    world.in_flight.clear();
    world.wal.push(1, vec![entry(4, 51, 5)], &mut world.in_flight);
    let write = world.in_flight.pop().expect("in flight");
    world.disk.perform_all(&write);
    let (_, found) = world.disk.recover(SMALL).expect("good").with_snapshot(world.snapshot).expect("fits");
    assert_eq!(found.entries.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), [51]);
}

#[test]
fn frames_lie_back_to_back_in_a_zero_filled_file() {
    let mut world = World::new();
    world.push(vec![entry(1, 1, 3)]);
    let ops = world.in_flight[0].ops.clone();
    let name = segment::name(1);
    assert_eq!(ops[0], DiskOp::Create { name: name.clone() });
    assert!(matches!(&ops[1], DiskOp::Write { offset: 0, bytes, .. } if bytes.len() == 64));
    assert_eq!(ops[2], DiskOp::Zero { name: name.clone(), from: 64, to: 256 });
    assert_eq!(ops[3..5], [DiskOp::Sync { name: name.clone() }, DiskOp::SyncDir]);
    assert!(matches!(&ops[5], DiskOp::Write { offset: 64, bytes, .. } if bytes.len() == 56));
    assert_eq!(ops[6..], [DiskOp::Sync { name: name.clone() }]);
    world.complete_all();
    world.push(vec![entry(1, 2, 3)]);
    assert!(
        matches!(&world.in_flight[0].ops[0], DiskOp::Write { offset: 120, bytes, .. } if bytes.len() == 56)
    );
    assert_eq!(world.in_flight[0].ops.len(), 2);
    world.complete_all();
    world.push(vec![entry(1, 3, 200)]);
    assert_eq!(world.in_flight[0].ops[1], DiskOp::Zero { name, from: 424, to: 680 });
}
