//! Every key that Consul knows, up to 1.21, with its type, and what it is called today: `inventory.json`.

use proconsul::config::load::parse;
use proconsul::config::schema::Fate;
use proconsul::config::{Format, keys};
use serde_json::{Map, Value, json};

fn inventory() -> Map<String, Value> {
    serde_json::from_str(include_str!("inventory.json")).expect("an object")
}

/// A file with one key.
fn file(path: &str, value: Value) -> String {
    let nested = path.rsplit('.').fold(value, |inner, key| match key.strip_suffix("[]") {
        Some(list) => json!({ list: [inner] }),
        None => json!({ key: inner }),
    });
    nested.to_string()
}

/// A path as it is shown to people.
fn shown(path: &str) -> String {
    path.replace("[]", "[0]")
}

fn refusal(path: &str, value: Value) -> Option<String> {
    let text = file(path, value);
    parse("a.json", &text, Format::Json).err().map(|error| error.to_string())
}

/// A value of a type, and one that is of another.
fn values(path: &str, kind: &str) -> (Value, Value) {
    let texts = (json!(["a"]), json!("a"));
    match kind {
        "string" => (json!("a"), json!({"a": 1})),
        "duration" => (json!("10s"), json!(["a", "b"])),
        "bool" => (json!(true), json!("true")),
        "int" => (json!(1), json!("1")),
        "float" => (json!(1.5), json!("1.5")),
        "map" if path.ends_with("header") => (json!({"a": ["b"]}), json!("a")),
        "map" if path.ends_with("service_ttl") => (json!({"a": "1s"}), json!("a")),
        "map" if path.ends_with("service.tagged_addresses") => (json!({"lan": {"address": "a"}}), json!("a")),
        "map" => (json!({"a": "b"}), json!("a")),
        "object" => (json!({}), json!("a")),
        "list" => {
            let objects = refusal(path, json!([{}])).is_none();
            if objects { (json!([{}]), json!("a")) } else { texts }
        }
        other => panic!("{path}: an unknown type {other}"),
    }
}

#[test]
fn every_key_of_consul_is_known_by_its_type() {
    let inventory = inventory();
    assert!(inventory.len() > 400, "only {} keys", inventory.len());
    let mut wrong = Vec::new();
    for (path, about) in &inventory {
        let (good, bad) = values(path, about["type"].as_str().expect("a type"));
        wrong.extend(refusal(path, good).map(|why| format!("{path} is refused: {why}")));
        match refusal(path, bad.clone()) {
            None => wrong.push(format!("{path} takes {bad}")),
            Some(why) if !why.contains(&shown(path)) => wrong.push(format!("{path} is not named in: {why}")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} keys:\n{}", wrong.len(), inventory.len(), wrong.join("\n"));
}

#[test]
fn every_key_has_an_effect_or_a_reason_and_old_ones_lead_to_new_ones() {
    for (path, about) in &inventory() {
        if ["service.", "check."].iter().any(|part| path.starts_with(part)) {
            continue;
        }
        let row = keys::AGENT.iter().find(|row| row.path == path);
        let row = row.unwrap_or_else(|| panic!("{path} is not in the table"));
        match row.fate {
            Fate::Used | Fate::Enterprise => {}
            Fate::Later => assert!(keys::why(path).is_some(), "{path} has neither effect nor reason"),
            Fate::Old(new) => {
                assert!(about["deprecated"] == true, "{path} is not old");
                if let Some(using) = about["use"].as_str().filter(|using| using.contains(['.', '_'])) {
                    assert_eq!(new, using, "{path}");
                }
            }
        }
    }
}

#[test]
fn a_key_with_a_slip_in_it_is_refused_with_the_one_that_was_meant() {
    for path in inventory().keys().filter(|path| path.len() > 8 && !path.contains("protocol")) {
        let slip = format!("{path}x");
        let why = refusal(&slip, json!("a")).unwrap_or_else(|| panic!("{slip} is taken"));
        assert!(why.contains(&format!("invalid config key {}", shown(&slip))), "{why}");
        assert!(why.contains("did you mean"), "{why}");
    }
}
