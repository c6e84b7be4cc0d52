//! A server's disk in memory: the log with the very bytes that production writes, checkpoints, and what the agent keeps for
//! itself. A crash loses what was not synced, and may tear it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::Text;
use crate::boundary::{Checkpoint, Input};
use crate::ids::OpId;
use crate::raft::SnapshotMeta;
use crate::rng::Rng;
use crate::wal::test_disk::TestDisk;
use crate::wal::{Options, Write};

/// A write takes up to so long.
const WRITE_MAX: Duration = Duration::from_millis(3);

/// Small segments, so that some are removed.
const OPTIONS: Options = Options {
    segment_bytes_max: 16 << 10,
    zero_step_first: 4 << 10,
    zero_step_max: 16 << 10,
    frame_bytes_max: 1 << 20,
};

/// Something to be written.
#[derive(Debug)]
pub enum Job {
    /// Part of the log.
    Log(Write),
    /// The state.
    Checkpoint(OpId, Box<Checkpoint>),
    /// The agent's own state.
    Local(OpId, Vec<(Text, Option<Bytes>)>),
}

/// One server's disk.
#[derive(Debug)]
pub struct Disk {
    rng: Rng,
    log: TestDisk,
    checkpoint: (SnapshotMeta, Store),
    local: BTreeMap<Text, Bytes>,
    /// What the process has asked for, in order.
    jobs: VecDeque<Job>,
    /// When the last of them is done, counted from when the first was asked for; grows so that order is kept.
    busy: Duration,
}

impl Disk {
    /// An empty one.
    pub fn new(rng: Rng) -> Disk {
        Disk {
            rng,
            log: TestDisk::default(),
            checkpoint: (SnapshotMeta::default(), Store::default()),
            local: BTreeMap::new(),
            jobs: VecDeque::new(),
            busy: Duration::ZERO,
        }
    }

    /// What a process that starts finds.
    pub fn restore(&mut self) -> Restored {
        let opened = self.log.recover_with(OPTIONS, self.rng.fork(0)).expect("a crash damages nothing");
        self.rng.next_u64();
        let (meta, store) = self.checkpoint.clone();
        let (wal, raft) = opened.with_snapshot(meta).expect("log and checkpoint belong together");
        let local = self.local.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Restored { raft, store, local, wal: Some(wal) }
    }

    /// Takes a job; after which time the next of all is done.
    pub fn begin(&mut self, job: Job) -> Duration {
        if self.jobs.is_empty() {
            self.busy = Duration::ZERO;
        }
        self.jobs.push_back(job);
        self.busy += self.rng.duration_below(WRITE_MAX);
        self.busy
    }

    /// The oldest job is done.
    pub fn finish(&mut self) -> Input {
        match self.jobs.pop_front().expect("each job is done once") {
            Job::Log(write) => {
                write.ops.iter().for_each(|op| self.log.perform(op));
                Input::Logged { write: write.id, result: Ok(()) }
            }
            Job::Checkpoint(op, checkpoint) => {
                self.checkpoint = (checkpoint.meta, checkpoint.store);
                Input::Saved { op, result: Ok(()) }
            }
            Job::Local(op, changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => self.local.insert(key, value),
                        None => self.local.remove(&key),
                    };
                }
                Input::Saved { op, result: Ok(()) }
            }
        }
    }

    /// Power is lost: of the write to the log that was under way a part is done, and what of it was not synced is kept, lost or
    /// torn. All else that was not done is not.
    pub fn crash(&mut self) {
        let write = self.jobs.drain(..).find_map(|job| match job {
            Job::Log(write) => Some(write),
            Job::Checkpoint(..) | Job::Local(..) => None,
        });
        if let Some(write) = write {
            let done = self.rng.below(write.ops.len() as u64 + 1) as usize;
            write.ops[..done].iter().for_each(|op| self.log.perform(op));
        }
        self.log.crash(&mut self.rng);
    }
}
