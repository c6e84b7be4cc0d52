//! `kv export` and `kv import`: trees of keys as JSON.

use bytes::Bytes;
use clap::Args;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kv::{path, plain, read_data};
use crate::base64;
use crate::cli::progress::Progress;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, ClientError, HttpOptions, ServerOptions};

#[derive(Args)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<std::ffi::OsString>,
}

#[derive(Args)]
pub(crate) struct ImportOptions {
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

impl Run for ExportOptions {
    /// Prints all keys below a prefix.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let prefix = match self.args.as_slice() {
            [] => String::new(),
            [prefix] => plain(&prefix.to_string_lossy()).to_owned(),
            more => return fail(format!("Too many arguments (expected 1, got {})", more.len())),
        };
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to agent")?;
        let mut query = self.server.query();
        query.push(("recurse", String::new()));
        let mut progress = Progress::new("Exporting, bytes", None);
        let answer = client.fetch(&path(&prefix), &query, |bytes| progress.show(bytes, terminal));
        progress.clear(terminal);
        let rows = answer.and_then(|response| {
            if response.status == StatusCode::NOT_FOUND {
                Ok(Value::Array(Vec::new()))
            } else {
                response.json()
            }
        });
        let rows = rows.or_fail("Error querying agent")?;
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
        Ok(())
    }
}

impl Run for ImportOptions {
    /// Writes all keys of a document. Everything is checked before the first key is written.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let data = match self.args.as_slice() {
            [] => return fail("Error! Missing DATA argument"),
            [data] => match read_data(Some(data), terminal)? {
                data if data.is_empty() => return fail("Error! Missing DATA argument"),
                data => data,
            },
            more => return fail(format!("Error! Too many arguments (expected 1, got {})", more.len())),
        };
        let entries: Vec<Entry> = serde_json::from_slice(&data).or_fail("Cannot unmarshal data")?;
        let mut values = Vec::with_capacity(entries.len());
        for entry in &entries {
            match base64::decode(&entry.value) {
                Some(value) => values.push(value),
                None => {
                    return fail(format!(
                        "Error base 64 decoding value for key {}: illegal base64 data",
                        entry.key
                    ));
                }
            }
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to agent")?;
        let mut progress = Progress::new("Importing keys", Some(entries.len() as u64));
        for (done, (entry, value)) in entries.iter().zip(values).enumerate() {
            progress.show(done as u64, terminal);
            let mut query = self.server.query();
            query.push(("flags", entry.flags.to_string()));
            let key = plain(&entry.key);
            let written: Result<Bytes, ClientError> =
                client.send(Method::PUT, &path(key), &query, value).and_then(|response| response.ok());
            progress.clear(terminal);
            written.or_fail(format_args!("Error! Failed writing data for key {key}"))?;
            terminal.say(format!("Imported: {key}"));
        }
        Ok(())
    }
}
