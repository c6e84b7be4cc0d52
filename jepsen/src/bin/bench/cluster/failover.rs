//! How long a cluster takes no writes when its leader goes.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proconsul_jepsen::process::agent::Agent;
use proconsul_jepsen::process::client::Client;
use proconsul_jepsen::process::cluster::{Cluster, WITHIN};

use super::{Effort, median};
use crate::report::millis;
use crate::target::Program;

/// A write begins this long after the one before, whatever became of that.
const WRITE_EVERY: Duration = Duration::from_millis(5);

/// Connections to each server. When all wait for an answer, no write begins.
const CONNECTIONS: usize = 200;

/// How long the group is left alone between a recovery and the next fault.
const CALM: Duration = Duration::from_secs(2);

/// How long the writers watch a leader's departure.
const WATCH: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Leave,
}

/// Kill, stop and leave, at the default timing and the quickest.
pub(super) async fn measure(programs: &[Program], effort: &Effort) -> Result<(), Box<dyn Error>> {
    println!(
        "| leader of three servers, {} times each | raft_multiplier | program | median ms | best ms | worst ms |",
        effort.runs
    );
    println!("|---|--:|---|--:|--:|--:|");
    for (fault, what) in [
        (Fault::Kill, "kill -9, until a new write succeeds"),
        (Fault::Stop, "SIGSTOP, until a new write succeeds"),
        (Fault::Leave, "planned leave, longest time without an acknowledged write"),
    ] {
        for multiplier in ["5", "1"] {
            if fault == Fault::Leave && multiplier == "1" {
                continue;
            }
            for program in programs {
                let timing = format!("performance {{ raft_multiplier = {multiplier} }}");
                let mut cluster = super::servers(program, &["-hcl", &timing]).await?;
                let mut times = Vec::new();
                for _ in 0..effort.runs {
                    let took = once(&mut cluster, fault).await;
                    times.push(took.map_err(|error| format!("{}, {what}: {error}", program.name))?);
                    eprintln!("measured: {what}, {multiplier}, {}: {times:?}", program.name);
                }
                let middle = millis(median(&mut times));
                let (best, worst) = (millis(times[0]), millis(times[times.len() - 1]));
                println!("| {what} | {multiplier} | {} | {middle} | {best} | {worst} |", program.name);
            }
        }
    }
    println!();
    Ok(())
}

/// One fault under writers, and everything well again.
async fn once(cluster: &mut Cluster, fault: Fault) -> Result<Duration, Box<dyn Error>> {
    cluster.formed().await?;
    let leader = cluster.leader().await?;
    let remaining: Vec<SocketAddr> = cluster
        .servers()
        .iter()
        .enumerate()
        .filter(|(server, _)| *server != leader)
        .map(|(_, server)| server.http())
        .collect();
    let writers = Writers::start(&remaining);
    tokio::time::sleep(CALM).await;
    let began = writers.clock();
    match fault {
        Fault::Kill => cluster.agents[leader].kill(),
        Fault::Stop => cluster.agents[leader].pause()?,
        Fault::Leave => {
            let mut client = Client::new(cluster.agents[leader].http());
            // The agent may end before it has answered; whether it left is seen below.
            let _ = client.request("PUT", "/v1/agent/leave", b"").await;
            tokio::time::sleep(WATCH).await;
        }
    }
    let again = writers.first_after(began).await?;
    let took = match fault {
        Fault::Kill | Fault::Stop => again - began,
        Fault::Leave => writers.longest_gap(began),
    };
    writers.stop().await;
    match fault {
        Fault::Kill => cluster.agents[leader].start()?,
        Fault::Stop => cluster.agents[leader].resume()?,
        Fault::Leave => {
            ended(&mut cluster.agents[leader]).await?;
            // An agent that has left remembers nobody, but it is told whom to join.
            cluster.agents[leader].start()?;
        }
    }
    three_voters(cluster).await?;
    Ok(took)
}

async fn ended(agent: &mut Agent) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    while agent.ended()?.is_none() {
        if started.elapsed() > WITHIN {
            return Err("the leader does not end when it leaves".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A server that came back votes only after it has been stable for a while.
async fn three_voters(cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    cluster.formed().await?;
    let asked = cluster.servers()[0].http();
    cluster
        .until("three servers vote", async || {
            let answer =
                proconsul_jepsen::process::cluster::get(asked, "/v1/operator/raft/configuration").await?;
            let servers = answer["Servers"].as_array().map_or(&[][..], Vec::as_slice);
            let voters = servers.iter().filter(|server| server["Voter"] == true).count();
            if voters == 3 { Ok(()) } else { Err(answer.to_string()) }
        })
        .await?;
    Ok(())
}

/// Writers that begin a write at fixed intervals, so that one that hangs delays no other.
struct Writers {
    started: Instant,
    /// When acknowledged writes began and ended, since `started`.
    done: Arc<Mutex<Vec<(Duration, Duration)>>>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writers {
    fn start(servers: &[SocketAddr]) -> Writers {
        let started = Instant::now();
        let done = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let free: Vec<_> = servers
            .iter()
            .map(|server| {
                let clients = (0..CONNECTIONS).map(|_| Client::new(*server)).collect::<Vec<_>>();
                Arc::new(Mutex::new(clients))
            })
            .collect();
        let task = tokio::spawn(write_on(free, started, Arc::clone(&done), Arc::clone(&stop)));
        Writers { started, done, stop, task }
    }

    fn clock(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the first write was acknowledged that began after this moment.
    async fn first_after(&self, moment: Duration) -> Result<Duration, Box<dyn Error>> {
        while self.clock() < moment + WITHIN {
            let first = {
                let done = self.done.lock().expect("no writer panics");
                done.iter().filter(|(began, _)| *began > moment).map(|(_, ended)| *ended).min()
            };
            if let Some(first) = first {
                return Ok(first);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("no write succeeds within {WITHIN:?}").into())
    }

    /// The longest time between two acknowledgements that follow each other, the second after this moment.
    fn longest_gap(&self, moment: Duration) -> Duration {
        let done = self.done.lock().expect("no writer panics");
        let mut ends: Vec<Duration> = done.iter().map(|(_, ended)| *ended).collect();
        ends.sort_unstable();
        let gaps = ends.windows(2).filter(|pair| pair[1] > moment).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writers do not panic");
    }
}

async fn write_on(
    free: Vec<Arc<Mutex<Vec<Client>>>>,
    started: Instant,
    done: Arc<Mutex<Vec<(Duration, Duration)>>>,
    stop: Arc<AtomicBool>,
) {
    let number = Arc::new(AtomicU64::new(0));
    let mut every = tokio::time::interval(WRITE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for free in free.iter().cycle() {
        every.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut client) = free.lock().expect("no writer panics").pop() else { continue };
        let (free, done, number) = (Arc::clone(free), Arc::clone(&done), Arc::clone(&number));
        tokio::spawn(async move {
            let value = number.fetch_add(1, Ordering::Relaxed).to_string();
            let began = started.elapsed();
            let answer = client.request("PUT", "/v1/kv/bench/failover", value.as_bytes()).await;
            if answer.is_ok_and(|answer| answer.status == 200 && answer.body.trim_ascii() == b"true") {
                done.lock().expect("no writer panics").push((began, started.elapsed()));
            }
            free.lock().expect("no writer panics").push(client);
        });
    }
}
