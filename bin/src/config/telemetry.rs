//! How metrics are named and which are shown (Consul's documentation, «telemetry»).

use proconsul_io_real::metrics::Settings as Telemetry;

use super::build::Settings;

pub(super) fn telemetry(settings: &Settings, node: &str) -> Telemetry {
    let rule = |text: String| {
        let shown = text.strip_prefix('+').map(|name| (name.to_owned(), true));
        shown.or_else(|| text.strip_prefix('-').map(|name| (name.to_owned(), false)))
    };
    let with_host = !settings.bool("telemetry.disable_hostname");
    let retention = "telemetry.prometheus_retention_time";
    Telemetry {
        prefix: settings.text("telemetry.metrics_prefix"),
        host: if with_host { host() } else { String::new() },
        node: node.to_owned(),
        shown: settings.bool("telemetry.filter_default"),
        rules: settings.texts("telemetry.prefix_filter").into_iter().filter_map(rule).collect(),
        // On unless somebody has switched it off.
        prometheus: settings.written(retention).is_none() || !settings.duration(retention).is_zero(),
    }
}

/// The machine's name, as gauges have it.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_of_telemetry_are_read() {
        let read = |value: serde_json::Value| {
            telemetry(&Settings(value.as_object().expect("an object").clone()), "n")
        };
        let default = read(json!({}));
        assert!(default.prometheus && default.shown && !default.host.is_empty() && default.rules.is_empty());
        let set = read(json!({"telemetry": {
            "disable_hostname": true,
            "filter_default": false,
            "metrics_prefix": "p",
            "prefix_filter": ["+consul.raft", "-consul.http", "odd"],
            "prometheus_retention_time": "0s",
        }}));
        assert!(!set.prometheus && !set.shown && set.host.is_empty());
        assert_eq!(set.prefix, "p");
        assert_eq!(set.rules, [("consul.raft".to_owned(), true), ("consul.http".to_owned(), false)]);
    }
}
