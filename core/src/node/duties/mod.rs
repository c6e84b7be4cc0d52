//! What only the leader does: making the catalog follow gossip, choosing who belongs to the group, waiting out session
//! TTLs and lock-delays, forgetting old deletions and restores that nobody goes on with.
//!
//! Everything here is rebuilt from the replicated state and from gossip when leadership begins, and dropped when it
//! ends. A new leader starts every clock in full, so a fail-over may lengthen a TTL or a lock-delay, never shorten it.

pub mod autopilot;
mod coordinates;
mod entries;
mod formats;
mod lock_delays;
mod reconcile;
mod restores;
mod sessions;
#[cfg(test)]
mod tests;
mod tombstones;

use std::time::Duration;

use imbl::OrdMap;

use self::autopilot::Autopilot;
use self::coordinates::Coordinates;
use self::entries::Entries;
use self::formats::Raising;
use self::lock_delays::LockDelays;
use self::reconcile::Reconcile;
use self::restores::Restores;
use self::sessions::Sessions;
use self::tombstones::Tombstones;
use super::About;
use crate::Text;
use crate::config_entry::Draft;
use crate::coordinate::Coordinate;
use crate::cx::{Cx, Timer};
use crate::format::Formats;
use crate::gossip::{Member, MemberChange, tag};
use crate::ids::{ServerId, Uuid};
use crate::raft::{MembershipChange, Raft};
use crate::rng::Rng;
use crate::store::command::{Command, Response};
use crate::store::query::WatchKey;
use crate::store::{AutopilotSettings, Store};
use crate::time::Now;

/// The check that follows whether an agent is reachable.
pub const SERF_HEALTH: &str = "serfHealth";
/// The service that servers are registered as.
pub const SERVICE: &str = "consul";

/// Deadlines of the leader's duties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DutyTimer {
    /// The earliest session TTL.
    SessionTtl,
    /// The earliest end of a lock-delay.
    LockDelay,
    /// Old deletions are due to be forgotten.
    Tombstones,
    /// The whole catalog is to be compared with gossip.
    Reconcile,
    /// The health of the group's servers is to be looked at.
    Autopilot,
    /// Coordinates that agents have told are to be replicated.
    Coordinates,
    /// The restore under way is to be looked at.
    Restore,
}

impl DutyTimer {
    const ALL: [DutyTimer; 7] = [
        DutyTimer::SessionTtl,
        DutyTimer::LockDelay,
        DutyTimer::Tombstones,
        DutyTimer::Reconcile,
        DutyTimer::Autopilot,
        DutyTimer::Coordinates,
        DutyTimer::Restore,
    ];
}

/// What a duty wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Replicate a command; completed by [`Duties::on_done`], unless leadership ends before.
    Propose(Command),
    /// Change the group of servers. Nobody waits: whether it came to pass shows in Raft's membership.
    ChangeMembership(MembershipChange),
}

/// What the duties look at: everything as of this moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The replicated state.
    pub store: &'a Store,
    /// Members of the datacenter's pool by name.
    pub members: &'a OrdMap<Text, Member>,
    /// The group of servers.
    pub raft: &'a Raft,
    /// This agent.
    pub about: &'a About,
}

/// What gossip says that a server understands; `None` if gossip does not know it, or it garbles what it says.
fn member_formats(facts: &Facts<'_>, id: ServerId) -> Option<Formats> {
    let member = autopilot::member_of(facts, id)?;
    Formats::parse(member.tag(tag::FORMATS))
}

/// The leader's duties; idle on every other server.
#[derive(Debug)]
pub struct Duties {
    /// Whether this server leads and has applied everything that came before its term.
    active: bool,
    rng: Rng,
    sessions: Sessions,
    lock_delays: LockDelays,
    tombstones: Tombstones,
    reconcile: Reconcile,
    autopilot: Autopilot,
    coordinates: Coordinates,
    restores: Restores,
    entries: Entries,
    raising: Raising,
}

impl Duties {
    /// Idle duties. The settings of autopilot are those that the first leader of a group writes.
    #[must_use]
    pub fn new(tombstone_ttl: Duration, settings: AutopilotSettings, rng: Rng) -> Duties {
        Duties {
            active: false,
            rng,
            sessions: Sessions::default(),
            lock_delays: LockDelays::default(),
            tombstones: Tombstones::new(tombstone_ttl),
            reconcile: Reconcile::default(),
            autopilot: Autopilot::new(settings),
            coordinates: Coordinates::default(),
            restores: Restores::default(),
            entries: Entries::default(),
            raising: Raising::default(),
        }
    }

    /// The same, with configuration entries that are to be there when leadership begins.
    #[must_use]
    pub fn with_entries(mut self, wanted: Vec<Draft>) -> Duties {
        self.entries.wanted = wanted;
        self
    }

    /// Whether this server performs them.
    #[must_use]
    pub fn active(&self) -> bool {
        self.active
    }

    /// Leadership has begun and everything that came before is applied.
    pub fn begin(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>) {
        assert!(!self.active, "leadership begins once");
        self.active = true;
        self.sessions.begin(cx, facts.store);
        self.lock_delays.begin(cx, facts.store);
        self.tombstones.follow(cx, facts.store);
        self.restores.follow(cx, facts.store);
        self.reconcile.all(cx, facts);
        self.autopilot.begin(cx, facts, Uuid::random(&mut self.rng));
        self.entries.begin(cx, facts);
        self.raising.look(cx, facts);
    }

    /// Leadership has ended.
    pub fn end(&mut self, cx: &mut Cx<'_, Effect>) {
        if !self.active {
            return;
        }
        self.active = false;
        self.sessions = Sessions::default();
        self.lock_delays = LockDelays::default();
        self.tombstones.forget();
        self.reconcile = Reconcile::default();
        self.autopilot.end();
        self.coordinates = Coordinates::default();
        self.restores = Restores::default();
        self.raising = Raising::default();
        for timer in DutyTimer::ALL {
            cx.timers.cancel(&Timer::Duty(timer));
        }
    }

    /// A commit touched these keys; `store` includes it. Also called for commits that touch none: a change of the group
    /// is one of them.
    pub fn on_applied(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>, touched: &[WatchKey]) {
        if !self.active {
            return;
        }
        if touched.contains(&WatchKey::All) {
            // Another state was restored: what was known of the former one is of no use.
            self.end(cx);
            return self.begin(cx, facts);
        }
        self.sessions.follow(cx, facts.store, touched);
        self.lock_delays.follow(cx, facts.store, touched);
        self.tombstones.follow(cx, facts.store);
        self.restores.follow(cx, facts.store);
        self.autopilot.on_applied(cx, facts);
        self.raising.look(cx, facts);
    }

    /// Gossip says something new of a member of the datacenter's pool; `facts` include it.
    pub fn on_member(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>, change: &MemberChange) {
        if !self.active {
            return;
        }
        let member = match change {
            MemberChange::Upsert(member) => {
                self.reconcile.member(cx, facts, member);
                member
            }
            MemberChange::Reaped(member) => {
                self.reconcile.reaped(cx, facts, member);
                member
            }
        };
        if member.is_server() {
            self.autopilot.look(cx, facts);
            self.raising.look(cx, facts);
        }
    }

    /// A command of [`Effect::Propose`] was applied, or refused by the store.
    pub fn on_done(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        facts: &Facts<'_>,
        command: &Command,
        response: &Response,
    ) {
        if self.active {
            self.reconcile.on_done(cx, facts, command, response);
        }
    }

    /// Restarts a session's TTL. `false` when there is no such session, or its end is already under way.
    ///
    /// The caller has made sure that no later leader exists: otherwise that one's clock would not know.
    pub fn renew(&mut self, cx: &mut Cx<'_, Effect>, store: &Store, id: Uuid) -> bool {
        self.active && store.session(id).is_some() && self.sessions.renew(cx, id)
    }

    /// A node says where it is. Lost on a server that does not lead, or when leadership ends before it is replicated.
    /// What is not a number is nowhere.
    pub fn locate(&mut self, cx: &mut Cx<'_, Effect>, node: Text, coordinate: Coordinate) {
        if self.active && coordinate.is_finite() {
            self.coordinates.locate(cx, node, coordinate);
        }
    }

    /// How the group of servers is doing; `None` on a server that does not lead.
    #[must_use]
    pub fn autopilot(&self, now: Now, facts: &Facts<'_>) -> Option<autopilot::State> {
        self.active.then(|| self.autopilot.state(now, facts))
    }

    /// A duty's deadline has come.
    pub fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, facts: &Facts<'_>, timer: &DutyTimer) {
        if !self.active {
            return;
        }
        match timer {
            DutyTimer::SessionTtl => self.sessions.on_timer(cx),
            DutyTimer::LockDelay => self.lock_delays.on_timer(cx),
            DutyTimer::Tombstones => self.tombstones.on_timer(cx, facts.store),
            DutyTimer::Reconcile => self.reconcile.all(cx, facts),
            DutyTimer::Autopilot => self.autopilot.on_timer(cx, facts),
            DutyTimer::Coordinates => self.coordinates.on_timer(cx, facts.store),
            DutyTimer::Restore => self.restores.look(cx, facts.store),
        }
    }
}
