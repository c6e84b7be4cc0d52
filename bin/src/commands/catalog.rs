//! `catalog datacenters`, `catalog nodes` and `catalog services`.

use clap::{ArgAction, Args};
use serde_json::Value;

use super::table;
use crate::cli::flags::pair_value;
use crate::cli::{Failure, OrFail as _, Run, Terminal, no_arguments};
use crate::client::{Client, HttpOptions, ServerOptions, escape};

#[derive(Args)]
pub(crate) struct DatacentersOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct NodesOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Print whole IDs, addresses and metadata.
    #[arg(long)]
    detailed: bool,
    /// Print only nodes that match this filter expression.
    #[arg(long, value_name = "expression")]
    filter: Option<String>,
    /// Sort by round-trip time from this node; _agent is the agent's own.
    #[arg(long, value_name = "node")]
    near: Option<String>,
    /// Print only nodes with this metadata, as key=value.
    #[arg(long, value_name = "pair", action = ArgAction::Append, value_parser = pair_value)]
    node_meta: Vec<(String, String)>,
    /// Print only nodes that provide this service.
    #[arg(long, value_name = "name")]
    service: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ServicesOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Print only services of this node.
    #[arg(long, value_name = "node")]
    node: Option<String>,
    /// Print only services of nodes with this metadata, as key=value.
    #[arg(long, value_name = "pair", action = ArgAction::Append, value_parser = pair_value)]
    node_meta: Vec<(String, String)>,
    /// Print the tags of every service.
    #[arg(long)]
    tags: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// A client, unless there are arguments, of which there must be none.
fn connect(args: &[String], http: &HttpOptions, terminal: &Terminal<'_>) -> Result<Client, Failure> {
    no_arguments(args)?;
    Client::new(http, terminal).or_fail("Error initializing client")
}

fn metadata(pairs: Vec<(String, String)>) -> impl Iterator<Item = (&'static str, String)> {
    pairs.into_iter().map(|(key, value)| ("node-meta", format!("{key}:{value}")))
}

impl Run for DatacentersOptions {
    /// Prints the datacenters.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = connect(&self.args, &self.http, terminal)?;
        let names = client
            .get_json("/v1/catalog/datacenters", &self.server.query())
            .or_fail("Error listing datacenters")?;
        for name in names.as_array().into_iter().flatten().filter_map(Value::as_str) {
            terminal.say(name);
        }
        Ok(())
    }
}

impl Run for NodesOptions {
    /// Prints nodes.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = connect(&self.args, &self.http, terminal)?;
        let mut query = self.server.query();
        query.extend(self.near.map(|near| ("near", near)));
        query.extend(self.filter.map(|filter| ("filter", filter)));
        query.extend(metadata(self.node_meta));
        let path = match self.service.filter(|service| !service.is_empty()) {
            Some(service) => format!("/v1/catalog/service/{}", escape(&service)),
            None => "/v1/catalog/nodes".to_owned(),
        };
        let found = client.get_json(&path, &query).or_fail("Error listing nodes")?;
        let mut rows: Vec<Vec<String>> =
            found.as_array().into_iter().flatten().map(|n| node(n, self.detailed)).collect();
        // A node with several instances of the service is one node.
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|row| seen.insert(row[0].clone()));
        if rows.is_empty() {
            terminal.complain("No nodes match the given query - try expanding your search.");
            return Ok(());
        }
        let mut heads = vec!["Node", "ID", "Address", "DC"];
        if self.detailed {
            heads.extend(["TaggedAddresses", "Meta"]);
        }
        rows.insert(0, heads.into_iter().map(str::to_owned).collect());
        let text = table::render(&rows);
        terminal.say(text);
        Ok(())
    }
}

fn node(node: &Value, detailed: bool) -> Vec<String> {
    let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
    let id = if detailed { text("ID") } else { text("ID").chars().take(8).collect() };
    let mut row = vec![text("Node"), id, text("Address"), text("Datacenter")];
    if detailed {
        row.push(pairs(&node["TaggedAddresses"]));
        // Nodes and service instances name it differently.
        row.push(pairs(if node["Meta"].is_object() { &node["Meta"] } else { &node["NodeMeta"] }));
    }
    row
}

fn pairs(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    let mut pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(", ")
}

impl Run for ServicesOptions {
    /// Prints services.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = connect(&self.args, &self.http, terminal)?;
        let mut query = self.server.query();
        query.extend(metadata(self.node_meta));
        let path = match self.node.as_deref().filter(|node| !node.is_empty()) {
            Some(node) => format!("/v1/catalog/node/{}", escape(node)),
            None => "/v1/catalog/services".to_owned(),
        };
        let found = client.get_json(&path, &query).or_fail("Error listing services")?;
        let mut tags_by_name =
            std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        if self.node.is_some() {
            for service in found["Services"].as_object().into_iter().flatten().map(|(_, service)| service) {
                let name = service["Service"].as_str().unwrap_or_default().to_owned();
                tags_by_name.entry(name).or_default().extend(texts(&service["Tags"]));
            }
        } else {
            for (name, tags) in found.as_object().into_iter().flatten() {
                tags_by_name.entry(name.clone()).or_default().extend(texts(tags));
            }
        }
        if tags_by_name.is_empty() {
            terminal.complain("No services match the given query - try expanding your search.");
            return Ok(());
        }
        let rows: Vec<Vec<String>> = tags_by_name
            .into_iter()
            .map(|(name, tags)| {
                let tags = tags.into_iter().collect::<Vec<_>>().join(",");
                if self.tags { vec![name, tags] } else { vec![name] }
            })
            .collect();
        let text = table::render(&rows);
        terminal.say(text);
        Ok(())
    }
}
