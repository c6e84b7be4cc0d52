//! What an agent prints when it starts.

use crate::cli::Terminal;
use crate::config::Config;

/// Prints the banner and logs the warnings about the configuration.
pub fn announce(config: &Config, node_id: &str, terminal: &mut Terminal<'_>) {
    terminal.say("==> Starting agent...");
    terminal.say(render(config, node_id));
    terminal.say("==> Log data will now stream in as it occurs:\n");
    for warning in config.warnings.iter().chain(&config.idle) {
        tracing::warn!(target: "proconsul::config", "{warning}");
    }
}

/// The lines that say who and where this agent is.
#[must_use]
pub fn render(config: &Config, node_id: &str) -> String {
    let port = |port: Option<u16>| port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let clients: Vec<String> = config.client_addrs.iter().map(ToString::to_string).collect();
    let server = format!("{} (Bootstrap: {})", config.server, config.bootstrap);
    let encrypted = config.gossip.key.is_some();
    let client = format!(
        "[{}] (HTTP: {}, DNS: {})",
        clients.join(" "),
        port(config.ports.http),
        port(config.ports.dns)
    );
    let cluster = format!(
        "{} (LAN: {}, WAN: {})",
        config.advertise_lan,
        config.ports.serf_lan,
        port(config.ports.serf_wan.filter(|_| config.server))
    );
    let storage =
        config.data_dir.as_ref().map_or_else(|| "in memory".to_owned(), |dir| dir.display().to_string());
    let lines = [
        ("Version", format!("'{}'", env!("CARGO_PKG_VERSION"))),
        ("Node ID", format!("'{node_id}'")),
        ("Node name", format!("'{}'", config.node_name)),
        ("Datacenter", format!("'{}'", config.datacenter)),
        ("Server", server),
        ("Client Addr", client),
        ("Cluster Addr", cluster),
        ("Encrypt", format!("Gossip: {encrypted}, TLS-Outgoing: false, TLS-Incoming: false")),
        ("Data", storage),
    ];
    lines.iter().map(|(name, value)| format!("{name:>17}: {value}\n")).collect()
}
