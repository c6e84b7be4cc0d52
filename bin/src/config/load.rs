//! From files, flags and fragments to one object.
//!
//! Order: the defaults of development mode, files and directories as named, flags, `-hcl` fragments. Scalars are
//! replaced, maps are merged by key, lists are joined; lists from flags come before those from files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::definitions::Found;
use super::schema::{self, Fate, Problems};
use super::{ConfigError, hcl, keys};

/// Languages of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// HCL 1, which includes JSON.
    Hcl,
}

impl Format {
    /// The value of `-config-format`.
    pub fn parse(text: &str) -> Result<Option<Format>, ConfigError> {
        match text {
            "" => Ok(None),
            "json" => Ok(Some(Format::Json)),
            "hcl" => Ok(Some(Format::Hcl)),
            _ => Err(ConfigError::new("config: -config-format must be either 'hcl' or 'json'")),
        }
    }

    fn of(path: &Path) -> Option<Format> {
        match path.extension().and_then(OsStr::to_str) {
            Some("json") => Some(Format::Json),
            Some("hcl") => Some(Format::Hcl),
            _ => None,
        }
    }
}

/// Everything that configures an agent.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Development mode.
    pub dev: bool,
    /// `-config-file` and `-config-dir`, in order; each may be a file or a directory.
    pub paths: Vec<PathBuf>,
    /// `-config-format`: read every file as this, whatever its name.
    pub format: Option<Format>,
    /// Flags, in the schema's normal form.
    pub flags: Map<String, Value>,
    /// `-hcl` fragments.
    pub fragments: Vec<String>,
}

/// Where configuration files are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    paths: Vec<PathBuf>,
    format: Option<Format>,
}

impl Sources {
    /// The files that there are now, in order.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let files = |path: &PathBuf| files_of(path, self.format, &mut Vec::new()).unwrap_or_default();
        self.paths.iter().flat_map(files).map(|(file, _)| file).collect()
    }
}

/// The merged object, definitions in the order of their sources, and what to tell the user.
#[derive(Default)]
pub(crate) struct Merged {
    pub(crate) object: Map<String, Value>,
    pub(crate) services: Vec<Found>,
    pub(crate) checks: Vec<Found>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) sources: Sources,
    pub(crate) warnings: Vec<String>,
}

/// Reads and merges all sources.
pub(crate) fn merge_all(inputs: &Inputs) -> Result<Merged, ConfigError> {
    let sources = Sources { paths: inputs.paths.clone(), format: inputs.format };
    let mut merged = Merged { sources, ..Merged::default() };
    if inputs.dev {
        merge(&mut merged.object, dev_defaults(), Lists::Back);
    }
    for path in &inputs.paths {
        for (file, format) in files_of(path, inputs.format, &mut merged.warnings)? {
            let text = std::fs::read_to_string(&file).map_err(|e| ConfigError::io("read", &file, &e))?;
            let mut object = parse(&file.display().to_string(), &text, format)?;
            translate_old(&mut object, &mut merged.warnings);
            take_definitions(&mut object, &file.display().to_string(), &mut merged);
            merge(&mut merged.object, object, Lists::Back);
            merged.files.push(file);
        }
    }
    let mut flags = inputs.flags.clone();
    translate_old(&mut flags, &mut merged.warnings);
    merge(&mut merged.object, flags, Lists::Front);
    for (at, fragment) in inputs.fragments.iter().enumerate() {
        let name = format!("-hcl fragment {}", at + 1);
        let mut object = parse(&name, fragment, Format::Hcl)?;
        translate_old(&mut object, &mut merged.warnings);
        take_definitions(&mut object, &name, &mut merged);
        merge(&mut merged.object, object, Lists::Back);
    }
    Ok(merged)
}

/// What `-dev` changes. Everything is kept in memory, on the loopback interface.
fn dev_defaults() -> Map<String, Value> {
    let defaults = json!({
        "bind_addr": "127.0.0.1", "server": true, "connect": {"enabled": true}, "ui_config": {"enabled": true}, "enable_debug": true,
        "log_level": "DEBUG", "disable_keyring_file": true, "disable_anonymous_signature": true,
        "performance": {"raft_multiplier": 1}, "ports": {"grpc": 8502},
        "gossip_lan": {"gossip_interval": "100ms", "probe_interval": "100ms", "probe_timeout": "100ms", "suspicion_mult": 3},
        "gossip_wan": {"gossip_interval": "100ms", "probe_interval": "100ms", "probe_timeout": "100ms", "suspicion_mult": 3},
    });
    match defaults {
        Value::Object(object) => object,
        _ => unreachable!("written as an object above"),
    }
}

/// Parses one source and checks its keys and types.
pub fn parse(name: &str, text: &str, format: Format) -> Result<Map<String, Value>, ConfigError> {
    let document = match format {
        _ if text.trim().is_empty() => Ok(Value::Object(Map::new())),
        Format::Hcl => hcl::parse(text).map_err(|e| e.to_string()),
        Format::Json => serde_json::from_str(text).map_err(|e| {
            format!("line {}, column {}: {}", e.line(), e.column(), hcl::json_reason(&e.to_string()))
        }),
    };
    let document = document.map_err(|e| ConfigError::new(format!("failed to parse {name}: {e}")))?;
    let mut problems = Problems::default();
    let object = schema::normalise(document, &mut problems);
    if problems.is_empty() {
        return Ok(object);
    }
    if !problems.types.is_empty() {
        return Err(ConfigError::new(format!("failed to parse {name}: {}", problems.types.join("; "))));
    }
    let keys = problems.unknown.iter().map(|(key, _)| format!("invalid config key {key}")).collect();
    let mut error = ConfigError::listed(&format!("failed to parse {name}: "), keys);
    for (key, near) in problems.unknown {
        if let Some(near) = near {
            error = error.hint(format!("{key}: did you mean {near}?"));
        }
    }
    Err(error)
}

/// The files that a path stands for, each with its language.
fn files_of(
    path: &Path,
    format: Option<Format>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(PathBuf, Format)>, ConfigError> {
    let about = std::fs::metadata(path).map_err(|e| ConfigError::io("open", path, &e))?;
    let mut candidates = Vec::new();
    if about.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| ConfigError::io("read", path, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| ConfigError::io("read", path, &e))?;
            // Through links, as a mounted directory of links to files is common; directories below are left out.
            let is_dir = std::fs::metadata(entry.path()).is_ok_and(|about| about.is_dir());
            if !is_dir {
                candidates.push(entry.path());
            }
        }
        candidates.sort();
    } else {
        candidates.push(path.to_owned());
    }
    let mut files = Vec::new();
    for file in candidates {
        match format.or_else(|| Format::of(&file)) {
            Some(format) => files.push((file, format)),
            None => warnings.push(format!(
                "skipping file {}, extension must be .hcl or .json, or config format must be set",
                file.display()
            )),
        }
    }
    Ok(files)
}

/// Moves the definitions of a source aside: they are joined, not merged.
fn take_definitions(object: &mut Map<String, Value>, source: &str, merged: &mut Merged) {
    let mut take = |one: &str, many: &str| {
        let mut found = Vec::new();
        let mut add = |path: String, value| found.push(Found { source: source.to_owned(), path, value });
        if let Some(value) = object.remove(one) {
            add(one.to_owned(), value);
        }
        if let Some(Value::Array(list)) = object.remove(many) {
            for (at, value) in list.into_iter().enumerate() {
                add(format!("{many}[{at}]"), value);
            }
        }
        found
    };
    let (services, checks) = (take("service", "services"), take("check", "checks"));
    merged.services.extend(services);
    merged.checks.extend(checks);
}

/// Where the elements of a later list go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    Front,
    Back,
}

/// Merges `from` into `into`: scalars are replaced, maps merged, lists joined.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>, lists: Lists) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from, lists),
            (Some(Value::Array(into)), Value::Array(from)) => match lists {
                Lists::Back => into.extend(from),
                Lists::Front => drop(into.splice(0..0, from)),
            },
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Moves values of keys with an old name to their place, unless the same source sets that too.
fn translate_old(object: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    for row in keys::AGENT {
        let Fate::Old(target) = row.fate else { continue };
        let Some(value) = take(object, row.path) else { continue };
        warnings.push(format!("{} is deprecated: write {target} instead", row.path));
        // Naming the datacenter of ACLs was how they were switched on.
        if row.path == "acl_datacenter" && value.as_str().is_some_and(|name| !name.is_empty()) {
            put(object, "acl.enabled", Value::Bool(true));
        }
        match (value, lookup(object, target)) {
            // Two names for one list: both count.
            (Value::Array(list), Some(Value::Array(into))) => into.extend(list),
            (value, _) => put(object, target, value),
        }
    }
}

fn lookup<'a>(object: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        None => object.get_mut(path),
        Some((first, rest)) => lookup(object.get_mut(first)?.as_object_mut()?, rest),
    }
}

fn take(object: &mut Map<String, Value>, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => object.remove(path),
        Some((first, rest)) => take(object.get_mut(first)?.as_object_mut()?, rest),
    }
}

/// Sets a dotted path that is not set yet.
pub(crate) fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.entry(path).or_insert(value);
        }
        Some((first, rest)) => {
            let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The service definitions of files and directories, and warnings. Other keys are checked, and otherwise ignored.
pub fn services_of(paths: Vec<PathBuf>) -> Result<(Vec<Value>, Vec<String>), ConfigError> {
    let merged = merge_all(&Inputs { paths, ..Inputs::default() })?;
    Ok((merged.services.into_iter().map(|found| found.value).collect(), merged.warnings))
}
