//! Configuration entries: settings of services, proxies and gateways that the group of servers keeps.
//!
//! An entry is read from a request into a [`Draft`], which holds known fields only and makes sense by itself; whether it
//! fits the entries that there are is decided when it is applied.

pub(crate) mod chain;
mod doc;
mod kinds;
mod schema;
mod validate;
mod validate_gateway;
mod validate_mesh;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::Text;
use crate::api::render::json::Json;

pub use chain::{Chain, Overrides};
pub(crate) use doc::Doc;
pub use kinds::Kind;
pub(crate) use schema::free;
pub(crate) use validate_gateway::is_http_like;
pub(crate) use validate_mesh::normalize_intentions;

/// The one name that `proxy-defaults` may have.
pub const GLOBAL: &str = "global";

/// The one name that `mesh` has.
const MESH: &str = "mesh";

/// The one name that `exported-services` may have.
const DEFAULT: &str = "default";

/// An entry as it is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEntry {
    /// What it is about.
    pub kind: Kind,
    /// Its name among those of its kind, without regard to letter case.
    pub name: Text,
    /// The fields as the HTTP API writes them, without `Kind`, `Name` and indexes: a JSON object.
    pub fields: Text,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// An entry before it is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// What it is about.
    pub kind: Kind,
    /// Its name.
    pub name: Text,
    /// As in [`ConfigEntry::fields`].
    pub fields: Text,
}

/// Why something is no entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadEntry {
    /// It cannot be read.
    #[error("{0}")]
    Decode(String),
    /// It can be read and makes no sense.
    #[error("{0}")]
    Rule(String),
}

impl Draft {
    /// Reads the JSON of an entry, whatever the letter case of its keys.
    ///
    /// # Errors
    /// [`BadEntry`], in Consul's words.
    pub fn parse(value: &Value) -> Result<Draft, BadEntry> {
        let given = match value {
            Value::Object(map) => map.clone(),
            Value::Null => Map::new(),
            Value::Array(_) => return Err(BadEntry::Decode("'' expected a map, got 'slice'".into())),
            _ => return Err(BadEntry::Decode("'' expected a map".into())),
        };
        let (kind, name, rest) = head(given)?;
        let mut fields = schema::read(kind.fields(), &Value::Object(rest)).map_err(BadEntry::Decode)?;
        let name = match kind {
            Kind::ProxyDefaults => GLOBAL.to_owned(),
            Kind::Mesh if name.is_empty() => MESH.to_owned(),
            Kind::ExportedServices if name.is_empty() => DEFAULT.to_owned(),
            _ => name,
        };
        if kind == Kind::ServiceIntentions {
            validate_mesh::forget_identities(&mut fields);
        }
        validate::normalize(kind, &name, &mut fields);
        validate::validate(kind, &name, Doc(&fields)).map_err(BadEntry::Rule)?;
        Ok(Draft::new(kind, name.into(), &fields))
    }

    /// An entry with these fields, which must be those of its kind.
    pub(crate) fn new(kind: Kind, name: Text, fields: &Map<String, Value>) -> Draft {
        let mut json = Json::with_capacity(256);
        schema::write(&mut json, kind.fields(), fields);
        let fields = String::from_utf8(json.into_bytes()).expect("JSON is written as UTF-8");
        Draft { kind, name, fields: fields.into() }
    }
}

/// Takes what all kinds have from the fields of an entry.
fn head(mut given: Map<String, Value>) -> Result<(Kind, String, Map<String, Value>), BadEntry> {
    let decode = |why: &str| BadEntry::Decode(why.to_owned());
    let kind = match given.remove("Kind").or_else(|| given.remove("kind")) {
        None => return Err(decode("Payload does not contain a kind/Kind key at the top level")),
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(decode("Kind value in payload is not a string")),
    };
    if matches!(kind.as_str(), "sameness-group" | "control-plane-request-limit" | "rate-limit") {
        return Err(BadEntry::Rule(format!("config entry kind {kind:?} is a Consul Enterprise feature")));
    }
    let kind = Kind::parse(&kind).ok_or_else(|| decode(&format!("invalid config entry kind: {kind}")))?;
    if kind == Kind::BoundApiGateway {
        return Err(BadEntry::Rule("bound-api-gateway configuration cannot be set externally".into()));
    }
    let mut take = |wanted: &str| {
        let key = given.keys().find(|key| key.replace('_', "").eq_ignore_ascii_case(wanted))?.clone();
        given.remove(&key)
    };
    // Entries that were read may be written back with their indexes, which mean nothing then.
    take("CreateIndex");
    take("ModifyIndex");
    let name = take("Name");
    let read =
        schema::read(NAME, &Value::Object(name.map(|name| ("Name".to_owned(), name)).into_iter().collect()))
            .map_err(BadEntry::Decode)?;
    Ok((kind, Doc(&read).text("Name").to_owned(), given))
}

const NAME: &[schema::Field] = &[schema::field("Name", schema::Type::Text)];

impl ConfigEntry {
    /// The fields.
    pub(crate) fn read_fields(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(&self.fields).ok()
    }

    /// The fields without those that are kept for intentions alone.
    fn shown_fields(&self) -> Cow<'_, str> {
        if self.kind != Kind::ServiceIntentions || !self.fields.contains(kinds::LEGACY_INDEXES[1]) {
            return Cow::Borrowed(&self.fields);
        }
        let Some(mut fields) = self.read_fields() else { return Cow::Borrowed(&self.fields) };
        for source in validate::objects(&mut fields, "Sources") {
            source.retain(|key, _| !kinds::LEGACY_INDEXES.contains(&key.as_str()));
        }
        Cow::Owned(Draft::new(self.kind, self.name.clone(), &fields).fields.to_string())
    }

    /// Writes the entry as the HTTP API shows it.
    pub(crate) fn write(&self, json: &mut Json) {
        json.open(b'{');
        json.key("Kind");
        json.string(self.kind.as_str());
        json.key("Name");
        json.string(&self.name);
        let shown = self.shown_fields();
        let inner = &shown[1..shown.len() - 1];
        if !inner.is_empty() {
            json.next();
            json.raw(inner.as_bytes());
        }
        json.key("CreateIndex");
        json.number(self.create_index);
        json.key("ModifyIndex");
        json.number(self.modify_index);
        json.close(b'}');
    }
}

#[cfg(test)]
mod tests;
