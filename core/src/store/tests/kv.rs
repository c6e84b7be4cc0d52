//! Keys, locks and the indexes of keys and prefixes.

use super::*;

#[test]
fn a_write_creates_and_then_only_moves_the_modify_index() {
    let mut world = World::default();
    world.set("a", "1");
    world.set("a", "2");
    let entry = world.entry("a");
    assert_eq!((entry.create_index, entry.modify_index), (1, 2));
    assert_eq!((&entry.value[..], entry.flags, entry.lock_index), (&b"2"[..], 0, 0));
}

#[test]
fn writing_what_is_there_changes_nothing_and_touches_nobody() {
    let mut world = World::default();
    world.set("a", "1");
    let applied = world.apply(kv_command(KvVerb::Set, "a", "1", 0));
    assert_eq!(applied.response, Response::Held(true));
    assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    assert_eq!(world.entry("a").modify_index, 1);
    world.apply(kv_command(KvVerb::Set, "a", "1", 7));
    assert_eq!((world.entry("a").modify_index, world.entry("a").flags), (3, 7));
}

#[test]
fn check_and_set_wants_the_exact_index_and_zero_means_absent() {
    let mut world = World::default();
    for (verb, held) in [
        (KvVerb::Cas(7), false),
        (KvVerb::Cas(0), true),
        (KvVerb::Cas(0), false),
        (KvVerb::Cas(1), false),
        (KvVerb::Cas(2), true),
        (KvVerb::DeleteCas(2), false),
        (KvVerb::DeleteCas(5), true),
        (KvVerb::DeleteCas(5), true),
    ] {
        let value = world.index.to_string();
        assert_eq!(world.kv(verb, "a", &value), Response::Held(held), "{verb:?}");
    }
    assert!(world.store.kv("a").is_none());
}

#[test]
fn deleting_what_is_absent_touches_nobody_and_leaves_no_tombstone() {
    let mut world = World::default();
    for verb in [KvVerb::Delete, KvVerb::DeleteTree, KvVerb::DeleteCas(4)] {
        let applied = world.apply(kv_command(verb, "a", "", 0));
        assert_eq!(applied.response, Response::Held(true));
        assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    }
    assert_eq!(world.store.oldest_tombstone(), None);
}

#[test]
fn deleting_a_tree_takes_what_begins_with_it_and_nothing_else() {
    let mut world = World::default();
    for key in ["t/a", "t/b/c", "t", "tx", "u"] {
        world.set(key, "1");
    }
    let applied = world.apply(kv_command(KvVerb::DeleteTree, "t/", "", 0));
    for (key, hit) in [("t/a", true), ("t/b/c", true), ("t", false), ("tx", false), ("t/z", false)] {
        assert_eq!(touched(&applied, &WatchKey::Kv(Text::new(key))), hit, "{key}");
    }
    assert_eq!(ids(&world.store.evaluate(&Query::KvTree(Text::default()))), ["t", "tx", "u"]);
}

#[test]
fn a_lock_is_counted_when_it_is_taken_and_not_when_it_is_taken_again() {
    let mut world = World::default();
    world.register(node("n"));
    let a = world.session(session(1, "n"));
    let b = world.session(session(2, "n"));
    let steps = [
        (KvVerb::Acquire(a), "v", true, 1, Some(a)),
        (KvVerb::Acquire(a), "v", true, 1, Some(a)),
        (KvVerb::Acquire(a), "w", true, 1, Some(a)),
        (KvVerb::Acquire(b), "x", false, 1, Some(a)),
        (KvVerb::Release(b), "x", false, 1, Some(a)),
        (KvVerb::Release(a), "x", true, 1, None),
        (KvVerb::Release(a), "x", false, 1, None),
        (KvVerb::Acquire(b), "x", true, 2, Some(b)),
        // A plain write keeps the lock and begins to count anew, even with the same value.
        (KvVerb::Set, "x", true, 0, Some(b)),
        (KvVerb::Acquire(b), "x", true, 0, Some(b)),
        (KvVerb::Release(b), "x", true, 0, None),
    ];
    for (step, (verb, value, held, lock_index, holder)) in steps.into_iter().enumerate() {
        assert_eq!(world.kv(verb, "k", value), Response::Held(held), "step {step}");
        let entry = world.entry("k");
        assert_eq!((entry.lock_index, entry.session), (lock_index, holder), "step {step}");
    }
}

#[test]
fn a_lock_wants_a_session_that_lives() {
    let mut world = World::default();
    let id = Uuid::parse("11111111-2222-3333-4444-555555555555").expect("well-formed");
    let Response::Refused(refusal) = world.kv(KvVerb::Acquire(id), "k", "v") else {
        panic!("acquired without a session")
    };
    assert_eq!(refusal.to_string(), "invalid session \"11111111-2222-3333-4444-555555555555\"");
    assert_eq!(world.kv(KvVerb::Release(id), "k", "v"), Response::Held(false));
    assert!(world.store.kv("k").is_none());
}

#[test]
fn the_index_of_a_key_is_its_own_or_the_tables_while_it_is_absent() {
    let mut world = World::default();
    let key = |key: &str| Query::Kv(Text::new(key));
    assert_eq!(world.index_of(&key("a")), 1);
    world.apply(Command::ReapTombstones { up_to: 0 });
    world.set("a", "1");
    world.set("b", "1");
    assert_eq!((world.index_of(&key("a")), world.index_of(&key("none"))), (2, 3));
    world.kv(KvVerb::Delete, "a", "");
    assert_eq!(world.index_of(&key("a")), 4);
    assert!(!world.store.evaluate(&key("a")).exists);
}

#[test]
fn the_index_of_a_prefix_counts_deletions_and_survives_their_being_forgotten() {
    let mut world = World::default();
    let tree = Query::KvTree(Text::new("p/"));
    let keys = Query::KvKeys { prefix: Text::new("p/"), separator: Text::new("/") };
    world.set("p/a", "1");
    world.set("p/b", "1");
    world.set("z", "1");
    assert_eq!((world.index_of(&tree), world.index_of(&keys)), (2, 2));
    world.kv(KvVerb::Delete, "p/b", "");
    assert_eq!(world.index_of(&tree), 4);
    assert_eq!((world.store.oldest_tombstone(), world.store.newest_tombstone()), (Some(4), Some(4)));
    let applied = world.apply(Command::ReapTombstones { up_to: 4 });
    assert!(applied.touched.is_empty());
    assert_eq!(world.store.oldest_tombstone(), None);
    assert_eq!(world.index_of(&tree), 4);
    world.kv(KvVerb::Delete, "p/a", "");
    world.set("z", "2");
    assert_eq!(world.index_of(&tree), 6, "only a tombstone is left");
    assert_eq!(world.index_of(&Query::KvTree(Text::new("none/"))), 7);
}

#[test]
fn keys_are_cut_behind_the_first_separator_after_the_prefix() {
    let mut world = World::default();
    for key in ["web/b", "web/a/x", "web/a/y", "web/", "webfoo", "zip", "web/c-1", "web/c-2"] {
        world.set(key, "1");
    }
    let cases: [(&str, &str, &[&str]); 6] = [
        ("web/", "/", &["web/", "web/a/", "web/b", "web/c-1", "web/c-2"]),
        ("", "/", &["web/", "webfoo", "zip"]),
        ("we", "/", &["web/", "webfoo"]),
        ("web/", "-", &["web/", "web/a/x", "web/a/y", "web/b", "web/c-"]),
        ("web/", "a/", &["web/", "web/a/", "web/b", "web/c-1", "web/c-2"]),
        ("web/a", "", &["web/a/x", "web/a/y"]),
    ];
    for (prefix, separator, expected) in cases {
        let query = Query::KvKeys { prefix: Text::new(prefix), separator: Text::new(separator) };
        assert_eq!(ids(&world.store.evaluate(&query)), expected, "{prefix} {separator}");
    }
}
