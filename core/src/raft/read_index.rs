//! Linearizable reads without a clock: a leader asks a quorum whether it still leads (dissertation, section 6.4).

use std::collections::VecDeque;

use super::effect::{Effect, NotLeader};
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::LogIndex;
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

/// Reads that wait for a quorum. All that came while one round was under way share the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Wait for the next round: ticket and read index.
    waiting: VecDeque<(u64, LogIndex)>,
    /// Wait for the answers to `round`.
    confirming: VecDeque<(u64, LogIndex)>,
    /// A round that began after every read in `confirming` came.
    round: u64,
}

impl Reads {
    /// Tickets of all reads that are not confirmed.
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> {
        self.confirming.iter().chain(&self.waiting).map(|(ticket, _)| *ticket)
    }

    fn len(&self) -> usize {
        self.confirming.len() + self.waiting.len()
    }
}

impl Raft {
    /// Asks a quorum whether this server still leads; answered by [`Effect::ReadReady`] or [`Effect::ReadFailed`].
    /// Depends on no clock. Beyond [`super::Limits::reads_max`] waiting reads, the read fails at once.
    ///
    /// # Errors
    /// If this server does not lead.
    pub fn read_index(&mut self, cx: &mut Cx<'_, Effect>, ticket: u64) -> Result<(), NotLeader> {
        let State::Leader(lead) = &mut self.state else { return Err(NotLeader { leader: self.leader }) };
        if lead.reads.len() >= self.limits.reads_max {
            self.out.reads.push(Effect::ReadFailed { ticket });
        } else {
            if self.commit < lead.first {
                marks::hit(Mark::ReadWaitsForOwnTerm);
            }
            // Before the term's first entry is committed the commit index may lag behind what was acknowledged.
            let first = if planted(Bug::ReadIndexBeforeOwnTerm) { self.commit } else { lead.first };
            lead.reads.waiting.push_back((ticket, self.commit.max(first)));
            self.drive_reads(cx);
        }
        self.finish(cx);
        Ok(())
    }

    /// Hands out confirmed reads and begins a round for those that wait.
    pub(super) fn drive_reads(&mut self, cx: &mut Cx<'_, Effect>) {
        let id = self.id;
        loop {
            let Some((lead, mut wire)) = self.leading() else { return };
            let answered = if planted(Bug::ReadIndexWithoutQuorum) {
                u64::MAX
            } else {
                lead.quorum_round(id, wire.log.membership())
            };
            if !lead.reads.confirming.is_empty() {
                let knows_all = wire.commit >= lead.first || planted(Bug::ReadIndexBeforeOwnTerm);
                if !knows_all || answered < lead.reads.round {
                    return;
                }
                for (ticket, index) in lead.reads.confirming.drain(..) {
                    assert!(index <= wire.commit, "a read index is committed");
                    wire.out.reads.push(Effect::ReadReady { ticket, index });
                }
            }
            if lead.reads.waiting.is_empty() {
                return;
            }
            lead.reads.confirming = std::mem::take(&mut lead.reads.waiting);
            lead.reads.round = lead.round + 1;
            if answered < u64::MAX {
                lead.open_round(cx.now.mono);
                let stamp = lead.stamp();
                for (id, peer) in &mut lead.peers {
                    peer.heartbeat(*id, stamp, &mut wire);
                }
            }
        }
    }
}
