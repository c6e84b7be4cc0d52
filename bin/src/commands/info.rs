//! `info`

use clap::{Arg, ArgMatches, Args, Command};

use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions};

#[derive(Args)]
struct Options {
    #[command(flatten)]
    http: HttpOptions,
}

/// Flags; arguments are ignored.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
        .arg(Arg::new("args").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
}

/// Prints the agent's figures by section.
pub fn run(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let this = match client.get_json("/v1/agent/self", &[]) {
        Ok(this) => this,
        Err(error) => return terminal.fail(format!("Error querying agent: {error}")),
    };
    let Some(sections) = this["Stats"].as_object() else {
        return terminal.fail("Agent returned no statistics");
    };
    for (section, figures) in sections {
        terminal.say(format!("{section}:"));
        for (name, figure) in figures.as_object().into_iter().flatten() {
            let figure = figure.as_str().map_or_else(|| figure.to_string(), str::to_owned);
            terminal.say(format!("\t{name} = {figure}"));
        }
    }
    0
}
