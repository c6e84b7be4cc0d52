//! `version`

use clap::Args;

use crate::cli::{Failure, Run, Terminal, fail};

#[derive(Args)]
pub(crate) struct Options {
    /// How to print: pretty or json.
    #[arg(long, value_name = "format", default_value = "pretty")]
    format: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints the version.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        match self.format.as_str() {
            "pretty" => print(terminal),
            "json" => terminal.say(concat!("{\"Version\":\"", env!("CARGO_PKG_VERSION"), "\"}")),
            _ => return fail("Invalid format, valid formats are {pretty json}"),
        }
        Ok(())
    }
}

/// The program's version, and those of the gossip protocol.
pub fn print(terminal: &mut Terminal<'_>) {
    terminal.say(concat!("proconsul v", env!("CARGO_PKG_VERSION")));
    terminal.say("Protocol 2 spoken by default, understands 2 to 3");
}
