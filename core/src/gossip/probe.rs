//! Finding failures: a probe of one member per interval (SWIM, sections 3 and 4.3; Lifeguard, section IV).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::join::Purpose;
use super::member::{State, is_good_name};
use super::packet::{Message, Request, encode, label};
use super::round::Round;
use super::table::Slot;
use super::types::{CallError, Effect};
use super::{Gossip, Timer};
use crate::Text;
use crate::coordinate::Coordinate;
use crate::cx::Cx;
use crate::time::Mono;

/// So many pings for others are under way at most.
const RELAYS_MAX: usize = 1024;

/// The probe under way, and the pings made for others.
#[derive(Debug)]
pub(super) struct Probes {
    round: Option<Round>,
    /// Whether the next probe goes to the neighbour.
    neighbour: bool,
    current: Option<Probe>,
    /// When the next probe was to begin; beginning much later is a sign that this member was stopped.
    due: Mono,
    relays: BTreeMap<u32, Relay>,
    next_seq: u32,
}

impl Probes {
    pub fn new(first_seq: u32) -> Probes {
        Probes {
            round: None,
            neighbour: false,
            current: None,
            due: Mono::NEVER,
            relays: BTreeMap::new(),
            next_seq: first_seq,
        }
    }

    fn seq(&mut self) -> u32 {
        self.next_seq = self.next_seq.wrapping_add(1);
        self.next_seq
    }
}

#[derive(Debug)]
struct Probe {
    seq: u32,
    slot: Slot,
    name: Text,
    sent: Mono,
    stage: Stage,
    /// Whom we asked to try.
    helpers: Vec<Slot>,
    nacks: usize,
    /// A connection was refused.
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// We have pinged it. Left by an ack, or when that is late.
    Direct,
    /// Others ping it as well, and a stream is tried. Left by a sign of life, or with the interval's end.
    Indirect,
    /// There is a verdict.
    Over,
}

/// A ping made for somebody else's sake.
#[derive(Debug)]
enum Relay {
    /// The answer goes to whoever asked.
    For { to: SocketAddr, seq: u32 },
    /// Somebody was refused a connection; we see for ourselves.
    Verify { slot: Slot, name: Text, refused: bool },
}

impl Gossip {
    /// The probe under way ends, the next one begins.
    pub(super) fn on_probe(&mut self, cx: &mut Cx<'_, Effect>) {
        let now = cx.mono();
        let late = now.since(self.probes.due);
        if self.config.lifeguard && late > self.config.profile.probe_timeout {
            // This member was stopped: an answer may lie unread at its door, so silence proves nothing.
            self.probes.current = None;
            self.awareness.apply(1);
        }
        self.conclude(cx);
        self.probes.current = None;
        if self.table.alive() <= 1 {
            return self.disarm(cx, Timer::PingLate);
        }
        let interval = self.awareness.scale(self.config.profile.probe_interval);
        self.arm_probe(cx, now + interval);
        let Some(slot) = self.next_target() else {
            return;
        };
        let seq = self.probes.seq();
        let name = self.table.at(slot).info.name.clone();
        self.ping(cx, slot, seq);
        self.stats.probes += 1;
        let helpers = Vec::new();
        let stage = Stage::Direct;
        self.probes.current =
            Some(Probe { seq, slot, name, sent: now, stage, helpers, nacks: 0, refused: false });
        let timeout = self.awareness.scale(self.config.profile.probe_timeout);
        self.arm(cx, Timer::PingLate, now + timeout);
    }

    pub(super) fn arm_probe(&mut self, cx: &mut Cx<'_, Effect>, at: Mono) {
        self.probes.due = at;
        self.arm(cx, Timer::Probe, at);
    }

    /// The direct ping is late, or its target refused a connection and nobody else reached it.
    pub(super) fn on_ping_late(&mut self, cx: &mut Cx<'_, Effect>) {
        let Some(probe) = &mut self.probes.current else {
            return;
        };
        match probe.stage {
            Stage::Direct => probe.stage = Stage::Indirect,
            Stage::Indirect => return self.conclude(cx),
            Stage::Over => return,
        }
        let (seq, slot, name) = (probe.seq, probe.slot, probe.name.clone());
        if !self.is_still(slot, &name) {
            return;
        }
        // The first one may just have been lost.
        self.ping(cx, slot, seq);
        let (me, address) = (self.me, self.table.at(slot).info.address);
        let count = self.config.profile.indirect_checks;
        let helpers = self.table.random(&mut self.rng, count, |helper, entry| {
            helper != me && helper != slot && entry.state == State::Alive
        });
        for helper in &helpers {
            let to = self.table.at(*helper).info.address;
            self.send(cx, to, &Message::PingRequest { seq, target: &name, address });
        }
        let rest = self.probes.due.since(cx.mono());
        let body = encode(&Request::Ping(&name), vec![label(self.pool)]);
        self.call(cx, address, &body, rest, Purpose::Probe(seq));
        if let Some(probe) = &mut self.probes.current {
            probe.helpers = helpers;
        }
    }

    /// The stream that was tried in a probe, or to verify a refusal, ended.
    pub(super) fn on_ping_call(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        seq: u32,
        result: Result<bool, CallError>,
    ) {
        if let Some(Relay::Verify { refused, .. }) = self.probes.relays.get_mut(&seq) {
            match result {
                Ok(true) => {
                    self.probes.relays.remove(&seq);
                    self.disarm(cx, Timer::Relay(seq));
                }
                Err(CallError::Refused) => *refused = true,
                Ok(false) | Err(CallError::TimedOut | CallError::Closed) => {}
            }
            return;
        }
        let Some(probe) = self.probes.current.as_mut().filter(|probe| probe.seq == seq) else {
            return;
        };
        if probe.stage == Stage::Over {
            return;
        }
        match result {
            // It lives, only datagrams are lost.
            Ok(true) => self.on_sign_of_life(cx),
            Err(CallError::Refused) => {
                // The host is there and the process is not: the verdict need not wait for the interval's end, only for
                // those who may reach it by datagram; and whoever sees the same makes the suspicion short.
                probe.refused = true;
                let (name, helpers) = (probe.name.clone(), probe.helpers.clone());
                for helper in helpers {
                    if let Some(entry) = self.table.get(helper) {
                        let to = entry.info.address;
                        self.send(cx, to, &Message::Verify { target: &name });
                    }
                }
                let verdict = cx.mono() + self.config.profile.probe_timeout / 2;
                if verdict < self.probes.due {
                    self.arm(cx, Timer::PingLate, verdict);
                }
            }
            Ok(false) | Err(CallError::TimedOut | CallError::Closed) => {}
        }
    }

    /// Somebody asks whether `target` is here.
    pub(super) fn on_ping(&mut self, cx: &mut Cx<'_, Effect>, from: SocketAddr, seq: u32, target: &str) {
        if target == self.config.name {
            let coordinate = self.config.coordinates.then(|| self.vivaldi.get().clone());
            self.send(cx, from, &Message::Ack { seq, coordinate });
        }
    }

    /// Somebody asks us to ping for it.
    pub(super) fn on_ping_request(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        from: SocketAddr,
        seq: u32,
        target: &str,
        address: SocketAddr,
    ) {
        if !is_good_name(target) {
            self.stats.dropped.malformed += 1;
            return;
        }
        if self.probes.relays.len() >= RELAYS_MAX {
            return;
        }
        let own = self.probes.seq();
        self.probes.relays.insert(own, Relay::For { to: from, seq });
        match self.table.find(target) {
            Some(slot) if slot == self.me => {}
            Some(slot) if self.table.at(slot).info.address == address => self.ping(cx, slot, own),
            _ => self.send(cx, address, &Message::Ping { seq: own, target }),
        }
        // Before the asker's own patience ends.
        let patience = self.config.profile.probe_timeout * 4 / 5;
        self.arm(cx, Timer::Relay(own), cx.mono() + patience);
    }

    /// Somebody was refused a connection to `target`: the host answers for its process, so we can see it ourselves.
    pub(super) fn on_verify(&mut self, cx: &mut Cx<'_, Effect>, target: &str) {
        let Some(slot) = self.table.find(target).filter(|slot| *slot != self.me) else {
            return;
        };
        let entry = self.table.at(slot);
        if !entry.state.is_alive() || self.probes.relays.len() >= RELAYS_MAX {
            return;
        }
        let (name, address) = (entry.info.name.clone(), entry.info.address);
        let seq = self.probes.seq();
        // Twice: that one packet is lost must not look like a proof.
        self.ping(cx, slot, seq);
        self.ping(cx, slot, seq);
        let patience = self.config.profile.probe_timeout / 2;
        let body = encode(&Request::Ping(&name), vec![label(self.pool)]);
        self.call(cx, address, &body, patience, Purpose::Probe(seq));
        self.probes.relays.insert(seq, Relay::Verify { slot, name, refused: false });
        self.arm(cx, Timer::Relay(seq), cx.mono() + patience);
    }

    /// A ping was answered.
    pub(super) fn on_ack(&mut self, cx: &mut Cx<'_, Effect>, seq: u32, coordinate: Option<Coordinate>) {
        if let Some(relay) = self.probes.relays.remove(&seq) {
            self.disarm(cx, Timer::Relay(seq));
            if let Relay::For { to, seq } = relay {
                self.send(cx, to, &Message::Ack { seq, coordinate: None });
            }
            return;
        }
        let Some(probe) = self.probes.current.as_ref().filter(|probe| probe.seq == seq) else {
            return;
        };
        if probe.stage == Stage::Over {
            return;
        }
        // Only the target itself tells its coordinate, so this is the way there and back of the only ping so far.
        if let Some(coordinate) = coordinate
            && probe.stage == Stage::Direct
            && self.config.coordinates
        {
            let rtt = cx.mono().since(probe.sent);
            let name = probe.name.clone();
            if self.vivaldi.update(&coordinate, &name, rtt) && self.pool == super::Pool::Wan {
                self.located.insert(name, coordinate);
            }
        }
        self.on_sign_of_life(cx);
    }

    pub(super) fn on_nack(&mut self, seq: u32) {
        if let Some(probe) = self.probes.current.as_mut().filter(|probe| probe.seq == seq) {
            probe.nacks += 1;
        }
    }

    /// A ping for somebody else stayed without an answer.
    pub(super) fn on_relay_late(&mut self, cx: &mut Cx<'_, Effect>, seq: u32) {
        match self.probes.relays.remove(&seq) {
            Some(Relay::For { to, seq }) if self.config.lifeguard => {
                self.send(cx, to, &Message::Nack { seq })
            }
            Some(Relay::Verify { slot, name, refused: true }) if self.is_still(slot, &name) => {
                self.accuse(cx, slot, true);
            }
            Some(Relay::For { .. } | Relay::Verify { .. }) | None => {}
        }
    }

    fn on_sign_of_life(&mut self, cx: &mut Cx<'_, Effect>) {
        if let Some(probe) = &mut self.probes.current {
            probe.stage = Stage::Over;
            self.disarm(cx, Timer::PingLate);
            self.awareness.apply(-1);
        }
    }

    /// Ends the probe under way; without a sign of life its target is suspected.
    fn conclude(&mut self, cx: &mut Cx<'_, Effect>) {
        let Some(probe) = &mut self.probes.current else {
            return;
        };
        if probe.stage == Stage::Over {
            return;
        }
        probe.stage = Stage::Over;
        let (slot, name, refused) = (probe.slot, probe.name.clone(), probe.refused);
        let (asked, nacks) = (probe.helpers.len(), probe.nacks);
        self.stats.probes_failed += 1;
        if !refused {
            // Helpers that answer prove that we can be reached; those that do not, that something is wrong here.
            let missed = asked.saturating_sub(nacks);
            self.awareness.apply(if asked > 0 { missed as i32 } else { 1 });
        }
        if self.is_still(slot, &name) {
            self.accuse(cx, slot, refused);
        }
    }

    /// Suspects a member, and lets it know first of all (Lifeguard's buddy system).
    fn accuse(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot, refused: bool) {
        let entry = self.table.at(slot);
        let (name, incarnation) = (entry.info.name.clone(), entry.incarnation);
        let (own_name, to) = (self.config.name.clone(), entry.info.address);
        self.on_suspect(cx, incarnation, &name, &own_name, refused);
        if self.config.lifeguard {
            let suspect = Message::Suspect { incarnation, name: &name, from: &own_name, refused };
            self.send(cx, to, &suspect);
        }
    }

    /// Pings a member; when it is suspected it is told so as well (Lifeguard's buddy system).
    fn ping(&mut self, cx: &mut Cx<'_, Effect>, slot: Slot, seq: u32) {
        let entry = self.table.at(slot);
        let (name, to) = (entry.info.name.clone(), entry.info.address);
        let ping = Message::Ping { seq, target: &name };
        if entry.state == State::Suspect && self.config.lifeguard {
            let (incarnation, from) = (entry.incarnation, self.config.name.clone());
            let suspect = Message::Suspect { incarnation, name: &name, from: &from, refused: false };
            self.send_all(cx, to, &[ping, suspect]);
        } else {
            self.send(cx, to, &ping);
        }
    }

    /// Who is to be probed: in turn the neighbour, and the next member in the round's order.
    ///
    /// SWIM probes at random only, so that a failed member is found by the first probe after one interval in the mean,
    /// but not within five in one of 150 cases. That each has a neighbour that probes it every other interval cuts this
    /// tail off; the order of identities keeps members of one rack apart.
    fn next_target(&mut self) -> Option<Slot> {
        self.probes.neighbour = !self.probes.neighbour;
        let (me, table) = (self.me, &self.table);
        let fits = |slot: &Slot| *slot != me && table.at(*slot).state.is_alive();
        if self.probes.neighbour
            && let Some(slot) = table.circle_after(me).find(fits)
        {
            return Some(slot);
        }
        // Two rounds' ends: the first may have nothing left.
        for _ in 0..2 {
            if let Some(round) = &mut self.probes.round {
                for slot in round {
                    let fits =
                        slot != self.me && self.table.get(slot).is_some_and(|entry| entry.state.is_alive());
                    if fits {
                        return Some(slot);
                    }
                }
            }
            self.probes.round = Some(Round::new(&mut self.rng, self.table.slots()));
        }
        None
    }

    /// Whether the slot still holds that member, and it counts as there.
    fn is_still(&self, slot: Slot, name: &str) -> bool {
        self.table.get(slot).is_some_and(|entry| entry.info.name == name && entry.state.is_alive())
    }
}
