//! `version`

use clap::{Arg, ArgMatches, Command};

use crate::cli::Terminal;

/// No flags; arguments are ignored.
#[must_use]
pub fn command() -> Command {
    Command::new("version")
        .arg(Arg::new("args").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
}

/// Prints the version.
pub fn run(_: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    print(terminal)
}

/// The program's version, and those of the gossip protocol.
pub fn print(terminal: &mut Terminal<'_>) -> u8 {
    terminal.say(concat!("proconsul v", env!("CARGO_PKG_VERSION")));
    terminal.say("Protocol 2 spoken by default, understands 2 to 3");
    0
}
