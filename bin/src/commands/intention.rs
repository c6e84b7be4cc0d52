//! `intention`: who may speak to whom in the mesh.

use bytes::Bytes;
use clap::{ArgAction, Args};
use hyper::Method;
use serde_json::{Map, Value, json};
use time::{Date, Month};

use super::table;
use proconsul_io_real::words::io_reason;

use crate::cli::flags::pair_value;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, ServerOptions, escape};

const PATH: &str = "/v1/connect/intentions";

/// What every command here takes: whom to ask, how, and about what.
#[derive(Args)]
struct Asking {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct CheckOptions {
    #[command(flatten)]
    asking: Asking,
}

#[derive(Args)]
pub(crate) struct CreateOptions {
    #[command(flatten)]
    asking: Asking,
    /// Lets the source speak to the destination. This is the default.
    #[arg(long)]
    allow: bool,
    /// Keeps the source from speaking to the destination.
    #[arg(long)]
    deny: bool,
    /// Takes the arguments for files, each with an intention as JSON.
    #[arg(long)]
    file: bool,
    /// Metadata, as key=value.
    #[arg(long, value_name = "pair", action = ArgAction::Append, value_parser = pair_value)]
    meta: Vec<(String, String)>,
    /// Replaces an intention for the same pair.
    #[arg(long)]
    replace: bool,
}

#[derive(Args)]
pub(crate) struct DeleteOptions {
    #[command(flatten)]
    asking: Asking,
}

#[derive(Args)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    asking: Asking,
}

#[derive(Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    asking: Asking,
}

#[derive(Args)]
pub(crate) struct MatchOptions {
    #[command(flatten)]
    asking: Asking,
    /// Those towards the service. This is the default.
    #[arg(long)]
    destination: bool,
    /// Those from the service.
    #[arg(long)]
    source: bool,
}

/// An agent, and the parameters of every request to it.
struct Connection {
    client: Client,
    query: Vec<(&'static str, String)>,
}

impl Connection {
    fn open(asking: &Asking, terminal: &Terminal<'_>) -> Result<Connection, Failure> {
        let client = Client::new(&asking.http, terminal).or_fail("Error connecting to Consul agent")?;
        Ok(Connection { client, query: asking.server.query() })
    }

    fn get(&self, path: &str, more: &[(&'static str, String)], failed: &str) -> Result<Value, Failure> {
        let query: Vec<_> = self.query.iter().chain(more).cloned().collect();
        self.client.get_json(&format!("{PATH}{path}"), &query).or_fail(failed)
    }

    fn change(
        &self,
        method: Method,
        path: &str,
        more: &[(&'static str, String)],
        body: &Value,
        failed: &str,
    ) -> Result<Value, Failure> {
        let query: Vec<_> = self.query.iter().chain(more).cloned().collect();
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let answer = self.client.send(method, &format!("{PATH}{path}"), &query, body);
        answer.and_then(|response| response.json()).or_fail(failed)
    }

    /// The intention for a pair. Lists are what servers of all versions have.
    fn find(&self, source: &str, destination: &str) -> Result<Option<Value>, Failure> {
        let all = self.get("", &[], "Error reading the intention")?;
        let is = |one: &Value, key: &str, name: &str| one[key].as_str() == Some(bare(name));
        Ok(all
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| is(one, "SourceName", source) && is(one, "DestinationName", destination))
            .cloned())
    }

    /// The intention that is meant: by its identity, or by its pair.
    fn meant(&self, args: &[String]) -> Result<Value, Failure> {
        match args {
            [id] => self.get(&format!("/{}", escape(id)), &[], "Error reading the intention"),
            [source, destination] => match self.find(source, destination)? {
                Some(one) => Ok(one),
                None => fail(format!(
                    "Error: Intention with source {source:?} and destination {destination:?} not found."
                )),
            },
            _ => fail("Error: command requires exactly 1 or 2 arguments"),
        }
    }
}

/// A name without the namespace that everything is in.
fn bare(name: &str) -> &str {
    name.strip_prefix("default/").unwrap_or(name)
}

fn text<'v>(one: &'v Value, key: &str) -> &'v str {
    one[key].as_str().unwrap_or("")
}

/// An intention in one line.
fn line(one: &Value) -> String {
    let decides_by_request = one["Permissions"].as_array().is_some_and(|list| !list.is_empty());
    let action = match text(one, "Action") {
        "" if decides_by_request => {
            format!("{} permissions", one["Permissions"].as_array().map_or(0, Vec::len))
        }
        action => action.to_owned(),
    };
    format!("{} => {} ({action})", text(one, "SourceName"), text(one, "DestinationName"))
}

fn pair(source: &str, destination: &str) -> [(&'static str, String); 2] {
    [("source", source.to_owned()), ("destination", destination.to_owned())]
}

impl Run for CheckOptions {
    /// Tells whether one service may speak to another; that is also the exit status.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let misused = |terminal: &mut Terminal<'_>, why: &str| {
            terminal.complain(why);
            Err(Failure::silent(2))
        };
        let [source, destination] = self.asking.args.as_slice() else {
            return misused(terminal, "Error: command requires exactly two arguments: src and dst");
        };
        let connection = Connection::open(&self.asking, terminal)?;
        let query: Vec<_> = connection.query.iter().cloned().chain(pair(source, destination)).collect();
        let answer = match connection.client.get_json(&format!("{PATH}/check"), &query) {
            Ok(answer) => answer,
            Err(error) => return misused(terminal, &format!("Error checking the connection: {error}")),
        };
        if answer["Allowed"] == true {
            terminal.say("Allowed");
            return Ok(());
        }
        terminal.say("Denied");
        Err(Failure::silent(1))
    }
}

impl CreateOptions {
    /// What is to be made.
    fn intentions(&self, terminal: &mut Terminal<'_>) -> Result<Vec<Value>, Failure> {
        if self.file {
            return self.asking.args.iter().map(|name| read(name, terminal)).collect();
        }
        let [source, destination] = self.asking.args.as_slice() else {
            return fail("Error: Must specify two arguments: source and destination");
        };
        for (side, name) in [("source", source), ("destination", destination)] {
            if bare(name).matches('/').count() > 1 {
                return fail(format!("Error: Invalid intention {side}: target can contain at most one '/'"));
            }
        }
        let meta: Map<String, Value> =
            self.meta.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let mut one = json!({
            "SourceName": bare(source),
            "SourceType": "consul",
            "DestinationName": bare(destination),
            "Action": if self.deny { "deny" } else { "allow" },
        });
        if !meta.is_empty() {
            one["Meta"] = meta.into();
        }
        Ok(vec![one])
    }
}

/// The intention that a file defines.
fn read(name: &str, terminal: &mut Terminal<'_>) -> Result<Value, Failure> {
    let text = if name == "-" {
        let mut text = String::new();
        terminal.input.read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(name)
    };
    let text = text.or_else(|error| fail(format!("Error: open {name}: {}", io_reason(&error))))?;
    serde_json::from_str(&text).or_else(|error| fail(format!("Error: {name} is no JSON: {error}")))
}

impl Run for CreateOptions {
    /// Creates intentions.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.allow && self.deny {
            return fail("Only one of -allow or -deny may be specified.");
        }
        let intentions = self.intentions(terminal)?;
        let connection = Connection::open(&self.asking, terminal)?;
        for one in intentions {
            let (source, destination) = (text(&one, "SourceName"), text(&one, "DestinationName"));
            let there = if self.replace { connection.find(source, destination)? } else { None };
            let failed = format!("Error creating intention \"{}\"", line(&one));
            match there {
                None => {
                    connection.change(Method::POST, "", &[], &one, &failed)?;
                    terminal.say(format!("Created: {}", line(&one)));
                }
                Some(old) => {
                    let failed = format!("Error replacing intention \"{}\"", line(&one));
                    match text(&old, "ID") {
                        "" => connection.change(
                            Method::PUT,
                            "/exact",
                            &pair(source, destination),
                            &one,
                            &failed,
                        )?,
                        id => connection.change(Method::PUT, &format!("/{id}"), &[], &one, &failed)?,
                    };
                }
            }
        }
        Ok(())
    }
}

impl Run for DeleteOptions {
    /// Removes an intention.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let connection = Connection::open(&self.asking, terminal)?;
        let failed = "Error deleting the intention";
        let delete =
            |path: &str, query: &[_]| connection.change(Method::DELETE, path, query, &Value::Null, failed);
        if let [id] = self.asking.args.as_slice() {
            delete(&format!("/{}", escape(id)), &[])?;
        } else {
            let one = connection.meant(&self.asking.args)?;
            match text(&one, "ID") {
                "" => delete("/exact", &pair(text(&one, "SourceName"), text(&one, "DestinationName")))?,
                id => delete(&format!("/{id}"), &[])?,
            };
        }
        terminal.say("Intention deleted.");
        Ok(())
    }
}

impl Run for GetOptions {
    /// Shows an intention.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let connection = Connection::open(&self.asking, terminal)?;
        let one = connection.meant(&self.asking.args)?;
        let mut rows = vec![
            ("Source:".to_owned(), text(&one, "SourceName").to_owned()),
            ("Destination:".to_owned(), text(&one, "DestinationName").to_owned()),
        ];
        for (label, key) in [("Action:", "Action"), ("ID:", "ID"), ("Description:", "Description")] {
            if !text(&one, key).is_empty() {
                rows.push((label.to_owned(), text(&one, key).to_owned()));
            }
        }
        if let Some(permissions) = one["Permissions"].as_array().filter(|list| !list.is_empty()) {
            rows.push(("Permissions:".to_owned(), Value::from(permissions.clone()).to_string()));
        }
        for (key, value) in one["Meta"].as_object().into_iter().flatten() {
            rows.push((format!("Meta[{key}]:"), value.as_str().unwrap_or_default().to_owned()));
        }
        if let Some(at) = long_date(text(&one, "CreatedAt")) {
            rows.push(("Created At:".to_owned(), at));
        }
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(label, value)| vec![label, value]).collect();
        terminal.say(table::render(&rows));
        Ok(())
    }
}

impl Run for ListOptions {
    /// Lists all intentions.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        crate::cli::no_arguments(&self.asking.args)?;
        let connection = Connection::open(&self.asking, terminal)?;
        let all = connection.get("", &[], "Failed to retrieve the intentions list")?;
        let row = |one: &Value| {
            let mut row: Vec<String> =
                ["ID", "SourceName", "Action", "DestinationName"].map(|key| text(one, key).to_owned()).into();
            row.push(one["Precedence"].to_string());
            row
        };
        let mut rows =
            vec![["ID", "Source", "Action", "Destination", "Precedence"].map(String::from).to_vec()];
        rows.extend(all.as_array().into_iter().flatten().map(row));
        if rows.len() > 1 {
            terminal.say(table::render(&rows));
        }
        Ok(())
    }
}

impl Run for MatchOptions {
    /// Lists the intentions of a service.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let [name] = self.asking.args.as_slice() else {
            return fail("Error: command requires exactly one argument: src or dst");
        };
        if self.source && self.destination {
            return fail("Error: only one of -source or -destination may be specified");
        }
        let by = if self.source { "source" } else { "destination" };
        let connection = Connection::open(&self.asking, terminal)?;
        let query = [("by", by.to_owned()), ("name", name.clone())];
        let found = connection.get("/match", &query, "Error matching the connection")?;
        for one in found[name.as_str()].as_array().into_iter().flatten() {
            terminal.say(line(one));
        }
        Ok(())
    }
}

/// A time such as `Saturday, 21-Nov-26 15:25:43 UTC` (RFC 850) of one in RFC 3339; `None` for one before this century,
/// which stands for none.
fn long_date(time: &str) -> Option<String> {
    let number = |from: usize, until: usize| time.get(from..until)?.parse::<u16>().ok();
    let (year, month, day) =
        (number(0, 4)?, u8::try_from(number(5, 7)?).ok()?, u8::try_from(number(8, 10)?).ok()?);
    let clock = time.get(11..19)?;
    if year < 2000 {
        return None;
    }
    let month = Month::try_from(month).ok()?;
    let weekday = Date::from_calendar_date(i32::from(year), month, day).ok()?.weekday();
    let short = &month.to_string()[..3];
    Some(format!("{weekday}, {day:02}-{short}-{:02} {clock} UTC", year % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_with_their_weekday() {
        let told = |time| long_date(time);
        assert_eq!(told("2026-11-21T15:25:43.123Z").as_deref(), Some("Saturday, 21-Nov-26 15:25:43 UTC"));
        assert_eq!(told("2024-02-29T00:00:00Z").as_deref(), Some("Thursday, 29-Feb-24 00:00:00 UTC"));
        assert_eq!(told("0001-01-01T00:00:00Z"), None);
        assert_eq!(told("2026-13-01T00:00:00Z"), None);
        assert_eq!(told(""), None);
    }

    #[test]
    fn intentions_are_told_in_one_line() {
        assert_eq!(
            line(&json!({"SourceName": "web", "DestinationName": "db", "Action": "allow"})),
            "web => db (allow)"
        );
        assert_eq!(
            line(&json!({"SourceName": "*", "DestinationName": "db", "Permissions": [{}, {}]})),
            "* => db (2 permissions)"
        );
    }
}
