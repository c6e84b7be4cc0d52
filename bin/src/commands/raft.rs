//! `operator raft`: the group of servers that keep the state.

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::table;
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, ServerOptions};

#[derive(Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct RemoveOptions {
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
pub(crate) struct TransferOptions {
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

impl Run for ListOptions {
    /// Prints the members of the group.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error initializing client")?;
        let group = client
            .get_json("/v1/operator/raft/configuration", &self.server.query())
            .or_fail("Error getting peers: Failed to retrieve raft configuration")?;
        let text = table::render(&rows(&group));
        terminal.say(text);
        Ok(())
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

impl Run for RemoveOptions {
    /// Removes a server from the group.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let (name, value) = match (self.id.as_str(), self.address.as_str()) {
            ("", "") => {
                return fail("Error removing peer: an address or id is required for the peer to remove");
            }
            ("", address) => ("address", address),
            (id, "") => ("id", id),
            _ => return fail("Error removing peer: cannot give both an address and id"),
        };
        let client = Client::new(&self.http, terminal).or_fail("Error initializing client")?;
        let mut query = self.server.query();
        query.push((name, value.to_owned()));
        let answer = client.send(Method::DELETE, "/v1/operator/raft/peer", &query, Bytes::new());
        answer.and_then(|response| response.ok()).or_fail("Error removing peer")?;
        terminal.say(format!("Removed peer with {name} {value:?}"));
        Ok(())
    }
}

impl Run for TransferOptions {
    /// Makes another server the leader.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error initializing client")?;
        let mut query = self.server.query();
        if !self.id.is_empty() {
            query.push(("id", self.id));
        }
        let answer = client.send(Method::POST, "/v1/operator/raft/transfer-leader", &query, Bytes::new());
        // The spelling is Consul's.
        let failed = "Error transfering leadership: Failed to transfer leadership";
        if answer.and_then(|response| response.json()).or_fail(failed)?["Success"] != true {
            return fail(failed);
        }
        terminal.say("Success");
        Ok(())
    }
}
