//! Failures are found, soon; members that are well are not taken for failed.

use std::time::Duration;

use super::net::{Life, Net, config};
use crate::gossip::Status;

#[test]
fn a_killed_process_is_failed_at_all_fifty_within_six_seconds() {
    let mut took: Vec<Duration> = (0..9)
        .map(|seed| {
            let mut net = Net::of(100 + seed, 50);
            net.run_for(Duration::from_millis(500 + seed * 100));
            net.kill(7);
            net.run_until(10, "it has failed", |net| net.all_say(7, Status::Failed))
        })
        .collect();
    took.sort();
    assert!(took[4] < Duration::from_secs(5), "{took:?}");
    assert!(took[7] < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_silent_member_is_suspected_for_the_whole_of_its_time() {
    let mut net = Net::of(120, 50);
    net.hosts[7].life = Life::Silent;
    let took = net.run_until(60, "it has failed", |net| net.all_say(7, Status::Failed));
    // Four times the logarithm of fifty.
    assert!(took > Duration::from_millis(6_800), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn losing_a_tenth_of_all_datagrams_fails_nobody() {
    let mut net = Net::of(121, 30);
    net.loss = 10;
    net.run_for(Duration::from_secs(120));
    assert!(net.nobody_failed());
}

#[test]
fn a_pool_whose_streams_are_refused_by_a_firewall_fails_nobody() {
    // Streams go to an address where nobody listens; datagrams arrive.
    let mut net = Net::of(122, 20);
    net.loss = 5;
    net.refuse_streams = true;
    net.run_for(Duration::from_secs(120));
    assert!(net.nobody_failed());
}

#[test]
fn a_member_that_was_stopped_accuses_nobody_when_it_goes_on() {
    let mut net = Net::of(123, 20);
    for round in 0..5 {
        net.stop(3);
        net.run_for(Duration::from_secs(8 + round * 5));
        net.go_on(3);
        net.run_until(60, "all are well", |net| net.all_alive(20));
    }
    for at in 0..20 {
        for (name, history) in &net.hosts[at].history {
            assert!(name == "m3" || !history.contains(&Status::Failed), "{name} at m{at}: {history:?}");
        }
    }
}

#[test]
fn a_suspected_member_refutes_and_its_incarnation_rises() {
    let mut net = Net::of(124, 20);
    net.stop(3);
    net.run_until(20, "somebody suspects it", |net| {
        net.hosts.iter().any(|host| host.gossip.state("m3") == Some(crate::gossip::State::Suspect))
    });
    let before = net.hosts[3].gossip.stats().incarnation;
    net.go_on(3);
    net.run_until(10, "nobody suspects it", |net| net.all_alive(20));
    assert!(net.hosts[3].gossip.stats().incarnation > before);
    assert!(net.nobody_failed());
}

#[test]
fn two_members_find_each_others_failure() {
    for life in [Life::Killed, Life::Silent] {
        let mut net = Net::of(125, 2);
        net.hosts[1].life = life;
        net.run_until(15, "it has failed", |net| net.all_say(1, Status::Failed));
    }
}

#[test]
fn a_failed_member_is_found_again_by_trying() {
    let mut net = Net::of(126, 10);
    net.side[3] = 1;
    net.run_until(300, "all have failed to it, and it to all", |net| {
        net.all_say(3, Status::Failed)
            && (0..10).all(|of| of == 3 || net.status(3, of) == Some(Status::Failed))
    });
    net.run_for(Duration::from_secs(300));
    net.side[3] = 0;
    net.run_until(60, "all know all", |net| net.all_alive(10));
}

#[test]
fn an_idle_pool_is_nearly_silent_whatever_its_size() {
    let mut rates = Vec::new();
    for members in [10, 60] {
        let mut net = Net::of(127, members);
        net.run_for(Duration::from_secs(30));
        let before: Vec<u64> = net.hosts.iter().map(|host| host.bytes_sent).collect();
        net.run_for(Duration::from_secs(60));
        let worst = net.hosts.iter().zip(before).map(|(host, before)| (host.bytes_sent - before) / 60).max();
        rates.push(worst.unwrap());
    }
    assert!(rates.iter().all(|rate| *rate < 400), "bytes per second: {rates:?}");
}

#[test]
fn a_flood_of_news_leaves_at_the_budgets_rate() {
    let mut net = Net::of(128, 10);
    let before = net.hosts[0].bytes_sent;
    for second in 0..20u128 {
        for number in 0..200 {
            net.act(0, |gossip, cx| {
                let event = crate::gossip::UserEvent {
                    id: crate::ids::Uuid(second * 1_000 + number),
                    name: "flood".into(),
                    payload: bytes::Bytes::from(vec![b'x'; 400]),
                    node_filter: "".into(),
                    service_filter: "".into(),
                    tag_filter: "".into(),
                    ltime: 0,
                };
                gossip.fire(cx, event).unwrap()
            });
        }
        net.run_for(Duration::from_secs(1));
    }
    let rate = (net.hosts[0].bytes_sent - before) / 20;
    let budget = u64::from(config(0).profile.bytes_per_second);
    assert!(rate < budget * 11 / 10 + 2_000, "{rate} bytes per second");
}

/// The experiment of Lifeguard's section V.A: a tenth of the members send and receive in short windows only, while
/// their timers run on. Returns how often a member that was well was said to have failed, and how often at another
/// member that was well.
fn false_alarms(lifeguard: bool, blocked: Duration, windows: u32) -> (usize, usize) {
    const MEMBERS: usize = 50;
    let is_slow = |host: usize| host % 10 == 3;
    let mut net = Net::new(129);
    for host in 0..MEMBERS {
        let mut config = config(host);
        config.lifeguard = lifeguard;
        net.add(config);
    }
    net.join_all();
    net.run_until(5, "all know all", |net| net.all_alive(MEMBERS));
    for _ in 0..windows {
        for slow in (0..MEMBERS).filter(|host| is_slow(*host)) {
            net.hosts[slow].life = Life::Blocked;
        }
        net.run_for(blocked);
        for slow in (0..MEMBERS).filter(|host| is_slow(*host)) {
            net.go_on(slow);
        }
        net.run_for(Duration::from_millis(300));
    }
    let (mut alarms, mut among_well) = (0, 0);
    for at in 0..MEMBERS {
        for of in (0..MEMBERS).filter(|of| !is_slow(*of)) {
            let history = net.hosts[at].history.get(&format!("m{of}"));
            let failed = history.into_iter().flatten().filter(|status| **status == Status::Failed).count();
            alarms += failed;
            among_well += if is_slow(at) { 0 } else { failed };
        }
    }
    (alarms, among_well)
}

#[test]
fn with_lifeguard_slow_members_raise_a_twentieth_of_the_false_alarms() {
    let blocked = Duration::from_secs(16);
    let (with, among_well) = false_alarms(true, blocked, 4);
    let (without, _) = false_alarms(false, blocked, 4);
    assert!(without > 100 && with * 20 <= without, "{with} with, {without} without");
    assert_eq!(among_well, 0, "members that are well do not believe it");
}
