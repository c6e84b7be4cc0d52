//! `config`: configuration entries.

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use proconsul_core::config_entry::{BadEntry, Draft, Kind};
use proconsul_io_real::words::io_reason;
use serde_json::{Value, json};

use crate::cli::flags::uint_value;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, ServerOptions, escape};
use crate::config::hcl;

/// An entry that is meant.
#[derive(Args)]
struct Named {
    /// The kind of the entry.
    #[arg(long, value_name = "kind", default_value = "")]
    kind: String,
    /// The name of the entry.
    #[arg(long, value_name = "name", default_value = "")]
    name: String,
}

/// A condition.
#[derive(Args)]
struct Condition {
    /// Only if the entry was last changed at the index of -modify-index.
    #[arg(long)]
    cas: bool,
    /// The index that -cas compares; 0 for an entry that must not exist.
    #[arg(long, value_name = "index", default_value = "0", value_parser = uint_value)]
    modify_index: u64,
}

#[derive(Args)]
pub(crate) struct WriteOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    condition: Condition,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ReadOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    named: Named,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// The kind of the entries.
    #[arg(long, value_name = "kind", default_value = "")]
    kind: String,
    /// Lists only entries that this expression keeps.
    #[arg(long, value_name = "expression", default_value = "")]
    filter: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct DeleteOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    condition: Condition,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Named {
    /// Both must be given.
    fn check(&self) -> Result<(), Failure> {
        for (value, flag) in [(&self.kind, "kind"), (&self.name, "name")] {
            if value.is_empty() {
                return fail(format!("Must specify the -{flag} parameter"));
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        format!("/v1/config/{}/{}", escape(&self.kind), escape(&self.name))
    }
}

impl Condition {
    fn query(&self) -> Result<Option<(&'static str, String)>, Failure> {
        if !self.cas && self.modify_index != 0 {
            return fail("Cannot specify -modify-index without -cas!");
        }
        Ok(self.cas.then(|| ("cas", self.modify_index.to_string())))
    }
}

/// The text of a file, or of standard input.
fn source(name: &str, terminal: &mut Terminal<'_>) -> Result<String, Failure> {
    if name == "-" {
        let mut text = String::new();
        return match terminal.input.read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => fail(format!("Failed to load data: Failed to read stdin: {}", io_reason(&error))),
        };
    }
    std::fs::read_to_string(name).or_else(|error| {
        fail(format!("Failed to load data: Failed to read file: open {name}: {}", io_reason(&error)))
    })
}

/// What is sent of an entry, with its kind and name. What makes no sense is sent all the same: servers say why.
fn read_entry(text: &str) -> Result<(Value, String), Failure> {
    const FAILED: &str = "Failed to decode config entry input";
    let value = hcl::parse(text).or_fail(FAILED)?;
    match Draft::parse(&value) {
        Ok(draft) => {
            let mut entry: Value = serde_json::from_str(&draft.fields).or_fail(FAILED)?;
            entry["Kind"] = json!(draft.kind.as_str());
            entry["Name"] = json!(draft.name.as_str());
            Ok((entry, format!("{}/{}", draft.kind.as_str(), draft.name)))
        }
        Err(BadEntry::Decode(why)) => fail(format!("{FAILED}: {why}")),
        Err(BadEntry::Rule(_)) => {
            let text = |keys: [&str; 2]| keys.iter().find_map(|key| value[*key].as_str()).unwrap_or("");
            let named = format!("{}/{}", text(["Kind", "kind"]), text(["Name", "name"]));
            Ok((value.clone(), named))
        }
    }
}

impl Run for WriteOptions {
    /// Creates or replaces an entry.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let [file] = self.args.as_slice() else {
            return fail("Must provide exactly one positional argument to specify the config entry to write");
        };
        let condition = self.condition.query()?;
        let text = source(file, terminal)?;
        let (entry, named) = read_entry(&text)?;
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = self.server.query();
        query.extend(condition);
        let answer = client.send(Method::PUT, "/v1/config", &query, Bytes::from(entry.to_string()));
        let written = answer
            .and_then(|response| response.json())
            .or_fail(format_args!("Error writing config entry {named}"))?;
        if written != true {
            return fail(format!(
                "Error writing config entry {named}: the entry was changed in the meantime"
            ));
        }
        terminal.say(format!("Config entry written: {named}"));
        Ok(())
    }
}

impl Run for ReadOptions {
    /// Prints an entry.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        self.named.check()?;
        let failed = format!("Error reading config entry {}/{}", self.named.kind, self.named.name);
        if Kind::parse(&self.named.kind).is_none() {
            return fail(format!("{failed}: invalid config entry kind: {}", self.named.kind));
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = self.server.query();
        query.push(("pretty", String::new()));
        let answer = client.send(Method::GET, &self.named.path(), &query, Bytes::new());
        let body = answer.and_then(|response| response.ok()).or_fail(failed)?;
        terminal.say(String::from_utf8_lossy(&body).trim_end());
        Ok(())
    }
}

impl Run for ListOptions {
    /// Prints the names of all entries of a kind.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.kind.is_empty() {
            return fail("Must specify the -kind parameter");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = self.server.query();
        if !self.filter.is_empty() {
            query.push(("filter", self.filter.clone()));
        }
        let list = client
            .get_json(&format!("/v1/config/{}", escape(&self.kind)), &query)
            .or_fail(format_args!("Error listing config entries for kind {:?}", self.kind))?;
        for entry in list.as_array().into_iter().flatten() {
            terminal.say(entry["Name"].as_str().unwrap_or_default());
        }
        Ok(())
    }
}

impl Run for DeleteOptions {
    /// Removes an entry.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        self.named.check()?;
        let named = format!("{}/{}", self.named.kind, self.named.name);
        let condition = self.condition.query()?;
        if self.condition.cas && self.condition.modify_index == 0 {
            return fail("Must specify a -modify-index greater than 0 with -cas");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = self.server.query();
        query.extend(condition);
        let answer = client.send(Method::DELETE, &self.named.path(), &query, Bytes::new());
        let deleted = answer
            .and_then(|response| response.json())
            .or_fail(format_args!("Error deleting config entry {named}"))?;
        if deleted == false {
            return fail(format!(
                "Error deleting config entry {named}: the entry was changed in the meantime"
            ));
        }
        terminal.say(format!("Config entry deleted: {named}"));
        Ok(())
    }
}
