//! Checks values from configuration files against the table of keys.
//!
//! Types are strict, with two exceptions that Consul's files rely on: a list of one element stands for the element,
//! and a map may be wrapped in a list. Key names ignore letter case, but not underscores; the keys of check
//! definitions ignore both. `null` is as if the key were absent.

use serde_json::{Map, Value};

use super::keys;

/// What may stand under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// Text.
    Str,
    /// Text such as `1m30s`, read when the files have been merged.
    Duration,
    /// A list of texts.
    StrList,
    /// Texts by name.
    StrMap,
    /// Durations by name.
    DurationMap,
    /// Lists of texts by name.
    ListMap,
    /// A map whose content is none of our business here.
    Any,
    /// A list of maps whose content is none of our business here.
    Objects,
    /// A service definition.
    Service,
    /// A list of service definitions.
    Services,
    /// A check definition.
    Check,
    /// A list of check definitions.
    Checks,
    /// A list of upstreams of a proxy.
    Upstreams,
}

/// Whether a key has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what it says.
    Used,
    /// It is read, and a warning says that it has no effect, and why: [`keys::why`].
    Later,
    /// It belongs to Consul Enterprise and has no effect.
    Enterprise,
    /// It has another name today.
    Old(&'static str),
}

/// One key of the agent's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Dotted path.
    pub path: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Whether it has an effect.
    pub fate: Fate,
    /// Its name in `DebugConfig` of `/v1/agent/self`; empty if it is not shown.
    pub reported: &'static str,
    /// The default as JSON; empty if there is none or it depends on other keys.
    pub default: &'static str,
}

/// One key of a definition.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Dotted path inside the definition.
    pub path: &'static str,
    /// What may stand there.
    pub kind: Kind,
}

/// The key where an object is spoken about: the whole configuration or a definition in it.
#[derive(Clone, Copy)]
enum Table {
    Agent,
    Service,
    Check,
    Upstream,
}

impl Table {
    /// Paths and kinds of this table.
    fn entries(self) -> Box<dyn Iterator<Item = (&'static str, Kind)>> {
        fn of(fields: &'static [Field]) -> Box<dyn Iterator<Item = (&'static str, Kind)>> {
            Box::new(fields.iter().map(|f| (f.path, f.kind)))
        }
        match self {
            Table::Agent => Box::new(keys::AGENT.iter().map(|r| (r.path, r.kind))),
            Table::Service => of(keys::SERVICE),
            Table::Check => of(keys::CHECK),
            Table::Upstream => of(keys::UPSTREAM),
        }
    }

    /// Whether `written` means the key `known` of this table.
    fn same(self, written: &str, known: &str) -> bool {
        if written.eq_ignore_ascii_case(known) {
            return true;
        }
        let plain = |s: &str| s.replace('_', "").to_ascii_lowercase();
        matches!(self, Table::Check) && {
            let written = plain(written);
            written == plain(known) || (known == "args" && written == "scriptargs")
        }
    }
}

/// What is wrong with one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Unknown keys: the dotted path as written, and a known key that may have been meant.
    pub unknown: Vec<(String, Option<String>)>,
    /// Values of a wrong type, as sentences that begin with the path.
    pub types: Vec<String>,
}

impl Problems {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.types.is_empty()
    }
}

/// Brings what a file says into the one form that the rest works with: canonical key names, no nulls, no wrapped
/// values. Collects every problem instead of stopping at the first.
pub fn normalise(document: Value, problems: &mut Problems) -> Map<String, Value> {
    match document {
        Value::Object(object) => fields(Table::Agent, "", "", object, problems),
        other => {
            problems.types.push(format!("the file must hold one object, not {}", article(&other)));
            Map::new()
        }
    }
}

/// Normalises the members of the object at `inside` (a path in `table`), shown to people as `shown`.
fn fields(
    table: Table,
    inside: &str,
    shown: &str,
    object: Map<String, Value>,
    problems: &mut Problems,
) -> Map<String, Value> {
    let mut out = Map::new();
    for (written, value) in object {
        let shown = join(shown, &written);
        let Some((key, kind)) = find(table, inside, &written) else {
            let near = nearest(table, inside, &written);
            problems.unknown.push((shown, near));
            continue;
        };
        if value.is_null() {
            continue;
        }
        let path = join(inside, key);
        let value = match kind {
            Some(kind) => read(kind, value, &shown, problems),
            None => object_of(value, &shown, problems)
                .map(|object| Value::Object(fields(table, &path, &shown, object, problems))),
        };
        if let Some(value) = value {
            out.insert(key.to_owned(), value);
        }
    }
    out
}

/// The canonical name of a member of the object at `inside`, with its kind; `None` as kind means a nested object.
fn find(table: Table, inside: &str, written: &str) -> Option<(&'static str, Option<Kind>)> {
    let mut group = None;
    for (path, kind) in table.entries() {
        let Some(rest) = below(path, inside) else { continue };
        match rest.split_once('.') {
            None if table.same(written, rest) => return Some((rest, Some(kind))),
            Some((first, _)) if table.same(written, first) => group = Some((first, None)),
            _ => {}
        }
    }
    group
}

/// The part of `path` below the object `inside`.
fn below<'a>(path: &'a str, inside: &str) -> Option<&'a str> {
    if inside.is_empty() { Some(path) } else { path.strip_prefix(inside)?.strip_prefix('.') }
}

fn join(inside: &str, key: &str) -> String {
    if inside.is_empty() { key.to_owned() } else { format!("{inside}.{key}") }
}

/// The known key that was probably meant: a neighbour with a similar name, or the same name elsewhere.
fn nearest(table: Table, inside: &str, written: &str) -> Option<String> {
    let written = written.to_ascii_lowercase();
    let plain = |s: &str| s.replace(['_', '-'], "");
    let neighbours = table.entries().filter_map(|(path, _)| below(path, inside)).map(|rest| {
        let name = rest.split('.').next().unwrap_or(rest);
        let distance = if plain(&name.to_ascii_lowercase()) == plain(&written) {
            0
        } else {
            strsim::osa_distance(&written, &name.to_ascii_lowercase())
        };
        (distance, name)
    });
    let limit = (written.len() / 3).clamp(1, 4);
    if let Some((_, name)) = neighbours.min().filter(|(distance, _)| *distance <= limit) {
        return Some(join(inside, name));
    }
    table
        .entries()
        .map(|(path, _)| path)
        .find(|path| path.rsplit('.').next() == Some(&written))
        .map(str::to_owned)
}

/// Takes a value out of a list of one.
fn unwrap_one(value: Value) -> Value {
    match value {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        other => other,
    }
}

fn object_of(value: Value, shown: &str, problems: &mut Problems) -> Option<Map<String, Value>> {
    match unwrap_one(value) {
        Value::Object(object) => Some(object),
        Value::Array(list) if list.iter().all(Value::is_object) && !list.is_empty() => {
            problems.types.push(format!("{shown} is given {} times, but there can be only one", list.len()));
            None
        }
        other => wrong(shown, "an object", &other, problems),
    }
}

fn wrong<T>(shown: &str, wanted: &str, found: &Value, problems: &mut Problems) -> Option<T> {
    let hint = match found {
        Value::String(_) if wanted.ends_with("number") || wanted.starts_with("true") => {
            "; write it without quotes"
        }
        Value::Number(_) | Value::Bool(_) if wanted == "text" => "; write it in quotes",
        Value::Number(_) if wanted.starts_with("a duration") => "; write it in quotes and with its unit",
        Value::String(_) if wanted.starts_with("a list") => "; put it in brackets",
        _ => "",
    };
    problems.types.push(format!("{shown} must be {wanted}, not {}{hint}", article(found)));
    None
}

/// A value, as short words for an error.
fn article(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.len() <= 40 => format!("the text {text:?}"),
        Value::String(_) => "a text".to_owned(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Checks one value and brings it into its normal form.
fn read(kind: Kind, value: Value, shown: &str, problems: &mut Problems) -> Option<Value> {
    let scalar = |value: Value, wanted: &str, fits: fn(&Value) -> bool, problems: &mut Problems| {
        let value = unwrap_one(value);
        if fits(&value) { Some(value) } else { wrong(shown, wanted, &value, problems) }
    };
    match kind {
        Kind::Bool => scalar(value, "true or false", Value::is_boolean, problems),
        Kind::Int => {
            scalar(value, "a whole number", |v| v.as_i64().is_some() || whole(v).is_some(), problems)
                .map(|v| v.as_i64().map_or_else(|| Value::from(whole(&v)), Value::from))
        }
        Kind::Float => scalar(value, "a number", Value::is_number, problems),
        Kind::Str => scalar(value, "text", Value::is_string, problems),
        Kind::Duration => scalar(value, "a duration such as \"10s\"", Value::is_string, problems),
        Kind::StrList => str_list(value, shown, problems),
        Kind::StrMap => map_of(value, shown, problems, |v, at, p| read(Kind::Str, v, at, p)),
        Kind::DurationMap => map_of(value, shown, problems, |v, at, p| read(Kind::Duration, v, at, p)),
        Kind::ListMap => map_of(value, shown, problems, str_list),
        Kind::Any => object_of(value, shown, problems).map(Value::Object),
        Kind::Service => object_of(value, shown, problems)
            .map(|object| Value::Object(fields(Table::Service, "", shown, object, problems))),
        Kind::Check => object_of(value, shown, problems)
            .map(|object| Value::Object(fields(Table::Check, "", shown, object, problems))),
        Kind::Objects => objects(value, shown, problems, |object, _, _| Value::Object(object)),
        Kind::Services => table_list(Table::Service, value, shown, problems),
        Kind::Checks => table_list(Table::Check, value, shown, problems),
        Kind::Upstreams => table_list(Table::Upstream, value, shown, problems),
    }
}

/// A float that is a whole number, as HCL and JSON may write it (`1e3`).
fn whole(value: &Value) -> Option<i64> {
    let float = value.as_f64()?;
    (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
}

fn str_list(value: Value, shown: &str, problems: &mut Problems) -> Option<Value> {
    let Value::Array(list) = value else {
        return wrong(shown, "a list of texts", &value, problems);
    };
    for (at, item) in list.iter().enumerate() {
        if !item.is_string() {
            return wrong(&format!("{shown}[{at}]"), "text", item, problems);
        }
    }
    Some(Value::Array(list))
}

fn map_of(
    value: Value,
    shown: &str,
    problems: &mut Problems,
    each: impl Fn(Value, &str, &mut Problems) -> Option<Value>,
) -> Option<Value> {
    let mut out = Map::new();
    for (key, value) in object_of(value, shown, problems)? {
        if let Some(value) = each(value, &format!("{shown}[{key}]"), problems) {
            out.insert(key, value);
        }
    }
    Some(Value::Object(out))
}

fn objects(
    value: Value,
    shown: &str,
    problems: &mut Problems,
    each: impl Fn(Map<String, Value>, &str, &mut Problems) -> Value,
) -> Option<Value> {
    let Value::Array(list) = value else {
        return wrong(shown, "a list of objects", &value, problems);
    };
    let mut out = Vec::with_capacity(list.len());
    for (at, item) in list.into_iter().enumerate() {
        let shown = format!("{shown}[{at}]");
        match item {
            Value::Object(object) => out.push(each(object, &shown, problems)),
            other => return wrong(&shown, "an object", &other, problems),
        }
    }
    Some(Value::Array(out))
}

fn table_list(table: Table, value: Value, shown: &str, problems: &mut Problems) -> Option<Value> {
    objects(value, shown, problems, |object, shown, problems| {
        Value::Object(fields(table, "", shown, object, problems))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(document: Value) -> (Value, Problems) {
        let mut problems = Problems::default();
        let object = normalise(document, &mut problems);
        (Value::Object(object), problems)
    }

    #[test]
    fn good_values_come_out_in_their_normal_form() {
        for (document, expected) in [
            (json!({"node_name": "a"}), json!({"node_name": "a"})),
            (json!({"NODE_NAME": ["a"]}), json!({"node_name": "a"})),
            (json!({"ports": null, "node_name": null}), json!({})),
            (json!({"ports": [{"http": 1}]}), json!({"ports": {"http": 1}})),
            (json!({"ports": {"http": 1e3}}), json!({"ports": {"http": 1000}})),
            (json!({"limits": {"rpc_rate": 12.5}}), json!({"limits": {"rpc_rate": 12.5}})),
            (
                json!({"service": {"Name": "a", "check": {"TTL": "5s"}}}),
                json!({"service": {"name": "a", "check": {"ttl": "5s"}}}),
            ),
            (
                json!({"check": {"DeregisterCriticalServiceAfter": "2m", "serviceid": "", "ScriptArgs": ["a"]}}),
                json!({"check": {"deregister_critical_service_after": "2m", "service_id": "", "args": ["a"]}}),
            ),
            (
                json!({"snapshot_agent": {"anything": {"goes": 1}}}),
                json!({"snapshot_agent": {"anything": {"goes": 1}}}),
            ),
        ] {
            assert_eq!(check(document.clone()), (expected, Problems::default()), "{document}");
        }
    }

    #[test]
    fn wrong_types_are_named_with_their_path() {
        for (document, path) in [
            (
                json!({"ports": {"http": "8500"}}),
                "ports.http must be a whole number, not the text \"8500\"; write it without quotes",
            ),
            (json!({"server": "true"}), "server must be true or false"),
            (json!({"server": 1}), "server must be true or false, not 1"),
            (json!({"node_name": ["a", "b"]}), "node_name must be text, not a list of 2"),
            (json!({"node_name": 5}), "node_name must be text, not 5; write it in quotes"),
            (
                json!({"check_update_interval": 5}),
                "check_update_interval must be a duration such as \"10s\", not 5",
            ),
            (json!({"node_meta": {"a": 1}}), "node_meta[a] must be text"),
            (
                json!({"retry_join": "a"}),
                "retry_join must be a list of texts, not the text \"a\"; put it in brackets",
            ),
            (json!({"services": {"name": "a"}}), "services must be a list of objects, not an object"),
            (json!({"service": "a"}), "service must be an object"),
            (json!({"service": [{"name": "a"}, {"name": "b"}]}), "service is given 2 times"),
            (json!({"check": {"args": "true"}}), "check.args must be a list of texts"),
            (
                json!({"dns_config": {"soa": {"min_ttl": "60s"}}}),
                "dns_config.soa.min_ttl must be a whole number",
            ),
            (json!([]), "the file must hold one object"),
        ] {
            let problems = check(document.clone()).1;
            assert_eq!(problems.types.len(), 1, "{document}: {problems:?}");
            assert!(problems.types[0].starts_with(path), "{document}: {problems:?}");
        }
    }

    #[test]
    fn unknown_keys_come_with_the_nearest_known_one() {
        for (document, path, near) in [
            (json!({"nosuch": 1}), "nosuch", None),
            (json!({"_comment": "hello"}), "_comment", None),
            (json!({"NodeName": "x"}), "NodeName", Some("node_name")),
            (json!({"datacentre": "x"}), "datacentre", Some("datacenter")),
            (json!({"raft_multiplier": 1}), "raft_multiplier", Some("performance.raft_multiplier")),
            (json!({"dns_config": {"node_tll": "1s"}}), "dns_config.node_tll", Some("dns_config.node_ttl")),
            (json!({"service": {"name": "x", "prot": 1}}), "service.prot", Some("port")),
            (
                json!({"service": {"EnableTagOverride": true}}),
                "service.EnableTagOverride",
                Some("enable_tag_override"),
            ),
            (json!({"check": {"name": "x", "nosuch": 1}}), "check.nosuch", None),
            (json!({"services": [{"nme": "x"}]}), "services[0].nme", Some("name")),
        ] {
            let problems = check(document.clone()).1;
            assert_eq!(problems.unknown, [(path.to_owned(), near.map(str::to_owned))], "{document}");
        }
    }

    #[test]
    fn every_key_has_one_row_and_its_default_is_json() {
        let mut seen = std::collections::BTreeSet::new();
        for row in keys::AGENT {
            assert!(seen.insert(row.path), "{} has two rows", row.path);
            if !row.default.is_empty() {
                serde_json::from_str::<Value>(row.default).expect(row.path);
            }
            let why = keys::why(row.path).is_some();
            assert!(row.fate != Fate::Later || why, "{} has no effect, and no reason", row.path);
            if let Fate::Old(path) = row.fate {
                assert!(keys::AGENT.iter().any(|r| r.path == path), "{} points at {path}", row.path);
            }
        }
    }
}
