//! From the configuration to the settings of the node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::agent;
use proconsul_core::format::Formats;
use proconsul_core::gossip::{self, Pool, Profile, tag};
use proconsul_core::ids::Uuid;
use proconsul_core::node::{self, About, CheckpointPolicy, FormingPolicy, JoinPolicy};
use proconsul_core::raft::{Membership, Timing};

use crate::config::Config;
use crate::config::gossip::Pace;
use crate::config::join::Join;

/// Threads besides those that share the machine's processors: the node's, the log's, that of bulk work.
const OWN_THREADS: usize = 3;
/// For how long deletions are remembered, as in Consul.
const TOMBSTONE_TTL: Duration = Duration::from_secs(15 * 60);
/// Election timeout at the smallest multiplier, and never less: leases have to fit in.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(400);
/// Election timeout per unit of `raft_multiplier`.
const ELECTION_TIMEOUT_UNIT: Duration = Duration::from_millis(200);

/// The settings of the agent that this configuration describes. `recover` is the operator's word on the Raft group.
pub(super) fn node(config: &Config, id: Uuid, recover: Option<Membership>) -> node::Config {
    let address = Text::new(config.advertise_lan.to_string());
    let forming = if config.elects_itself() {
        FormingPolicy::Alone
    } else if config.bootstrap_expect > 0 && !config.read_replica {
        FormingPolicy::Expect(config.bootstrap_expect)
    } else {
        FormingPolicy::Wait
    };
    let agent = config.agent(id);
    let election = (ELECTION_TIMEOUT_UNIT * config.raft.multiplier).max(ELECTION_TIMEOUT_MIN);
    let wan_port = config.ports.serf_wan.filter(|_| config.server);
    let mut join = BTreeMap::from([(Pool::Lan, policy(&config.join_lan, config.ports.serf_lan))]);
    join.extend(wan_port.map(|port| (Pool::Wan, policy(&config.join_wan, port))));
    node::Config {
        about: about(config, id, address, &agent),
        timing: Timing { election, ..Timing::default() },
        forming,
        recover,
        lan: lan(config, id),
        wan: wan_port.map(|port| wan(config, id, port)),
        join,
        keeps_local: config.data_dir.is_some(),
        keeps_keys: config.data_dir.is_some() && config.gossip.keyring_file,
        agent,
        hold_timeout: config.rpc_hold_timeout,
        checkpoints: CheckpointPolicy {
            entries: config.raft.snapshot_threshold,
            ..CheckpointPolicy::default()
        },
        autopilot: config.autopilot.clone(),
        config_entries: config.config_entries.clone(),
        tombstone_ttl: TOMBSTONE_TTL,
    }
}

fn policy(join: &Join, default_port: u16) -> JoinPolicy {
    JoinPolicy {
        addresses: join.addresses.iter().map(|address| Text::new(address.to_string())).collect(),
        interval: join.interval,
        attempts_max: Some(join.attempts_max).filter(|max| *max > 0),
        default_port,
    }
}

/// This agent in the datacenter's pool of gossip.
fn lan(config: &Config, id: Uuid) -> gossip::Config {
    let mut pool = pool(config, id, &config.node_name, config.advertise_lan, config.ports.serf_lan);
    pool.profile = paced(Profile::lan(), &config.gossip.lan);
    pool.reconnect_timeout = config.gossip.lan.reconnect_timeout;
    pool.allowed.clone_from(&config.gossip.lan.allowed);
    pool
}

/// This server in the pool of all datacenters.
fn wan(config: &Config, id: Uuid, port: u16) -> gossip::Config {
    // Names need to be unique among all datacenters.
    let name = format!("{}.{}", config.node_name, config.datacenter);
    let mut pool = pool(config, id, &name, config.advertise_wan, port);
    pool.profile = paced(Profile::wan(), &config.gossip.wan);
    pool.reconnect_timeout = config.gossip.wan.reconnect_timeout;
    pool.allowed.clone_from(&config.gossip.wan.allowed);
    pool
}

fn pool(config: &Config, id: Uuid, name: &str, address: IpAddr, port: u16) -> gossip::Config {
    let gossip = &config.gossip;
    gossip::Config {
        tags: tags(config, id),
        datacenter: Text::new(&config.datacenter),
        keys: gossip.key.iter().cloned().collect(),
        verify_incoming: gossip.verify_incoming,
        verify_outgoing: gossip.verify_outgoing,
        rejoin_after_leave: gossip.rejoin_after_leave,
        coordinates: gossip.coordinates,
        ..gossip::Config::new(Text::new(name), SocketAddr::new(address, port))
    }
}

fn paced(profile: Profile, pace: &Pace) -> Profile {
    Profile {
        gossip_interval: pace.gossip_interval,
        gossip_nodes: pace.gossip_nodes,
        probe_interval: pace.probe_interval,
        probe_timeout: pace.probe_timeout,
        retransmit_mult: pace.retransmit_mult,
        suspicion_mult: pace.suspicion_mult,
        ..profile
    }
}

/// What this agent tells others about itself, under the names that Consul's agents use.
fn tags(config: &Config, id: Uuid) -> BTreeMap<Text, Text> {
    let mut tags = vec![
        (tag::DATACENTER, config.datacenter.clone()),
        (tag::ID, id.to_string()),
        (tag::BUILD, format!("{}:", env!("CARGO_PKG_VERSION"))),
        ("vsn", "2".to_owned()),
        ("vsn_min", "2".to_owned()),
        ("vsn_max", "3".to_owned()),
    ];
    if config.server {
        tags.extend([
            (tag::ROLE, tag::ROLE_SERVER.to_owned()),
            (tag::PORT, config.ports.server.to_string()),
            (tag::RAFT_VERSION, "3".to_owned()),
            ("segment", String::new()),
            ("acls", "0".to_owned()),
        ]);
        tags.extend(config.bootstrap.then(|| (tag::BOOTSTRAP, "1".to_owned())));
        if config.bootstrap_expect > 0 {
            tags.push((tag::EXPECT, config.bootstrap_expect.to_string()));
        }
        tags.extend(config.read_replica.then(|| (tag::READ_REPLICA, "1".to_owned())));
        tags.extend(config.ports.serf_wan.map(|port| (tag::WAN_PORT, port.to_string())));
    } else {
        tags.push((tag::ROLE, tag::ROLE_CLIENT.to_owned()));
        tags.push(("segment", String::new()));
    }
    tags.into_iter().map(|(name, value)| (Text::new(name), Text::new(value))).collect()
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
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    About {
        node: Text::new(&config.node_name),
        id,
        datacenter: Text::new(&config.datacenter),
        address,
        version: Text::new_static(env!("CARGO_PKG_VERSION")),
        server: config.server,
        dev: config.dev,
        bootstrap: config.bootstrap,
        processors,
        threads: processors + OWN_THREADS,
        domain: Text::new(&config.dns.domain),
        kv_max_value_size: config.limits.kv_max_value_size,
        txn_max_req_len: config.limits.txn_max_req_len,
        ports: ports.into_iter().map(|(name, port)| (Text::new_static(name), port)).collect(),
        config_json: Text::new(crate::config::report::debug(config).to_string()),
        node_meta: agent.node_meta.clone(),
        tagged_addresses: agent.tagged_addresses.clone(),
        disable_coordinates: !config.gossip.coordinates,
        front: config.front.clone(),
        formats: Formats::KNOWN,
    }
}
