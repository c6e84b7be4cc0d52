//! A full disk: the agent writes nothing, serves what it has, says so, and goes on by itself when there is room again.
//!
//! A write that finds no room is not done, and whoever performs it keeps it: it is a write that takes long, of which is
//! known why. Nothing that depends on it is said meanwhile, as with any write under way. A server in this state gives
//! leadership away, because it cannot acknowledge anything; if nobody can take it, it goes on leading for the sake of
//! reads and refuses writes. It stands in no election.
//!
//! The agent's own state is saved in one job at a time, and what changes meanwhile is gathered by key: however long the
//! disk is full, no queue grows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::jobs::{Job, JobId, Origin, Stage};
use super::{JOBS_MAX, Node};
use crate::Text;
use crate::api::HttpReply;
use crate::boundary::{Lane, Outbox, Output};
use crate::cx::Timer;
use crate::ids::{OpId, RequestId};
use crate::store::command::{Refusal, Response};
use crate::time::{Mono, Now};

/// How often is looked whether there is room again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often leadership is offered to others: each attempt costs the lease for an election timeout.
const OFFER_EVERY: u32 = 5;
/// What clients are told whose write was not begun.
const REFUSED: &str = "rpc error: the disk of the Raft log of the leader is full, nothing was written: free space in its \
                       data directory, writes go on by themselves then";
/// What clients are told whose write is under way.
const UNKNOWN: &str = "rpc error: the disk of the Raft log of the leader is full, outcome unknown: free space in its \
                       data directory, writes go on by themselves then";
/// What clients are told whose change counts, and is not kept.
const NOT_KEPT: &str = "the disk is full: this counts from now on, but would be lost if the agent restarted now; free \
                        space in the data directory, it is kept by itself then";

/// Which lanes wait for room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The environment's words, by lane.
    full: BTreeMap<Lane, Text>,
    /// Lanes to try again when it is time: each once for every time that it found no room.
    due: BTreeSet<Lane>,
    /// Lanes to try again at the end of this step.
    again: BTreeSet<Lane>,
    /// So often was tried again.
    tries: u32,
}

impl Room {
    /// Whether the log waits.
    pub(super) fn lacks_log(&self) -> bool {
        self.full.contains_key(&Lane::Log)
    }

    /// One line for whoever looks; `None` while all is well.
    pub(super) fn alarm(&self) -> Option<Text> {
        let (lane, reason) = self.full.first_key_value()?;
        Some(Text::new(format!("{} is full: {reason}", what(*lane))))
    }
}

fn what(lane: Lane) -> &'static str {
    match lane {
        Lane::Log => "the disk of the Raft log",
        Lane::State => "the disk of the agent's state",
    }
}

/// What the agent keeps for itself, on its way to the disk.
#[derive(Debug, Default)]
pub(super) struct Saving {
    under_way: Option<OpId>,
    /// Those who wait for the save under way.
    waiting: Vec<(RequestId, HttpReply)>,
    /// For the next one.
    changes: BTreeMap<Text, Option<Bytes>>,
    /// Those who wait for the next one.
    next_waiting: Vec<(RequestId, HttpReply)>,
}

impl Node {
    /// A lane has found no room for its oldest operation.
    pub(super) fn on_full(&mut self, now: Now, lane: Lane, reason: &str) {
        self.timers.set(Timer::Room, now.mono + AGAIN);
        self.room.due.insert(lane);
        if self.room.full.insert(lane, Text::new(reason)).is_some() {
            return;
        }
        self.publish = true;
        match lane {
            Lane::Log => {
                self.warn(format!(
                    "ALARM: {} is full: {reason}; this server is read-only: free space, it goes on by itself then",
                    what(lane)
                ));
                self.raft(now, |raft, cx| {
                    raft.set_stuck(true);
                    // Without a successor this server goes on leading, for the sake of reads.
                    let _ = raft.transfer_leadership(cx, None);
                });
            }
            Lane::State => {
                self.warn(format!(
                    "ALARM: {} is full: {reason}; nothing new is kept across a restart: free space, it is kept by \
                     itself then",
                    what(lane)
                ));
                self.answer_not_kept();
            }
        }
    }

    /// Something was written: there is room.
    pub(super) fn on_room(&mut self, now: Now, lane: Lane) {
        if self.room.full.remove(&lane).is_none() {
            return;
        }
        self.publish = true;
        self.warn(format!("{} has room again: the alarm is over", what(lane)));
        if lane == Lane::Log {
            self.raft(now, |raft, _| raft.set_stuck(false));
            self.retry_held(now);
        }
    }

    /// Time to look whether there is room again.
    pub(super) fn on_room_timer(&mut self, now: Now) {
        self.room.again = std::mem::take(&mut self.room.due);
        self.room.tries = self.room.tries.wrapping_add(1);
        if !self.room.lacks_log() {
            return;
        }
        for id in self.jobs.those(|job| matches!(job.stage, Stage::Proposed(_))) {
            let job = self.jobs.take(id).expect("just listed");
            self.answer_write(now, job, Err(UNKNOWN));
        }
        if self.room.tries.is_multiple_of(OFFER_EVERY) {
            // As above.
            let _ = self.raft(now, |raft, cx| raft.transfer_leadership(cx, None));
        }
    }

    /// A write that this leader cannot begin.
    pub(super) fn refuse_for_room(&mut self, now: Now, id: JobId, job: Job) {
        match job.origin {
            Origin::Agent(_) => self.answer_write(now, job, Err(REFUSED)),
            // What the leader has to do is put off; what comes again by itself may be dropped.
            Origin::Duty if self.jobs.len() < JOBS_MAX / 2 => {
                self.jobs.put(id, Job { stage: Stage::Held, give_up: Mono::NEVER, ..job });
            }
            Origin::Duty => {}
            Origin::Client(_) | Origin::Peer(..) | Origin::Guest(..) => {
                self.answer_write(now, job, Ok(Response::Refused(Refusal::Other(REFUSED.to_owned()))));
            }
        }
    }

    /// Keeps something across restarts; `reply` is sent when it is durable.
    pub(super) fn keep(
        &mut self,
        changes: impl IntoIterator<Item = (Text, Option<Bytes>)>,
        reply: Option<(RequestId, HttpReply)>,
    ) {
        if !self.config.keeps_local {
            self.replies.extend(reply);
            return;
        }
        self.saving.changes.extend(changes);
        self.saving.next_waiting.extend(reply);
        if self.room.full.contains_key(&Lane::State) {
            self.answer_not_kept();
        }
    }

    fn answer_not_kept(&mut self) {
        let waiting = self.saving.waiting.drain(..).chain(self.saving.next_waiting.drain(..));
        self.replies.extend(waiting.map(|(id, _)| (id, HttpReply::text(500, NOT_KEPT))));
    }

    /// Begins a save if there is something to keep, and tries again what found no room.
    pub(super) fn write_state(&mut self, out: &mut Outbox) {
        if self.saving.under_way.is_none() && !self.saving.changes.is_empty() {
            let op = self.op();
            let changes = std::mem::take(&mut self.saving.changes).into_iter().collect();
            self.saving.under_way = Some(op);
            self.saving.waiting = std::mem::take(&mut self.saving.next_waiting);
            out.push(Output::SaveLocal { op, changes });
        }
        let again = std::mem::take(&mut self.room.again);
        out.0.extend(again.into_iter().map(|lane| Output::TryAgain { lane }));
    }

    /// Whether this was the save under way; it is durable.
    pub(super) fn on_kept(&mut self, op: OpId) -> bool {
        if self.saving.under_way.take_if(|under_way| *under_way == op).is_none() {
            return false;
        }
        self.replies.append(&mut self.saving.waiting);
        true
    }
}
