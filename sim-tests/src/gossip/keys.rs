//! Keys are rotated while some members are away.

use std::time::Duration;

use proconsul_core::gossip::{Key, KeysChange, Status};

use super::links::{Cut, Links};
use super::net::{Id, Life, Net};

/// What was measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// How long the rotation took: install, then use, each until every member that was there had answered.
    pub rotation: Duration,
    /// How many members answered each of the two.
    pub answers: usize,
    /// How long it took, once everybody was back, until every member sealed with the new key and knew all others to be
    /// alive; nothing when it took too long.
    pub reunited: Option<Duration>,
}

/// A sealed pool of `members`: the last `down` are down, and the `cut_off` before them are in a cell of their own, while
/// the others install a key and use it.
#[must_use]
pub fn run(members: usize, down: usize, cut_off: usize, seed: u64) -> Row {
    let key = |byte: u8| Key::new(&[byte; 32]).expect("a key has 32 bytes");
    let (old, new) = (key(1), key(2));
    let mut net = Net::of(seed, members, Links::lan(), |config| config.keys = vec![old.clone()]);
    // Long enough that everybody saved some addresses.
    net.run_for(Duration::from_secs(15));
    let there = members - down - cut_off;
    for id in there..members - down {
        net.links.cuts.insert(id, Cut::Cell(1));
    }
    for id in members - down..members {
        net.set_life(id, Life::Killed);
    }
    net.run_for(Duration::from_secs(60));

    let begun = net.now;
    let mut answers = usize::MAX;
    for change in [KeysChange::Install(new.clone()), KeysChange::Use(new.clone())] {
        net.reports.clear();
        net.act(0, |gossip, cx| gossip.change_keys(cx, change, 1));
        net.run_until(Duration::from_secs(10), Duration::from_millis(10), |net| !net.reports.is_empty());
        answers = answers.min(net.reports.first().map_or(0, |(_, report)| report.answers));
    }
    let rotation = net.now.since(begun);

    net.run_for(Duration::from_secs(10));
    net.links.cuts.clear();
    for id in members - down..members {
        net.restart(id);
    }
    let reunited = net.run_until(Duration::from_secs(300), Duration::from_millis(500), |net| {
        net.hosts.iter().all(|host| host.gossip.keys().first() == Some(&new))
            && (0..members).all(|at: Id| (0..members).all(|of| net.status(at, of) == Some(Status::Alive)))
    });
    Row { rotation, answers, reunited }
}
