//! `operator raft`: the group of servers that keep the state.

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::Method;
use serde_json::Value;

use super::table;
use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions, ServerOptions};

#[derive(Args)]
struct ListOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct RemoveOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Remove the server with this address (host:port of its RPC listener).
    #[arg(long, value_name = "address", default_value = "")]
    address: String,
    /// Remove the server with this ID.
    #[arg(long, value_name = "id", default_value = "")]
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct TransferOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// ID of the server that shall lead. Without it the leader chooses one that is up to date.
    #[arg(long, value_name = "id", default_value = "")]
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Flags of `operator raft list-peers`.
#[must_use]
pub fn list_command() -> Command {
    command_of::<ListOptions>()
}

/// Flags of `operator raft remove-peer`.
#[must_use]
pub fn remove_command() -> Command {
    command_of::<RemoveOptions>()
}

/// Flags of `operator raft transfer-leader`.
#[must_use]
pub fn transfer_command() -> Command {
    command_of::<TransferOptions>()
}

/// Prints the members of the group.
pub fn list(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: ListOptions = typed(matches);
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error initializing client: {error}")),
    };
    match client.get_json("/v1/operator/raft/configuration", &options.server.query()) {
        Ok(group) => {
            let text = table::render(&rows(&group));
            terminal.say(text);
            0
        }
        Err(error) => {
            terminal.fail(format!("Error getting peers: Failed to retrieve raft configuration: {error}"))
        }
    }
}

/// The table's rows. Those servers that tell how far their logs are get two more columns.
fn rows(group: &Value) -> Vec<Vec<String>> {
    let servers: Vec<&Value> = group["Servers"].as_array().into_iter().flatten().collect();
    let is_leader = |server: &&&Value| server["Leader"] == true;
    let leader_at = servers.iter().find(is_leader).and_then(|server| server["LastIndex"].as_u64());
    let mut heads: Vec<_> =
        ["Node", "ID", "Address", "State", "Voter", "RaftProtocol"].map(str::to_owned).to_vec();
    if leader_at.is_some() {
        heads.extend(["Commit Index", "Trails Leader By"].map(str::to_owned));
    }
    let row = |server: &&Value| {
        let text = |name: &str| server[name].as_str().unwrap_or_default().to_owned();
        let state = if server["Leader"] == true { "leader" } else { "follower" };
        let mut row = vec![
            text("Node"),
            text("ID"),
            text("Address"),
            state.to_owned(),
            server["Voter"].to_string(),
            text("ProtocolVersion"),
        ];
        if let Some(leader_at) = leader_at {
            let at = server["LastIndex"].as_u64().unwrap_or(0);
            let behind = match leader_at.saturating_sub(at) {
                _ if state == "leader" => "-".to_owned(),
                1 => "1 commit".to_owned(),
                commits => format!("{commits} commits"),
            };
            row.extend([at.to_string(), behind]);
        }
        row
    };
    std::iter::once(heads).chain(servers.iter().map(row)).collect()
}

/// Removes a server from the group.
pub fn remove(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: RemoveOptions = typed(matches);
    let (name, value) = match (options.id.as_str(), options.address.as_str()) {
        ("", "") => {
            return terminal.fail("Error removing peer: an address or id is required for the peer to remove");
        }
        ("", address) => ("address", address),
        (id, "") => ("id", id),
        _ => return terminal.fail("Error removing peer: cannot give both an address and id"),
    };
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error initializing client: {error}")),
    };
    let mut query = options.server.query();
    query.push((name, value.to_owned()));
    let answer = client.send(Method::DELETE, "/v1/operator/raft/peer", &query, Bytes::new());
    match answer.and_then(|response| response.ok()) {
        Ok(_) => {
            terminal.say(format!("Removed peer with {name} {value:?}"));
            0
        }
        Err(error) => terminal.fail(format!("Error removing peer: {error}")),
    }
}

/// Makes another server the leader.
pub fn transfer(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: TransferOptions = typed(matches);
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error initializing client: {error}")),
    };
    let mut query = options.server.query();
    if !options.id.is_empty() {
        query.push(("id", options.id));
    }
    let answer = client.send(Method::POST, "/v1/operator/raft/transfer-leader", &query, Bytes::new());
    // The spelling is Consul's.
    let failed = "Error transfering leadership: Failed to transfer leadership";
    match answer.and_then(|response| response.json()) {
        Ok(result) if result["Success"] == true => {
            terminal.say("Success");
            0
        }
        Ok(_) => terminal.fail(failed),
        Err(error) => terminal.fail(format!("{failed}: {error}")),
    }
}
