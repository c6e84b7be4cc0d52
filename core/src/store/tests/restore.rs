//! Restores: the saved rows become the state, at once or not at all, and no index goes back.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Restore, RowKey, StoreBuilder, encode_rows};
use super::property::{all_rows, any_command, queries};
use super::*;

/// The pieces of what a store would be saved as.
fn saved(store: &Store, piece_bytes: usize) -> Vec<Bytes> {
    let store = store.to_save();
    let (mut pieces, mut cursor) = (Vec::new(), None::<RowKey>);
    loop {
        let (rows, next) = store.rows_after(cursor.as_ref(), piece_bytes);
        pieces.push(encode_rows(&rows));
        match next {
            Some(next) => cursor = Some(next),
            None => return pieces,
        }
    }
}

fn step(world: &mut World, step: Restore) -> Applied {
    world.apply(Command::Restore(step))
}

/// Restores pieces; the answer to the last step.
fn restore(world: &mut World, id: Uuid, pieces: &[Bytes]) -> Applied {
    assert_eq!(step(world, Restore::Begin { id }).response, Response::RestoreBegun(id));
    for (number, rows) in (0..).zip(pieces) {
        let rows = rows.clone();
        assert_eq!(step(world, Restore::Piece { id, number, rows }).response, Response::Done);
    }
    step(world, Restore::Finish { id, pieces: pieces.len() as u64 })
}

/// The rows that clients see something of: without the tables' indexes and what the group knows about itself.
fn visible(store: &Store) -> Vec<(RowKey, Vec<u8>)> {
    all_rows(store).into_iter().filter(|(key, _)| !matches!(key.as_bytes()[0], 9 | 10)).collect()
}

#[test]
fn a_restored_state_is_the_saved_one_and_indexes_go_on() {
    let mut world = World::default();
    world.apply(Command::GroupNamed { id: Uuid(1) });
    world.set("before", "1");
    let index = world.entry("before").modify_index;
    let pieces = saved(&world.store, 1);
    world.apply(kv_command(KvVerb::Delete, "before", "", 0));
    world.set("after", "2");
    let waiting = world.index_of(&Query::Kv(Text::new("before")));
    let applied = restore(&mut world, Uuid(7), &pieces);
    assert_eq!(
        (applied.response, applied.touched, applied.replaced),
        (Response::Done, vec![WatchKey::All], true)
    );
    assert_eq!(world.entry("before").modify_index, index);
    assert_eq!(world.store.kv("after"), None);
    assert!(world.index_of(&Query::Kv(Text::new("before"))) > waiting);
    let restored = world.index;
    world.set("new", "3");
    assert!(world.entry("new").modify_index > restored);
}

#[test]
fn a_state_from_further_ahead_takes_the_indexes_with_it() {
    let mut far = World { index: 1_000, ..World::default() };
    far.apply(Command::GroupNamed { id: Uuid(1) });
    far.set("k", "v");
    let pieces = saved(&far.store, 1_000);
    let mut fresh = World::default();
    fresh.apply(Command::GroupNamed { id: Uuid(2) });
    assert_eq!(restore(&mut fresh, Uuid(7), &pieces).response, Response::Done);
    assert_eq!(fresh.store.group(), Some(Uuid(2)), "the group stays itself");
    assert_eq!(fresh.entry("k").modify_index, far.entry("k").modify_index);
    fresh.set("new", "1");
    assert!(fresh.entry("new").modify_index > far.entry("k").modify_index);
    assert_eq!(fresh.kv(KvVerb::Cas(far.entry("k").modify_index), "k", "2"), Response::Held(true));
}

#[test]
fn a_restore_that_is_not_whole_changes_nothing() {
    let mut world = World::default();
    world.set("k", "v");
    let pieces = saved(&world.store, 1);
    world.set("k", "later");
    let before = visible(&world.store);
    let id = Uuid(7);
    step(&mut world, Restore::Begin { id });
    let rows = pieces[0].clone();
    step(&mut world, Restore::Piece { id, number: 0, rows: rows.clone() });
    for wrong in [
        Restore::Piece { id, number: 0, rows: rows.clone() },
        Restore::Piece { id, number: 2, rows: rows.clone() },
        Restore::Piece { id: Uuid(8), number: 1, rows },
        Restore::Finish { id, pieces: 2 },
        Restore::Finish { id: Uuid(8), pieces: 1 },
    ] {
        let applied = step(&mut world, wrong.clone());
        assert!(matches!(applied.response, Response::Refused(_)), "{wrong:?}");
        assert!(applied.touched.is_empty() && applied.dirty.is_empty() && !applied.replaced);
    }
    step(&mut world, Restore::Piece { id, number: 1, rows: Bytes::from_static(&[1, 2, 200, 1, 0]) });
    let applied = step(&mut world, Restore::Finish { id, pieces: 2 });
    assert!(matches!(applied.response, Response::Refused(_)));
    let staged = |store: &Store| all_rows(store).keys().filter(|key| key.as_bytes()[0] == 12).count();
    assert_eq!(staged(&world.store), 2);
    step(&mut world, Restore::Abort { id });
    assert_eq!((visible(&world.store), staged(&world.store)), (before, 0));
}

#[test]
fn a_newer_restore_takes_the_place_of_an_older_one() {
    let mut world = World::default();
    world.set("k", "v");
    let pieces = saved(&world.store, 1_000);
    step(&mut world, Restore::Begin { id: Uuid(1) });
    step(&mut world, Restore::Piece { id: Uuid(1), number: 0, rows: pieces[0].clone() });
    assert_eq!(restore(&mut world, Uuid(2), &pieces).response, Response::Done);
    let late = step(&mut world, Restore::Finish { id: Uuid(1), pieces: 1 });
    assert!(matches!(late.response, Response::Refused(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_state_is_saved_and_restored_into_any_other(
        saved_history in vec(any_command(true), 0..30),
        history in vec(any_command(true), 0..30),
        piece_bytes in 1..2_000usize,
        restart in 0..6u64,
    ) {
        let mut source = World { index: 1, ..World::default() };
        saved_history.into_iter().for_each(|command| { source.apply(command); });
        let pieces = saved(&source.store, piece_bytes);
        let mut world = World { index: 1, ..World::default() };
        history.into_iter().for_each(|command| { world.apply(command); });
        let queries = queries();
        let before: Vec<u64> = queries.iter().map(|query| world.store.query_index(query)).collect();
        let id = Uuid(7);
        step(&mut world, Restore::Begin { id });
        for (number, rows) in (0..).zip(&pieces) {
            if number == restart {
                // As it comes back from a checkpoint, or arrives at a server that was behind.
                let mut builder = StoreBuilder::new();
                for (key, row) in all_rows(&world.store) {
                    builder.put_row(key.as_bytes(), &row).expect("own rows");
                }
                world.store = builder.finish();
            }
            step(&mut world, Restore::Piece { id, number, rows: rows.clone() });
        }
        let done = step(&mut world, Restore::Finish { id, pieces: pieces.len() as u64 });
        prop_assert_eq!(done.response, Response::Done);
        prop_assert_eq!(visible(&world.store), visible(&source.store));
        for (query, before) in queries.iter().zip(before) {
            let (restored, original) = (world.store.evaluate(query), source.store.evaluate(query));
            prop_assert!(restored.index > before, "{:?}", query);
            if let (Rows::Instances(a), Rows::Instances(b)) = (&restored.rows, &original.rows) {
                prop_assert_eq!(&a.items, &b.items);
            } else {
                prop_assert_eq!(restored.rows, original.rows);
            }
        }
        let newest = world.store.newest_index();
        world.set("new", "value");
        prop_assert!(world.entry("new").modify_index > newest);
    }
}
