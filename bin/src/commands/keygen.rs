//! `keygen`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use proconsul_io_real::engine::random;

use crate::cli::{Failure, OrFail as _, Run, Terminal};

#[derive(Args)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints a new key for gossip: 32 random bytes, for AES-256.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let mut key = [0; 32];
        random(&mut key).or_fail("Error reading random data")?;
        terminal.say(STANDARD.encode(key));
        Ok(())
    }
}
