//! Reading the configuration again, on SIGHUP and at `/v1/agent/reload`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proconsul_core::agent;
use proconsul_core::api::{Authorizer, Call, LogLevel, Request};
use proconsul_io_real::dns::{Settings, Within};
use proconsul_io_real::gate::Gate;
use proconsul_io_real::process::Process;
use proconsul_io_real::tls::{Acceptor, TlsError};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc};

use super::dns;
use super::watches::{self, Watches};
use crate::config::{Config, ConfigError};
use crate::log;

/// Reads the configuration again from where it came.
pub type Reread = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Settings that take effect at once. Definitions of services and checks do, too.
const RELOADABLE: &[&str] = &[
    "check_update_interval",
    "discard_check_output",
    "discovery_max_stale",
    "limits.http_max_conns_per_client",
    "node_meta",
    "dns_config",
    "log_level",
    "recursors",
    "tls.defaults.ca_file",
    "tls.defaults.ca_path",
    "tls.defaults.cert_file",
    "tls.defaults.key_file",
    "tls.defaults.verify_incoming",
    "tls.https.ca_file",
    "tls.https.ca_path",
    "tls.https.cert_file",
    "tls.https.key_file",
    "tls.https.verify_incoming",
    "telemetry.disable_hostname",
    "telemetry.filter_default",
    "telemetry.metrics_prefix",
    "telemetry.prefix_filter",
    "telemetry.prometheus_retention_time",
    "watches",
];

/// This process, as front-ends see it.
pub(super) struct Around {
    gate: Gate,
    reread: Reread,
    follows: Follows,
    /// The settings that the agent was started with; held while the configuration is read again.
    started_with: Mutex<Map<String, Value>>,
}

/// Parts of the agent that follow a reload.
pub(super) struct Follows {
    /// How DNS questions are answered.
    pub(super) names: Settings,
    /// Most connections of one client; zero: any number.
    pub(super) per_client: Arc<AtomicUsize>,
    /// What HTTPS listeners show.
    pub(super) https: Option<Acceptor>,
    /// What listeners of DNS show.
    pub(super) private: Vec<(Within, Acceptor)>,
    /// What is watched, and who is told.
    pub(super) watches: Watches,
}

impl Around {
    pub(super) fn new(gate: Gate, reread: Reread, config: &Config, follows: Follows) -> Around {
        Around { gate, reread, follows, started_with: Mutex::new(config.settings.clone()) }
    }

    async fn apply(&self) -> Result<(), String> {
        let mut started_with = self.started_with.lock().await;
        let config = (self.reread)().map_err(|error| error.to_string())?;
        // All that can fail comes first: what is wrong changes nothing.
        let https = match (&self.follows.https, &config.tls.https) {
            (Some(_), Some(tls)) => Some(Acceptor::new(tls).map_err(|error| error.to_string())?),
            _ => None,
        };
        let private = match &config.tls.https {
            Some(tls) => self.follows.private.iter().map(|(within, _)| dns::acceptor(tls, *within)).collect(),
            None => Ok(Vec::new()),
        };
        let private = private.map_err(|error: TlsError| error.to_string())?;
        let names = dns::settings(&config)?;
        let watched = watches::read(&config.settings).map_err(|error| error.to_string())?;
        let call = agent::Call::Reload {
            services: config.services.clone(),
            checks: config.checks.clone(),
            settings: config.reloaded(),
        };
        let request = Request { call: Call::Agent(call), authorizer: Authorizer };
        let reply = self.gate.ask(request).await.map_err(|refused| refused.to_string())?;
        if reply.status != 200 {
            return Err(String::from_utf8_lossy(&reply.body).into_owned());
        }
        if let Some((acceptor, new)) = self.follows.https.as_ref().zip(https.as_ref()) {
            acceptor.replace(new);
        }
        for ((_, acceptor), new) in self.follows.private.iter().zip(&private) {
            acceptor.replace(new);
        }
        log::set_level(config.log.level);
        self.gate.metrics().set(config.telemetry.clone());
        self.follows.per_client.store(config.limits.http_max_conns_per_client, Ordering::Relaxed);
        self.follows.names.set(names);
        if started_with.get("watches") != config.settings.get("watches") {
            self.follows.watches.replace(watched);
            started_with
                .insert("watches".to_owned(), config.settings.get("watches").cloned().unwrap_or_default());
        }
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let waiting = differing(&started_with, &config.settings);
        if !waiting.is_empty() {
            tracing::warn!("changed, and without effect before a restart: {}", waiting.join(", "));
        }
        Ok(())
    }
}

#[async_trait]
impl Process for Around {
    async fn reload(&self) -> Result<(), String> {
        tracing::info!("Reloading configuration...");
        let result = self.apply().await;
        match &result {
            Ok(()) => tracing::info!("Configuration reload complete"),
            Err(why) => tracing::error!("Failed to reload the configuration, the former one goes on: {why}"),
        }
        result
    }

    fn monitor(&self, level: LogLevel, json: bool) -> mpsc::Receiver<Bytes> {
        log::monitor(level.into(), json)
    }
}

/// Paths of settings that differ and need a restart.
fn differing(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut paths = Vec::new();
    compare("", before, after, &mut paths);
    let takes_effect = |path: &str| {
        RELOADABLE.iter().any(|known| {
            path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    paths.retain(|path| !takes_effect(path));
    paths
}

fn compare(prefix: &str, before: &Map<String, Value>, after: &Map<String, Value>, paths: &mut Vec<String>) {
    let none = Map::new();
    let new = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(new) {
        let path = format!("{prefix}{key}");
        match (before.get(key), after.get(key)) {
            (before, after) if before == after => {}
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                compare(&format!("{path}."), before, after, paths);
            }
            (None, Some(Value::Object(after))) => compare(&format!("{path}."), &none, after, paths),
            (Some(Value::Object(before)), None) => compare(&format!("{path}."), before, &none, paths),
            _ => paths.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let map = |value: Value| value.as_object().expect("an object").clone();
        let before = map(
            json!({"log_level": "info", "server": true, "dns_config": {"service_ttl": {"web": "1s"}}, "ports": {"http": 1, "dns": 2}}),
        );
        let after = map(json!({"log_level": "debug", "server": true, "ports": {"http": 3, "dns": 2},
            "telemetry": {"prefix_filter": ["+a"], "statsd_address": "x"}}));
        assert_eq!(differing(&before, &after), ["ports.http", "telemetry.statsd_address"]);
    }
}
