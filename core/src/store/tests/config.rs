//! Configuration entries: conditions, what they need of one another, whom a change wakes.

use serde_json::{Value, json};

use super::*;
use crate::config_entry::{Draft, Kind};

fn set(world: &mut World, entry: &Value, cas: Option<u64>) -> Applied {
    let entry = Box::new(Draft::parse(entry).expect("it makes sense by itself"));
    world.apply(Command::ConfigSet { entry, cas })
}

fn delete(world: &mut World, kind: Kind, name: &str, cas: Option<u64>) -> Applied {
    world.apply(Command::ConfigDelete { kind, name: Text::new(name), cas })
}

fn refusal(applied: &Applied) -> String {
    match &applied.response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

fn defaults(name: &str, protocol: &str) -> Value {
    json!({"Kind": "service-defaults", "Name": name, "Protocol": protocol})
}

const HELD: Response = Response::Held(true);
const NOT_HELD: Response = Response::Held(false);

#[test]
fn conditions_compare_the_index_of_the_last_change() {
    let mut world = World::default();
    assert_eq!(set(&mut world, &defaults("Web", "http"), Some(3)).response, NOT_HELD);
    assert_eq!(set(&mut world, &defaults("Web", "http"), Some(0)).response, HELD);
    let at = world.store.config_entry(Kind::ServiceDefaults, "wEB").expect("written").modify_index;
    assert_eq!(set(&mut world, &defaults("web", "tcp"), Some(0)).response, NOT_HELD);
    assert_eq!(set(&mut world, &defaults("web", "tcp"), Some(at)).response, HELD);
    let row = world.store.config_entry(Kind::ServiceDefaults, "web").expect("written").clone();
    assert!(row.create_index == at && row.modify_index > at);
    assert_eq!(delete(&mut world, Kind::ServiceDefaults, "web", Some(at)).response, NOT_HELD);
    assert_eq!(delete(&mut world, Kind::ServiceDefaults, "web", Some(row.modify_index)).response, HELD);
    assert_eq!(delete(&mut world, Kind::ServiceDefaults, "web", None).response, HELD);
}

#[test]
fn all_entries_are_listed_by_the_names_of_their_kinds() {
    let mut world = World::default();
    set(&mut world, &defaults("b", "http"), None);
    set(&mut world, &defaults("a", "http"), None);
    set(&mut world, &json!({"Kind": "proxy-defaults", "Name": "global"}), None);
    let Rows::ConfigEntries(all) = world.store.evaluate(&Query::ConfigEntries(None)).rows else { panic!() };
    assert_eq!(all.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["global", "a", "b"]);
}

#[test]
fn writing_the_same_again_changes_nothing() {
    let mut world = World::default();
    set(&mut world, &defaults("web", "http"), None);
    let again = set(&mut world, &defaults("web", "http"), None);
    assert_eq!((again.response, again.touched, again.dirty), (HELD, Vec::new(), Vec::new()));
}

#[test]
fn a_change_wakes_those_who_look_at_the_entry_or_its_kind() {
    let mut world = World::default();
    let touched = set(&mut world, &defaults("web", "http"), None).touched;
    let looks = |query: &Query, world: &World| world.store.evaluate(query).watch;
    let entry = |kind, name: &str| Query::ConfigEntry { kind, name: Text::new(name) };
    let woken = |query: &Query| {
        looks(query, &world).iter().any(|key| touched.iter().any(|touched| key.woken_by(touched)))
    };
    assert!(woken(&entry(Kind::ServiceDefaults, "WEB")));
    assert!(woken(&Query::ConfigEntries(Some(Kind::ServiceDefaults))));
    assert!(woken(&Query::ConfigEntries(None)));
    assert!(!woken(&entry(Kind::ServiceDefaults, "db")));
    assert!(!woken(&entry(Kind::ServiceResolver, "web")));
    assert!(!woken(&Query::ConfigEntries(Some(Kind::ServiceResolver))));
}

#[test]
fn services_of_a_chain_must_speak_the_same() {
    let mut world = World::default();
    let router = json!({"Kind": "service-router", "Name": "w", "Routes": [
        {"Match": {"HTTP": {"PathPrefix": "/x"}}, "Destination": {"Service": "o"}}]});
    assert_eq!(
        refusal(&set(&mut world, &router, None)),
        "discovery chain \"w\" uses a protocol \"tcp\" that does not permit advanced routing or splitting behavior"
    );
    set(&mut world, &defaults("w", "http"), None);
    assert_eq!(
        refusal(&set(&mut world, &router, None)),
        "discovery chain \"w\" uses inconsistent protocols; service \"o\" has \"tcp\" which is not \"http\""
    );
    set(&mut world, &defaults("o", "http"), None);
    assert_eq!(set(&mut world, &router, None).response, HELD);
    assert_eq!(
        refusal(&delete(&mut world, Kind::ServiceDefaults, "o", None)),
        "discovery chain \"w\" uses inconsistent protocols; service \"o\" has \"tcp\" which is not \"http\""
    );
    assert!(
        world.store.config_entry(Kind::ServiceDefaults, "o").is_some(),
        "a refused change changes nothing"
    );
}

#[test]
fn circles_are_refused() {
    let mut world = World::default();
    let redirect =
        |from: &str, to: &str| json!({"Kind": "service-resolver", "Name": from, "Redirect": {"Service": to}});
    assert_eq!(set(&mut world, &redirect("w", "w"), None).response, HELD);
    assert_eq!(set(&mut world, &redirect("w", "z"), None).response, HELD);
    assert_eq!(
        refusal(&set(&mut world, &redirect("z", "w"), None)),
        "detected circular resolver redirect: [z.default.dc1 -> w.default.dc1 -> z.default.dc1]"
    );
    let mut world = World::default();
    set(
        &mut world,
        &json!({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}),
        None,
    );
    let split = |from: &str, to: &str| json!({"Kind": "service-splitter", "Name": from, "Splits": [{"Weight": 50, "Service": to}, {"Weight": 50}]});
    assert_eq!(set(&mut world, &split("a", "b"), None).response, HELD);
    assert_eq!(
        refusal(&set(&mut world, &split("b", "a"), None)),
        "detected circular reference: [splitter:b.default -> splitter:a.default -> splitter:b.default]"
    );
}

#[test]
fn subsets_that_are_in_use_cannot_be_removed() {
    let mut world = World::default();
    set(&mut world, &defaults("w", "http"), None);
    let resolver = json!({"Kind": "service-resolver", "Name": "w", "Subsets": {"v1": {}}});
    set(&mut world, &resolver, None);
    let splitter =
        json!({"Kind": "service-splitter", "Name": "w", "Splits": [{"Weight": 100, "ServiceSubset": "v1"}]});
    assert_eq!(set(&mut world, &splitter, None).response, HELD);
    assert_eq!(
        refusal(&delete(&mut world, Kind::ServiceResolver, "w", None)),
        "service \"w\" does not have a subset named \"v1\""
    );
    delete(&mut world, Kind::ServiceSplitter, "w", None);
    assert_eq!(delete(&mut world, Kind::ServiceResolver, "w", None).response, HELD);
}

#[test]
fn listeners_of_gateways_speak_what_their_services_speak() {
    let mut world = World::default();
    let ingress = |protocol: &str| {
        json!({"Kind": "ingress-gateway", "Name": "ig",
               "Listeners": [{"Port": 80, "Protocol": protocol, "Services": [{"Name": "db"}]}]})
    };
    assert_eq!(
        refusal(&set(&mut world, &ingress("http"), None)),
        "service \"db\" has protocol \"tcp\", which does not match defined listener protocol \"http\""
    );
    assert_eq!(set(&mut world, &ingress("tcp"), None).response, HELD);
    assert_eq!(
        refusal(&set(&mut world, &defaults("db", "http"), None)),
        "service \"db\" has protocol \"http\", which does not match defined listener protocol \"tcp\""
    );
    assert_eq!(
        refusal(&set(&mut world, &json!({"Kind": "terminating-gateway", "Name": "ig"}), None)),
        "cannot create a \"terminating-gateway\" config entry with name \"ig\", a \"ingress-gateway\" config entry \
         with that name already exists"
    );
}
