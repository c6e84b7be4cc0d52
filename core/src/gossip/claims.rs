//! What is claimed of members, and which claim wins (SWIM, section 4.2): a higher incarnation beats a lower one; in the
//! same incarnation death beats suspicion beats life. Only the member itself raises its incarnation.

use std::sync::Arc;
use std::time::Duration;

use super::broadcast::Topic;
use super::member::{Entry, MemberInfo, Millis, State};
use super::packet::{Alive, Message};
use super::suspicion::{Bounds, Suspicion};
use super::table::Slot;
use super::types::{Effect, Pool, Status, tag};
use super::{Gossip, Timer};
use crate::cx::Cx;
use crate::planted::{Bug, planted};

/// An incarnation this far beyond the known one was never reached by refuting: it is forged, and believing it would
/// take the member's voice away.
const INCARNATION_LEAP_MAX: u32 = 1 << 24;

/// About so long after others could not reach it a member exchanges state.
const MISSED_SOON: Duration = Duration::from_secs(2);

/// So many members are known at most, failed and left ones included: whoever can send packets that nobody seals could
/// fill the memory otherwise.
pub(super) const MEMBERS_MAX: usize = 65_536;

/// Why two members cannot be in one pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    #[error("Member '{0}' part of wrong datacenter '{1}'")]
    Datacenter(String, String),
    #[error("Member '{0}' has conflicting node ID '{1}' with member '{2}'")]
    Identity(String, String, String),
    #[error("Member '{0}' at {1} has the name of another member at {2}")]
    Name(String, std::net::SocketAddr, std::net::SocketAddr),
    #[error("Member '{0}' has address {1}, which is not in the allowed networks")]
    Outside(String, std::net::IpAddr),
    #[error("Member '{0}' describes itself in a way that makes no sense")]
    Nonsense(String),
}

impl Misfit {
    /// Where the member is that has the other's name.
    pub fn taken_by(&self) -> Option<std::net::SocketAddr> {
        match self {
            Misfit::Name(_, _, known) => Some(*known),
            Misfit::Datacenter(..) | Misfit::Identity(..) | Misfit::Outside(..) | Misfit::Nonsense(_) => None,
        }
    }
}

impl Gossip {
    /// Somebody says that a member is there.
    pub(super) fn on_alive(&mut self, cx: &mut Cx<'_, Effect>, alive: &Alive<'_>) {
        match self.table.find(alive.name) {
            None => {
                if let Some(info) = self.admit(cx, alive) {
                    self.on_newcomer(cx, info, alive.incarnation);
                }
            }
            Some(slot) if slot == self.me => self.on_alive_me(cx, alive),
            Some(slot) => self.on_alive_known(cx, slot, alive),
        }
    }

    /// Somebody says that a member cannot be reached; `refused`: because its host refused a connection.
    pub(super) fn on_suspect(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        incarnation: u32,
        name: &str,
        from: &str,
        refused: bool,
    ) {
        let Some((slot, entry)) = self.claimed(name, incarnation) else {
            return;
        };
        if slot == self.me {
            if self.leaving.is_no() {
                self.refute(cx, incarnation);
            }
            return;
        }
        let now = cx.mono();
        match entry.state {
            // In a higher incarnation it has refuted the former suspicion: this is another one.
            State::Alive | State::Suspect
                if entry.state == State::Alive || incarnation > entry.incarnation =>
            {
                let members = self.table.alive();
                let min = self.config.profile.suspicion_min(members);
                let wanted = self.config.profile.suspicion_mult.saturating_sub(2);
                let (confirmations, max_mult) = match self.config.lifeguard {
                    // In a tiny pool there is nobody who could confirm.
                    true if members < wanted as usize + 2 => (0, 1),
                    true => (wanted, self.config.profile.suspicion_max_mult),
                    false => (0, 1),
                };
                let refused_timeout = self.config.profile.refused_timeout;
                let bounds = Bounds { min, max: min * max_mult, confirmations, refused: refused_timeout };
                let suspicion = Suspicion::new(bounds, from, refused, now);
                self.arm(cx, Timer::Suspicion(slot), suspicion.deadline());
                self.suspicions.insert(slot, suspicion);
                self.table.set_state(slot, State::Suspect, incarnation, Millis::at(now));
                self.stats.suspicions += 1;
                cx.emit(Effect::Suspected(self.table.at(slot).info.name.clone()));
            }
            State::Alive | State::Suspect => {
                let suspicion = self.suspicions.get_mut(&slot).expect("a suspect has a suspicion");
                if !suspicion.hear(from, refused, now) {
                    return;
                }
                let deadline = suspicion.deadline();
                self.arm(cx, Timer::Suspicion(slot), deadline);
            }
            State::Dead | State::Left => return,
        }
        self.broadcast(cx, Topic::Member(slot), &Message::Suspect { incarnation, name, from, refused });
    }

    /// Somebody says that a member has failed; or it says itself that it has left.
    pub(super) fn on_dead(&mut self, cx: &mut Cx<'_, Effect>, incarnation: u32, name: &str, from: &str) {
        let Some((slot, entry)) = self.claimed(name, incarnation) else {
            return;
        };
        if slot == self.me {
            if self.leaving.is_no() {
                self.refute(cx, incarnation);
            }
            return;
        }
        let state = if from == name { State::Left } else { State::Dead };
        let news = match entry.state {
            State::Alive | State::Suspect => true,
            // It was thought to have failed, and had left; or it was back in between.
            State::Dead => state == State::Left || incarnation > entry.incarnation,
            State::Left => incarnation > entry.incarnation,
        };
        if !news {
            return;
        }
        let before = entry.status();
        self.drop_suspicion(cx, slot);
        self.table.set_state(slot, state, incarnation, Millis::at(cx.mono()));
        let after = self.table.at(slot).status();
        if after != before {
            if after == Status::Failed {
                self.stats.failures_seen += 1;
            }
            self.tell(cx, slot);
        }
        self.broadcast(cx, Topic::Member(slot), &Message::Dead { incarnation, name, from });
        self.begin_reaping(cx);
    }

    /// A suspicion was not refuted in time.
    pub(super) fn on_suspicion_over(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot) {
        let Some(suspicion) = self.suspicions.get_mut(&slot) else {
            return;
        };
        let now = cx.mono();
        if planted(Bug::SuspicionNeverOver) {
            return;
        }
        let late = now.since(suspicion.deadline());
        let stopped = late > self.config.profile.probe_timeout;
        if self.config.lifeguard && !suspicion.prolonged && (stopped || self.awareness.is_unwell()) {
            // Objections may lie unread at the door of a member that was stopped, and one that gets no answers is no
            // good judge: it leaves the verdict to others for a while.
            let patience = if stopped { self.config.profile.probe_interval } else { suspicion.length_min() };
            suspicion.prolong(now + patience);
            let deadline = suspicion.deadline();
            self.awareness.apply(i32::from(stopped));
            return self.arm(cx, Timer::Suspicion(slot), deadline);
        }
        let entry = self.table.at(slot);
        let (name, incarnation) = (entry.info.name.clone(), entry.incarnation);
        self.stats.failures_declared += 1;
        let own_name = self.config.name.clone();
        self.on_dead(cx, incarnation, &name, &own_name);
        assert!(!self.suspicions.contains_key(&slot), "death ends suspicion");
    }

    /// Why a member cannot be in the pool together with those that are; `None`: it can.
    pub(super) fn misfit(&self, info: &MemberInfo) -> Option<Misfit> {
        if !self.config.allows(info.address.ip()) {
            return Some(Misfit::Outside(info.name.to_string(), info.address.ip()));
        }
        let datacenter = info.tag(tag::DATACENTER);
        let own = &self.config.datacenter;
        if self.pool == Pool::Lan && !own.is_empty() && !datacenter.is_empty() && datacenter != own {
            return Some(Misfit::Datacenter(info.name.to_string(), datacenter.to_owned()));
        }
        let id = info.id?;
        let entry = self.table.at(self.table.find_id(id)?);
        (entry.info.name != info.name && entry.state.is_alive())
            .then(|| Misfit::Identity(info.name.to_string(), id.to_string(), entry.info.name.to_string()))
    }

    /// Whether a known name may be taken by whoever speaks from another address: the same agent always may (its
    /// identity decides, not its address), another one when the name is free.
    pub(super) fn may_move(&self, cx: &Cx<'_, Effect>, entry: &Entry, info: &MemberInfo) -> bool {
        if entry.info.address == info.address || (info.id.is_some() && info.id == entry.info.id) {
            return true;
        }
        match entry.state {
            State::Left => true,
            State::Dead => entry.since.age(cx.mono()) > self.config.profile.dead_reclaim,
            State::Alive | State::Suspect => false,
        }
    }

    /// A member that nobody spoke of before is added.
    pub(super) fn on_newcomer(&mut self, cx: &mut Cx<'_, Effect>, info: MemberInfo, incarnation: u32) {
        let slot = self.table.insert(Arc::new(info), incarnation, State::Alive, Millis::at(cx.mono()));
        self.recall_intent(slot);
        self.tell(cx, slot);
        self.broadcast_alive(cx, slot);
        self.begin_work(cx);
    }

    /// What a message says of an unknown member, if it makes sense and fits.
    pub(super) fn admit(&mut self, cx: &mut Cx<'_, Effect>, alive: &Alive<'_>) -> Option<MemberInfo> {
        let Some(info) = MemberInfo::received(alive.name, alive.address, alive.meta) else {
            self.stats.dropped.malformed += 1;
            return None;
        };
        if alive.incarnation > INCARNATION_LEAP_MAX || self.table.len() >= MEMBERS_MAX {
            self.stats.dropped.malformed += 1;
            return None;
        }
        if let Some(misfit) = self.misfit(&info) {
            self.refuse(cx, &misfit);
            return None;
        }
        Some(info)
    }

    pub(super) fn refuse(&mut self, cx: &mut Cx<'_, Effect>, misfit: &Misfit) {
        self.stats.dropped.refused += 1;
        // One line now and then: the claim comes back with every exchange of state.
        if self.stats.dropped.refused.is_power_of_two() {
            cx.emit(Effect::Warn(misfit.to_string().into()));
        }
    }

    pub(super) fn drop_suspicion(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot) {
        if self.suspicions.remove(&slot).is_some() {
            self.disarm(cx, Timer::Suspicion(slot));
        }
    }

    /// Contradicts a claim about this member by a higher incarnation.
    pub(super) fn refute(&mut self, cx: &mut Cx<'_, Effect>, claimed: u32) {
        if planted(Bug::RefutationSkipped) {
            return;
        }
        let further = u32::from(!planted(Bug::RefutationKeepsIncarnation));
        let incarnation = self.incarnation().max(claimed).saturating_add(further);
        self.table.set_state(self.me, State::Alive, incarnation, Millis::at(cx.mono()));
        self.stats.refuted += 1;
        // To be suspected is a sign that something is wrong here.
        self.awareness.apply(1);
        self.announce(cx);
        // Others could not reach it: it may have missed what they said.
        let soon = cx.mono() + MISSED_SOON + self.rng.duration_below(MISSED_SOON * 2);
        if self.deadline(cx, Timer::PushPull).is_some_and(|at| at > soon) {
            self.arm(cx, Timer::PushPull, soon);
        }
    }

    fn on_alive_known(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot, alive: &Alive<'_>) {
        let entry = self.table.at(slot);
        if alive.incarnation <= entry.incarnation {
            if alive.incarnation == entry.incarnation && alive.meta != entry.info.meta {
                // Two lives of one member: the living one settles it, as soon as it hears of the other.
                let to = entry.info.address;
                self.send(cx, to, &Message::Alive(alive.clone()));
            }
            return;
        }
        if alive.incarnation - entry.incarnation > INCARNATION_LEAP_MAX {
            self.stats.dropped.malformed += 1;
            return;
        }
        let same = entry.info.address == alive.address && entry.info.meta == alive.meta;
        if !same {
            let Some(info) = self.admit_again(cx, slot, alive) else {
                return;
            };
            self.table.set_info(slot, Arc::new(info));
        }
        let entry = self.table.at(slot);
        let (before, was_gone) = (entry.status(), !entry.state.is_alive());
        self.drop_suspicion(cx, slot);
        self.table.set_state(slot, State::Alive, alive.incarnation, Millis::at(cx.mono()));
        if was_gone {
            // It begins anew: what was meant for its former life is over.
            let time = self.table.at(slot).intent_time;
            self.table.set_intent(slot, false, time);
            self.begin_work(cx);
        }
        if !same || self.table.at(slot).status() != before {
            self.tell(cx, slot);
        }
        self.broadcast_alive(cx, slot);
    }

    /// What a known member newly says of itself, if it makes sense and fits.
    fn admit_again(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot, alive: &Alive<'_>) -> Option<MemberInfo> {
        let Some(info) = MemberInfo::received(alive.name, alive.address, alive.meta) else {
            self.stats.dropped.malformed += 1;
            return None;
        };
        let entry = self.table.at(slot);
        let misfit = if self.may_move(cx, entry, &info) {
            self.misfit(&info)
        } else {
            Some(Misfit::Name(info.name.to_string(), info.address, entry.info.address))
        };
        match misfit {
            Some(misfit) => {
                self.refuse(cx, &misfit);
                None
            }
            None => Some(info),
        }
    }

    /// Somebody speaks of this very member.
    fn on_alive_me(&mut self, cx: &mut Cx<'_, Effect>, alive: &Alive<'_>) {
        let own = self.table.at(self.me);
        let same = own.info.address == alive.address && own.info.meta == alive.meta;
        if !self.leaving.is_no() || alive.incarnation < own.incarnation {
            return;
        }
        if same && alive.incarnation == own.incarnation {
            return;
        }
        if alive.incarnation - own.incarnation > INCARNATION_LEAP_MAX {
            self.stats.dropped.malformed += 1;
            return;
        }
        if own.info.address != alive.address {
            let id = own.info.id;
            let Some(info) = MemberInfo::received(alive.name, alive.address, alive.meta) else {
                self.stats.dropped.malformed += 1;
                return;
            };
            if id.is_none() || info.id != id {
                return self.on_conflict(cx, alive.address);
            }
        }
        // An earlier life of this agent, or one at another address.
        self.refute(cx, alive.incarnation);
    }

    /// The member of whom something bad is said, unless it has answered that already.
    fn claimed(&mut self, name: &str, incarnation: u32) -> Option<(Slot, Entry)> {
        let slot = self.table.find(name)?;
        let entry = self.table.at(slot);
        if incarnation < entry.incarnation {
            return None;
        }
        if incarnation - entry.incarnation > INCARNATION_LEAP_MAX {
            self.stats.dropped.malformed += 1;
            return None;
        }
        Some((slot, entry.clone()))
    }
}
