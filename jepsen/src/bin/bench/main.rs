//! `proconsul-bench`: measures an agent beside bare programs that do the least possible for the same answers.
//!
//! All targets of a measurement run at the same time and take turns, so that a slow minute of the machine hits each of
//! them. Server CPU comes from `/proc/PID/stat`: it is the figure that depends least on the load generator, which shares
//! the machine.

mod bare;
mod bare_group;
mod cluster;
mod large;
mod load;
mod measure;
mod registrations;
mod report;
mod scenario;
mod target;
mod waiting;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures an agent beside bare programs, and beside Consul if it is given. Prints Markdown.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure.
    Run(RunArguments),
    /// Measure clusters of three servers and more.
    Cluster(ClusterArguments),
    /// A bare hyper server: answers every request with the same bytes.
    BareHttp {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// Answer with this many bytes.
        #[arg(long, default_value_t = 90, conflicts_with = "body_file")]
        body_bytes: usize,
        /// Answer with the content of this file.
        #[arg(long)]
        body_file: Option<PathBuf>,
    },
    /// A bare durable log: appends every request's body to a file, syncs for all that wait, and answers `true`.
    BareLog {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// The file.
        #[arg(long)]
        file: PathBuf,
    },
    /// The leader of a bare group: appends every request's body to its file and to those of its followers, and answers
    /// `true` once two of them are synced.
    BareLeader {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// The file.
        #[arg(long)]
        file: PathBuf,
        /// The addresses of its followers.
        #[arg(long, value_delimiter = ',')]
        followers: Vec<SocketAddr>,
    },
    /// A follower of a bare group.
    BareFollower {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// The file.
        #[arg(long)]
        file: PathBuf,
    },
    /// A bare DNS server: answers every question with one address, or with the same bytes.
    BareUdp {
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
        /// Answer with the content of this file.
        #[arg(long)]
        answer_file: Option<PathBuf>,
    },
}

/// The programs to measure.
#[derive(clap::Args)]
struct Programs {
    /// The agent to measure.
    #[arg(long)]
    proconsul: Option<PathBuf>,
    /// A Consul to compare with.
    #[arg(long)]
    consul: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RunArguments {
    #[command(flatten)]
    programs: Programs,
    /// What to measure; by default everything.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Length of one turn of one target, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Turns per target.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Concurrent connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Blocked queries.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    blocked: u32,
    /// How long to watch an agent at rest, in seconds.
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// Keys of the large state.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
}

#[derive(clap::Args)]
struct ClusterArguments {
    #[command(flatten)]
    programs: Programs,
    /// What to measure; by default everything.
    #[arg(long, value_delimiter = ',')]
    only: Vec<cluster::Measurement>,
    /// Fail-overs of each kind.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Agents in the large cluster, 3 servers included.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(4..=240))]
    agents: u32,
    /// How often an agent of it is killed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    kills: u32,
    /// How long to watch idle agents, in seconds.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
    /// Length of one turn of writing, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Turns of writing per target.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Concurrent writers.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    writers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// GET of one key.
    Get,
    /// Durable PUTs.
    Put,
    /// `/v1/health/service/web` with 10, 100 and 1000 instances.
    Health,
    /// DNS over UDP: addresses and SRV records of services with 1, 3 and 50 instances.
    Dns,
    /// Blocked queries on one key.
    Blocked,
    /// Blocked queries on absent keys, under writes that do not concern them.
    Asleep,
    /// Blocked queries on the health of one service.
    Service,
    /// Memory and CPU at rest.
    Idle,
    /// From exec to the first write.
    Start,
    /// Registrations on one agent.
    Register,
    /// A large state: memory, snapshot and restore under writes, restart.
    Large,
}

/// How hard to measure.
struct Effort {
    turn: Duration,
    rounds: u32,
    connections: u32,
    blocked: u32,
    idle: Duration,
    keys: u32,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::BareHttp { port, body_bytes, body_file } => bare::http(port, body_bytes, body_file),
        Command::BareLog { port, file } => bare_group::leader(port, &file, &[]),
        Command::Cluster(arguments) => run_cluster(arguments),
        Command::BareLeader { port, file, followers } => bare_group::leader(port, &file, &followers),
        Command::BareFollower { port, file } => bare_group::follower(port, &file),
        Command::BareUdp { port, answer_file } => bare::udp(port, answer_file),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proconsul-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Programs {
    fn list(self) -> Result<Vec<target::Program>, Box<dyn Error>> {
        let mut programs = Vec::new();
        for (name, binary) in [("proconsul", self.proconsul), ("consul", self.consul)] {
            if let Some(binary) = binary {
                let binary = std::path::absolute(binary)?;
                if !binary.exists() {
                    return Err(format!("{} does not exist", binary.display()).into());
                }
                programs.push(target::Program { name, binary });
            }
        }
        if programs.is_empty() {
            return Err("nothing to measure: name a program with --proconsul or --consul".into());
        }
        Ok(programs)
    }
}

fn run_cluster(arguments: ClusterArguments) -> Result<(), Box<dyn Error>> {
    let programs = arguments.programs.list()?;
    let effort = cluster::Effort {
        runs: arguments.runs as usize,
        agents: arguments.agents as usize,
        kills: arguments.kills as usize,
        idle: Duration::from_secs(arguments.idle_seconds),
        turn: Duration::try_from_secs_f64(arguments.seconds)?,
        rounds: arguments.rounds,
        writers: arguments.writers as usize,
    };
    let wanted = |measurement| arguments.only.is_empty() || arguments.only.contains(&measurement);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = proconsul_jepsen::process::asked_to_end() => Err("interrupted".into()),
            done = cluster::run(&programs, wanted, &effort) => done,
        }
    })
}

fn run(arguments: RunArguments) -> Result<(), Box<dyn Error>> {
    let programs = arguments.programs.list()?;
    let effort = Effort {
        turn: Duration::try_from_secs_f64(arguments.seconds)?,
        rounds: arguments.rounds,
        connections: arguments.connections,
        blocked: arguments.blocked,
        idle: Duration::from_secs(arguments.idle_seconds),
        keys: arguments.keys,
    };
    target::raise_open_files(u64::from(effort.blocked) + 1_000)?;
    let wanted = |scenario| arguments.only.is_empty() || arguments.only.contains(&scenario);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let measuring = async {
            let mut loads = report::Loads::default();
            if wanted(Scenario::Get) {
                scenario::get(&programs, &effort, &mut loads).await?;
            }
            if wanted(Scenario::Put) {
                scenario::put(&programs, &effort, &mut loads).await?;
            }
            if wanted(Scenario::Health) {
                scenario::health(&programs, &effort, &mut loads).await?;
            }
            if wanted(Scenario::Dns) {
                scenario::dns(&programs, &effort, &mut loads).await?;
            }
            print!("{loads}");
            if wanted(Scenario::Blocked) {
                scenario::blocked(&programs, &effort).await?;
            }
            if wanted(Scenario::Asleep) {
                waiting::asleep(&programs, &effort).await?;
            }
            if wanted(Scenario::Service) {
                waiting::service(&programs, &effort).await?;
            }
            if wanted(Scenario::Idle) {
                scenario::idle(&programs, &effort).await?;
            }
            if wanted(Scenario::Start) {
                scenario::start(&programs, &effort).await?;
            }
            if wanted(Scenario::Register) {
                registrations::measure(&programs, &effort).await?;
            }
            if wanted(Scenario::Large) {
                large::measure(&programs, &effort).await?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            _ = proconsul_jepsen::process::asked_to_end() => Err("interrupted".into()),
            done = measuring => done,
        }
    })
}
