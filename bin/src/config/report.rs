//! The configuration as `/v1/agent/self` shows it under `DebugConfig`.

use proconsul_core::duration;
use serde_json::{Map, Value, json};

use super::build::Settings;
use super::schema::{Fate, Kind};
use super::{Config, Listen, keys};

/// Every setting under the name that Consul reports it by: what is written, or its default. Secrets are left out.
#[must_use]
pub fn debug(config: &Config) -> Value {
    let settings = Settings(config.settings.clone());
    let mut report = Map::new();
    for row in keys::AGENT.iter().filter(|row| !row.reported.is_empty()) {
        let path = match row.fate {
            Fate::Old(target) => target,
            Fate::Used | Fate::Later | Fate::Enterprise => row.path,
        };
        let default = || Some(serde_json::from_str(row.default).expect("a test parses every default"));
        let written = settings.written(path).cloned();
        let value = written.or_else(|| if row.default.is_empty() { None } else { default() });
        let value = match (row.kind, value) {
            (Kind::Any, Some(Value::Object(map))) if path == "connect.ca_config" => {
                map.into_iter().map(|(key, value)| (camel(&key), value)).collect()
            }
            (_, Some(_)) if is_secret(path) => json!("hidden"),
            (Kind::Duration, Some(value)) => shown_duration(&value),
            (Kind::DurationMap, Some(Value::Object(map))) => {
                map.into_iter().map(|(key, value)| (key, shown_duration(&value))).collect()
            }
            (_, Some(value)) => value,
            (_, None) => continue,
        };
        set(&mut report, row.reported, value);
    }
    for (name, value) in derived(config, &settings) {
        set(&mut report, name, value);
    }
    Value::Object(report)
}

/// A key such as `leaf_cert_ttl` as `LeafCertTTL`.
fn camel(key: &str) -> String {
    let word = |word: &str| match word {
        "ttl" | "csr" | "pki" | "ca" | "arn" | "tls" => word.to_uppercase(),
        word => {
            let mut word = word.to_owned();
            word.get_mut(..1).unwrap_or_default().make_ascii_uppercase();
            word
        }
    };
    key.split('_').map(word).collect()
}

fn is_secret(path: &str) -> bool {
    path == "encrypt"
        || path.starts_with("acl.tokens")
        || path.ends_with("_token")
        || path.ends_with("intro_token")
}

fn shown_duration(value: &Value) -> Value {
    let nanos = value.as_str().and_then(duration::parse).unwrap_or_default();
    let text = duration::format(std::time::Duration::from_nanos(nanos.unsigned_abs()));
    Value::from(if nanos < 0 { format!("-{text}") } else { text })
}

/// What follows from several keys, or is reported in another form than it is written in.
fn derived(config: &Config, settings: &Settings) -> Vec<(&'static str, Value)> {
    let addresses = |list: &[Listen]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tcp = |address: &dyn std::fmt::Display| json!(format!("tcp://{address}"));
    let dns =
        |network: &'static str| config.dns_listen.iter().map(move |address| format!("{network}://{address}"));
    let port = |port: Option<u16>| port.map_or(-1, i64::from);
    let base = if config.dev { [35, 52, 20] } else { [1000, 1000, 500] };
    let [heartbeat, election, lease] = base.map(|millis| {
        json!(duration::format(std::time::Duration::from_millis(millis * u64::from(config.raft.multiplier))))
    });
    let prefixes = |sign: char| {
        let list = settings.value("telemetry.prefix_filter");
        let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        json!(texts.filter_map(|text| text.strip_prefix(sign)).collect::<Vec<_>>())
    };
    let unset = |path: &str| settings.written(path).is_none();
    let content_path = settings.value("ui_config.content_path");
    let content_path = content_path.as_str().unwrap_or_default().trim_matches('/').to_owned();
    let wan = std::net::SocketAddr::new(config.advertise_wan, config.ports.serf_wan.unwrap_or(0));
    let mut derived = vec![
        ("AdvertiseAddrLAN", json!(config.advertise_lan)),
        ("AdvertiseAddrWAN", json!(config.advertise_wan)),
        ("AutoEncryptIPSAN", settings.value("auto_encrypt.ip_san")),
        ("BindAddr", json!(config.bind_addr)),
        ("Bootstrap", json!(config.bootstrap)),
        ("BootstrapExpect", json!(config.bootstrap_expect)),
        ("ClientAddrs", json!(config.client_addrs)),
        ("ConsulRaftElectionTimeout", election),
        ("ConsulRaftHeartbeatTimeout", heartbeat),
        ("ConsulRaftLeaderLeaseTimeout", lease),
        ("DNSAddrs", json!(dns("tcp").chain(dns("udp")).collect::<Vec<_>>())),
        ("DNSPort", json!(port(config.ports.dns))),
        ("Datacenter", json!(config.datacenter)),
        ("DevMode", json!(config.dev)),
        ("EnableLocalScriptChecks", json!(config.enable_local_script_checks)),
        ("EnableRemoteScriptChecks", json!(config.enable_remote_script_checks)),
        ("GRPCAddrs", json!(addresses(&config.grpc))),
        ("HTTPAddrs", json!(addresses(&config.http))),
        ("HTTPPort", json!(port(config.ports.http))),
        ("HTTPSAddrs", json!(addresses(&config.https))),
        ("LeaveOnTerm", json!(config.leave_on_terminate)),
        ("Logging.Name", json!("")),
        ("NodeName", json!(config.node_name)),
        ("PrimaryDatacenter", json!(config.primary_datacenter)),
        ("RPCAdvertiseAddr", tcp(&std::net::SocketAddr::new(config.advertise_lan, config.ports.server))),
        ("RPCBindAddr", tcp(&config.rpc_bind)),
        (
            "SerfAdvertiseAddrLAN",
            tcp(&std::net::SocketAddr::new(config.advertise_lan, config.ports.serf_lan)),
        ),
        ("SerfAdvertiseAddrWAN", tcp(&wan)),
        ("SerfBindAddrLAN", tcp(&config.serf_lan_bind)),
        ("SerfBindAddrWAN", config.serf_wan_bind.map_or(Value::Null, |address| tcp(&address))),
        ("ServerMode", json!(config.server)),
        ("SkipLeaveOnInt", json!(config.skip_leave_on_interrupt)),
        ("TaggedAddresses", json!(config.tagged_addresses)),
        ("Telemetry.AllowedPrefixes", prefixes('+')),
        ("Telemetry.BlockedPrefixes", prefixes('-')),
        ("Telemetry.Disable", json!(false)),
        (
            "UIContentPath",
            json!(if content_path.is_empty() { "/ui/".to_owned() } else { format!("/{content_path}/") }),
        ),
    ];
    if unset("session_ttl_min") {
        derived.push(("SessionTTLMin", json!("0s")));
    }
    if unset("log_rotate_duration") {
        derived.push(("Logging.LogRotateDuration", json!("0s")));
    }
    if unset("cache.entry_fetch_rate") {
        derived.push(("Cache.EntryFetchRate", json!(f64::MAX)));
    }
    if unset("connect.ca_provider") {
        derived.push(("ConnectCAProvider", json!("")));
    }
    if config.dev {
        derived.push(("ConsulCoordinateUpdatePeriod", json!("100ms")));
        derived.push(("ConsulServerHealthInterval", json!("10ms")));
    }
    derived
}

/// Sets a dotted name in nested objects.
fn set(report: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            report.insert(name.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = report.entry(first).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
