//! From the configuration to the settings of the node.

use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::agent;
use proconsul_core::ids::Uuid;
use proconsul_core::node::{self, About, CheckpointPolicy, RosterEntry};
use proconsul_core::raft::{Member, Membership, Timing};

use crate::config::Config;

/// For how long a request waits for a leader (Consul: `rpc_hold_timeout`).
const HOLD_TIMEOUT: Duration = Duration::from_secs(7);
/// For how long deletions are remembered, as in Consul.
const TOMBSTONE_TTL: Duration = Duration::from_secs(15 * 60);
/// Election timeout at the smallest multiplier, and never less: leases have to fit in.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(400);
/// Election timeout per unit of `raft_multiplier`.
const ELECTION_TIMEOUT_UNIT: Duration = Duration::from_millis(200);

/// The settings of a server that this configuration describes.
pub(super) fn node(config: &Config, id: Uuid) -> node::Config {
    let address = Text::new(config.advertise_lan.to_string());
    let rpc = Text::new(std::net::SocketAddr::new(config.advertise_lan, config.ports.server).to_string());
    let found = config
        .elects_itself()
        .then(|| Membership { servers: [(id, Member { address: rpc, voter: true })].into() });
    let roster = RosterEntry {
        id,
        node: Text::new(&config.node_name),
        address: address.clone(),
        port: config.ports.server,
    };
    let agent = config.agent(id);
    let election = (ELECTION_TIMEOUT_UNIT * config.raft.multiplier).max(ELECTION_TIMEOUT_MIN);
    node::Config {
        about: about(config, id, address, &agent),
        timing: Timing { election, ..Timing::default() },
        found,
        roster: vec![roster],
        agent,
        hold_timeout: HOLD_TIMEOUT,
        checkpoints: CheckpointPolicy {
            entries: config.raft.snapshot_threshold,
            ..CheckpointPolicy::default()
        },
        autopilot: proconsul_core::store::AutopilotSettings::default(),
        tombstone_ttl: TOMBSTONE_TTL,
    }
}

fn about(config: &Config, id: Uuid, address: Text, agent: &agent::Config) -> About {
    let port = |port: Option<u16>| port.map_or(-1, i32::from);
    let ports = [
        ("http", port(config.ports.http)),
        ("dns", port(config.ports.dns)),
        ("server", i32::from(config.ports.server)),
        ("serf_lan", i32::from(config.ports.serf_lan)),
        ("serf_wan", port(config.ports.serf_wan)),
        ("grpc", -1),
    ];
    About {
        node: Text::new(&config.node_name),
        id,
        datacenter: Text::new(&config.datacenter),
        address,
        version: Text::new_static(env!("CARGO_PKG_VERSION")),
        server: config.server,
        dev: config.dev,
        domain: Text::new(&config.dns.domain),
        kv_max_value_size: config.limits.kv_max_value_size,
        ports: ports.into_iter().map(|(name, port)| (Text::new_static(name), port)).collect(),
        config_json: Text::new(crate::config::report::debug(config).to_string()),
        node_meta: agent.node_meta.clone(),
        tagged_addresses: agent.tagged_addresses.clone(),
    }
}
