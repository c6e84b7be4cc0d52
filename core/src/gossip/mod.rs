//! Gossip: who is there, who has failed, what is to be told to everybody.
//!
//! SWIM (Das, Gupta, Motivala 2002) with the extensions of Lifeguard (Dadgar, Phillips, Currey 2017), and above it
//! lamport-clocked intents, user events and queries. One machine is one pool: agents have one for their datacenter
//! (LAN), servers a second one that spans datacenters (WAN).

mod config;
mod keyring;
mod stats;
mod timer;
mod types;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

pub use config::{Config, Profile};
pub use keyring::{BadKey, BadSeal, Key, KeyRefused, Keyring, KeysChange, KeysReport, SEAL_BYTES};
pub use stats::{Dropped, Stats};
pub use timer::Timer;
pub use types::{
    CallError, EVENT_BYTES_MAX, EVENT_ENCODED_BYTES_MAX, Effect, EventTooBig, META_BYTES_MAX, Member,
    MemberChange, Pool, Status, UserEvent, tag,
};

use crate::Text;
use crate::coordinate::Coordinate;
use crate::cx::Cx;
use crate::rng::Rng;
use crate::time::Now;

/// One member's part in one pool.
#[derive(Debug)]
pub struct Gossip {
    config: Config,
    coordinate: Coordinate,
}

impl Gossip {
    /// A member that knows nobody yet. `known` are addresses saved by an earlier run.
    #[must_use]
    pub fn new(_pool: Pool, config: Config, _known: Vec<SocketAddr>, _rng: Rng, _now: Now) -> Gossip {
        Gossip { config, coordinate: Coordinate::default() }
    }

    /// The first step: announces this member, arms timers, tries the known addresses.
    pub fn start(&mut self, _cx: &mut Cx<'_, Effect>) {}

    /// A datagram came. It may be anything; what is no good is counted and dropped.
    pub fn on_datagram(&mut self, _cx: &mut Cx<'_, Effect>, _from: SocketAddr, _bytes: &[u8]) {}

    /// A request came over a stream. Answered by at most one [`Effect::Answer`].
    pub fn on_call(&mut self, _cx: &mut Cx<'_, Effect>, _caller: u64, _from: SocketAddr, _bytes: &[u8]) {}

    /// A call that was made by [`Effect::Call`] ended.
    pub fn on_answer(&mut self, _cx: &mut Cx<'_, Effect>, _call: u64, _result: Result<Bytes, CallError>) {}

    /// A deadline came.
    pub fn on_timer(&mut self, _cx: &mut Cx<'_, Effect>, _timer: Timer) {}

    /// Contacts these addresses and merges what they know; ends with [`Effect::Joined`].
    pub fn join(&mut self, _cx: &mut Cx<'_, Effect>, _addresses: Vec<SocketAddr>, _ticket: u64) {}

    /// Leaves the pool in good order; ends with [`Effect::Left`], soon, and at once when nobody else is there.
    pub fn leave(&mut self, _cx: &mut Cx<'_, Effect>) {}

    /// Declares a failed member to have left; with `prune` it is forgotten. False: there is no such member.
    pub fn force_leave(&mut self, _cx: &mut Cx<'_, Effect>, _name: &str, _prune: bool) -> bool {
        false
    }

    /// Tells an event to every member, this one included; its lamport time is drawn here and returned.
    ///
    /// # Errors
    /// Name and payload are too big; nothing was sent.
    pub fn fire(&mut self, _cx: &mut Cx<'_, Effect>, event: UserEvent) -> Result<u64, EventTooBig> {
        Ok(event.ltime)
    }

    /// Changes the ring of keys of every member, or lists it; ends with [`Effect::Keys`].
    pub fn change_keys(&mut self, _cx: &mut Cx<'_, Effect>, _change: KeysChange, _ticket: u64) {}

    /// Replaces what this member tells about itself.
    pub fn set_tags(&mut self, _cx: &mut Cx<'_, Effect>, tags: BTreeMap<Text, Text>) {
        self.config.tags = tags;
    }

    /// One member by name.
    #[must_use]
    pub fn member(&self, _name: &str) -> Option<Member> {
        None
    }

    /// All members that are not forgotten, this one included.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        core::iter::empty()
    }

    /// Where this member is in the space of round-trip times.
    #[must_use]
    pub fn coordinate(&self) -> &Coordinate {
        &self.coordinate
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
