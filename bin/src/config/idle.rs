//! Keys that are accepted and have no effect: what is said about them.

use serde_json::Value;

use super::build::Settings;
use super::keys;
use super::schema::Fate;

/// Warnings about keys that are read but have no effect yet, those that promise security first.
pub(super) fn idle(settings: &Settings, dev: bool) -> Vec<String> {
    // What development mode sets by itself is no wish of the user's.
    let by_dev = |path: &str| dev && ["connect.enabled", "ports.grpc"].contains(&path);
    let is_off = |value: &Value| match value {
        Value::Bool(on) => !on,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_i64() == Some(-1),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
    };
    let protects = |path: &str| {
        path == "acl.enabled"
            || path.ends_with("verify_incoming")
            || path.ends_with("verify_outgoing")
            || path.ends_with("verify_server_hostname")
    };
    let set = |fate: Fate| {
        let paths = keys::AGENT.iter().filter(move |row| row.fate == fate).map(|row| row.path);
        paths.filter(|path| !by_dev(path) && settings.written(path).is_some_and(|value| !is_off(value)))
    };
    let (unsafe_ones, later): (Vec<&str>, Vec<&str>) = set(Fate::Later).partition(|path| protects(path));
    let mut unsafe_ones = unsafe_ones;
    let verifies = "tls.defaults.verify_incoming";
    unsafe_ones.extend(settings.bool(verifies).then_some(verifies));
    let enterprise: Vec<&str> = set(Fate::Enterprise).collect();
    [
        ("NOT PROTECTED: this version does not enforce", because(&unsafe_ones)),
        ("accepted, and without effect:", because(&later)),
        ("of Consul Enterprise and without effect:", enterprise.join(", ")),
    ]
    .into_iter()
    .filter(|(_, paths)| !paths.is_empty())
    .map(|(text, paths)| format!("{text} {paths}"))
    .collect()
}

/// Keys without effect, those with the same reason together.
fn because(paths: &[&str]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for path in paths {
        let why = keys::why(path).expect("a test looks for the reason of every key");
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, group)) => group.push(path),
            None => groups.push((why, vec![path])),
        }
    }
    let groups: Vec<String> =
        groups.iter().map(|(why, paths)| format!("{} ({why})", paths.join(", "))).collect();
    groups.join("; ")
}
