//! Sealed pools: rotation of keys, members that were away, roll-out of encryption.

use std::time::Duration;

use super::net::{Net, address, config};
use crate::gossip::{Config, Key, KeysChange, Status};

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32]).unwrap()
}

fn sealed(host: usize, keys: &[u8]) -> Config {
    let mut config = config(host);
    config.keys = keys.iter().map(|byte| key(*byte)).collect();
    config
}

fn pool(seed: u64, members: usize, keys: &[u8]) -> Net {
    let mut net = Net::new(seed);
    for host in 0..members {
        net.add(sealed(host, keys));
    }
    net.join_all();
    net.run_until(5, "all know all", |net| net.all_alive(members));
    net
}

fn change(net: &mut Net, at: usize, change: KeysChange) -> crate::gossip::KeysReport {
    let before = net.hosts[at].reports.len();
    net.act(at, |gossip, cx| gossip.change_keys(cx, change, 1));
    net.run_until(10, "the change ends", |net| net.hosts[at].reports.len() > before);
    net.hosts[at].reports[before].clone()
}

#[test]
fn keys_are_rotated_while_everybody_goes_on() {
    let mut net = pool(200, 10, &[1]);
    net.loss = 10;
    for step in [KeysChange::Install(key(2)), KeysChange::Use(key(2)), KeysChange::Remove(key(1))] {
        let report = change(&mut net, 3, step);
        assert_eq!((report.members, report.answers, report.errors.len()), (10, 10, 0));
    }
    let report = change(&mut net, 5, KeysChange::List);
    assert_eq!(report.keys.into_iter().collect::<Vec<_>>(), [(key(2).to_base64(), 10)]);
    assert_eq!(report.primary_keys.into_iter().collect::<Vec<_>>(), [(key(2).to_base64(), 10)]);
    assert!(net.hosts.iter().all(|host| host.keys == [key(2)]), "every ring was kept");
    net.run_for(Duration::from_secs(30));
    assert!(net.all_alive(10) && net.nobody_failed());
}

#[test]
fn a_change_that_is_refused_is_reported() {
    let mut net = pool(201, 3, &[1]);
    let report = change(&mut net, 0, KeysChange::Use(key(9)));
    assert_eq!(report.errors.len(), 3);
    assert!(report.errors.values().all(|error| error == "Requested key is not in the keyring"));
    let report = change(&mut net, 0, KeysChange::Remove(key(1)));
    assert!(report.errors.values().all(|error| error == "Removing the primary key is not allowed"));
    let mut net = Net::of(202, 2);
    let report = change(&mut net, 0, KeysChange::List);
    assert!(report.errors.values().all(|error| error == "Keyring is empty (encryption not enabled)"));
}

#[test]
fn a_member_that_was_down_during_a_rotation_is_not_locked_out_while_it_shares_a_key() {
    let mut net = pool(203, 5, &[1]);
    net.run_until(30, "addresses are kept", |net| net.hosts[4].known.len() == 4);
    net.kill(4);
    net.run_until(30, "it has failed", |net| net.all_say(4, Status::Failed));
    change(&mut net, 0, KeysChange::Install(key(2)));
    change(&mut net, 0, KeysChange::Use(key(2)));
    assert_eq!(net.hosts[4].keys, [key(1)]);
    net.restart(4, |_| ());
    net.run_until(5, "it is back", |net| net.all_alive(5));
    assert_eq!(net.hosts[4].keys, [key(2), key(1)]);
}

#[test]
fn it_is_not_locked_out_either_when_everybody_was_restarted_since() {
    let mut net = pool(204, 3, &[1]);
    net.run_until(30, "addresses are kept", |net| net.hosts.iter().all(|host| host.known.len() == 2));
    net.kill(2);
    net.run_until(30, "it has failed", |net| net.all_say(2, Status::Failed));
    change(&mut net, 0, KeysChange::Install(key(2)));
    change(&mut net, 0, KeysChange::Use(key(2)));
    for host in 0..2 {
        net.kill(host);
    }
    for host in 0..3 {
        net.restart(host, |_| ());
    }
    net.act(2, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    net.run_until(60, "all know all", |net| net.all_alive(3));
    assert!(net.hosts[2].keys.contains(&key(2)));
}

#[test]
fn a_member_that_was_cut_off_learns_the_new_ring() {
    let mut net = pool(205, 5, &[1]);
    net.side[4] = 1;
    net.run_until(60, "it has failed", |net| net.all_say(4, Status::Failed));
    change(&mut net, 0, KeysChange::Install(key(2)));
    change(&mut net, 0, KeysChange::Use(key(2)));
    net.side[4] = 0;
    net.run_until(120, "all know all", |net| net.all_alive(5));
    assert_eq!(net.hosts[4].keys, [key(2), key(1)]);
}

#[test]
fn a_member_that_missed_a_new_key_asks_for_it_before_it_is_taken_for_failed() {
    let mut net = pool(208, 5, &[1]);
    net.side[4] = 1;
    change(&mut net, 0, KeysChange::Install(key(2)));
    change(&mut net, 0, KeysChange::Use(key(2)));
    net.side[4] = 0;
    net.run_until(12, "it has the new key", |net| net.hosts[4].keys == [key(2), key(1)]);
    net.run_until(30, "all are well", |net| net.all_alive(5));
}

#[test]
fn whoever_shares_no_key_stays_outside() {
    let mut net = pool(206, 3, &[1]);
    let stranger = net.add(sealed(3, &[9]));
    let plain = net.add(config(4));
    for host in [stranger, plain] {
        net.act(host, |gossip, cx| gossip.join(cx, vec![address(0)], 1));
    }
    net.run_until(30, "the joins end", |net| [3, 4].iter().all(|host| !net.hosts[*host].joined.is_empty()));
    assert_eq!(net.hosts[stranger].joined[0].1, 0);
    assert!((0..3).all(|at| net.hosts[at].gossip.members().count() == 3));
    let dropped = net.hosts[0].gossip.stats().dropped;
    assert_eq!((dropped.seal, dropped.plain), (1, 1));
}

#[test]
fn encryption_is_rolled_out_to_a_running_pool() {
    let mut net = Net::of(207, 4);
    net.run_until(30, "addresses are kept", |net| net.hosts.iter().all(|host| host.known.len() == 3));
    for (incoming, outgoing) in [(false, false), (false, true), (true, true)] {
        for host in 0..4 {
            net.hosts[host].keys = vec![key(1)];
            net.restart(host, |config| {
                config.verify_incoming = incoming;
                config.verify_outgoing = outgoing;
            });
            net.run_until(40, "all know all", |net| net.all_alive(4));
        }
    }
    assert!(net.hosts.iter().all(|host| host.gossip.gauges().encrypted));
    assert_eq!(change(&mut net, 0, KeysChange::List).answers, 4);
}
