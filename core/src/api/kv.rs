//! `/v1/kv`

use super::route::{Context, Handled};
use super::{Call, HttpReply, Routed, Write};
use crate::Text;
use crate::ids::Uuid;
use crate::store::command::{KvCommand, KvVerb};
use crate::store::query::Query;

pub(super) fn handle(context: &Context<'_>) -> Handled {
    match context.request.method {
        "PUT" => put(context),
        "DELETE" => delete(context),
        _ => get(context),
    }
}

fn get(context: &Context<'_>) -> Handled {
    let params = &context.params;
    let query = if params.has("keys") {
        let separator = params.get("separator").or_else(|| params.get("seperator")).unwrap_or("");
        Query::KvKeys { prefix: context.rest.into(), separator: separator.into() }
    } else if params.has("recurse") {
        Query::KvTree(context.rest.into())
    } else {
        Query::Kv(key(context)?)
    };
    let mut read = params.read(query, context.about())?;
    read.filter = Text::default();
    read.shape.raw = matches!(read.query, Query::Kv(_)) && params.has("raw");
    context.read(read)
}

fn key(context: &Context<'_>) -> Result<Text, HttpReply> {
    context.name("Missing key name")
}

fn conflict(context: &Context<'_>, flags: &[&str]) -> Result<(), HttpReply> {
    if flags.iter().filter(|flag| context.params.has(flag)).count() > 1 {
        return Err(HttpReply::text(400, format!("Conflicting flags: {}", context.params.canonical())));
    }
    Ok(())
}

fn put(context: &Context<'_>) -> Handled {
    let params = &context.params;
    params.check_datacenter()?;
    let key = key(context)?;
    conflict(context, &["cas", "acquire", "release"])?;
    let flags = params.number("flags")?.unwrap_or(0);
    let verb = if let Some(index) = params.number("cas")? {
        KvVerb::Cas(index)
    } else if let Some(session) = params.get("acquire") {
        KvVerb::Acquire(Uuid::parse(session).ok_or_else(|| {
            HttpReply::text(500, format!("invalid session {session:?}: a session's ID is a UUID"))
        })?)
    } else if let Some(session) = params.get("release") {
        match Uuid::parse(session) {
            Some(session) => KvVerb::Release(session),
            // What is no session's ID cannot hold the lock.
            None => return Ok(HttpReply::json(200, &b"false"[..]).into()),
        }
    } else {
        KvVerb::Set
    };
    let value = context.request.body.clone();
    let limit = super::route::body_limit("PUT", "/v1/kv/", context.about());
    if value.len() as u64 > limit.max {
        return Err(limit.refuse(Some(value.len() as u64)));
    }
    Ok(write(context, KvCommand { verb, key, value, flags }))
}

fn delete(context: &Context<'_>) -> Handled {
    let params = &context.params;
    params.check_datacenter()?;
    conflict(context, &["cas", "recurse"])?;
    let (verb, key) = if params.has("recurse") {
        (KvVerb::DeleteTree, context.rest.into())
    } else {
        let verb = params.number("cas")?.map_or(KvVerb::Delete, KvVerb::DeleteCas);
        (verb, key(context)?)
    };
    Ok(write(context, KvCommand { verb, key, value: bytes::Bytes::new(), flags: 0 }))
}

fn write(context: &Context<'_>, command: KvCommand) -> Routed {
    context.ask(Call::Write(Write::Kv(command)))
}
