//! The scenario `run`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proconsul_jepsen::process::cluster::Layout;
use proconsul_jepsen::process::isolation;
use proconsul_jepsen::process::network::Network;
use proconsul_jepsen::process::trial::plan::Kind;
use proconsul_jepsen::process::trial::{self, Finding, Judgement, Options, Run};
use proconsul_jepsen::report::{self, About, Counts};

use crate::{code, draw_seed, program, save, summarize, within};

/// What to run, and how.
#[derive(Args)]
pub(crate) struct Trial {
    /// The agents' program, with Consul's command line and API; by default `proconsul` beside this program.
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
    /// How long faults happen.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
    /// Kinds of faults, or `none`, `usual` or `all`: kill, kill-all, pause, restart, kill-client, cut, one-way, disk,
    /// clock, leave, join, remove-peer, wipe, transfer.
    #[arg(long, value_delimiter = ',', default_value = "usual")]
    faults: Vec<String>,
    /// Registers of each way to read.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    keys: u64,
    /// How long a client rests after an answer, in milliseconds.
    #[arg(long, default_value_t = 10)]
    rest_ms: u64,
    /// Where the agents live.
    #[arg(long, value_enum, default_value_t = Where::Auto)]
    network: Where,
    /// The page to write.
    #[arg(long, default_value = "jepsen-report.html")]
    report: PathBuf,
    /// Keep the history in this file, as JSON lines. A history that fails is kept in any case.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Give up so many seconds after the faults are over.
    #[arg(long, default_value_t = 240)]
    grace: u64,
    /// Said by this program to itself once it is in namespaces.
    #[arg(long, hide = true)]
    inside: bool,
    /// More arguments for every agent.
    #[arg(last = true)]
    agent: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    /// In namespaces if the machine allows them, otherwise on loopback.
    Auto,
    /// In namespaces.
    Namespaces,
    /// On loopback, without faults of links and disks.
    Loopback,
}

impl Trial {
    /// Runs the trial here, or this program again in namespaces.
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let mut kinds = self.kinds()?;
        if self.network != Where::Loopback && !self.inside {
            match isolation::probe() {
                Ok(flags) => {
                    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
                    // Behind the name of the scenario, and before anything that is for the agents.
                    arguments.insert(1, "--inside".to_owned());
                    return Ok(isolation::run(&flags, &arguments)?);
                }
                Err(why) if self.network == Where::Namespaces => {
                    return Err(format!("no namespaces: {why}").into());
                }
                Err(why) => println!("no namespaces on this machine ({why}): on loopback"),
            }
        }
        let mut left_out = Vec::new();
        kinds.retain(|kind| {
            let why = match kind {
                kind if kind.needs_namespaces() && !self.inside => "it needs namespaces",
                Kind::Clock if trial::clock_shifter().is_none() => "libfaketime is not installed",
                Kind::KillClient if self.clients == 0 => "there are no client agents",
                _ => return true,
            };
            left_out.push(format!("{kind} ({why})"));
            false
        });
        if !left_out.is_empty() {
            println!("left out: {}", left_out.join(", "));
        }
        self.run_here(kinds, &left_out)
    }

    fn kinds(&self) -> Result<Vec<Kind>, Box<dyn Error>> {
        let mut kinds = Vec::new();
        for name in &self.faults {
            match name.as_str() {
                "none" => {}
                "usual" => kinds.extend(Kind::USUAL),
                "all" => kinds.extend(Kind::ALL),
                name => kinds.push(name.parse().map_err(|error| format!("{name}: {error}"))?),
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }

    fn run_here(self, kinds: Vec<Kind>, left_out: &[String]) -> Result<ExitCode, Box<dyn Error>> {
        let binary = program(self.binary.clone())?;
        let seed = self.seed.unwrap_or_else(draw_seed);
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let network = if self.inside {
            isolation::settle()?;
            Network::inside()?
        } else {
            Network::claim_tied()?
        };
        let place = if self.inside { "namespaces" } else { "loopback" };
        println!(
            "run: {} seed {seed}, {} servers, {} clients, {} s on {place}, faults {}",
            binary.display(),
            self.servers,
            self.clients,
            self.seconds,
            if names.is_empty() { "none".to_owned() } else { names.join(",") },
        );
        let options = Options {
            seed,
            length: Duration::from_secs(self.seconds),
            kinds,
            keys: self.keys,
            rest: Duration::from_millis(self.rest_ms),
        };
        let layout = Layout {
            binary: binary.clone(),
            servers: self.servers as usize,
            clients: self.clients as usize,
            arguments: self.agent.clone(),
        };
        let inside = self.inside;
        let run = within(self.seconds + self.grace, async {
            tokio::select! {
                biased;
                () = isolation::abandoned(), if inside => Err(std::io::Error::other("interrupted")),
                run = trial::run(network, &layout, &options) => run,
            }
        })?;
        let findings = trial::judge(&run);
        let passed = !findings.iter().any(Finding::is_bad);
        tell(&run, &findings);
        if let Some(path) = &self.history {
            save(&run.history, path)?;
        } else if !passed {
            save(&run.history, &self.report.with_extension("jsonl"))?;
        }
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let about = About {
            title: format!("{} under faults: seed {seed}", binary.file_name().unwrap_or_default().display()),
            facts: vec![
                fact("program", binary.display().to_string()),
                fact("agents", run.agents.join(", ")),
                fact("faults", format!("{} s of {}", self.seconds, names.join(", "))),
                fact(
                    "left out",
                    if left_out.is_empty() { "nothing".to_owned() } else { left_out.join(", ") },
                ),
                fact(
                    "changes of keys",
                    format!(
                        "acknowledged in {:.0} % of the seconds with faults; the longest time without was {:.1} s",
                        run.seconds_with_changes() * 100.0,
                        run.longest_outage().as_secs_f64()
                    ),
                ),
                fact("agents live", format!("in {place} of one machine")),
            ],
        };
        std::fs::write(&self.report, report::page(&about, &run, &findings))
            .map_err(|error| format!("{}: {error}", self.report.display()))?;
        println!("report: {}", self.report.display());
        Ok(code(passed))
    }
}

/// Prints counts and verdicts.
fn tell(run: &Run, findings: &[Finding]) {
    for event in &run.events {
        let until = event.until.map_or_else(String::new, |until| format!("to {:6.1} s", until as f64 / 1e9));
        println!("{:6.1} s {until:11} {}", event.from as f64 / 1e9, event.what);
    }
    summarize(&run.history, Duration::from_nanos(run.mended));
    println!(
        "changes of keys acknowledged in {:.0} % of the seconds; longest time without {:.1} s",
        run.seconds_with_changes() * 100.0,
        run.longest_outage().as_secs_f64()
    );
    for (class, counts) in Counts::of(&run.history) {
        println!(
            "{:16} {:6} answered, {:5} refused, {:5} failed, {:4} unknown; median {:6.1} ms, 99 % {:7.1} ms",
            class.name(),
            counts.answered,
            counts.refused,
            counts.failed,
            counts.unknown,
            counts.quantile_ms(0.5),
            counts.quantile_ms(0.99),
        );
    }
    for finding in findings {
        let word = match finding.judgement {
            Judgement::Passed => "kept",
            Judgement::Violated => "BROKEN",
            Judgement::Undecided => "UNDECIDED",
            Judgement::Absent => "not judged",
        };
        match &finding.violation {
            Some(violation) => println!("{}: {word}: {violation}", finding.name),
            None => println!("{}: {word}, {}", finding.name, finding.says),
        }
    }
}
