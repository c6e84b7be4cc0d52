//! The scenario `kill`: one server on disk, many clients, and `kill -9` at random moments.
//!
//! An acknowledged write must be on disk. After every restart, and at the end after one more, the clients read what
//! they wrote; the history of all rounds must be linearizable.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::kv::Reads;
use super::network::Place;
use super::recorder::{Load, Pace, Recorder};
use super::server::{Launch, Server};
use crate::history::{Consistency, History, Op, Outcome};
use crate::workload::{Random, Registers};

/// How long to run, and how hard.
#[derive(Clone, Debug)]
pub struct Options {
    /// What decides the workload and the moments of the kills.
    pub seed: u64,
    /// Concurrent clients.
    pub clients: u32,
    /// Keys that the clients share.
    pub keys: u64,
    /// Kills.
    pub rounds: u32,
    /// A kill comes between none and this long after the server took its first write.
    pub up_for: Duration,
}

/// What happened.
#[derive(Debug)]
pub struct Run {
    /// Everything that the clients did.
    pub history: History,
    /// How long the clients ran.
    pub duration: Duration,
    /// Per start: from exec to the first acknowledged write.
    pub starts: Vec<Duration>,
}

/// Runs the scenario. The history still has to be checked.
///
/// # Errors
///
/// If the server cannot be started, or does not come back after a kill.
pub async fn run(launch: Launch, options: &Options) -> io::Result<Run> {
    let mut server = Server::start_at(Place::tied()?, launch)?;
    let mut starts = vec![server.first_put().await?];
    let recorder = Arc::new(Recorder::default());
    let pace = Pace {
        seed: options.seed,
        keys: options.keys,
        rest: Duration::ZERO,
        // The server is down; it takes a moment to come back.
        rest_after_failure: Duration::from_millis(5),
    };
    let clients = vec![(server.http(), Reads::Consistent); options.clients as usize];
    let load = Load::start(&recorder, pace, &clients);
    let rounds = run_rounds(&mut server, options, &mut starts).await;
    load.stop().await;
    let duration = recorder.elapsed();
    rounds?;
    // Once more, with nobody about: what was acknowledged last must be on disk too.
    server.kill();
    server.restart()?;
    starts.push(server.first_put().await?);
    let mut http = Client::new(server.http());
    for key in 0..options.keys {
        let op = Op::Read { consistency: Consistency::Linearizable };
        let outcome = recorder.perform(&mut http, 0, &Registers::key(key), op, Reads::Consistent).await;
        if !matches!(outcome, Outcome::Ok(_)) {
            return Err(io::Error::other(format!(
                "the last read of key {key} failed\n{}",
                server.log_tail()
            )));
        }
    }
    Ok(Run { history: recorder.take(), duration, starts })
}

async fn run_rounds(server: &mut Server, options: &Options, starts: &mut Vec<Duration>) -> io::Result<()> {
    let mut random = Random::new(options.seed ^ 0x6b69_6c6c);
    let up_for = u64::try_from(options.up_for.as_micros()).expect("a round is short").max(1);
    for _ in 0..options.rounds {
        tokio::time::sleep(Duration::from_micros(random.below(up_for))).await;
        server.kill();
        server.restart()?;
        starts.push(server.first_put().await?);
    }
    tokio::time::sleep(options.up_for / 2).await;
    Ok(())
}
