//! Rules of single entries: those of services. Texts are Consul's.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Doc, Kind, validate_gateway, validate_mesh};

/// Most pairs of metadata, and how long their keys and values may be.
const META_PAIRS_MAX: usize = 64;
const META_KEY_MAX: usize = 128;
const META_VALUE_MAX: usize = 512;

/// Fills in what an entry left open.
pub(super) fn normalize(kind: Kind, name: &str, fields: &mut Map<String, Value>) {
    match kind {
        Kind::ServiceRouter => {
            for route in objects(fields, "Routes") {
                let methods = route
                    .get_mut("Match")
                    .and_then(|matched| matched.get_mut("HTTP"))
                    .and_then(|http| http.get_mut("Methods"))
                    .and_then(Value::as_array_mut);
                for method in methods.into_iter().flatten() {
                    if let Value::String(text) = method {
                        text.make_ascii_uppercase();
                    }
                }
            }
        }
        Kind::IngressGateway => {
            for listener in objects(fields, "Listeners") {
                listener.entry("Protocol").or_insert_with(|| "tcp".into());
            }
        }
        Kind::ServiceIntentions => validate_mesh::normalize_intentions(name, fields),
        Kind::HttpRoute => validate_gateway::normalize_http_route(fields),
        Kind::JwtProvider => {
            fields.entry("ClockSkewSeconds").or_insert_with(|| 30.into());
        }
        Kind::ServiceDefaults
        | Kind::ProxyDefaults
        | Kind::ServiceSplitter
        | Kind::ServiceResolver
        | Kind::TerminatingGateway
        | Kind::Mesh
        | Kind::ExportedServices
        | Kind::ApiGateway
        | Kind::BoundApiGateway
        | Kind::TcpRoute
        | Kind::InlineCertificate
        | Kind::FileSystemCertificate => {}
    }
}

/// The objects of a list, to be changed.
pub(super) fn objects<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten();
    list.filter_map(Value::as_object_mut)
}

/// Whether an entry makes sense by itself.
pub(super) fn validate(kind: Kind, name: &str, fields: Doc<'_>) -> Result<(), String> {
    if name.is_empty() {
        return Err("Name is required".into());
    }
    meta(fields)?;
    match kind {
        Kind::ServiceDefaults => defaults(fields),
        Kind::ProxyDefaults => mode(fields),
        Kind::ServiceRouter => router(fields),
        Kind::ServiceSplitter => splitter(name, fields),
        Kind::ServiceResolver => resolver(fields),
        Kind::IngressGateway => validate_gateway::ingress(fields),
        Kind::TerminatingGateway => validate_gateway::terminating(fields),
        Kind::ApiGateway => validate_gateway::api_gateway(fields),
        Kind::HttpRoute => validate_gateway::http_route(fields),
        Kind::TcpRoute => validate_gateway::tcp_route(fields),
        Kind::InlineCertificate => validate_gateway::inline_certificate(fields),
        Kind::FileSystemCertificate => validate_gateway::file_certificate(fields),
        Kind::ServiceIntentions => validate_mesh::intentions(name, fields),
        Kind::Mesh => validate_mesh::mesh(name, fields),
        Kind::ExportedServices => validate_mesh::exported_services(name, fields),
        Kind::JwtProvider => validate_mesh::jwt_provider(fields),
        Kind::BoundApiGateway => Ok(()),
    }
}

fn meta(fields: Doc<'_>) -> Result<(), String> {
    let Some(meta) = fields.object("Meta") else { return Ok(()) };
    if meta.0.len() > META_PAIRS_MAX {
        return Err(format!("Meta exceeds maximum element count {META_PAIRS_MAX}"));
    }
    for key in meta.0.keys() {
        if key.len() > META_KEY_MAX {
            return Err(format!("Meta key {key:?} exceeds maximum length {META_KEY_MAX}"));
        }
        if meta.text(key).len() > META_VALUE_MAX {
            return Err(format!("Meta value for key {key:?} exceeds maximum length {META_VALUE_MAX}"));
        }
    }
    Ok(())
}

fn mode(fields: Doc<'_>) -> Result<(), String> {
    match fields.text("Mode") {
        "" | "direct" | "transparent" => {}
        mode => return Err(format!("invalid proxy mode {mode:?}")),
    }
    match fields.text("MutualTLSMode") {
        "" | "strict" | "permissive" => Ok(()),
        mode => Err(format!("invalid mutual TLS mode {mode:?}")),
    }
}

fn defaults(fields: Doc<'_>) -> Result<(), String> {
    mode(fields)?;
    if let Some(destination) = fields.object("Destination") {
        if destination.texts("Addresses").next().is_none() {
            return Err("Destination must contain at least one valid address".into());
        }
        if !(1..=65_535).contains(&destination.integer("Port")) {
            return Err(format!("Invalid Port number {}", destination.integer("Port")));
        }
    }
    let balance = fields.text("BalanceInboundConnections");
    if !matches!(balance, "" | "exact_balance") {
        return Err(format!("invalid value for balance_inbound_connections: {balance}"));
    }
    let Some(upstreams) = fields.object("UpstreamConfig") else { return Ok(()) };
    for (at, upstream) in upstreams.list("Overrides").enumerate() {
        if upstream.text("Name").is_empty() {
            return Err(format!("UpstreamConfig.Overrides[{at}].Name is required"));
        }
        if upstream.text("Name") == "*" {
            return Err("Wildcard name is not supported in UpstreamConfig.Overrides".into());
        }
    }
    match upstreams.object("Defaults") {
        Some(defaults) if !defaults.text("Name").is_empty() => {
            Err("error in upstream defaults: Name must be empty".into())
        }
        _ => Ok(()),
    }
}

fn router(fields: Doc<'_>) -> Result<(), String> {
    for (at, route) in fields.list("Routes").enumerate() {
        let http = route.object("Match").and_then(|matched| matched.object("HTTP"));
        let rewritable = http.is_some_and(|http| http.has("PathExact") || http.has("PathPrefix"));
        if let Some(http) = http {
            route_match(&format!("Route[{at}]"), http)?;
        }
        let rewrites = route.object("Destination").is_some_and(|to| to.has("PrefixRewrite"));
        if rewrites && !rewritable {
            return Err(format!(
                "Route[{at}] cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix"
            ));
        }
    }
    Ok(())
}

/// How many of these fields are set.
fn count(fields: Doc<'_>, names: &[&str]) -> usize {
    names.iter().filter(|name| fields.has(name)).count()
}

/// The rules of a match by properties of an HTTP request.
pub(super) fn route_match(place: &str, http: Doc<'_>) -> Result<(), String> {
    if count(http, &["PathExact", "PathPrefix", "PathRegex"]) > 1 {
        return Err(format!(
            "{place} should only contain at most one of PathExact, PathPrefix, or PathRegex"
        ));
    }
    for name in ["PathExact", "PathPrefix"] {
        let path = http.text(name);
        if !path.is_empty() && !path.starts_with('/') {
            return Err(format!("{place} {name} doesn't start with '/': {path:?}"));
        }
    }
    for (at, header) in http.list("Header").enumerate() {
        if header.text("Name").is_empty() {
            return Err(format!("{place} Header[{at}] missing required Name field"));
        }
        if count(header, &["Present", "Exact", "Prefix", "Suffix", "Contains", "Regex"]) != 1 {
            return Err(format!(
                "{place} Header[{at}] should only contain one of Present, Exact, Prefix, Suffix, or Regex"
            ));
        }
    }
    for (at, parameter) in http.list("QueryParam").enumerate() {
        if parameter.text("Name").is_empty() {
            return Err(format!("{place} QueryParam[{at}] missing required Name field"));
        }
        if count(parameter, &["Present", "Exact", "Regex"]) != 1 {
            return Err(format!(
                "{place} QueryParam[{at}] should only contain one of Present, Exact, or Regex"
            ));
        }
    }
    let mut methods = BTreeSet::new();
    for method in http.texts("Methods") {
        if !methods.insert(method) {
            return Err(format!("{place} Methods contains {method:?} more than once"));
        }
    }
    Ok(())
}

fn splitter(name: &str, fields: Doc<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut hundredths = 0.0;
    for split in fields.list("Splits") {
        let service = Some(split.text("Service")).filter(|service| !service.is_empty()).unwrap_or(name);
        let (subset, namespace) = (split.text("ServiceSubset"), split.text("Namespace"));
        if !seen.insert((service, subset, namespace)) {
            return Err(format!(
                "split destination occurs more than once: service={service:?}, subset={subset:?}, \
                 namespace={namespace:?}"
            ));
        }
        let weight = split.number("Weight");
        if !(0.0..=100.0).contains(&weight) {
            return Err(format!("weight {weight} is not between 0 and 100"));
        }
        hundredths += libm::round(weight * 100.0);
    }
    if seen.is_empty() {
        return Err("no splits configured".into());
    }
    if hundredths != 10_000.0 {
        let sum = f64::from((hundredths / 100.0) as f32);
        return Err(format!("the sum of all split weights must be 100, not {sum:.6}"));
    }
    Ok(())
}

fn subset_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Subset defined with empty name".into());
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let valid = name.len() <= 63
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.last().is_some_and(|byte| plain(*byte));
    if valid {
        return Ok(());
    }
    Err(format!(
        "Subset {name:?} is invalid: must be 63 characters or fewer, begin or end with lower case alphanumeric \
         characters, and contain lower case alphanumeric characters or '-' in between"
    ))
}

fn resolver(fields: Doc<'_>) -> Result<(), String> {
    let subsets: BTreeSet<&str> = fields.map("Subsets").map(|(name, _)| name).collect();
    for name in &subsets {
        subset_name(name)?;
    }
    let known = |subset: &str| subset.is_empty() || subsets.contains(subset);
    let default = fields.text("DefaultSubset");
    if !known(default) {
        return Err(format!("DefaultSubset {default:?} is not a valid subset"));
    }
    if let Some(redirect) = fields.object("Redirect") {
        if fields.map("Failover").next().is_some() {
            return Err("Redirect and Failover cannot both be set".into());
        }
        if redirect.0.is_empty() {
            return Err("Redirect is empty".into());
        }
        if !redirect.has("Service") {
            for name in ["ServiceSubset", "Namespace", "Partition", "Peer"] {
                if redirect.has(name) {
                    return Err(format!("Redirect.{name} defined without Redirect.Service"));
                }
            }
        }
        if redirect.has("Peer") && (redirect.has("ServiceSubset") || redirect.has("Datacenter")) {
            return Err(
                "Redirect.Peer cannot be set with Redirect.ServiceSubset or Redirect.Datacenter".into()
            );
        }
    }
    for (subset, failover) in fields.map("Failover") {
        failover_rules(&format!("Bad Failover[{subset:?}]"), subset, failover, &subsets)?;
    }
    for name in ["ConnectTimeout", "RequestTimeout"] {
        let timeout = fields.text(name);
        if timeout.starts_with('-') {
            return Err(format!("Bad {name} '{timeout}', must be >= 0"));
        }
    }
    fields.object("LoadBalancer").map_or(Ok(()), load_balancer)
}

fn failover_rules(
    bad: &str,
    subset: &str,
    failover: Doc<'_>,
    subsets: &BTreeSet<&str>,
) -> Result<(), String> {
    if subset != "*" && !subsets.contains(subset) {
        return Err(format!("{bad}: not a valid subset"));
    }
    if failover.0.is_empty() {
        return Err(format!("{bad} one of Service, ServiceSubset, Namespace, or Datacenters is required"));
    }
    let own =
        |service: &str, subset: &str| service.is_empty() && !subset.is_empty() && !subsets.contains(subset);
    let (service, to) = (failover.text("Service"), failover.text("ServiceSubset"));
    if own(service, to) {
        return Err(format!("{bad}.ServiceSubset {to:?} is not a valid subset of {service:?}"));
    }
    if failover.texts("Datacenters").any(str::is_empty) {
        return Err(format!("{bad}.Datacenters: found empty datacenter"));
    }
    if failover.list("Targets").next().is_some() {
        for name in ["Service", "ServiceSubset", "Datacenters"] {
            if failover.has(name) {
                return Err(format!("{bad}: {name} cannot be set with Targets"));
            }
        }
    }
    for (at, target) in failover.list("Targets").enumerate() {
        let to = target.text("ServiceSubset");
        if target.has("Peer") && (target.has("ServiceSubset") || target.has("Datacenter")) {
            return Err(format!("{bad}.Targets[{at}]: Peer cannot be set with ServiceSubset or Datacenter"));
        }
        if own(target.text("Service"), to) {
            return Err(format!("{bad}.Targets[{at}].ServiceSubset {to:?} is not a valid subset of \"\""));
        }
    }
    Ok(())
}

fn load_balancer(fields: Doc<'_>) -> Result<(), String> {
    let policy = fields.text("Policy");
    if !matches!(policy, "" | "random" | "round_robin" | "least_request" | "ring_hash" | "maglev") {
        return Err(format!("Bad LoadBalancer policy: {policy:?} is not supported"));
    }
    for (settings, wanted) in [("RingHashConfig", "ring_hash"), ("LeastRequestConfig", "least_request")] {
        if fields.has(settings) && policy != wanted {
            return Err(format!(
                "Bad LoadBalancer configuration. {settings} specified for incompatible load balancing policy \
                 {policy:?}"
            ));
        }
    }
    let mut list = fields.list("HashPolicies").enumerate().peekable();
    if list.peek().is_some() && !matches!(policy, "ring_hash" | "maglev") {
        return Err(format!(
            "Bad LoadBalancer configuration: HashPolicies specified for non-hash-based Policy: {policy:?}"
        ));
    }
    for (at, hash) in list {
        let (field, value) = (hash.text("Field"), hash.text("FieldValue"));
        let bad = format!("Bad LoadBalancer HashPolicy[{at}]: ");
        if !matches!(field, "" | "header" | "cookie" | "query_parameter") {
            return Err(format!("{bad}{field:?} is not a supported field"));
        }
        if hash.flag("SourceIP") && (!field.is_empty() || !value.is_empty()) {
            return Err(format!(
                "{bad}A single hash policy cannot hash both a source address and a {field:?}"
            ));
        }
        if !field.is_empty() && value.is_empty() {
            return Err(format!("{bad}Field {field:?} was specified without a FieldValue"));
        }
        if !value.is_empty() && field.is_empty() {
            return Err(format!("{bad}FieldValue requires a Field to apply to"));
        }
        if hash.has("CookieConfig") && field != "cookie" {
            return Err(format!("{bad}cookie_config provided for {field:?}"));
        }
    }
    Ok(())
}
