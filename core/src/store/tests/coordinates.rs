//! Coordinates of nodes.

use super::super::NodeCoordinate;
use super::*;
use crate::coordinate::Coordinate;

fn at(x: f64) -> Coordinate {
    let mut coordinate = Coordinate::default();
    coordinate.vec[0] = x;
    coordinate
}

fn located(nodes: &[(&str, f64)]) -> Command {
    Command::Coordinates(nodes.iter().map(|(node, x)| (Text::new(node), at(*x))).collect())
}

fn one(node: &str) -> Query {
    Query::NodeCoordinates(Text::new(node))
}

#[test]
fn a_coordinate_is_kept_under_the_name_that_its_node_is_registered_by() {
    let mut world = World::default();
    world.register(node("Alpha"));
    let applied = world.apply(located(&[("ALPHA", 1.0), ("unknown", 2.0)]));
    assert_eq!(applied.response, Response::Done);
    assert!(touched(&applied, &WatchKey::Coordinates));
    assert!(touched(&applied, &WatchKey::NodeCoordinates(Text::new("alpha"))));
    let Rows::Coordinates(rows) = world.store.evaluate(&Query::Coordinates).rows else {
        panic!("coordinates")
    };
    let expected = NodeCoordinate { node: Text::new("Alpha"), coordinate: at(1.0), modify_index: 2 };
    assert_eq!(rows, [expected.into()]);
    assert_eq!(world.store.coordinate("aLPHa").map(|row| row.coordinate.vec[0]), Some(1.0));
}

#[test]
fn an_index_moves_with_its_own_node_only_and_not_for_what_is_the_same() {
    let mut world = World::default();
    world.register(node("a"));
    world.register(node("b"));
    world.apply(located(&[("a", 1.0), ("b", 1.0)]));
    let applied = world.apply(located(&[("a", 1.0), ("b", 2.0)]));
    assert!(!touched(&applied, &WatchKey::NodeCoordinates(Text::new("a"))));
    assert_eq!((world.index_of(&one("a")), world.index_of(&one("b"))), (3, 4));
    let applied = world.apply(located(&[("a", 1.0), ("b", 2.0)]));
    assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    assert_eq!(world.index_of(&Query::Coordinates), 4);
}

#[test]
fn a_coordinate_goes_with_its_node() {
    let mut world = World::default();
    world.register(node("a"));
    world.apply(located(&[("a", 1.0)]));
    assert!(world.store.evaluate(&one("A")).exists);
    let applied = world.deregister("a", None, None);
    assert!(touched(&applied, &WatchKey::NodeCoordinates(Text::new("a"))));
    let found = world.store.evaluate(&one("a"));
    assert_eq!((found.exists, found.index), (false, 3));
    world.register(node("a"));
    assert_eq!(world.store.coordinate("a"), None);
}
