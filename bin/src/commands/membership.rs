//! `join`, `leave` and `force-leave`.

use bytes::Bytes;
use clap::Args;
use hyper::Method;

use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, escape};

#[derive(Args)]
pub(crate) struct JoinOptions {
    #[command(flatten)]
    http: HttpOptions,
    /// Join servers of another datacenter.
    #[arg(long)]
    wan: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct LeaveOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ForceLeaveOptions {
    #[command(flatten)]
    http: HttpOptions,
    /// Forget the member at once, instead of after a day.
    #[arg(long)]
    prune: bool,
    /// The member is a server in the pool of all datacenters.
    #[arg(long)]
    wan: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for JoinOptions {
    /// Makes the agent contact others. One that answers is enough.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if self.args.is_empty() {
            return fail("At least one address to join must be specified.");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let query: Vec<_> = self.wan.then(|| ("wan", "1".to_owned())).into_iter().collect();
        let mut joined = 0;
        for address in &self.args {
            let path = format!("/v1/agent/join/{}", escape(address));
            let answer = client.send(Method::PUT, &path, &query, Bytes::new());
            match answer.and_then(|response| response.ok()) {
                Ok(_) => joined += 1,
                Err(error) => terminal.complain(format!("Error joining address '{address}': {error}")),
            }
        }
        if joined == 0 {
            return fail("Failed to join any nodes.");
        }
        terminal.say(format!("Successfully joined cluster by contacting {joined} nodes."));
        Ok(())
    }
}

impl Run for LeaveOptions {
    /// Makes the agent leave in good order and end.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if !self.args.is_empty() {
            terminal.complain(format!("Error found unexpected args: [{}]", self.args.join(" ")));
            let usage = crate::cli::usage("leave", &terminal.program);
            terminal.say(usage);
            return Err(Failure::silent(1));
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let answer = client.send(Method::PUT, "/v1/agent/leave", &[], Bytes::new());
        answer.and_then(|response| response.ok()).or_fail("Error leaving")?;
        terminal.say("Graceful leave complete");
        Ok(())
    }
}

impl Run for ForceLeaveOptions {
    /// Declares that a failed member has left.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let [node] = self.args.as_slice() else {
            return fail("A single node name must be specified to force leave.");
        };
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = Vec::new();
        query.extend(self.prune.then(|| ("prune", "1".to_owned())));
        query.extend(self.wan.then(|| ("wan", "1".to_owned())));
        let path = format!("/v1/agent/force-leave/{}", escape(node));
        let answer = client.send(Method::PUT, &path, &query, Bytes::new());
        answer.and_then(|response| response.ok()).or_fail("Error force leaving")?;
        Ok(())
    }
}
