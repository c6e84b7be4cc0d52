//! The scenario `cluster`: servers fail one at a time, by a plan, under clients of every agent.
//!
//! What was acknowledged must outlive every fault: the history of the whole run must be linearizable, and the servers'
//! logs may not name two leaders of one term.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::Client;
use super::cluster::{Cluster, Layout, get};
use super::kv::Reads;
use super::recorder::{Load, Pace, Recorder};
use crate::history::{Consistency, History, Op, Outcome};
use crate::workload::{Random, Registers};

/// What can happen to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the leader; it is started again when the others take writes.
    KillLeader,
    /// `kill -9` of a server that follows.
    KillFollower,
    /// SIGSTOP of the leader; it goes on when the others take writes.
    PauseLeader,
    /// SIGSTOP of a server that follows.
    PauseFollower,
    /// SIGTERM to every server in turn, each started again when it is gone.
    RollingRestart,
    /// `kill -9` of all servers at once.
    KillAll,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 6] = [
        Fault::KillLeader,
        Fault::KillFollower,
        Fault::PauseLeader,
        Fault::PauseFollower,
        Fault::RollingRestart,
        Fault::KillAll,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillLeader => "kill -9 of the leader",
            Fault::KillFollower => "kill -9 of a follower",
            Fault::PauseLeader => "leader stopped",
            Fault::PauseFollower => "follower stopped",
            Fault::RollingRestart => "rolling restart",
            Fault::KillAll => "kill -9 of all servers",
        })
    }
}

/// How hard to try.
#[derive(Clone, Debug)]
pub struct Options {
    /// What decides the workload and the moments of the faults.
    pub seed: u64,
    /// Keys that the clients share.
    pub keys: u64,
    /// How long a client rests between two operations.
    pub rest: Duration,
    /// The longest time from a recovery to the next fault.
    pub calm: Duration,
    /// What happens, in this order.
    pub faults: Vec<Fault>,
}

/// What happened.
#[derive(Debug)]
pub struct Run {
    /// Everything that the clients did.
    pub history: History,
    /// How long they did.
    pub duration: Duration,
    /// Per fault: until clients of all the agents that were left had a write acknowledged again.
    pub recoveries: Vec<(Fault, Duration)>,
    /// Every election that a server's log names.
    pub elections: Vec<Election>,
    /// The cluster, all agents running.
    pub cluster: Cluster,
}

/// A line in a server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The server whose log it is.
    pub seen_by: String,
    /// The term.
    pub term: u64,
    /// The leader's name, or its node ID where that belongs to none of the servers.
    pub leader: String,
}

/// Two leaders of one term, if there ever were.
#[must_use]
pub fn two_leaders(elections: &[Election]) -> Option<(&Election, &Election)> {
    let mut terms: BTreeMap<u64, &Election> = BTreeMap::new();
    for election in elections {
        let first = *terms.entry(election.term).or_insert(election);
        if first.leader != election.leader {
            return Some((first, election));
        }
    }
    None
}

/// Starts a cluster and runs the scenario. The history still has to be checked.
///
/// # Errors
///
/// If the cluster does not form, or does not recover from a fault.
pub async fn run(layout: &Layout, options: &Options) -> io::Result<Run> {
    let mut cluster = Cluster::start(layout).await?;
    let recorder = Arc::new(Recorder::default());
    let pace = Pace {
        seed: options.seed,
        keys: options.keys,
        rest: options.rest,
        rest_after_failure: Duration::from_millis(20),
    };
    // Two clients of each agent, one for each way to read what is fresh.
    let clients: Vec<_> = cluster
        .agents
        .iter()
        .flat_map(|agent| [(agent.http(), Reads::Consistent), (agent.http(), Reads::Default)])
        .collect();
    let load = Load::start(&recorder, pace, &clients);
    let mut random = Random::new(options.seed ^ 0x6661_756c);
    let mut recoveries = Vec::new();
    let mut failed = None;
    for (number, fault) in options.faults.iter().enumerate() {
        let calm = u64::try_from(options.calm.as_micros()).expect("a run is short").max(1);
        tokio::time::sleep(Duration::from_micros(random.below(calm))).await;
        match inflict(&mut cluster, *fault, &load, &mut random, number).await {
            Ok(took) => recoveries.push((*fault, took)),
            Err(error) => {
                failed = Some(io::Error::other(format!("fault {number}, {fault}: {error}")));
                break;
            }
        }
    }
    load.stop().await;
    let duration = recorder.elapsed();
    if let Some(failed) = failed {
        return Err(failed);
    }
    last_reads(&cluster, &recorder, options.keys).await?;
    let elections = elections(&cluster, &identities(&cluster).await?);
    Ok(Run { history: recorder.take(), duration, recoveries, elections, cluster })
}

/// Lets a fault happen, waits for the recovery, and heals; returns how long the recovery took.
async fn inflict(
    cluster: &mut Cluster,
    fault: Fault,
    load: &Load,
    random: &mut Random,
    number: usize,
) -> io::Result<Duration> {
    let leader = cluster.leader().await?;
    let servers = cluster.servers().len();
    let others: Vec<usize> = (0..servers).filter(|server| *server != leader).collect();
    let follower = others[usize::try_from(random.below(others.len() as u64)).expect("few servers")];
    let started = Instant::now();
    let marker = |step: usize| format!("after fault {number}, step {step}");
    match fault {
        Fault::KillLeader | Fault::KillFollower => {
            let victim = if fault == Fault::KillLeader { leader } else { follower };
            cluster.agents[victim].kill();
            recovered(cluster, load).await?;
            let took = started.elapsed();
            cluster.agents[victim].start()?;
            cluster.caught_up(victim, &marker(0)).await?;
            Ok(took)
        }
        Fault::PauseLeader | Fault::PauseFollower => {
            let victim = if fault == Fault::PauseLeader { leader } else { follower };
            cluster.agents[victim].pause()?;
            recovered(cluster, load).await?;
            let took = started.elapsed();
            cluster.agents[victim].resume()?;
            cluster.caught_up(victim, &marker(0)).await?;
            Ok(took)
        }
        Fault::RollingRestart => {
            for victim in 0..servers {
                cluster.agents[victim].send(Signal::TERM)?;
                let mut ended = false;
                let began = Instant::now();
                while !ended {
                    ended = cluster.agents[victim].ended()?.is_some();
                    if began.elapsed() > super::cluster::WITHIN {
                        return Err(io::Error::other("a server does not end on SIGTERM"));
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                cluster.agents[victim].start()?;
                cluster.caught_up(victim, &marker(victim)).await?;
            }
            recovered(cluster, load).await?;
            Ok(started.elapsed())
        }
        Fault::KillAll => {
            for server in 0..servers {
                cluster.agents[server].kill();
            }
            for server in 0..servers {
                cluster.agents[server].start()?;
            }
            recovered(cluster, load).await?;
            Ok(started.elapsed())
        }
    }
}

/// Waits until every client whose agent runs has had changes acknowledged that it asked for after this call.
async fn recovered(cluster: &Cluster, load: &Load) -> io::Result<()> {
    let before = load.written();
    cluster
        .until("clients write again", async || {
            let now = load.written();
            for (client, (before, now)) in before.iter().zip(&now).enumerate() {
                // The first one may have been asked for before.
                let agent = &cluster.agents[client / 2];
                if agent.is_running() && *now < before + 2 {
                    return Err(format!("a client of {} does not", agent.name()));
                }
            }
            Ok(())
        })
        .await
}

/// With nobody else about, every key through every agent: what was acknowledged last must be there too.
async fn last_reads(cluster: &Cluster, recorder: &Recorder, keys: u64) -> io::Result<()> {
    cluster.formed().await?;
    for agent in &cluster.agents {
        let mut http = Client::new(agent.http());
        for key in 0..keys {
            let op = Op::Read { consistency: Consistency::Linearizable };
            let outcome = recorder.perform(&mut http, 0, &Registers::key(key), op, Reads::Consistent).await;
            if !matches!(outcome, Outcome::Ok(_)) {
                let name = agent.name();
                let message = format!("the last read of key {key} through {name} failed\n{}", cluster.logs());
                return Err(io::Error::other(message));
            }
        }
    }
    Ok(())
}

/// The names of all servers by their identities.
///
/// # Errors
///
/// If a server does not tell its identity.
pub async fn identities(cluster: &Cluster) -> io::Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    for server in cluster.servers() {
        let own = get(server.http(), "/v1/agent/self").await.map_err(io::Error::other)?;
        let id = own["Config"]["NodeID"].as_str().unwrap_or_default();
        names.insert(id.to_owned(), server.name().to_owned());
    }
    Ok(names)
}

/// Collects the lines of all servers' logs that tell of a leader, with names for the identities that have one. A program
/// that does not say the term has none.
#[must_use]
pub fn elections(cluster: &Cluster, names: &BTreeMap<String, String>) -> Vec<Election> {
    let mut elections = Vec::new();
    for server in cluster.servers() {
        for line in server.log().lines().filter(|line| line.contains("New leader elected")) {
            let Some(term) = field(line, "term=").and_then(|term| term.parse().ok()) else { continue };
            let leader = match (field(line, "id="), field(line, "node=")) {
                // One that lost its directory has the same name under another identity, which nobody else may know.
                (Some(id), _) => names.get(id).map_or_else(|| id.to_owned(), |name| format!("{name} {id}")),
                (None, Some(name)) => name.to_owned(),
                (None, None) => continue,
            };
            elections.push(Election { seen_by: server.name().to_owned(), term, leader });
        }
    }
    elections
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {name}"))?;
    Some(rest.split_whitespace().next()?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election(seen_by: &str, term: u64, leader: &str) -> Election {
        Election { seen_by: seen_by.to_owned(), term, leader: leader.to_owned() }
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let fine = [election("a", 1, "x"), election("b", 1, "x"), election("b", 2, "y")];
        assert_eq!(two_leaders(&fine), None);
        let bad = [election("a", 1, "x"), election("b", 2, "y"), election("b", 1, "y")];
        assert_eq!(two_leaders(&bad), Some((&bad[0], &bad[2])));
    }

    #[test]
    fn a_field_of_a_line_is_found() {
        let line = r#"2026-01-01 [INFO]  New leader elected id="abc" term=4"#;
        assert_eq!((field(line, "id="), field(line, "term=")), (Some("abc"), Some("4")));
        assert_eq!(field(line, "node="), None);
    }
}
