//! Measurements of clusters: three servers of each program, on loopback addresses of their own.

mod agents;
mod failover;
mod put;

use std::error::Error;
use std::time::Duration;

use clap::ValueEnum;
use proconsul_jepsen::process::cluster::{Cluster, Layout};

use crate::target::Program;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measurement {
    /// Until writes succeed again after the leader was killed, stopped, or left.
    Failover,
    /// Convergence, detection and the cost of an idle client agent in a large cluster.
    Agents,
    /// Durable PUTs to the leader of three servers.
    Put,
}

/// How hard to measure.
pub(crate) struct Effort {
    /// Fail-overs of each kind.
    pub(crate) runs: usize,
    /// Agents of the large cluster, servers included.
    pub(crate) agents: usize,
    /// How often an agent of it is killed.
    pub(crate) kills: usize,
    /// How long to watch idle agents.
    pub(crate) idle: Duration,
    /// Length of one turn of one target.
    pub(crate) turn: Duration,
    /// Turns per target.
    pub(crate) rounds: u32,
    /// Concurrent writers.
    pub(crate) writers: usize,
}

/// Measures, and prints a table for each measurement.
pub(crate) async fn run(
    programs: &[Program],
    wanted: impl Fn(Measurement) -> bool,
    effort: &Effort,
) -> Result<(), Box<dyn Error>> {
    if wanted(Measurement::Failover) {
        failover::measure(programs, effort).await?;
    }
    if wanted(Measurement::Agents) {
        agents::measure(programs, effort).await?;
    }
    if wanted(Measurement::Put) {
        put::measure(programs, effort).await?;
    }
    Ok(())
}

/// Servers that have found each other.
async fn servers(program: &Program, arguments: &[&str]) -> Result<Cluster, Box<dyn Error>> {
    // A line of log per request would be part of every measurement.
    let quiet = ["-log-level=warn"];
    let arguments = quiet.iter().chain(arguments).map(ToString::to_string).collect();
    let layout = Layout { binary: program.binary.clone(), servers: 3, clients: 0, arguments };
    Ok(Cluster::start(&layout).await.map_err(|error| format!("{}: {error}", program.name))?)
}

/// The middle one, or the mean of the two in the middle; 0 if there is none.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    match times.len() {
        0 => Duration::ZERO,
        odd if odd % 2 == 1 => times[odd / 2],
        even => (times[even / 2 - 1] + times[even / 2]) / 2,
    }
}
