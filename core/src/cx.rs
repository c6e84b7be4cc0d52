//! What the node's inner machines are handed: the time, the timer table, a list for effects.

use crate::time::{Mono, Now};
use crate::timers::Timers;

/// Whose deadline it is. One table for all machines; ties fire in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Elections, heartbeats, the leader's lease.
    Raft(crate::raft::Timer),
    /// Probes, suspicions, broadcasts of one pool.
    Gossip(crate::gossip::Pool, crate::gossip::Timer),
    /// The next attempt to join a pool.
    Join(crate::gossip::Pool),
    /// The next look for a server, while none is there.
    Seek,
    /// When this agent tells where it is in the network.
    Locate,
    /// Checks, TTLs, anti-entropy.
    Agent(crate::agent::Timer),
    /// Session TTLs, lock-delays, tombstones; armed on the leader only.
    Duty(crate::node::DutyTimer),
    /// The earliest deadline among parked queries.
    Parked,
    /// The earliest deadline among requests that wait for a leader.
    Hold,
    /// When to try again to found a group.
    Forming,
    /// How long a step of leaving may take.
    Leaving,
    /// When to look whether a full disk has room again.
    Room,
    /// When servers of this datacenter that are missing among those of all datacenters are joined there.
    Flood,
}

/// The surroundings of one call into a machine. `E` is the machine's own effect type.
pub struct Cx<'a, E> {
    /// Both clocks, the same for everything that one step causes.
    pub now: Now,
    /// The node's timer table.
    pub timers: &'a mut Timers<Timer>,
    /// Effects in the order in which they must be carried out.
    pub effects: &'a mut Vec<E>,
}

impl<E> Cx<'_, E> {
    /// Adds an effect.
    pub fn emit(&mut self, effect: E) {
        self.effects.push(effect);
    }

    /// The monotonic time.
    #[must_use]
    pub fn mono(&self) -> Mono {
        self.now.mono
    }
}
