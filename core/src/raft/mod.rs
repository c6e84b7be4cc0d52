//! Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", extended version: "the paper";
//! Ongaro, "Consensus: Bridging Theory and Practice": "the dissertation"), sans-IO.
//!
//! [`Raft`] decides; its surroundings write, send, apply and keep time. Every call ends with a list of [`Effect`]s.
//! Writes need not be done before the next call: no message leaves before the term and vote that it speaks of are
//! durable, no acknowledgement before the entries it speaks of are, and a leader counts itself only for what its
//! own disk has, although it sends entries while they are being written.
//!
//! What goes beyond the paper: pre-vote and check-quorum (dissertation, sections 9.6 and 6.2), voters that stay with
//! a leader they hear (4.2.3), leader lease and read index (6.4), single-step membership changes with non-voters (4),
//! leadership transfer (3.10), pipelined replication with fast back-off (10.2.1, 5.3), chunked snapshots.

mod dispatch;
mod durability;
mod effect;
mod election;
mod follower;
mod founding;
#[cfg(any(test, feature = "testing"))]
pub mod ground;
mod leader;
mod lease;
mod log;
mod membership;
mod message;
mod progress;
mod read_index;
mod recency;
mod replication;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;
pub mod types;

use std::time::Duration;

use bytes::Bytes;

pub use effect::*;
pub use message::*;
pub use types::*;

use crate::cx::{self, Cx};
use crate::ids::{LogIndex, ServerId, Term};
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::time::{Mono, Now};
use durability::Durability;
use election::Ballot;
use founding::Founding;
use leader::Leadership;
use lease::Promise;
use log::Log;
pub use membership::MembershipChange;
use recency::Recency;
use snapshot::Incoming;

/// Who this server is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its identity in the group.
    pub id: ServerId,
    /// Deadlines.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what one server sends and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries in one message.
    pub append_entries_max: usize,
    /// Bytes of entries in one message; a single larger entry travels alone.
    pub append_bytes_max: usize,
    /// Messages with entries that one follower has not acknowledged. Entries that come while so many are under way
    /// travel together in the next.
    pub inflight_max: usize,
    /// Bytes of entries that one follower has not acknowledged.
    pub inflight_bytes_max: usize,
    /// Reads that wait for a quorum.
    pub reads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            append_entries_max: 1_024,
            append_bytes_max: 1 << 20,
            inflight_max: 8,
            inflight_bytes_max: 4 << 20,
            reads_max: 65_536,
        }
    }
}

/// What a server is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// What a server is, with what belongs to it.
#[derive(Clone, Debug)]
enum State {
    /// Entered on start, on hearing of a leader or a later term, and by a leader that lost its quorum. Left when the
    /// election timer fires.
    Follower,
    /// Entered when the election timer fires. Left for `Candidate` when a quorum would vote for it, for `Follower` on
    /// hearing of a leader or a later term.
    PreCandidate(Ballot),
    /// Entered from `PreCandidate`, from any state when a leader names this server its successor, and at once by a sole
    /// voter. Left for `Leader` when a quorum votes for it.
    Candidate(Ballot),
    /// Left on hearing of a later term, without contact to a quorum, and after its own removal.
    Leader(Box<Leadership>),
}

/// One member of a Raft group.
#[derive(Clone, Debug)]
pub struct Raft {
    id: ServerId,
    timing: Timing,
    limits: Limits,
    rng: Rng,
    /// Term and vote. Durable before anything is said that depends on them.
    hard: HardState,
    log: Log,
    durability: Durability,
    /// Everything up to here is committed, and was handed out for application by the end of the call. Never falls.
    commit: LogIndex,
    /// What was handed out. Equal to `commit` between calls.
    emitted: LogIndex,
    state: State,
    /// The leader of the present term, if known. Never changes within a term, except to unknown and back.
    leader: Option<ServerId>,
    /// How old the state is, as far as others have told.
    recency: Recency,
    promise: Promise,
    /// As a follower: up to here the log agrees with the present leader's. At least `commit`.
    verified: LogIndex,
    /// As a follower: the highest round among messages whose entries are not durable yet, to be acknowledged then.
    owed: Option<u64>,
    /// The snapshot that is arriving.
    incoming: Option<Incoming>,
    /// The connection to the leader was closed: ask again soon if voters are still bound by their promise.
    suspect: bool,
    /// The log takes no writes for now: nothing that this server could promise would become durable.
    stuck: bool,
    /// The group that this server is about to found. Its log is empty then.
    founding: Option<Founding>,
    /// Members that an operator has put in place of those in the log, until a log entry says so.
    forced: Option<Membership>,
    /// The log did not reach the checkpoint on recovery: it must be started over first.
    reset_on_start: bool,
    out: Out,
    public: Public,
}

/// Effects that are collected during a call.
#[derive(Clone, Debug, Default)]
struct Out {
    sends: Vec<(ServerId, Message)>,
    others: Vec<Effect>,
    reads: Vec<Effect>,
    ask_snapshots: Vec<(ServerId, u64)>,
}

impl Out {
    fn send(&mut self, to: ServerId, message: Message) {
        self.sends.push((to, message));
    }

    fn ask_snapshot(&mut self, to: ServerId, seq: u64) {
        self.ask_snapshots.push((to, seq));
    }
}

/// What the surroundings were last told by [`Effect::RoleChanged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Public {
    role: Role,
    term: Term,
    leader: Option<ServerId>,
    ready: bool,
    lease: Option<Mono>,
}

/// How far a member has come, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub id: ServerId,
    /// Its log is durable and agrees with the leader's up to here.
    pub matched: LogIndex,
    /// Time since it last answered, or since the leader's term began.
    pub last_contact: Duration,
    /// Whether it is being sent a snapshot.
    pub in_snapshot: bool,
}

impl Recovered {
    /// Checks that log and checkpoint belong together.
    ///
    /// # Errors
    /// If what had been durable is missing. Starting all the same could lose acknowledged writes.
    pub fn check(&self) -> Result<(), BadRecovery> {
        let mut expected = match self.entries.first() {
            Some(first) if first.index > self.snapshot.index.next() => {
                return Err(BadRecovery::Gap { snapshot: self.snapshot.index, first: first.index });
            }
            Some(first) => first.index,
            None => return Ok(()),
        };
        for entry in &self.entries {
            if entry.index != expected {
                return Err(BadRecovery::NotContiguous { at: entry.index });
            }
            if entry.term > self.hard.term {
                return Err(BadRecovery::TermAhead { at: entry.index });
            }
            expected = expected.next();
        }
        Ok(())
    }
}

impl Raft {
    /// A server that continues from what its disk gave back. Nothing happens before [`Raft::start`].
    ///
    /// Entries that the checkpoint covers are dropped. If the log does not reach the checkpoint's end or disagrees with
    /// it there, the checkpoint counts and the log starts over.
    ///
    /// # Panics
    /// If [`Recovered::check`] fails: call it first.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered, rng: Rng, now: Now) -> Raft {
        recovered.check().expect("the caller checked what was recovered");
        let Config { id, timing, limits } = config;
        let Recovered { mut hard, snapshot, entries } = recovered;
        let mut log = Log::after(&snapshot);
        let reaches = match entries.iter().find(|entry| entry.index == snapshot.index) {
            Some(entry) => entry.term == snapshot.term,
            None => entries.first().map_or(snapshot.index.0 == 0, |first| first.index > snapshot.index),
        };
        if reaches {
            entries
                .into_iter()
                .filter(|entry| entry.index > snapshot.index)
                .for_each(|entry| log.append(entry));
        }
        // A checkpoint that was installed outruns the term in the log if the crash came between the two.
        if hard.term < snapshot.term {
            hard = HardState { term: snapshot.term, vote: None };
        }
        let grouped = log.memberships().any(|members| members.voters().any(|voter| voter != id));
        let promise = if grouped && hard.term > Term(0) {
            Promise::before_restart(now.mono, &timing)
        } else {
            Promise::default()
        };
        Raft {
            id,
            timing,
            limits,
            rng,
            hard,
            durability: Durability::recovered(log.last().index),
            log,
            commit: snapshot.index,
            emitted: snapshot.index,
            state: State::Follower,
            leader: None,
            recency: Recency::default(),
            promise,
            verified: snapshot.index,
            owed: None,
            incoming: None,
            suspect: false,
            stuck: false,
            founding: None,
            forced: None,
            reset_on_start: !reaches,
            out: Out::default(),
            public: Public { role: Role::Follower, term: hard.term, leader: None, ready: false, lease: None },
        }
    }

    /// Arms timers. A sole voter elects itself at once. Called once, before anything else.
    pub fn start(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.reset_on_start {
            self.reset_on_start = false;
            let base = self.log.base();
            self.durability.reset(base.index, base.term);
            self.durability.hard_state(self.hard);
        }
        self.begin(cx);
        self.finish(cx);
    }

    /// Makes this server the founder, or one of several alike founders, of a group. Every founder must be given the
    /// same members: they all make the same first entry.
    ///
    /// # Errors
    /// If this server belongs to a group already, or the group would have no voter.
    pub fn bootstrap(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        membership: Membership,
    ) -> Result<(), BootstrapError> {
        // Term 1 without an entry is what a crash in the middle of this leaves.
        if self.hard.term > Term(1) || self.log.last().index > LogIndex(0) {
            return Err(BootstrapError::NotEmpty);
        }
        if membership.voters().next().is_none() {
            return Err(BootstrapError::NoVoter);
        }
        // Nobody is ever elected in term 1: a candidate has a membership, and so at least this term already.
        self.set_hard(HardState { term: Term(1), vote: None });
        self.append(Payload::Membership(membership));
        self.begin(cx);
        self.finish(cx);
        Ok(())
    }

    /// Replaces the group's members by others, whatever the log says: an operator's last resort when a quorum is lost
    /// for good (Consul: «peers.json»). To be called before [`Raft::start`], alike on every server that is left, and
    /// never while the others may still run. The log stays as it is, so that the server which has most of it is
    /// elected; the first leader writes the new members into it, and with that they are durable. Until then a restart needs
    /// this call again.
    ///
    /// # Errors
    /// If nobody would vote. Nothing was changed.
    pub fn force_membership(&mut self, membership: Membership) -> Result<(), BootstrapError> {
        if membership.voters().next().is_none() {
            return Err(BootstrapError::NoVoter);
        }
        self.log.force_membership(&membership);
        self.forced = Some(membership);
        Ok(())
    }

    /// Whether members that an operator has forced are not in the log yet.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// Proposes a command; returns where it will be if it is committed in the present term.
    ///
    /// # Errors
    /// If this server does not lead or is handing over. Nothing was changed.
    pub fn propose(&mut self, cx: &mut Cx<'_, Effect>, payload: Bytes) -> Result<LogIndex, NotLeader> {
        self.propose_many(cx, [payload])
    }

    /// Proposes several commands at once, in order: one write, one message to each follower. Returns the index of the
    /// first one; the others follow it.
    ///
    /// # Errors
    /// If this server does not lead or is handing over. Nothing was changed.
    pub fn propose_many(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> Result<LogIndex, NotLeader> {
        self.may_propose()?;
        let first = self.log.last().index.next();
        for payload in payloads {
            self.append(Payload::Command(payload));
        }
        self.feed_all();
        self.finish(cx);
        Ok(first)
    }

    /// Handles a message from another server.
    pub fn on_message(&mut self, cx: &mut Cx<'_, Effect>, from: ServerId, message: Message) {
        if from != self.id {
            self.receive(cx, from, message);
        }
        self.finish(cx);
    }

    /// Every write up to this token is durable.
    pub fn on_persisted(&mut self, cx: &mut Cx<'_, Effect>, up_to: PersistToken) {
        for (to, message) in self.durability.persisted(up_to) {
            self.out.others.push(Effect::Send { to, message });
        }
        match self.state {
            State::Leader(_) => self.advance(cx),
            State::Follower => self.acknowledge_durable(),
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
        self.finish(cx);
    }

    /// Whether the log takes no writes for now, as when its disk is full. Such a server stands in no election.
    pub fn set_stuck(&mut self, stuck: bool) {
        self.stuck = stuck;
    }

    /// Whether the log takes no writes for now.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// A timer of this machine fired.
    pub fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, timer: Timer) {
        match timer {
            Timer::Election => self.on_election_timeout(cx),
            Timer::Heartbeat => self.on_heartbeat_due(cx),
            Timer::CheckQuorum => self.check_quorum(cx),
        }
        self.finish(cx);
    }

    /// The connection to a server was closed: a hint that it died, no proof.
    pub fn on_peer_down(&mut self, cx: &mut Cx<'_, Effect>, peer: ServerId) {
        if let State::Leader(lead) = &mut self.state {
            if let Some(peer) = lead.peers.get_mut(&peer) {
                peer.probe();
            }
        } else if self.leader == Some(peer) {
            self.suspect_leader(cx);
        }
        self.finish(cx);
    }

    /// A connection to a server came up. A leader finds out at once what the other side has.
    pub fn on_peer_up(&mut self, cx: &mut Cx<'_, Effect>, peer: ServerId) {
        self.greet(peer);
        self.finish(cx);
    }

    /// A checkpoint is durable; entries up to `keep_after` are no longer needed in memory.
    pub fn compact(&mut self, snapshot: SnapshotMeta, keep_after: LogIndex) {
        assert!(snapshot.index <= self.commit, "only what is committed is in a checkpoint");
        assert!(keep_after <= snapshot.index, "what is let go must be in the checkpoint");
        self.log.compact(keep_after);
        self.invariants();
    }

    /// Collects what this call caused, in the order in which it must be carried out.
    fn finish(&mut self, cx: &mut Cx<'_, Effect>) {
        let (before, after) = (self.public, self.public_now());
        let is_loss = before.role != after.role
            || before.term != after.term
            || before.leader != after.leader
            || before.lease > after.lease;
        if is_loss {
            cx.emit(Effect::RoleChanged);
        }
        self.public = after;
        if let Some(write) = self.durability.flush() {
            cx.emit(write);
        }
        cx.effects.append(&mut self.out.others);
        let may_speak = self.may_speak();
        for (to, message) in self.out.sends.drain(..) {
            if may_speak || election::leaves_early(&message) {
                cx.emit(Effect::Send { to, message });
            } else {
                self.durability.withhold(to, message);
            }
        }
        for (to, seq) in self.out.ask_snapshots.drain(..) {
            cx.emit(Effect::ReadSnapshot { to, seq });
        }
        if self.emitted < self.commit {
            let entries = self.log.copy(self.emitted.next(), self.count_to_commit(), usize::MAX);
            assert_eq!(
                entries.last().map(|entry| entry.index),
                Some(self.commit),
                "committed entries are held"
            );
            self.emitted = self.commit;
            cx.emit(Effect::Commit { entries });
        }
        self.settle_recency();
        cx.effects.append(&mut self.out.reads);
        if !is_loss && before != after {
            cx.emit(Effect::RoleChanged);
        }
        #[cfg(any(debug_assertions, feature = "sim"))]
        self.invariants();
    }

    fn count_to_commit(&self) -> usize {
        usize::try_from(self.commit.0 - self.emitted.0).expect("held entries are counted by usize")
    }

    fn public_now(&self) -> Public {
        Public {
            role: self.role(),
            term: self.hard.term,
            leader: self.leader,
            ready: self.ready(),
            lease: self.lease_until(),
        }
    }

    /// Takes note of a term or vote, to be made durable before anything is said.
    fn set_hard(&mut self, hard: HardState) {
        assert!(hard.term >= self.hard.term, "terms never fall");
        assert!(
            hard.term > self.hard.term
                || self.hard.vote.is_none()
                || hard.vote == self.hard.vote
                || planted(Bug::VoteTwiceInTerm),
            "one vote in a term"
        );
        if hard != self.hard {
            self.hard = hard;
            self.durability.hard_state(hard);
        }
    }

    /// Adds an entry of the present term to the log.
    fn append(&mut self, payload: Payload) {
        let entry = Entry { term: self.hard.term, index: self.log.last().index.next(), payload };
        self.durability.entry(entry.clone());
        self.log.append(entry);
    }

    fn timer(timer: Timer) -> cx::Timer {
        cx::Timer::Raft(timer)
    }
}

/// What can be seen from outside.
impl Raft {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// What it is at the moment.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Whether its term and vote are durable, so that others may hear of them.
    #[must_use]
    pub fn may_speak(&self) -> bool {
        self.durability.hard_is_durable()
    }

    /// The latest term it knows of.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Who leads in that term, if it knows.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        self.leader
    }

    /// The end of its log.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.log.last().index
    }

    /// The first entry that is held in memory would follow this one.
    #[must_use]
    pub fn base_index(&self) -> LogIndex {
        self.log.base().index
    }

    /// Everything up to here is committed and was handed out for application.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        self.commit
    }

    /// The last entry that is in this server's durable log.
    #[must_use]
    pub fn durable_index(&self) -> LogIndex {
        self.durability.durable()
    }

    /// The term of an entry that is held in memory, or of the last one that is not.
    #[must_use]
    pub fn entry_term(&self, index: LogIndex) -> Option<Term> {
        self.log.term(index)
    }

    /// An entry that is held in memory.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.log.entry(index)
    }

    /// The group's members, in force as of the end of the log, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.log.membership()
    }

    /// The entry that says who the members are; zero or before the log's base if a checkpoint does.
    #[must_use]
    pub fn membership_index(&self) -> LogIndex {
        self.log.membership_index()
    }

    /// Whether the group's last change is not committed yet; no other one can be proposed until it is.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.log.membership_index() > self.commit
    }

    /// Whether this server is handing leadership over, and takes no proposals meanwhile.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        match &self.state {
            State::Leader(lead) => lead.handover.is_some(),
            State::Follower | State::PreCandidate(_) | State::Candidate(_) => false,
        }
    }

    /// What a checkpoint up to `index` stands for. `None` if the index is not committed or is let go already.
    #[must_use]
    pub fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        let term = self.log.term(index).filter(|_| index <= self.commit)?;
        let membership = match planted(Bug::SnapshotTakesOpenMembership) {
            true => self.log.membership(),
            false => self.log.membership_at(index),
        };
        Some(SnapshotMeta { index, term, membership: membership.clone() })
    }

    /// Bytes of entries that are not committed yet; for limiting what is proposed.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        self.log.bytes_after(self.commit)
    }

    /// Whether this server leads and has committed an entry of its own term, so that its state includes everything
    /// that was ever acknowledged.
    #[must_use]
    pub fn ready(&self) -> bool {
        match &self.state {
            State::Leader(lead) => self.commit >= lead.first,
            State::Follower | State::PreCandidate(_) | State::Candidate(_) => false,
        }
    }

    /// Until when this server may answer reads without asking anybody. `None` if it may not at all; may be past.
    /// [`Mono::NEVER`] for a sole voter.
    #[must_use]
    pub fn lease_until(&self) -> Option<Mono> {
        match &self.state {
            State::Leader(lead) if self.ready() => {
                lead.lease_until(self.id, self.log.membership(), &self.timing)
            }
            State::Leader(_) | State::Follower | State::PreCandidate(_) | State::Candidate(_) => None,
        }
    }

    /// What a leader knows about the others; empty if this server does not lead.
    #[must_use]
    pub fn peers(&self, now: Mono) -> Vec<PeerStatus> {
        let State::Leader(lead) = &self.state else { return Vec::new() };
        lead.status(now)
    }

    /// Checks what must always hold.
    ///
    /// # Panics
    /// If something does not.
    pub fn invariants(&self) {
        let last = self.log.last();
        self.log.invariants();
        self.durability.invariants(last.index);
        assert!(self.log.base().index <= self.commit, "only what is committed is let go");
        assert!(self.commit <= last.index, "what is committed is in the log");
        assert!(self.emitted <= self.commit, "only what is committed is applied");
        assert!(last.term <= self.hard.term, "no entry of a later term");
        assert!(self.verified <= last.index, "what agrees is in the log");
        assert!(self.founding.is_none() || last.index == LogIndex(0), "a group is founded on an empty log");
        match &self.state {
            State::Leader(lead) => {
                assert_eq!(self.leader, Some(self.id), "a leader knows itself");
                assert_eq!(last.term, self.hard.term, "a leader's term begins with an entry");
                lead.invariants(last.index, &self.limits);
            }
            State::Candidate(_) => {
                assert_eq!(self.hard.vote, Some(self.id), "a candidate votes for itself");
                assert_eq!(self.leader, None, "a candidate knows no leader");
            }
            State::PreCandidate(_) => assert_eq!(self.leader, None, "a candidate knows no leader"),
            State::Follower => assert_ne!(self.leader, Some(self.id), "a follower does not lead"),
        }
    }
}
