//! Each defect that can be planted in the store does what its name says, so that there is something to find.

use super::*;
use crate::planted::{Bug, plant};

/// A key locked by session 1, which asked for a lock-delay; session 2 waits for it. Both are on one node.
fn locked() -> World {
    let mut world = World::default();
    world.register(node("n"));
    world.session(Session { lock_delay: Duration::from_secs(15), ..session(1, "n") });
    world.register(node("m"));
    world.session(session(2, "m"));
    assert_eq!(world.kv(KvVerb::Acquire(Uuid(1)), "p/k", "v"), Response::Held(true));
    world
}

#[test]
fn planted_defects_show() {
    type Shows = fn(&mut World) -> bool;
    let cases: [(Bug, Shows); 5] = [
        (Bug::LockDelaySkipped, |world| {
            world.apply(Command::SessionDestroy { id: Uuid(1) });
            world.kv(KvVerb::Acquire(Uuid(2)), "p/k", "w") == Response::Held(true)
        }),
        (Bug::SessionSurvivesNode, |world| {
            world.deregister("n", None, None);
            world.entry("p/k").session.is_some()
        }),
        (Bug::WatchMissesDelete, |world| {
            let applied = world.apply(kv_command(KvVerb::Delete, "p/k", "", 0));
            !touched(&applied, &WatchKey::KvPrefix(Text::new("p/")))
        }),
        (Bug::IndexGoesBack, |world| {
            let query = Query::KvTree(Text::new("p/"));
            world.set("p/l", "later");
            let before = world.index_of(&query);
            world.kv(KvVerb::Delete, "p/l", "");
            world.index_of(&query) < before
        }),
        (Bug::AcquireIgnoresHolder, |world| {
            world.kv(KvVerb::Acquire(Uuid(2)), "p/k", "w") == Response::Held(true)
        }),
    ];
    for (bug, shows) in cases {
        assert!(!shows(&mut locked()), "{bug:?} is not planted");
        plant(Some(bug));
        let shown = shows(&mut locked());
        plant(None);
        assert!(shown, "{bug:?} is planted");
    }
}
