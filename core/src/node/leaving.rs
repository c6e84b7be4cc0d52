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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogIndex, Term, Uuid};
    use crate::raft::{
        self, Entry, HardState, Limits, Member, Membership, MembershipChange, Payload, Recovered, Timing,
    };
    use crate::rng::Rng;
    use crate::time::{Mono, Now};
    use crate::timers::Timers;

    const NOW: Now = Now { mono: Mono(1_000_000_000_000), wall: crate::time::Wall(0) };

    /// Server 1 of a group of these.
    fn raft_of(voters: &[u128]) -> Raft {
        let config = raft::Config { id: Uuid(1), timing: Timing::default(), limits: Limits::default() };
        let member = Member { address: "10.0.0.1:8300".into(), voter: true };
        let servers = voters.iter().map(|number| (Uuid(*number), member.clone())).collect();
        let payload = Payload::Membership(Membership { servers });
        let entry = Entry { term: Term(1), index: LogIndex(1), payload };
        let hard = HardState { term: Term(1), vote: None };
        let entries = if voters.is_empty() { Vec::new() } else { vec![entry] };
        Raft::new(config, Recovered { hard, entries, ..Recovered::default() }, Rng::from_seed(1), NOW)
    }

    fn act<T>(
        raft: &mut Raft,
        timers: &mut Timers<Timer>,
        act: impl FnOnce(&mut Raft, &mut Cx<'_, raft::Effect>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let result = act(raft, &mut Cx { now: NOW, timers, effects: &mut effects });
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                if let raft::Effect::Persist { token, .. } = effect {
                    raft.on_persisted(&mut Cx { now: NOW, timers, effects: &mut effects }, token);
                }
            }
        }
        result
    }

    fn leave(
        leaving: &mut Leaving,
        timers: &mut Timers<Timer>,
        act: impl FnOnce(&mut Leaving, &mut Cx<'_, Effect>),
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        act(leaving, &mut Cx { now: NOW, timers, effects: &mut effects });
        effects
    }

    #[test]
    fn a_client_or_a_lone_server_tells_gossip_and_goes() {
        for voters in [&[][..], &[1]] {
            let (mut raft, mut timers, mut leaving) =
                (raft_of(voters), Timers::default(), Leaving::default());
            act(&mut raft, &mut timers, |raft, cx| raft.start(cx));
            assert!(!leaving.is_under_way());
            let effects = leave(&mut leaving, &mut timers, |leaving, cx| leaving.begin(cx, &raft));
            assert_eq!(effects, [Effect::LeaveGossip]);
            assert!(leaving.is_under_way());
            assert_eq!(leave(&mut leaving, &mut timers, |leaving, cx| leaving.begin(cx, &raft)), []);
            let effects = leave(&mut leaving, &mut timers, |leaving, cx| leaving.on_gossip_left(cx, &raft));
            assert_eq!(effects, [Effect::Done]);
            assert!(timers.deadline(&Timer::Leaving).is_none());
        }
    }

    #[test]
    fn a_follower_waits_until_the_group_has_let_it_go() {
        let (mut timers, mut leaving) = (Timers::default(), Leaving::default());
        let raft = raft_of(&[1, 2, 3]);
        let effects = leave(&mut leaving, &mut timers, |leaving, cx| leaving.begin(cx, &raft));
        assert_eq!(effects, [Effect::LeaveGossip]);
        assert_eq!(leave(&mut leaving, &mut timers, |leaving, cx| leaving.on_gossip_left(cx, &raft)), []);
        assert_eq!(timers.deadline(&Timer::Leaving), Some(NOW.mono + REMOVAL_MAX));
        assert_eq!(leave(&mut leaving, &mut timers, |leaving, cx| leaving.follow(cx, &raft)), []);
        let raft = raft_of(&[2, 3]);
        assert_eq!(leave(&mut leaving, &mut timers, |leaving, cx| leaving.follow(cx, &raft)), [Effect::Done]);
    }

    #[test]
    fn a_leader_hands_over_first_but_not_for_ever() {
        let (mut raft, mut timers, mut leaving) = (raft_of(&[1]), Timers::default(), Leaving::default());
        act(&mut raft, &mut timers, |raft, cx| raft.start(cx));
        let (id, address) = (Uuid(2), crate::Text::new("10.0.0.2:8300"));
        let add = MembershipChange::AddNonVoter { id, address };
        act(&mut raft, &mut timers, |raft, cx| raft.propose_membership(cx, add)).expect("it leads");
        let verdict = raft::Verdict::Accepted { matched: LogIndex(1), verified: LogIndex(1) };
        let body = raft::Body::AppendReply(raft::AppendReply { round: 0, verdict });
        let message = raft::Message { term: raft.term(), body };
        act(&mut raft, &mut timers, |raft, cx| raft.on_message(cx, id, message));
        let promote = MembershipChange::Promote { id };
        act(&mut raft, &mut timers, |raft, cx| raft.propose_membership(cx, promote)).expect("it leads");
        let effects = leave(&mut leaving, &mut timers, |leaving, cx| leaving.begin(cx, &raft));
        assert_eq!(effects, [Effect::TransferLeadership]);
        assert_eq!(leave(&mut leaving, &mut timers, |leaving, cx| leaving.follow(cx, &raft)), []);
        let effects = leave(&mut leaving, &mut timers, |leaving, cx| leaving.on_timer(cx, &raft));
        assert_eq!(effects, [Effect::LeaveGossip]);
        let effects = leave(&mut leaving, &mut timers, |leaving, cx| leaving.on_gossip_left(cx, &raft));
        assert_eq!(effects, [Effect::Done], "nobody is there to remove it");
    }
}
