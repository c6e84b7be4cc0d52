//! Stories of whole groups: something happens, something is expected.

use std::time::Duration;

use super::cluster::{Cluster, MS, Weather, id};
use crate::raft::{Limits, MembershipChange, Timing};

fn group(voters: usize, spare: usize) -> Cluster {
    Cluster::new(1, voters..voters + spare, Weather::default(), Timing::default(), Limits::default())
}

fn soon(cluster: &mut Cluster, what: &str, condition: impl FnMut(&Cluster) -> bool) {
    cluster.run_until(Duration::from_secs(10), what, condition);
}

/// A leader and somebody who is not.
fn leader_and_other(cluster: &mut Cluster) -> (usize, usize) {
    let leader = cluster.wait_for_leader();
    cluster.run(Duration::from_millis(500));
    assert_eq!(cluster.leader(), Some(leader));
    (leader, (leader + 1) % 3)
}

#[test]
fn a_crash_of_the_leaders_process_costs_a_lease_and_no_election_timeout() {
    let mut cluster = group(3, 0);
    let (leader, _) = leader_and_other(&mut cluster);
    let crash = cluster.now;
    cluster.crash(leader);
    soon(&mut cluster, "a successor", |cluster| cluster.leader().is_some());
    assert!(cluster.now - crash < 400 * MS, "{} ms", (cluster.now - crash) / MS);
}

#[test]
fn a_silent_leader_is_replaced_within_two_election_timeouts_and_a_half() {
    let mut cluster = group(3, 0);
    let (leader, _) = leader_and_other(&mut cluster);
    let cut = cluster.now;
    cluster.split(&[leader]);
    soon(&mut cluster, "a successor", |cluster| cluster.leader().is_some_and(|at| at != leader));
    assert!(cluster.now - cut < 2_500 * MS);
    soon(&mut cluster, "the old leader to notice", |cluster| cluster.leaders().len() == 1);
}

#[test]
fn a_server_that_was_cut_off_returns_without_a_new_election() {
    let mut cluster = group(3, 0);
    let (leader, other) = leader_and_other(&mut cluster);
    let term = cluster.raft(leader).term();
    cluster.split(&[other]);
    cluster.run(Duration::from_secs(10));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.raft(leader).term(), term);
    assert_eq!(cluster.raft(other).leader(), Some(id(leader)));
}

#[test]
fn a_server_that_hears_nothing_but_is_heard_does_not_depose_the_leader() {
    let mut cluster = group(3, 0);
    let (leader, other) = leader_and_other(&mut cluster);
    let term = cluster.raft(leader).term();
    for at in (0..3).filter(|at| *at != other) {
        cluster.cut.insert((at, other));
    }
    cluster.run(Duration::from_secs(10));
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut cluster = group(3, 0);
    let (leader, other) = leader_and_other(&mut cluster);
    let start = cluster.now;
    let to = cluster.call(leader, |raft, cx| raft.transfer_leadership(cx, Some(id(other))));
    assert_eq!(to, Ok(id(other)));
    soon(&mut cluster, "the successor to lead", |cluster| cluster.leader() == Some(other));
    assert!(cluster.now - start < 50 * MS, "{} ms", (cluster.now - start) / MS);
    soon(&mut cluster, "a lease", |cluster| cluster.has_lease(other));
}

#[test]
fn a_follower_that_lags_gets_a_snapshot_while_the_group_goes_on() {
    let mut cluster = group(3, 0);
    cluster.weather.checkpoint_every = 50;
    let (leader, other) = leader_and_other(&mut cluster);
    cluster.split(&[other]);
    for number in 0..500u64 {
        cluster.propose(leader, &number.to_le_bytes()).unwrap();
        cluster.run(Duration::from_millis(2));
    }
    let base = cluster.raft(leader).base_index();
    assert!(base > cluster.raft(other).last_index(), "what it needs is let go");
    cluster.cut.clear();
    cluster.run(Duration::from_millis(200));
    let index = cluster.propose(leader, b"meanwhile").unwrap();
    soon(&mut cluster, "the follower to catch up", |cluster| cluster.raft(other).commit_index() >= index);
    assert!(cluster.raft(other).base_index() >= base, "by a snapshot");
    assert_eq!(cluster.leader(), Some(leader), "undisturbed");
}

#[test]
fn a_server_joins_without_a_vote_and_is_promoted_when_it_has_caught_up() {
    let mut cluster = group(3, 1);
    let (leader, _) = leader_and_other(&mut cluster);
    let change = MembershipChange::AddNonVoter { id: id(3), address: "s3:8300".into() };
    let index = cluster.call(leader, |raft, cx| raft.propose_membership(cx, change)).unwrap();
    soon(&mut cluster, "the new server to catch up", |cluster| {
        let now = cluster.local(leader, cluster.now);
        cluster.raft(leader).peers(now).iter().any(|peer| peer.id == id(3) && peer.matched >= index)
    });
    let change = MembershipChange::Promote { id: id(3) };
    let index = cluster.call(leader, |raft, cx| raft.propose_membership(cx, change)).unwrap();
    soon(&mut cluster, "the promotion", |cluster| cluster.raft(3).commit_index() >= index);
    assert!(cluster.raft(3).membership().is_voter(id(3)));
}

#[test]
fn a_leader_that_is_removed_makes_room_at_once_and_disturbs_nobody() {
    let mut cluster = group(3, 0);
    let (leader, _) = leader_and_other(&mut cluster);
    let start = cluster.now;
    let change = MembershipChange::Remove { id: id(leader) };
    cluster.call(leader, |raft, cx| raft.propose_membership(cx, change)).unwrap();
    soon(&mut cluster, "a successor", |cluster| cluster.leader().is_some_and(|at| at != leader));
    assert!(cluster.now - start < 100 * MS, "{} ms", (cluster.now - start) / MS);
    let successor = cluster.leader().unwrap();
    let term = cluster.raft(successor).term();
    cluster.run(Duration::from_secs(10));
    assert_eq!((cluster.leader(), cluster.raft(successor).term()), (Some(successor), term));
}

#[test]
fn a_sole_server_answers_within_a_millisecond_of_its_disk_after_a_crash() {
    let mut cluster = group(1, 0);
    let leader = cluster.wait_for_leader();
    cluster.propose(leader, b"a").unwrap();
    cluster.run(Duration::from_millis(100));
    cluster.crash(0);
    let crash = cluster.now;
    cluster.restart_after(0, 0);
    soon(&mut cluster, "readiness", |cluster| cluster.leader().is_some());
    assert!(cluster.now - crash < 3 * MS);
    assert!(cluster.has_lease(0));
    cluster.run(Duration::from_secs(10));
    let before = cluster.events;
    cluster.run(Duration::from_secs(100));
    assert_eq!(cluster.events, before, "a sole leader at rest does nothing");
}

#[test]
fn no_read_is_confirmed_by_a_leader_that_is_cut_off() {
    let mut cluster = group(3, 0);
    let (leader, _) = leader_and_other(&mut cluster);
    cluster.split(&[leader]);
    assert!(cluster.read(leader));
    soon(&mut cluster, "the read to fail", |cluster| cluster.reads_waiting() == 0);
    assert_eq!(cluster.servers[leader].reads_done, 0);
}

#[test]
fn a_voter_that_restarts_shortens_no_lease() {
    restart_in_a_lease();
}

/// A leader's lease rests on one voter, which restarts while another server is about to stand for election.
pub(super) fn restart_in_a_lease() {
    let timing = Timing { election: Duration::from_millis(300), ..Timing::default() };
    let mut cluster = Cluster::new(1, 3..3, Weather::default(), timing, Limits::default());
    let (leader, other) = leader_and_other(&mut cluster);
    let voter = 3 - leader - other;
    cluster.cut.extend([(leader, other), (other, leader)]);
    cluster.run(Duration::from_secs(1));
    soon(&mut cluster, "the other to be about to stand for election", |cluster| {
        cluster.patience(other) < Duration::from_millis(20)
    });
    assert!(cluster.has_lease(leader));
    cluster.crash(voter);
    cluster.restart_after(voter, 0);
    cluster.split(&[leader]);
    // The auditor sees to it that nothing is committed elsewhere before the lease is over.
    soon(&mut cluster, "a successor", |cluster| cluster.leader() == Some(other));
}
