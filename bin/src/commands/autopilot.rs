//! `operator autopilot`: how the leader looks after the servers.

use std::fmt::Write as _;

use bytes::Bytes;
use clap::{ArgMatches, Args, Command};
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::flags::{bool_value, duration_value, uint_value};
use crate::cli::{Terminal, command_of, typed};
use crate::client::{Client, HttpOptions, ServerOptions};

/// Where its configuration stands.
const CONFIGURATION: &str = "/v1/operator/autopilot/configuration";

#[derive(Args)]
struct GetOptions {
    #[command(flatten)]
    http: HttpOptions,
    #[command(flatten)]
    server: ServerOptions,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct SetOptions {
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
struct StateOptions {
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

/// Flags of `operator autopilot get-config`.
#[must_use]
pub fn get_command() -> Command {
    command_of::<GetOptions>()
}

/// Flags of `operator autopilot set-config`.
#[must_use]
pub fn set_command() -> Command {
    command_of::<SetOptions>()
}

/// Flags of `operator autopilot state`.
#[must_use]
pub fn state_command() -> Command {
    command_of::<StateOptions>()
}

/// Prints the configuration.
pub fn get(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: GetOptions = typed(matches);
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error initializing client: {error}")),
    };
    let config = match client.get_json(CONFIGURATION, &options.server.query()) {
        Ok(config) => config,
        Err(error) => return terminal.fail(format!("Error querying Autopilot configuration: {error}")),
    };
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
    0
}

/// Changes what flags name, unless somebody else changed the configuration meanwhile.
pub fn set(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: SetOptions = typed(matches);
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error initializing client: {error}")),
    };
    // A change starts from what holds, not from what some server has.
    let mut query = ServerOptions { stale: false, ..options.server }.query();
    let mut config = match client.get_json(CONFIGURATION, &query) {
        Ok(config) => config,
        Err(error) => return terminal.fail(format!("Error querying Autopilot configuration: {error}")),
    };
    for (name, value) in [
        ("CleanupDeadServers", options.cleanup_dead_servers.map(Value::from)),
        ("DisableUpgradeMigration", options.disable_upgrade_migration.map(Value::from)),
        ("LastContactThreshold", options.last_contact_threshold.map(Value::from)),
        ("MaxTrailingLogs", options.max_trailing_logs.map(Value::from)),
        ("MinQuorum", options.min_quorum.map(Value::from)),
        ("RedundancyZoneTag", options.redundancy_zone_tag.map(Value::from)),
        ("ServerStabilizationTime", options.server_stabilization_time.map(Value::from)),
        ("UpgradeVersionTag", options.upgrade_version_tag.map(Value::from)),
    ] {
        if let Some(value) = value {
            config[name] = value;
        }
    }
    query.push(("cas", config["ModifyIndex"].to_string()));
    let body = Bytes::from(config.to_string());
    match client.send(Method::PUT, CONFIGURATION, &query, body).and_then(|response| response.json()) {
        Ok(Value::Bool(true)) => {
            terminal.say("Configuration updated!");
            0
        }
        Ok(_) => terminal.fail("Configuration could not be atomically updated, please try again"),
        Err(error) => terminal.fail(format!("Error setting Autopilot configuration: {error}")),
    }
}

/// Prints what the leader thinks of every server.
pub fn state(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    let options: StateOptions = typed(matches);
    if !["pretty", "json"].contains(&options.format.as_str()) {
        return terminal
            .fail(format!("Invalid format: {}, valid formats are [\"pretty\", \"json\"]", options.format));
    }
    let client = match Client::new(&options.http, terminal) {
        Ok(client) => client,
        Err(error) => return terminal.fail(format!("Error initializing client: {error}")),
    };
    let state = match client.get_json("/v1/operator/autopilot/state", &options.server.query()) {
        Ok(state) => state,
        Err(error) => return terminal.fail(format!("Error querying Autopilot state: {error}")),
    };
    let text = if options.format == "json" {
        serde_json::to_string_pretty(&state).unwrap_or_else(|_| state.to_string())
    } else {
        pretty(&state)
    };
    terminal.say(text);
    0
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
