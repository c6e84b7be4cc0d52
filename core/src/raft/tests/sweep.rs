//! Seeds of whole groups under faults.

use super::faults;

/// Runs one seed and says first which one, for whoever reads of a failure.
fn run(seed: u64, voters: usize, members_change: bool) -> (u64, u64) {
    println!("seed {seed}: {voters} voters, members change: {members_change}");
    faults::run(seed, voters, members_change)
}

#[test]
fn a_sole_server_survives_crashes() {
    for seed in 0..40 {
        run(seed, 1, false);
    }
}

#[test]
fn three_servers_stay_safe_under_faults_and_recover() {
    for seed in 0..100 {
        run(seed, 3, false);
    }
}

#[test]
fn five_servers_stay_safe_under_faults_and_recover() {
    for seed in 0..60 {
        run(seed, 5, false);
    }
}

#[test]
fn groups_stay_safe_while_members_come_and_go() {
    for seed in 0..100 {
        run(seed, 3, true);
    }
    for seed in 0..20 {
        run(seed, 1, true);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        assert_eq!(run(seed, 3, true), run(seed, 3, true));
    }
}

/// A long sweep: `PROCONSUL_SEEDS` seeds of each kind, from `PROCONSUL_SEED` on.
#[test]
#[ignore = "a long sweep, run on demand"]
#[allow(clippy::disallowed_methods, reason = "not the core: a sweep that is started by hand")]
fn sweep() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (from, count) = (number("PROCONSUL_SEED").unwrap_or(0), number("PROCONSUL_SEEDS").unwrap_or(1_000));
    let mut events = 0;
    for seed in from..from + count {
        for (voters, members_change) in [(3, false), (5, false), (3, true), (1, true), (2, true)] {
            events += run(seed, voters, members_change).0;
        }
    }
    println!("{events} events");
}
