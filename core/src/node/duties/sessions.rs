//! Session TTLs.
//!
//! A session never ends before its TTL has passed since it was created or last renewed, and ends at most one step of
//! the leader after it (Consul takes up to twice the TTL). Renewals are not replicated: a new leader starts in full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{DutyTimer, Effect};
use crate::cx::{Cx, Timer};
use crate::ids::Uuid;
use crate::planted::{Bug, planted};
use crate::store::Store;
use crate::store::command::Command;
use crate::store::query::WatchKey;
use crate::time::Mono;

/// Clocks of all sessions that have a TTL.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    clocks: BTreeMap<Uuid, Clock>,
    /// The same by time, those under way to their end left out.
    due: BTreeSet<(Mono, Uuid)>,
}

#[derive(Debug)]
struct Clock {
    ttl: Duration,
    /// `None`: its end is proposed; too late to renew.
    expires: Option<Mono>,
}

impl Sessions {
    pub(super) fn begin(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        for session in store.sessions_with_ttl() {
            if let Some(ttl) = session.ttl_parsed {
                self.start(cx, session.id, ttl);
            }
        }
        self.arm(cx);
    }

    pub(super) fn follow(&mut self, cx: &mut Cx<'_, Effect>, store: &Store, touched: &[WatchKey]) {
        let mut changed = false;
        for key in touched {
            let WatchKey::Session(id) = key else { continue };
            match store.session(*id).and_then(|session| session.ttl_parsed) {
                Some(ttl) if !self.clocks.contains_key(id) => self.start(cx, *id, ttl),
                Some(_) => continue,
                None => self.stop(*id),
            }
            changed = true;
        }
        if changed {
            self.arm(cx);
        }
    }

    pub(super) fn renew(&mut self, cx: &mut Cx<'_, Effect>, id: Uuid) -> bool {
        let Some(clock) = self.clocks.get_mut(&id) else {
            return true; // A session without a TTL has nothing to renew.
        };
        let Some(former) = clock.expires else { return false };
        if former <= cx.mono() {
            return false; // Its timer fires in this very step.
        }
        if planted(Bug::RenewalIgnored) {
            return true;
        }
        let expires = cx.mono() + clock.ttl;
        clock.expires = Some(expires);
        self.due.remove(&(former, id));
        self.due.insert((expires, id));
        self.arm(cx);
        true
    }

    pub(super) fn on_timer(&mut self, cx: &mut Cx<'_, Effect>) {
        while let Some((at, id)) = self.due.first().copied() {
            if at > cx.mono() {
                break;
            }
            self.due.remove(&(at, id));
            self.clocks.get_mut(&id).expect("due clocks exist").expires = None;
            cx.emit(Effect::Propose(Command::SessionDestroy { id }));
        }
        self.arm(cx);
    }

    fn start(&mut self, cx: &Cx<'_, Effect>, id: Uuid, ttl: Duration) {
        let expires = cx.mono() + ttl;
        self.clocks.insert(id, Clock { ttl, expires: Some(expires) });
        self.due.insert((expires, id));
    }

    fn stop(&mut self, id: Uuid) {
        if let Some(Clock { expires: Some(expires), .. }) = self.clocks.remove(&id) {
            self.due.remove(&(expires, id));
        }
    }

    fn arm(&self, cx: &mut Cx<'_, Effect>) {
        match self.due.first() {
            Some((at, _)) => cx.timers.set(Timer::Duty(DutyTimer::SessionTtl), *at),
            None => cx.timers.cancel(&Timer::Duty(DutyTimer::SessionTtl)),
        }
    }
}
