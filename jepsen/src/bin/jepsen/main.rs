//! `proconsul-jepsen`: faults for real processes, and a check of what their clients saw.

mod trial;

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use proconsul_jepsen::history::{History, Outcome};
use proconsul_jepsen::process::cluster::Layout;
use proconsul_jepsen::process::faults::{self, Fault};
use proconsul_jepsen::process::server::Launch;
use proconsul_jepsen::process::trial::{Run, findings as judged};
use proconsul_jepsen::process::{self, kill};
use proconsul_jepsen::report::{self, About};
use proconsul_jepsen::suite;
use proconsul_jepsen::workload::Random;

/// Runs agents under faults and checks what their clients saw. Exit code 0 only if every check passes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Run a cluster under clients of every kind and many faults, check what they saw, and write a report.
    ///
    /// Cutting links and filling disks needs network and mount namespaces: root has them, and so has everybody where
    /// the system gives user namespaces to anyone (it does not in most containers). The program makes them itself with
    /// unshare(1), ip(8), nsenter(1) and mount(8); they vanish with it. Without them the cluster runs on loopback
    /// addresses, and those faults are left out with a word. No packet filter and no traffic shaper is needed. Clocks
    /// are shifted where libfaketime is installed, and only those of programs that take the time from the C library.
    Run(trial::Trial),
    /// Kill a server with data on disk at random moments under concurrent clients.
    Kill {
        /// The agent's program; by default `proconsul` beside this program.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Decides the workload and the moments of the kills; by default it is drawn and printed.
        #[arg(long)]
        seed: Option<u64>,
        /// Concurrent clients.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
        clients: u32,
        /// Keys that the clients share.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        keys: u64,
        /// How often to kill.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// The longest time from start to kill, in milliseconds.
        #[arg(long, default_value_t = 1_500)]
        up_for_ms: u64,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 300)]
        time_limit: u64,
        /// Run an agent without data on disk. It loses everything, so the checks must fail: a test of this program.
        #[arg(long)]
        in_memory: bool,
        /// Keep the history in this file, as JSON lines. A history that fails is kept in any case.
        #[arg(long)]
        history: Option<PathBuf>,
        /// More arguments for the agent.
        #[arg(last = true)]
        agent: Vec<String>,
    },
    /// Let the servers of a cluster fail one at a time under clients of every agent: killed, stopped, restarted.
    Cluster {
        /// The agent's program; by default `proconsul` beside this program.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Decides the workload, the faults and their moments; by default it is drawn and printed.
        #[arg(long)]
        seed: Option<u64>,
        /// Servers.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=7))]
        servers: u32,
        /// Client agents.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=20))]
        clients: u32,
        /// Keys that the clients share.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        keys: u64,
        /// How many faults.
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// The longest time from a recovery to the next fault, in milliseconds.
        #[arg(long, default_value_t = 2_000)]
        calm_ms: u64,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 900)]
        time_limit: u64,
        /// Keep the history in this file, as JSON lines. A history that fails is kept in any case.
        #[arg(long)]
        history: Option<PathBuf>,
        /// More arguments for every agent.
        #[arg(last = true)]
        agent: Vec<String>,
    },
    /// Check a history that was kept.
    Check {
        /// The file, JSON lines.
        history: PathBuf,
        /// Write a page about it, as `run` does.
        #[arg(long)]
        report: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().scenario) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("proconsul-jepsen: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a scenario.
fn run(scenario: Scenario) -> Result<ExitCode, Box<dyn Error>> {
    match scenario {
        Scenario::Run(trial) => trial.run(),
        Scenario::Check { history: path, report } => {
            let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let history = History::load(BufReader::new(file))?;
            let Some(report) = report else { return Ok(code(check(&history))) };
            let said = suite::check(&history, &suite::Rules::default());
            print!("{said}");
            let passed = said.passed();
            let about = About { title: format!("{}, checked again", path.display()), facts: Vec::new() };
            let page = report::page(&about, &Run::of_history(history), &judged(said));
            std::fs::write(&report, page).map_err(|error| format!("{}: {error}", report.display()))?;
            println!("report: {}", report.display());
            Ok(code(passed))
        }
        Scenario::Kill {
            binary,
            seed,
            clients,
            keys,
            rounds,
            up_for_ms,
            time_limit,
            in_memory,
            history,
            agent,
        } => {
            let binary = program(binary)?;
            let seed = seed.unwrap_or_else(draw_seed);
            let up_for = Duration::from_millis(up_for_ms);
            let options = kill::Options { seed, clients, keys, rounds, up_for };
            println!(
                "kill: {} seed {seed}, {clients} clients, {keys} keys, {rounds} rounds",
                binary.display()
            );
            let launch = Launch { binary, dev: in_memory, arguments: agent };
            let run = within(time_limit, kill::run(launch, &options))?;
            summarize(&run.history, run.duration);
            println!("exec to first write: {}", spread(run.starts));
            Ok(code(passed("kill", seed, &run.history, history.as_deref())?))
        }
        Scenario::Cluster {
            binary,
            seed,
            servers,
            clients,
            keys,
            rounds,
            calm_ms,
            time_limit,
            history,
            agent,
        } => {
            let binary = program(binary)?;
            let seed = seed.unwrap_or_else(draw_seed);
            println!(
                "cluster: {} seed {seed}, {servers} servers, {clients} clients, {keys} keys, {rounds} faults",
                binary.display()
            );
            let mut random = Random::new(seed);
            let draw = |_| {
                let at = random.below(Fault::ALL.len() as u64);
                Fault::ALL[usize::try_from(at).expect("there are few kinds")]
            };
            let options = faults::Options {
                seed,
                keys,
                rest: Duration::from_millis(2),
                calm: Duration::from_millis(calm_ms),
                faults: (0..rounds).map(draw).collect(),
            };
            let layout =
                Layout { binary, servers: servers as usize, clients: clients as usize, arguments: agent };
            let run = within(time_limit, faults::run(&layout, &options))?;
            summarize(&run.history, run.duration);
            for fault in Fault::ALL {
                let took = run.recoveries.iter().filter(|(of, _)| *of == fault).map(|(_, took)| *took);
                println!("writes again after {fault}: {}", spread(took.collect()));
            }
            let two_leaders = faults::two_leaders(&run.elections);
            match two_leaders {
                Some(two) => println!("leaders: two in one term: {two:?}"),
                None => println!("leaders: never two in one term, {} sightings", run.elections.len()),
            }
            Ok(code(passed("cluster", seed, &run.history, history.as_deref())? && two_leaders.is_none()))
        }
    }
}

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs to the end, but no longer than the limit, and not after this program was asked to end.
fn within<T>(time_limit: u64, run: impl Future<Output = io::Result<T>>) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = process::asked_to_end() => Err("interrupted".into()),
            () = tokio::time::sleep(Duration::from_secs(time_limit)) => {
                Err(format!("not done within {time_limit} s").into())
            }
            run = run => Ok(run?),
        }
    })
}

/// Checks a history, and keeps it if that was asked for or a check fails.
fn passed(scenario: &str, seed: u64, history: &History, path: Option<&Path>) -> Result<bool, Box<dyn Error>> {
    if let Some(path) = path {
        save(history, path)?;
    }
    let passed = check(history);
    if !passed && path.is_none() {
        let name = format!("proconsul-jepsen-{scenario}-{seed}.jsonl");
        save(history, &std::env::temp_dir().join(name))?;
    }
    Ok(passed)
}

/// The program that was named, or the one beside this.
fn program(named: Option<PathBuf>) -> Result<PathBuf, Box<dyn Error>> {
    match named {
        Some(named) => Ok(std::path::absolute(named)?),
        None => beside("proconsul"),
    }
}

fn draw_seed() -> u64 {
    u64::from(std::process::id()) ^ now_seed()
}

fn now_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos()) << 20)
}

/// The path of a program in the directory of this one.
fn beside(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} does not exist: build it, or name another with --binary", path.display()).into())
    }
}

fn save(history: &History, path: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    history.save(BufWriter::new(file))?;
    println!("history kept in {}", path.display());
    Ok(())
}

fn summarize(history: &History, duration: Duration) {
    let operations = history.operations();
    let count = |wanted: fn(&Outcome) -> bool| operations.iter().filter(|o| wanted(&o.outcome)).count();
    let answered = count(|outcome| matches!(outcome, Outcome::Ok(_)));
    println!(
        "{} operations in {:.1} s: {answered} answered ({:.0}/s), {} failed, {} unknown",
        operations.len(),
        duration.as_secs_f64(),
        answered as f64 / duration.as_secs_f64(),
        count(|outcome| *outcome == Outcome::Failed),
        count(|outcome| *outcome == Outcome::Unknown),
    );
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (Some(fastest), Some(slowest)) = (times.first(), times.last()) else { return "none".to_owned() };
    let median = times[times.len() / 2];
    format!(
        "{} times, {:.0} ms at best, {:.0} ms in the middle, {:.0} ms at worst",
        times.len(),
        fastest.as_secs_f64() * 1e3,
        median.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
    )
}

/// Runs every checker that has something to judge, and prints what it says.
fn check(history: &History) -> bool {
    let report = suite::check(history, &suite::Rules::default());
    print!("{report}");
    report.passed()
}
