//! `/v1/txn`: several operations at once, all or none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::catalog::{self, Bad};
use super::render::transaction;
use super::route::{Context, Handled};
use super::{Call, HttpReply, Write};
use crate::Text;
use crate::agent::decode::{DecodeError, Object, Source};
use crate::agent::definition::DefinitionError;
use crate::ids::Uuid;
use crate::node::About;
use crate::store::command::{Deregistration, KvCommand, KvVerb, Registration};
use crate::store::query::Query;
use crate::store::{Lookup, Operation, OperationError};

/// Most operations of one transaction (Consul since 1.14).
const OPERATIONS_MAX: usize = 128;

/// A session's ID as it must be, in Consul's words.
const BAD_SESSION: &str = "failed session lookup: index error: UUID must be 36 characters";

pub(super) fn handle(context: &Context<'_>) -> Handled {
    let about = context.about();
    let limit = super::route::body_limit("PUT", context.request.path, about);
    if context.request.body.len() as u64 > limit.max {
        return Err(limit.refuse(Some(context.request.body.len() as u64)));
    }
    let list = elements(&context.request.body)?;
    if list.len() > OPERATIONS_MAX {
        let count = list.len();
        let text = format!("Transaction contains too many operations ({count} > {OPERATIONS_MAX})");
        return Err(HttpReply::text(413, text));
    }
    let parsed: Vec<Parsed> = list
        .iter()
        .filter_map(|element| parse(element, about, context.datacenter()).transpose())
        .collect::<Result<_, _>>()?;
    // What makes no sense is told before anything is tried, and alone.
    let senseless = parsed.iter().any(|parsed| parsed.operation.is_err());
    if parsed.iter().any(|parsed| parsed.writes) {
        context.params.check_datacenter()?;
        if senseless {
            let errors = parsed.into_iter().zip(0..).filter_map(|(parsed, operation)| {
                parsed.operation.err().map(|what| OperationError { operation, what: what.into() })
            });
            let reply = transaction::written(&Err(errors.collect()));
            return Ok(if context.params.pretty(about) { super::indented(reply) } else { reply }.into());
        }
        let operations = parsed.into_iter().filter_map(|parsed| parsed.operation.ok()).collect();
        return Ok(context.ask(Call::Write(Write::Transaction(operations))));
    }
    let lookups = parsed.into_iter().map(|parsed| match parsed.operation {
        Err(what) => Lookup::Fails(what.into()),
        Ok(_) if senseless => Lookup::Untried,
        Ok(Operation::Look(lookup)) => lookup,
        Ok(operation) => unreachable!("{operation:?} writes"),
    });
    let mut read = context.params.read(Query::Transaction(lookups.collect()), about)?;
    // A transaction neither waits nor filters nor sorts.
    read.blocking = None;
    read.filter = Text::default();
    read.near = Text::default();
    context.read(read)
}

/// An operation as it was read.
struct Parsed {
    /// Whether its verb makes the transaction one that writes.
    writes: bool,
    /// The operation, or why it makes no sense whatever the state may be.
    operation: Result<Operation, String>,
}

fn failed(why: impl std::fmt::Display) -> HttpReply {
    HttpReply::text(400, format!("Failed to parse body: {why}"))
}

fn undecodable(error: DecodeError) -> HttpReply {
    let text = DefinitionError::Decode(error).into_call_error().text;
    failed(text.strip_prefix("Request decode failed: ").unwrap_or(&text))
}

/// The list that a body is; null is an empty one.
fn elements(body: &[u8]) -> Result<Vec<Value>, HttpReply> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(failed("EOF"));
    }
    match serde_json::from_slice(body).map_err(failed)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list),
        _ => Err(failed("expected a list of operations")),
    }
}

/// Reads one element. One that names no kind of operation is none; of several kinds the first counts, as in Consul.
fn parse(element: &Value, about: &About, datacenter: &Text) -> Result<Option<Parsed>, HttpReply> {
    let read = || -> Result<_, DecodeError> {
        let mut element = Object::new(Source::Api, "", element)?;
        let kinds = [
            element.object("kv")?,
            element.object("node")?,
            element.object("service")?,
            element.object("check")?,
        ];
        element.finish()?;
        Ok(kinds)
    };
    let [kv, node, service, check] = read().map_err(undecodable)?;
    let mut first = None;
    for parsed in [
        kv.map(|body| parse_kv(body, about)),
        node.map(|body| parse_node(body, datacenter)),
        service.map(parse_service),
        check.map(parse_check),
    ] {
        let parsed = parsed.transpose()?;
        first = first.or(parsed);
    }
    Ok(first)
}

fn parse_kv(mut body: Object, about: &About) -> Result<Parsed, HttpReply> {
    let mut read = || -> Result<_, DecodeError> {
        Ok((
            body.text("verb")?,
            body.text("key")?,
            body.text("value")?,
            body.unsigned("flags")?,
            body.unsigned("index")?,
            body.text("session")?,
        ))
    };
    let (verb, key, value, flags, index, session) = read().map_err(undecodable)?;
    body.take("namespace");
    body.take("partition");
    body.finish().map_err(undecodable)?;
    let value = decoded(&value)?;
    if value.len() as u64 > about.kv_max_value_size {
        let (length, max) = (value.len(), about.kv_max_value_size);
        let text = format!("Value for key {key:?} is too large ({length} > {max} bytes)");
        return Err(HttpReply::text(413, text));
    }
    let holder = |unlock: bool| {
        if session.is_empty() {
            return Err(Text::new_static("missing session"));
        }
        // What is no session's ID cannot hold the lock.
        Uuid::parse(&session).ok_or_else(|| match unlock {
            true => {
                format!("failed to unlock key {key:?}, lock isn't held, or is held by another session").into()
            }
            false => Text::new_static(BAD_SESSION),
        })
    };
    let write =
        |verb: KvVerb| Operation::Kv(KvCommand { verb, key: key.clone(), value: value.clone(), flags });
    let or_fails = |verb: Result<KvVerb, Text>| match verb {
        Ok(verb) => write(verb),
        Err(why) => Operation::Look(Lookup::Fails(why)),
    };
    let operation = match verb.as_str() {
        "set" => write(KvVerb::Set),
        "cas" => write(KvVerb::Cas(index)),
        "lock" => or_fails(holder(false).map(KvVerb::Acquire)),
        "unlock" => or_fails(holder(true).map(KvVerb::Release)),
        "delete" => write(KvVerb::Delete),
        "delete-cas" => write(KvVerb::DeleteCas(index)),
        "delete-tree" => write(KvVerb::DeleteTree),
        "get" => Operation::Look(Lookup::Kv(key.clone())),
        "get-or-empty" => Operation::Look(Lookup::KvOrEmpty(key.clone())),
        "get-tree" => Operation::Look(Lookup::KvTree(key.clone())),
        "check-index" => Operation::Look(Lookup::KvIndex { key: key.clone(), index }),
        "check-session" => Operation::Look(Lookup::KvSession {
            key: key.clone(),
            session: session.to_ascii_lowercase().into(),
        }),
        "check-not-exists" => Operation::Look(Lookup::KvAbsent(key.clone())),
        _ => Operation::Look(Lookup::Fails(format!("unknown KV verb {verb:?}").into())),
    };
    let writes = matches!(verb.as_str(), "lock" | "unlock") || matches!(operation, Operation::Kv(_));
    let operation = if key.is_empty() && verb != "delete-tree" {
        Err("Must provide key".to_owned())
    } else {
        Ok(operation)
    };
    Ok(Parsed { writes, operation })
}

/// A value is base64 in JSON; line breaks in it mean nothing.
fn decoded(text: &str) -> Result<Bytes, HttpReply> {
    let plain: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    STANDARD
        .decode(plain)
        .map(Bytes::from)
        .map_err(|error| failed(format_args!("illegal base64 data: {error}")))
}

/// What is to be done to a row of the catalog.
enum Verb {
    Get,
    Put(Option<u64>),
    Remove(Option<u64>),
    Unknown(String),
}

impl Verb {
    fn parse(kind: &str, verb: &str, index: u64) -> Verb {
        match verb {
            "get" => Verb::Get,
            "set" => Verb::Put(None),
            "cas" => Verb::Put(Some(index)),
            "delete" => Verb::Remove(None),
            "delete-cas" => Verb::Remove(Some(index)),
            _ => Verb::Unknown(format!("unknown {kind} verb {verb:?}")),
        }
    }

    /// The operation, from what there is to say for each kind of verb.
    fn operation(
        self,
        get: impl FnOnce() -> Result<Lookup, String>,
        put: impl FnOnce() -> Result<Registration, String>,
        remove: impl FnOnce() -> Result<Deregistration, String>,
    ) -> Parsed {
        let writes = !matches!(self, Verb::Get);
        let operation = match self {
            Verb::Get => get().map(Operation::Look),
            Verb::Put(cas) => put().map(|row| Operation::Put { registration: Box::new(row), cas }),
            Verb::Remove(cas) => remove().map(|deregistration| Operation::Remove { deregistration, cas }),
            Verb::Unknown(why) => Ok(Operation::Look(Lookup::Fails(why.into()))),
        };
        Parsed { writes, operation }
    }
}

/// The reply to a body that cannot be read; a rule that is broken is the operation's failure.
fn ruled<T>(result: Result<T, Bad>) -> Result<Result<T, String>, HttpReply> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Bad::Rule(why)) => Ok(Err(why)),
        Err(Bad::Decode(error)) => Err(undecodable(error)),
        Err(Bad::Reply(reply)) => Err(reply),
    }
}

/// Takes the row from an operation, with the index that a conditional verb compares.
fn row_of(body: &mut Object, key: &str) -> Result<(Object, u64), DecodeError> {
    let mut row = match body.object(key)? {
        Some(row) => row,
        None => Object::new(Source::Api, key, &Value::Null)?,
    };
    row.take("create_index");
    let index = row.unsigned("modify_index")?;
    Ok((row, index))
}

fn parse_node(mut body: Object, datacenter: &Text) -> Result<Parsed, HttpReply> {
    let read = || -> Result<_, DecodeError> {
        let verb = body.text("verb")?;
        let (mut row, index) = row_of(&mut body, "node")?;
        let id = row.text("id")?;
        let registration = Registration {
            node: row.text("node")?,
            address: row.text("address")?,
            datacenter: row.text("datacenter")?,
            tagged_addresses: row.map("tagged_addresses")?,
            node_meta: row.map("meta")?,
            ..Registration::default()
        };
        for ignored in ["partition", "peer_name", "locality"] {
            row.take(ignored);
        }
        row.finish()?;
        body.finish()?;
        Ok((verb, index, id, registration))
    };
    let (verb, index, id, mut registration) = read().map_err(undecodable)?;
    if registration.datacenter.is_empty() {
        registration.datacenter = datacenter.clone();
    }
    let parsed = match id.as_str() {
        "" => Ok(None),
        text => Uuid::parse(text).map(Some).ok_or_else(|| format!("{text:?} is not a UUID of 36 characters")),
    };
    let name = registration.node.clone();
    let named = |name: &Text| if name.is_empty() { Err("Must provide node".to_owned()) } else { Ok(()) };
    Ok(Verb::parse("Node", &verb, index).operation(
        || match parsed.clone() {
            Ok(id) => Ok(Lookup::Node { id, name: name.clone() }),
            Err(why) => Ok(Lookup::Fails(format!("node lookup by ID failed, wrong UUID: {why}").into())),
        },
        || {
            named(&name)?;
            registration.id = parsed.clone().map_err(|why| format!("Bad node ID: {why}"))?;
            Ok(registration)
        },
        || {
            named(&name)?;
            Ok(Deregistration { node: name.clone(), ..Deregistration::default() })
        },
    ))
}

fn parse_service(mut body: Object) -> Result<Parsed, HttpReply> {
    let mut read = || -> Result<_, DecodeError> {
        Ok((body.text("verb")?, body.text("node")?, row_of(&mut body, "service")?))
    };
    let (verb, node, (row, index)) = read().map_err(undecodable)?;
    body.finish().map_err(undecodable)?;
    let verb = Verb::parse("Service", &verb, index);
    let read = match ruled(catalog::service_fields(row))? {
        Ok((service, proxy)) => (service, proxy),
        Err(why) => return Ok(Parsed { writes: !matches!(verb, Verb::Get), operation: Err(why) }),
    };
    let (service, proxy) = read;
    let get = Lookup::Service { node: node.clone(), id: service.id.clone() };
    let checked = match verb {
        Verb::Put(_) | Verb::Remove(_) => ruled(catalog::checked_service(service, proxy))?,
        Verb::Get | Verb::Unknown(_) => Ok(service),
    };
    // Only one of the two writing closures is called.
    let checked = std::cell::Cell::new(Some(checked));
    let service = || checked.take().expect("taken once");
    Ok(verb.operation(
        || Ok(get),
        || {
            let service = Some(service()?);
            Ok(Registration {
                node: node.clone(),
                service,
                skip_node_update: true,
                ..Registration::default()
            })
        },
        || {
            let id = service()?.id;
            Ok(Deregistration { node: node.clone(), service_id: Some(id), check_id: None })
        },
    ))
}

fn parse_check(mut body: Object) -> Result<Parsed, HttpReply> {
    let mut read = || -> Result<_, DecodeError> { Ok((body.text("verb")?, row_of(&mut body, "check")?)) };
    let (verb, (row, index)) = read().map_err(undecodable)?;
    body.finish().map_err(undecodable)?;
    let verb = Verb::parse("Check", &verb, index);
    let mut check = match ruled(catalog::check_of(row))? {
        Ok(check) => check,
        Err(why) => return Ok(Parsed { writes: !matches!(verb, Verb::Get), operation: Err(why) }),
    };
    let (node, id) = (check.node.clone(), check.id.clone());
    Ok(verb.operation(
        || Ok(Lookup::Check { node: node.clone(), id: id.clone() }),
        || {
            if check.id.is_empty() {
                check.id = check.name.clone();
            }
            let node = node.clone();
            Ok(Registration { node, checks: vec![check], skip_node_update: true, ..Registration::default() })
        },
        // Also when the id is empty: without it the whole node would be meant.
        || Ok(Deregistration { node: node.clone(), service_id: None, check_id: Some(id.clone()) }),
    ))
}
