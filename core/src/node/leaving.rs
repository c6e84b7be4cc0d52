//! Leaving on purpose: a leader hands over first, then gossip is told, then a server waits until the group has let it go.

use std::time::Duration;

use crate::cx::{Cx, Timer};
use crate::raft::{Raft, Role};

/// For how long a leader tries to hand over.
const HANDOVER_MAX: Duration = Duration::from_secs(3);
/// For how long gossip may take to spread that this agent leaves (in Consul 3 s are usual).
const GOSSIP_MAX: Duration = Duration::from_secs(10);
/// For how long a server waits to disappear from the group (as in Consul).
const REMOVAL_MAX: Duration = Duration::from_secs(5);

/// What leaving wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Call [`Raft::transfer_leadership`] with whomever it likes.
    TransferLeadership,
    /// Leave the pools: that of servers first, then the datacenter's; completed by [`Leaving::on_gossip_left`].
    LeaveGossip,
    /// The agent may stop. Its last words should have been sent.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Entered at first; left when somebody asks to leave.
    Staying,
    /// Entered by a leader of several. Left when another server leads, or when that took too long.
    HandingOver,
    /// Entered when there is no leadership to hand over. Left when gossip has spread the news, or when that took too long.
    Parting,
    /// Entered by a server that belongs to a group of several. Left when it does not, or when that took too long.
    Fading,
    /// Entered when there is nothing left to wait for.
    Gone,
}

/// The steps of leaving.
#[derive(Debug)]
pub struct Leaving {
    stage: Stage,
}

impl Default for Leaving {
    fn default() -> Self {
        Leaving { stage: Stage::Staying }
    }
}

impl Leaving {
    /// Whether this agent has begun to leave. It takes no new leadership, and need not repair the catalog.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.stage != Stage::Staying
    }

    /// Begins to leave. Nothing happens if that is under way.
    pub fn begin(&mut self, cx: &mut Cx<'_, Effect>, raft: &Raft) {
        if self.stage != Stage::Staying {
            return;
        }
        let has_successor = raft.membership().voters().any(|voter| voter != raft.id());
        if raft.role() == Role::Leader && has_successor {
            self.stage = Stage::HandingOver;
            cx.timers.set(Timer::Leaving, cx.mono() + HANDOVER_MAX);
            cx.emit(Effect::TransferLeadership);
        } else {
            self.part(cx);
        }
    }

    /// Raft's role or membership may have changed. Called after every step while leaving is under way.
    pub fn follow(&mut self, cx: &mut Cx<'_, Effect>, raft: &Raft) {
        match self.stage {
            Stage::HandingOver if raft.leader().is_some_and(|leader| leader != raft.id()) => self.part(cx),
            Stage::Fading if !is_member_of_several(raft) => self.done(cx),
            Stage::HandingOver | Stage::Fading | Stage::Staying | Stage::Parting | Stage::Gone => {}
        }
    }

    /// Gossip has spread the news.
    pub fn on_gossip_left(&mut self, cx: &mut Cx<'_, Effect>, raft: &Raft) {
        if self.stage != Stage::Parting {
            return;
        }
        // Somebody else has to lead for this server to be removed; whoever leads yet cannot wait for itself.
        if is_member_of_several(raft) && raft.role() != Role::Leader {
            self.stage = Stage::Fading;
            cx.timers.set(Timer::Leaving, cx.mono() + REMOVAL_MAX);
        } else {
            self.done(cx);
        }
    }

    /// A step has taken too long: go on without it.
    pub fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, raft: &Raft) {
        match self.stage {
            Stage::HandingOver => self.part(cx),
            Stage::Parting => self.on_gossip_left(cx, raft),
            Stage::Fading => self.done(cx),
            Stage::Staying | Stage::Gone => {}
        }
    }

    fn part(&mut self, cx: &mut Cx<'_, Effect>) {
        self.stage = Stage::Parting;
        cx.timers.set(Timer::Leaving, cx.mono() + GOSSIP_MAX);
        cx.emit(Effect::LeaveGossip);
    }

    fn done(&mut self, cx: &mut Cx<'_, Effect>) {
        self.stage = Stage::Gone;
        cx.timers.cancel(&Timer::Leaving);
        cx.emit(Effect::Done);
    }
}

/// Whether this server belongs to a group that goes on without it.
fn is_member_of_several(raft: &Raft) -> bool {
    let servers = &raft.membership().servers;
    servers.contains_key(&raft.id()) && servers.len() > 1
}
