//! Experiments with gossip alone, at scale: `gossip [--seeds N] [EXPERIMENT...]`. Prints the tables of docs/gossip.md.

use std::time::{Duration, Instant};

use proconsul_sim_tests::gossip::lifeguard::{self, Plan};
use proconsul_sim_tests::gossip::links::Cut;
use proconsul_sim_tests::gossip::load::{self, Work};
use proconsul_sim_tests::gossip::net::Life;
use proconsul_sim_tests::gossip::times::{Times, seconds};
use proconsul_sim_tests::gossip::{cut, events, keys, kill, spread};

/// Its name, and what runs it with so many seeds.
type Experiment = (&'static str, fn(u64));

const EXPERIMENTS: [Experiment; 7] = [
    ("spread", run_spread),
    ("lifeguard", run_lifeguard),
    ("cut", run_cut),
    ("load", run_load),
    ("kill", run_kill),
    ("events", run_events),
    ("keys", run_keys),
];

fn main() {
    let mut seeds = 3;
    let mut names = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--seeds" {
            seeds = words.next().and_then(|count| count.parse().ok()).unwrap_or_else(|| usage());
        } else if EXPERIMENTS.iter().any(|(name, _)| *name == word) {
            names.push(word);
        } else {
            usage();
        }
    }
    for (name, run) in EXPERIMENTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            let begun = Instant::now();
            run(seeds);
            println!("\n({name}: {:.0} s of real time)\n", begun.elapsed().as_secs_f64());
        }
    }
}

fn usage() -> ! {
    let names: Vec<&str> = EXPERIMENTS.iter().map(|(name, _)| *name).collect();
    eprintln!("usage: gossip [--seeds N] [{}]...", names.join("|"));
    std::process::exit(2)
}

fn run_spread(seeds: u64) {
    println!("| members | newcomer knows all | join: half | join: all | leave: half | leave: all | bound |");
    println!("|---|---|---|---|---|---|---|");
    for members in [10, 100, 1_000, 5_000] {
        for seed in 0..seeds {
            let row = spread::run(members, seed);
            let all = |times: &Times, count: usize| match times.len() == count {
                true => seconds(times.max()),
                false => format!("only {} of {count}", times.len()),
            };
            println!(
                "| {members} | {} | {} | {} | {} | {} | {} |",
                row.newcomer.map_or("never".to_owned(), seconds),
                seconds(row.join.percentile(50)),
                all(&row.join, members),
                seconds(row.leave.percentile(50)),
                all(&row.leave, members),
                seconds(row.bound),
            );
        }
    }
}

fn run_lifeguard(seeds: u64) {
    println!(
        "| anomaly | lasts | false positives off / on | at healthy off / on | first detection off / on | everywhere off / on |"
    );
    println!("|---|---|---|---|---|---|");
    for anomaly in [Life::Blocked, Life::Stopped] {
        let mut totals = [lifeguard::Row::default(), lifeguard::Row::default()];
        // Each cell has seeds of its own, so that the times to detection are of as many different runs.
        let mut cell = 0;
        for lasts_ms in [2_000, 4_000, 8_000, 16_000, 32_000] {
            let mut sums = [lifeguard::Row::default(), lifeguard::Row::default()];
            for pause_ms in [1, 64, 1_000, 4_000] {
                cell += 1;
                for seed in 0..seeds {
                    for (lifeguard, sum) in [false, true].into_iter().zip(&mut sums) {
                        sum.add(lifeguard::run(&Plan {
                            members: 128,
                            slowed: 13,
                            anomaly,
                            lasts: Duration::from_millis(lasts_ms),
                            pause: Duration::from_millis(pause_ms),
                            length: Duration::from_secs(120),
                            lifeguard,
                            seed: seed * 100 + cell,
                        }));
                    }
                }
            }
            print_lifeguard(&format!("{anomaly:?}"), &format!("{} s", lasts_ms / 1000), &sums);
            for (total, sum) in totals.iter_mut().zip(sums) {
                total.false_positives += sum.false_positives;
                total.at_healthy += sum.at_healthy;
                total.incomplete += sum.incomplete;
                total.detected.extend((1..=100).map(|at| sum.detected.percentile(at)));
                total.everywhere.extend((1..=100).map(|at| sum.everywhere.percentile(at)));
            }
        }
        print_lifeguard(&format!("{anomaly:?}"), "all", &totals);
    }
}

fn print_lifeguard(anomaly: &str, lasts: &str, [off, on]: &[lifeguard::Row; 2]) {
    let times = |times: &Times| format!("{} ({})", seconds(times.percentile(50)), seconds(times.max()));
    println!(
        "| {anomaly} | {lasts} | {} / {} | {} / {} | {} / {} | {} / {} |",
        off.false_positives,
        on.false_positives,
        off.at_healthy,
        on.at_healthy,
        times(&off.detected),
        times(&on.detected),
        times(&off.everywhere),
        times(&on.everywhere),
    );
    if off.incomplete + on.incomplete > 0 {
        println!("not known everywhere in {} / {} runs", off.incomplete, on.incomplete);
    }
}

fn run_cut(seeds: u64) {
    println!(
        "| cut | removals of healthy | healthy removed | longest removal | suspicion | cut off, found |"
    );
    println!("|---|---|---|---|---|---|");
    for cut in [Cut::Inbound, Cut::Outbound, Cut::Half(0)] {
        for seed in 0..seeds {
            let row = cut::run(500, 10, cut, Duration::from_secs(120), seed);
            println!(
                "| {cut:?} | {} | {} | {} | {} | {} of {} |",
                row.removals,
                row.removed,
                seconds(row.longest),
                seconds(row.suspicion),
                row.found,
                row.cut_off,
            );
        }
    }
}

fn run_load(_: u64) {
    println!(
        "| work | members | datagrams/s | sent B/s | received B/s | streams sent B/s | received B/s | peak B in 1 s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for work in [Work::Idle, Work::Churn, Work::Storm] {
        for members in [10, 100, 1_000, 5_000] {
            if work == Work::Storm && members == 5_000 {
                continue;
            }
            let row = load::run(members, work, Duration::from_secs(60), 0);
            println!(
                "| {work:?} | {members} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
                row.packets,
                row.datagrams_sent,
                row.datagrams_received,
                row.streams_sent,
                row.streams_received,
                row.peak,
            );
        }
    }
}

fn run_kill(seeds: u64) {
    println!("| how | runs | first: median, max | everywhere: median, 90 %, 99 %, max | in 6 s |");
    println!("|---|---|---|---|---|");
    let runs = (seeds * 70).clamp(20, 200);
    for life in [Life::Killed, Life::Silent] {
        let row = kill::run(50, life, 0..runs, Duration::from_secs(60));
        let times: Vec<String> =
            [50, 90, 99, 100].iter().map(|at| seconds(row.everywhere.percentile(*at))).collect();
        let quick = (1..=100).filter(|at| row.everywhere.percentile(*at) <= Duration::from_secs(6)).count();
        println!(
            "| {life:?} | {} of {runs} | {}, {} | {} | {quick} % |",
            row.everywhere.len(),
            seconds(row.first.percentile(50)),
            seconds(row.first.max()),
            times.join(", "),
        );
    }
}

fn run_events(seeds: u64) {
    println!(
        "| members | cut off | delivered of expected | repeated | connected: median, max | cut off, after healing: median, max |"
    );
    println!("|---|---|---|---|---|---|");
    for (members, cut_off) in [(100, 5), (1_000, 20)] {
        for seed in 0..seeds {
            let row = events::run(members, cut_off, 20, 50, seed);
            println!(
                "| {members} | {cut_off} | {} of {} | {} | {}, {} | {}, {} |",
                row.delivered,
                row.expected,
                row.repeated,
                seconds(row.connected.percentile(50)),
                seconds(row.connected.max()),
                seconds(row.cut_off.percentile(50)),
                seconds(row.cut_off.max()),
            );
        }
    }
}

fn run_keys(seeds: u64) {
    println!("| members | down | cut off | answers | rotation | reunited |");
    println!("|---|---|---|---|---|---|");
    for seed in 0..seeds {
        let row = keys::run(50, 3, 3, seed);
        println!(
            "| 50 | 3 | 3 | {} | {} | {} |",
            row.answers,
            seconds(row.rotation),
            row.reunited.map_or("never".to_owned(), seconds),
        );
    }
}
