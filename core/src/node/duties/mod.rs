//! What only the leader does: waiting out session TTLs and lock-delays, forgetting old deletions, vouching for servers.
//!
//! Everything here is rebuilt from the replicated state when leadership begins, and dropped when it ends. A new leader
//! starts every clock in full, so a fail-over may lengthen a TTL or a lock-delay, never shorten it.

mod lock_delays;
mod roster;
mod sessions;
mod tombstones;

use std::time::Duration;

pub use self::roster::{SERF_HEALTH, SERVICE};

use self::lock_delays::LockDelays;
use self::sessions::Sessions;
use self::tombstones::Tombstones;
use super::RosterEntry;
use crate::cx::{Cx, Timer};
use crate::ids::Uuid;
use crate::store::Store;
use crate::store::command::Command;
use crate::store::query::WatchKey;

/// Deadlines of the leader's duties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DutyTimer {
    /// The earliest session TTL.
    SessionTtl,
    /// The earliest end of a lock-delay.
    LockDelay,
    /// Old deletions are due to be forgotten.
    Tombstones,
}

/// What a duty wants replicated.
pub type Effect = Command;

/// The leader's duties; idle on every other server.
#[derive(Debug)]
pub struct Duties {
    /// Whether this server leads and has applied everything that came before its term.
    active: bool,
    sessions: Sessions,
    lock_delays: LockDelays,
    tombstones: Tombstones,
}

impl Duties {
    /// Idle duties.
    #[must_use]
    pub fn new(tombstone_ttl: Duration) -> Duties {
        Duties {
            active: false,
            sessions: Sessions::default(),
            lock_delays: LockDelays::default(),
            tombstones: Tombstones::new(tombstone_ttl),
        }
    }

    /// Whether this server performs them.
    #[must_use]
    pub fn active(&self) -> bool {
        self.active
    }

    /// Leadership has begun and everything that came before is applied.
    pub fn begin(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        store: &Store,
        roster: &[RosterEntry],
        datacenter: &str,
    ) {
        assert!(!self.active, "leadership begins once");
        self.active = true;
        self.sessions.begin(cx, store);
        self.lock_delays.begin(cx, store);
        self.tombstones.follow(cx, store);
        roster::vouch(cx, store, roster, datacenter);
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
        for timer in [DutyTimer::SessionTtl, DutyTimer::LockDelay, DutyTimer::Tombstones] {
            cx.timers.cancel(&Timer::Duty(timer));
        }
    }

    /// A commit touched these keys; `store` includes it.
    pub fn on_applied(&mut self, cx: &mut Cx<'_, Effect>, store: &Store, touched: &[WatchKey]) {
        if !self.active {
            return;
        }
        self.sessions.follow(cx, store, touched);
        self.lock_delays.follow(cx, store, touched);
        self.tombstones.follow(cx, store);
    }

    /// Restarts a session's TTL. `false` when there is no such session, or its end is already under way.
    ///
    /// The caller has made sure that no later leader exists: otherwise that one's clock would not know.
    pub fn renew(&mut self, cx: &mut Cx<'_, Effect>, store: &Store, id: Uuid) -> bool {
        self.active && store.session(id).is_some() && self.sessions.renew(cx, id)
    }

    /// A duty's deadline has come.
    pub fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, store: &Store, timer: &DutyTimer) {
        if !self.active {
            return;
        }
        match timer {
            DutyTimer::SessionTtl => self.sessions.on_timer(cx),
            DutyTimer::LockDelay => self.lock_delays.on_timer(cx),
            DutyTimer::Tombstones => self.tombstones.on_timer(cx, store),
        }
    }
}
