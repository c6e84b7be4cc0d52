//! `version`

use clap::{ArgMatches, Args, Command};

use crate::cli::{Terminal, command_of, typed};

#[derive(Args)]
struct Options {
    /// How to print: pretty or json.
    #[arg(long, value_name = "format", default_value = "pretty")]
    format: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Flags; arguments are ignored.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Prints the version.
pub fn run(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: Options = typed(matches);
    match options.format.as_str() {
        "pretty" => print(terminal),
        "json" => {
            terminal.say(concat!("{\"Version\":\"", env!("CARGO_PKG_VERSION"), "\"}"));
            0
        }
        _ => terminal.fail("Invalid format, valid formats are {pretty json}"),
    }
}

/// The program's version, and those of the gossip protocol.
pub fn print(terminal: &mut Terminal<'_>) -> u8 {
    terminal.say(concat!("proconsul v", env!("CARGO_PKG_VERSION")));
    terminal.say("Protocol 2 spoken by default, understands 2 to 3");
    0
}
