//! One configuration in a directory of its own.

use std::ffi::OsString;
use std::path::Path;

use proconsul::cli::{self, Terminal};
use proconsul::commands::agent;
use proconsul::config::{Config, report};
use regex_lite::Regex;
use serde_json::{Map, Value, json};

/// Ports by the names that cases know them by. Nothing listens on them.
const PORTS: [&str; 8] = ["http", "dns", "grpc", "server", "serf_lan", "serf_wan", "x", "y"];
const FIRST_PORT: u16 = 41_520;

/// File that every run has first.
const COMMON: &str = "zz-common.json";

pub(crate) struct Trial<'a> {
    input: &'a Value,
    dir: tempfile::TempDir,
}

impl<'a> Trial<'a> {
    /// Writes the files of a case, and goes to where they are.
    pub(crate) fn new(input: &'a Value) -> Trial<'a> {
        let trial = Trial { input, dir: tempfile::tempdir().expect("a directory") };
        let dir = trial.dir.path().canonicalize().expect("there");
        for (name, text) in input["files"].as_object().into_iter().flatten() {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("it is below the directory")).expect("made");
            let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
            std::fs::write(path, trial.fill(&text)).expect("written");
        }
        let ports: Map<String, Value> =
            (0..6).map(|at| (PORTS[at].to_owned(), json!(FIRST_PORT + at as u16))).collect();
        let mut common = json!({
            "node_name": "conf-node",
            "bind_addr": "127.0.0.1",
            "data_dir": dir.join("data"),
            "disable_update_check": true,
            "ports": ports,
        });
        let common = common.as_object_mut().expect("an object");
        for key in trial.texts("without") {
            common.remove(&key);
        }
        std::fs::write(dir.join(COMMON), Value::from(common.clone()).to_string()).expect("written");
        std::env::set_current_dir(&dir).expect("there");
        trial
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.input[key].as_array().into_iter().flatten();
        list.map(|text| text.as_str().expect("text").to_owned()).collect()
    }

    fn is(&self, key: &str) -> bool {
        self.input[key] == true
    }

    fn dir(&self) -> String {
        self.dir.path().canonicalize().expect("there").display().to_string()
    }

    /// Puts ports and the directory in the place of their names.
    fn fill(&self, text: &str) -> String {
        let mut text = text.replace("${dir}", &self.dir());
        for (at, name) in (0..).zip(PORTS) {
            text = text.replace(&format!("${{{name}}}"), &(FIRST_PORT + at).to_string());
        }
        text
    }

    /// The opposite, in texts and numbers at any depth.
    fn normal(&self, value: Value) -> Value {
        match value {
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, self.normal(value))).collect(),
            Value::Array(list) => list.into_iter().map(|value| self.normal(value)).collect(),
            Value::Number(number) => match number.as_u64().and_then(name_of) {
                Some(name) => Value::from(name),
                None => Value::Number(number),
            },
            Value::String(text) => {
                let mut text = text.replace(&self.dir(), "<dir>");
                for (at, name) in (0..).zip(PORTS) {
                    text = text.replace(&(FIRST_PORT + at).to_string(), &format!("<{name}>"));
                }
                Value::from(text)
            }
            other => other,
        }
    }

    /// Where what comes out is not what was recorded.
    pub(crate) fn problems(&self) -> Vec<String> {
        let expected = &self.input["expect"];
        let mut problems = Vec::new();
        if self.input["validate"] != false {
            compare("validate", &expected["validate"], &self.validate(), &mut problems);
        }
        if self.input["start"] != false {
            let (starts, error, settings) = match self.configuration() {
                Ok(config) => (true, Value::Null, self.settings(&config)),
                Err(error) => (false, Value::from(line(&error)), Value::Null),
            };
            compare("starts", &expected["starts"], &json!(starts), &mut problems);
            if expected.get("error").is_some() {
                compare("error", &expected["error"], &self.normal(error), &mut problems);
            }
            if expected.get("settings").is_some() {
                compare("settings", &expected["settings"], &settings, &mut problems);
            }
        }
        problems
    }

    fn arguments(&self) -> Vec<String> {
        self.texts("args").iter().map(|text| self.fill(text)).collect()
    }

    /// What the command `validate` says about the files among the arguments.
    fn validate(&self) -> Value {
        let arguments = self.arguments();
        let (mut flags, mut paths) = (Vec::new(), Vec::new());
        if !self.is("alone") {
            paths.push(COMMON.to_owned());
        }
        for (at, argument) in arguments.iter().enumerate() {
            let body = argument.trim_start_matches('-');
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (body, arguments.get(at + 1).cloned().unwrap_or_default()),
            };
            match name {
                _ if !argument.starts_with('-') => {}
                "config-file" | "config-dir" => paths.push(value),
                "config-format" => flags.push(format!("-config-format={value}")),
                _ => {}
            }
        }
        let command = ["validate".to_owned()].into_iter().chain(flags).chain(paths);
        let (status, out, err_text) = run(&command.collect::<Vec<_>>());
        let first = err_text.lines().find(|line| line.starts_with("Config validation failed"));
        let first = first.or(err_text.lines().next()).unwrap_or_default();
        let err = if first.ends_with("occurred:") { line(&err_text) } else { first.to_owned() };
        let mut said = json!({"exit": status, "out": out.trim()});
        if status != 0 {
            said["err"] = Value::from(err);
        }
        if self.is("warnings") && !err_text.trim().is_empty() {
            let mut lines: Vec<&str> = err_text.trim().lines().collect();
            lines.sort_unstable();
            said["warnings"] = json!(lines);
        }
        self.normal(said)
    }

    fn configuration(&self) -> Result<Config, String> {
        let mut arguments: Vec<OsString> = Vec::new();
        if !self.is("alone") {
            arguments.extend(["-config-file".into(), COMMON.into()]);
        }
        arguments.extend(self.arguments().into_iter().map(OsString::from));
        let matches = cli::flags::parse(agent::command(), &arguments)?;
        agent::configuration(&matches).map_err(|error| error.to_string())
    }

    /// Settings by their flat names, as the running agent shows them.
    fn settings(&self, config: &Config) -> Value {
        let mut flat = Map::new();
        flatten("DebugConfig.", &report::debug(config), &mut flat);
        flat.insert("Config.Datacenter".to_owned(), json!(config.datacenter));
        flat.insert("Config.NodeName".to_owned(), json!(config.node_name));
        flat.insert("Config.NodeID".to_owned(), json!(config.node_id.map(|id| id.to_string())));
        flat.insert("Config.Server".to_owned(), json!(config.server));
        flat.insert("Meta".to_owned(), json!(config.node_meta));
        self.normal(Value::Object(flat))
    }
}

fn name_of(number: u64) -> Option<String> {
    let at = usize::try_from(number.checked_sub(FIRST_PORT.into())?).ok()?;
    PORTS.get(at).map(|name| format!("<{name}>"))
}

/// Runs a command within this process: its status, and what it says.
fn run(arguments: &[String]) -> (u8, String, String) {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = Terminal {
        program: cli::program_name(Some(Path::new("consul").as_os_str())),
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        env: &|_| None,
        err_is_terminal: false,
        colours: false,
    };
    let status = cli::run(&arguments, &mut terminal);
    (status, String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

/// The line that gives the reason; a heading is followed by its first point.
fn line(error: &str) -> String {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    match lines.next().filter(|_| first.ends_with("occurred:") || first.ends_with("decoding:")) {
        Some(second) => format!("{first} {second}"),
        None => first.to_owned(),
    }
}

/// Members of objects whose names begin with capital letters, by the path of their names.
fn flatten(prefix: &str, value: &Value, flat: &mut Map<String, Value>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let is_group = |map: &Map<String, Value>| {
            !map.is_empty() && map.keys().all(|key| key.starts_with(|c: char| c.is_ascii_uppercase()))
        };
        match value.as_object() {
            Some(map) if is_group(map) => flatten(&format!("{path}."), value, flat),
            _ => {
                flat.insert(path, value.clone());
            }
        }
    }
}

/// Notes what differs: objects may have more members than recorded, and `{"re": …}` is a pattern.
fn compare(path: &str, expected: &Value, found: &Value, problems: &mut Vec<String>) {
    if let Value::Object(map) = expected {
        if let (1, Some(pattern)) = (map.len(), map.get("re").and_then(Value::as_str)) {
            let regex = Regex::new(pattern).expect("a pattern");
            if !found.as_str().is_some_and(|text| regex.is_match(text)) {
                problems.push(format!("{path}: /{pattern}/ was recorded, not {found}"));
            }
            return;
        }
        for (key, value) in map {
            compare(&format!("{path}.{key}"), value, found.get(key).unwrap_or(&Value::Null), problems);
        }
    } else if let (Value::Array(expected), Some(found)) = (expected, found.as_array())
        && expected.len() == found.len()
    {
        for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
            compare(&format!("{path}[{at}]"), expected, found, problems);
        }
    } else if expected != found && !same_number(expected, found) {
        problems.push(format!("{path}: {expected} was recorded, not {found}"));
    }
}

/// `1` and `1.0` are the same.
fn same_number(expected: &Value, found: &Value) -> bool {
    expected.as_f64().is_some_and(|number| found.as_f64() == Some(number))
}
