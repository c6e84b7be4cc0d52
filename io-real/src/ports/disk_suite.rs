//! What every implementation of [`Disk`] is held to: included by the tests of the real one and of the simulated one.

use std::io::ErrorKind;

use bytes::Bytes;
use proconsul_core::boundary::Input;
use proconsul_core::ids::{LogIndex, Term};
use proconsul_core::raft::{Entry, HardState, Payload, Record, Recovered, SnapshotMeta};
use proconsul_core::rng::Rng;
use proconsul_core::wal::{Options, Wal, Write};
use proconsul_io_real::log_writer::{LogJob, open_log, write_log};
use proconsul_io_real::ports::Disk;
use tokio::sync::mpsc;

/// A whole file, however small the parts that the disk hands out.
async fn whole(disk: &mut impl Disk, name: &str) -> Vec<u8> {
    let length = disk.len(name).await.expect("a file");
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let part = disk.read_at(name, bytes.len() as u64, length).await.expect("readable");
        assert!(!part.is_empty(), "nothing only at the end");
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// The contract, call by call.
pub(crate) async fn a_disk_keeps_its_contract(disk: &mut impl Disk) {
    assert_eq!(disk.list().await.expect("listed"), [""; 0]);
    disk.create("b").await.expect("created");
    disk.create("a").await.expect("created");
    assert_eq!(disk.create("a").await.expect_err("exists").kind(), ErrorKind::AlreadyExists);
    disk.sync_dir().await.expect("synced");
    assert_eq!(disk.list().await.expect("listed"), ["a", "b"]);

    assert_eq!(disk.len("a").await.expect("a file"), 0);
    disk.write_at("a", 4, Bytes::from_static(b"tail")).await.expect("written");
    assert_eq!(whole(disk, "a").await, b"\0\0\0\0tail");
    disk.write_at("a", 2, Bytes::from_static(b"head")).await.expect("written");
    assert_eq!(whole(disk, "a").await, b"\0\0headil");
    disk.zero("a", 3, 5).await.expect("written");
    assert_eq!(whole(disk, "a").await, b"\0\0h\0\0dil");
    disk.zero("a", 7, 700_000).await.expect("written");
    assert_eq!(disk.len("a").await.expect("a file"), 700_000);
    disk.sync("a").await.expect("synced");
    let bytes = whole(disk, "a").await;
    assert_eq!(bytes[..9], *b"\0\0h\0\0di\0\0");
    assert!(bytes[9..].iter().all(|byte| *byte == 0));
    assert_eq!(disk.read_at("a", 700_000, 10).await.expect("the end"), Bytes::new());
    assert_eq!(disk.read_at("a", 800_000, 10).await.expect("beyond it"), Bytes::new());

    for error in [
        disk.read_at("c", 0, 1).await.expect_err("missing"),
        disk.len("c").await.expect_err("missing"),
        disk.write_at("c", 0, Bytes::from_static(b"x")).await.expect_err("missing"),
        disk.zero("c", 0, 1).await.expect_err("missing"),
        disk.sync("c").await.expect_err("missing"),
        disk.remove("c").await.expect_err("missing"),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains('c'), "{error}");
    }

    disk.remove("b").await.expect("removed");
    disk.sync_dir().await.expect("synced");
    assert_eq!(disk.list().await.expect("listed"), ["a"]);
    disk.create("b").await.expect("free again");
    assert_eq!(disk.len("b").await.expect("a file"), 0);
}

const SMALL: Options =
    Options { segment_bytes_max: 8192, zero_step_first: 512, zero_step_max: 2048, frame_bytes_max: 2000 };

/// A log over a disk, with its lane.
pub(crate) struct Log<D> {
    disk: D,
    wal: Wal,
    out: Vec<Write>,
}

impl<D: Disk> Log<D> {
    /// Opens the log; also gives what it held.
    pub(crate) async fn open(mut disk: D) -> (Log<D>, Recovered) {
        let opened = open_log(&mut disk, SMALL, Rng::from_seed(1)).await.expect("a good log");
        let (wal, recovered) = opened.with_snapshot(SnapshotMeta::default()).expect("no checkpoint");
        (Log { disk, wal, out: Vec::new() }, recovered)
    }

    /// Appends an entry of this size, and lets the lane work until nothing is in flight or it fails.
    pub(crate) async fn append(&mut self, size: usize) -> Result<(), String> {
        let index = self.wal.last_index().next();
        let payload = Payload::Command(Bytes::from(vec![index.0 as u8; size]));
        let entry = Entry { term: Term(1), index, payload };
        let hard = HardState { term: Term(index.0), vote: None };
        self.wal.push(index.0, vec![Record::HardState(hard), Record::Entry(entry)], &mut self.out);
        while let Some(write) = self.out.pop() {
            let (id, result) = self.perform(write).await;
            result?;
            self.wal.on_done(id, &mut self.out);
        }
        Ok(())
    }

    async fn perform(&mut self, write: Write) -> (u64, Result<(), String>) {
        let (jobs, from_core) = mpsc::channel(1);
        let (to_core, mut done) = mpsc::channel(1);
        jobs.send(LogJob::Write(write)).await.expect("room for one");
        drop(jobs);
        write_log(&mut self.disk, from_core, to_core).await;
        match done.recv().await.expect("a completion") {
            Input::Logged { write, result } => (write, result),
            Input::Full { reason, .. } => (0, Err(reason)),
            other => panic!("{other:?}"),
        }
    }
}

/// Several restarts of a log, each of which finds all that was acknowledged. `reopen` gives the disk as the next process
/// finds it.
pub(crate) async fn a_log_recovers_what_was_acknowledged<D: Disk>(disk: D, reopen: impl Fn(D) -> D) {
    let (mut log, recovered) = Log::open(disk).await;
    assert_eq!(recovered, Recovered::default());
    let mut expected = 0;
    for round in 0..4 {
        for size in [1, 300, 2500, 9000] {
            log.append(size + round).await.expect("a good disk");
            expected += 1;
        }
        let recovered;
        (log, recovered) = Log::open(reopen(log.disk)).await;
        assert_eq!(recovered.entries.len(), expected);
        assert_eq!(recovered.hard.term, Term(expected as u64));
        assert_eq!(recovered.entries.last().map(|entry| entry.index), Some(LogIndex(expected as u64)));
    }
    let mut out = Vec::new();
    log.wal.drop_before(LogIndex(expected as u64 + 1), &mut out);
    while let Some(write) = out.pop() {
        let (id, result) = log.perform(write).await;
        result.expect("a good disk");
        log.wal.on_done(id, &mut out);
    }
    assert_eq!(log.wal.segment_count(), 1);
    assert_eq!(log.disk.list().await.expect("listed").len(), 1);
}
