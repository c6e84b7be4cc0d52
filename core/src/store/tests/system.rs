//! Autopilot's settings and the group's identity.

use super::super::{AutopilotSettings, RowKey, StoreBuilder};
use super::*;

fn set(world: &mut World, min_quorum: u64, cas: Option<u64>) -> Response {
    let settings = Box::new(AutopilotSettings { min_quorum, ..AutopilotSettings::default() });
    world.apply(Command::AutopilotSet { settings, cas }).response
}

#[test]
fn autopilots_settings_are_replaced_if_their_index_is_the_expected_one() {
    let mut world = World::default();
    assert_eq!(world.store.autopilot(), None);
    assert_eq!(set(&mut world, 1, Some(7)), Response::Held(false));
    assert_eq!(set(&mut world, 1, Some(0)), Response::Held(true));
    assert_eq!(set(&mut world, 2, Some(0)), Response::Held(false), "there are settings already");
    assert_eq!(set(&mut world, 3, Some(2)), Response::Held(true));
    assert_eq!(set(&mut world, 3, None), Response::Held(true), "nothing changes");
    let row = world.store.autopilot().expect("set");
    assert_eq!((row.settings.min_quorum, row.create_index, row.modify_index), (3, 2, 4));
}

#[test]
fn a_group_keeps_its_first_identity() {
    let mut world = World::default();
    assert_eq!(world.apply(Command::GroupNamed { id: Uuid(1) }).response, Response::Held(true));
    assert_eq!(world.apply(Command::GroupNamed { id: Uuid(2) }).response, Response::Held(false));
    assert_eq!(world.store.group(), Some(Uuid(1)));
}

#[test]
fn what_the_group_knows_about_itself_survives_a_checkpoint() {
    let mut world = World::default();
    set(&mut world, 5, None);
    let applied = world.apply(Command::GroupNamed { id: Uuid(1) });
    assert_eq!(applied.dirty.len(), 1);
    let mut builder = StoreBuilder::new();
    for key in world.store.rows() {
        assert_eq!(RowKey::from_bytes(key.as_bytes()), Ok(key.clone()));
        builder.put_row(key.as_bytes(), &world.store.row(&key).expect("listed")).unwrap();
    }
    let restored = builder.finish();
    assert_eq!((restored.autopilot(), restored.group()), (world.store.autopilot(), Some(Uuid(1))));
}
