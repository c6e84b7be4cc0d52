//! Configuration entries, and the rules that they keep with one another.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use serde_json::{Map, Value};

use super::change::Change;
use super::command::{Refusal, Response};
use super::indexes::{Indexes, TableIndex};
use super::query::WatchKey;
use super::rows::RowKey;
use super::sessions::folded;
use crate::Text;
use crate::config_entry::chain::{self, Entries, Request, protocol_of};
use crate::config_entry::{ConfigEntry, Doc, Draft, Kind, Overrides, is_http_like};

/// What an entry is found by: its kind, and its name in lower case.
pub(super) type EntryKey = (Kind, Text);

/// An entry with its fields as they were read.
#[derive(Debug)]
struct Held {
    row: Arc<ConfigEntry>,
    fields: Map<String, Value>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigEntries {
    by_name: OrdMap<EntryKey, Arc<Held>>,
}

impl Entries for ConfigEntries {
    fn fields(&self, kind: Kind, name: &str) -> Option<Doc<'_>> {
        self.by_name.get(&(kind, folded(name))).map(|held| Doc(&held.fields))
    }
}

fn refused(why: String) -> Response {
    Response::Refused(Refusal::Other(why))
}

impl ConfigEntries {
    /// Writes an entry, if it fits the others. With an index only if the entry was last changed there; zero: only if
    /// there is none.
    pub(super) fn set(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        draft: &Draft,
        cas: Option<u64>,
    ) -> Response {
        let key = (draft.kind, folded(&draft.name));
        let old = self.by_name.get(&key).map(|held| Arc::clone(&held.row));
        if cas.is_some_and(|index| index != old.as_ref().map_or(0, |old| old.modify_index)) {
            return Response::Held(false);
        }
        if old.as_ref().is_some_and(|old| old.name == draft.name && old.fields == draft.fields) {
            return Response::Held(true);
        }
        let row = ConfigEntry {
            kind: draft.kind,
            name: draft.name.clone(),
            fields: draft.fields.clone(),
            create_index: old.map_or(change.index, |old| old.create_index),
            modify_index: change.index,
        };
        let mut next = self.clone();
        if next.put(Arc::new(row)).is_none() {
            return refused("the fields of the entry cannot be read".into());
        }
        if let Err(why) = next.clash(&key).and_then(|()| next.fits(&key)) {
            return refused(why);
        }
        *self = next;
        Self::touch(indexes, change, &key);
        Response::Held(true)
    }

    /// Removes an entry, if the others can do without it. With an index only if the entry was last changed there.
    pub(super) fn delete(
        &mut self,
        indexes: &mut Indexes,
        change: &mut Change,
        kind: Kind,
        name: &str,
        cas: Option<u64>,
    ) -> Response {
        let key = (kind, folded(name));
        let at = self.by_name.get(&key).map(|held| held.row.modify_index);
        if cas.is_some() && cas != at {
            return Response::Held(false);
        }
        if at.is_none() {
            return Response::Held(true);
        }
        let mut next = self.clone();
        next.by_name.remove(&key);
        if let Err(why) = next.fits(&key) {
            return refused(why);
        }
        *self = next;
        Self::touch(indexes, change, &key);
        Response::Held(true)
    }

    fn touch(indexes: &mut Indexes, change: &mut Change, key: &EntryKey) {
        change.touch(WatchKey::ConfigEntry(key.0, key.1.clone()));
        change.touch(WatchKey::ConfigKind(key.0));
        change.touch(WatchKey::ConfigEntries);
        change.dirty(RowKey::config_entry(key));
        change.raise(indexes, TableIndex::ConfigEntries);
    }

    /// Gateways of both kinds share their names.
    fn clash(&self, (kind, name): &EntryKey) -> Result<(), String> {
        let other = match kind {
            Kind::IngressGateway => Kind::TerminatingGateway,
            Kind::TerminatingGateway => Kind::IngressGateway,
            _ => return Ok(()),
        };
        if !self.by_name.contains_key(&(other, name.clone())) {
            return Ok(());
        }
        let (kind, other) = (kind.as_str(), other.as_str());
        Err(format!(
            "cannot create a {kind:?} config entry with name {name:?}, a {other:?} config entry with that name already \
             exists"
        ))
    }

    /// Whether all that depends on an entry makes sense, now that it is another one or gone.
    fn fits(&self, (kind, name): &EntryKey) -> Result<(), String> {
        let ingresses: Vec<&Arc<Held>> = match kind {
            Kind::IngressGateway => self.by_name.get(&(*kind, name.clone())).into_iter().collect(),
            Kind::ServiceDefaults | Kind::ProxyDefaults => self.of(Kind::IngressGateway).collect(),
            _ => Vec::new(),
        };
        self.permissions_fit(*kind, name)?;
        let mut chains = self.chains_with(*kind, name);
        // Its own first: that is the one whose trouble a client understands.
        if chains.remove(name) {
            self.compiles(name)?;
        }
        for chain in chains {
            self.compiles(&chain)?;
        }
        for ingress in ingresses {
            self.ingress_fits(Doc(&ingress.fields))?;
        }
        Ok(())
    }

    fn compiles(&self, service: &str) -> Result<(), String> {
        let overrides = Overrides::default();
        // What the datacenter is called makes no difference to whether the entries fit.
        let request = Request { service, datacenter: "dc1", trust_domain: "consul", overrides: &overrides };
        chain::compile(self, request).map(|_| ())
    }

    /// What is decided request by request is about services that speak HTTP.
    fn permissions_fit(&self, kind: Kind, name: &Text) -> Result<(), String> {
        let concerned: Vec<&Arc<Held>> = match kind {
            Kind::ServiceIntentions | Kind::ServiceDefaults => {
                self.by_name.get(&(Kind::ServiceIntentions, name.clone())).into_iter().collect()
            }
            Kind::ProxyDefaults => self.of(Kind::ServiceIntentions).collect(),
            _ => return Ok(()),
        };
        for held in concerned {
            let mut sources = Doc(&held.fields).list("Sources");
            let name = &held.row.name;
            let protocol = self.protocol(name);
            if name != "*" && !is_http_like(&protocol) && sources.any(|source| source.has("Permissions")) {
                return Err(format!(
                    "service {name:?} has protocol {protocol:?}, which is incompatible with L7 intentions permissions"
                ));
            }
        }
        Ok(())
    }

    /// The listeners of a gateway speak what their services speak.
    fn ingress_fits(&self, gateway: Doc<'_>) -> Result<(), String> {
        for listener in gateway.list("Listeners") {
            let wanted = listener.text("Protocol");
            for service in listener.list("Services") {
                let name = service.text("Name");
                if name == "*" {
                    continue;
                }
                let overrides = Overrides::default();
                let request = Request {
                    service: name,
                    datacenter: "dc1",
                    trust_domain: "consul",
                    overrides: &overrides,
                };
                let compiled = chain::compile(self, request)?;
                let protocol = compiled.protocol();
                if protocol != wanted {
                    return Err(format!(
                        "service {name:?} has protocol {protocol:?}, which does not match defined listener protocol \
                         {wanted:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The services whose chains an entry may be part of.
    fn chains_with(&self, kind: Kind, name: &Text) -> BTreeSet<Text> {
        const KINDS: [Kind; 3] = [Kind::ServiceRouter, Kind::ServiceSplitter, Kind::ServiceResolver];
        if !kind.routes() {
            return BTreeSet::new();
        }
        let chained = KINDS.into_iter().flat_map(|kind| self.of(kind));
        if kind == Kind::ProxyDefaults {
            return chained.map(|held| folded(&held.row.name)).collect();
        }
        let links: Vec<(Text, BTreeSet<Text>)> =
            chained.map(|held| (folded(&held.row.name), mentioned(&held.row, Doc(&held.fields)))).collect();
        let mut found = BTreeSet::from([name.clone()]);
        // Whatever leads to one of them does so, too.
        loop {
            let before = found.len();
            for (from, to) in &links {
                if !found.contains(from) && to.iter().any(|to| found.contains(to)) {
                    found.insert(from.clone());
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    /// Takes a row, of a checkpoint or a new one; `None` if its fields cannot be read.
    pub(super) fn put(&mut self, row: Arc<ConfigEntry>) -> Option<()> {
        let fields = row.read_fields()?;
        self.by_name.insert((row.kind, folded(&row.name)), Arc::new(Held { row, fields }));
        Some(())
    }

    /// One entry.
    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<&Arc<ConfigEntry>> {
        self.row(&(kind, folded(name)))
    }

    pub(super) fn row(&self, key: &EntryKey) -> Option<&Arc<ConfigEntry>> {
        self.by_name.get(key).map(|held| &held.row)
    }

    /// One entry with its fields.
    pub(super) fn find(&self, kind: Kind, name: &str) -> Option<(&Arc<ConfigEntry>, Doc<'_>)> {
        self.by_name.get(&(kind, folded(name))).map(|held| (&held.row, Doc(&held.fields)))
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Held>> {
        let from = (kind, Text::default());
        self.by_name.range(from..).map(|(_, held)| held).take_while(move |held| held.row.kind == kind)
    }

    /// The entries of a kind in the order of their lower-case names, with their fields.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Arc<ConfigEntry>, Doc<'_>)> {
        self.of(kind).map(|held| (&held.row, Doc(&held.fields)))
    }

    /// All entries, by kind and name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ConfigEntry>> {
        self.by_name.values().map(|held| &held.row)
    }

    pub(super) fn from(&self, from: EntryKey) -> impl Iterator<Item = (&EntryKey, &Arc<ConfigEntry>)> {
        self.by_name.range(from..).map(|(key, held)| (key, &held.row))
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// What a service speaks.
    pub(super) fn protocol(&self, service: &str) -> String {
        protocol_of(self, service)
    }
}

/// The services that an entry leads to, in lower case.
fn mentioned(row: &ConfigEntry, fields: Doc<'_>) -> BTreeSet<Text> {
    let mut names: Vec<&str> = Vec::new();
    match row.kind {
        Kind::ServiceRouter => {
            names.extend(
                fields.list("Routes").filter_map(|route| Some(route.object("Destination")?.text("Service"))),
            );
        }
        Kind::ServiceSplitter => names.extend(fields.list("Splits").map(|split| split.text("Service"))),
        Kind::ServiceResolver => {
            names.extend(fields.object("Redirect").map(|redirect| redirect.text("Service")));
            for (_, failover) in fields.map("Failover") {
                names.push(failover.text("Service"));
                names.extend(failover.list("Targets").map(|target| target.text("Service")));
            }
        }
        _ => {}
    }
    names.into_iter().filter(|name| !name.is_empty()).map(folded).collect()
}
