//! `keygen`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{ArgMatches, Args, Command};
use proconsul_io_real::engine::random;

use crate::cli::{Terminal, command_of};

#[derive(Args)]
struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// No flags; arguments are ignored.
#[must_use]
pub fn command() -> Command {
    command_of::<Options>()
}

/// Prints a new key for gossip: 32 random bytes, for AES-256.
pub fn run(_matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let mut key = [0; 32];
    if let Err(error) = random(&mut key) {
        return terminal.fail(format!("Error reading random data: {error}"));
    }
    terminal.say(STANDARD.encode(key));
    0
}
