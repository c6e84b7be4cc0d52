//! From the configuration to the settings of the node.

use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::agent;
use proconsul_core::gossip::{self, tag};
use proconsul_core::ids::Uuid;
use proconsul_core::node::{self, About, CheckpointPolicy, FormingPolicy};
use proconsul_core::raft::{Member, Membership, Timing};
use proconsul_core::store::AutopilotSettings;

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
    let forming = if config.elects_itself() {
        let members = [(id, Member { address: rpc, voter: true })];
        FormingPolicy::Found(Membership { servers: members.into() })
    } else {
        FormingPolicy::Wait
    };
    let agent = config.agent(id);
    let election = (ELECTION_TIMEOUT_UNIT * config.raft.multiplier).max(ELECTION_TIMEOUT_MIN);
    node::Config {
        about: about(config, id, address, &agent),
        timing: Timing { election, ..Timing::default() },
        forming,
        recover: None,
        lan: lan(config, id),
        wan: None,
        join: std::collections::BTreeMap::new(),
        autopilot: AutopilotSettings::default(),
        keeps_local: config.data_dir.is_some(),
        agent,
        hold_timeout: HOLD_TIMEOUT,
        checkpoints: CheckpointPolicy {
            entries: config.raft.snapshot_threshold,
            ..CheckpointPolicy::default()
        },
        tombstone_ttl: TOMBSTONE_TTL,
    }
}

/// This agent in the datacenter's pool of gossip.
fn lan(config: &Config, id: Uuid) -> gossip::Config {
    let address = std::net::SocketAddr::new(config.advertise_lan, config.ports.serf_lan);
    let role = if config.server { tag::ROLE_SERVER } else { tag::ROLE_CLIENT };
    let mut tags: std::collections::BTreeMap<Text, Text> = [
        (tag::ROLE, role.to_owned()),
        (tag::DATACENTER, config.datacenter.clone()),
        (tag::ID, id.to_string()),
        (tag::BUILD, env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (Text::new(name), Text::new(value)))
    .collect();
    if config.server {
        tags.insert(Text::new(tag::PORT), Text::new(config.ports.server.to_string()));
    }
    gossip::Config {
        tags,
        datacenter: Text::new(&config.datacenter),
        ..gossip::Config::new(Text::new(&config.node_name), address)
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
