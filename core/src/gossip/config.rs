//! What a pool is told at its start: who this member is, and how fast the pool moves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Key;
use crate::Text;
use crate::network::Network;

/// A pool's configuration on one member.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's name, unique in the pool.
    pub name: Text,
    /// Where others reach this member: datagrams and streams.
    pub address: SocketAddr,
    /// What this member tells about itself; see [`super::tag`]. Encoded at most [`super::META_BYTES_MAX`] bytes.
    pub tags: BTreeMap<Text, Text>,
    /// Members of the LAN pool whose tag `dc` differs are refused; empty: nobody is. The WAN pool accepts every
    /// datacenter.
    pub datacenter: Text,
    /// Networks from which members are taken, and anything is listened to; empty: all (Consul:
    /// `serf_lan_allowed_cidrs`, `serf_wan_allowed_cidrs`). A filter and no proof: datagrams can be forged.
    pub allowed: Vec<Network>,
    /// The timing.
    pub profile: Profile,
    /// Keys, the first one seals. Empty: nothing is sealed.
    pub keys: Vec<Key>,
    /// Whether packets that are not sealed are refused although there are keys (Consul: `encrypt_verify_incoming`).
    pub verify_incoming: bool,
    /// Whether packets are sealed although peers may not be able to open them (Consul: `encrypt_verify_outgoing`).
    pub verify_outgoing: bool,
    /// How long a failed member is kept and tried again (Consul: `reconnect_timeout`, 72 h).
    pub reconnect_timeout: Duration,
    /// How long a member that has left is remembered (24 h).
    pub tombstone_timeout: Duration,
    /// Whether the known addresses are used at start even after a leave in good order (Consul: `rejoin_after_leave`).
    pub rejoin_after_leave: bool,
    /// Whether network coordinates are kept and sent.
    pub coordinates: bool,
    /// Whether Lifeguard's three parts are on: local health, suspicion that shrinks with confirmations, and telling
    /// suspects first. Off only in experiments.
    pub lifeguard: bool,
}

impl Config {
    /// The defaults of a LAN pool for a member without tags and keys.
    #[must_use]
    pub fn new(name: Text, address: SocketAddr) -> Config {
        Config {
            name,
            address,
            tags: BTreeMap::new(),
            datacenter: Text::default(),
            allowed: Vec::new(),
            profile: Profile::lan(),
            keys: Vec::new(),
            verify_incoming: true,
            verify_outgoing: true,
            reconnect_timeout: Duration::from_secs(72 * 3600),
            tombstone_timeout: Duration::from_secs(24 * 3600),
            rejoin_after_leave: false,
            coordinates: true,
            lifeguard: true,
        }
    }

    /// Whether members may be at an address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(address))
    }
}

/// How fast a pool moves. The defaults are those of Consul's documentation (`gossip_lan`, `gossip_wan`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Time from one probe to the next, before the local health multiplies it.
    pub probe_interval: Duration,
    /// How long a direct ping may take before others are asked, before the local health multiplies it.
    pub probe_timeout: Duration,
    /// Time between two rounds of broadcasts.
    pub gossip_interval: Duration,
    /// How many members each round reaches.
    pub gossip_nodes: usize,
    /// Time between two exchanges of full state, for up to 32 members; see [`Profile::push_pull_interval_for`].
    pub push_pull_interval: Duration,
    /// Multiple of the probe interval and of the logarithm of the pool's size that a suspicion lasts at least.
    pub suspicion_mult: u32,
    /// How many times as long an unconfirmed suspicion lasts at most (Lifeguard's beta).
    pub suspicion_max_mult: u32,
    /// Remaining time of a suspicion when two members were refused a connection: the host is there, the process is not.
    pub refused_timeout: Duration,
    /// How many members are asked to try when a direct ping stays without an answer.
    pub indirect_checks: usize,
    /// A broadcast is sent so many times the logarithm of the pool's size.
    pub retransmit_mult: u32,
    /// Limit of an exchange over a stream.
    pub call_timeout: Duration,
    /// For how long failed members still receive broadcasts, so that they can object.
    pub gossip_to_dead: Duration,
    /// After this long, the name of a failed member may be taken by another agent.
    pub dead_reclaim: Duration,
    /// Time between two attempts to reach a failed member.
    pub reconnect_interval: Duration,
    /// Time between two looks for members to forget.
    pub reap_interval: Duration,
    /// A leave is over after this long, however far it was spread.
    pub leave_timeout: Duration,
    /// How long the answers to an internal query are waited for.
    pub query_timeout: Duration,
    /// How many bytes of broadcasts leave this member per second, whatever the pool's size.
    pub bytes_per_second: u32,
}

impl Profile {
    /// Agents of one datacenter.
    #[must_use]
    pub fn lan() -> Profile {
        Profile {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            push_pull_interval: Duration::from_secs(30),
            suspicion_mult: 4,
            suspicion_max_mult: 6,
            refused_timeout: Duration::from_millis(1_500),
            indirect_checks: 3,
            retransmit_mult: 4,
            call_timeout: Duration::from_secs(10),
            gossip_to_dead: Duration::from_secs(30),
            dead_reclaim: Duration::from_secs(30),
            reconnect_interval: Duration::from_secs(30),
            reap_interval: Duration::from_secs(15),
            leave_timeout: Duration::from_secs(3),
            query_timeout: Duration::from_secs(5),
            bytes_per_second: 32 * 1024,
        }
    }

    /// Servers of all datacenters.
    #[must_use]
    pub fn wan() -> Profile {
        Profile {
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            gossip_interval: Duration::from_millis(500),
            push_pull_interval: Duration::from_secs(60),
            suspicion_mult: 6,
            refused_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(30),
            gossip_to_dead: Duration::from_secs(60),
            query_timeout: Duration::from_secs(10),
            ..Profile::lan()
        }
    }

    /// Agents of one machine: development mode and tests.
    #[must_use]
    pub fn local() -> Profile {
        Profile {
            probe_timeout: Duration::from_millis(200),
            gossip_interval: Duration::from_millis(100),
            push_pull_interval: Duration::from_secs(15),
            suspicion_mult: 3,
            refused_timeout: Duration::from_millis(500),
            indirect_checks: 1,
            retransmit_mult: 2,
            call_timeout: Duration::from_secs(1),
            gossip_to_dead: Duration::from_secs(15),
            leave_timeout: Duration::from_secs(1),
            ..Profile::lan()
        }
    }

    /// Time between two exchanges of full state in a pool of `members`: each doubling beyond 32 adds one interval, so
    /// that the cost per member grows with the logarithm of the size.
    #[must_use]
    pub fn push_pull_interval_for(&self, members: usize) -> Duration {
        let doublings = if members <= 32 { 0 } else { (members - 1).ilog2() + 1 - 5 };
        self.push_pull_interval * (doublings + 1)
    }

    /// How often a broadcast is sent in a pool of `members`: `mult * ceil(log10(members + 1))` (SWIM, section 4.1).
    #[must_use]
    pub fn retransmit_limit(&self, members: usize) -> u32 {
        let members = members as u64;
        let digits = if members == 0 { 0 } else { members.ilog10() + 1 };
        self.retransmit_mult * digits
    }

    /// The shortest suspicion in a pool of `members`: `mult * max(1, log10 members) * interval`.
    #[must_use]
    pub fn suspicion_min(&self, members: usize) -> Duration {
        let scale = libm::log10(members.max(1) as f64).max(1.0);
        let millis = f64::from(self.suspicion_mult) * scale * (self.probe_interval.as_micros() as f64);
        Duration::from_micros(millis as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_follow_the_documented_formulas() {
        let lan = Profile::lan();
        for (members, retransmits, push_pull_secs, suspicion_ms) in [
            (1, 4, 30, 4_000),
            (9, 4, 30, 4_000),
            (10, 8, 30, 4_000),
            (32, 8, 30, 6_020),
            (33, 8, 60, 6_074),
            (64, 8, 60, 7_224),
            (65, 8, 90, 7_251),
            (100, 12, 90, 8_000),
            (5_000, 16, 270, 14_795),
        ] {
            assert_eq!(lan.retransmit_limit(members), retransmits, "{members}");
            assert_eq!(lan.push_pull_interval_for(members).as_secs(), push_pull_secs, "{members}");
            assert_eq!(lan.suspicion_min(members).as_millis(), suspicion_ms, "{members}");
        }
    }
}
