//! `kv get`, `kv put` and `kv delete`.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use hyper::{Method, StatusCode};
use proconsul_io_real::words::io_reason;
use serde_json::Value;

use crate::cli::flags::uint_value;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, ClientError, HttpOptions, ServerOptions, escape};
use crate::{base64, commands};

#[derive(Args)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Print values in base64.
    #[arg(long)]
    base64: bool,
    /// Print everything that is known about the key.
    #[arg(long)]
    detailed: bool,
    /// Print the names of keys below the prefix, cut at the separator.
    #[arg(long)]
    keys: bool,
    /// Print all keys below the prefix with their values.
    #[arg(long)]
    recurse: bool,
    /// Where -keys cuts names; empty for whole names.
    #[arg(long, value_name = "text", default_value = "/")]
    separator: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct PutOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Take the key's lock for the -session. The key is made if it does not exist.
    #[arg(long)]
    acquire: bool,
    /// DATA is base64: write what it stands for.
    #[arg(long)]
    base64: bool,
    /// Write only if the key's ModifyIndex still is -modify-index.
    #[arg(long)]
    cas: bool,
    /// Number to keep with the key, of any meaning.
    #[arg(long, value_name = "number", default_value = "0", value_parser = uint_value)]
    flags: u64,
    /// ModifyIndex for -cas.
    #[arg(long, value_name = "number", default_value = "0", value_parser = uint_value)]
    modify_index: u64,
    /// Give the key's lock back for the -session.
    #[arg(long)]
    release: bool,
    /// ID of the session for -acquire and -release.
    #[arg(long, value_name = "id")]
    session: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct DeleteOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Remove the key only if its ModifyIndex still is -modify-index.
    #[arg(long)]
    cas: bool,
    /// ModifyIndex for -cas.
    #[arg(long, value_name = "number", default_value = "0", value_parser = uint_value)]
    modify_index: u64,
    /// Remove all keys below the prefix.
    #[arg(long)]
    recurse: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Leading slashes are no part of a key.
pub(super) fn plain(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

pub(super) fn path(key: &str) -> String {
    format!("/v1/kv/{}", escape(key))
}

/// Answers with 404 mean that nothing is there.
fn rows(client: &Client, path: &str, query: &[(&str, String)]) -> Result<Vec<Value>, ClientError> {
    let response = client.send(Method::GET, path, query, Bytes::new())?;
    if response.status == StatusCode::NOT_FOUND {
        return Ok(Vec::new());
    }
    match response.json()? {
        Value::Array(rows) => Ok(rows),
        _ => Ok(Vec::new()),
    }
}

impl Run for GetOptions {
    /// Reads keys.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let key = match self.args.as_slice() {
            [] => "",
            [key] => plain(key),
            more => return fail(format!("Too many arguments (expected 1, got {})", more.len())),
        };
        if key.is_empty() && !self.keys && !self.recurse {
            return fail("Error! Missing KEY argument");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to agent")?;
        let mut query = self.server.query();
        if self.keys {
            query.push(("keys", String::new()));
            query.push(("separator", self.separator.clone()));
        } else if self.recurse {
            query.push(("recurse", String::new()));
        }
        let rows = rows(&client, &path(key), &query).or_fail("Error querying agent")?;
        if self.keys {
            for name in rows.iter().filter_map(Value::as_str) {
                terminal.say(name);
            }
            return Ok(());
        }
        if rows.is_empty() && !self.recurse {
            return fail(format!("Error! No key exists at: {key}"));
        }
        for (at, row) in rows.iter().enumerate() {
            let value = shown(row, self.base64);
            if self.detailed {
                if at > 0 {
                    terminal.say("");
                }
                terminal.say(detailed(row, &value));
            } else if self.recurse {
                let mut line = row["Key"].as_str().unwrap_or_default().as_bytes().to_vec();
                line.push(b':');
                line.extend(value);
                terminal.say(line);
            } else {
                terminal.say(value);
            }
        }
        Ok(())
    }
}

/// The bytes of a row's value, as they are or in base64.
fn shown(row: &Value, in_base64: bool) -> Vec<u8> {
    let encoded = row["Value"].as_str().unwrap_or_default();
    if in_base64 { encoded.as_bytes().to_vec() } else { base64::decode(encoded).unwrap_or_default() }
}

fn detailed(row: &Value, value: &[u8]) -> Vec<u8> {
    let number = |name: &str| row[name].as_u64().unwrap_or_default().to_string();
    let session = row["Session"].as_str().filter(|session| !session.is_empty()).unwrap_or("-");
    let lines = [
        ("CreateIndex", number("CreateIndex")),
        ("Flags", number("Flags")),
        ("Key", row["Key"].as_str().unwrap_or_default().to_owned()),
        ("LockIndex", number("LockIndex")),
        ("ModifyIndex", number("ModifyIndex")),
        ("Session", session.to_owned()),
    ];
    let mut text: Vec<u8> =
        lines.iter().flat_map(|(name, value)| format!("{name:<17}{value}\n").into_bytes()).collect();
    text.extend(format!("{:<17}", "Value").into_bytes());
    text.extend(value);
    text
}

impl Run for PutOptions {
    /// Writes a key.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let (key, data) = match self.args.as_slice() {
            [] => return fail("Error! Missing KEY argument"),
            [key] => (key, None),
            [key, data] => (key, Some(data)),
            more => {
                return fail(format!("Error! Too many arguments (expected 1 or 2, got {})", more.len()));
            }
        };
        let Some(key) = key.to_str() else {
            return fail("Error! KEY must be UTF-8");
        };
        let mut data = read_data(data, terminal)?;
        if self.base64 {
            let text = String::from_utf8_lossy(&data).trim().to_owned();
            match base64::decode(&text) {
                Some(bytes) => data = bytes,
                None => return fail("Error! Cannot base 64 decode data"),
            }
        }
        if self.cas && self.modify_index == 0 {
            return fail("Must specify -modify-index with -cas!");
        }
        let session = self.session.clone().unwrap_or_default();
        if (self.acquire || self.release) && session.is_empty() {
            return fail("Error! Missing -session (required with -acquire and -release)");
        }
        if key.starts_with('/') {
            return fail(format!(
                "Error! Failed writing data: Invalid key. Key must not begin with a '/': {key}"
            ));
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to agent")?;
        let mut query = self.server.query();
        if self.flags != 0 {
            query.push(("flags", self.flags.to_string()));
        }
        let (condition, success, failure) = if self.cas {
            let condition = ("cas", self.modify_index.to_string());
            (Some(condition), "Data written to", format!("write to {key}: CAS failed"))
        } else if self.acquire {
            (Some(("acquire", session)), "Lock acquired on", format!("acquire lock on {key}"))
        } else if self.release {
            (Some(("release", session)), "Lock released on", format!("release lock on {key}"))
        } else {
            (None, "Data written to", format!("write to {key}: refused"))
        };
        query.extend(condition);
        let answer = client.send(Method::PUT, &path(key), &query, data).and_then(|response| response.ok());
        if is_true(&answer.or_fail("Error! Failed writing data")?) {
            terminal.say(format!("Success! {success}: {key}"));
            Ok(())
        } else {
            fail(format!("Error! Did not {failure}"))
        }
    }
}

/// The value that an argument stands for: itself, a file, or standard input.
pub(super) fn read_data(
    argument: Option<&OsString>,
    terminal: &mut Terminal<'_>,
) -> Result<Vec<u8>, Failure> {
    let Some(argument) = argument else { return Ok(Vec::new()) };
    let bytes = argument.as_encoded_bytes();
    if bytes == b"-" {
        let mut data = Vec::new();
        let read = terminal.input.read_to_end(&mut data);
        return match read {
            Ok(_) => Ok(data),
            Err(error) => fail(format!("Error! Failed to read stdin: {}", io_reason(&error))),
        };
    }
    if bytes.first() == Some(&b'@') {
        let file = commands::os_str(&bytes[1..]);
        return std::fs::read(&file).or_else(|error| {
            fail(format!("Error! Failed to read file: open {}: {}", file.display(), io_reason(&error)))
        });
    }
    Ok(bytes.to_vec())
}

fn is_true(body: &[u8]) -> bool {
    body.trim_ascii() == b"true"
}

impl Run for DeleteOptions {
    /// Removes keys.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let key = match self.args.as_slice() {
            [] => "",
            [key] => plain(key),
            more => return fail(format!("Too many arguments (expected 1, got {})", more.len())),
        };
        // An empty key would remove nothing, an empty prefix everything: only the latter can be meant.
        if key.is_empty() && !self.recurse {
            return fail("Error! Missing KEY argument");
        }
        if self.cas && self.recurse {
            return fail("Cannot specify both -cas and -recurse!");
        }
        if self.cas && self.modify_index == 0 {
            return fail("Must specify -modify-index with -cas!");
        }
        if !self.cas && self.modify_index != 0 {
            return fail("Cannot specify -modify-index without -cas!");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to agent")?;
        let mut query = self.server.query();
        if self.recurse {
            query.push(("recurse", String::new()));
        }
        if self.cas {
            query.push(("cas", self.modify_index.to_string()));
        }
        let what = if self.recurse { "prefix" } else { "key" };
        let answer =
            client.send(Method::DELETE, &path(key), &query, Bytes::new()).and_then(|response| response.ok());
        let body = answer.or_fail(format_args!("Error! Did not delete {what} {key}"))?;
        if !is_true(&body) {
            return fail(format!("Error! Did not delete key {key}: CAS failed"));
        }
        let done = if self.recurse { "keys with prefix" } else { "key" };
        terminal.say(format!("Success! Deleted {done}: {key}"));
        Ok(())
    }
}
