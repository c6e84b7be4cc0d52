//! Changing the keys of the whole pool: every member is asked, and whoever was away learns it when it exchanges state.

use std::net::SocketAddr;
use std::time::Duration;

use super::Gossip;
use super::join::Purpose;
use super::keyring::{Key, Keyring, KeysChange, KeysReport};
use super::packet::{Ask, Ring};
use super::types::Effect;
use crate::cx::Cx;

/// So many keys fit a ring: the answer to a question must fit a datagram.
const KEYS_MAX: usize = 24;

/// A ring is asked for at most this often.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// A change of keys that somebody waits for.
#[derive(Debug)]
pub(super) struct KeysWanted {
    ticket: u64,
    report: KeysReport,
}

impl Gossip {
    /// Changes the ring of keys of every member, or lists it; ends with [`Effect::Keys`], at the latest when the
    /// profile's query timeout is over.
    pub fn change_keys(&mut self, cx: &mut Cx<'_, Effect>, change: KeysChange, ticket: u64) {
        let sealed = self.config.verify_outgoing;
        let time = self.queries.clock.time() + 1;
        let error = self.apply_keys_change(cx, &change, time, sealed).err();
        let mut report = KeysReport { members: self.table.alive(), ..KeysReport::default() };
        let keys = self.ring.list();
        record(&mut report, &self.config.name, error.as_deref(), &keys);
        if keys.is_empty() || !sealed {
            // Nobody could be asked without telling keys in the open.
            return cx.emit(Effect::Keys { ticket, report });
        }
        let id = self.ask(cx, Ask::Keys(change));
        self.keys_wanted.insert(id, KeysWanted { ticket, report });
        if self.all_answered(id) {
            self.close_query(cx, id);
            self.on_keys_over(cx, id);
        }
    }

    /// Changes our own ring.
    pub(super) fn apply_keys_change(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        change: &KeysChange,
        time: u64,
        sealed: bool,
    ) -> Result<(), String> {
        if !sealed && !self.ring.is_empty() {
            return Err("keys are changed by sealed messages only".to_owned());
        }
        let changed = match change {
            KeysChange::Install(key) if self.ring.keys().count() >= KEYS_MAX => {
                let known = self.ring.keys().any(|ours| ours == key);
                return if known { Ok(()) } else { Err(format!("a ring holds at most {KEYS_MAX} keys")) };
            }
            KeysChange::Install(key) => self.ring.install(key.clone()),
            KeysChange::Use(key) => self.ring.use_key(key),
            KeysChange::Remove(key) => self.ring.remove(key),
            KeysChange::List if self.ring.is_empty() => Err(super::KeyRefused::Empty),
            KeysChange::List => Ok(false),
        };
        if changed.map_err(|error| error.to_string())? {
            self.ring_time = self.ring_time.max(time);
            cx.emit(Effect::SaveKeys(self.ring.list()));
        }
        Ok(())
    }

    /// The ring of a member with which we exchange state; it was sealed, so we share a key.
    ///
    /// A ring that was changed later than ours replaces it, unless it lacks the key that we seal with: then the two have
    /// parted, which lamport times cannot judge after a restart of everybody. In any case the key that the other seals
    /// with is learnt, so that nobody is locked out who shares any key.
    pub(super) fn on_ring(&mut self, cx: &mut Cx<'_, Effect>, ring: &Ring) {
        let Some(theirs) = ring.keys.first() else {
            return;
        };
        if self.ring.is_empty() || ring.keys.len() > KEYS_MAX || !self.queries.clock.witness(ring.time) {
            return;
        }
        let before = self.ring.list();
        let parted = self.ring.primary().is_none_or(|ours| !ring.keys.contains(ours));
        if ring.time > self.ring_time && !parted {
            self.ring_time = ring.time;
            self.ring = Keyring::new(ring.keys.clone());
        } else if self.ring.keys().count() < KEYS_MAX {
            self.ring.install(theirs.clone()).expect("a ring with keys takes more");
        }
        let after = self.ring.list();
        if after != before {
            cx.emit(Effect::SaveKeys(after));
        }
    }

    /// A datagram could not be opened. If it came from a member, the keys may have changed without us: its ring is
    /// asked for, because a member that opens no pings is soon taken for failed.
    pub(super) fn on_unopened(&mut self, cx: &mut Cx<'_, Effect>, from: SocketAddr) {
        let (count, asked) = self.unopened;
        let now = cx.mono();
        if self.stats.dropped.seal == count || asked.is_some_and(|at| now.since(at) < ASK_INTERVAL) {
            return;
        }
        self.unopened = (self.stats.dropped.seal, Some(now));
        if self.table.iter().any(|(_, entry)| entry.state.is_alive() && entry.info.address == from) {
            self.exchange(cx, from, false, Purpose::PushPull);
        }
    }

    pub(super) fn on_keys_answer(&mut self, id: u64, from: &str, error: Option<&str>, keys: &[Key]) {
        if let Some(wanted) = self.keys_wanted.get_mut(&id) {
            record(&mut wanted.report, from, error, keys);
        }
    }

    pub(super) fn on_keys_over(&mut self, cx: &mut Cx<'_, Effect>, id: u64) {
        if let Some(KeysWanted { ticket, report }) = self.keys_wanted.remove(&id) {
            cx.emit(Effect::Keys { ticket, report });
        }
    }
}

fn record(report: &mut KeysReport, from: &str, error: Option<&str>, keys: &[Key]) {
    report.answers += 1;
    if let Some(error) = error {
        report.errors.insert(from.into(), error.into());
    }
    for key in keys {
        *report.keys.entry(key.to_base64()).or_default() += 1;
    }
    if let Some(primary) = keys.first() {
        *report.primary_keys.entry(primary.to_base64()).or_default() += 1;
    }
}
