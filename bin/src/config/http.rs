//! `http_config`, the limits of requests and the owners of sockets.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};
use proconsul_core::Text;
use proconsul_core::api::{Front, LimitMode, RequestLimits, WAIT_LIMIT, Waits};
use proconsul_core::network::Network;

use super::ConfigError;
use super::build::{Settings, refuse};

/// The rules of the HTTP interface.
pub(super) fn front(settings: &Settings) -> Result<Front, ConfigError> {
    let duration = |path: &str| settings.duration(path).min(WAIT_LIMIT);
    let mut response_headers = response_headers(settings.map("http_config.response_headers"))?;
    let policy = settings.text("acl.default_policy");
    response_headers.push((Text::new_static("X-Consul-Default-ACL-Policy"), Text::from(policy)));
    Ok(Front {
        response_headers,
        ignores_cached: !settings.bool("http_config.use_cache"),
        block_endpoints: settings.texts("http_config.block_endpoints").into_iter().map(Text::from).collect(),
        // What is no network was refused before.
        writers: settings
            .texts("http_config.allow_write_http_from")
            .iter()
            .filter_map(|text| Network::parse(text))
            .collect(),
        waits: Waits { default: duration("default_query_time"), max: duration("max_query_time") },
        discovery_max_stale: settings.duration("discovery_max_stale"),
        limits: request_limits(settings)?,
        page: has_page(settings).then(|| content_path(settings)).transpose()?,
    })
}

/// Whether there is a web page: the program's own, or one in a directory.
fn has_page(settings: &Settings) -> bool {
    settings.bool("ui_config.enabled") || !settings.text("ui_config.dir").is_empty()
}

/// The path of the web page, with a slash at both ends. It cannot be one of the API's.
fn content_path(settings: &Settings) -> Result<Text, ConfigError> {
    let text = settings.text("ui_config.content_path");
    let path = match text.trim_matches('/') {
        "" => "/ui/".to_owned(),
        path => format!("/{path}/"),
    };
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/')) {
        return refuse(format!(
            "ui-content-path can only contain alphanumeric, -, _, or /. received: {path}"
        ));
    }
    if path.as_bytes().windows(2).any(|pair| pair[0] == b'v' && pair[1].is_ascii_digit()) {
        return refuse(format!("ui-content-path cannot have 'v[0-9]'. received: {path}"));
    }
    Ok(path.into())
}

fn response_headers(headers: BTreeMap<String, String>) -> Result<Vec<(Text, Text)>, ConfigError> {
    for (name, value) in &headers {
        if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
            return refuse(format!(
                "http_config.response_headers: {name:?}: {value:?} is no header that HTTP allows"
            ));
        }
    }
    Ok(headers.into_iter().map(|(name, value)| (Text::from(name), Text::from(value))).collect())
}

fn request_limits(settings: &Settings) -> Result<RequestLimits, ConfigError> {
    let mode = match settings.text("limits.request_limits.mode").as_str() {
        "" | "disabled" => LimitMode::Disabled,
        "permissive" => LimitMode::Permissive,
        "enforcing" => LimitMode::Enforcing,
        other => {
            return refuse(format!(
                "limits.request_limits.mode {other:?} is unknown: write \"disabled\", \"permissive\" or \"enforcing\""
            ));
        }
    };
    // Negative, or not set: any number.
    let rate =
        |name: &str| settings.value(&format!("limits.request_limits.{name}")).as_f64().filter(|r| *r >= 0.0);
    Ok(RequestLimits { mode, read_rate: rate("read_rate"), write_rate: rate("write_rate") })
}

/// User and group that Unix sockets are given to, as numbers or by the names that the system knows.
pub(super) fn owner(settings: &Settings) -> Result<(Option<u32>, Option<u32>), ConfigError> {
    let read = |what: &str, file: &str| {
        let text = settings.text(&format!("unix_sockets.{what}"));
        if text.is_empty() {
            return Ok(None);
        }
        let names = || std::fs::read_to_string(file).unwrap_or_default();
        match text.parse().ok().or_else(|| id_of(&text, &names())) {
            Some(id) => Ok(Some(id)),
            None => refuse(format!(
                "unix_sockets.{what} {text:?} is not in {file}: write a {what} that is there, or a number"
            )),
        }
    };
    Ok((read("user", "/etc/passwd")?, read("group", "/etc/group")?))
}

/// The number that a name has in a file like `/etc/passwd` (passwd(5), group(5)).
fn id_of(name: &str, file: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_looked_up() {
        let file = "root:x:0:0:root:/root:/bin/sh\nconsul:x:101:102::/:/bin/false\nbroken\nodd:x:y\n";
        assert_eq!(id_of("consul", file), Some(101));
        assert_eq!(id_of("root", file), Some(0));
        assert_eq!([id_of("cons", file), id_of("broken", file), id_of("odd", file)], [None; 3]);
    }
}
