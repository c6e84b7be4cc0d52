//! Names, identities, datacenters and pools that do not go together.

use std::time::Duration;

use super::net::{Net, address, config};
use crate::gossip::{Pool, Status, tag};
use crate::ids::Uuid;

/// A member with the name of another one, at an address and with an identity of its own.
fn namesake(net: &mut Net, of: usize, at: usize) -> usize {
    let mut config = config(at);
    config.name = format!("m{of}").into();
    net.add(config)
}

#[test]
fn a_name_that_is_taken_is_refused_with_the_reason() {
    let mut net = Net::of(300, 3);
    let host = namesake(&mut net, 1, 3);
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(5, "the join ends", |net| !net.hosts[host].joined.is_empty());
    let (_, contacted, error) = &net.hosts[host].joined[0];
    assert_eq!(*contacted, 0);
    assert_eq!(
        error.as_deref(),
        Some(
            "Failed to join 10.0.0.1:8301: Member 'm1' at 10.0.0.4:8301 has the name of another member at 10.0.0.2:8301"
        )
    );
    assert!((0..3).all(|at| net.member(at, 1).is_some_and(|member| member.address == address(1))));
}

#[test]
fn an_identity_that_is_taken_is_refused_with_the_reason() {
    let mut net = Net::of(301, 3);
    let mut copy = config(3);
    copy.tags.insert(tag::ID.into(), net.hosts[1].config.tags["id"].clone());
    let host = net.add(copy);
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(5, "the join ends", |net| !net.hosts[host].joined.is_empty());
    let error = net.hosts[host].joined[0].2.clone().unwrap();
    assert!(error.contains("Member 'm3' has conflicting node ID"), "{error}");
    assert!((0..3).all(|at| net.member(at, host).is_none()));
}

#[test]
fn another_datacenter_is_refused_in_the_lan_and_welcome_in_the_wan() {
    for (pool, welcome) in [(Pool::Lan, false), (Pool::Wan, true)] {
        let mut net = Net::new(302);
        net.pool = pool;
        net.add(config(0));
        let mut foreign = config(1);
        foreign.tags.insert(tag::DATACENTER.into(), "dc2".into());
        foreign.datacenter = "dc2".into();
        net.add(foreign);
        net.join_all();
        net.run_until(5, "the join ends", |net| !net.hosts[1].joined.is_empty());
        assert_eq!(net.hosts[1].joined[0].1, usize::from(welcome));
        net.run_for(Duration::from_secs(1));
        assert_eq!(net.member(0, 1).is_some(), welcome);
    }
}

#[test]
fn the_namesake_that_fewer_know_gives_way() {
    let mut net = Net::new(303);
    for host in 0..7 {
        net.add(config(host));
    }
    // Two pools: 0..5 with a member m1, and 5, 6 with another m1.
    let other = namesake(&mut net, 1, 7);
    for host in 1..5 {
        net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    }
    for host in [6, other] {
        net.act(host, |gossip, cx| gossip.join(cx, vec![address(5)], 1));
    }
    net.run_for(Duration::from_secs(3));
    net.act(6, |gossip, cx| gossip.join(cx, vec![address(0)], 2));
    net.run_until(120, "the other one gives way", |net| net.hosts[other].conflict);
    net.run_for(Duration::from_secs(60));
    assert!((0..5).all(|host| !net.hosts[host].conflict));
}

#[test]
fn a_failed_name_is_free_for_another_agent_after_a_while() {
    let mut net = Net::of(304, 4);
    net.kill(1);
    net.run_until(30, "it has failed", |net| net.all_say(1, Status::Failed));
    let host = namesake(&mut net, 1, 5);
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(5, "the join ends", |net| !net.hosts[host].joined.is_empty());
    assert_eq!(net.hosts[host].joined[0].1, 0, "too early");
    net.run_for(Duration::from_secs(31));
    net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 2));
    net.run_until(5, "the name is taken over", |net| {
        [0, 2, 3].iter().all(|at| net.member(*at, 1).is_some_and(|member| member.address == address(5)))
    });
}

#[test]
fn an_agent_that_was_installed_anew_at_the_same_place_takes_its_name_back() {
    let mut net = Net::of(305, 4);
    net.run_until(30, "addresses are kept", |net| net.hosts[1].known.len() == 3);
    net.restart(1, |config| {
        config.tags.insert(tag::ID.into(), Uuid(77).to_string().into());
    });
    net.run_until(5, "its new identity is known", |net| {
        (0..4).all(|at| net.member(at, 1).is_some_and(|member| member.id() == Some(Uuid(77))))
    });
    assert!(net.nobody_failed());
}
