//! Small versions of the experiments of docs/gossip.md, with the bounds that they must keep.

use std::time::Duration;

use proconsul_sim_tests::gossip::lifeguard::{self, Plan, Row};
use proconsul_sim_tests::gossip::links::Cut;
use proconsul_sim_tests::gossip::load::{self, Work};
use proconsul_sim_tests::gossip::net::Life;
use proconsul_sim_tests::gossip::{cut, events, keys, kill, spread};

/// The bound is that of an epidemic, see [`spread::bound`]: for 5,000 members that are told of by 3 per round of 200 ms,
/// 7 rounds until most know and 6 until all do, 2.63 s.
#[test]
fn a_join_and_a_leave_reach_5000_members_within_the_bound_of_the_analysis() {
    for members in [10, 100, 5_000] {
        let row = spread::run(members, 1);
        assert!(row.bound < Duration::from_millis(2_650));
        assert!(row.newcomer.is_some(), "the newcomer learns of everybody");
        assert_eq!((row.join.len(), row.leave.len()), (members, members));
        assert!(row.join.max() <= row.bound && row.leave.max() <= row.bound, "{row:?}");
    }
}

/// Three runs of Lifeguard's experiment without and with it: blocked members, anomalies of this length.
fn lifeguard_off_and_on(lasts: Duration) -> [Row; 2] {
    let mut rows = [Row::default(), Row::default()];
    for seed in 0..3 {
        for (lifeguard, row) in [false, true].into_iter().zip(&mut rows) {
            row.add(lifeguard::run(&Plan {
                members: 128,
                slowed: 13,
                anomaly: Life::Blocked,
                lasts,
                pause: Duration::from_millis(64),
                length: Duration::from_secs(60),
                lifeguard,
                seed,
            }));
        }
    }
    rows
}

#[test]
fn lifeguard_spares_healthy_members() {
    let [off, on] = lifeguard_off_and_on(Duration::from_secs(16));
    assert!(off.false_positives >= 20 * on.false_positives.max(1), "{off:?} {on:?}");
    assert!(off.at_healthy >= 20 * on.at_healthy.max(1), "{off:?} {on:?}");
}

/// With anomalies that are short enough for nobody to be suspected wrongly: a member that was suspected before it died is
/// found sooner, and without Lifeguard that is frequent.
#[test]
fn lifeguard_finds_dead_members_as_fast() {
    let [off, on] = lifeguard_off_and_on(Duration::from_secs(4));
    assert_eq!((off.incomplete, on.incomplete), (0, 0));
    let slack = Duration::from_secs(1);
    for (off, on) in [(&off.detected, &on.detected), (&off.everywhere, &on.everywhere)] {
        assert!(on.percentile(50) <= off.percentile(50) + slack, "{off:?} {on:?}");
    }
}

#[test]
fn members_that_are_half_cut_off_remove_no_healthy_one_for_longer_than_a_suspicion() {
    for cut in [Cut::Inbound, Cut::Outbound, Cut::Half(0)] {
        let row = cut::run(200, 4, cut, Duration::from_secs(90), 1);
        assert!(row.longest <= row.suspicion, "{cut:?}: {row:?}");
        if !matches!(cut, Cut::Half(_)) {
            assert_eq!(row.found, row.cut_off, "{cut:?}: {row:?}");
        }
    }
}

#[test]
fn what_a_member_sends_does_not_depend_on_the_size_of_the_pool() {
    let rows = [10, 100, 1_000].map(|members| load::run(members, Work::Idle, Duration::from_secs(20), 1));
    for row in rows {
        assert!((100.0..150.0).contains(&row.datagrams_sent), "{rows:?}");
    }
    let storm = load::run(300, Work::Storm, Duration::from_secs(20), 1);
    // The budget of broadcasts is 32 KiB/s with a burst of as much; pings and answers come on top.
    assert!(storm.peak < 2 * 32 * 1024 + 2_000, "{storm:?}");
}

#[test]
fn a_killed_member_of_fifty_is_known_to_have_failed_within_six_seconds() {
    let row = kill::run(50, Life::Killed, 0..40, Duration::from_secs(30));
    assert_eq!(row.incomplete, 0);
    assert!(row.everywhere.max() <= Duration::from_secs(6), "{row:?}");
}

#[test]
fn each_member_gets_each_event_once_also_after_it_was_cut_off() {
    let row = events::run(100, 5, 20, 50, 1);
    assert_eq!((row.delivered, row.repeated), (row.expected, 0));
    assert!(row.connected.max() <= Duration::from_secs(3), "{row:?}");
    assert!(row.cut_off.max() <= Duration::from_secs(60), "{row:?}");
}

#[test]
fn members_that_missed_a_rotation_of_keys_come_back() {
    let row = keys::run(50, 3, 3, 1);
    assert_eq!(row.answers, 44);
    assert!(row.reunited.is_some_and(|time| time <= Duration::from_secs(90)), "{row:?}");
}
