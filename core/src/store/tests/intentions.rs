//! Intentions: one truth for both parts of the API, and whom a change wakes.

use serde_json::json;

use super::*;
use crate::config_entry::{Draft, Kind};
use crate::store::{IntentionCommand, IntentionDraft, Side};

fn draft(source: &str, destination: &str, action: &str) -> Box<IntentionDraft> {
    Box::new(IntentionDraft {
        source: Text::new(source),
        destination: Text::new(destination),
        action: Text::new(action),
        at: Text::new("2026-11-21T05:06:16Z"),
        ..IntentionDraft::default()
    })
}

fn create(world: &mut World, id: u128, source: &str, destination: &str, action: &str) -> Response {
    let draft = draft(source, destination, action);
    world.apply(Command::Intention(IntentionCommand::Create { id: Uuid(id), draft })).response
}

fn set(world: &mut World, entry: &serde_json::Value) -> Response {
    let entry = Box::new(Draft::parse(entry).expect("it makes sense by itself"));
    world.apply(Command::ConfigSet { entry, cas: None }).response
}

fn refusal(response: &Response) -> String {
    match response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

fn all(world: &World) -> Vec<String> {
    ids(&world.store.evaluate(&Query::Intentions))
}

fn one(world: &World, id: u128) -> crate::store::Intention {
    match world.store.evaluate(&Query::Intention(Uuid(id))).rows {
        Rows::Intentions(mut rows) => rows.pop().expect("it is there"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_most_precise_one_decides() {
    let mut world = World::default();
    assert!(world.store.may_speak("web", "db").allowed);
    for (id, source, destination, action) in
        [(1, "*", "*", "deny"), (2, "web", "*", "allow"), (3, "*", "db", "deny"), (4, "web", "db", "allow")]
    {
        assert_eq!(create(&mut world, id, source, destination, action), Response::IntentionSaved(Uuid(id)));
    }
    assert_eq!(all(&world), ["web>db", "*>db", "web>*", "*>*"]);
    let says = |source, destination| world.store.may_speak(source, destination).allowed;
    assert!(says("web", "db") && says("web", "other"));
    assert!(!says("api", "db") && !says("api", "other"));
}

#[test]
fn an_intention_is_a_source_of_the_entry_of_its_destination() {
    let mut world = World::default();
    create(&mut world, 1, "web", "db", "allow");
    create(&mut world, 2, "api", "DB", "deny");
    let entry = world.store.config_entry(Kind::ServiceIntentions, "db").expect("made with the first").clone();
    assert_eq!(entry.name, "db");
    let shown = crate::api::render::written(|json| entry.write(json));
    let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
    assert_eq!(shown["Sources"][0]["Name"], "api");
    assert_eq!(shown["Sources"][1]["LegacyID"], Uuid(1).to_string());
    assert!(shown["Sources"][0].get("LegacyModifyIndex").is_none(), "{shown}");
    for id in [1, 2] {
        let done = world.apply(Command::Intention(IntentionCommand::Delete { id: Uuid(id) }));
        assert_eq!(done.response, Response::Held(true));
    }
    assert!(world.store.config_entry(Kind::ServiceIntentions, "db").is_none(), "gone with its last source");
}

#[test]
fn each_one_has_its_own_indexes() {
    let mut world = World::default();
    create(&mut world, 1, "web", "db", "allow");
    let first = one(&world, 1);
    create(&mut world, 2, "*", "db", "deny");
    assert_eq!(one(&world, 1), first, "another source of the same entry changes nothing");
    assert!(one(&world, 2).create_index > first.modify_index);
    let draft = draft("web", "other", "deny");
    let done = world.apply(Command::Intention(IntentionCommand::Update { id: Uuid(1), draft }));
    assert_eq!(done.response, Response::IntentionSaved(Uuid(1)));
    let moved = one(&world, 1);
    assert_eq!((moved.create_index, moved.created_at.clone()), (first.create_index, first.created_at));
    assert!(moved.modify_index > first.modify_index && moved.action == "deny");
    assert_eq!(all(&world), ["web>other", "*>db"]);
}

#[test]
fn a_pair_has_one_intention_however_it_is_written() {
    let mut world = World::default();
    create(&mut world, 1, "web", "db", "allow");
    let again = create(&mut world, 2, "web", "db", "deny");
    assert!(refusal(&again).starts_with("duplicate intention found: ALLOW default/web => default/db (ID: "));
    create(&mut world, 3, "api", "db", "allow");
    let taken = IntentionCommand::Update { id: Uuid(3), draft: draft("web", "db", "deny") };
    assert!(refusal(&world.apply(Command::Intention(taken)).response).starts_with("duplicate"));
    // By the pair it is replaced, and has no identity any more.
    let replaced = IntentionCommand::Upsert(draft("web", "db", "deny"));
    assert_eq!(world.apply(Command::Intention(replaced)).response, Response::Held(true));
    assert!(!world.store.may_speak("web", "db").allowed);
    assert!(!world.store.evaluate(&Query::Intention(Uuid(1))).exists);
    assert_eq!(one(&world, 3).source, "api", "the other one keeps its own");
    let unknown = IntentionCommand::Delete { id: Uuid(1) };
    let why = refusal(&world.apply(Command::Intention(unknown)).response);
    assert_eq!(why, format!("Cannot delete non-existent intention: '{}'", Uuid(1)));
}

#[test]
fn an_entry_that_is_written_as_a_whole_is_seen_as_intentions() {
    let mut world = World::default();
    let sources = json!([{"Name": "web", "Action": "allow"}, {"Name": "*", "Action": "deny"}]);
    set(&mut world, &json!({"Kind": "service-intentions", "Name": "db", "Sources": sources}));
    assert_eq!(all(&world), ["web>db", "*>db"]);
    assert!(!world.store.may_speak("api", "db").allowed);
    let sources = json!([{"Name": "web", "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}]}]);
    let entry = json!({"Kind": "service-intentions", "Name": "db", "Sources": sources});
    assert!(refusal(&set(&mut world, &entry)).contains("incompatible with L7 intentions"));
    set(&mut world, &json!({"Kind": "service-defaults", "Name": "db", "Protocol": "http"}));
    assert_eq!(set(&mut world, &entry), Response::Held(true));
    let decision = world.store.may_speak("web", "db");
    assert!(decision.by_permissions && !decision.allowed, "for HTTP to say, so not for a connection");
}

#[test]
fn a_change_wakes_those_who_ask_about_its_destination() {
    let mut world = World::default();
    let matching = |name: &str| Query::MatchIntentions {
        side: Side::Destination,
        names: vec![(Text::new(name), Text::new(name))],
    };
    let (db, other) = (matching("db"), matching("other"));
    let watch = |world: &World, query: &Query| world.store.evaluate(query).watch;
    let draft = |destination| IntentionCommand::Upsert(draft("web", destination, "deny"));
    let applied = world.apply(Command::Intention(draft("DB")));
    let woken = |applied: &Applied, query| watch(&world, query).iter().any(|key| touched(applied, key));
    assert!(woken(&applied, &db) && woken(&applied, &Query::Intentions));
    assert!(!woken(&applied, &other));
    let applied = World::default().apply(Command::Intention(draft("*")));
    assert!(woken(&applied, &db) && woken(&applied, &other));
}
