//! `snapshot save`, `snapshot restore`, `snapshot inspect`, `snapshot decode`, `snapshot agent`

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::{ArgMatches, Args, Command};
use hyper::Method;
use proconsul_core::api::render_record;
use proconsul_core::store::{Record, decode_rows};
use proconsul_io_real::snapshot::{Meta, Unpacker, verify};
use proconsul_io_real::words::io_reason;
use serde_json::json;

use crate::cli::progress::Progress;
use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions, ServerOptions};

/// An archive is unpacked in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Args)]
struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct InspectOptions {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct AgentOptions {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Flags and a file.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// A file.
#[must_use]
pub fn inspect_command() -> Command {
    command_of::<InspectOptions>()
}

/// Anything.
#[must_use]
pub fn agent_command() -> Command {
    command_of::<AgentOptions>()
}

/// The one file that a command takes.
fn file(args: &[String]) -> Result<&Path, String> {
    match args {
        [] => Err("Missing FILE argument".to_owned()),
        [file] => Ok(Path::new(file)),
        more => Err(format!("Too many arguments (expected 1, got {})", more.len())),
    }
}

/// Saves the state of the servers, makes sure that what arrived is whole, and only then gives it its name.
pub fn save(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    let path = match file(&options.args) {
        Ok(path) => path,
        Err(error) => return terminal.fail(error),
    };
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let mut progress = Progress::new("Saving, bytes", None);
    let answer =
        client.fetch("/v1/snapshot", &options.server.query(), |bytes| progress.show(bytes, terminal));
    progress.clear(terminal);
    let archive = match answer.and_then(crate::client::Response::ok) {
        Ok(archive) => archive,
        Err(error) => return terminal.fail(format!("Error saving snapshot: {error}")),
    };
    let meta = match verify(&archive[..]) {
        Ok(meta) => meta,
        Err(error) => return terminal.fail(format!("Error verifying snapshot: {error}")),
    };
    match write(path, &archive) {
        Ok(()) => {
            terminal.say(format!("Saved and verified snapshot to index {}", meta.index));
            0
        }
        Err(error) => {
            let path = path.display();
            terminal.fail(format!("Error writing snapshot file: {path}: {}", io_reason(&error)))
        }
    }
}

/// Writes a file so that it is there as a whole or not at all.
fn write(path: &Path, archive: &[u8]) -> io::Result<()> {
    let mut unverified = path.as_os_str().to_owned();
    unverified.push(".unverified");
    let mut file = fs::OpenOptions::new();
    file.write(true).create(true).truncate(true);
    // The state may hold secrets.
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    let mut file = file.open(&unverified)?;
    file.write_all(archive)?;
    file.sync_all()?;
    fs::rename(&unverified, path)
}

/// Replaces the state of the servers by a saved one.
pub fn restore(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    let path = match file(&options.args) {
        Ok(path) => path,
        Err(error) => return terminal.fail(error),
    };
    let archive = match fs::read(path) {
        Ok(archive) => archive,
        Err(error) => return terminal.fail(unopened(path, &error)),
    };
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let mut progress = Progress::new("Restoring, bytes", Some(archive.len() as u64));
    let query = options.server.query();
    let answer =
        client.upload(Method::PUT, "/v1/snapshot", &query, archive, |sent| progress.show(sent, terminal));
    progress.clear(terminal);
    match answer.and_then(crate::client::Response::ok) {
        Ok(_) => {
            terminal.say("Restored snapshot");
            0
        }
        Err(error) => terminal.fail(format!("Error restoring snapshot: {error}")),
    }
}

fn unopened(path: &Path, error: &io::Error) -> String {
    format!("Error opening snapshot file: open {}: {}", path.display(), io_reason(error))
}

/// Says what a file holds, after reading all of it.
pub fn inspect(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: InspectOptions = typed(matches);
    let path = match file(&options.args) {
        Ok(path) => path,
        Err(error) => return terminal.fail(error),
    };
    let archive = match fs::File::open(path) {
        Ok(archive) => archive,
        Err(error) => return terminal.fail(unopened(path, &error)),
    };
    match verify(archive) {
        Ok(Meta { version, id, index, term, size }) => {
            terminal.say(format!("ID           {id}"));
            terminal.say(format!("Size         {size}"));
            terminal.say(format!("Index        {index}"));
            terminal.say(format!("Term         {term}"));
            terminal.say(format!("Version      {version}"));
            terminal.say("");
            0
        }
        Err(error) => terminal.fail(format!("Error verifying snapshot: {error}")),
    }
}

/// Prints what a file holds, or standard input: a line of JSON for each row. Nothing is printed of what is damaged.
pub fn decode(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: InspectOptions = typed(matches);
    let path = match file(&options.args) {
        Ok(path) => path,
        Err(error) => return terminal.fail(error),
    };
    let archive = if path == Path::new("-") {
        let mut archive = Vec::new();
        match terminal.input.read_to_end(&mut archive) {
            Ok(_) => archive,
            Err(error) => {
                return terminal.fail(format!("Error reading standard input: {}", io_reason(&error)));
            }
        }
    } else {
        match fs::read(path) {
            Ok(archive) => archive,
            Err(error) => return terminal.fail(unopened(path, &error)),
        }
    };
    let meta = match verify(&archive[..]) {
        Ok(meta) => meta,
        Err(error) => return terminal.fail(format!("Error verifying snapshot: {error}")),
    };
    terminal.say(json!({"Type": "SnapshotHeader", "Data": meta}).to_string());
    match rows(&archive, terminal) {
        Ok(()) => 0,
        Err(error) => terminal.fail(format!("Error decoding snapshot: {error}")),
    }
}

/// Prints the rows of an archive that is whole.
fn rows(archive: &[u8], terminal: &mut Terminal<'_>) -> Result<(), String> {
    let (mut unpacker, mut pieces) = (Unpacker::new(), Vec::new());
    for bytes in archive.chunks(PIECE_BYTES) {
        unpacker.push(bytes, &mut pieces).map_err(|bad| bad.to_string())?;
        for piece in pieces.drain(..) {
            let mut text = Vec::new();
            for (key, row) in decode_rows(&piece).map_err(|bad| bad.to_string())? {
                let record = Record::parse(key, row).map_err(|bad| format!("there is {bad}"))?;
                text.extend(render_record(&record, (key.len() + row.len()) as u64));
                text.push(b'\n');
            }
            if terminal.out.write_all(&text).is_err() {
                // Nobody reads any more.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Says that there is no such thing, and what to do instead.
pub fn agent(_: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    terminal.fail(
        "\"snapshot agent\" is a command of Consul Enterprise and does not exist here. To save the state now and \
         then, run \"snapshot save\" from cron or a systemd timer.",
    )
}
