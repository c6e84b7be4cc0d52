//! `/v1/operator/keyring`: the keys that seal gossip, in all pools of this datacenter's servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::cluster::ClusterCall;
use crate::api::params::parse_bool;
use crate::api::render::{self, json::Json};
use crate::api::route::{Context, Handled};
use crate::api::{Call, HttpReply};
use crate::gossip::{Key, KeysChange, KeysReport, Pool};

/// Largest relay factor (Consul: «keyring», `relay-factor`). It is checked and not needed: answers are not relayed.
const RELAY_FACTOR_MAX: i64 = 5;

pub(in crate::api) fn handle(context: &Context<'_>) -> Handled {
    let method = context.request.method;
    let text = if method == "GET" { String::new() } else { key_of_body(&context.request.body)? };
    relay_factor(context)?;
    let local_only = local_only(context)?;
    if local_only && method != "GET" {
        let text = "Invalid use of local-only: local-only can only be set for list requests";
        return Err(HttpReply::text(400, text));
    }
    if !context.about().server {
        return Err(HttpReply::text(500, "keyring operations must run against a server node"));
    }
    let change = match method {
        "GET" => KeysChange::List,
        "POST" => KeysChange::Install(key(context, &text, "key size must be 16, 24 or 32 bytes")?),
        "PUT" => KeysChange::Use(key(context, &text, "Requested key is not in the keyring")?),
        _ => KeysChange::Remove(key(context, &text, "key size must be 16, 24 or 32 bytes")?),
    };
    Ok(context.ask(Call::Cluster(ClusterCall::Keys { change, local_only })))
}

/// The key as it was written; empty when there is none.
fn key_of_body(body: &[u8]) -> Result<String, HttpReply> {
    let failed = |why: String| HttpReply::text(400, format!("Request decode failed: {why}"));
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(failed("EOF".into()));
    }
    let fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => return Ok(String::new()),
        Ok(_) => return Err(failed("expected an object with a Key".into())),
        Err(error) if error.is_eof() => return Err(failed("unexpected EOF".into())),
        Err(error) => return Err(failed(error.to_string())),
    };
    match fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("key")) {
        None | Some((_, Value::Null)) => Ok(String::new()),
        Some((_, Value::String(key))) => Ok(key),
        Some(_) => Err(failed("Key: expected a string".into())),
    }
}

/// The key that a text in base64 stands for; `unfit` is said of keys that no ring can have.
fn key(context: &Context<'_>, text: &str, unfit: &str) -> Result<Key, HttpReply> {
    let refuse = |why: &str| {
        let datacenter = &context.about().datacenter;
        let errors = [Pool::Wan, Pool::Lan].map(|pool| format!("{} error: {why}", title(pool, datacenter)));
        HttpReply::text(500, render::errors(&errors))
    };
    let bytes = STANDARD.decode(text).map_err(|error| refuse(&format!("illegal base64 data: {error}")))?;
    Key::new(&bytes).ok_or_else(|| refuse(unfit))
}

fn relay_factor(context: &Context<'_>) -> Result<(), HttpReply> {
    let Some(text) = context.params.filled("relay-factor") else { return Ok(()) };
    let factor: i64 = text
        .parse()
        .map_err(|error| HttpReply::text(400, format!("Error parsing relay factor: {text:?}: {error}")))?;
    if (0..=RELAY_FACTOR_MAX).contains(&factor) {
        return Ok(());
    }
    let text = format!("Invalid relay-factor: Relay factor must be in range: [0, {RELAY_FACTOR_MAX}]");
    Err(HttpReply::text(400, text))
}

fn local_only(context: &Context<'_>) -> Result<bool, HttpReply> {
    let Some(text) = context.params.filled("local-only") else { return Ok(false) };
    parse_bool(text).ok_or_else(|| {
        HttpReply::text(400, format!("Error parsing local-only: {text:?} is neither true nor false"))
    })
}

/// How errors name a pool.
fn title(pool: Pool, datacenter: &str) -> String {
    match pool {
        Pool::Wan => "WAN".into(),
        Pool::Lan => format!("{datacenter} (LAN)"),
    }
}

/// What came of a change of keys, or of a listing, in each pool that was asked.
#[must_use]
pub fn render_keys(change: &KeysChange, datacenter: &str, reports: &[(Pool, KeysReport)]) -> HttpReply {
    let mut errors = Vec::new();
    for (pool, report) in reports {
        let (failed, members) = (report.errors.len(), report.members);
        let title = title(*pool, datacenter);
        if failed > 0 {
            errors.push(format!("{title} error: {failed}/{members} nodes reported failure"));
        } else if report.answers < members {
            errors.push(format!("{title} error: {}/{members} nodes reported success", report.answers));
        }
        errors.extend(report.errors.iter().map(|(node, why)| format!("{node}: {why}")));
    }
    if !errors.is_empty() {
        return HttpReply::text(500, render::errors(&errors));
    }
    match change {
        KeysChange::Install(_) | KeysChange::Use(_) | KeysChange::Remove(_) => HttpReply::empty(200),
        KeysChange::List => HttpReply::json(200, listing(datacenter, reports)),
    }
}

fn listing(datacenter: &str, reports: &[(Pool, KeysReport)]) -> Vec<u8> {
    let mut json = Json::with_capacity(512);
    json.open(b'[');
    for (pool, report) in reports {
        json.next();
        json.open(b'{');
        json.key("WAN");
        json.flag(*pool == Pool::Wan);
        json.key("Datacenter");
        json.string(datacenter);
        json.key("Segment");
        json.string("");
        for (name, keys) in [("Keys", &report.keys), ("PrimaryKeys", &report.primary_keys)] {
            json.key(name);
            json.open(b'{');
            for (key, rings) in keys {
                json.data_key(key);
                json.number(*rings as u64);
            }
            json.close(b'}');
        }
        json.key("NumNodes");
        json.number(report.members as u64);
        json.close(b'}');
    }
    json.close(b']');
    json.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &HttpReply) -> &str {
        std::str::from_utf8(&reply.body).unwrap()
    }

    #[test]
    fn keys_are_listed_by_pool() {
        let report = KeysReport {
            members: 2,
            answers: 2,
            keys: [("a2V5".into(), 2)].into(),
            primary_keys: [("a2V5".into(), 1)].into(),
            ..KeysReport::default()
        };
        let reply =
            render_keys(&KeysChange::List, "dc1", &[(Pool::Wan, report.clone()), (Pool::Lan, report)]);
        assert_eq!(reply.status, 200);
        assert_eq!(
            text(&reply),
            r#"[{"WAN":true,"Datacenter":"dc1","Segment":"","Keys":{"a2V5":2},"PrimaryKeys":{"a2V5":1},"NumNodes":2},"#
                .to_owned()
                + r#"{"WAN":false,"Datacenter":"dc1","Segment":"","Keys":{"a2V5":2},"PrimaryKeys":{"a2V5":1},"NumNodes":2}]"#
        );
    }

    #[test]
    fn failures_are_told_by_member() {
        let failed = KeysReport {
            members: 3,
            answers: 3,
            errors: [("n1".into(), "Keyring is empty (encryption not enabled)".into())].into(),
            ..KeysReport::default()
        };
        let silent = KeysReport { members: 3, answers: 2, ..KeysReport::default() };
        let reply = render_keys(&KeysChange::List, "dc1", &[(Pool::Wan, silent), (Pool::Lan, failed)]);
        assert_eq!(reply.status, 500);
        assert_eq!(
            text(&reply),
            "3 errors occurred:\n\t* WAN error: 2/3 nodes reported success\n\t* dc1 (LAN) error: 1/3 nodes reported \
             failure\n\t* n1: Keyring is empty (encryption not enabled)\n\n"
        );
        let done = KeysReport { members: 1, answers: 1, ..KeysReport::default() };
        let key = Key::new(&[7; 16]).expect("16 bytes");
        assert_eq!(render_keys(&KeysChange::Use(key), "dc1", &[(Pool::Lan, done)]), HttpReply::empty(200));
    }
}
