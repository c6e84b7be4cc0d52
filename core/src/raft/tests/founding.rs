//! Groups that servers found on their own, each with its view of who is there; and members that an operator forces.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::{Cluster, MS, Weather, members};
use super::founding_ground::{self, blank, found, founded, set};
use crate::raft::{BootstrapError, Limits, Timing};

#[test]
fn one_founder_and_those_who_consent_become_a_group_without_waiting() {
    let mut cluster = blank(1, 3, Weather::default());
    found(&mut cluster, 0, &[0, 1, 2]).unwrap();
    cluster.run_until(Duration::from_secs(10), "a leader", |cluster| cluster.leader().is_some());
    assert!(cluster.now < 100 * MS, "{} ms", cluster.now / MS);
    let leader = cluster.leader().unwrap();
    let index = cluster.propose(leader, b"x").unwrap();
    cluster.run_until(Duration::from_secs(10), "all to have it", |cluster| {
        (0..3).all(|at| cluster.raft(at).commit_index() >= index)
    });
    assert_eq!(found(&mut cluster, 1, &[1, 2]), Err(BootstrapError::NotEmpty));
}

#[test]
fn two_founders_with_different_views_found_one_group_at_most() {
    for seed in 0..40 {
        let weather = Weather { loss: 100, doubling: 100, delay: 20 * MS, ..Weather::default() };
        let mut cluster = blank(seed, 4, weather);
        for _ in 0..10 {
            let _ = found(&mut cluster, 0, &[0, 1, 2]);
            let _ = found(&mut cluster, 1, &[1, 2, 3]);
            if seed % 4 == 1 {
                let _ = found(&mut cluster, 3, &[0, 2, 3]);
            }
            let wait = cluster.rng.below(300);
            cluster.run(Duration::from_millis(wait));
        }
        assert!(founded(&cluster).len() <= 1, "seed {seed}: {:?}", founded(&cluster));
    }
}

#[test]
fn founders_that_want_each_other_do_not_block_each_other() {
    let mut cluster = blank(3, 4, Weather::default());
    found(&mut cluster, 1, &[0, 1, 2]).unwrap();
    found(&mut cluster, 0, &[0, 1, 2]).unwrap();
    let mut tries = 0;
    while founded(&cluster).is_empty() {
        cluster.run(Duration::from_millis(200));
        if founded(&cluster).is_empty() {
            // Each refused the other: they are told, and try again.
            let _ = found(&mut cluster, 1, &[0, 1, 2]);
            cluster.run(Duration::from_millis(5));
            let _ = found(&mut cluster, 0, &[0, 1, 2]);
        }
        tries += 1;
        assert!(tries < 10);
    }
    cluster.wait_for_leader();
    assert_eq!(founded(&cluster), BTreeSet::from([vec![1, 2, 3]]));
}

#[test]
fn a_founder_that_withdraws_releases_those_who_consented() {
    let mut cluster = blank(4, 5, Weather::default());
    // The first founder lacks a member: no group yet.
    cluster.split(&[4]);
    found(&mut cluster, 0, &[0, 1, 4]).unwrap();
    cluster.run(Duration::from_secs(1));
    assert!(founded(&cluster).is_empty());
    assert_eq!(found(&mut cluster, 1, &[1, 2, 3]), Err(BootstrapError::Bound));
    cluster.run(Duration::from_secs(1));
    assert_eq!(found(&mut cluster, 1, &[1, 2, 3]), Err(BootstrapError::Bound), "it is still at it");
    // It crashes, and so is not at it any more; who is bound finds out by asking.
    cluster.crash(0);
    cluster.restart_after(0, 100 * MS);
    cluster.run(Duration::from_secs(1));
    let _ = found(&mut cluster, 1, &[1, 2, 3]);
    cluster.run(Duration::from_secs(1));
    found(&mut cluster, 1, &[1, 2, 3]).unwrap();
    cluster.wait_for_leader();
    cluster.cut.clear();
    found(&mut cluster, 0, &[0, 1, 4]).unwrap();
    cluster.run(Duration::from_secs(5));
    assert_eq!(founded(&cluster), BTreeSet::from([vec![2, 3, 4]]));
}

/// Seeds 78 and 86 of the ground: more servers than the group is to have; one that began to found it, when it did not
/// see one with a lower identity yet, stopped asking and remained at it, so that its members were bound for ever.
#[test]
fn regression_a_founder_that_makes_room_releases_those_who_consented() {
    let mut cluster = blank(5, 5, Weather::default());
    cluster.split(&[4]);
    found(&mut cluster, 2, &[2, 3, 4]).unwrap();
    cluster.run(Duration::from_secs(1));
    let _ = found(&mut cluster, 0, &[0, 1, 3]);
    cluster.run(Duration::from_secs(1));
    assert!(founded(&cluster).is_empty(), "one of its members is bound to another founder");
    cluster.call(2, |raft, cx| raft.stop_founding(cx));
    for _ in 0..3 {
        let _ = found(&mut cluster, 0, &[0, 1, 3]);
        cluster.run(Duration::from_secs(1));
    }
    assert_eq!(founded(&cluster), BTreeSet::from([vec![1, 2, 4]]));
}

#[test]
fn random_views_crashes_and_losses_never_found_two_groups_and_found_one_in_the_end() {
    for seed in 1_000..1_060 {
        println!("seed {seed}");
        founding_ground::run(seed);
    }
}

#[test]
fn two_of_five_go_on_when_an_operator_says_that_they_are_the_group() {
    let mut cluster = Cluster::new(5, 5..5, Weather::default(), Timing::default(), Limits::default());
    let leader = cluster.wait_for_leader();
    let behind = (leader + 1) % 5;
    let ahead = (leader + 2) % 5;
    // One of the two that are left lacks what was committed last.
    cluster.run(Duration::from_millis(500));
    cluster.split(&[behind]);
    let index = cluster.propose(leader, b"acknowledged").unwrap();
    cluster.run_until(Duration::from_secs(5), "a commit", |cluster| {
        cluster.raft(leader).commit_index() >= index && cluster.raft(ahead).commit_index() >= index
    });
    cluster.cut.clear();
    for at in 0..5 {
        cluster.crash(at);
    }
    cluster.restart_after(behind, MS);
    cluster.restart_after(ahead, MS);
    cluster.run(Duration::from_secs(20));
    assert_eq!(cluster.leader(), None, "two of five are no quorum");

    for at in [behind, ahead] {
        cluster.crash(at);
    }
    cluster.forced = Some(set(&[behind.min(ahead), behind.max(ahead)]));
    cluster.restart_after(behind, MS);
    cluster.restart_after(ahead, MS);
    assert_eq!(cluster.wait_for_leader(), ahead, "who has the longer log is elected");
    cluster.run(Duration::from_secs(1));
    assert!(cluster.raft(behind).commit_index() >= index);
    assert!(!cluster.raft(ahead).is_forced() && !cluster.raft(behind).is_forced());

    // From here on the log says so.
    cluster.forced = None;
    for at in [behind, ahead] {
        cluster.crash(at);
        cluster.restart_after(at, MS);
    }
    cluster.run(Duration::from_secs(5));
    let leader = cluster.wait_for_leader();
    assert_eq!(cluster.raft(leader).membership().servers.len(), 2);
    assert_eq!(members(0..5).servers.len(), 5);
}
