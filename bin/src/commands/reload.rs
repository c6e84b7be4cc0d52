//! `reload`

use clap::Args;
use hyper::Method;

use crate::cli::{Failure, OrFail as _, Run, Terminal};
use crate::client::{Client, HttpOptions};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Makes the agent read its configuration again.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let reply = client.send(Method::PUT, "/v1/agent/reload", &[], "");
        reply.and_then(crate::client::Response::ok).or_fail("Error reloading")?;
        terminal.say("Configuration reload triggered");
        Ok(())
    }
}
