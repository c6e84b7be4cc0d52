//! Prepared queries: look-ups of services that are kept under a name (Consul: «Prepared queries»).
//!
//! A query has an identity, and a name of its own if it does not belong to a session, with which it ends. A *template*
//! stands for all names that begin with its own; the longest one counts, and one without a name is for all the rest.

mod execute;
mod template;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::Store;
use super::change::Change;
use super::command::{Refusal, Response};
use super::indexes::{Indexes, TableIndex};
use super::query::WatchKey;
use super::rows::RowKey;
use super::sessions::folded;
use crate::Text;
use crate::ids::Uuid;

pub use execute::{Execute, Executed, Lent, Unresolved};

/// A query as it is kept. Lists and maps that were not given differ from empty ones only in how they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PreparedQuery {
    /// Identity.
    pub id: Uuid,
    /// Name, unique without regard to letter case; empty for one that belongs to a session, and for the template of all
    /// names.
    pub name: Text,
    /// The session with which it ends.
    pub session: Option<Uuid>,
    /// The token that it is run with.
    pub token: Text,
    /// Which instances it finds.
    pub service: ServiceQuery,
    /// Time to live of its answers over DNS, as it was written.
    pub dns_ttl: Text,
    /// Whether it is a template, and how it works.
    pub template: Template,
    /// Raft index of creation.
    pub create_index: u64,
    /// Raft index of the last change.
    pub modify_index: u64,
}

/// What makes a query a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Template {
    /// It is one (`name_prefix_match`). The other fields are kept in any case, and mean nothing without this.
    pub by_prefix: bool,
    /// Finds the parts of a name that `${match(N)}` stands for.
    pub regexp: Text,
    /// Tags that come out empty are left out.
    pub remove_empty_tags: bool,
}

/// Which instances of which service a query finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceQuery {
    /// Name, without regard to letter case.
    pub service: Text,
    /// Where else to look if there is none.
    pub failover: Failover,
    /// Only instances without warnings.
    pub only_passing: bool,
    /// Checks that do not count, by their ids.
    pub ignore_check_ids: Option<Vec<Text>>,
    /// The nearest to this node first; `_agent` is the node of the agent that was asked, `_ip` that of the client.
    pub near: Text,
    /// Tags that must all be there, and, after an exclamation mark, those that must not; without regard to letter case.
    pub tags: Option<Vec<Text>>,
    /// Pairs that the node's metadata must all have.
    pub node_meta: Option<BTreeMap<Text, Text>>,
    /// Pairs that the instance's metadata must all have.
    pub service_meta: Option<BTreeMap<Text, Text>>,
    /// Only instances that take mesh traffic for the service.
    pub connect: bool,
}

/// Where to look if there is no instance in the datacenter that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failover {
    /// So many of the nearest datacenters.
    pub nearest_n: u64,
    /// Then these, in order.
    pub datacenters: Option<Vec<Text>>,
    /// Or, instead of both, these datacenters in order.
    pub targets: Option<Vec<Text>>,
}

impl Failover {
    /// Whether it names anywhere else to look.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let any = |list: &Option<Vec<Text>>| list.as_ref().is_some_and(|list| !list.is_empty());
        self.nearest_n > 0 || any(&self.datacenters) || any(&self.targets)
    }
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreparedCommand {
    /// Adds a query. Its identity was drawn by the proposer; indexes are ignored.
    Create(Box<PreparedQuery>),
    /// Replaces a query.
    Update(Box<PreparedQuery>),
    /// Removes a query.
    Delete(Uuid),
}

impl PreparedQuery {
    /// Whether it stands for all names that begin with its own.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.template.by_prefix
    }

    /// Whether it has a name or a session, as every query must; a template may be without both.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.name.is_empty() || self.session.is_some() || self.is_template()
    }

    /// Finds what is wrong with a template.
    ///
    /// # Errors
    /// What is wrong, as Consul says it.
    pub fn check_template(&self) -> Result<(), String> {
        template::check(self)
    }
}

/// All prepared queries.
#[derive(Clone, Debug, Default)]
pub(super) struct Prepared {
    by_id: OrdMap<Uuid, Arc<PreparedQuery>>,
    /// Those with a name, by its lower-case form. Derived.
    by_name: OrdMap<Text, Uuid>,
    /// Templates by the lower-case form of their name, which may be empty. Derived.
    templates: OrdMap<Text, Uuid>,
    /// Those that belong to a session. Derived.
    by_session: OrdMap<Uuid, OrdSet<Uuid>>,
}

impl Prepared {
    /// Takes a row, of a checkpoint or a new one.
    pub(super) fn put(&mut self, query: Arc<PreparedQuery>) {
        self.forget(query.id);
        let name = folded(&query.name);
        if query.is_template() {
            self.templates.insert(name.clone(), query.id);
        }
        if !name.is_empty() {
            self.by_name.insert(name, query.id);
        }
        if let Some(session) = query.session {
            self.by_session.entry(session).or_default().insert(query.id);
        }
        self.by_id.insert(query.id, query);
    }

    fn forget(&mut self, id: Uuid) -> Option<Arc<PreparedQuery>> {
        let old = self.by_id.remove(&id)?;
        let name = folded(&old.name);
        if old.is_template() {
            self.templates.remove(&name);
        }
        self.by_name.remove(&name);
        if let Some(session) = old.session
            && let Some(ids) = self.by_session.get_mut(&session)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_session.remove(&session);
            }
        }
        Some(old)
    }

    fn write(&mut self, indexes: &mut Indexes, change: &mut Change, query: PreparedQuery) {
        touch(indexes, change, query.id);
        self.put(Arc::new(query));
    }

    /// Removes a query; one that is not there is not missed.
    pub(super) fn remove(&mut self, indexes: &mut Indexes, change: &mut Change, id: Uuid) {
        if self.forget(id).is_some() {
            touch(indexes, change, id);
        }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<PreparedQuery>> {
        self.by_id.get(&id)
    }

    /// All of them in the order of their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<PreparedQuery>> {
        self.by_id.values()
    }

    pub(super) fn all_from(&self, from: Uuid) -> impl Iterator<Item = &Arc<PreparedQuery>> {
        self.by_id.range(from..).map(|(_, query)| query)
    }

    /// Those that end with a session.
    pub(super) fn of_session(&self, session: Uuid) -> Vec<Uuid> {
        self.by_session.get(&session).into_iter().flatten().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The query with this name that is no template.
    fn named(&self, name: &str) -> Option<&Arc<PreparedQuery>> {
        self.get(*self.by_name.get(&folded(name))?).filter(|query| !query.is_template())
    }

    /// The template with the longest name that a name begins with.
    fn template_for(&self, name: &str) -> Option<&Arc<PreparedQuery>> {
        let name = folded(name);
        // The greatest key that is not behind the name is the longest prefix, or shows how long that can be at most.
        let mut rest = name.as_str();
        loop {
            let up_to = (Bound::Unbounded, Bound::Included(rest));
            let (key, id) = self.templates.range::<_, str>(up_to).next_back()?;
            if rest.starts_with(key.as_str()) {
                return self.get(*id);
            }
            let shared = rest.char_indices().zip(key.chars()).find(|((_, ours), theirs)| ours != theirs);
            let ((length, _), _) = shared.expect("a key before the name that is no prefix differs from it");
            rest = &rest[..length];
        }
    }
}

fn touch(indexes: &mut Indexes, change: &mut Change, id: Uuid) {
    change.touch(WatchKey::PreparedQuery(id));
    change.touch(WatchKey::PreparedQueries);
    change.dirty(RowKey::prepared(id));
    change.raise(indexes, TableIndex::Prepared);
}

impl Store {
    pub(super) fn prepare(&mut self, change: &mut Change, command: &PreparedCommand) -> Response {
        let refused = |why: String| Response::Refused(Refusal::Other(why));
        let (query, create_index) = match command {
            PreparedCommand::Create(query) if self.prepared.get(query.id).is_some() => {
                return refused(format!("Prepared query '{}' exists already", query.id));
            }
            PreparedCommand::Create(query) => (query, change.index),
            PreparedCommand::Update(query) => match self.prepared.get(query.id) {
                Some(old) => (query, old.create_index),
                None => return refused(nothing_to_modify(query.id)),
            },
            PreparedCommand::Delete(id) => {
                if self.prepared.get(*id).is_none() {
                    return refused(nothing_to_modify(*id));
                }
                self.prepared.remove(&mut self.indexes, change, *id);
                return Response::Done;
            }
        };
        if let Err(refusal) = self.may_be_prepared(query) {
            return Response::Refused(refusal);
        }
        let row = PreparedQuery { create_index, modify_index: change.index, ..PreparedQuery::clone(query) };
        self.prepared.write(&mut self.indexes, change, row);
        match command {
            PreparedCommand::Create(query) => Response::PreparedQueryCreated(query.id),
            PreparedCommand::Update(_) | PreparedCommand::Delete(_) => Response::Done,
        }
    }

    /// The rules about a query's name and session.
    fn may_be_prepared(&self, query: &PreparedQuery) -> Result<(), Refusal> {
        let table = &self.prepared;
        if !query.is_bound() {
            return Err(Refusal::Other("Invalid prepared query: Must be bound to a session".into()));
        }
        if let Some(session) = query.session.filter(|session| self.sessions.get(*session).is_none()) {
            return Err(Refusal::InvalidSession(session.to_string()));
        }
        let other = |id: Option<&Uuid>| id.is_some_and(|id| *id != query.id);
        let name = &query.name;
        if name.is_empty() {
            if query.is_template() && other(table.templates.get("")) {
                return Err(Refusal::Other("a query template with an empty name already exists".into()));
            }
            return Ok(());
        }
        if other(table.by_name.get(&folded(name))) {
            return Err(Refusal::Other(format!("name '{name}' aliases an existing query name")));
        }
        // It could not be told from that query where either may be named.
        if Uuid::parse(name).is_some_and(|id| table.get(id).is_some()) {
            return Err(Refusal::Other(format!("name '{name}' aliases an existing query ID")));
        }
        Ok(())
    }
}

fn nothing_to_modify(id: Uuid) -> String {
    format!("Cannot modify non-existent prepared query: '{id}'")
}
