//! Rules of single entries: those of gateways and of what is attached to them. Texts are Consul's.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Doc;
use super::validate::objects;

/// Protocols whose requests can be told apart.
pub(crate) fn is_http_like(protocol: &str) -> bool {
    matches!(protocol, "http" | "http2" | "grpc")
}

pub(super) fn ingress(fields: Doc<'_>) -> Result<(), String> {
    let mut ports = BTreeSet::new();
    for listener in fields.list("Listeners") {
        let port = listener.integer("Port");
        if !ports.insert(port) {
            return Err(format!("port {port} declared on two listeners"));
        }
        let protocol = listener.text("Protocol");
        if protocol != "tcp" && !is_http_like(protocol) {
            return Err(format!(
                "protocol must be 'tcp', 'http', 'http2', or 'grpc'. '{protocol}' is an unsupported protocol"
            ));
        }
        let count = listener.list("Services").count();
        if count == 0 {
            return Err(format!("No service declared for listener with port {port}"));
        }
        if count > 1 && protocol == "tcp" {
            return Err(format!(
                "Multiple services per listener are only supported for L7 protocols, 'http', 'grpc' and 'http2' \
                 (listener on port {port})"
            ));
        }
        let tls = fields.object("TLS").is_some_and(|tls| tls.flag("Enabled"))
            || listener.object("TLS").is_some_and(|tls| tls.flag("Enabled"));
        let mut hosts = BTreeSet::new();
        for service in listener.list("Services") {
            ingress_service(service, protocol, port)?;
            for host in service.texts("Hosts") {
                if !hosts.insert(host) {
                    return Err(format!(
                        "Hosts must be unique within a specific listener (listener on port {port})"
                    ));
                }
                valid_host(host, tls)?;
            }
        }
    }
    Ok(())
}

fn ingress_service(service: Doc<'_>, protocol: &str, port: i64) -> Result<(), String> {
    let name = service.text("Name");
    let has_hosts = service.texts("Hosts").next().is_some();
    if protocol == "tcp" && name == "*" {
        return Err(format!(
            "Wildcard service name is only valid for L7 protocols, 'http', 'grpc' and 'http2' (listener on port \
             {port})"
        ));
    }
    if name.is_empty() {
        return Err(format!("Service name cannot be blank (listener on port {port})"));
    }
    if name == "*" && has_hosts {
        return Err(format!(
            "Associating hosts to a wildcard service is not supported (listener on port {port})"
        ));
    }
    if protocol == "tcp" && has_hosts {
        return Err(format!(
            "Associating hosts to a service is not supported for the tcp protocol (listener on port {port})"
        ));
    }
    Ok(())
}

fn valid_host(host: &str, tls: bool) -> Result<(), String> {
    if host == "*" {
        return if tls {
            Err("Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a DNSSAN"
                .into())
        } else {
            Ok(())
        };
    }
    let plain = host.strip_prefix("*.").unwrap_or(host);
    if plain.contains('*') {
        return Err(format!(
            "Host {host:?} is not valid, a wildcard specifier is only allowed as the leftmost label"
        ));
    }
    let name = plain.rsplit_once(':').map_or(plain, |(name, _port)| name);
    if is_host_name(name) { Ok(()) } else { Err(format!("Host {host:?} must be a valid DNS hostname")) }
}

/// Whether a name can be a host's in DNS (RFC 1123, with underscores).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

pub(super) fn terminating(fields: Doc<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for service in fields.list("Services") {
        let name = service.text("Name");
        if name.is_empty() {
            return Err("Service name cannot be blank.".into());
        }
        if !seen.insert(name) {
            return Err(format!("Service {name:?} was specified more than once within a namespace"));
        }
        let own = service.has("CertFile") || service.has("KeyFile");
        if own && !["CertFile", "CAFile", "KeyFile"].iter().all(|file| service.has(file)) {
            return Err(format!(
                "Service {name:?} must have a CertFile, CAFile, and KeyFile specified for TLS origination"
            ));
        }
    }
    Ok(())
}

pub(super) fn api_gateway(fields: Doc<'_>) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for listener in fields.list("Listeners") {
        let (name, port, protocol) =
            (listener.text("Name"), listener.integer("Port"), listener.text("Protocol"));
        if !names.insert(name) {
            return Err(format!("found multiple listeners with the name, {name}"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !name.bytes().all(plain) || name.starts_with('-') || name.ends_with('-') || name.len() > 63 {
            return Err(format!(
                "listener name {name:?} is invalid, must be at most 63 alphanumeric characters or '-'"
            ));
        }
        if !matches!(protocol, "http" | "tcp") {
            return Err(format!(
                "unsupported listener protocol {protocol:?}, must be one of 'tcp', or 'http'"
            ));
        }
        let host = listener.text("Hostname");
        if protocol == "tcp" && !host.is_empty() {
            return Err("hostname specification is not supported when using TCP".into());
        }
        if !(1..=65_535).contains(&port) {
            return Err(format!("listener port {port} not in the range 1-65535"));
        }
        if !host.is_empty() {
            valid_host(host, false)?;
        }
        if !ports.insert((port, host)) {
            return Err(format!("found multiple listeners on port {port} with the hostname {host:?}"));
        }
        let certificates = listener.object("TLS").into_iter().flat_map(|tls| tls.list("Certificates"));
        for certificate in certificates {
            let kind = certificate.text("Kind");
            if !matches!(kind, "inline-certificate" | "file-system-certificate") {
                return Err(format!(
                    "unsupported certificate kind: {kind:?}, must be 'inline-certificate' or 'file-system-certificate'"
                ));
            }
            if certificate.text("Name").is_empty() {
                return Err("certificate reference must have a name".into());
            }
        }
    }
    Ok(())
}

fn parents(fields: Doc<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for parent in fields.list("Parents") {
        let (kind, name, section) = (parent.text("Kind"), parent.text("Name"), parent.text("SectionName"));
        if kind != "api-gateway" {
            return Err(format!("unsupported parent kind: {kind:?}, must be 'api-gateway'"));
        }
        if name.is_empty() {
            return Err("parent reference must have a name".into());
        }
        if !seen.insert((name, section)) {
            return Err(format!("route parents must be unique: {name:?} is given twice"));
        }
    }
    Ok(())
}

pub(super) fn normalize_http_route(fields: &mut Map<String, Value>) {
    for parent in objects(fields, "Parents") {
        parent.entry("Kind").or_insert_with(|| "api-gateway".into());
    }
    for rule in objects(fields, "Rules") {
        if rule.get("Matches").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            rule.insert("Matches".into(), json!([{"Path": {"Match": "prefix", "Value": "/"}}]));
        }
        for matched in objects(rule, "Matches") {
            let path = matched.entry("Path").or_insert_with(|| json!({}));
            if path.as_object().is_some_and(Map::is_empty) {
                *path = json!({"Match": "prefix", "Value": "/"});
            }
        }
        for service in objects(rule, "Services") {
            service.entry("Weight").or_insert_with(|| 1.into());
        }
    }
}

pub(super) fn http_route(fields: Doc<'_>) -> Result<(), String> {
    parents(fields)?;
    for host in fields.texts("Hostnames") {
        if host == "*" || !is_host_name(host.strip_prefix("*.").unwrap_or(host)) {
            return Err(format!("host {host:?} must be a valid DNS hostname"));
        }
    }
    for (at, rule) in fields.list("Rules").enumerate() {
        for (which, matched) in rule.list("Matches").enumerate() {
            let place = format!("HTTPRoute Rule[{at}], Match[{which}]");
            let method = matched.text("Method");
            if !matches!(
                method,
                "" | "CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE"
            ) {
                return Err(format!("{place} contains an invalid method {method:?}"));
            }
            for (index, header) in matched.list("Headers").enumerate() {
                one_of(
                    &format!("{place}, Headers[{index}]"),
                    header.text("Match"),
                    &["exact", "prefix", "present", "regex", "suffix"],
                )?;
            }
            if let Some(path) = matched.object("Path") {
                one_of(&format!("{place}, Path"), path.text("Match"), &["exact", "prefix", "regex"])?;
                let (kind, value) = (path.text("Match"), path.text("Value"));
                if kind != "regex" && !value.starts_with('/') {
                    return Err(format!("{place}, Path value doesn't start with '/': {value:?}"));
                }
            }
            for (index, query) in matched.list("Query").enumerate() {
                one_of(
                    &format!("{place}, Query[{index}]"),
                    query.text("Match"),
                    &["exact", "present", "regex"],
                )?;
            }
        }
        for (index, service) in rule.list("Services").enumerate() {
            if service.text("Name").is_empty() {
                return Err(format!("HTTPRoute Rule[{at}], Service[{index}] must have a name"));
            }
            if service.integer("Weight") < 0 {
                return Err(format!("HTTPRoute Rule[{at}], Service[{index}] has a negative weight"));
            }
        }
    }
    Ok(())
}

fn one_of(place: &str, given: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&given) {
        return Ok(());
    }
    Err(format!("{place} match type should be one of {}, not {given:?}", known.join(", ")))
}

pub(super) fn tcp_route(fields: Doc<'_>) -> Result<(), String> {
    parents(fields)?;
    if fields.list("Services").count() > 1 {
        return Err("tcp-route currently only supports one service".into());
    }
    if fields.list("Services").any(|service| service.text("Name").is_empty()) {
        return Err("tcp-route services must have a name".into());
    }
    Ok(())
}

pub(super) fn inline_certificate(fields: Doc<'_>) -> Result<(), String> {
    if !is_pem(fields.text("PrivateKey"), "PRIVATE KEY") {
        return Err("failed to parse private key PEM".into());
    }
    if !is_pem(fields.text("Certificate"), "CERTIFICATE") {
        return Err("failed to parse certificate PEM".into());
    }
    Ok(())
}

/// Whether a text has a block of this label (RFC 7468), or of a label that ends with it.
fn is_pem(text: &str, label: &str) -> bool {
    let begins = text
        .lines()
        .map(str::trim)
        .any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{label}-----")));
    begins && text.lines().any(|line| line.trim().starts_with("-----END "))
}

pub(super) fn file_certificate(fields: Doc<'_>) -> Result<(), String> {
    for (name, what) in [("Certificate", "certificate"), ("PrivateKey", "private key")] {
        if fields.text(name).is_empty() {
            return Err(format!("{what} file path is required"));
        }
    }
    Ok(())
}
