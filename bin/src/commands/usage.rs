//! `operator usage`: how much is registered.

use clap::Args;
use serde_json::{Map, Value};

use super::table;
use crate::cli::{Failure, OrFail as _, Run, Terminal, no_arguments};
use crate::client::{Client, HttpOptions, ServerOptions};

#[derive(Args)]
pub(crate) struct InstancesOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Count in all datacenters.
    #[arg(long)]
    all_datacenters: bool,
    /// Print only services that are not part of the mesh.
    #[arg(long)]
    billable: bool,
    /// Print only what belongs to the mesh.
    #[arg(long)]
    connect: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for InstancesOptions {
    /// Prints the numbers of services and their instances.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        no_arguments(&self.args)?;
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let mut query = self.server.query();
        query.extend(self.all_datacenters.then(|| ("global", String::new())));
        let answer =
            client.get_json("/v1/operator/usage", &query).or_fail("Error fetching usage information")?;
        let nothing = Map::new();
        let datacenters = answer["Usage"].as_object().unwrap_or(&nothing);
        // Neither flag means both.
        let (billable, connect) = (self.billable || !self.connect, self.connect || !self.billable);
        let mut parts = Vec::new();
        if billable {
            parts.push(totals(datacenters));
            parts.push(format!("Billable Services\n{}", billable_table(datacenters, self.all_datacenters)));
        }
        if connect {
            parts.push(format!("Connect Services\n{}", connect_table(datacenters, self.all_datacenters)));
        }
        terminal.say(parts.join("\n\n"));
        Ok(())
    }
}

fn number(usage: &Value, name: &str) -> u64 {
    usage[name].as_u64().unwrap_or(0)
}

fn totals(datacenters: &Map<String, Value>) -> String {
    let billable = |usage| number(usage, "BillableServiceInstances");
    let mut lines = vec![format!(
        "Billable Service Instances Total: {}",
        datacenters.values().map(billable).sum::<u64>()
    )];
    lines.extend(datacenters.iter().map(|(name, usage)| {
        let count = billable(usage);
        format!("{name} Billable Service Instances: {count}")
    }));
    lines.join("\n")
}

/// A table with the datacenter in front of each row if there may be several.
fn with_datacenters(named: bool, heads: [&str; 2], rows: Vec<(String, [String; 2])>) -> String {
    let heads = ("Datacenter".to_owned(), heads.map(str::to_owned));
    let row = |(datacenter, cells): (String, [String; 2])| {
        let mut row = Vec::new();
        row.extend(named.then_some(datacenter));
        row.extend(cells);
        row
    };
    table::render(&std::iter::once(heads).chain(rows).map(row).collect::<Vec<_>>())
}

fn billable_table(datacenters: &Map<String, Value>, named: bool) -> String {
    let counts = |usage| [number(usage, "Services"), number(usage, "BillableServiceInstances")];
    let mut rows: Vec<_> = datacenters
        .iter()
        .map(|(name, usage)| (name.clone(), counts(usage).map(|count| count.to_string())))
        .collect();
    if named {
        let total = |at: usize| datacenters.values().map(|usage| counts(usage)[at]).sum::<u64>().to_string();
        rows.push(("Total".to_owned(), [total(0), total(1)]));
    }
    with_datacenters(named, ["Services", "Service instances"], rows)
}

fn connect_table(datacenters: &Map<String, Value>, named: bool) -> String {
    let mut rows = Vec::new();
    for (name, usage) in datacenters {
        for (kind, count) in usage["ConnectServiceInstances"].as_object().into_iter().flatten() {
            rows.push((name.clone(), [kind.clone(), count.to_string()]));
        }
    }
    with_datacenters(named, ["Type", "Service instances"], rows)
}
