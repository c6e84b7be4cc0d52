//! How many bytes a member sends and receives.

use std::time::Duration;

use super::links::Links;
use super::net::{self, Net, Traffic};

/// What goes on in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Idle,
    /// Each second one member leaves and another joins.
    Churn,
    /// A twentieth of all members leaves at once, and joins again, every ten seconds.
    Storm,
}

/// Bytes of payload per second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Sent in datagrams, mean over members.
    pub datagrams_sent: f64,
    /// Received in datagrams.
    pub datagrams_received: f64,
    /// Sent over streams.
    pub streams_sent: f64,
    /// Received over streams.
    pub streams_received: f64,
    /// Datagrams sent.
    pub packets: f64,
    /// What one member sent in one second by datagrams at most.
    pub peak: u64,
}

/// A pool of `members` for `length`.
#[must_use]
pub fn run(members: usize, work: Work, length: Duration, seed: u64) -> Row {
    let mut net = Net::of(seed, members, Links::lan(), |_| ());
    net.run_for(Duration::from_secs(5));
    net.forget_traffic();
    let mut before: Vec<u64> = vec![0; members];
    let (mut peak, mut next) = (0, 1);
    let mut gone: Vec<net::Id> = Vec::new();
    for second in 0..length.as_secs() {
        let count = match work {
            Work::Idle => 0,
            Work::Churn => 1,
            Work::Storm if second % 10 == 0 => (members / 20).max(1),
            Work::Storm => 0,
        };
        if count > 0 {
            for id in core::mem::take(&mut gone) {
                net.restart(id);
                net.act(id, |gossip, cx| gossip.join(cx, vec![net::address(0)], 1));
            }
            for _ in 0..count {
                net.act(next, |gossip, cx| gossip.leave(cx));
                gone.push(next);
                next = if next + 1 == members { 1 } else { next + 1 };
            }
        }
        net.run_for(Duration::from_secs(1));
        for (id, before) in before.iter_mut().enumerate() {
            let sent = net.hosts[id].traffic.datagrams_sent;
            peak = peak.max(sent - *before);
            *before = sent;
        }
        net.forget_history();
    }
    let per_second = |of: fn(&Traffic) -> u64| {
        let sum: u64 = net.hosts.iter().map(|host| of(&host.traffic)).sum();
        sum as f64 / members as f64 / length.as_secs_f64()
    };
    Row {
        datagrams_sent: per_second(|traffic| traffic.datagrams_sent),
        datagrams_received: per_second(|traffic| traffic.datagrams_received),
        streams_sent: per_second(|traffic| traffic.streams_sent),
        streams_received: per_second(|traffic| traffic.streams_received),
        packets: per_second(|traffic| traffic.packets),
        peak,
    }
}
