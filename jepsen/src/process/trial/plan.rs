//! Which faults happen when: drawn from a seed before anything starts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::workload::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9` of a server, which is started again later.
    Kill,
    /// `kill -9` of all servers at once.
    KillAll,
    /// SIGSTOP of a server, and SIGCONT later.
    Pause,
    /// SIGTERM to a server, which is started again later.
    Restart,
    /// `kill -9` of a client agent, which is started again later.
    KillClient,
    /// Links cut in both directions: one agent from all others, or the agents into two parts.
    Cut,
    /// Links cut in one direction: from or to one agent, or from one agent to another.
    OneWay,
    /// The disk of a server is full.
    Disk,
    /// A server is started again with a wall clock that is off.
    Clock,
    /// A server leaves the group, and comes back later.
    Leave,
    /// A new server joins, and leaves later.
    Join,
    /// A server is killed and removed from the group of voters by an operator, and comes back later.
    RemovePeer,
    /// A server is killed, loses its directory, and comes back as another server under its old name.
    Wipe,
    /// An operator asks the leader to give its leadership to another server.
    Transfer,
}

/// Faults of one lane follow each other; those of different lanes overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What happens to processes and their disks.
    Processes,
    /// What happens to links.
    Links,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 14] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::Pause,
        Kind::Restart,
        Kind::KillClient,
        Kind::Cut,
        Kind::OneWay,
        Kind::Disk,
        Kind::Clock,
        Kind::Leave,
        Kind::Join,
        Kind::RemovePeer,
        Kind::Wipe,
        Kind::Transfer,
    ];

    /// What happens unless something else is asked for.
    pub const USUAL: [Kind; 4] = [Kind::Kill, Kind::Pause, Kind::Cut, Kind::OneWay];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::KillAll => "kill-all",
            Kind::Pause => "pause",
            Kind::Restart => "restart",
            Kind::KillClient => "kill-client",
            Kind::Cut => "cut",
            Kind::OneWay => "one-way",
            Kind::Disk => "disk",
            Kind::Clock => "clock",
            Kind::Leave => "leave",
            Kind::Join => "join",
            Kind::RemovePeer => "remove-peer",
            Kind::Wipe => "wipe",
            Kind::Transfer => "transfer",
        }
    }

    /// What it happens to.
    #[must_use]
    pub fn lane(self) -> Lane {
        match self {
            Kind::Cut | Kind::OneWay => Lane::Links,
            _ => Lane::Processes,
        }
    }

    /// Whether it needs [namespaces](crate::process::isolation).
    #[must_use]
    pub fn needs_namespaces(self) -> bool {
        matches!(self, Kind::Cut | Kind::OneWay | Kind::Disk)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("no such fault; there are {}", names.join(", "))
        })
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the beginning of the faults.
    pub at: Duration,
    /// How long until it is undone.
    pub lasts: Duration,
    /// What.
    pub kind: Kind,
    /// Whether it aims at the leader, where there is a choice.
    pub leader: bool,
    /// Decides everything else about it.
    pub draw: u64,
}

/// The shortest and longest calm between two faults of a lane.
const CALM_MS: (u64, u64) = (1_000, 5_000);

/// The shortest and longest fault.
const FAULT_MS: (u64, u64) = (500, 8_000);

/// Draws the faults of a run of this length, in order of their beginning.
///
/// With kinds of both lanes, faults of one happen amid those of the other. The first kinds of a lane are each used once
/// before any of them is used again, so that a short run has all of them.
#[must_use]
pub fn draw(seed: u64, length: Duration, kinds: &[Kind]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (lane, salt) in [(Lane::Processes, 0x7072_6f63), (Lane::Links, 0x6c69_6e6b)] {
        let mut random = Random::new(seed ^ salt);
        let of_lane: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.lane() == lane).collect();
        if of_lane.is_empty() {
            continue;
        }
        let mut left = Vec::new();
        let mut at = between(&mut random, CALM_MS);
        loop {
            let lasts = between(&mut random, FAULT_MS);
            if at + lasts > length {
                break;
            }
            if left.is_empty() {
                left.clone_from(&of_lane);
            }
            let next = usize::try_from(random.below(left.len() as u64)).expect("there are few kinds");
            let kind = left.swap_remove(next);
            let leader = random.below(2) == 0;
            steps.push(Step { at, lasts, kind, leader, draw: random.draw() });
            at += lasts + between(&mut random, CALM_MS);
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn between(random: &mut Random, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(least + random.below(most - least + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_repeats_itself() {
        assert_eq!(draw(7, MINUTE, &Kind::ALL), draw(7, MINUTE, &Kind::ALL));
        assert_ne!(draw(7, MINUTE, &Kind::ALL), draw(8, MINUTE, &Kind::ALL));
    }

    #[test]
    fn a_minute_has_every_usual_fault_and_ends_in_calm() {
        for seed in 0..50 {
            let steps = draw(seed, MINUTE, &Kind::USUAL);
            for kind in Kind::USUAL {
                assert!(steps.iter().any(|step| step.kind == kind), "seed {seed} has no {kind}");
            }
            assert!(steps.iter().all(|step| step.at + step.lasts <= MINUTE));
        }
    }

    #[test]
    fn faults_of_one_lane_follow_each_other() {
        for lane in [Lane::Processes, Lane::Links] {
            let steps = draw(3, MINUTE, &Kind::ALL);
            let of_lane: Vec<_> = steps.iter().filter(|step| step.kind.lane() == lane).collect();
            assert!(of_lane.windows(2).all(|pair| pair[0].at + pair[0].lasts < pair[1].at));
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("fire".parse::<Kind>().unwrap_err().contains("kill, kill-all"));
    }
}
