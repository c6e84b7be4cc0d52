//! `kv export` and `kv import`: trees of keys as JSON.

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kv::{path, plain, read_data};
use crate::base64;
use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, ClientError, HttpOptions, ServerOptions};

#[derive(Args)]
struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<std::ffi::OsString>,
}

/// A key in the exchange format; other fields, such as a namespace, are ignored.
#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    #[serde(default)]
    flags: u64,
    /// In base64.
    #[serde(default)]
    value: String,
}

/// Flags of both commands.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Prints all keys below a prefix.
pub fn export(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    let prefix = match options.args.as_slice() {
        [] => String::new(),
        [prefix] => plain(&prefix.to_string_lossy()).to_owned(),
        more => return terminal.fail(format!("Too many arguments (expected 1, got {})", more.len())),
    };
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to agent: {error}")),
    };
    let mut query = options.server.query();
    query.push(("recurse", String::new()));
    let rows = client.send(Method::GET, &path(&prefix), &query, Bytes::new()).and_then(|response| {
        if response.status == StatusCode::NOT_FOUND { Ok(Value::Array(Vec::new())) } else { response.json() }
    });
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return terminal.fail(format!("Error querying agent: {error}")),
    };
    let entry = |row: &Value| Entry {
        key: row["Key"].as_str().unwrap_or_default().to_owned(),
        flags: row["Flags"].as_u64().unwrap_or_default(),
        value: row["Value"].as_str().unwrap_or_default().to_owned(),
    };
    let entries: Vec<Entry> = rows.as_array().into_iter().flatten().map(entry).collect();
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, tabs);
    entries.serialize(&mut serializer).expect("plain structs become JSON in memory");
    terminal.say(text);
    0
}

/// Writes all keys of a document. Everything is checked before the first key is written.
pub fn import(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    let data = match options.args.as_slice() {
        [] => return terminal.fail("Error! Missing DATA argument"),
        [data] => match read_data(Some(data), terminal) {
            Ok(data) if data.is_empty() => return terminal.fail("Error! Missing DATA argument"),
            Ok(data) => data,
            Err(error) => return terminal.fail(format!("Error! {error}")),
        },
        more => return terminal.fail(format!("Error! Too many arguments (expected 1, got {})", more.len())),
    };
    let entries: Vec<Entry> = match serde_json::from_slice(&data) {
        Ok(entries) => entries,
        Err(error) => return terminal.fail(format!("Cannot unmarshal data: {error}")),
    };
    let mut values = Vec::with_capacity(entries.len());
    for entry in &entries {
        match base64::decode(&entry.value) {
            Some(value) => values.push(value),
            None => {
                return terminal.fail(format!(
                    "Error base 64 decoding value for key {}: illegal base64 data",
                    entry.key
                ));
            }
        }
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to agent: {error}")),
    };
    for (entry, value) in entries.iter().zip(values) {
        let mut query = options.server.query();
        query.push(("flags", entry.flags.to_string()));
        let key = plain(&entry.key);
        let written: Result<Bytes, ClientError> =
            client.send(Method::PUT, &path(key), &query, value).and_then(|response| response.ok());
        if let Err(error) = written {
            return terminal.fail(format!("Error! Failed writing data for key {key}: {error}"));
        }
        terminal.say(format!("Imported: {key}"));
    }
    0
}
