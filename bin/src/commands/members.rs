//! `members`

use clap::Args;
use serde_json::Value;

use super::table;
use crate::cli::{Failure, OrFail as _, Run, Terminal};
use crate::client::{Client, HttpOptions};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Print the tags of every member.
    #[arg(long)]
    detailed: bool,
    /// Print only members that match this filter expression.
    #[arg(long, value_name = "expression", default_value = "")]
    filter: String,
    /// Network segment (Consul Enterprise).
    #[arg(long, value_name = "name", default_value = "_all")]
    segment: String,
    /// Print only members whose state matches this regular expression: alive, leaving, left, failed.
    #[arg(long, value_name = "expression", default_value = ".*")]
    status: String,
    /// Print the servers of all datacenters.
    #[arg(long)]
    wan: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints the members. Without any that match, the status is 2.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let status = regex_lite::Regex::new(&self.status).or_fail("Failed to compile status regexp")?;
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = vec![("segment", self.segment.clone())];
        if self.wan {
            query = vec![("wan", "1".to_owned())];
        }
        if !self.filter.is_empty() {
            query.push(("filter", self.filter.clone()));
        }
        let members = client.get_json("/v1/agent/members", &query).or_fail("Error retrieving members")?;
        let mut members: Vec<&Value> = members.as_array().into_iter().flatten().collect();
        members.retain(|member| status.is_match(state(member)));
        if members.is_empty() {
            return Err(Failure::silent(2));
        }
        let tag = |member: &Value, name: &str| member["Tags"][name].as_str().unwrap_or_default().to_owned();
        // By datacenter, servers first, then by name.
        members.sort_by_key(|m| {
            (tag(m, "dc"), tag(m, "role") != "consul", m["Name"].as_str().unwrap_or_default().to_owned())
        });
        let rows: Vec<Vec<String>> = if self.detailed {
            let heads = ["Node", "Address", "Status", "Tags"].map(str::to_owned).to_vec();
            std::iter::once(heads).chain(members.iter().map(|m| detailed(m))).collect()
        } else {
            let heads =
                ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"]
                    .map(str::to_owned)
                    .to_vec();
            std::iter::once(heads).chain(members.iter().map(|m| plain(m))).collect()
        };
        let text = table::render(&rows);
        terminal.say(text);
        Ok(())
    }
}

/// A member's state by its number in the API.
fn state(member: &Value) -> &'static str {
    match member["Status"].as_u64() {
        Some(1) => "alive",
        Some(2) => "leaving",
        Some(3) => "left",
        Some(4) => "failed",
        _ => "none",
    }
}

fn head(member: &Value) -> Vec<String> {
    let text = |name: &str| member[name].as_str().unwrap_or_default();
    let address = match text("Addr") {
        v6 if v6.contains(':') => format!("[{v6}]:{}", member["Port"]),
        v4 => format!("{v4}:{}", member["Port"]),
    };
    // WAN members are named after their datacenter too.
    vec![text("Name").to_owned(), address, state(member).to_owned()]
}

fn plain(member: &Value) -> Vec<String> {
    let tag = |name: &str| member["Tags"][name].as_str().unwrap_or_default();
    let (kind, segment) = match tag("role") {
        "consul" => ("server", "<all>"),
        "node" => ("client", tag("segment")),
        _ => ("unknown", ""),
    };
    let segment = if segment.is_empty() { "<default>" } else { segment };
    let build = tag("build").split(':').next().unwrap_or_default();
    let mut row = head(member);
    // Consul Enterprise has other partitions than the one.
    row.extend([kind, build, tag("vsn"), tag("dc"), "default", segment].map(str::to_owned));
    row
}

fn detailed(member: &Value) -> Vec<String> {
    let tags = member["Tags"].as_object().into_iter().flatten();
    let mut tags: Vec<String> =
        tags.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    tags.sort();
    let mut row = head(member);
    row.push(tags.join(","));
    row
}
