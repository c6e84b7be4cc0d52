//! The rules of one server, each named as the claim that it is and where it comes from.

use std::time::Duration;

use super::bench::{Bench, at, entry, log};
use super::cluster::{id, members};
use bytes::Bytes;

use crate::ids::{LogIndex, Term};
use crate::raft::{
    BadRecovery, Body, BootstrapError, ChangeError, Chunk, Effect, HardState, Membership, MembershipChange,
    Message, PersistToken, Record, Recovered, Role, SnapshotMeta, Timer, TransferMark, Verdict,
};
use crate::time::Mono;

/// Paper, section 5.2: "each server will vote for at most one candidate in a given term, on a first-come-first-served
/// basis".
#[test]
fn a_server_votes_once_in_a_term() {
    let mut bench = Bench::of_three(&[1]);
    bench.ask(1, 2, at(1, 1), None);
    bench.ask(2, 2, at(1, 1), None);
    bench.ask(1, 2, at(1, 1), None);
    bench.persist();
    assert_eq!(bench.votes(), [(1, true), (2, false), (1, true)]);
}

/// Paper, figure 2: persistent state is "updated on stable storage before responding to RPCs".
#[test]
fn a_vote_is_withheld_until_it_is_durable() {
    let mut bench = Bench::of_three(&[1]);
    bench.ask(1, 2, at(1, 1), None);
    assert_eq!(bench.raft.term(), Term(2));
    assert_eq!(bench.votes(), []);
    bench.persist();
    assert_eq!(bench.votes(), [(1, true)]);
}

#[test]
fn a_candidate_asks_for_votes_after_its_own_is_durable() {
    let mut bench = Bench::of_three(&[1]);
    bench.wait(bench.timing().election * 2);
    bench.fire();
    let grant = crate::raft::VoteReply { pre: true, election: Term(2), granted: true, hold: Duration::ZERO };
    bench.take();
    bench.hear(1, 1, Body::VoteReply(grant));
    assert_eq!(bench.raft.role(), Role::Candidate);
    let effects = bench.take();
    let vote = Record::HardState(HardState { term: Term(2), vote: Some(id(0)) });
    assert!(effects.contains(&Effect::Persist { token: PersistToken(1), records: vec![vote] }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { .. })));
    bench.persist();
    assert_eq!(bench.said().len(), 2);
}

/// Paper, section 5.4.1: "If the logs have last entries with different terms, then the log with the later term is more
/// up-to-date. If the logs end with the same term, then whichever log is longer is more up-to-date."
#[test]
fn a_candidate_with_an_older_log_is_refused() {
    for (last, granted) in [
        (at(3, 3), true),
        (at(4, 3), true),
        (at(1, 4), true),
        (at(2, 3), false),
        (at(9, 2), false),
        (at(0, 0), false),
    ] {
        let mut bench = Bench::of_three(&[1, 2, 3]);
        bench.ask(1, 5, last, None);
        bench.persist();
        assert_eq!(bench.votes(), [(1, granted)], "{last:?}");
    }
}

/// Dissertation, section 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of
/// hearing from a current leader, it does not update its term or grant its vote".
#[test]
fn a_voter_that_hears_a_leader_ignores_candidates_and_their_terms() {
    let mut bench = Bench::of_three(&[1]);
    bench.append(1, 1, at(1, 1), &[], 0);
    bench.take();
    bench.ask(2, 7, at(9, 6), None);
    assert_eq!((bench.raft.term(), bench.votes()), (Term(1), vec![(2, false)]));
    bench.wait(bench.timing().lease);
    bench.ask(2, 7, at(9, 6), None);
    bench.persist();
    assert_eq!((bench.raft.term(), bench.votes()), (Term(7), vec![(2, true)]));
}

/// Dissertation, section 3.10, and the note on its interplay with 4.2.3.
#[test]
fn a_voter_obeys_its_leaders_mark_but_no_older_one() {
    let mark = |round| Some(TransferMark { leader: id(1), term: Term(1), round });
    for (mark, granted) in [(mark(1), true), (mark(0), false), (None, false)] {
        let mut bench = Bench::of_three(&[1]);
        bench.append(1, 1, at(1, 1), &[], 0);
        bench.take();
        bench.ask(2, 2, at(1, 1), mark);
        bench.persist();
        assert_eq!(bench.votes(), [(2, granted)], "{mark:?}");
    }
}

#[test]
fn a_restarted_voter_holds_out_for_the_lease_that_it_may_have_promised() {
    let recovered = Recovered {
        hard: HardState { term: Term(1), vote: None },
        snapshot: SnapshotMeta::default(),
        entries: log(members(0..3), &[1]),
    };
    let mut bench = Bench::recovered(recovered);
    bench.ask(1, 2, at(1, 1), None);
    assert_eq!(bench.votes(), [(1, false)]);
    bench.wait(bench.timing().lease);
    bench.ask(1, 2, at(1, 1), None);
    bench.persist();
    assert_eq!(bench.votes(), [(1, true)]);
}

#[test]
fn a_sole_voter_leads_at_once_and_arms_no_timer() {
    let recovered = Recovered {
        hard: HardState { term: Term(4), vote: None },
        snapshot: SnapshotMeta::default(),
        entries: log(members(0..1), &[1, 4]),
    };
    let mut bench = Bench::recovered(recovered);
    assert_eq!(bench.raft.role(), Role::Leader);
    assert!(!bench.raft.ready());
    bench.persist();
    assert!(bench.raft.ready());
    assert_eq!(bench.raft.commit_index(), LogIndex(3));
    assert_eq!(bench.raft.lease_until(), Some(Mono::NEVER));
    assert!(bench.timers.is_empty());
    bench.take();
    bench.call(|raft, cx| raft.read_index(cx, 9)).unwrap();
    assert_eq!(bench.take(), [Effect::ReadReady { ticket: 9, index: LogIndex(3) }]);
}

#[test]
fn a_sole_voter_that_was_not_always_alone_holds_out_first() {
    let mut entries = log(members(0..2), &[1]);
    entries
        .push(crate::raft::Entry { payload: crate::raft::Payload::Membership(members(0..1)), ..entry(2, 1) });
    let hard = HardState { term: Term(1), vote: None };
    let mut bench = Bench::recovered(Recovered { hard, snapshot: SnapshotMeta::default(), entries });
    assert_eq!(bench.raft.role(), Role::Follower);
    bench.wait(bench.timing().lease);
    bench.fire();
    assert_eq!(bench.raft.role(), Role::Leader);
}

/// Paper, section 5.3: "If an existing entry conflicts with a new one (same index but different terms), delete the
/// existing entry and all that follow it."
#[test]
fn conflicting_entries_are_voided_on_disk_before_new_ones_are_written() {
    let mut bench = Bench::of_three(&[1, 2, 2, 2]);
    bench.append(1, 3, at(2, 2), &[3, 3], 0);
    let term = Record::HardState(HardState { term: Term(3), vote: None });
    let truncate = Record::Truncate(LogIndex(3));
    let (third, fourth) = (Record::Entry(entry(3, 3)), Record::Entry(entry(4, 3)));
    assert_eq!(bench.written(), [term, truncate, third, fourth]);
}

#[test]
fn entries_that_came_before_void_nothing() {
    let mut bench = Bench::of_three(&[1, 2, 2, 2]);
    bench.append(1, 2, at(1, 1), &[2], 0);
    assert_eq!(bench.written(), []);
    assert_eq!(bench.raft.last_index(), LogIndex(4));
}

#[test]
#[should_panic(expected = "what is committed is")]
fn committed_entries_are_never_voided() {
    let mut bench = Bench::of_three(&[1, 2, 2]);
    bench.append(1, 2, at(3, 2), &[], 3);
    bench.append(1, 3, at(2, 3), &[3], 0);
}

#[test]
fn a_follower_acknowledges_entries_when_they_are_durable_and_heartbeats_at_once() {
    let mut bench = Bench::of_three(&[1]);
    let accepted =
        |matched, verified| Verdict::Accepted { matched: LogIndex(matched), verified: LogIndex(verified) };
    bench.append(1, 1, at(1, 1), &[1, 1], 0);
    assert_eq!(bench.verdicts(), []);
    bench.append(1, 1, at(3, 1), &[], 0);
    assert_eq!(bench.verdicts(), [accepted(1, 3)]);
    bench.persist();
    assert_eq!(bench.verdicts(), [accepted(3, 3)]);
    bench.append(1, 1, at(1, 1), &[1], 0);
    assert_eq!(bench.verdicts(), [accepted(3, 3)], "a doubled message is answered with all that is there");
}

#[test]
fn a_write_of_voided_entries_does_not_count_for_their_successors() {
    let mut bench = Bench::of_three(&[1]);
    bench.append(1, 1, at(1, 1), &[1, 1], 0);
    bench.append(2, 2, at(1, 1), &[2, 2], 0);
    bench.take();
    bench.call(|raft, cx| raft.on_persisted(cx, PersistToken(1)));
    assert_eq!(bench.raft.durable_index(), LogIndex(1));
    bench.persist();
    assert_eq!(bench.raft.durable_index(), LogIndex(3));
}

/// Paper, end of section 5.3: "the follower can include the term of the conflicting entry and the first index it stores
/// for that term".
#[test]
fn a_rejection_says_where_the_logs_may_agree() {
    for (prev, hint) in [(at(9, 4), at(5, 3)), (at(4, 2), at(3, 2)), (at(5, 1), at(1, 1))] {
        let mut bench = Bench::of_three(&[1, 2, 2, 3, 3]);
        bench.append(1, 4, prev, &[], 0);
        bench.persist();
        assert_eq!(bench.verdicts(), [Verdict::Rejected { prev: prev.index, hint }], "{prev:?}");
    }
}

/// Paper, section 5.1: "If a server receives a request with a stale term number, it rejects the request."
#[test]
fn a_deposed_leader_learns_of_the_later_term() {
    let mut bench = Bench::of_three(&[1, 5]);
    bench.append(1, 4, at(1, 1), &[], 0);
    assert_eq!(bench.said(), [(1, Body::StaleTerm)]);
    let mut bench = Bench::leader_of_three(&[1]);
    bench.hear(1, 9, Body::StaleTerm);
    assert_eq!((bench.raft.role(), bench.raft.term()), (Role::Follower, Term(9)));
}

#[test]
fn a_stranger_ends_no_term() {
    let mut bench = Bench::leader_of_three(&[1]);
    bench.hear(7, 9, Body::StaleTerm);
    assert_eq!((bench.raft.role(), bench.raft.term()), (Role::Leader, Term(2)));
}

/// Dissertation, section 10.2.1: the leader writes to its disk in parallel with replicating.
#[test]
fn a_leader_sends_before_its_disk_is_done_but_counts_itself_only_after() {
    let mut bench = Bench::leader_of_three(&[1]);
    bench.persist();
    bench.accept(1, 1, 2);
    assert_eq!(bench.raft.commit_index(), LogIndex(2));
    bench.take();
    let index = bench.call(|raft, cx| raft.propose(cx, "a".into())).unwrap();
    assert_eq!(index, LogIndex(3));
    assert!(bench.said().iter().any(|(to, body)| *to == 1 && matches!(body, Body::Append(_))));
    bench.accept(1, 1, 3);
    assert_eq!(bench.raft.commit_index(), LogIndex(2), "one of three has it");
    bench.persist();
    assert_eq!(bench.raft.commit_index(), LogIndex(3));
}

/// Paper, section 5.4.2 and figure 8: "Raft never commits log entries from previous terms by counting replicas."
#[test]
fn entries_of_earlier_terms_are_committed_only_with_one_of_this_term() {
    let mut bench = Bench::leader_of_three(&[1, 2, 2]);
    bench.persist();
    bench.accept(1, 1, 3);
    bench.accept(2, 1, 3);
    assert_eq!(bench.raft.commit_index(), LogIndex(0));
    bench.accept(2, 1, 4);
    assert_eq!(bench.raft.commit_index(), LogIndex(4));
}

/// Dissertation, section 6.2.
#[test]
fn a_leader_without_a_quorum_steps_down_within_an_election_timeout() {
    let mut bench = Bench::leader_of_three(&[1]);
    let end = bench.now + bench.timing().election;
    while bench.raft.role() == Role::Leader {
        assert!(bench.now <= end);
        bench.now = bench.timers.next().unwrap().0;
        bench.fire();
    }
    assert_eq!(bench.raft.leader(), None);
    assert!(bench.is_armed(Timer::Election) && !bench.is_armed(Timer::Heartbeat));
}

/// Dissertation, section 6.4.1.
#[test]
fn a_lease_counts_from_when_the_round_was_sent_and_needs_an_entry_of_the_term() {
    let mut bench = Bench::leader_of_three(&[1]);
    let sent = bench.now;
    bench.wait(Duration::from_millis(10));
    bench.accept(1, 1, 1);
    assert_eq!(bench.raft.lease_until(), None, "not ready");
    bench.persist();
    bench.accept(1, 1, 2);
    let until = bench.raft.lease_until().unwrap();
    assert_eq!(until.since(sent), Duration::from_millis(294), "300 ms less twice one per cent");
}

#[test]
fn a_leader_gives_up_its_lease_before_it_names_a_successor() {
    let mut bench = Bench::leader_of_three(&[1]);
    bench.persist();
    bench.accept(1, 1, 2);
    bench.take();
    assert_eq!(bench.call(|raft, cx| raft.transfer_leadership(cx, None)), Ok(id(1)));
    assert_eq!(bench.raft.lease_until(), None);
    let effects = bench.take();
    assert_eq!(effects[0], Effect::RoleChanged);
    let mark = TransferMark { leader: id(0), term: Term(2), round: 1 };
    let message = Message { term: Term(2), body: Body::TimeoutNow(mark) };
    assert!(effects.contains(&Effect::Send { to: id(1), message }));
    assert!(bench.call(|raft, cx| raft.propose(cx, "a".into())).is_err());
    // Nobody takes over: it goes on, but promises to rounds before that count no more.
    bench.wait(bench.timing().election);
    bench.accept(1, 1, 2);
    bench.accept(2, 1, 2);
    assert_eq!(bench.raft.role(), Role::Leader);
    assert_eq!(bench.raft.lease_until(), None);
    assert!(bench.call(|raft, cx| raft.propose(cx, "a".into())).is_ok());
    bench.fire();
    bench.accept(1, 2, 2);
    assert!(bench.raft.lease_until().is_some_and(|until| until > bench.now));
}

/// Dissertation, section 6.4.
#[test]
fn reads_that_come_during_a_round_share_the_next() {
    let mut bench = Bench::leader_of_three(&[1]);
    bench.persist();
    bench.accept(1, 1, 2);
    for ticket in 1..=3 {
        bench.call(|raft, cx| raft.read_index(cx, ticket)).unwrap();
    }
    bench.take();
    bench.accept(1, 1, 2);
    assert!(bench.take().is_empty(), "an answer to an older round confirms nothing");
    let ready = |ticket| Effect::ReadReady { ticket, index: LogIndex(2) };
    let reads = |bench: &mut Bench| -> Vec<Effect> {
        bench.take().into_iter().filter(|effect| matches!(effect, Effect::ReadReady { .. })).collect()
    };
    bench.accept(1, 2, 2);
    assert_eq!(reads(&mut bench), [ready(1)]);
    bench.accept(2, 3, 2);
    assert_eq!(reads(&mut bench), [ready(2), ready(3)]);
}

#[test]
fn reads_fail_when_leadership_ends() {
    let mut bench = Bench::leader_of_three(&[1]);
    bench.call(|raft, cx| raft.read_index(cx, 1)).unwrap();
    bench.hear(1, 9, Body::StaleTerm);
    assert!(bench.take().contains(&Effect::ReadFailed { ticket: 1 }));
    assert!(bench.call(|raft, cx| raft.read_index(cx, 2)).is_err());
}

#[test]
fn reads_beyond_the_limit_fail_at_once() {
    let mut bench = Bench::leader_of_three(&[1]);
    let max = crate::raft::Limits::default().reads_max as u64;
    for ticket in 0..=max {
        bench.call(|raft, cx| raft.read_index(cx, ticket)).unwrap();
    }
    let failed = |effect: &Effect| matches!(effect, Effect::ReadFailed { .. });
    assert_eq!(
        bench.take().into_iter().filter(failed).collect::<Vec<_>>(),
        [Effect::ReadFailed { ticket: max }]
    );
}

#[test]
fn messages_under_way_are_bounded_and_what_waits_travels_together() {
    let mut bench = Bench::leader_of_three(&[1]);
    bench.persist();
    bench.accept(1, 1, 2);
    bench.take();
    for _ in 0..20 {
        bench.call(|raft, cx| raft.propose(cx, "a".into())).unwrap();
    }
    let appends = |bench: &mut Bench| -> Vec<usize> {
        let entries = |(to, body)| match body {
            Body::Append(append) if to == 1 => Some(append.entries.len()),
            _ => None,
        };
        bench.said().into_iter().filter_map(entries).collect()
    };
    assert_eq!(appends(&mut bench), [1; 8]);
    bench.accept(1, 1, 3);
    assert_eq!(appends(&mut bench), [12]);
}

/// Dissertation, section 4.1, with the correction of 2015: a leader commits an entry of its own term first.
#[test]
fn one_membership_change_at_a_time_and_only_by_a_leader_that_is_ready() {
    let change = || MembershipChange::AddNonVoter { id: id(3), address: "s3:8300".into() };
    let mut bench = Bench::leader_of_three(&[1]);
    assert_eq!(bench.call(|raft, cx| raft.propose_membership(cx, change())), Err(ChangeError::NotReady));
    bench.persist();
    bench.accept(1, 1, 2);
    assert_eq!(bench.call(|raft, cx| raft.propose_membership(cx, change())), Ok(LogIndex(3)));
    assert!(bench.raft.membership().servers.contains_key(&id(3)), "in force at once");
    assert_eq!(bench.call(|raft, cx| raft.propose_membership(cx, change())), Err(ChangeError::InProgress));
    bench.persist();
    bench.accept(1, 1, 3);
    assert_eq!(bench.call(|raft, cx| raft.propose_membership(cx, change())), Err(ChangeError::NoChange));
    let unknown = MembershipChange::Promote { id: id(9) };
    assert_eq!(bench.call(|raft, cx| raft.propose_membership(cx, unknown)), Err(ChangeError::UnknownMember));
}

#[test]
fn the_last_voter_stays() {
    let change = |change| members(0..1).with(change);
    assert_eq!(change(MembershipChange::Remove { id: id(0) }), Err(ChangeError::LastVoter));
    assert_eq!(change(MembershipChange::Demote { id: id(0) }), Err(ChangeError::LastVoter));
}

#[test]
fn a_membership_is_void_together_with_its_entry() {
    let mut bench = Bench::of_three(&[1]);
    let append = |index, term, payload| {
        let entries = vec![crate::raft::Entry { payload, ..entry(index, term) }];
        let prev = at(1, 1);
        Body::Append(crate::raft::Append {
            prev,
            entries,
            commit: LogIndex(1),
            round: 1,
            promise: true,
            voter: false,
        })
    };
    bench.hear(1, 1, append(2, 1, crate::raft::Payload::Membership(members(0..4))));
    assert_eq!(bench.raft.membership(), &members(0..4));
    bench.hear(2, 2, append(2, 2, crate::raft::Payload::Noop));
    assert_eq!(bench.raft.membership(), &members(0..3));
}

#[test]
fn only_an_empty_server_founds_a_group() {
    let mut bench = Bench::recovered(Recovered::default());
    assert!(bench.timers.is_empty(), "nothing to wait for");
    let nobody = Membership::default();
    assert_eq!(bench.call(|raft, cx| raft.bootstrap(cx, nobody)), Err(BootstrapError::NoVoter));
    assert_eq!(bench.call(|raft, cx| raft.bootstrap(cx, members(0..3))), Ok(()));
    assert!(bench.is_armed(Timer::Election));
    assert_eq!(bench.call(|raft, cx| raft.bootstrap(cx, members(0..3))), Err(BootstrapError::NotEmpty));
}

#[test]
fn log_and_checkpoint_are_joined_after_a_restart() {
    let checkpoint =
        |index, term| SnapshotMeta { index: LogIndex(index), term: Term(term), membership: members(0..3) };
    for (what, snapshot, first, terms, last, resets) in [
        ("the log begins before the checkpoint's end", checkpoint(2, 1), 1, &[1, 1, 2, 2][..], 4, false),
        ("the log follows the checkpoint", checkpoint(2, 1), 3, &[2, 2][..], 4, false),
        ("the log ends with the checkpoint", checkpoint(2, 1), 1, &[1, 1][..], 2, false),
        ("the log does not reach the checkpoint", checkpoint(9, 2), 1, &[1, 1][..], 9, true),
        ("the log disagrees with the checkpoint", checkpoint(2, 2), 1, &[1, 1, 1][..], 2, true),
    ] {
        let entries = (first..).zip(terms).map(|(index, term)| entry(index, *term)).collect();
        let hard = HardState { term: Term(2), vote: None };
        let recovered = Recovered { hard, snapshot: snapshot.clone(), entries };
        assert_eq!(recovered.check(), Ok(()), "{what}");
        let mut bench = Bench::recovered(recovered);
        assert_eq!(bench.raft.last_index(), LogIndex(last), "{what}");
        assert_eq!(bench.raft.commit_index(), snapshot.index, "{what}");
        let reset = Record::Reset { index: snapshot.index, term: snapshot.term };
        assert_eq!(bench.written().contains(&reset), resets, "{what}");
    }
}

#[test]
fn what_recovery_lost_is_noticed() {
    let hard = HardState { term: Term(2), vote: None };
    let snapshot = SnapshotMeta { index: LogIndex(2), term: Term(1), membership: members(0..3) };
    let check = |entries| Recovered { hard, snapshot: snapshot.clone(), entries }.check();
    let gap = BadRecovery::Gap { snapshot: LogIndex(2), first: LogIndex(4) };
    assert_eq!(check(vec![entry(4, 2)]), Err(gap));
    let apart = BadRecovery::NotContiguous { at: LogIndex(5) };
    assert_eq!(check(vec![entry(3, 2), entry(5, 2)]), Err(apart));
    assert_eq!(check(vec![entry(3, 3)]), Err(BadRecovery::TermAhead { at: LogIndex(3) }));
}

#[test]
fn a_server_that_has_nothing_gives_no_vote_that_others_count_on() {
    let presumed = [
        Body::VoteRequest(crate::raft::VoteRequest {
            pre: false,
            election: Term(3),
            last: at(9, 2),
            mark: None,
        }),
        Body::Append(crate::raft::Append {
            prev: at(9, 2),
            entries: Vec::new(),
            commit: LogIndex(9),
            round: 1,
            promise: true,
            voter: true,
        }),
    ];
    for body in presumed {
        let mut bench = Bench::recovered(Recovered::default());
        bench.take();
        bench.hear(1, 3, body);
        assert_eq!(bench.take(), [Effect::Forgotten]);
        assert_eq!(bench.raft.term(), Term(0), "nothing was changed");
    }
}

/// Consul, «Consistency Modes»: the time since the last contact «can be used to gauge the staleness». That needs more than
/// a sign of life.
#[test]
fn a_follower_is_as_new_as_the_last_message_whose_commit_index_it_has_reached() {
    let mut bench = Bench::of_three(&[1, 2]);
    let ago = |bench: &Bench| bench.raft.as_of(bench.now).map(|as_of| bench.now.since(as_of).as_millis());
    let pass = |bench: &mut Bench| bench.wait(Duration::from_millis(10));
    assert_eq!(ago(&bench), None, "nobody has told it anything since its start");
    bench.append(1, 3, at(2, 2), &[], 2);
    assert_eq!(ago(&bench), None, "a new leader does not know yet what earlier ones have committed");
    bench.append(1, 3, at(2, 2), &[3], 3);
    assert_eq!(ago(&bench), Some(0));
    pass(&mut bench);
    bench.append(1, 3, at(3, 3), &[], 5);
    pass(&mut bench);
    bench.append(1, 3, at(5, 3), &[], 6);
    assert_eq!(ago(&bench), Some(20), "what it lacks has been committed since");
    bench.append(1, 3, at(3, 3), &[3, 3], 5);
    assert_eq!(ago(&bench), Some(10), "it has what was committed by then");
    bench.append(1, 3, at(3, 3), &[], 3);
    assert_eq!(ago(&bench), Some(10), "what was overtaken on its way tells nothing");
    bench.append(1, 3, at(5, 3), &[3], 6);
    assert_eq!(ago(&bench), Some(0));
    pass(&mut bench);
    bench.ask(2, 4, at(6, 3), None);
    assert_eq!(ago(&bench), Some(10), "it grows older without a leader");
}

/// Paper, figure 13, step 6: "If existing log entry has same index and term as snapshot's last included entry, retain log
/// entries following it and reply".
#[test]
fn a_snapshot_that_agrees_with_the_log_keeps_what_follows_it_and_another_one_replaces_the_log() {
    for (term_of_snapshot, last) in [(1, 5), (2, 3)] {
        let mut bench = Bench::of_three(&[1, 1, 1, 1, 1]);
        let meta =
            SnapshotMeta { index: LogIndex(3), term: Term(term_of_snapshot), membership: members(0..3) };
        let chunk = Chunk { meta: meta.clone(), seq: 0, data: Bytes::from_static(b"state"), last: true };
        bench.hear(1, 2, Body::Chunk(chunk));
        bench.persist();
        bench.call(|raft, cx| raft.on_snapshot_installed(cx, &meta));
        assert_eq!(bench.raft.commit_index(), LogIndex(3));
        assert_eq!(bench.raft.last_index(), LogIndex(last));
        bench.take();
        bench.append(1, 2, at(5, 1), &[2], 6);
        bench.persist();
        let accepted = bench
            .verdicts()
            .iter()
            .any(|verdict| matches!(verdict, Verdict::Accepted { matched, .. } if matched.0 == 6));
        assert_eq!(accepted, last == 5);
    }
}
