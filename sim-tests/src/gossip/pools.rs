//! Random pools of gossip: members are cut off, stopped, blocked and killed while events are fired; when that is over,
//! everybody believes of everybody what is so, and has each event once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proconsul_core::gossip::{Status, UserEvent};
use proconsul_core::ids::Uuid;
use proconsul_core::rng::Rng;

use super::links::{Cut, Links};
use super::net::{Id, Life, Net};

/// So many things happen.
const FAULTS: usize = 40;
/// Within this time after the last fault everything must be in order: members that were taken for failed are tried now
/// and then, state is exchanged with one member at a time.
const HEALING: Duration = Duration::from_secs(300);

/// Runs one seed. Returns a fingerprint of the run.
///
/// # Panics
/// If what must hold does not.
#[must_use]
pub fn run(seed: u64) -> u64 {
    let mut draw = Rng::from_seed(seed).fork(3);
    let members = 6 + draw.below(19) as usize;
    let loss = [0, 20, 100][draw.below(3) as usize];
    let mut net = Net::of(seed, members, Links::lossy(loss), |_| ());
    net.run_for(Duration::from_secs(5));
    net.forget_history();
    let mut dead: BTreeSet<Id> = BTreeSet::new();
    let mut fired: BTreeMap<Uuid, Id> = BTreeMap::new();
    for _ in 0..FAULTS {
        let id = draw.below(members as u64) as Id;
        match draw.below(9) {
            0 | 1 => {
                let cuts = [Cut::Inbound, Cut::Outbound, Cut::Half(seed ^ id as u64), Cut::Cell(1)];
                net.links.cuts.insert(id, cuts[draw.below(4) as usize]);
            }
            2 => net.links.cuts.clear(),
            3 if 4 * dead.len() < members && dead.insert(id) => {
                net.set_life(id, [Life::Killed, Life::Silent][draw.below(2) as usize]);
            }
            4 if net.hosts[id].life == Life::Up => {
                net.set_life(id, [Life::Stopped, Life::Blocked][draw.below(2) as usize]);
            }
            5 => wake(&mut net, &dead),
            _ if net.hosts[id].life == Life::Up => {
                let event = event(&mut draw);
                fired.insert(event.id, id);
                net.act(id, |gossip, cx| gossip.fire(cx, event)).expect("the event is small");
            }
            _ => {}
        }
        net.run_for(Duration::from_millis(100) + draw.duration_below(Duration::from_secs(4)));
    }
    net.links.cuts.clear();
    wake(&mut net, &dead);
    // What a member fired that died soon after may have died with it.
    let events: BTreeSet<Uuid> =
        fired.iter().filter(|(_, by)| !dead.contains(by)).map(|(event, _)| *event).collect();
    let ordered =
        net.run_until(HEALING, Duration::from_secs(1), |net| disorder(net, &dead, &events).is_none());
    if ordered.is_none() {
        let disorder = disorder(&net, &dead, &events).unwrap_or_default();
        panic!("{HEALING:?} after the last fault: {disorder}");
    }
    let mut seen = BTreeSet::new();
    for delivery in &net.deliveries {
        assert!(
            seen.insert((delivery.member, delivery.event)),
            "member {} was told of event {} twice",
            delivery.member,
            delivery.event
        );
    }
    fingerprint(&net)
}

fn event(draw: &mut Rng) -> UserEvent {
    UserEvent {
        id: Uuid::random(draw),
        name: "deploy".into(),
        payload: Bytes::new(),
        node_filter: "".into(),
        service_filter: "".into(),
        tag_filter: "".into(),
        ltime: 0,
    }
}

/// Whoever is not dead goes on.
fn wake(net: &mut Net, dead: &BTreeSet<Id>) {
    for id in (0..net.hosts.len()).filter(|id| !dead.contains(id)) {
        if net.hosts[id].life != Life::Up {
            net.set_life(id, Life::Up);
        }
    }
}

/// What is not as it should be.
fn disorder(net: &Net, dead: &BTreeSet<Id>, events: &BTreeSet<Uuid>) -> Option<String> {
    let living = || (0..net.hosts.len()).filter(|id| !dead.contains(id));
    for observer in living() {
        for subject in 0..net.hosts.len() {
            let expected = if dead.contains(&subject) { Status::Failed } else { Status::Alive };
            let status = net.status(observer, subject);
            if status != Some(expected) {
                return Some(format!("{observer} believes {subject} to be {status:?}, not {expected:?}"));
            }
        }
    }
    let told: BTreeSet<(Id, Uuid)> = net.deliveries.iter().map(|it| (it.member, it.event)).collect();
    for member in living() {
        if let Some(event) = events.iter().find(|event| !told.contains(&(member, **event))) {
            return Some(format!("{member} was not told of event {event}"));
        }
    }
    None
}

fn fingerprint(net: &Net) -> u64 {
    let mix = |hash: u64, number: u64| (hash ^ number).wrapping_mul(0x0000_0100_0000_01b3);
    net.beliefs.iter().fold(net.steps, |hash, belief| {
        let parts = [belief.at.0, belief.observer as u64, belief.subject as u64];
        parts.into_iter().fold(hash, mix)
    })
}
