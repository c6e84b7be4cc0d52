//! What a running agent tells: its servers, whether there is a leader, and how many may fail.

use std::net::{IpAddr, SocketAddr};

use proconsul_io_real::words::io_reason;
use serde_json::Value;

use super::Report;
use super::network::reach;
use crate::client::Client;

const LOOK: &str = "quorum";

/// What is known from the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Servers, by the addresses at which they take RPC.
    pub servers: Vec<SocketAddr>,
}

/// Asks the agent. `None` if none answers.
pub fn look(client: &Client, must_run: bool, report: &mut Report) -> Option<Told> {
    let this = match client.get_json("/v1/agent/self", &[]) {
        Ok(this) => this,
        Err(error) if must_run => {
            report.error(
                "agent",
                format!("no agent answers: {error}"),
                "start the agent, or name its address with -http-addr",
            );
            return None;
        }
        Err(_) => {
            report.ok("agent", "none answers: looking at the configuration alone");
            return None;
        }
    };
    let text = |path: &str| this.pointer(path).and_then(Value::as_str).unwrap_or("?").to_owned();
    let server = this.pointer("/Config/Server").and_then(Value::as_bool).unwrap_or_default();
    report.ok(
        "agent",
        format!(
            "{} of {} answers: a {}, version {}",
            text("/Config/NodeName"),
            text("/Config/Datacenter"),
            if server { "server" } else { "client agent" },
            text("/Config/Version")
        ),
    );
    if let Some(alarm) = this.pointer("/Stats/alarm/disk").and_then(Value::as_str) {
        report.error("data directory", format!("the agent has an alarm: {alarm}"), "make room on its disk");
    }
    let members = client.get_json("/v1/agent/members", &[]).unwrap_or_default();
    let told = servers(&members, report);
    leader(client, report);
    if let Ok(raft) = client.get_json("/v1/operator/raft/configuration", &[("stale", String::new())]) {
        quorum(&raft, &members, report);
    }
    Some(told)
}

/// Members of the pool by status; servers, and whether their ports can be reached.
fn servers(members: &Value, report: &mut Report) -> Told {
    let mut told = Told::default();
    let (mut alive, mut failed) = (0, Vec::new());
    for member in members.as_array().into_iter().flatten() {
        let name = member["Name"].as_str().unwrap_or("?").to_owned();
        match member["Status"].as_i64() {
            Some(1) => alive += 1,
            Some(4) => failed.push(name.clone()),
            _ => continue,
        }
        let is_server = member["Tags"]["role"] == "consul";
        let address: Option<IpAddr> = member["Addr"].as_str().and_then(|text| text.parse().ok());
        let port = member["Tags"]["port"].as_str().and_then(|text| text.parse().ok());
        if let (true, Some(1), Some(address), Some(port)) =
            (is_server, member["Status"].as_i64(), address, port)
        {
            let rpc = SocketAddr::new(address, port);
            if let Err(error) = reach(rpc) {
                report.error(
                    "peers",
                    format!("server {name}: its RPC port {rpc} cannot be reached: {}", io_reason(&error)),
                    "open that port for TCP in the firewall between this machine and the server",
                );
            }
            told.servers.push(rpc);
        }
    }
    if failed.is_empty() {
        report.ok("peers", format!("{alive} members are alive, none has failed"));
    } else {
        report.warn(
            "peers",
            format!(
                "{} of {} members have failed: {}",
                failed.len(),
                alive + failed.len(),
                failed.join(", ")
            ),
            "start them again, or say that they are gone for good with `proconsul force-leave NODE`",
        );
    }
    told
}

fn leader(client: &Client, report: &mut Report) {
    let leader = client.get_json("/v1/status/leader", &[]);
    let leader = leader.ok().and_then(|leader| leader.as_str().map(str::to_owned)).unwrap_or_default();
    if leader.is_empty() {
        report.error(
            LOOK,
            "there is no leader: nothing can be written, and only ?stale reads are answered",
            "start servers until a majority runs; if one is lost for good, recover with raft/peers.json",
        );
    } else {
        report.ok(LOOK, format!("the leader is {leader}"));
    }
}

/// How many servers vote, how many of those are alive, and how many may still fail.
fn quorum(raft: &Value, members: &Value, report: &mut Report) {
    let alive: Vec<&str> = members
        .as_array()
        .into_iter()
        .flatten()
        .filter(|member| member["Status"].as_i64() == Some(1))
        .filter_map(|member| member["Tags"]["id"].as_str())
        .collect();
    let voters: Vec<&Value> =
        raft["Servers"].as_array().into_iter().flatten().filter(|server| server["Voter"] == true).collect();
    let up = voters.iter().filter(|voter| voter["ID"].as_str().is_some_and(|id| alive.contains(&id))).count();
    let needed = voters.len() / 2 + 1;
    let found = format!("{up} of {} voting servers are alive, {needed} are needed", voters.len());
    if voters.is_empty() {
        return;
    }
    if up < needed {
        report.error(
            LOOK,
            found,
            "start servers again; if they are lost for good, recover with raft/peers.json",
        );
    } else if voters.len() == 1 {
        report.warn(
            LOOK,
            "there is a single server: when it fails, all is lost",
            "run three or five servers where that matters",
        );
    } else if up == needed {
        report.warn(LOOK, format!("{found}: none may fail any more"), "start servers again, or add one");
    } else if voters.len().is_multiple_of(2) {
        report.warn(
            LOOK,
            format!("{found}; an even number bears no more failures than one less"),
            "add a server, or remove one",
        );
    } else {
        report.ok(LOOK, format!("{found}: {} more may fail", up - needed));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Level;

    /// A group of so many voters, of which so many are alive.
    fn group(voters: usize, alive: usize) -> (Level, String) {
        let id = |at: usize| format!("id-{at}");
        let servers: Vec<Value> = (0..voters).map(|at| json!({"ID": id(at), "Voter": true})).collect();
        let status = |at: usize| if at < alive { 1 } else { 4 };
        let members: Vec<Value> = (0..voters)
            .map(|at| json!({"Name": at.to_string(), "Status": status(at), "Tags": {"role": "consul", "id": id(at)}}))
            .collect();
        let mut report = Report::default();
        quorum(&json!({"Servers": servers}), &json!(members), &mut report);
        (report.worst(), report.text())
    }

    #[test]
    fn a_quorum_is_counted() {
        for (voters, alive, level, text) in [
            (3, 3, Level::Ok, "1 more may fail"),
            (5, 5, Level::Ok, "2 more may fail"),
            (3, 2, Level::Warning, "none may fail any more"),
            (3, 1, Level::Error, "1 of 3 voting servers are alive, 2 are needed"),
            (1, 1, Level::Warning, "a single server"),
            (4, 4, Level::Warning, "an even number"),
        ] {
            let found = group(voters, alive);
            assert!(found.0 == level && found.1.contains(text), "{voters} {alive}: {found:?}");
        }
    }

    #[test]
    fn members_that_failed_are_named() {
        let members = json!([
            {"Name": "a", "Status": 1, "Tags": {"role": "node"}},
            {"Name": "b", "Status": 4, "Tags": {"role": "consul"}},
            {"Name": "c", "Status": 3, "Tags": {"role": "consul"}},
        ]);
        let mut report = Report::default();
        assert_eq!(servers(&members, &mut report), Told::default());
        assert!(report.text().contains("1 of 2 members have failed: b"), "{}", report.text());
    }
}
