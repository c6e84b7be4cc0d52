//! The agent's configuration: read from files, flags and fragments, checked, and given types.
//!
//! [`keys`] is the table of everything that may be written, [`schema`] checks what is written against it, [`mod@load`]
//! merges the sources, [`build`] turns the result into a [`Config`].

pub mod address;
pub mod build;
mod definitions;
pub mod gossip;
pub mod hcl;
mod http;
mod idle;
pub mod join;
pub mod keys;
pub mod load;
pub mod report;
pub mod schema;
mod telemetry;
mod template;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::agent::{self, CheckDefinition, ServiceDefinition};
use proconsul_core::api::Front;
use proconsul_core::config_entry::Draft;
use proconsul_core::ids::Uuid;
use proconsul_core::store::AutopilotSettings;
use proconsul_io_real::words::io_reason;
use serde_json::{Map, Value};

pub use load::{Format, Inputs};

/// A refusal to use a configuration: one line that names the place and the remedy, and perhaps hints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    message: String,
    hints: Vec<String>,
}

impl ConfigError {
    /// A refusal in one line.
    pub fn new(message: impl Into<String>) -> ConfigError {
        ConfigError { message: message.into(), hints: Vec::new() }
    }

    /// Several refusals at once, in the form in which Consul lists them.
    pub(crate) fn listed(before: &str, reasons: Vec<String>) -> ConfigError {
        let message = match reasons.as_slice() {
            [one] => format!("{before}1 error occurred: * {one}"),
            many => format!("{before}{} errors occurred:\n\t* {}", many.len(), many.join("\n\t* ")),
        };
        ConfigError::new(message)
    }

    /// Adds a line that says what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> ConfigError {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn io(verb: &str, path: &Path, error: &std::io::Error) -> ConfigError {
        ConfigError::new(format!("{verb} {}: {}", path.display(), io_reason(error)))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for hint in &self.hints {
            write!(f, "\n    {hint}")?;
        }
        Ok(())
    }
}

/// Where an HTTP listener stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A path of a Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "tcp://{address}"),
            Listen::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Port numbers; `None` is a listener that is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// HTTP API.
    pub http: Option<u16>,
    /// The same over TLS.
    pub https: Option<u16>,
    /// gRPC.
    pub grpc: Option<u16>,
    /// DNS, over UDP and TCP.
    pub dns: Option<u16>,
    /// DNS over HTTPS.
    pub dns_https: Option<u16>,
    /// DNS over TLS.
    pub dns_tls: Option<u16>,
    /// RPC between agents.
    pub server: u16,
    /// Gossip within the datacenter.
    pub serf_lan: u16,
    /// Gossip between datacenters.
    pub serf_wan: Option<u16>,
}

/// What to log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The lowest level that is shown.
    pub level: crate::log::Level,
    /// One JSON object per line.
    pub json: bool,
    /// Files to log to besides.
    pub file: Option<crate::log::LogFile>,
    /// What to file lines under in the system's log, if they are to go there, too.
    pub syslog: Option<crate::log::Facility>,
}

/// How DNS questions are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The domain answered for, without its closing dot.
    pub domain: String,
    /// A second one.
    pub alt_domain: Option<String>,
    /// TTL of node look-ups.
    pub node_ttl: Duration,
    /// TTLs by service name; `*` is the default and a trailing `*` matches a prefix.
    pub service_ttl: BTreeMap<String, Duration>,
    /// Leave out instances in state warning too.
    pub only_passing: bool,
    /// Most address records in one answer; 0 is no limit.
    pub a_record_limit: usize,
    /// Most answers over UDP without EDNS.
    pub udp_answer_limit: usize,
    /// Set TC when answers were left out.
    pub enable_truncate: bool,
    /// Do not compress names.
    pub disable_compression: bool,
    /// Add node metadata as TXT records.
    pub node_meta_txt: bool,
    /// Numbers of the SOA record: refresh, retry, expire, minimum TTL, in seconds.
    pub soa: [u32; 4],
    /// Answer from what the server that is asked knows, without asking the leader.
    pub allow_stale: bool,
    /// But not if that is older than this.
    pub max_stale: Duration,
    /// Resolvers for other names.
    pub recursors: Vec<String>,
    /// For so long each of them may think.
    pub recursor_timeout: Duration,
    /// Ask them in another order each time; otherwise as they are written.
    pub recursors_in_random_order: bool,
}

/// Sizes and rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest value of a key, in bytes.
    pub kv_max_value_size: u64,
    /// Largest body of a transaction, in bytes.
    pub txn_max_req_len: u64,
    /// Most HTTP connections from one address.
    pub http_max_conns_per_client: usize,
    /// Most bytes of a request's headers, if it is set.
    pub max_header_bytes: Option<usize>,
    /// For how long a client may leave its connection unused, or take to send the headers of a request, and
    /// again for its body; zero: any time.
    pub http_idle_timeout: Duration,
}

/// Raft's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Factor on the base timeouts, 1 to 10.
    pub multiplier: u32,
    /// Entries after which a snapshot is taken.
    pub snapshot_threshold: u64,
    /// How often that is looked at.
    pub snapshot_interval: Duration,
    /// Entries that stay in the log behind a snapshot.
    pub trailing_logs: u64,
}

/// An agent's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Development mode: a sole server that keeps everything in memory.
    pub dev: bool,
    /// Name of this node.
    pub node_name: String,
    /// Identity, if it is set by hand. Otherwise the one in the data directory, or a new one.
    pub node_id: Option<Uuid>,
    /// Datacenter, in lower case.
    pub datacenter: String,
    /// Datacenter that decides about ACLs and intentions, in lower case.
    pub primary_datacenter: String,
    /// Metadata of the node.
    pub node_meta: BTreeMap<String, String>,
    /// Addresses of the node by name: `lan`, `wan`, their `_ipv4` and `_ipv6` forms and the user's own.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Whether this agent is a server.
    pub server: bool,
    /// Whether this server makes itself the first member of the cluster.
    pub bootstrap: bool,
    /// How many servers form the cluster together; 0 if that is not said.
    pub bootstrap_expect: u32,
    /// Where state is kept; `None` in development mode.
    pub data_dir: Option<PathBuf>,
    /// Address of the cluster's listeners.
    pub bind_addr: IpAddr,
    /// Address told to others in this datacenter.
    pub advertise_lan: IpAddr,
    /// Address told to other datacenters.
    pub advertise_wan: IpAddr,
    /// Listener of RPC.
    pub rpc_bind: SocketAddr,
    /// Listener of LAN gossip.
    pub serf_lan_bind: SocketAddr,
    /// Listener of WAN gossip, if it is on.
    pub serf_wan_bind: Option<SocketAddr>,
    /// Addresses of the clients' listeners.
    pub client_addrs: Vec<IpAddr>,
    /// HTTP listeners.
    pub http: Vec<Listen>,
    /// HTTPS listeners that are asked for.
    pub https: Vec<Listen>,
    /// gRPC listeners that are asked for.
    pub grpc: Vec<Listen>,
    /// User and group of Unix sockets, where they are set.
    pub unix_socket_owner: (Option<u32>, Option<u32>),
    /// Mode of Unix sockets, if it is set.
    pub unix_socket_mode: Option<u32>,
    /// DNS listeners, each for UDP and TCP.
    pub dns_listen: Vec<SocketAddr>,
    /// Listeners of DNS over TLS.
    pub dns_tls_listen: Vec<SocketAddr>,
    /// Listeners of DNS over HTTPS.
    pub dns_https_listen: Vec<SocketAddr>,
    /// Port numbers.
    pub ports: Ports,
    /// Logging.
    pub log: LogConfig,
    /// Whether that is what was asked for, and not the default because it cannot be.
    pub log_is_usable: bool,
    /// TLS.
    pub tls: tls::Tls,
    /// DNS.
    pub dns: DnsConfig,
    /// Limits.
    pub limits: Limits,
    /// Gossip.
    pub gossip: gossip::Gossip,
    /// How to join the agents of this datacenter.
    pub join_lan: join::Join,
    /// How to join the servers of other datacenters.
    pub join_wan: join::Join,
    /// How the leader looks after the servers.
    pub autopilot: AutopilotSettings,
    /// Configuration entries that a leader writes unless there are such.
    pub config_entries: Vec<Draft>,
    /// Whether this server never votes.
    pub read_replica: bool,
    /// For how long a request waits for a leader.
    pub rpc_hold_timeout: Duration,
    /// For how long a server that leaves still takes requests.
    pub leave_drain_time: Duration,
    /// Raft.
    pub raft: RaftConfig,
    /// How metrics are named and which are shown.
    pub telemetry: proconsul_io_real::metrics::Settings,
    /// Rules of the HTTP interface.
    pub front: Front,
    /// Where web pages of one's own lie.
    pub ui_dir: Option<PathBuf>,
    /// The shortest TTL of a session.
    pub session_ttl_min: Duration,
    /// How long changes of a check's output alone may wait before they are told to the catalog.
    pub check_update_interval: Duration,
    /// Longest output of a check that is kept, in bytes.
    pub check_output_max_size: usize,
    /// Keep no output at all.
    pub discard_check_output: bool,
    /// Allow script checks in configuration files.
    pub enable_local_script_checks: bool,
    /// Allow script checks over HTTP too.
    pub enable_remote_script_checks: bool,
    /// Leave the cluster on SIGTERM.
    pub leave_on_terminate: bool,
    /// Do not leave the cluster on SIGINT.
    pub skip_leave_on_interrupt: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Services that files define.
    pub services: Vec<ServiceDefinition>,
    /// Checks that files define.
    pub checks: Vec<CheckDefinition>,
    /// What an agent must not start with, although the files are well formed.
    pub trouble: Option<ConfigError>,
    /// What to tell the user about the files.
    pub warnings: Vec<String>,
    /// What to tell the user about settings that have no effect in this version.
    pub idle: Vec<String>,
    /// Every key that is set, merged, for those parts that read more than is typed here.
    pub settings: Map<String, Value>,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Where they were found.
    pub sources: load::Sources,
    /// Read them again when they change.
    pub auto_reload: bool,
}

impl Config {
    /// Whether this server elects itself at once, as the only member of a new cluster.
    #[must_use]
    pub fn elects_itself(&self) -> bool {
        self.server && (self.dev || self.bootstrap)
    }

    /// What a reload may change about the core's agent, besides definitions.
    #[must_use]
    pub fn reloaded(&self) -> agent::Reloaded {
        let agent = self.agent(Uuid(0));
        agent::Reloaded {
            node_meta: agent.node_meta,
            discard_check_output: agent.discard_check_output,
            check_update_interval: agent.check_update_interval,
            discovery_max_stale: self.front.discovery_max_stale,
        }
    }

    /// What the core's agent has to know, once this node's identity is known.
    #[must_use]
    pub fn agent(&self, id: Uuid) -> agent::Config {
        let texts = |map: &BTreeMap<String, String>| {
            map.iter().map(|(key, value)| (Text::new(key), Text::new(value))).collect()
        };
        let mut tagged_addresses = self.tagged_addresses.clone();
        for (tag, address) in [("lan", self.advertise_lan), ("wan", self.advertise_wan)] {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            for tag in [tag.to_owned(), format!("{tag}_{family}")] {
                tagged_addresses.entry(tag).or_insert_with(|| address.to_string());
            }
        }
        let mut node_meta = self.node_meta.clone();
        node_meta.entry("consul-network-segment".to_owned()).or_default();
        agent::Config {
            remote_exec: self.settings.get("disable_remote_exec") == Some(&Value::Bool(false)),
            node: Text::new(&self.node_name),
            id: Some(id),
            address: Text::new(self.advertise_lan.to_string()),
            datacenter: Text::new(&self.datacenter),
            tagged_addresses: texts(&tagged_addresses),
            node_meta: texts(&node_meta),
            services: self.services.clone(),
            checks: self.checks.clone(),
            check_update_interval: self.check_update_interval,
            discard_check_output: self.discard_check_output,
            persist: !self.dev,
            scripts: if self.enable_remote_script_checks {
                agent::Scripts::All
            } else if self.enable_local_script_checks {
                agent::Scripts::OfFiles
            } else {
                agent::Scripts::None
            },
            ..agent::Config::default()
        }
    }
}

/// Reads, merges and checks a configuration.
pub fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
    build::build(inputs.dev, load::merge_all(inputs)?)
}

#[cfg(test)]
mod tests;
