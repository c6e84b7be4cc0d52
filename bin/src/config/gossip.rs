//! Gossip, joining and the care for servers: from settings to types.

use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::gossip::Key;
use proconsul_core::network::Network;
use proconsul_core::store::AutopilotSettings;

use super::build::{Settings, Trouble};
use super::join::{self, Join};
use super::{ConfigError, Ports};

/// The shortest time after which a failed member may be forgotten (Consul: «reconnect_timeout»).
const RECONNECT_MIN: Duration = Duration::from_secs(8 * 3600);

/// Settings of gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// The key that seals it, as configured. The file of keys in the data directory counts more.
    pub key: Option<Key>,
    /// Refuse what is not sealed.
    pub verify_incoming: bool,
    /// Seal what is sent.
    pub verify_outgoing: bool,
    /// Keep keys in the data directory.
    pub keyring_file: bool,
    /// Estimate round-trip times.
    pub coordinates: bool,
    /// Join the members known before a restart also when the agent had left.
    pub rejoin_after_leave: bool,
    /// Pace within the datacenter.
    pub lan: Pace,
    /// Pace between datacenters.
    pub wan: Pace,
}

/// How quick a pool is, and whom it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between messages to random members.
    pub gossip_interval: Duration,
    /// How many members get one each time.
    pub gossip_nodes: usize,
    /// Time between probes of one member.
    pub probe_interval: Duration,
    /// How long a probe waits for its answer.
    pub probe_timeout: Duration,
    /// Factor on the number of times that a message is sent on.
    pub retransmit_mult: u32,
    /// Factor on the time after which a suspect has failed.
    pub suspicion_mult: u32,
    /// For so long a failed member is sought.
    pub reconnect_timeout: Duration,
    /// Networks in which members are; empty: anywhere.
    pub allowed: Vec<Network>,
}

fn refuse<T>(message: String) -> Result<T, ConfigError> {
    Err(ConfigError::new(message))
}

/// A count that has to be at least one.
fn count(settings: &Settings, path: &str) -> Result<u32, ConfigError> {
    let number = settings.int(path);
    match u32::try_from(number) {
        Ok(count) if count > 0 => Ok(count),
        _ => refuse(format!("{path} cannot be {number}. Must be greater than zero")),
    }
}

/// A time that has to be longer than nothing.
fn time(settings: &Settings, path: &str) -> Result<Duration, ConfigError> {
    let time = settings.duration(path);
    if time.is_zero() { refuse(format!("{path} must be greater than zero")) } else { Ok(time) }
}

pub(super) fn gossip(
    settings: &Settings,
    warnings: &mut Vec<String>,
    trouble: &mut Trouble,
) -> Result<Gossip, ConfigError> {
    let key = key(&settings.text("encrypt"), trouble)?;
    let verifies = |path: &str| settings.bool(path);
    Ok(Gossip {
        key,
        verify_incoming: verifies("encrypt_verify_incoming"),
        verify_outgoing: verifies("encrypt_verify_outgoing"),
        keyring_file: !settings.bool("disable_keyring_file"),
        coordinates: !settings.bool("disable_coordinates"),
        rejoin_after_leave: settings.bool("rejoin_after_leave"),
        lan: pace(settings, "gossip_lan", "reconnect_timeout", "serf_lan_allowed_cidrs", warnings)?,
        wan: pace(settings, "gossip_wan", "reconnect_timeout_wan", "serf_wan_allowed_cidrs", warnings)?,
    })
}

/// A key as `keygen` prints it.
fn key(text: &str, trouble: &mut Trouble) -> Result<Option<Key>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some(bytes) = crate::base64::decode(text) else {
        return refuse("encrypt has invalid key: it must be base64, as keygen prints it".to_owned());
    };
    let key = Key::new(&bytes);
    if key.is_none() {
        trouble.note(Some(ConfigError::new(
            "Failed to configure keyring: Invalid key: key size must be 16, 24 or 32 bytes",
        )));
    }
    Ok(key)
}

fn pace(
    settings: &Settings,
    section: &str,
    reconnect: &str,
    allowed: &str,
    warnings: &mut Vec<String>,
) -> Result<Pace, ConfigError> {
    let path = |name: &str| format!("{section}.{name}");
    let mut reconnect_timeout = settings.duration(reconnect);
    if reconnect_timeout < RECONNECT_MIN {
        warnings.push(format!("{reconnect} is less than 8h, which is too short for repairs: 8h is used"));
        reconnect_timeout = RECONNECT_MIN;
    }
    Ok(Pace {
        gossip_interval: time(settings, &path("gossip_interval"))?,
        gossip_nodes: usize::try_from(count(settings, &path("gossip_nodes"))?).unwrap_or(usize::MAX),
        probe_interval: time(settings, &path("probe_interval"))?,
        probe_timeout: time(settings, &path("probe_timeout"))?,
        retransmit_mult: count(settings, &path("retransmit_mult"))?,
        suspicion_mult: count(settings, &path("suspicion_mult"))?,
        reconnect_timeout,
        // What cannot be read has been refused before.
        allowed: settings.texts(allowed).iter().filter_map(|text| Network::parse(text)).collect(),
    })
}

/// How to join both pools: within the datacenter, and between datacenters.
pub(crate) fn joins(
    settings: &Settings,
    server: bool,
    ports: &Ports,
    warnings: &mut Vec<String>,
) -> Result<[Join; 2], ConfigError> {
    let wan_port = ports.serf_wan.unwrap_or(8302);
    let lan = join(settings, "", ports.serf_lan)?;
    let wan = join(settings, "_wan", wan_port)?;
    if !wan.addresses.is_empty() && (!server || ports.serf_wan.is_none()) {
        let why =
            if server { "ports.serf_wan is switched off" } else { "only servers join other datacenters" };
        warnings.push(format!("retry_join_wan is without effect: {why}"));
    }
    Ok([lan, wan])
}

fn join(settings: &Settings, suffix: &str, port: u16) -> Result<Join, ConfigError> {
    let path = format!("retry_join{suffix}");
    let mut addresses = Vec::new();
    for text in settings.texts(&path) {
        match join::parse(&text, port) {
            Ok(address) => addresses.push(address),
            Err(reason) => return refuse(format!("{path}: {reason}")),
        }
    }
    let max = format!("retry_max{suffix}");
    let attempts = settings.int(&max);
    let Ok(attempts_max) = u32::try_from(attempts) else {
        return refuse(format!("{max} cannot be {attempts}. Must be greater than or equal to zero"));
    };
    // Without a pause the attempts would keep a processor busy.
    let interval = settings.duration(&format!("retry_interval{suffix}")).max(Duration::from_millis(100));
    Ok(Join { addresses, interval, attempts_max })
}

/// How the leader looks after the servers of a new cluster. Later changes come by `operator autopilot set-config`.
pub(crate) fn autopilot(settings: &Settings) -> Result<AutopilotSettings, ConfigError> {
    let number = |path: &str| match settings.int(path) {
        number if number < 0 => {
            refuse(format!("{path} cannot be {number}. Must be greater than or equal to zero"))
        }
        number => Ok(number.unsigned_abs()),
    };
    Ok(AutopilotSettings {
        cleanup_dead_servers: settings.bool("autopilot.cleanup_dead_servers"),
        last_contact_threshold: settings.duration("autopilot.last_contact_threshold"),
        max_trailing_logs: number("autopilot.max_trailing_logs")?,
        server_stabilization_time: settings.duration("autopilot.server_stabilization_time"),
        min_quorum: number("autopilot.min_quorum")?,
        redundancy_zone_tag: Text::new(settings.text("autopilot.redundancy_zone_tag")),
        disable_upgrade_migration: settings.bool("autopilot.disable_upgrade_migration"),
        upgrade_version_tag: Text::new(settings.text("autopilot.upgrade_version_tag")),
    })
}
