//! Case files: requests in their order, each with the recorded answer. The format is described in `cases/README.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rules::Rules;

/// One case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The path below the folder of cases, with slashes.
    #[serde(skip)]
    pub file: String,
    pub steps: Vec<Step>,
    /// The first agent, called `a`.
    #[serde(default)]
    pub agent: AgentSpec,
    /// Further agents by name.
    #[serde(default)]
    pub agents: BTreeMap<String, AgentSpec>,
    #[serde(default)]
    pub acl: Acl,
    /// Defaults for the steps.
    #[serde(default, rename = "match")]
    pub rules: Rules,
    #[serde(rename = "about")]
    _about: IgnoredAny,
    #[serde(rename = "note")]
    _note: Option<IgnoredAny>,
    // These two have only a meaning for a recorder.
    #[serde(rename = "indexes")]
    _indexes: Option<IgnoredAny>,
    #[serde(rename = "replace")]
    _replace: Option<IgnoredAny>,
}

/// Whether tokens are asked for.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Value")]
pub enum Acl {
    #[default]
    Off,
    /// They are bootstrapped before the first step, and the root token is sent by default.
    Bootstrapped,
    /// The steps do that.
    Manual,
}

impl TryFrom<Value> for Acl {
    type Error = String;

    fn try_from(value: Value) -> Result<Acl, String> {
        match value {
            Value::Bool(true) => Ok(Acl::Bootstrapped),
            Value::String(text) if text == "manual" => Ok(Acl::Manual),
            other => Err(format!("{other} is neither true nor \"manual\"")),
        }
    }
}

/// How an agent differs from one in memory with no configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Its configuration file.
    #[serde(default)]
    pub config: serde_json::Map<String, Value>,
}

/// One request and its answer, or something that happens besides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is expected to happen.
    pub name: String,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A string is sent as it is, anything else as JSON.
    pub body: Option<Value>,
    pub body64: Option<String>,
    /// A string and how often.
    pub body_repeat: Option<(String, usize)>,
    /// The name of a captured body.
    pub body_from: Option<String>,
    /// In place of the default; null for none.
    #[serde(default, deserialize_with = "present")]
    pub token: Option<Option<String>>,
    /// The agent that is asked.
    #[serde(default = "first")]
    pub agent: String,
    /// Seconds to wait before.
    #[serde(default)]
    pub sleep: f64,
    /// Repeats the request until these paths of the answer have these values.
    pub until: Option<BTreeMap<String, Value>>,
    /// At most so many seconds.
    #[serde(default = "patience", rename = "for")]
    pub patience: f64,
    /// Sends the request in the background, under this name.
    pub background: Option<String>,
    /// Takes the answer of a request in the background.
    pub join: Option<String>,
    /// How many seconds the answer may take.
    pub elapsed: Option<(f64, f64)>,
    /// Reads only so many bytes of the body.
    #[serde(default)]
    pub stream: usize,
    /// The status of the stub server from now on.
    pub stub: Option<u16>,
    /// Variables to set, from a path, a header, or `body`.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    pub index: Option<Relation>,
    #[serde(default, rename = "match")]
    pub rules: Rules,
    #[serde(default)]
    pub golden: Golden,
    /// Other answers that pass.
    #[serde(default)]
    pub also: Vec<Golden>,
    #[serde(rename = "note")]
    _note: Option<IgnoredAny>,
    // These two have only a meaning for a recorder.
    #[serde(rename = "check_headers")]
    _check_headers: Option<IgnoredAny>,
    #[serde(rename = "indexes")]
    _indexes: Option<IgnoredAny>,
}

/// How X-Consul-Index stands to a variable or a path.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Relation {
    To(String, String),
    /// The check is off.
    Any(Any),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Any {
    Any,
}

/// A recorded answer; what is absent is not compared.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    pub status: u16,
    #[serde(rename = "type")]
    pub content_type: Option<String>,
    /// Whether the three headers of reads are present.
    #[serde(default)]
    pub query: bool,
    /// `None` must be absent.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    #[serde(default, deserialize_with = "present")]
    pub json: Option<Value>,
    pub text: Option<String>,
    pub base64: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn first() -> String {
    "a".to_owned()
}

fn patience() -> f64 {
    15.0
}

/// Tells a null from an absence.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl Case {
    /// About how many seconds it takes at most, because of its waits.
    pub fn length(&self) -> f64 {
        let wait = |step: &Step| step.sleep + if step.until.is_some() { step.patience } else { 0.0 };
        self.steps.iter().map(wait).sum()
    }
}

impl Step {
    /// What it does, in a line.
    pub fn described(&self) -> String {
        match &self.join {
            Some(name) => format!("{} (join {name})", self.name),
            None if self.stub.is_some() => format!("{} (stub)", self.name),
            None => format!("{} ({} {})", self.name, self.method, self.path),
        }
    }
}

/// All cases, the longest first, so that they do not all wait for one at the end.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases/http");
    let mut files = Vec::new();
    collect(&folder, &mut files);
    let mut cases: Vec<Case> = files.iter().map(|file| read(&folder, file)).collect();
    cases.sort_by(|a, b| b.length().total_cmp(&a.length()).then_with(|| a.file.cmp(&b.file)));
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    cases
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of cases") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

fn read(folder: &Path, file: &Path) -> Case {
    let text = std::fs::read_to_string(file).expect("a case");
    let mut case: Case =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let below = file.strip_prefix(folder).expect("found below it");
    case.file = below.to_str().expect("a plain name").replace('\\', "/");
    case
}
