//! Ways to look at an output, and what counts as the same.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use super::world::{PORTS, World};

/// Members of JSON that differ from run to run.
const VOLATILE: [&str; 12] = [
    "CreateIndex",
    "ModifyIndex",
    "RaftIndex",
    "LastIndex",
    "Hash",
    "ContentHash",
    "CreateTime",
    "ExpirationTime",
    "CreatedAt",
    "UpdatedAt",
    "LTime",
    "LockDelay",
];

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| format!("{pattern}: {error}"))
}

/// Whether a text matches an expression of the recordings, which may begin with conditions that all have to hold.
pub fn matches(pattern: &str, text: &str) -> Result<bool, String> {
    if let Some(conditions) = conditions(pattern) {
        let conditions = conditions?;
        return Ok(text.lines().any(|line| conditions.iter().all(|one| one.is_match(line))));
    }
    Ok(regex(&format!("(?m){pattern}"))?.is_match(text))
}

/// Replacements that a case asks for.
pub type Masks = Vec<Mask>;

/// One of them.
pub enum Mask {
    /// Of what matches.
    Match(Regex, String),
    /// Of lines in which all of these match.
    Lines(Vec<Regex>, String),
}

impl Mask {
    fn applied(&self, text: &str) -> String {
        match self {
            Mask::Match(mask, replacement) => mask.replace_all(text, replacement.as_str()).into_owned(),
            Mask::Lines(conditions, replacement) => {
                let line = |line| {
                    let all = conditions.iter().all(|one| one.is_match(line));
                    if all { replacement.as_str() } else { line }
                };
                text.split('\n').map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// The conditions that an expression of the recordings begins with, if it consists of them.
fn conditions(pattern: &str) -> Option<Result<Vec<Regex>, String>> {
    let rest = pattern.strip_prefix("^(?=.*")?;
    let parts = rest.trim_end_matches(".*$").trim_end_matches(')').split(")(?=.*");
    Some(parts.map(regex).collect())
}

pub fn masks(world: &World, case: &Value, step: &Value) -> Result<Masks, String> {
    let all = [&case["mask"], &step["mask"]];
    let all = all.into_iter().filter_map(Value::as_array).flatten();
    let read = |mask: &Value| {
        let (pattern, replacement) =
            (mask[0].as_str().unwrap_or_default(), mask[1].as_str().unwrap_or_default());
        let pattern = world.filled(pattern)?;
        if let Some(conditions) = conditions(&pattern) {
            return Ok(Mask::Lines(conditions?, replacement.to_owned()));
        }
        let groups = regex(r"\\(\d)")?;
        let replacement = groups.replace_all(&replacement.replace('$', "$$"), "$${$1}").into_owned();
        Ok(Mask::Match(regex(&format!("(?m){pattern}"))?, replacement))
    };
    all.map(read).collect()
}

/// A text without what differs from run to run.
pub fn normal(world: &World, text: &str, masks: &Masks) -> String {
    let dir = &world.variables["dir"];
    let mut text = text.replace(dir, "<dir>").replace(&world.variables["binary"], "<binary>");
    for mask in masks {
        text = mask.applied(&text);
    }
    let mut longest: Vec<(&String, &String)> = world.variables.iter().collect();
    longest.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    for (name, value) in longest {
        let is_port = name.rsplit_once('.').is_some_and(|(_, port)| PORTS.contains(&port));
        if is_port {
            text = number_replaced(&text, value, &format!("<{name}>"));
        } else if name != "dir" && name != "binary" && value.len() >= 8 {
            text = text.replace(value, &format!("<{name}>"));
        }
    }
    let uuid =
        regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b").expect("a good one");
    text = uuid
        .replace_all(&text, |found: &regex_lite::Captures<'_>| {
            let known = found[0].starts_with("00000000-0000-0000-0000-0000000000");
            if known { found[0].to_owned() } else { "<uuid>".to_owned() }
        })
        .into_owned();
    let time = regex(
        r"\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4} UTC| ?Z|[+-]\d\d:?\d\d)?( m=[+-][\d.]+)?",
    );
    text = time.expect("a good one").replace_all(&text, "<time>").into_owned();
    text = text.replace("Consul agent", "agent");
    if world.variables.keys().any(|name| name.ends_with(".http")) {
        text = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
    }
    let blanks = regex(" {2,}").expect("a good one");
    let lines: Vec<String> =
        text.split('\n').map(|line| blanks.replace_all(line, "  ").trim_end().to_owned()).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Replaces a number where it stands alone.
fn number_replaced(text: &str, number: &str, by: &str) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while let Some(found) = text[at..].find(number).map(|found| found + at) {
        let end = found + number.len();
        let before = text[..found].chars().next_back().is_some_and(|c| c.is_ascii_digit() || c == '.');
        let after = text[end..].chars().next().is_some_and(|c| c.is_ascii_digit());
        out.push_str(&text[at..found]);
        out.push_str(if before || after { number } else { by });
        at = end;
    }
    out + &text[at..]
}

fn normal_json(world: &World, value: Value, masks: &Masks) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let plain = !value.is_object() && !value.is_array();
                let value = if VOLATILE.contains(&&*key) && plain {
                    "<v>".into()
                } else {
                    normal_json(world, value, masks)
                };
                (normal(world, &key, masks), value)
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.into_iter().map(|one| normal_json(world, one, masks)).collect(),
        Value::String(text) => normal(world, &text, masks).into(),
        other => other,
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().map(|(key, value)| (key, sorted(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(sorted).collect();
            list.sort_by_key(ToString::to_string);
            list.into()
        }
        other => other,
    }
}

/// An output as a step wants to look at it.
pub fn view(world: &World, text: &str, how: &str, masks: &Masks, sort: bool) -> Result<Value, String> {
    let plain = || normal(world, text, masks);
    Ok(match how {
        "raw" => text.into(),
        "text" => plain().into(),
        "has" => {
            let lines: BTreeSet<String> =
                plain().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
            json!(lines)
        }
        "sorted" => {
            let text = plain();
            let mut lines: Vec<&str> = text.split('\n').collect();
            lines.sort_unstable();
            json!(lines)
        }
        "head" => plain().lines().find(|line| !line.trim().is_empty()).unwrap_or_default().into(),
        "json" => {
            let value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}: {text}"))?;
            let value = normal_json(world, value, masks);
            if sort { sorted(value) } else { value }
        }
        "table" => table(world, text, masks),
        "pairs" => {
            let pair = regex(r"^([^=:]+?) *[=:] *(.*)$")?;
            let text = plain();
            let pairs: BTreeMap<String, String> = text
                .lines()
                .filter_map(|line| pair.captures(line.trim()))
                .map(|found| (found[1].to_owned(), found[2].to_owned()))
                .collect();
            json!(pairs)
        }
        "keys" => {
            let key = regex(r"^([^=:]+?) *[=:]")?;
            let keys: BTreeSet<String> = text
                .lines()
                .filter_map(|line| key.captures(line))
                .map(|found| found[1].trim().to_owned())
                .collect();
            json!(keys)
        }
        "flags" => {
            let flag = regex(r"(?m)^\s+-([\w-]+)(?:[ =<].*)?$")?;
            let flags: BTreeSet<String> = flag.captures_iter(text).map(|found| found[1].to_owned()).collect();
            json!(flags)
        }
        "commands" => {
            let list = regex(r"(?:Subcommands|Available commands are):\n((?:\s+\S.*\n?|\n)+)")?;
            let commands: BTreeSet<String> = list
                .captures(text)
                .map(|found| {
                    found[1]
                        .lines()
                        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                        .collect()
                })
                .unwrap_or_default();
            json!(commands)
        }
        "empty" => text.trim().is_empty().into(),
        other => return Err(format!("unknown view {other}")),
    })
}

/// Rows as objects: a cell begins where its heading begins.
fn table(world: &World, text: &str, masks: &Masks) -> Value {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let Some(heading) = lines.next() else { return json!([]) };
    let heads = regex(r"\S+(?: \S+)*").expect("a good one");
    let starts: Vec<(usize, &str)> =
        heads.find_iter(heading).map(|one| (one.start(), one.as_str())).collect();
    let row = |line: &str| {
        let chars: Vec<char> = line.chars().collect();
        let cell = |at: usize| {
            let from = starts[at].0.min(chars.len());
            let to = starts.get(at + 1).map_or(chars.len(), |next| next.0.min(chars.len()));
            chars[from..to].iter().collect::<String>()
        };
        let cells =
            (0..starts.len()).map(|at| (starts[at].1.to_owned(), normal(world, &cell(at), masks).into()));
        Value::Object(cells.collect())
    };
    lines.map(row).collect()
}

/// Whether an output is as expected: objects may have more members, lists of names may name more.
pub fn same(wanted: &Value, got: &Value, how: &str) -> Result<bool, String> {
    if let (Some(map), Some(pattern)) = (wanted.as_object(), wanted["re"].as_str())
        && map.len() == 1
    {
        return got.as_str().map_or(Ok(false), |text| matches(pattern, text));
    }
    if let ("flags" | "commands" | "keys" | "has" | "tar", Some(wanted)) = (how, wanted.as_array()) {
        return Ok(got.as_array().is_some_and(|got| wanted.iter().all(|one| got.contains(one))));
    }
    Ok(match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            for (key, value) in wanted {
                match got.get(key) {
                    Some(got) if same(value, got, "")? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Array(wanted), Value::Array(got)) => {
            if wanted.len() != got.len() {
                return Ok(false);
            }
            for (wanted, got) in wanted.iter().zip(got) {
                if !same(wanted, got, "")? {
                    return Ok(false);
                }
            }
            true
        }
        (wanted, got) => wanted == got,
    })
}
