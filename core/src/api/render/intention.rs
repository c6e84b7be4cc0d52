//! Intentions as JSON.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fnv::FnvHasher;

use super::json::Json;
use crate::store::{Decision, Intention};

/// One intention.
pub(super) fn write(json: &mut Json, one: &Intention) {
    json.open(b'{');
    for (key, text) in [
        ("ID", one.id.as_str()),
        ("Description", &one.description),
        ("SourceNS", "default"),
        ("SourceName", &one.source),
        ("DestinationNS", "default"),
        ("DestinationName", &one.destination),
        ("SourceType", "consul"),
        ("Action", &one.action),
    ] {
        // What has no identity of its own shows none, and what permissions decide has no action.
        if !(text.is_empty() && matches!(key, "ID" | "Action")) {
            json.key(key);
            json.string(text);
        }
    }
    if !one.peer.is_empty() {
        json.key("SourcePeer");
        json.string(&one.peer);
    }
    if !one.permissions.is_empty() {
        json.key("Permissions");
        json.raw(one.permissions.as_bytes());
    }
    json.key("Meta");
    json.map(&one.meta);
    json.key("Precedence");
    json.number(one.precedence.unsigned_abs());
    for (key, time) in [("CreatedAt", &one.created_at), ("UpdatedAt", &one.updated_at)] {
        json.key(key);
        json.string(time);
    }
    json.key("Hash");
    json.string(&STANDARD.encode(hash(one)));
    json.key("CreateIndex");
    json.number(one.create_index);
    json.key("ModifyIndex");
    json.number(one.modify_index);
    json.close(b'}');
}

/// Whether one may speak to the other.
pub(super) fn checked(json: &mut Json, decision: &Decision) {
    json.open(b'{');
    json.key("Allowed");
    json.flag(decision.allowed);
    json.close(b'}');
}

/// The same for a proxy that was called, and why.
pub(super) fn authorized(json: &mut Json, decision: &Decision) {
    json.open(b'{');
    json.key("Authorized");
    json.flag(decision.allowed);
    json.key("Reason");
    if decision.by.is_empty() {
        json.string("ACLs disabled, access is allowed by default");
    } else {
        json.string(&format!("Matched intention: {}", decision.by));
    }
    json.close(b'}');
}

/// What clients compare to learn whether an intention says something else: opaque, as long as Consul's.
fn hash(one: &Intention) -> [u8; 32] {
    let mut hash = [0; 32];
    for (at, part) in hash.chunks_exact_mut(8).enumerate() {
        let mut hasher = FnvHasher::default();
        hasher.write_u8(u8::try_from(at).expect("four parts"));
        // With an end that no text contains.
        let mut take = |text: &str| {
            hasher.write(text.as_bytes());
            hasher.write_u8(0xff);
        };
        for text in [
            &one.id,
            &one.source,
            &one.destination,
            &one.peer,
            &one.action,
            &one.permissions,
            &one.description,
        ] {
            take(text);
        }
        for (key, value) in &one.meta {
            take(key);
            take(value);
        }
        part.copy_from_slice(&hasher.finish().to_be_bytes());
    }
    hash
}
