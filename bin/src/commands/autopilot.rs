//! `operator autopilot`: how the leader looks after the servers.

use std::fmt::Write as _;

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::flags::{bool_value, duration_value, uint_value};
use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions, ServerOptions};

/// Where its configuration stands.
const CONFIGURATION: &str = "/v1/operator/autopilot/configuration";

#[derive(Args)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct SetOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// Remove dead servers when new ones have taken their place.
    #[arg(long, num_args = 0..=1, require_equals = true, value_parser = bool_value)]
    cleanup_dead_servers: Option<bool>,
    /// Without effect (Consul Enterprise).
    #[arg(long, num_args = 0..=1, require_equals = true, value_parser = bool_value)]
    disable_upgrade_migration: Option<bool>,
    /// A server that the leader has not heard for so long is unhealthy, such as 200ms.
    #[arg(long, value_name = "duration", value_parser = duration_value)]
    last_contact_threshold: Option<String>,
    /// A server whose log is this many entries behind is unhealthy.
    #[arg(long, value_name = "number", value_parser = uint_value)]
    max_trailing_logs: Option<u64>,
    /// Remove no dead server below this many servers.
    #[arg(long, value_name = "number", value_parser = uint_value)]
    min_quorum: Option<u64>,
    /// Without effect (Consul Enterprise).
    #[arg(long, value_name = "name")]
    redundancy_zone_tag: Option<String>,
    /// For how long a new server must be healthy before it votes, such as 10s.
    #[arg(long, value_name = "duration", value_parser = duration_value)]
    server_stabilization_time: Option<String>,
    /// Without effect (Consul Enterprise).
    #[arg(long, value_name = "name")]
    upgrade_version_tag: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct StateOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    /// How to print it: pretty or json.
    #[arg(long, value_name = "format", default_value = "pretty")]
    format: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for GetOptions {
    /// Prints the configuration.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error initializing client")?;
        let config = client
            .get_json(CONFIGURATION, &self.server.query())
            .or_fail("Error querying Autopilot configuration")?;
        let plain = |name: &str| match &config[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        for name in [
            "CleanupDeadServers",
            "LastContactThreshold",
            "MaxTrailingLogs",
            "MinQuorum",
            "ServerStabilizationTime",
        ] {
            terminal.say(format!("{name} = {}", plain(name)));
        }
        terminal.say(format!("RedundancyZoneTag = {:?}", plain("RedundancyZoneTag")));
        terminal.say(format!("DisableUpgradeMigration = {}", plain("DisableUpgradeMigration")));
        terminal.say(format!("UpgradeVersionTag = {:?}", plain("UpgradeVersionTag")));
        Ok(())
    }
}

impl Run for SetOptions {
    /// Changes what flags name, unless somebody else changed the configuration meanwhile.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let client = Client::new(&self.http, terminal).or_fail("Error initializing client")?;
        // A change starts from what holds, not from what some server has.
        let mut query = ServerOptions { stale: false, ..self.server }.query();
        let mut config =
            client.get_json(CONFIGURATION, &query).or_fail("Error querying Autopilot configuration")?;
        for (name, value) in [
            ("CleanupDeadServers", self.cleanup_dead_servers.map(Value::from)),
            ("DisableUpgradeMigration", self.disable_upgrade_migration.map(Value::from)),
            ("LastContactThreshold", self.last_contact_threshold.map(Value::from)),
            ("MaxTrailingLogs", self.max_trailing_logs.map(Value::from)),
            ("MinQuorum", self.min_quorum.map(Value::from)),
            ("RedundancyZoneTag", self.redundancy_zone_tag.map(Value::from)),
            ("ServerStabilizationTime", self.server_stabilization_time.map(Value::from)),
            ("UpgradeVersionTag", self.upgrade_version_tag.map(Value::from)),
        ] {
            if let Some(value) = value {
                config[name] = value;
            }
        }
        query.push(("cas", config["ModifyIndex"].to_string()));
        let body = Bytes::from(config.to_string());
        let answer =
            client.send(Method::PUT, CONFIGURATION, &query, body).and_then(|response| response.json());
        if answer.or_fail("Error setting Autopilot configuration")? != Value::Bool(true) {
            return fail("Configuration could not be atomically updated, please try again");
        }
        terminal.say("Configuration updated!");
        Ok(())
    }
}

impl Run for StateOptions {
    /// Prints what the leader thinks of every server.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if !["pretty", "json"].contains(&self.format.as_str()) {
            return fail(format!(
                "Invalid format: {}, valid formats are [\"pretty\", \"json\"]",
                self.format
            ));
        }
        let client = Client::new(&self.http, terminal).or_fail("Error initializing client")?;
        let state = client
            .get_json("/v1/operator/autopilot/state", &self.server.query())
            .or_fail("Error querying Autopilot state")?;
        let text = if self.format == "json" {
            serde_json::to_string_pretty(&state).unwrap_or_else(|_| state.to_string())
        } else {
            pretty(&state)
        };
        terminal.say(text);
        Ok(())
    }
}

/// Widths of the first columns of both parts.
const CLUSTER_WIDTH: usize = 30;
const SERVER_WIDTH: usize = 17;

fn pretty(state: &Value) -> String {
    let mut text = String::new();
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    for (label, name) in [
        ("Healthy", "Healthy"),
        ("Failure Tolerance", "FailureTolerance"),
        ("Optimistic Failure Tolerance", "OptimisticFailureTolerance"),
        ("Leader", "Leader"),
    ] {
        if let Some(value) = state.get(name) {
            let label = format!("{label}:");
            let _ = writeln!(text, "{label:CLUSTER_WIDTH$}{}", plain(value));
        }
    }
    for (label, name) in [("Voters", "Voters"), ("Read Replicas", "ReadReplicas")] {
        let ids: Vec<&Value> = state[name].as_array().into_iter().flatten().collect();
        if name == "Voters" || !ids.is_empty() {
            let _ = writeln!(text, "{label}:");
        }
        for id in ids {
            let _ = writeln!(text, "   {}", plain(id));
        }
    }
    text.push_str("\nServers:\n");
    for (id, server) in state["Servers"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "   {id}");
        for (label, name) in [
            ("Name", "Name"),
            ("Address", "Address"),
            ("Version", "Version"),
            ("Status", "Status"),
            ("Node Type", "NodeType"),
            ("Node Status", "NodeStatus"),
            ("Healthy", "Healthy"),
            ("Last Contact", "LastContact"),
            ("Last Term", "LastTerm"),
            ("Last Index", "LastIndex"),
        ] {
            let label = format!("{label}:");
            let _ = writeln!(text, "      {label:SERVER_WIDTH$}{}", plain(&server[name]));
        }
        let meta = server.get("Meta").unwrap_or(&json!({})).clone();
        if meta.as_object().is_some_and(|meta| !meta.is_empty()) {
            text.push_str("      Meta\n");
        }
        for (key, value) in meta.as_object().into_iter().flatten() {
            let _ = writeln!(text, "         {key:?}: {:?}", plain(value));
        }
    }
    text.trim_end().to_owned()
}
