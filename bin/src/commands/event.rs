//! `event`

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::Method;

use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions, escape};

#[derive(Args)]
struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Datacenter in which to fire. The default is that of the agent.
    #[arg(long, value_name = "name", default_value = "")]
    datacenter: String,
    /// Name of the event.
    #[arg(long, value_name = "name", default_value = "")]
    name: String,
    /// Only nodes whose name matches this regular expression act on it.
    #[arg(long, value_name = "expression", default_value = "")]
    node: String,
    /// Only nodes with a service whose name matches this regular expression act on it.
    #[arg(long, value_name = "expression", default_value = "")]
    service: String,
    /// Only nodes whose service has a tag that matches this regular expression act on it; needs -service.
    #[arg(long, value_name = "expression", default_value = "")]
    tag: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Flags.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Fires an event and prints its identity.
pub fn run(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    if options.name.is_empty() {
        return terminal.fail("Event name must be specified");
    }
    let filters = [("node", &options.node), ("service", &options.service), ("tag", &options.tag)];
    for (what, expression) in filters {
        if let Err(error) = regex_lite::Regex::new(expression) {
            return terminal.fail(format!("Failed to compile {what} filter regexp: {error}"));
        }
    }
    if !options.tag.is_empty() && options.service.is_empty() {
        return terminal.fail("Cannot provide tag filter without service filter.");
    }
    let payload = match options.args.as_slice() {
        [] => Bytes::new(),
        [payload] => Bytes::from(payload.clone()),
        _ => return terminal.fail("Too many command line arguments."),
    };
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let mut query: Vec<(&str, String)> =
        filters.into_iter().map(|(name, value)| (name, value.clone())).collect();
    query.push(("dc", options.datacenter.clone()));
    query.retain(|(_, value)| !value.is_empty());
    let path = format!("/v1/event/fire/{}", escape(&options.name));
    match client.send(Method::PUT, &path, &query, payload).and_then(|response| response.json()) {
        Ok(event) => {
            terminal.say(format!("Event ID: {}", event["ID"].as_str().unwrap_or_default()));
            0
        }
        Err(error) => terminal.fail(format!("Error firing event: {error}")),
    }
}
