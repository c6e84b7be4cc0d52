//! A follower: takes entries that agree with its log (paper, section 5.3), and says what of them is durable.

use super::effect::Effect;
use super::message::{Append, AppendReply, Body, Message, Position, TransferMark, Verdict};
use super::types::Payload;
use super::{Raft, State};
use crate::cx::Cx;
use crate::ids::{LogIndex, ServerId};
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

impl Raft {
    /// The leader of the present term showed a sign of life.
    pub(super) fn hear(&mut self, cx: &mut Cx<'_, Effect>) {
        assert!(matches!(self.state, State::Follower), "only a follower listens to a leader");
        self.suspect = false;
        self.arm_election(cx);
    }

    pub(super) fn on_append(&mut self, cx: &mut Cx<'_, Effect>, leader: ServerId, append: Append) {
        let Append { prev, entries, commit, round, promise, voter: _ } = append;
        self.on_told(cx.now.mono, commit);
        if promise {
            let to = TransferMark { leader, term: self.hard.term, round };
            self.promise.renew(cx.now.mono, &self.timing, to);
        }
        if self.is_installing() {
            marks::hit(Mark::AppendDuringInstallation);
            // The log is about to be replaced; what is dropped here, the next heartbeat after that finds missing.
            self.acknowledge(leader, round);
            return;
        }
        if !self.agrees_at(prev) {
            marks::hit(Mark::AppendRejected);
            let hint = self.log.last_not_after(Position { index: prev.index.prev(), term: prev.term });
            let verdict = Verdict::Rejected { prev: prev.index, hint };
            self.reply(leader, AppendReply { round, verdict });
            return;
        }
        let is_heartbeat = entries.is_empty();
        let verified = entries.last().map_or(prev.index, |last| last.index);
        for entry in entries {
            // What is committed agrees already: every later leader has it (paper, section 5.4).
            if entry.index <= self.commit || self.log.term(entry.index) == Some(entry.term) {
                continue;
            }
            if entry.index <= self.log.last().index {
                self.void_from(entry.index);
            }
            if matches!(entry.payload, Payload::Membership(_)) {
                self.forced = None;
            }
            self.durability.entry(entry.clone());
            self.log.append(entry);
        }
        self.verified = self.verified.max(verified);
        self.commit = self.commit.max(commit.min(self.verified));
        let is_durable = verified <= self.acknowledgeable();
        if !is_durable {
            self.owed = Some(self.owed.map_or(round, |owed| owed.max(round)));
        }
        // A heartbeat is answered at once: the leader's lease must not wait for this disk.
        if round > 0 && (is_durable || is_heartbeat) {
            self.acknowledge(leader, round);
        }
    }

    /// Whether this log has the same entry at `at` as the leader's.
    fn agrees_at(&self, at: Position) -> bool {
        if at.index <= self.commit {
            let own = self.log.term(at.index);
            assert!(
                at.index == LogIndex(0) || own.is_none_or(|own| own == at.term),
                "what is committed is in every later leader's log (paper, figure 3): index {}, terms {own:?} and {}",
                at.index,
                at.term
            );
            return true;
        }
        match self.log.term(at.index) {
            Some(own) => own == at.term || planted(Bug::AcceptWithoutLogMatch),
            None => false,
        }
    }

    /// Entries from here on conflict with the leader's log.
    fn void_from(&mut self, from: LogIndex) {
        assert!(from > self.commit, "what is committed is never voided (paper, figure 3): index {from}");
        assert!(
            from > self.verified || planted(Bug::AcceptWithoutLogMatch),
            "a leader never changes its own log (paper, figure 3): index {from}"
        );
        marks::hit(Mark::EntriesVoided);
        self.verified = self.verified.min(from.prev());
        self.log.truncate(from);
        self.durability.truncate(from);
    }

    /// How far this log is known to agree with the leader's and is durable.
    fn acknowledgeable(&self) -> LogIndex {
        if planted(Bug::AckBeforeDurable) {
            return self.verified;
        }
        self.verified.min(self.durability.durable())
    }

    /// Tells the leader how far this log has come.
    pub(super) fn acknowledge(&mut self, leader: ServerId, round: u64) {
        let verdict = Verdict::Accepted { matched: self.acknowledgeable(), verified: self.verified };
        self.reply(leader, AppendReply { round, verdict });
    }

    /// More of the log is durable: one acknowledgement for all messages that waited for it.
    pub(super) fn acknowledge_durable(&mut self) {
        if let (Some(round), Some(leader)) = (self.owed, self.leader) {
            if self.verified <= self.durability.durable() {
                self.owed = None;
            }
            self.acknowledge(leader, round);
        }
    }

    fn reply(&mut self, leader: ServerId, reply: AppendReply) {
        self.out.send(leader, Message { term: self.hard.term, body: Body::AppendReply(reply) });
    }
}
