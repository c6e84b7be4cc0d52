//! `join`, `leave` and `force-leave`.

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::Method;

use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions, escape};

#[derive(Args)]
struct JoinOptions {
    #[command(flatten)]
    http: HttpOptions,
    /// Join servers of another datacenter.
    #[arg(long)]
    wan: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct LeaveOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct ForceLeaveOptions {
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

/// Flags of `join`.
#[must_use]
pub fn join_command() -> Command {
    command_of::<JoinOptions>()
}

/// Flags of `leave`.
#[must_use]
pub fn leave_command() -> Command {
    command_of::<LeaveOptions>()
}

/// Flags of `force-leave`.
#[must_use]
pub fn force_leave_command() -> Command {
    command_of::<ForceLeaveOptions>()
}

/// Makes the agent contact others. One that answers is enough.
pub fn join(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: JoinOptions = typed(matches);
    if options.args.is_empty() {
        return terminal.fail("At least one address to join must be specified.");
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let query: Vec<_> = options.wan.then(|| ("wan", "1".to_owned())).into_iter().collect();
    let mut joined = 0;
    for address in &options.args {
        let path = format!("/v1/agent/join/{}", escape(address));
        let answer = client.send(Method::PUT, &path, &query, Bytes::new());
        match answer.and_then(|response| response.ok()) {
            Ok(_) => joined += 1,
            Err(error) => terminal.complain(format!("Error joining address '{address}': {error}")),
        }
    }
    if joined == 0 {
        return terminal.fail("Failed to join any nodes.");
    }
    terminal.say(format!("Successfully joined cluster by contacting {joined} nodes."));
    0
}

/// Makes the agent leave in good order and end.
pub fn leave(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: LeaveOptions = typed(matches);
    if !options.args.is_empty() {
        terminal.complain(format!("Error found unexpected args: [{}]", options.args.join(" ")));
        let usage = crate::cli::usage("leave", &terminal.program);
        terminal.say(usage);
        return 1;
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let answer = client.send(Method::PUT, "/v1/agent/leave", &[], Bytes::new());
    match answer.and_then(|response| response.ok()) {
        Ok(_) => {
            terminal.say("Graceful leave complete");
            0
        }
        Err(error) => terminal.fail(format!("Error leaving: {error}")),
    }
}

/// Declares that a failed member has left.
pub fn force_leave(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: ForceLeaveOptions = typed(matches);
    let [node] = options.args.as_slice() else {
        return terminal.fail("A single node name must be specified to force leave.");
    };
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error connecting to Consul agent: {error}")),
    };
    let mut query = Vec::new();
    query.extend(options.prune.then(|| ("prune", "1".to_owned())));
    query.extend(options.wan.then(|| ("wan", "1".to_owned())));
    let path = format!("/v1/agent/force-leave/{}", escape(node));
    let answer = client.send(Method::PUT, &path, &query, Bytes::new());
    match answer.and_then(|response| response.ok()) {
        Ok(_) => 0,
        Err(error) => terminal.fail(format!("Error force leaving: {error}")),
    }
}
