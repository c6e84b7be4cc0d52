//! Sessions: what they need, how they end, what their end does to locks.

use super::*;

fn with_checks() -> World {
    let mut world = World::default();
    let mut registration = node("Node");
    registration.service = Some(service("web", "web"));
    registration.checks = vec![
        check("good", "", Health::Passing),
        check("warn", "", Health::Warning),
        check("bad", "", Health::Critical),
        check("svc", "web", Health::Passing),
    ];
    assert_eq!(world.register(registration).response, Response::Done);
    world
}

fn bound(id: u128, checks: &[&str]) -> Session {
    Session { node_checks: checks.iter().copied().map(Text::new).collect(), ..session(id, "Node") }
}

fn delayed(id: u128, behavior: SessionBehavior) -> Session {
    Session { lock_delay: Duration::from_secs(15), behavior, ..session(id, "node") }
}

#[test]
fn a_session_needs_its_node_and_living_checks() {
    let mut world = with_checks();
    let refused: [(Session, &str); 5] = [
        (session(1, "none"), "Missing node registration"),
        (bound(1, &["good", "none"]), "Missing check 'none' registration"),
        // Checks of the older field count as well, and first.
        (
            Session { checks: vec![Text::new("older")], ..bound(1, &["none"]) },
            "Missing check 'older' registration",
        ),
        (bound(1, &["bad"]), "Check 'bad' is in critical state"),
        (
            Session {
                service_checks: Some(vec![super::super::model::ServiceCheck { id: Text::new("nope") }]),
                ..session(1, "node")
            },
            "Missing check 'nope' registration",
        ),
    ];
    for (session, text) in refused {
        let applied = world.apply(Command::SessionCreate(Box::new(session)));
        let Response::Refused(refusal) = applied.response else { panic!("{text}: not refused") };
        assert_eq!(refusal.to_string(), text);
        assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    }
    world.session(bound(1, &["good", "WARN"]));
    let of_node = world.store.evaluate(&Query::NodeSessions(Text::new("NODE")));
    assert_eq!(ids(&of_node), ["1"]);
    let again = world.apply(Command::SessionCreate(Box::new(session(1, "node"))));
    assert!(matches!(again.response, Response::Refused(Refusal::Other(_))));
}

#[test]
fn a_session_ends_with_what_it_depends_on() {
    type End = fn(&mut World) -> Applied;
    let ends: [(&str, End, bool); 8] = [
        ("destroyed", |world| world.apply(Command::SessionDestroy { id: Uuid(1) }), true),
        ("its node goes", |world| world.deregister("NODE", None, None), true),
        ("its check goes", |world| world.deregister("node", None, Some("GOOD")), true),
        ("its service goes", |world| world.deregister("node", Some("web"), None), true),
        (
            "its check is critical",
            |world| {
                let checks = vec![check("good", "", Health::Critical)];
                world.register(Registration { checks, skip_node_update: true, ..node("node") })
            },
            true,
        ),
        (
            "its check warns",
            |world| {
                let checks = vec![check("good", "", Health::Warning)];
                world.register(Registration { checks, skip_node_update: true, ..node("node") })
            },
            false,
        ),
        (
            "another check is critical",
            |world| {
                let checks = vec![check("warn", "", Health::Critical)];
                world.register(Registration { checks, skip_node_update: true, ..node("node") })
            },
            false,
        ),
        ("another session ends", |world| world.apply(Command::SessionDestroy { id: Uuid(2) }), false),
    ];
    for (name, end, ended) in ends {
        let mut world = with_checks();
        let id = world.session(Session {
            service_checks: Some(vec![super::super::model::ServiceCheck { id: Text::new("svc") }]),
            ..bound(1, &["good"])
        });
        world.session(session(2, "node"));
        assert_eq!(world.kv(KvVerb::Acquire(id), "k", "v"), Response::Held(true));
        let before = world.index_of(&Query::Session(id));
        let applied = end(&mut world);
        assert_eq!(world.store.session(id).is_none(), ended, "{name}");
        assert_eq!(world.entry("k").session.is_none(), ended, "{name}");
        assert_eq!(touched(&applied, &WatchKey::Kv(Text::new("k"))), ended, "{name}");
        assert_eq!(touched(&applied, &WatchKey::Session(id)), ended, "{name}");
        if ended {
            assert!(world.index_of(&Query::Session(id)) > before, "{name}");
            assert_eq!(world.entry("k").modify_index, world.index, "{name}");
            assert_eq!(world.entry("k").lock_index, 1, "{name}");
        }
    }
}

#[test]
fn the_end_of_a_session_releases_or_deletes_its_keys() {
    for behavior in [SessionBehavior::Release, SessionBehavior::Delete] {
        let mut world = with_checks();
        let id = world.session(Session { behavior, ..session(1, "node") });
        for key in ["a", "b", "c"] {
            world.kv(KvVerb::Acquire(id), key, "v");
        }
        world.kv(KvVerb::Release(id), "c", "v");
        world.apply(Command::SessionDestroy { id });
        let all = world.store.evaluate(&Query::KvTree(Text::default()));
        match behavior {
            SessionBehavior::Release => {
                assert_eq!(ids(&all), ["a", "b", "c"]);
                assert_eq!(world.entry("a").session, None);
            }
            SessionBehavior::Delete => assert_eq!(ids(&all), ["c"]),
        }
        assert_eq!(world.store.lock_delays().count(), 0, "no delay was asked for");
    }
}

#[test]
fn an_invalidated_lock_cannot_be_taken_before_its_delay_is_over() {
    for behavior in [SessionBehavior::Release, SessionBehavior::Delete] {
        let mut world = with_checks();
        let dead = world.session(delayed(1, behavior));
        let next = world.session(delayed(2, behavior));
        world.kv(KvVerb::Acquire(dead), "k", "v");
        world.apply(Command::SessionDestroy { id: dead });
        let begun = world.index;
        let delays: Vec<_> = world.store.lock_delays().collect();
        assert_eq!(delays, [(&Text::new("k"), begun, Duration::from_secs(15))]);
        assert_eq!(world.kv(KvVerb::Acquire(next), "k", "w"), Response::Held(false));
        world.set("k", "plain writes are not hindered");
        for (wrong, index) in [("k", begun + 1), ("j", begun)] {
            world.apply(Command::LockDelayOver { keys: vec![(Text::new(wrong), index)] });
            assert_eq!(world.kv(KvVerb::Acquire(next), "k", "w"), Response::Held(false));
        }
        world.apply(Command::LockDelayOver { keys: vec![(Text::new("k"), begun)] });
        assert_eq!(world.kv(KvVerb::Acquire(next), "k", "w"), Response::Held(true));
        assert_eq!(world.store.lock_delays().count(), 0);
    }
}

#[test]
fn a_lock_that_was_given_up_can_be_taken_at_once() {
    let mut world = with_checks();
    let first = world.session(delayed(1, SessionBehavior::Release));
    let next = world.session(delayed(2, SessionBehavior::Release));
    world.kv(KvVerb::Acquire(first), "k", "v");
    world.kv(KvVerb::Release(first), "k", "v");
    world.apply(Command::SessionDestroy { id: first });
    assert_eq!(world.kv(KvVerb::Acquire(next), "k", "w"), Response::Held(true));
}

#[test]
fn a_deleted_key_is_no_longer_held() {
    let mut world = with_checks();
    let first = world.session(delayed(1, SessionBehavior::Delete));
    world.kv(KvVerb::Acquire(first), "k", "v");
    world.kv(KvVerb::Delete, "k", "");
    world.set("k", "someone else's");
    world.apply(Command::SessionDestroy { id: first });
    assert_eq!(&world.entry("k").value[..], b"someone else's");
    assert_eq!(world.store.lock_delays().count(), 0);
}

#[test]
fn sessions_with_a_ttl_are_listed_for_the_leader() {
    let mut world = with_checks();
    world.session(session(1, "node"));
    let ttl_parsed = Some(Duration::from_secs(10));
    world.session(Session { ttl: Text::new("10s"), ttl_parsed, ..session(2, "node") });
    let listed: Vec<Uuid> = world.store.sessions_with_ttl().map(|session| session.id).collect();
    assert_eq!(listed, [Uuid(2)]);
    assert_eq!(ids(&world.store.evaluate(&Query::Sessions)), ["1", "2"]);
}
