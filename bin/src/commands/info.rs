//! `info`

use clap::Args;

use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints the agent's figures by section.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let this = client.get_json("/v1/agent/self", &[]).or_fail("Error querying agent")?;
        let Some(sections) = this["Stats"].as_object() else {
            return fail("Agent returned no statistics");
        };
        for (section, figures) in sections {
            terminal.say(format!("{section}:"));
            for (name, figure) in figures.as_object().into_iter().flatten() {
                let figure = figure.as_str().map_or_else(|| figure.to_string(), str::to_owned);
                terminal.say(format!("\t{name} = {figure}"));
            }
        }
        Ok(())
    }
}
