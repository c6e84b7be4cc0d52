//! `/v1/connect/intentions`: who may speak to whom in the mesh.

use std::collections::BTreeMap;

use serde_json::Value;

use super::render::errors;
use super::render::timestamp::rfc3339;
use super::route::{Context, Handled};
use super::{Call, HttpReply, Write};
use crate::Text;
use crate::agent::decode::{DecodeError, Object, Source};
use crate::config_entry::{BadEntry, Draft, Kind};
use crate::ids::Uuid;
use crate::store::query::Query;
use crate::store::{IntentionCommand, IntentionDraft, Side};
use crate::time::Wall;

const DESCRIPTION_MAX: usize = 512;
const META_PAIRS_MAX: usize = 64;
const META_KEY_MAX: usize = 128;
const META_VALUE_MAX: usize = 512;

/// The namespace that everything is in.
const NAMESPACE: &str = "default";

/// All of them, or a new one.
pub(super) fn all(context: &Context<'_>) -> Handled {
    if context.request.method == "GET" {
        return context.read(context.params.read(Query::Intentions, context.about())?);
    }
    context.params.check_datacenter()?;
    let given = Given::read(&context.request.body)
        .map_err(|why| HttpReply::text(500, format!("Failed to decode request body: {why}")))?;
    if !given.id.is_empty() {
        return Err(HttpReply::text(500, "ID must be empty when creating a new intention"));
    }
    let draft = Box::new(given.checked(context.now.wall)?);
    // The node draws the identity.
    write(context, IntentionCommand::Create { id: Uuid::default(), draft })
}

/// One that was made under an identity.
pub(super) fn one(context: &Context<'_>) -> Handled {
    let id = |status: u16, prefix: &str| {
        Uuid::parse(context.rest).ok_or_else(|| {
            let why = if context.rest.len() == 36 { "Invalid UUID" } else { "UUID must be 36 characters" };
            HttpReply::text(status, format!("{prefix}failed intention lookup: index error: {why}"))
        })
    };
    const CHANGING: &str = "Intention lookup failed: ";
    if context.request.method == "GET" {
        return read(context, Query::Intention(id(400, "")?));
    }
    context.params.check_datacenter()?;
    if context.request.method == "DELETE" {
        return write(context, IntentionCommand::Delete { id: id(500, CHANGING)? });
    }
    let given = decoded(context)?;
    let id = id(500, CHANGING)?;
    let draft = Box::new(given.checked(context.now.wall)?);
    write(context, IntentionCommand::Update { id, draft })
}

/// The one for a pair.
pub(super) fn exact(context: &Context<'_>) -> Handled {
    let (source, destination) = pair(context)?;
    match context.request.method {
        "GET" => read(context, Query::ExactIntention { source, destination }),
        "DELETE" => {
            context.params.check_datacenter()?;
            write(context, IntentionCommand::DeleteExact { source, destination })
        }
        _ => {
            context.params.check_datacenter()?;
            // The pair is the path's, whatever the body says.
            let given = Given { id: Text::default(), source, destination, ..decoded(context)? };
            write(context, IntentionCommand::Upsert(Box::new(given.checked(context.now.wall)?)))
        }
    }
}

/// Those that concern services on one side.
pub(super) fn matching(context: &Context<'_>) -> Handled {
    let side = match required(context, "by")? {
        "source" => Side::Source,
        "destination" => Side::Destination,
        _ => return Err(HttpReply::text(500, "'by' parameter must be one of 'source' or 'destination'")),
    };
    if !context.params.has("name") {
        required(context, "name")?;
    }
    let mut names = Vec::new();
    for label in context.params.all("name") {
        names.push((Text::new(label), bare("name", label)?.ok_or_else(|| no_namespaces("name"))?));
    }
    read(context, Query::MatchIntentions { side, names })
}

/// Whether one may speak to the other.
pub(super) fn check(context: &Context<'_>) -> Handled {
    if let Some(kind) = context.params.filled("source-type").filter(|kind| *kind != "consul") {
        return Err(HttpReply::text(500, format!("unsupported SourceType: {kind:?}")));
    }
    let (source, destination) = pair(context)?;
    let mut read = context.params.read(Query::CheckIntention { source, destination }, context.about())?;
    // It tells no index to wait with.
    read.blocking = None;
    read.filter = Text::default();
    context.read(read)
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    let mut read = context.params.read(query, context.about())?;
    read.filter = Text::default();
    context.read(read)
}

fn write(context: &Context<'_>, command: IntentionCommand) -> Handled {
    Ok(context.ask(Call::Write(Write::Intention(command))))
}

fn decoded(context: &Context<'_>) -> Result<Given, HttpReply> {
    Given::read(&context.request.body)
        .map_err(|why| HttpReply::text(400, format!("Request decode failed: {why}")))
}

fn required<'c>(context: &'c Context<'_>, name: &str) -> Result<&'c str, HttpReply> {
    let missing = || HttpReply::text(500, format!("required query parameter '{name}' not set"));
    context.params.get(name).ok_or_else(missing)
}

fn pair(context: &Context<'_>) -> Result<(Text, Text), HttpReply> {
    let (source, destination) = (required(context, "source")?, required(context, "destination")?);
    let side = |which: &str, name: &str| bare(which, name)?.ok_or_else(|| no_namespaces(which));
    Ok((side("source", source)?, side("destination", destination)?))
}

fn no_namespaces(parameter: &str) -> HttpReply {
    let why = format!("Invalid query parameter: {parameter:?} - Namespaces are a Consul Enterprise feature");
    HttpReply::text(400, why)
}

/// A name without its namespace; `None` if that is another one than everything is in.
fn bare(parameter: &str, name: &str) -> Result<Option<Text>, HttpReply> {
    match name.split_once('/') {
        None => Ok(Some(Text::new(name))),
        Some((_, rest)) if rest.contains('/') => Err(HttpReply::text(
            500,
            format!("{parameter} {name:?} is invalid: input can contain at most one '/'"),
        )),
        Some((NAMESPACE, rest)) => Ok(Some(Text::new(rest))),
        Some(_) => Ok(None),
    }
}

/// An intention as it was given.
struct Given {
    id: Text,
    source: Text,
    source_namespace: Text,
    destination: Text,
    destination_namespace: Text,
    source_type: Text,
    action: Text,
    permissions: Option<Value>,
    description: Text,
    meta: BTreeMap<Text, Text>,
}

impl Given {
    fn read(body: &[u8]) -> Result<Given, String> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err("EOF".into());
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        Object::new(Source::Api, "", &value).and_then(Given::of).map_err(|error| match error {
            DecodeError::UnknownKeys(keys) => format!("json: unknown field {:?}", keys.join(", ")),
            other => other.to_string(),
        })
    }

    fn of(mut body: Object) -> Result<Given, DecodeError> {
        let given = Given {
            id: body.text("id")?,
            source: body.text("source_name")?,
            source_namespace: body.text("source_ns")?,
            destination: body.text("destination_name")?,
            destination_namespace: body.text("destination_ns")?,
            source_type: body.text("source_type")?,
            action: body.text("action")?,
            permissions: body.take("permissions"),
            description: body.text("description")?,
            meta: body.map("meta")?,
        };
        // What a read shows may be sent back, and so may what older versions knew.
        for ignored in [
            "precedence",
            "created_at",
            "updated_at",
            "hash",
            "create_index",
            "modify_index",
            "default_addr",
            "default_port",
            "source_partition",
            "destination_partition",
            "source_peer",
        ] {
            body.take(ignored);
        }
        body.finish()?;
        Ok(given)
    }

    /// The intention, if nothing is wrong with it.
    fn checked(self, now: Wall) -> Result<IntentionDraft, HttpReply> {
        let mut wrong = Vec::new();
        let is_partial = |name: &str| name != "*" && name.contains('*');
        let sides = [
            ("Source", &self.source, &self.source_namespace),
            ("Destination", &self.destination, &self.destination_namespace),
        ];
        for (side, name, namespace) in sides {
            if name.is_empty() {
                wrong.push(format!("{side}Name must be set"));
            }
            if is_partial(name) {
                wrong.push(format!("{side}Name: wildcard character '*' cannot be used with partial values"));
            }
            match namespace.as_str() {
                "" | NAMESPACE => {}
                "*" if name == "*" => {}
                "*" => wrong.push(format!("{side}Name: exact value cannot follow wildcard namespace")),
                _ => wrong.push(format!("{side}NS: Namespaces are a Consul Enterprise feature")),
            }
        }
        if self.description.len() > DESCRIPTION_MAX {
            wrong.push(format!("Description exceeds maximum length {DESCRIPTION_MAX}"));
        }
        if self.meta.len() > META_PAIRS_MAX {
            wrong.push(format!("Meta exceeds maximum element count {META_PAIRS_MAX}"));
        }
        for (key, value) in &self.meta {
            if key.len() > META_KEY_MAX {
                wrong.push(format!("Meta key {key:?} exceeds maximum length {META_KEY_MAX}"));
            }
            if value.len() > META_VALUE_MAX {
                wrong.push(format!("Meta value for key {key:?} exceeds maximum length {META_VALUE_MAX}"));
            }
        }
        let by_permissions =
            self.permissions.as_ref().is_some_and(|list| list.as_array().is_none_or(|list| !list.is_empty()));
        match (self.action.as_str(), by_permissions) {
            ("allow" | "deny", false) | ("", true) => {}
            (_, true) => wrong.push("Action must be omitted if Permissions are specified".into()),
            (_, false) => wrong.push("Action must be set to 'allow' or 'deny'".into()),
        }
        if !matches!(self.source_type.as_str(), "" | "consul") {
            wrong.push("SourceType must be set to 'consul'".into());
        }
        if !wrong.is_empty() {
            return Err(HttpReply::text(500, errors(&wrong)));
        }
        let permissions = if by_permissions { self.permissions()? } else { Text::default() };
        Ok(IntentionDraft {
            source: self.source,
            destination: self.destination,
            action: self.action,
            permissions,
            description: self.description,
            meta: self.meta,
            at: moment(now),
        })
    }

    /// The permissions with known fields only, by the rules of entries.
    fn permissions(&self) -> Result<Text, HttpReply> {
        let entry = serde_json::json!({
            "Kind": Kind::ServiceIntentions.as_str(),
            "Name": self.destination.as_str(),
            "Sources": [{"Name": self.source.as_str(), "Permissions": self.permissions}],
        });
        let draft = Draft::parse(&entry).map_err(|bad| match bad {
            BadEntry::Decode(why) => HttpReply::text(400, format!("Request decode failed: {why}")),
            BadEntry::Rule(why) => HttpReply::text(500, why),
        })?;
        let fields: Value = serde_json::from_str(&draft.fields).unwrap_or_default();
        Ok(fields["Sources"][0]["Permissions"].to_string().into())
    }
}

/// RFC 3339 with milliseconds.
fn moment(wall: Wall) -> Text {
    let text = rfc3339(wall);
    format!("{}.{:03}Z", text.trim_end_matches('Z'), wall.0 % 1_000).into()
}
