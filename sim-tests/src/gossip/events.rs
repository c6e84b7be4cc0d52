//! User events reach every member once, also those that were cut off while they were fired.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::UserEvent;
use proconsul_core::ids::Uuid;
use proconsul_core::rng::Rng;
use proconsul_core::time::Mono;

use super::links::{Cut, Links};
use super::net::{Id, Net};
use super::times::Times;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// How many deliveries there had to be.
    pub expected: usize,
    /// How many there were within the time of the run.
    pub delivered: usize,
    /// How many of them were repeated.
    pub repeated: usize,
    /// From firing to delivery, of members that were not cut off.
    pub connected: Times,
    /// From healing to delivery, of members that were cut off.
    pub cut_off: Times,
}

/// A pool of `members` that loses so many of a thousand packets; the last `cut_off` are in a cell of their own while
/// the others fire `events` within ten seconds, and for thirty more.
#[must_use]
pub fn run(members: usize, cut_off: usize, events: usize, loss: u64, seed: u64) -> Row {
    let mut net = Net::of(seed, members, Links::lossy(loss), |_| ());
    net.run_for(Duration::from_secs(5));
    let connected = members - cut_off;
    for id in connected..members {
        net.links.cuts.insert(id, Cut::Cell(1));
    }
    net.forget_history();
    let mut rng = Rng::from_seed(seed).fork(1);
    let mut fired: BTreeMap<Uuid, Mono> = BTreeMap::new();
    let pause = Duration::from_secs(10) / u32::try_from(events).expect("events are few");
    for _ in 0..events {
        let from = rng.below(connected as u64) as Id;
        let id = Uuid::random(&mut rng);
        let event = UserEvent {
            id,
            name: "deploy".into(),
            payload: Bytes::from_static(b"version 42"),
            node_filter: "".into(),
            service_filter: "".into(),
            tag_filter: "".into(),
            ltime: 0,
        };
        fired.insert(id, net.now);
        net.act(from, |gossip, cx| gossip.fire(cx, event)).expect("the event is small");
        net.run_for(pause);
    }
    net.run_for(Duration::from_secs(30));
    net.links.cuts.clear();
    let healed = net.now;
    let expected = members * events;
    net.run_until(Duration::from_secs(300), Duration::from_secs(1), |net| net.deliveries.len() >= expected);
    // Whatever comes twice has time to come.
    net.run_for(Duration::from_secs(30));

    let mut seen: BTreeMap<(Id, Uuid), Mono> = BTreeMap::new();
    let mut repeated = 0;
    for delivery in &net.deliveries {
        if seen.insert((delivery.member, delivery.event), delivery.at).is_some() {
            repeated += 1;
        }
    }
    let times = |cut: bool| -> Times {
        seen.iter()
            .filter(|((member, _), _)| (*member >= connected) == cut)
            .map(|((_, event), at)| at.since(if cut { healed } else { fired[event] }))
            .collect()
    };
    Row { expected, delivered: seen.len(), repeated, connected: times(false), cut_off: times(true) }
}
