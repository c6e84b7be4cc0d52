//! Where defects are looked for. Whole worlds come closest to what people run; plain event loops of one part take a
//! thousand times as many steps in the same time, and reach what is rare in worlds.

use std::fmt;
use std::str::FromStr;

use proconsul_core::marks::Hits;
use proconsul_core::planted::Bug;
use proconsul_core::{node, raft};

use crate::gossip::pools;
use crate::plan::Plan;
use crate::runner::{self, Violation};

/// A kind of simulation that runs a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// Clusters of servers and clients, see [`crate::world`].
    Worlds,
    /// Raft groups in a plain event loop.
    Raft,
    /// Servers and client agents that keep nothing, in a plain event loop.
    Agents,
    /// Pools of gossip in a plain event loop.
    Gossip,
}

/// How a seed ended.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What went wrong first.
    pub failure: Option<Violation>,
    /// The branches that were taken.
    pub marks: Hits,
    /// Equal for equal runs. Empty where the ground has none.
    pub fingerprint: String,
}

impl Ground {
    /// All of them.
    pub const ALL: [Ground; 4] = [Ground::Worlds, Ground::Raft, Ground::Agents, Ground::Gossip];

    /// Runs a seed, with a defect or without, on a thread of its own.
    #[must_use]
    pub fn run(self, seed: u64, bug: Option<Bug>) -> Trial {
        match self {
            Ground::Worlds => {
                let plan = Plan { bug: bug.map(|bug| format!("{bug:?}")), ..Plan::from_seed(seed) };
                let report = runner::run(&plan, false);
                Trial {
                    failure: report.violations.first().cloned(),
                    marks: report.hits(),
                    fingerprint: report.trace_hash,
                }
            }
            Ground::Raft => aside(seed, bug, move || hex(raft::ground::run(seed))),
            Ground::Agents => aside(seed, bug, move || {
                node::ground::run(seed);
                String::new()
            }),
            Ground::Gossip => aside(seed, bug, move || hex(pools::run(seed))),
        }
    }

    /// Where a defect is looked for: first the place that it is most likely to show in.
    #[must_use]
    pub fn of(bug: Bug) -> &'static [Ground] {
        match bug {
            Bug::VoteNotPersisted
            | Bug::VoteTwiceInTerm
            | Bug::FoundsWithMajority
            | Bug::CommitOldTermByCounting
            | Bug::AckBeforeDurable
            | Bug::AcceptWithoutLogMatch
            | Bug::LeaseIgnoresDrift
            | Bug::NoHoldOutAfterRestart
            | Bug::LeaseDuringHandover
            | Bug::ReadIndexWithoutQuorum
            | Bug::ReadIndexBeforeOwnTerm
            | Bug::StaleAgeIgnoresApplied
            | Bug::ChangeWhileOpen
            | Bug::ChangeBeforeReady
            | Bug::SnapshotTakesOpenMembership
            | Bug::SnapshotPieceTwice => &[Ground::Raft, Ground::Worlds],
            Bug::AskNotDeduped | Bug::DeregistrationStaysLocal | Bug::FullSyncBlind => {
                &[Ground::Agents, Ground::Worlds]
            }
            Bug::RefutationSkipped
            | Bug::RefutationKeepsIncarnation
            | Bug::SuspicionNeverOver
            | Bug::EventToldTwice
            | Bug::EventNotExchanged => &[Ground::Gossip, Ground::Agents],
            _ => &[Ground::Worlds],
        }
    }
}

/// Where, after how many seeds and by whom a defect was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub ground: Ground,
    /// How many seeds that took, counted from the first one.
    pub seeds: u64,
    /// What showed it.
    pub by: Violation,
}

/// Looks for a defect on these grounds, one after the other, with so many seeds on each. A seed counts if it fails with
/// the defect and passes without.
#[must_use]
pub fn find(bug: Bug, grounds: &[Ground], seeds: u64, jobs: usize) -> Option<Found> {
    grounds.iter().find_map(|ground| {
        let (seed, by) = runner::first_of(0..seeds, jobs, |seed| {
            let failure = ground.run(seed, Some(bug)).failure?;
            ground.run(seed, None).failure.is_none().then_some(failure)
        })?;
        Some(Found { ground: *ground, seeds: seed + 1, by })
    })
}

fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

/// Runs what panics when something is wrong.
fn aside(seed: u64, bug: Option<Bug>, run: impl FnOnce() -> String + Send + 'static) -> Trial {
    let (outcome, marks) = runner::isolated(seed, bug, run);
    match outcome {
        Ok(fingerprint) => Trial { failure: None, marks, fingerprint },
        Err(failure) => Trial { failure: Some(failure), marks, fingerprint: String::new() },
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ground::Worlds => "worlds",
            Ground::Raft => "raft",
            Ground::Agents => "agents",
            Ground::Gossip => "gossip",
        })
    }
}

impl FromStr for Ground {
    type Err = String;

    fn from_str(name: &str) -> Result<Ground, String> {
        let known = Ground::ALL.into_iter().find(|ground| ground.to_string() == name);
        known.ok_or_else(|| format!("{name} is no ground: worlds, raft, agents or gossip"))
    }
}
