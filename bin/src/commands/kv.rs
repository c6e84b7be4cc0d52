//! `kv get`, `kv put` and `kv delete`.

use std::ffi::OsString;

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::cli::flags::uint_value;
use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, ClientError, HttpOptions, ServerOptions, escape, io_reason};
use crate::{base64, commands};

#[derive(Args)]
struct GetOptions {
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
struct PutOptions {
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
struct DeleteOptions {
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

/// Flags of `kv get`.
#[must_use]
pub fn get_command() -> Command {
    command_of::<GetOptions>()
}

/// Flags of `kv put`.
#[must_use]
pub fn put_command() -> Command {
    command_of::<PutOptions>()
}

/// Flags of `kv delete`.
#[must_use]
pub fn delete_command() -> Command {
    command_of::<DeleteOptions>()
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

/// Reads keys.
pub fn get(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: GetOptions = typed(matches);
    let key = match options.args.as_slice() {
        [] => "",
        [key] => plain(key),
        more => return terminal.fail(format!("Too many arguments (expected 1, got {})", more.len())),
    };
    if key.is_empty() && !options.keys && !options.recurse {
        return terminal.fail("Error! Missing KEY argument");
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to agent: {error}")),
    };
    let mut query = options.server.query();
    if options.keys {
        query.push(("keys", String::new()));
        query.push(("separator", options.separator.clone()));
    } else if options.recurse {
        query.push(("recurse", String::new()));
    }
    let rows = match rows(&client, &path(key), &query) {
        Ok(rows) => rows,
        Err(error) => return terminal.fail(format!("Error querying agent: {error}")),
    };
    if options.keys {
        for name in rows.iter().filter_map(Value::as_str) {
            terminal.say(name);
        }
        return 0;
    }
    if rows.is_empty() && !options.recurse {
        return terminal.fail(format!("Error! No key exists at: {key}"));
    }
    for (at, row) in rows.iter().enumerate() {
        let value = shown(row, options.base64);
        if options.detailed {
            if at > 0 {
                terminal.say("");
            }
            terminal.say(detailed(row, &value));
        } else if options.recurse {
            let mut line = row["Key"].as_str().unwrap_or_default().as_bytes().to_vec();
            line.push(b':');
            line.extend(value);
            terminal.say(line);
        } else {
            terminal.say(value);
        }
    }
    0
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

/// Writes a key.
pub fn put(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: PutOptions = typed(matches);
    let (key, data) = match options.args.as_slice() {
        [] => return terminal.fail("Error! Missing KEY argument"),
        [key] => (key, None),
        [key, data] => (key, Some(data)),
        more => {
            return terminal.fail(format!("Error! Too many arguments (expected 1 or 2, got {})", more.len()));
        }
    };
    let Some(key) = key.to_str() else {
        return terminal.fail("Error! KEY must be UTF-8");
    };
    let mut data = match read_data(data, terminal) {
        Ok(data) => data,
        Err(error) => return terminal.fail(format!("Error! {error}")),
    };
    if options.base64 {
        let text = String::from_utf8_lossy(&data).trim().to_owned();
        match base64::decode(&text) {
            Some(bytes) => data = bytes,
            None => return terminal.fail("Error! Cannot base 64 decode data"),
        }
    }
    if options.cas && options.modify_index == 0 {
        return terminal.fail("Must specify -modify-index with -cas!");
    }
    let session = options.session.clone().unwrap_or_default();
    if (options.acquire || options.release) && session.is_empty() {
        return terminal.fail("Error! Missing -session (required with -acquire and -release)");
    }
    if key.starts_with('/') {
        return terminal
            .fail(format!("Error! Failed writing data: Invalid key. Key must not begin with a '/': {key}"));
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to agent: {error}")),
    };
    let mut query = options.server.query();
    if options.flags != 0 {
        query.push(("flags", options.flags.to_string()));
    }
    let (condition, failure) = if options.cas {
        (Some(("cas", options.modify_index.to_string())), "CAS failed")
    } else if options.acquire {
        (Some(("acquire", session)), "Lock already held")
    } else if options.release {
        (Some(("release", session)), "Lock not held")
    } else {
        (None, "refused")
    };
    query.extend(condition);
    match client.send(Method::PUT, &path(key), &query, data).and_then(|response| response.ok()) {
        Err(error) => terminal.fail(format!("Error! Failed writing data: {error}")),
        Ok(body) if is_true(&body) => {
            match () {
                () if options.acquire => terminal.say(format!("Success! Lock acquired on: {key}")),
                () if options.release => terminal.say(format!("Success! Lock released on: {key}")),
                () => terminal.say(format!("Success! Data written to: {key}")),
            }
            0
        }
        Ok(_) if options.cas => terminal.fail(format!("Error! Did not write to {key}: {failure}")),
        Ok(_) if options.acquire => terminal.fail(format!("Error! Did not acquire lock on {key}")),
        Ok(_) if options.release => terminal.fail(format!("Error! Did not release lock on {key}")),
        Ok(_) => terminal.fail(format!("Error! Did not write to {key}: {failure}")),
    }
}

/// The value that an argument stands for: itself, a file, or standard input.
pub(super) fn read_data(argument: Option<&OsString>, terminal: &mut Terminal<'_>) -> Result<Vec<u8>, String> {
    let Some(argument) = argument else { return Ok(Vec::new()) };
    let bytes = argument.as_encoded_bytes();
    if bytes == b"-" {
        let mut data = Vec::new();
        let read = terminal.input.read_to_end(&mut data);
        return read.map(|_| data).map_err(|e| format!("Failed to read stdin: {}", io_reason(&e)));
    }
    if bytes.first() == Some(&b'@') {
        let file = commands::os_str(&bytes[1..]);
        return std::fs::read(&file)
            .map_err(|e| format!("Failed to read file: open {}: {}", file.display(), io_reason(&e)));
    }
    Ok(bytes.to_vec())
}

fn is_true(body: &[u8]) -> bool {
    body.trim_ascii() == b"true"
}

/// Removes keys.
pub fn delete(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: DeleteOptions = typed(matches);
    let key = match options.args.as_slice() {
        [] => "",
        [key] => plain(key),
        more => return terminal.fail(format!("Too many arguments (expected 1, got {})", more.len())),
    };
    // An empty key would remove nothing, an empty prefix everything: only the latter can be meant.
    if key.is_empty() && !options.recurse {
        return terminal.fail("Error! Missing KEY argument");
    }
    if options.cas && options.recurse {
        return terminal.fail("Cannot specify both -cas and -recurse!");
    }
    if options.cas && options.modify_index == 0 {
        return terminal.fail("Must specify -modify-index with -cas!");
    }
    if !options.cas && options.modify_index != 0 {
        return terminal.fail("Cannot specify -modify-index without -cas!");
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to agent: {error}")),
    };
    let mut query = options.server.query();
    if options.recurse {
        query.push(("recurse", String::new()));
    }
    if options.cas {
        query.push(("cas", options.modify_index.to_string()));
    }
    match client.send(Method::DELETE, &path(key), &query, Bytes::new()).and_then(|response| response.ok()) {
        Err(error) => {
            let what = if options.recurse { "prefix" } else { "key" };
            terminal.fail(format!("Error! Did not delete {what} {key}: {error}"))
        }
        Ok(body) if !is_true(&body) => terminal.fail(format!("Error! Did not delete key {key}: CAS failed")),
        Ok(_) if options.recurse => {
            terminal.say(format!("Success! Deleted keys with prefix: {key}"));
            0
        }
        Ok(_) => {
            terminal.say(format!("Success! Deleted key: {key}"));
            0
        }
    }
}
