//! Rules of single entries: those of who may speak to whom, and of the mesh as a whole. Texts are Consul's.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::kinds::LEGACY_INDEXES;
use super::validate::{objects, route_match};
use super::{DEFAULT, Doc, MESH};

/// Longest description of an intention.
const DESCRIPTION_MAX: usize = 512;

/// How specific a pair of source and destination is: the most specific one that fits decides (Consul: «Intentions»,
/// precedence and match order).
pub(crate) fn precedence(source: &str, destination: &str) -> i64 {
    match (destination == "*", source == "*") {
        (false, false) => 9,
        (false, true) => 8,
        (true, false) => 6,
        (true, true) => 5,
    }
}

/// Gives sources their type and precedence, and puts those first that count first.
pub(crate) fn normalize_intentions(destination: &str, fields: &mut Map<String, Value>) {
    for source in objects(fields, "Sources") {
        source.entry("Type").or_insert_with(|| "consul".into());
        let name = source.get("Name").and_then(Value::as_str).unwrap_or("");
        let precedence = precedence(name, destination);
        source.insert("Precedence".into(), precedence.into());
    }
    if let Some(list) = fields.get_mut("Sources").and_then(Value::as_array_mut) {
        list.sort_by_key(|source| {
            let name = source.get("Name").and_then(Value::as_str).unwrap_or("").to_owned();
            (Reverse(source.get("Precedence").and_then(Value::as_i64)), name)
        });
    }
}

/// What is written as an entry has no identities of its own; metadata of a single source is left, to be refused.
pub(super) fn forget_identities(fields: &mut Map<String, Value>) {
    for source in objects(fields, "Sources") {
        for key in ["LegacyID", "LegacyCreateTime", "LegacyUpdateTime"].into_iter().chain(LEGACY_INDEXES) {
            source.remove(key);
        }
    }
}

fn partial_wildcard(name: &str) -> bool {
    name != "*" && name.contains('*')
}

pub(super) fn intentions(name: &str, fields: Doc<'_>) -> Result<(), String> {
    if partial_wildcard(name) {
        return Err("Name: wildcard character '*' cannot be used with partial values".into());
    }
    if fields.list("Sources").next().is_none() {
        return Err("At least one source is required".into());
    }
    let mut seen = BTreeSet::new();
    for (at, source) in fields.list("Sources").enumerate() {
        let from = source.text("Name");
        if from.is_empty() {
            return Err(format!("Sources[{at}].Name is required"));
        }
        if partial_wildcard(from) {
            return Err(format!(
                "Sources[{at}].Name: wildcard character '*' cannot be used with partial values"
            ));
        }
        if source.text("Type") != "consul" {
            return Err(format!("Sources[{at}].Type must be set to 'consul'"));
        }
        if source.text("Description").len() > DESCRIPTION_MAX {
            return Err(format!("Sources[{at}].Description exceeds maximum length {DESCRIPTION_MAX}"));
        }
        if source.has("LegacyMeta") {
            return Err(format!("Sources[{at}].LegacyMeta must be omitted"));
        }
        let action = source.text("Action");
        if source.list("Permissions").next().is_none() {
            if !matches!(action, "allow" | "deny") {
                return Err(format!("Sources[{at}].Action must be set to 'allow' or 'deny'"));
            }
        } else if !action.is_empty() {
            return Err(format!("Sources[{at}].Action must be omitted if Permissions are specified"));
        }
        for (which, permission) in source.list("Permissions").enumerate() {
            let place = format!("Sources[{at}].Permissions[{which}]");
            if !matches!(permission.text("Action"), "allow" | "deny") {
                return Err(format!("{place}.Action must be set to 'allow' or 'deny'"));
            }
            match permission.object("HTTP") {
                Some(http) => route_match(&place, http)?,
                None if !permission.has("JWT") => return Err(format!("{place}.HTTP is required")),
                None => {}
            }
        }
        if !seen.insert((from, source.text("Peer"))) {
            return Err(format!("Sources[{at}] defines {from:?} more than once"));
        }
    }
    Ok(())
}

pub(super) fn mesh(name: &str, fields: Doc<'_>) -> Result<(), String> {
    if name != MESH {
        return Err(format!("invalid name ({name:?}), only {MESH:?} is supported"));
    }
    let version =
        |text: &str| matches!(text, "" | "TLS_AUTO" | "TLSv1_0" | "TLSv1_1" | "TLSv1_2" | "TLSv1_3");
    for side in ["Incoming", "Outgoing"] {
        let Some(tls) = fields.object("TLS").and_then(|tls| tls.object(side)) else { continue };
        for name in ["TLSMinVersion", "TLSMaxVersion"] {
            if !version(tls.text(name)) {
                return Err(format!(
                    "error in {} TLS configuration: invalid {name} {:?}",
                    side.to_lowercase(),
                    tls.text(name)
                ));
            }
        }
    }
    Ok(())
}

pub(super) fn exported_services(name: &str, fields: Doc<'_>) -> Result<(), String> {
    if name != DEFAULT {
        return Err(format!("exported-services Name must be {DEFAULT:?}"));
    }
    for (at, service) in fields.list("Services").enumerate() {
        if service.text("Name").is_empty() {
            return Err(format!("Services[{at}]: service name cannot be empty"));
        }
        if service.list("Consumers").next().is_none() {
            return Err(format!("Services[{at}]: must have at least one consumer"));
        }
        for (which, consumer) in service.list("Consumers").enumerate() {
            let place = format!("Services[{at}].Consumers[{which}]");
            if consumer.has("Partition") || consumer.has("SamenessGroup") {
                return Err(format!(
                    "{place}: partitions and sameness groups are a Consul Enterprise feature"
                ));
            }
            match consumer.text("Peer") {
                "" => {
                    return Err(format!(
                        "{place}: must define at least one of Peer, Partition, or SamenessGroup"
                    ));
                }
                "*" => return Err(format!("{place}: exporting to all peers (wildcard) is not supported")),
                _ => {}
            }
        }
    }
    Ok(())
}

pub(super) fn jwt_provider(fields: Doc<'_>) -> Result<(), String> {
    let Some(keys) = fields.object("JSONWebKeySet") else { return Err("JSONWebKeySet is required".into()) };
    match (keys.object("Local"), keys.object("Remote")) {
        (Some(local), None) => {
            if local.has("JWKS") == local.has("Filename") {
                return Err("must specify exactly one of String or filename for local keyset".into());
            }
        }
        (None, Some(remote)) => {
            if !remote.has("URI") {
                return Err("Remote JWKS URI is required".into());
            }
        }
        _ => return Err("must specify exactly one of Local or Remote JSON Web key set".into()),
    }
    for location in fields.list("Locations") {
        if ["Header", "QueryParam", "Cookie"].iter().filter(|name| location.has(name)).count() != 1 {
            return Err(
                "must set exactly one of: JWTLocationHeader, JWTLocationQueryParam or JWTLocationCookie"
                    .into(),
            );
        }
        for name in ["Header", "QueryParam", "Cookie"] {
            if location.object(name).is_some_and(|place| place.text("Name").is_empty()) {
                return Err(format!("{name} location must have a name"));
            }
        }
    }
    if fields.object("Forwarding").is_some_and(|forwarding| forwarding.text("HeaderName").is_empty()) {
        return Err("header name required for forwarding config".into());
    }
    Ok(())
}
