//! Bringing a follower up to date that needs entries which are let go (paper, section 7).
//!
//! One piece at a time; the follower always answers with the piece that it wants next, so that loss, doubling and
//! a restart of either side need no further rule. Heartbeats go on meanwhile.

use std::time::Duration;

use bytes::Bytes;

use super::Raft;
use super::effect::Effect;
use super::log::Log;
use super::message::{Body, Chunk, ChunkReply, Message};
use super::progress::{Mode, Peer, Transfer, Wire};
use super::types::{SnapshotMeta, Timing};
use crate::cx::Cx;
use crate::ids::{ServerId, Term};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};
use crate::time::Mono;

/// A piece is sent again after this many heartbeats, then after twice as many, and so on.
const RESEND_HEARTBEATS: u32 = 4;

/// The wait is doubled at most this often.
const RESEND_DOUBLINGS_MAX: u32 = 5;

/// A snapshot that is arriving at a follower.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    /// Who sends it, in which term: another leader's pieces may be cut elsewhere.
    from: (ServerId, Term),
    /// Which snapshot.
    meta: SnapshotMeta,
    /// The piece that is wanted next.
    next: u64,
    /// Every piece arrived; the surroundings are making the state durable. Until they are done, the log and the
    /// commit index stand still and this server stands for no election.
    complete: bool,
}

impl Peer {
    /// Sends the present piece again if its answer is overdue.
    pub(super) fn resend_chunk(&mut self, to: ServerId, now: Mono, timing: &Timing, wire: &mut Wire<'_>) {
        let Mode::Snapshot(transfer) = &mut self.mode else { return };
        if transfer.sent.is_some() && transfer.resend_at <= now {
            marks::hit(Mark::ChunkResent);
            transfer.resends = (transfer.resends + 1).min(RESEND_DOUBLINGS_MAX);
            transfer.resend_at = now + resend_wait(timing, transfer.resends);
            self.send_chunk(to, wire.term, wire.out);
        }
    }
}

fn resend_wait(timing: &Timing, resends: u32) -> Duration {
    timing.heartbeat * (RESEND_HEARTBEATS << resends.min(RESEND_DOUBLINGS_MAX))
}

impl Raft {
    /// Answers [`Effect::ReadSnapshot`]: a piece of the latest checkpoint for a follower.
    pub fn on_snapshot_data(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        to: ServerId,
        meta: SnapshotMeta,
        seq: u64,
        data: Bytes,
        last: bool,
    ) {
        self.offer_chunk(cx, to, meta, seq, (data, last));
        self.finish(cx);
    }

    fn offer_chunk(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        to: ServerId,
        meta: SnapshotMeta,
        seq: u64,
        piece: (Bytes, bool),
    ) {
        let resend_at = cx.now.mono + resend_wait(&self.timing, 0);
        let commit = self.commit;
        let Some((lead, wire)) = self.leading() else { return };
        let Some(peer) = lead.peers.get_mut(&to) else { return };
        let Mode::Snapshot(transfer) = &mut peer.mode else { return };
        if transfer.seq != seq || transfer.sent.is_some() {
            return;
        }
        if seq > 0 && transfer.meta.as_ref() != Some(&meta) {
            marks::hit(Mark::SnapshotOvertaken);
            // A newer checkpoint took the place of the one that was being sent.
            *transfer = Transfer::default();
            wire.out.ask_snapshot(to, 0);
            return;
        }
        assert!(meta.index >= wire.log.base().index, "a checkpoint covers what was let go");
        assert!(meta.index <= commit, "a checkpoint holds what is committed");
        *transfer = Transfer { meta: Some(meta), seq, sent: Some(piece), resend_at, resends: 0 };
        peer.send_chunk(to, wire.term, wire.out);
    }

    pub(super) fn on_chunk_reply(&mut self, cx: &mut Cx<'_, Effect>, from: ServerId, reply: ChunkReply) {
        let now = cx.now.mono;
        let Some((lead, wire)) = self.leading() else { return };
        let Some(peer) = lead.peers.get_mut(&from) else { return };
        peer.heard = now;
        let Mode::Snapshot(transfer) = &mut peer.mode else { return };
        let is_of_transfer = transfer.meta.as_ref().is_some_and(|meta| meta.index == reply.index);
        let Some((_, was_last)) = &transfer.sent else { return };
        let is_complete = *was_last && reply.next > transfer.seq;
        if is_of_transfer && reply.next != transfer.seq && !is_complete {
            transfer.seq = reply.next;
            transfer.sent = None;
            wire.out.ask_snapshot(from, reply.next);
        }
    }

    /// A piece of a snapshot from the leader.
    pub(super) fn on_chunk(&mut self, _: &mut Cx<'_, Effect>, leader: ServerId, chunk: Chunk) {
        let Chunk { meta, seq, data, last } = chunk;
        if meta.index <= self.commit {
            self.acknowledge(leader, 0);
            return;
        }
        let from = (leader, self.hard.term);
        let is_going_on = |known: &Incoming| known.complete || (known.meta == meta && known.from == from);
        let begun = Incoming { from, meta: meta.clone(), next: 0, complete: false };
        let mut incoming = self.incoming.take().filter(is_going_on).unwrap_or(begun);
        if incoming.meta == meta {
            let is_wanted = incoming.next == seq || planted(Bug::SnapshotPieceTwice);
            if is_wanted && !incoming.complete {
                incoming.next += 1;
                incoming.complete = last;
                self.out.others.push(Effect::SnapshotData { meta, seq, data, last });
            }
            let reply = ChunkReply { index: incoming.meta.index, next: incoming.next };
            self.out.send(leader, Message { term: self.hard.term, body: Body::ChunkReply(reply) });
        }
        self.incoming = Some(incoming).filter(|incoming| incoming.next > 0);
    }

    /// Whether a snapshot has arrived whole and is being made durable.
    pub(super) fn is_installing(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.complete)
    }

    /// The state of a snapshot whose last piece was handed out is durable: it takes the place of the log up to its
    /// index, and the state machine goes on from it.
    ///
    /// # Panics
    /// If no snapshot of this identity is being installed.
    pub fn on_snapshot_installed(&mut self, cx: &mut Cx<'_, Effect>, meta: &SnapshotMeta) {
        let incoming = self.incoming.take().expect("a snapshot is being installed");
        assert!(incoming.complete && incoming.meta == *meta, "this snapshot is being installed");
        assert!(meta.index > self.commit, "the commit index stands still during an installation");
        if self.log.term(meta.index) == Some(meta.term) {
            marks::hit(Mark::SnapshotKeepsTail);
            // The log agrees with the snapshot; what follows in it stays (paper, figure 13, step 6).
            self.log.compact(meta.index);
            self.durability.covered(meta.index);
        } else {
            marks::hit(Mark::SnapshotReplacesLog);
            self.log = Log::after(meta);
            self.durability.reset(meta.index, meta.term);
            self.owed = None;
        }
        self.commit = meta.index;
        self.emitted = meta.index;
        self.verified = self.verified.max(meta.index).min(self.log.last().index);
        if let Some(leader) = self.leader {
            self.acknowledge(leader, 0);
        }
        self.finish(cx);
    }
}
