//! Coming, going, being forgotten; events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::net::{Life, Net, address, config, hurried};
use crate::gossip::{EventTooBig, MemberInfo, Roster, Status, UserEvent, tag};
use crate::ids::Uuid;

fn event(name: &str, id: u128) -> UserEvent {
    UserEvent {
        id: Uuid(id),
        name: name.into(),
        payload: Bytes::from_static(b"payload"),
        node_filter: "".into(),
        service_filter: "".into(),
        tag_filter: "".into(),
        ltime: 0,
    }
}

#[test]
fn fifty_members_know_each_other_within_two_seconds_of_joining() {
    let mut net = Net::new(1);
    for host in 0..50 {
        net.add(config(host));
    }
    net.join_all();
    net.run_until(2, "all know all", |net| net.all_alive(50));
    assert!(net.hosts[1..].iter().all(|host| host.joined == [(1, 1, None)]));
    assert!(net.nobody_failed());
}

#[test]
fn a_join_counts_who_was_contacted_and_names_who_was_not() {
    let mut net = Net::of(2, 2);
    let host = net.add(config(2));
    net.kill(1);
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0), address(1), address(2)], 7));
    net.run_until(20, "the join ends", |net| !net.hosts[host].joined.is_empty());
    let error = Some("Failed to join 10.0.0.2:8301: connection refused".to_owned());
    assert_eq!(net.hosts[host].joined, [(7, 1, error)]);
    net.act(host, |gossip, cx| gossip.join(cx, vec![], 8));
    assert_eq!(net.hosts[host].joined[1], (8, 0, None));
}

/// A client agent that had missed that its servers were replaced asked the former ones for a minute.
#[test]
fn regression_whoever_doubts_a_member_learns_at_once_that_another_one_is_at_its_place() {
    let mut net = Net::of(22, 3);
    let gossip = &mut net.hosts[1].gossip;
    let slot = gossip.table.find("m2").unwrap();
    let known = gossip.table.at(slot).info.clone();
    let tags = [("id".into(), "the former one".into())].into();
    let former = MemberInfo::new(known.name.clone(), known.address, tags);
    gossip.table.set_info(slot, Arc::new(former));
    net.act(1, |gossip, cx| gossip.doubt(cx, "m2"));
    net.run_until(1, "the former one is forgotten", |net| {
        net.member(1, 2).is_some_and(|member| member.tag("id") != "the former one")
    });
}

#[test]
fn a_member_that_left_and_forgot_the_pool_is_found_by_whoever_tries_it_again() {
    let mut net = Net::of(9, 5);
    net.act(4, |gossip, cx| gossip.leave(cx));
    net.run_until(3, "the leave ends", |net| net.hosts[4].left);
    net.kill(4);
    net.run_until(2, "it is left", |net| net.all_say(4, Status::Left));
    net.act(1, |gossip, cx| gossip.try_again(cx, "m4"));
    net.run_for(Duration::from_secs(60));
    net.restart(4, |_| ());
    net.run_for(Duration::from_secs(120));
    assert!((0..4).all(|at| net.status(at, 4) == Some(Status::Left)), "nobody looks for those who left");
    net.act(1, |gossip, cx| gossip.try_again(cx, "m4"));
    net.run_until(3, "all are there", |net| net.all_alive(5));
    assert!(net.hosts.iter().all(|host| host.warnings.is_empty()));
}

#[test]
fn a_member_that_leaves_is_left_everywhere_and_never_failed() {
    let mut net = Net::of(3, 20);
    net.act(4, |gossip, cx| gossip.leave(cx));
    let took = net.run_until(3, "the leave ends", |net| net.hosts[4].left);
    assert!(took < Duration::from_secs(2), "{took:?}");
    net.kill(4);
    net.run_until(2, "it is left", |net| net.all_say(4, Status::Left));
    assert!(net.hosts[4].known.is_empty());
    net.run_for(Duration::from_secs(60));
    assert!(net.all_say(4, Status::Left) && net.nobody_failed());
    for at in (0..20).filter(|at| *at != 4) {
        assert!(!net.hosts[at].history["m4"].contains(&Status::Failed));
    }
}

#[test]
fn simulated_members_know_each_other_from_the_start_and_share_what_they_know() {
    let infos = (0..3).map(|host| {
        let config = config(host);
        std::sync::Arc::new(MemberInfo::new(config.name, config.address, config.tags))
    });
    let roster = Roster::new(infos);
    let mut net = Net::new(19);
    for host in 0..3 {
        net.add_known(config(host), &roster);
    }
    assert!(net.all_alive(3));
    net.kill(1);
    net.run_until(15, "it has failed", |net| net.all_say(1, Status::Failed));
}

#[test]
fn whoever_is_alone_leaves_at_once() {
    let mut net = Net::of(4, 1);
    net.act(0, |gossip, cx| gossip.leave(cx));
    assert!(net.hosts[0].left);
}

#[test]
fn a_leave_ends_although_nobody_listens() {
    let mut net = Net::of(5, 3);
    net.kill(0);
    net.hosts[1].life = Life::Silent;
    net.act(2, |gossip, cx| gossip.leave(cx));
    net.run_until(4, "the leave ends", |net| net.hosts[2].left);
}

#[test]
fn a_member_that_left_comes_back_and_is_alive() {
    let mut net = Net::of(6, 5);
    net.act(3, |gossip, cx| gossip.leave(cx));
    net.run_until(5, "it is left", |net| net.all_say(3, Status::Left));
    net.restart(3, |_| ());
    assert!(net.hosts[3].gossip.members().count() == 1, "it stays out by itself");
    net.act(3, |gossip, cx| gossip.join(cx, vec![address(1)], 1));
    net.run_until(3, "it is back", |net| net.all_alive(5));
}

#[test]
fn a_restarted_member_finds_the_others_by_the_addresses_it_kept() {
    let mut net = Net::of(7, 5);
    net.run_until(30, "addresses are kept", |net| net.hosts[2].known.len() == 4);
    net.kill(2);
    net.run_until(30, "it has failed", |net| net.all_say(2, Status::Failed));
    net.restart(2, |_| ());
    net.run_until(3, "it is back", |net| net.all_alive(5));
}

#[test]
fn an_agent_that_moves_is_known_by_its_identity() {
    let mut net = Net::of(8, 5);
    net.run_until(30, "addresses are kept", |net| net.hosts[2].known.len() == 4);
    // Nobody has noticed that it was gone.
    net.restart(2, |config| config.address = address(77));
    net.run_until(3, "it is known at its new address", |net| {
        (0..5).all(|at| net.member(at, 2).is_some_and(|member| member.address == address(77)))
    });
    assert!(net.nobody_failed());
}

#[test]
fn all_members_move_at_once_and_find_each_other() {
    let mut net = Net::of(9, 3);
    for host in 0..3 {
        net.kill(host);
    }
    for host in 0..3 {
        net.restart(host, |config| {
            config.address = address(50 + host);
        });
    }
    for host in 0..3 {
        net.act(host, |gossip, cx| gossip.join(cx, vec![address(50), address(51), address(52)], 1));
    }
    net.run_until(5, "all know all", |net| net.all_alive(3));
}

#[test]
fn changed_tags_reach_everybody() {
    let mut net = Net::of(10, 10);
    let mut tags = net.hosts[3].config.tags.clone();
    tags.insert("group".into(), "x".into());
    net.act(3, |gossip, cx| gossip.set_tags(cx, tags));
    net.run_until(2, "all see the tag", |net| {
        (0..10).all(|at| net.member(at, 3).is_some_and(|member| member.tag("group") == "x"))
    });
}

#[test]
fn an_operator_declares_a_failed_member_to_have_left() {
    let mut net = Net::of(11, 5);
    net.kill(4);
    net.run_until(30, "it has failed", |net| net.all_say(4, Status::Failed));
    assert!(!net.act(0, |gossip, cx| gossip.force_leave(cx, "nobody", false)));
    assert!(net.act(0, |gossip, cx| gossip.force_leave(cx, "m4", false)));
    net.run_until(2, "it is left", |net| net.all_say(4, Status::Left));
    assert!(net.act(1, |gossip, cx| gossip.force_leave(cx, "m4", true)));
    net.run_until(2, "it is forgotten", |net| (0..4).all(|at| net.member(at, 4).is_none()));
    net.run_for(Duration::from_secs(120));
    assert!((0..4).all(|at| net.member(at, 4).is_none()), "it does not come back with an exchange of state");
    net.restart(4, |_| ());
    net.act(4, |gossip, cx| gossip.join(cx, vec![address(1)], 1));
    net.run_until(3, "it is back", |net| net.all_alive(5));
}

#[test]
fn a_living_member_that_is_forced_to_leave_contradicts() {
    let mut net = Net::of(12, 5);
    assert!(net.act(0, |gossip, cx| gossip.force_leave(cx, "m4", false)));
    assert_eq!(net.status(0, 4), Some(Status::Leaving));
    net.run_until(3, "it is alive again", |net| net.all_say(4, Status::Alive));
}

#[test]
fn failed_and_left_members_are_forgotten_in_their_time() {
    let mut net = Net::new(13);
    for host in 0..5 {
        let mut config = config(host);
        config.profile = hurried();
        config.reconnect_timeout = Duration::from_secs(60);
        config.tombstone_timeout = Duration::from_secs(30);
        if host == 3 {
            config.tags.insert(tag::RECONNECT_TIMEOUT.into(), "20".into());
        }
        net.add(config);
    }
    net.join_all();
    net.run_until(3, "all know all", |net| net.all_alive(5));
    net.act(2, |gossip, cx| gossip.leave(cx));
    net.run_until(4, "it is left", |net| net.all_say(2, Status::Left));
    net.kill(2);
    net.kill(3);
    net.kill(4);
    net.run_until(30, "they have failed", |net| [3, 4].iter().all(|of| net.all_say(*of, Status::Failed)));
    let begun = net.now;
    let mut forgotten = [None; 5];
    net.run_until(120, "they are forgotten", |net| {
        for (of, at) in forgotten.iter_mut().enumerate().skip(2) {
            if at.is_none() && (0..2).all(|at| net.member(at, of).is_none()) {
                *at = Some(net.now.since(begun).as_secs());
            }
        }
        forgotten.iter().skip(2).all(Option::is_some)
    });
    let forgotten: Vec<u64> = forgotten.iter().flatten().copied().collect();
    assert!((20..=32).contains(&forgotten[0]), "left: {forgotten:?}");
    assert!((17..=23).contains(&forgotten[1]), "advertised: {forgotten:?}");
    assert!((55..=63).contains(&forgotten[2]), "failed: {forgotten:?}");
}

#[test]
fn a_newcomer_learns_who_failed_before_it_came() {
    let mut net = Net::of(14, 4);
    net.kill(3);
    net.run_until(30, "it has failed", |net| net.all_say(3, Status::Failed));
    let host = net.add(config(4));
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(3, "the newcomer knows", |net| net.all_say(3, Status::Failed));
}

#[test]
fn an_event_reaches_everybody_once() {
    let mut net = Net::of(15, 30);
    net.loss = 20;
    for number in 0..20 {
        net.act(number, |gossip, cx| gossip.fire(cx, event("deploy", number as u128)).unwrap());
    }
    net.run_until(90, "all have all", |net| net.hosts.iter().all(|host| host.events.len() >= 20));
    net.run_for(Duration::from_secs(60));
    for host in &net.hosts {
        let mut ids: Vec<u128> = host.events.iter().map(|event| event.id.0).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..20).collect::<Vec<u128>>());
    }
}

#[test]
fn whoever_was_cut_off_gets_events_later_and_a_newcomer_gets_no_old_ones() {
    let mut net = Net::of(16, 5);
    net.side[4] = 1;
    net.act(0, |gossip, cx| gossip.fire(cx, event("deploy", 1)).unwrap());
    net.run_for(Duration::from_secs(30));
    assert!(net.hosts[4].events.is_empty());
    net.side[4] = 0;
    net.run_until(90, "it has the event", |net| net.hosts[4].events.len() == 1);
    net.run_until(30, "all are well again", |net| net.all_alive(5));
    let host = net.add(config(5));
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(5, "it knows all", |net| net.all_alive(6));
    net.act(0, |gossip, cx| gossip.fire(cx, event("deploy", 2)).unwrap());
    net.run_until(5, "it has the new event", |net| !net.hosts[host].events.is_empty());
    net.run_for(Duration::from_secs(60));
    assert_eq!(net.hosts[host].events.iter().map(|event| event.id.0).collect::<Vec<_>>(), [2]);
    assert!(net.hosts.iter().take(5).all(|host| host.events.len() == 2));
}

#[test]
fn regression_a_newcomer_hears_of_events_that_are_fired_by_a_member_whose_clock_is_behind() {
    let mut net = Net::of(19, 3);
    net.side[2] = 1;
    for number in 1..=20 {
        net.act(0, |gossip, cx| gossip.fire(cx, event("deploy", number)).unwrap());
    }
    let host = net.add(config(3));
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(5, "it has come", |net| net.status(0, host) == Some(Status::Alive));
    let time = net.act(2, |gossip, cx| gossip.fire(cx, event("deploy", 100)).unwrap());
    assert!(time < 20, "the clock of this one is behind");
    net.side[2] = 0;
    net.run_until(90, "the newcomer has that event", |net| net.hosts[host].events.len() == 1);
    assert_eq!(net.hosts[host].events[0].id.0, 100);
}

/// Each process began with its clocks at zero, and the event was taken for one of long ago.
#[test]
fn regression_an_event_that_a_restarted_member_fires_at_once_reaches_those_who_stayed() {
    let mut net = Net::of(20, 4);
    for number in 1..=600 {
        net.act(3, |gossip, cx| gossip.fire(cx, event("deploy", number)).unwrap());
        net.run_for(Duration::from_millis(50));
    }
    net.run_until(120, "all have kept the time", |net| net.hosts.iter().all(|host| host.clocks.event >= 600));
    for server in 0..3 {
        net.kill(server);
    }
    net.run_until(60, "they have failed", |net| (0..3).all(|of| net.status(3, of) == Some(Status::Failed)));
    for server in 0..3 {
        net.restart(server, |_| ());
    }
    let time = net.act(0, |gossip, cx| gossip.fire(cx, event("deploy", 1_000)).unwrap());
    assert!(time > 600, "{time}");
    net.run_until(90, "it has come", |net| net.hosts[3].events.last().is_some_and(|it| it.id.0 == 1_000));
}

#[test]
fn an_event_that_is_too_big_is_refused_in_the_known_words() {
    let mut net = Net::of(17, 1);
    let mut big = event("deploy", 1);
    big.payload = Bytes::from(vec![b'x'; 507]);
    let error = net.act(0, |gossip, cx| gossip.fire(cx, big.clone())).unwrap_err();
    assert_eq!(error.to_string(), "user event exceeds configured limit of 512 bytes before encoding");
    big.payload = Bytes::from(vec![b'x'; 506]);
    assert_eq!(net.act(0, |gossip, cx| gossip.fire(cx, big.clone())), Ok(2));
    big.node_filter = "x".repeat(600).into();
    assert_eq!(net.act(0, |gossip, cx| gossip.fire(cx, big)), Err(EventTooBig::Encoded));
    assert_eq!(net.hosts[0].events.len(), 1, "whoever fires an event receives it as well");
}

#[test]
fn two_pools_that_were_parted_are_one_again() {
    let mut net = Net::of(18, 20);
    for host in 0..10 {
        net.side[host] = 1;
    }
    net.run_until(90, "the others have failed", |net| {
        (0..10).all(|at| (10..20).all(|of| net.status(at, of) == Some(Status::Failed)))
    });
    for host in 0..10 {
        net.side[host] = 0;
    }
    net.run_until(60, "all know all", |net| net.all_alive(20));
}
