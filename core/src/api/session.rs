//! `/v1/session`

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::route::{Context, Handled};
use super::{Call, HttpReply, SessionSpec, Write};
use crate::ids::Uuid;
use crate::store::model::SessionBehavior;
use crate::store::query::Query;
use crate::{Text, duration};

/// Lock-delay when none is given.
const LOCK_DELAY: Duration = Duration::from_secs(15);
/// Longest lock-delay.
const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);
/// Shortest TTL (Consul: `session_ttl_min`).
const TTL_MIN: Duration = Duration::from_secs(10);
/// Longest TTL.
const TTL_MAX: Duration = Duration::from_secs(86_400);
/// The check that a session depends on unless it says otherwise.
const SERF_HEALTH: &str = "serfHealth";

pub(super) fn create(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    let spec = read_spec(&context.request.body, &context.about().node)?;
    Ok(context.ask(Call::Write(Write::SessionCreate(spec))))
}

pub(super) fn destroy(context: &Context<'_>) -> Handled {
    let id = id(context)?;
    Ok(context.ask(Call::Write(Write::SessionDestroy(id))))
}

pub(super) fn renew(context: &Context<'_>) -> Handled {
    let id = id(context)?;
    Ok(context.ask(Call::Write(Write::SessionRenew(id))))
}

pub(super) fn info(context: &Context<'_>) -> Handled {
    read(context, Query::Session(id(context)?))
}

pub(super) fn node(context: &Context<'_>) -> Handled {
    read(context, Query::NodeSessions(context.name("Missing node name")?))
}

pub(super) fn list(context: &Context<'_>) -> Handled {
    read(context, Query::Sessions)
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    let mut read = context.params.read(query, context.about())?;
    read.filter = Text::default();
    context.read(read)
}

fn id(context: &Context<'_>) -> Result<Uuid, HttpReply> {
    context.params.check_datacenter()?;
    let text = context.name("Missing session")?;
    Uuid::parse(&text).ok_or_else(|| {
        let why = if text.len() == 36 { "Invalid UUID" } else { "UUID must be 36 characters" };
        HttpReply::text(500, format!("failed session lookup: index error: {why}"))
    })
}

/// Reads the body of `/v1/session/create`. Names of fields are compared without regard to letter case; unknown ones
/// are ignored, as ever.
fn read_spec(body: &[u8], node: &Text) -> Result<SessionSpec, HttpReply> {
    let mut fields = BTreeMap::new();
    if !body.is_empty() {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => {
                fields.extend(map.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)));
            }
            Ok(Value::Null) => {}
            Ok(_) => return Err(decode_failed("expected an object")),
            Err(error) => return Err(decode_failed(error)),
        }
    }
    let mut take = |key: &str| fields.remove(key).filter(|value| !value.is_null());
    let spec = SessionSpec {
        name: text("Name", take("name"))?.unwrap_or_default(),
        node: text("Node", take("node"))?.unwrap_or_else(|| node.clone()),
        lock_delay: lock_delay(take("lockdelay"))?,
        behavior: SessionBehavior::Release,
        ttl: None,
        node_checks: texts("NodeChecks", take("nodechecks"))?
            .unwrap_or_else(|| vec![Text::new_static(SERF_HEALTH)]),
        service_checks: service_checks(take("servicechecks"))?,
        checks: Vec::new(),
    };
    let legacy_checks = texts("Checks", take("checks"))?;
    let behavior = text("Behavior", take("behavior"))?.unwrap_or_default();
    let ttl = text("TTL", take("ttl"))?.unwrap_or_default();
    validate(spec, legacy_checks, &behavior, ttl).map_err(|text| HttpReply::text(500, text))
}

fn validate(
    mut spec: SessionSpec,
    legacy_checks: Option<Vec<Text>>,
    behavior: &str,
    ttl: Text,
) -> Result<SessionSpec, String> {
    match legacy_checks {
        // Only an empty list takes the default away; others add to it.
        Some(checks) if checks.is_empty() => spec.node_checks.retain(|check| check != SERF_HEALTH),
        Some(checks) => spec.checks = checks,
        None => {}
    }
    if spec.node.is_empty() {
        return Err("Must provide Node".into());
    }
    spec.behavior = match behavior {
        "" | "release" => SessionBehavior::Release,
        "delete" => SessionBehavior::Delete,
        other => return Err(format!("Invalid Behavior setting '{other}'")),
    };
    if !ttl.is_empty() {
        let nanos = duration::parse(&ttl)
            .ok_or_else(|| format!("Session TTL '{ttl}' invalid: time: invalid duration {ttl:?}"))?;
        let parsed = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        if nanos != 0 && !(TTL_MIN..=TTL_MAX).contains(&parsed) {
            return Err(format!(
                "Invalid Session TTL '{nanos}', must be between [{}=24h0m0s]",
                duration::format(TTL_MIN)
            ));
        }
        spec.ttl = Some((ttl, parsed));
    }
    Ok(spec)
}

fn decode_failed(why: impl core::fmt::Display) -> HttpReply {
    HttpReply::text(400, format!("Request decode failed: {why}"))
}

fn text(field: &str, value: Option<Value>) -> Result<Option<Text>, HttpReply> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.into())),
        Some(_) => Err(decode_failed(format_args!("{field}: expected a string"))),
    }
}

fn texts(field: &str, value: Option<Value>) -> Result<Option<Vec<Text>>, HttpReply> {
    match value {
        None => Ok(None),
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|value| Ok(text(field, Some(value))?.unwrap_or_default()))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(decode_failed(format_args!("{field}: expected a list of strings"))),
    }
}

fn service_checks(value: Option<Value>) -> Result<Option<Vec<Text>>, HttpReply> {
    let wrong = || decode_failed("ServiceChecks: expected a list of objects with an ID");
    let list = match value {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong()),
    };
    list.into_iter()
        .map(|check| {
            let Value::Object(fields) = check else { return Err(wrong()) };
            let id =
                fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("id")).map(|(_, value)| value);
            Ok(text("ServiceChecks.ID", id)?.unwrap_or_default())
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A duration as text, or a number: of seconds when it is small, else of nanoseconds.
fn lock_delay(value: Option<Value>) -> Result<Duration, HttpReply> {
    let nanos = match value {
        None => return Ok(LOCK_DELAY),
        Some(Value::String(text)) => duration::parse(&text)
            .ok_or_else(|| decode_failed(format_args!("LockDelay: time: invalid duration {text:?}")))?,
        Some(Value::Number(number)) => {
            let number = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).unwrap_or(0);
            if number < 1_000 { number.saturating_mul(1_000_000_000) } else { number }
        }
        Some(_) => return Err(decode_failed("LockDelay: expected a duration such as \"15s\"")),
    };
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(LOCK_DELAY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(body: &str) -> Result<SessionSpec, HttpReply> {
        read_spec(body.as_bytes(), &"here".into())
    }

    #[test]
    fn nothing_said_is_all_defaults() {
        for body in ["", "{}", "null", r#"{"Frob":1,"ID":"x","Node":null,"Checks":null}"#] {
            let spec = spec(body).unwrap();
            assert_eq!(spec.node, "here");
            assert_eq!(spec.lock_delay, LOCK_DELAY);
            assert_eq!(spec.behavior, SessionBehavior::Release);
            assert_eq!(spec.ttl, None);
            assert_eq!(spec.node_checks, [SERF_HEALTH]);
            assert_eq!(spec.service_checks, None);
        }
    }

    #[test]
    fn fields_are_read_in_any_letter_case() {
        let spec = spec(
            r#"{"name":"n","TTL":"24h","BEHAVIOR":"delete","LockDelay":"0s","NodeChecks":["a"],"ServiceChecks":[{"ID":"s"}]}"#,
        )
        .unwrap();
        assert_eq!(spec.name, "n");
        assert_eq!(spec.ttl, Some(("24h".into(), TTL_MAX)));
        assert_eq!(spec.behavior, SessionBehavior::Delete);
        assert_eq!(spec.lock_delay, Duration::ZERO);
        assert_eq!(spec.node_checks, ["a"]);
        assert_eq!(spec.service_checks, Some(vec!["s".into()]));
    }

    #[test]
    fn small_lock_delays_are_seconds() {
        for (json, seconds) in [
            ("20", 20),
            ("999", 60),
            ("20000000000", 20),
            ("1.5", 1),
            ("-5", 0),
            ("\"61s\"", 60),
            ("\"-1s\"", 0),
        ] {
            let spec = spec(&format!("{{\"LockDelay\":{json}}}")).unwrap();
            assert_eq!(spec.lock_delay, Duration::from_secs(seconds), "{json}");
        }
    }

    #[test]
    fn only_an_empty_list_of_checks_takes_the_default_away() {
        assert_eq!(spec(r#"{"Checks":[]}"#).unwrap().node_checks, Vec::<Text>::new());
        let both = spec(r#"{"Checks":["a"]}"#).unwrap();
        assert_eq!((both.node_checks, both.checks), (vec![SERF_HEALTH.into()], vec!["a".into()]));
        assert_eq!(spec(r#"{"NodeChecks":[]}"#).unwrap().node_checks, Vec::<Text>::new());
    }

    #[test]
    fn what_is_refused_is_refused_with_the_texts_of_consul() {
        let cases = [
            (r#"{"TTL":"9s"}"#, 500, "Invalid Session TTL '9000000000', must be between [10s=24h0m0s]"),
            (
                r#"{"TTL":"24h1s"}"#,
                500,
                "Invalid Session TTL '86401000000000', must be between [10s=24h0m0s]",
            ),
            (r#"{"TTL":"-5s"}"#, 500, "Invalid Session TTL '-5000000000', must be between [10s=24h0m0s]"),
            (r#"{"TTL":"soon"}"#, 500, "Session TTL 'soon' invalid: time: invalid duration \"soon\""),
            (r#"{"Behavior":"frob"}"#, 500, "Invalid Behavior setting 'frob'"),
            (r#"{"Node":""}"#, 500, "Must provide Node"),
            (r#"{"TTL":30}"#, 400, "Request decode failed: TTL: expected a string"),
            (
                r#"{"LockDelay":"soon"}"#,
                400,
                "Request decode failed: LockDelay: time: invalid duration \"soon\"",
            ),
            ("[]", 400, "Request decode failed: expected an object"),
        ];
        for (body, status, text) in cases {
            assert_eq!(spec(body), Err(HttpReply::text(status, text)), "{body}");
        }
        let broken = spec("{").unwrap_err();
        assert_eq!(broken.status, 400);
        assert!(broken.body.starts_with(b"Request decode failed: "));
    }
}
