//! Intentions: who may speak to whom in the mesh.
//!
//! There is one truth about them, the configuration entries of kind `service-intentions`: one for each destination, with
//! a source for each intention. What is made under an identity of its own, as the older part of Consul's API does, is a
//! source that has a `LegacyID`, and the indexes and times of its own beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Store;
use super::change::Change;
use super::command::{Refusal, Response};
use super::config::ConfigEntries;
use super::indexes::Indexes;
use super::sessions::folded;
use crate::Text;
use crate::config_entry::{ConfigEntry, Doc, Draft, Kind, normalize_intentions};
use crate::ids::Uuid;

/// Any service.
const ANY: &str = "*";

/// What clients show for a time that nobody noted.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// An intention before it is replicated; it makes sense by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentionDraft {
    /// The service that speaks, `*` for any.
    pub source: Text,
    /// The service that is spoken to, `*` for any.
    pub destination: Text,
    /// `allow` or `deny`; empty if there are permissions.
    pub action: Text,
    /// A JSON list of what is allowed and denied at the level of HTTP; empty: there is none.
    pub permissions: Text,
    /// For people.
    pub description: Text,
    /// For programs.
    pub meta: BTreeMap<Text, Text>,
    /// When it was written, by the clock of the agent that was asked (RFC 3339).
    pub at: Text,
}

/// A change of intentions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntentionCommand {
    /// Makes a new one; refused if there is one for the pair.
    Create {
        /// Drawn by the proposer.
        id: Uuid,
        /// What it says.
        draft: Box<IntentionDraft>,
    },
    /// Replaces what one says; source and destination may be others.
    Update {
        /// Which one.
        id: Uuid,
        /// What it says.
        draft: Box<IntentionDraft>,
    },
    /// Removes one.
    Delete {
        /// Which one.
        id: Uuid,
    },
    /// Makes or replaces the one for its pair.
    Upsert(Box<IntentionDraft>),
    /// Removes the one for a pair, if there is one.
    DeleteExact {
        /// The service that speaks.
        source: Text,
        /// The service that is spoken to.
        destination: Text,
    },
}

/// An intention as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intention {
    /// Its identity, if it was made under one.
    pub id: Text,
    /// The service that speaks.
    pub source: Text,
    /// The service that is spoken to.
    pub destination: Text,
    /// The cluster that the source is in; empty: this one.
    pub peer: Text,
    /// `allow` or `deny`; empty if there are permissions.
    pub action: Text,
    /// A JSON list; empty: there is none.
    pub permissions: Text,
    /// For people.
    pub description: Text,
    /// For programs.
    pub meta: BTreeMap<Text, Text>,
    /// The most precise one decides.
    pub precedence: i64,
    /// When it was made (RFC 3339).
    pub created_at: Text,
    /// When it was changed last.
    pub updated_at: Text,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// Which side of intentions a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    /// It speaks.
    Source,
    /// It is spoken to.
    Destination,
}

/// What intentions say about a pair of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether one may speak to the other.
    pub allowed: bool,
    /// Whether that is for HTTP to say, request by request.
    pub by_permissions: bool,
    /// Whether an intention names both.
    pub exact: bool,
    /// The system that the deciding intention comes from.
    pub external_source: Text,
    /// The deciding intention in words; empty: the default decided.
    pub by: Text,
}

fn text_map(doc: Doc<'_>, name: &str) -> BTreeMap<Text, Text> {
    let map = doc.0.get(name).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((Text::new(key), Text::new(value.as_str()?)))).collect()
}

impl Intention {
    fn of(entry: &ConfigEntry, fields: Doc<'_>, source: Doc<'_>) -> Intention {
        let id = Text::new(source.text("LegacyID"));
        let own = |name: &str, other: u64| {
            u64::try_from(source.integer(name)).ok().filter(|index| *index > 0).unwrap_or(other)
        };
        let time = |name: &str| match source.text(name) {
            "" => Text::new_static(NEVER),
            time => Text::new(time),
        };
        let permissions = source.0.get("Permissions").map(Value::to_string).unwrap_or_default();
        Intention {
            source: Text::new(source.text("Name")),
            destination: entry.name.clone(),
            peer: Text::new(source.text("Peer")),
            action: Text::new(source.text("Action")),
            permissions: permissions.into(),
            description: Text::new(source.text("Description")),
            meta: text_map(
                if id.is_empty() { fields } else { source },
                if id.is_empty() { "Meta" } else { "LegacyMeta" },
            ),
            precedence: source.integer("Precedence"),
            created_at: time("LegacyCreateTime"),
            updated_at: time("LegacyUpdateTime"),
            create_index: own("LegacyCreateIndex", entry.create_index),
            modify_index: own("LegacyModifyIndex", entry.modify_index),
            id,
        }
    }

    /// Whether it is about a service of this name.
    fn concerns(&self, side: Side, name: &str) -> bool {
        let own = match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        };
        own == ANY || folded(own) == folded(name)
    }

    /// As errors name it.
    fn told(&self) -> String {
        let id = if self.id.is_empty() { String::new() } else { format!("ID: {}, ", self.id) };
        let action = if self.permissions.is_empty() { self.action.to_uppercase() } else { "L7".into() };
        format!(
            "{action} default/{} => default/{} ({id}Precedence: {})",
            self.source, self.destination, self.precedence
        )
    }
}

/// The most precise first, then by the names of source and destination.
fn sort(intentions: &mut [Intention]) {
    intentions.sort_by(|a, b| {
        b.precedence
            .cmp(&a.precedence)
            .then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
    });
}

impl ConfigEntries {
    fn each_intention(&self) -> impl Iterator<Item = Intention> {
        self.of_kind(Kind::ServiceIntentions).flat_map(|(entry, fields)| {
            fields.list("Sources").map(move |source| Intention::of(entry, fields, source))
        })
    }

    fn intentions_to(&self, destination: &str) -> Vec<Intention> {
        let found = self.find(Kind::ServiceIntentions, destination);
        let all = found.into_iter().flat_map(|(entry, fields)| {
            fields.list("Sources").map(move |source| Intention::of(entry, fields, source))
        });
        all.collect()
    }

    /// All of them.
    pub(super) fn intentions(&self) -> Vec<Intention> {
        let mut all: Vec<Intention> = self.each_intention().collect();
        sort(&mut all);
        all
    }

    /// The one that was made under an identity.
    pub(super) fn intention(&self, id: Uuid) -> Option<Intention> {
        let id = id.to_string();
        self.each_intention().find(|intention| intention.id == id)
    }

    /// The one for a pair.
    pub(super) fn exact_intention(&self, source: &str, destination: &str) -> Option<Intention> {
        let own = |intention: &Intention| intention.source == source && intention.peer.is_empty();
        self.intentions_to(destination).into_iter().find(own)
    }

    /// Those that concern a service on one side, in the order in which they count.
    pub(super) fn matching_intentions(&self, side: Side, name: &str) -> Vec<Intention> {
        let mut found: Vec<Intention> = match side {
            Side::Source => self.each_intention().filter(|one| one.concerns(side, name)).collect(),
            Side::Destination if name == ANY => self.intentions_to(ANY),
            Side::Destination => {
                self.intentions_to(name).into_iter().chain(self.intentions_to(ANY)).collect()
            }
        };
        sort(&mut found);
        found
    }

    /// What is decided about a pair: by the most precise intention, or else by the default, which is to allow as long as
    /// there are no access rules.
    pub(super) fn decide(&self, source: &str, destination: &str) -> Decision {
        let matching = self.matching_intentions(Side::Destination, destination);
        let deciding = matching
            .into_iter()
            .find(|one| one.peer.is_empty() && (one.source == source || one.source == ANY));
        match deciding {
            None => Decision {
                allowed: true,
                by_permissions: false,
                exact: false,
                external_source: Text::default(),
                by: Text::default(),
            },
            Some(one) => Decision {
                allowed: one.action == "allow",
                by_permissions: !one.permissions.is_empty(),
                exact: one.source != ANY && one.destination != ANY,
                by: one.told().into(),
                external_source: one.meta.get("external-source").cloned().unwrap_or_default(),
            },
        }
    }

    /// Applies a change.
    pub(super) fn apply_intention(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        command: &IntentionCommand,
    ) -> Response {
        match command {
            IntentionCommand::Create { id, draft } => {
                if let Some(other) = self.exact_intention(&draft.source, &draft.destination) {
                    return duplicate(&other);
                }
                let source = legacy(*id, draft, &draft.at, change.index, change.index);
                saved(self.put_source(indexes, change, &draft.destination, source, None), *id)
            }
            IntentionCommand::Update { id, draft } => {
                let Some(old) = self.intention(*id) else {
                    return refused(format!("Cannot modify non-existent intention: '{id}'"));
                };
                let other = self.exact_intention(&draft.source, &draft.destination);
                if let Some(other) = other.filter(|other| other.id != old.id) {
                    return duplicate(&other);
                }
                let source = legacy(*id, draft, &old.created_at, old.create_index, change.index);
                if folded(&old.destination) == folded(&draft.destination) {
                    let done =
                        self.put_source(indexes, change, &draft.destination, source, Some(&old.source));
                    return saved(done, *id);
                }
                let done = self.put_source(indexes, change, &draft.destination, source, None);
                if done == Response::Held(true) {
                    self.remove_source(indexes, change, &old.source, &old.destination);
                }
                saved(done, *id)
            }
            IntentionCommand::Delete { id } => match self.intention(*id) {
                Some(old) => self.remove_source(indexes, change, &old.source, &old.destination),
                None => refused(format!("Cannot delete non-existent intention: '{id}'")),
            },
            IntentionCommand::Upsert(draft) => self.upsert(indexes, change, draft),
            IntentionCommand::DeleteExact { source, destination } => {
                self.remove_source(indexes, change, source, destination)
            }
        }
    }

    fn upsert(&mut self, indexes: &mut Indexes, change: &mut Change, draft: &IntentionDraft) -> Response {
        if !draft.meta.is_empty() {
            // Metadata belongs to the entry. What was read with it may be written back with it.
            let kept = self
                .find(Kind::ServiceIntentions, &draft.destination)
                .map(|(_, fields)| text_map(fields, "Meta"));
            match kept {
                None => return refused("Meta must not be specified".into()),
                Some(kept) if kept != draft.meta => {
                    let why = "Meta must not be specified, or should be unchanged during an update.";
                    return refused(why.into());
                }
                Some(_) => {}
            }
        }
        self.put_source(indexes, change, &draft.destination, source_of(draft), None)
    }

    /// Puts a source into the entry of a destination, in the place of one of the same name if there is one, and of one of
    /// a former name.
    fn put_source(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        destination: &Text,
        source: Map<String, Value>,
        former: Option<&str>,
    ) -> Response {
        let found = self.find(Kind::ServiceIntentions, destination);
        let (name, mut fields) = match found {
            Some((entry, fields)) => (entry.name.clone(), fields.0.clone()),
            None => (destination.clone(), Map::new()),
        };
        let sources = fields.entry("Sources").or_insert_with(|| json!([]));
        if let Some(list) = sources.as_array_mut() {
            let name = source.get("Name").and_then(Value::as_str).unwrap_or("");
            list.retain(|old| !is_source(old, name) && !former.is_some_and(|former| is_source(old, former)));
            list.push(Value::Object(source));
        }
        normalize_intentions(&name, &mut fields);
        let draft = Draft::new(Kind::ServiceIntentions, name, &fields);
        self.set(indexes, change, &draft, None)
    }

    /// Removes a source from the entry of a destination, and the entry with its last source.
    fn remove_source(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        source: &str,
        destination: &str,
    ) -> Response {
        let Some((entry, fields)) = self.find(Kind::ServiceIntentions, destination) else {
            return Response::Held(true);
        };
        let (name, mut fields) = (entry.name.clone(), fields.0.clone());
        let mut left = 0;
        if let Some(list) = fields.get_mut("Sources").and_then(Value::as_array_mut) {
            list.retain(|old| !is_source(old, source));
            left = list.len();
        }
        if left == 0 {
            return self.delete(indexes, change, Kind::ServiceIntentions, &name, None);
        }
        let draft = Draft::new(Kind::ServiceIntentions, name, &fields);
        self.set(indexes, change, &draft, None)
    }
}

fn is_source(value: &Value, name: &str) -> bool {
    let peer = value.get("Peer").and_then(Value::as_str).unwrap_or("");
    peer.is_empty() && value.get("Name").and_then(Value::as_str) == Some(name)
}

fn source_of(draft: &IntentionDraft) -> Map<String, Value> {
    let mut source = Map::new();
    source.insert("Name".into(), draft.source.as_str().into());
    source.insert("Type".into(), "consul".into());
    for (key, value) in [("Action", &draft.action), ("Description", &draft.description)] {
        if !value.is_empty() {
            source.insert(key.into(), value.as_str().into());
        }
    }
    if let Ok(permissions @ Value::Array(_)) = serde_json::from_str(&draft.permissions) {
        source.insert("Permissions".into(), permissions);
    }
    source
}

fn legacy(id: Uuid, draft: &IntentionDraft, created: &str, create: u64, modify: u64) -> Map<String, Value> {
    let mut source = source_of(draft);
    source.insert("LegacyID".into(), id.to_string().into());
    if !draft.meta.is_empty() {
        let meta = draft.meta.iter().map(|(key, value)| (key.to_string(), value.as_str().into()));
        source.insert("LegacyMeta".into(), Value::Object(meta.collect()));
    }
    source.insert("LegacyCreateTime".into(), created.into());
    source.insert("LegacyUpdateTime".into(), draft.at.as_str().into());
    source.insert("LegacyCreateIndex".into(), create.into());
    source.insert("LegacyModifyIndex".into(), modify.into());
    source
}

fn refused(why: String) -> Response {
    Response::Refused(Refusal::Other(why))
}

fn duplicate(other: &Intention) -> Response {
    refused(format!("duplicate intention found: {}", other.told()))
}

fn saved(response: Response, id: Uuid) -> Response {
    match response {
        Response::Held(true) => Response::IntentionSaved(id),
        other => other,
    }
}

impl Store {
    /// What intentions say about a pair of services.
    #[must_use]
    pub fn may_speak(&self, source: &str, destination: &str) -> Decision {
        self.config.decide(source, destination)
    }

    /// The intentions that concern the services of a gateway, each once.
    pub(super) fn gateway_intentions(&self, gateway: &str) -> Vec<Intention> {
        let mut found: Vec<Intention> = Vec::new();
        for service in self.gateway_services(gateway) {
            for one in self.config.matching_intentions(Side::Destination, &service.service) {
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
        sort(&mut found);
        found
    }
}
