//! From the merged object to a [`Config`]: types, defaults, and the rules between keys.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use proconsul_core::config_entry::Draft;
use proconsul_core::duration;
use proconsul_core::ids::Uuid;
use proconsul_core::network::Network;
use serde_json::{Map, Value};

use super::address::{self, Address};
use super::definitions::Rules;
use super::load::Merged;
use super::schema::Kind;
use super::{
    Config, ConfigError, DnsConfig, Limits, Listen, LogConfig, Ports, RaftConfig, definitions, gossip, http,
    idle, keys, telemetry, template, tls,
};
use crate::log::{Facility, Level, LogFile};
use crate::watch::plan::Plan;

/// The merged settings with the table's defaults behind them.
pub(crate) struct Settings(pub(crate) Map<String, Value>);

impl Settings {
    /// What is written under a path.
    pub(crate) fn written(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        Some(value)
    }

    /// What is written, or the default of the table.
    pub(crate) fn value(&self, path: &str) -> Value {
        if let Some(value) = self.written(path) {
            return value.clone();
        }
        let row = keys::AGENT.iter().find(|row| row.path == path);
        let default = row.map(|row| row.default).filter(|default| !default.is_empty());
        default.map_or(Value::Null, |json| serde_json::from_str(json).expect("a test parses every default"))
    }

    pub(crate) fn text(&self, path: &str) -> String {
        self.value(path).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn bool(&self, path: &str) -> bool {
        self.value(path).as_bool().unwrap_or_default()
    }

    pub(crate) fn int(&self, path: &str) -> i64 {
        self.value(path).as_i64().unwrap_or_default()
    }

    pub(crate) fn duration(&self, path: &str) -> std::time::Duration {
        unsigned(duration::parse(&self.text(path)).unwrap_or_default())
    }

    pub(crate) fn texts(&self, path: &str) -> Vec<String> {
        let value = self.value(path);
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub(super) fn map(&self, path: &str) -> BTreeMap<String, String> {
        let value = self.value(path);
        let pairs = value.as_object().into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }
}

/// What lies before zero counts as zero.
fn unsigned(nanos: i64) -> std::time::Duration {
    std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::new(message))
}

/// Checks everything and gives it types.
pub(crate) fn build(dev: bool, merged: Merged) -> Result<Config, ConfigError> {
    let Merged { mut object, services, checks, files, sources, mut warnings } = merged;
    let mut errors = Vec::new();
    template::expand_all(&mut object, &mut errors);
    let settings = Settings(object);
    errors.extend(durations(&settings));
    let ports = ports(&settings, &mut errors);
    let bind = bind_addr(&settings)?;
    let (lan, wan) = advertised(&settings, bind, &mut errors);
    let client_addrs = client_addrs(&settings, &mut errors);
    let http = listeners(&settings, "addresses.http", &client_addrs, ports.http, &mut errors);
    let https = listeners(&settings, "addresses.https", &client_addrs, ports.https, &mut errors);
    let grpc = listeners(&settings, "addresses.grpc", &client_addrs, ports.grpc, &mut errors);
    let mut dns_at = |port| {
        let listeners = listeners(&settings, "addresses.dns", &client_addrs, port, &mut errors);
        let address = |listen| match listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        };
        listeners.into_iter().filter_map(address).collect::<Vec<_>>()
    };
    let dns_listen = dns_at(ports.dns);
    let dns_tls_listen = dns_at(ports.dns_tls);
    let dns_https_listen = dns_at(ports.dns_https);
    let serf_lan = optional_ip(&settings, "serf_lan", &mut errors).unwrap_or(bind);
    let serf_wan = optional_ip(&settings, "serf_wan", &mut errors).unwrap_or(bind);
    if !errors.is_empty() {
        return Err(ConfigError::listed("", errors));
    }
    let [lan, wan] = default_advertised(bind, lan, wan)?;

    let server = settings.bool("server");
    let data_dir = data_dir(&settings, dev)?;
    let datacenter = datacenter(&settings)?;
    let (bootstrap, bootstrap_expect) = bootstrap(&settings, dev, server, &mut warnings)?;
    let node_name = node_name(&settings)?;
    let node_meta = node_meta(&settings)?;
    numbers(&settings)?;
    rules(&settings, server, &datacenter)?;
    let mut trouble = Trouble::default();
    trouble.note(tls::trouble(&settings));
    trouble.note(acl_policy(&settings));
    trouble.note(protocol(&settings));
    trouble.note(watches(&settings));
    let mut log_is_usable = true;
    let log = log(&settings).unwrap_or_else(|error| {
        trouble.note(Some(error));
        log_is_usable = false;
        LogConfig::default()
    });
    let gossip = gossip::gossip(&settings, &mut warnings, &mut trouble)?;
    let tls = tls::tls(&settings, &mut warnings)?;
    let [join_lan, join_wan] = gossip::joins(&settings, server, &ports, &mut warnings)?;
    let autopilot = gossip::autopilot(&settings)?;
    let config_entries = config_entries(&settings)?;
    let read_replica = settings.bool("read_replica");
    if read_replica && bootstrap && !dev {
        return refuse(
            "'read_replica = true' and 'bootstrap = true' exclude each other: a server without a vote cannot found a cluster",
        );
    }
    distinct_ports(&ports, lan, wan)?;
    let domain = |path: &str| settings.text(path).trim_end_matches('.').to_owned();
    let number = |path: &str| u64::try_from(settings.int(path)).unwrap_or(0);
    let size = |path: &str| usize::try_from(settings.int(path)).unwrap_or(0);
    let primary = settings.text("primary_datacenter").to_ascii_lowercase();
    let leave =
        |path: &str, default: bool| settings.written(path).and_then(Value::as_bool).unwrap_or(default);
    let seconds = |path: &str| u32::try_from(settings.int(path)).unwrap_or(0);
    let remote_scripts = settings.bool("enable_script_checks");
    let scripts_enabled = remote_scripts || settings.bool("enable_local_script_checks");
    let definition_rules = Rules { output_max_size: size("check_output_max_size"), scripts_enabled };
    let services = definitions::services(services, definition_rules, &mut trouble, &mut warnings)?;
    let checks = definitions::checks(&checks, &services, definition_rules, &mut trouble)?;
    if settings.texts("telemetry.prefix_filter").iter().any(String::is_empty) {
        warnings.push("Cannot have empty filter rule in prefix_filter".to_owned());
    }

    Ok(Config {
        dev,
        telemetry: telemetry::telemetry(&settings, &node_name),
        node_name,
        node_id: node_id(&settings)?,
        primary_datacenter: if primary.is_empty() { datacenter.clone() } else { primary },
        datacenter,
        tagged_addresses: tagged(&settings, lan, wan),
        node_meta,
        server,
        bootstrap,
        bootstrap_expect,
        data_dir,
        bind_addr: bind,
        advertise_lan: lan,
        advertise_wan: wan,
        rpc_bind: SocketAddr::new(bind, ports.server),
        serf_lan_bind: SocketAddr::new(serf_lan, ports.serf_lan),
        serf_wan_bind: ports.serf_wan.map(|port| SocketAddr::new(serf_wan, port)),
        client_addrs,
        unix_socket_mode: socket_mode(&settings)?,
        unix_socket_owner: http::owner(&settings)?,
        dns_listen,
        dns_tls_listen,
        dns_https_listen,
        http,
        https,
        grpc,
        ports,
        log,
        log_is_usable,
        tls,
        trouble: trouble.0,
        dns: DnsConfig {
            domain: domain("domain"),
            alt_domain: Some(domain("alt_domain")).filter(|d| !d.is_empty()),
            node_ttl: settings.duration("dns_config.node_ttl"),
            service_ttl: settings
                .map("dns_config.service_ttl")
                .into_iter()
                .filter_map(|(name, ttl)| Some((name, unsigned(duration::parse(&ttl)?))))
                .collect(),
            only_passing: settings.bool("dns_config.only_passing"),
            a_record_limit: size("dns_config.a_record_limit"),
            udp_answer_limit: size("dns_config.udp_answer_limit"),
            enable_truncate: settings.bool("dns_config.enable_truncate"),
            disable_compression: settings.bool("dns_config.disable_compression"),
            node_meta_txt: settings.bool("dns_config.enable_additional_node_meta_txt"),
            soa: ["refresh", "retry", "expire", "min_ttl"].map(|n| seconds(&format!("dns_config.soa.{n}"))),
            allow_stale: settings.bool("dns_config.allow_stale"),
            max_stale: settings.duration("dns_config.max_stale"),
            recursors: settings.texts("recursors"),
            recursor_timeout: settings.duration("dns_config.recursor_timeout"),
            recursors_in_random_order: settings.text("dns_config.recursor_strategy") == "random",
        },
        limits: Limits {
            kv_max_value_size: number("limits.kv_max_value_size"),
            txn_max_req_len: number("limits.txn_max_req_len"),
            http_max_conns_per_client: size("limits.http_max_conns_per_client"),
            max_header_bytes: Some(size("http_config.max_header_bytes")).filter(|bytes| *bytes > 0),
            http_idle_timeout: settings.duration("http_config.idle_timeout"),
        },
        gossip,
        join_lan,
        join_wan,
        autopilot,
        config_entries,
        read_replica,
        rpc_hold_timeout: settings.duration("performance.rpc_hold_timeout"),
        leave_drain_time: settings.duration("performance.leave_drain_time"),
        raft: RaftConfig {
            multiplier: u32::try_from(settings.int("performance.raft_multiplier")).unwrap_or(1),
            snapshot_threshold: number("raft_snapshot_threshold"),
            snapshot_interval: settings.duration("raft_snapshot_interval"),
            trailing_logs: number("raft_trailing_logs"),
        },
        front: http::front(&settings)?,
        ui_dir: Some(settings.text("ui_config.dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        session_ttl_min: settings.duration("session_ttl_min"),
        check_update_interval: settings.duration("check_update_interval"),
        check_output_max_size: size("check_output_max_size"),
        discard_check_output: settings.bool("discard_check_output"),
        enable_local_script_checks: scripts_enabled,
        enable_remote_script_checks: remote_scripts,
        leave_on_terminate: leave("leave_on_terminate", !server),
        skip_leave_on_interrupt: leave("skip_leave_on_interrupt", server),
        pid_file: Some(settings.text("pid_file")).filter(|p| !p.is_empty()).map(PathBuf::from),
        services,
        checks,
        warnings,
        idle: idle::idle(&settings, dev),
        auto_reload: settings.bool("auto_reload_config"),
        settings: settings.0,
        files,
        sources,
    })
}

/// Every duration that cannot be read.
fn durations(settings: &Settings) -> Vec<String> {
    let bad = |path: &str, value: &Value| {
        let text = value.as_str()?;
        duration::parse(text).is_none().then(|| {
            format!("{path}: invalid duration: {text:?}: write a number and a unit, such as \"1m30s\"")
        })
    };
    let mut errors = Vec::new();
    for row in keys::AGENT {
        // The telemetry section is flat in Consul's own messages.
        let path = row.path.strip_prefix("telemetry.").unwrap_or(row.path);
        match (row.kind, settings.written(row.path)) {
            (Kind::Duration, Some(value)) => errors.extend(bad(path, value)),
            (Kind::DurationMap, Some(Value::Object(map))) => {
                errors.extend(map.iter().filter_map(|(key, value)| bad(&format!("{path}[{key:?}]"), value)));
            }
            _ => {}
        }
    }
    errors
}

fn ports(settings: &Settings, errors: &mut Vec<String>) -> Ports {
    for row in keys::AGENT.iter().filter(|row| row.path.starts_with("ports.")) {
        let port = settings.written(row.path).and_then(Value::as_i64);
        errors.extend(
            port.filter(|port| *port > 65_535).map(|port| format!("{}: invalid port: {port}", row.path)),
        );
    }
    let port = |path: &str| u16::try_from(settings.int(path)).ok().filter(|port| *port != 0);
    Ports {
        http: port("ports.http"),
        https: port("ports.https"),
        grpc: port("ports.grpc"),
        dns: port("ports.dns"),
        dns_https: port("ports.dns_https"),
        dns_tls: port("ports.dns_tls"),
        server: port("ports.server").unwrap_or(8300),
        serf_lan: port("ports.serf_lan").unwrap_or(8301),
        serf_wan: port("ports.serf_wan"),
    }
}

fn bind_addr(settings: &Settings) -> Result<IpAddr, ConfigError> {
    let text = settings.text("bind_addr");
    let found: Vec<IpAddr> = text.split_whitespace().filter_map(address::ip).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let error = ConfigError::new("bind_addr cannot be empty");
            Err(if text.trim().is_empty() {
                error
            } else {
                error.hint(format!("{text:?} is no IP address."))
            })
        }
        _ => refuse("bind_addr cannot contain multiple addresses. Use 'addresses.{dns,http,https}' instead."),
    }
}

fn optional_ip(settings: &Settings, path: &str, errors: &mut Vec<String>) -> Option<IpAddr> {
    let text = settings.text(path);
    if text.is_empty() {
        return None;
    }
    address::single(path, &text).map_err(|e| errors.push(e)).ok()
}

/// The advertised addresses as written, or what follows from the bind address.
fn advertised(
    settings: &Settings,
    bind: IpAddr,
    errors: &mut Vec<String>,
) -> (Option<IpAddr>, Option<IpAddr>) {
    let first = |paths: [&str; 2], errors: &mut Vec<String>| {
        paths.iter().find_map(|path| optional_ip(settings, path, errors))
    };
    let family = if bind.is_ipv4() { "ipv4" } else { "ipv6" };
    let before = errors.len();
    let lan = first(["advertise_addr", &format!("advertise_addr_{family}")], errors);
    let wan = first(["advertise_addr_wan", &format!("advertise_addr_wan_{family}")], errors);
    if errors.len() > before && settings.text("advertise_addr_wan").is_empty() {
        errors.push("advertise_addr_wan: is taken from advertise_addr".to_owned());
    }
    (lan, wan)
}

fn default_advertised(
    bind: IpAddr,
    lan: Option<IpAddr>,
    wan: Option<IpAddr>,
) -> Result<[IpAddr; 2], ConfigError> {
    let lan = match lan {
        Some(lan) if lan.is_unspecified() => {
            return refuse("Advertise address cannot be 0.0.0.0, :: or [::]");
        }
        Some(lan) => lan,
        None if bind.is_unspecified() => address::only_private(bind, &address::interfaces())?,
        None => bind,
    };
    match wan {
        Some(wan) if wan.is_unspecified() => refuse("Advertise WAN address cannot be 0.0.0.0, :: or [::]"),
        wan => Ok([lan, wan.unwrap_or(lan)]),
    }
}

fn client_addrs(settings: &Settings, errors: &mut Vec<String>) -> Vec<IpAddr> {
    let mut addrs = Vec::new();
    match address::list("client_addr", &settings.text("client_addr")) {
        Err(e) => errors.push(e),
        Ok(list) => {
            for address in list {
                match address {
                    Address::Ip(ip) => addrs.push(ip),
                    Address::Unix(_) => errors.push("client_addr cannot be a unix socket".to_owned()),
                }
            }
        }
    }
    addrs
}

/// The listeners of one protocol: its own addresses, or those of all clients.
/// The entries that leaders write unless there are such.
fn config_entries(settings: &Settings) -> Result<Vec<Draft>, ConfigError> {
    let entries = settings.value("config_entries.bootstrap");
    let read = |(at, value): (usize, &Value)| {
        Draft::parse(value).map_err(|bad| {
            let why = bad.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            ConfigError::new(format!("config_entries.bootstrap[{at}]: {why}"))
        })
    };
    entries.as_array().into_iter().flatten().enumerate().map(read).collect()
}

fn listeners(
    settings: &Settings,
    path: &str,
    clients: &[IpAddr],
    port: Option<u16>,
    errors: &mut Vec<String>,
) -> Vec<Listen> {
    let text = settings.text(path);
    let list = if text.trim().is_empty() {
        clients.iter().copied().map(Address::Ip).collect()
    } else {
        address::list(path, &text).unwrap_or_else(|e| {
            errors.push(e);
            Vec::new()
        })
    };
    if path == "addresses.dns" && list.iter().any(|a| matches!(a, Address::Unix(_))) {
        errors.push("addresses.dns cannot be a unix socket".to_owned());
    }
    let listen = |address| match address {
        Address::Ip(ip) => port.map(|port| Listen::Tcp(SocketAddr::new(ip, port))),
        Address::Unix(path) => Some(Listen::Unix(path)),
    };
    if port.is_none() { Vec::new() } else { list.into_iter().filter_map(listen).collect() }
}

fn data_dir(settings: &Settings, dev: bool) -> Result<Option<PathBuf>, ConfigError> {
    let text = settings.text("data_dir");
    if text.is_empty() {
        return if dev {
            Ok(None)
        } else {
            Err(ConfigError::new("data_dir cannot be empty")
                .hint("Say with data_dir (-data-dir) where to keep state, or use -dev to keep it in memory."))
        };
    }
    let path = PathBuf::from(&text);
    if path.exists() && !path.is_dir() {
        return refuse(format!("data_dir {text:?} is not a directory"));
    }
    Ok((!dev).then_some(path))
}

fn datacenter(settings: &Settings) -> Result<String, ConfigError> {
    let text = settings.text("datacenter");
    let lower = text.to_lowercase();
    if text.is_empty() {
        return refuse("datacenter cannot be empty");
    }
    if !lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_') {
        return refuse(format!("datacenter cannot be {text:?}. Please use only [a-z0-9-_]"));
    }
    Ok(lower)
}

fn bootstrap(
    settings: &Settings,
    dev: bool,
    server: bool,
    warnings: &mut Vec<String>,
) -> Result<(bool, u32), ConfigError> {
    let (bootstrap, expect) = (settings.bool("bootstrap"), settings.int("bootstrap_expect"));
    if expect < 0 {
        return refuse(format!("bootstrap_expect cannot be {expect}. Must be greater than or equal to zero"));
    }
    if bootstrap && !server {
        return refuse("'bootstrap = true' requires 'server = true'");
    }
    if expect > 0 && !server {
        return refuse("'bootstrap_expect > 0' requires 'server = true'");
    }
    if expect > 0 && dev {
        return refuse("'bootstrap_expect > 0' not allowed in dev mode");
    }
    if expect > 0 && bootstrap {
        return refuse("'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive");
    }
    let expect = u32::try_from(expect).unwrap_or(u32::MAX);
    if expect == 2 {
        warnings.push(
            "bootstrap_expect = 2: A cluster with 2 servers will provide no failure tolerance.".to_owned(),
        );
    } else if expect > 2 && expect % 2 == 0 {
        warnings.push("bootstrap_expect is even number: A cluster with an even number of servers does not tolerate more failures than one server less.".to_owned());
    }
    if expect > 1 {
        warnings.push(format!("bootstrap_expect > 0: expecting {expect} servers"));
    }
    // Expecting one server is the same as being the first one.
    let first = bootstrap || expect == 1;
    if first && !dev {
        warnings.push("bootstrap = true: do not enable unless necessary".to_owned());
    }
    Ok((first, if expect == 1 { 0 } else { expect }))
}

fn node_name(settings: &Settings) -> Result<String, ConfigError> {
    if settings.written("node_name").is_some() {
        let name = settings.text("node_name");
        return if name.is_empty() { refuse("node_name cannot be empty") } else { Ok(name) };
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if host.is_empty() {
        return Err(ConfigError::new("node_name cannot be empty")
            .hint("This machine has no host name: say one with node_name (-node)."));
    }
    Ok(host)
}

fn node_id(settings: &Settings) -> Result<Option<Uuid>, ConfigError> {
    let text = settings.text("node_id");
    match Uuid::parse(&text) {
        _ if text.is_empty() => Ok(None),
        Some(id) => Ok(Some(id)),
        None => refuse(format!("node_id {text:?} is no NodeID: it must be a UUID of 36 characters")),
    }
}

/// Limits of the documentation: 64 pairs, keys of 128 and values of 512 characters, no `consul-` prefix.
fn node_meta(settings: &Settings) -> Result<BTreeMap<String, String>, ConfigError> {
    let meta = settings.map("node_meta");
    if meta.len() > 64 {
        return refuse("node_meta invalid: Node metadata cannot contain more than 64 key/value pairs");
    }
    for (key, value) in &meta {
        let reason = if key.is_empty() {
            "Key cannot be blank"
        } else if !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            "Key contains invalid characters"
        } else if key.len() > 128 {
            "Key is too long (limit: 128 characters)"
        } else if key.starts_with("consul-") {
            "Key prefix 'consul-' is reserved for internal use"
        } else if value.len() > 512 {
            "Value is too long (limit: 512 characters)"
        } else {
            continue;
        };
        return refuse(format!(
            "node_meta invalid: Couldn't load metadata pair ('{key}', '{value}'): {reason}"
        ));
    }
    Ok(meta)
}

/// Ranges of single numbers.
fn numbers(settings: &Settings) -> Result<(), ConfigError> {
    let multiplier = settings.int("performance.raft_multiplier");
    if !(1..=10).contains(&multiplier) {
        return refuse(format!(
            "performance.raft_multiplier cannot be {multiplier}. Must be between 1 and 10"
        ));
    }
    if settings.int("check_output_max_size") < 1 {
        return refuse(
            "check_output_max_size must be positive, to discard check output use the discard_check_output flag",
        );
    }
    for path in [
        "dns_config.udp_answer_limit",
        "dns_config.a_record_limit",
        "autopilot.max_trailing_logs",
        "limits.http_max_conns_per_client",
        "limits.rpc_max_conns_per_client",
        "raft_snapshot_threshold",
        "raft_trailing_logs",
    ] {
        let number = settings.int(path);
        if number < 0 {
            return refuse(format!("{path} cannot be {number}. Must be greater than or equal to zero"));
        }
    }
    for path in ["limits.kv_max_value_size", "limits.txn_max_req_len"] {
        if settings.int(path) < 1 {
            return refuse(format!("{path} must be positive"));
        }
    }
    for (low, high) in [("sidecar_min_port", "sidecar_max_port"), ("expose_min_port", "expose_max_port")] {
        if settings.int(&format!("ports.{low}")) > settings.int(&format!("ports.{high}")) {
            return refuse(format!("{low} must be less than {high}. To disable, set both to zero."));
        }
    }
    Ok(())
}

/// Rules between keys, and values with a form of their own.
fn rules(settings: &Settings, server: bool, datacenter: &str) -> Result<(), ConfigError> {
    if settings.bool("ui_config.enabled") && !settings.text("ui_config.dir").is_empty() {
        return refuse("Both the ui and ui-dir flags were specified, please provide only one.");
    }
    if !settings.text("segment").is_empty()
        || !settings.texts("segments").is_empty()
        || settings.written("segments").is_some()
    {
        return refuse("Network segments are not supported: remove segment and segments");
    }
    for recursor in settings.texts("recursors") {
        if address::ip(&recursor).is_some_and(|ip| ip.is_unspecified()) {
            return refuse("DNS recursor address cannot be 0.0.0.0, :: or [::]");
        }
    }
    if let Some(unknown) = tls::unknown_suites(settings) {
        let why = format!("tls_cipher_suites: invalid tls cipher suites: unsupported cipher {unknown:?}");
        return Err(ConfigError::listed("", vec![why]));
    }
    let verifies = ["tls.defaults.verify_outgoing", "tls.internal_rpc.verify_outgoing"];
    if settings.bool("auto_config.enabled") && !verifies.iter().any(|path| settings.bool(path)) {
        return Err(ConfigError::new(
            "auto_config.enabled cannot be set without configuring TLS for server communications",
        )
        .hint("Set tls.internal_rpc.verify_outgoing and tls.defaults.ca_file."));
    }
    for path in ["serf_lan_allowed_cidrs", "serf_wan_allowed_cidrs", "http_config.allow_write_http_from"] {
        if let Some(bad) = settings.texts(path).into_iter().find(|cidr| Network::parse(cidr).is_none()) {
            return Err(ConfigError::listed(&format!("{path}: "), vec![format!("invalid cidr: {bad}")]));
        }
    }
    if settings.written("primary_gateways").is_some() {
        if !server {
            return refuse("'primary_gateways' requires 'server = true'");
        }
        let primary = settings.text("primary_datacenter");
        if primary.is_empty() || primary.eq_ignore_ascii_case(datacenter) {
            return refuse("'primary_gateways' should only be configured in a secondary datacenter");
        }
    }
    if settings.bool("connect.enable_mesh_gateway_wan_federation") && !server {
        return refuse("'connect.enable_mesh_gateway_wan_federation = true' requires 'server = true'");
    }
    if settings.bool("auto_encrypt.allow_tls") && !server {
        return refuse("auto_encrypt.allow_tls can only be used on a server.");
    }
    Ok(())
}

/// The version of gossip's protocol, which is looked at when an agent starts. It changes nothing here.
fn protocol(settings: &Settings) -> Option<ConfigError> {
    settings.written("protocol")?;
    let protocol = settings.int("protocol");
    let way = match protocol {
        ..2 => "low",
        2..=3 => return None,
        _ => "high",
    };
    Some(ConfigError::new(format!("Protocol version '{protocol}' too {way}. (range: [2, 3])")))
}

/// The policy of access rules, which is looked at when an agent starts.
fn acl_policy(settings: &Settings) -> Option<ConfigError> {
    let policy = settings.text("acl.default_policy");
    (!["", "allow", "deny"].contains(&policy.as_str())).then(|| {
        ConfigError::new(format!("Unsupported default ACL policy: {policy}"))
            .hint("acl.default_policy is allow or deny.")
    })
}

/// The first watch that makes no sense.
fn watches(settings: &Settings) -> Option<ConfigError> {
    let all = settings.written("watches").and_then(Value::as_array).into_iter().flatten();
    all.enumerate().find_map(|(at, parameters)| {
        let empty = Map::new();
        let why = match Plan::read(parameters.as_object().unwrap_or(&empty)) {
            Err(why) => why,
            Ok(plan) if plan.handler.is_none() => "Must define a watch handler".to_owned(),
            Ok(_) => return None,
        };
        Some(ConfigError::new(why).hint(format!("watches[{at}]")))
    })
}

/// The first thing that an agent would not start with. Consul's `validate` does not look for such, and ends well.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<ConfigError>);

impl Trouble {
    /// Remembers it, if it is the first.
    pub(super) fn note(&mut self, error: Option<ConfigError>) {
        if self.0.is_none() {
            self.0 = error;
        }
    }
}

/// The cluster's listeners must not share an address that is told to others.
fn distinct_ports(ports: &Ports, lan: IpAddr, wan: IpAddr) -> Result<(), ConfigError> {
    let mut taken: Vec<(SocketAddr, &str)> = vec![(SocketAddr::new(lan, ports.server), "RPC Advertise")];
    let others = [
        (Some(SocketAddr::new(lan, ports.serf_lan)), "Serf Advertise LAN"),
        (ports.serf_wan.map(|port| SocketAddr::new(wan, port)), "Serf Advertise WAN"),
    ];
    for (address, name) in others {
        let Some(address) = address else { continue };
        if let Some((_, other)) = taken.iter().find(|(a, _)| *a == address) {
            return refuse(format!("{name} address {address} already configured for {other}"));
        }
        taken.push((address, name));
    }
    Ok(())
}

fn tagged(settings: &Settings, lan: IpAddr, wan: IpAddr) -> BTreeMap<String, String> {
    let mut tagged = settings.map("tagged_addresses");
    for (name, address) in [("lan", lan), ("wan", wan)] {
        tagged.insert(name.to_owned(), address.to_string());
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        tagged.insert(format!("{name}_{family}"), address.to_string());
    }
    for (key, name) in [
        ("advertise_addr_ipv4", "lan_ipv4"),
        ("advertise_addr_ipv6", "lan_ipv6"),
        ("advertise_addr_wan_ipv4", "wan_ipv4"),
        ("advertise_addr_wan_ipv6", "wan_ipv6"),
    ] {
        if let Some(ip) = address::ip(&settings.text(key)) {
            tagged.insert(name.to_owned(), ip.to_string());
        }
    }
    tagged
}

fn socket_mode(settings: &Settings) -> Result<Option<u32>, ConfigError> {
    let text = settings.text("unix_sockets.mode");
    match u32::from_str_radix(&text, 8) {
        _ if text.is_empty() => Ok(None),
        Ok(mode) if mode <= 0o7777 => Ok(Some(mode)),
        _ => {
            refuse(format!("unix_sockets.mode {text:?} is no file mode: write it in octal, such as \"0700\""))
        }
    }
}

fn log(settings: &Settings) -> Result<LogConfig, ConfigError> {
    let text = settings.text("log_level");
    let Some(level) = Level::parse(&text) else {
        return refuse(format!(
            "Invalid log level: {text}. Valid log levels are: [TRACE DEBUG INFO WARN ERR]"
        ));
    };
    let path = settings.text("log_file");
    let file = (!path.is_empty()).then(|| LogFile {
        path: LogFile::path_of(&path),
        bytes: u64::try_from(settings.int("log_rotate_bytes")).unwrap_or(0),
        after: settings.duration("log_rotate_duration"),
        kept: match settings.int("log_rotate_max_files") {
            0 => None,
            number => Some(usize::try_from(number).unwrap_or(0)),
        },
    });
    let syslog = match settings.bool("enable_syslog") {
        false => None,
        true => {
            let name = settings.text("syslog_facility");
            match Facility::parse(&name) {
                Some(facility) => Some(facility),
                None => {
                    return refuse(format!("syslog_facility {name:?} is unknown: write LOCAL0, for example"));
                }
            }
        }
    };
    Ok(LogConfig { level, json: settings.bool("log_json"), file, syslog })
}
