//! `/v1/config`: configuration entries.

use serde_json::Value;

use super::route::{Context, Handled};
use super::{Call, HttpReply, Write};
use crate::Text;
use crate::config_entry::{BadEntry, Draft, Kind};
use crate::store::query::Query;

/// Writes an entry.
pub(super) fn write(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    let cas = context.params.number("cas")?;
    let body = parse(&context.request.body)?;
    let entry = Draft::parse(&body).map_err(|bad| match bad {
        BadEntry::Decode(why) => failed(why),
        BadEntry::Rule(why) => HttpReply::text(500, why),
    })?;
    Ok(context.ask(Call::Write(Write::ConfigSet { entry: Box::new(entry), cas })))
}

/// The JSON of a body.
///
/// # Errors
/// 400, in Consul's words.
pub(super) fn parse(body: &[u8]) -> Result<Value, HttpReply> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(failed("EOF"));
    }
    serde_json::from_slice(body).map_err(failed)
}

fn failed(why: impl std::fmt::Display) -> HttpReply {
    HttpReply::text(400, format!("Request decoding failed: {why}"))
}

/// Reads one entry or all of a kind, or deletes one.
pub(super) fn handle(context: &Context<'_>) -> Handled {
    let (kind, name) = match context.rest.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (context.rest, None),
    };
    let delete = context.request.method == "DELETE";
    if delete && name.is_none() {
        return Err(HttpReply::text(404, "Must provide both a kind and name to delete"));
    }
    if !delete && kind.is_empty() && name.is_none() {
        return context.read(context.params.read(Query::ConfigEntries(None), context.about())?);
    }
    let status = if delete { 400 } else { 500 };
    let kind = Kind::parse(kind)
        .ok_or_else(|| HttpReply::text(status, format!("invalid config entry kind: {kind}")))?;
    if delete {
        context.params.check_datacenter()?;
        let cas = context.params.number("cas")?;
        let name = Text::new(name.unwrap_or(""));
        return Ok(context.ask(Call::Write(Write::ConfigDelete { kind, name, cas })));
    }
    let query = match name {
        Some(name) => Query::ConfigEntry { kind, name: name.into() },
        None => Query::ConfigEntries(Some(kind)),
    };
    let mut read = context.params.read(query, context.about())?;
    if name.is_some() {
        read.filter = Text::default();
    }
    context.read(read)
}
