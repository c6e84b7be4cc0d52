//! `monitor`

use clap::Args;

use crate::cli::{Failure, OrFail as _, Run, Terminal};
use crate::client::{Client, HttpOptions};
use crate::commands::interrupt::Interrupt;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Print one JSON object per line.
    #[arg(long)]
    log_json: bool,
    /// Lowest level to print: trace, debug, info, warn or err. The agent's own level does not matter. The default is
    /// info.
    #[arg(long, value_name = "level", default_value = "INFO")]
    log_level: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints the agent's log as it comes, until the agent ends or somebody interrupts.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = vec![("loglevel", self.log_level)];
        if self.log_json {
            query.push(("logjson", "true".to_owned()));
        }
        let interrupt = Interrupt::catch().or_fail("Error catching signals")?;
        // A reader that went away wants no more.
        let print = |piece: &[u8]| terminal.out.write_all(piece).and_then(|()| terminal.out.flush()).is_ok();
        let read = client.stream("/v1/agent/monitor", &query, interrupt.wait(), print);
        read.or_fail("Error starting monitor")
    }
}
