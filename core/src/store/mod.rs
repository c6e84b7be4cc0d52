//! The replicated state: tables, commands, queries, watches.
//!
//! [`Store::apply`] is the only way to change it, and sees no time and no chance: the same commands at the same indexes
//! make the same store everywhere. Tables are persistent maps, so that a clone costs a few pointers and is a view of
//! one moment that stays as it is.

mod addresses;
mod catalog;
mod change;
mod checks;
pub mod command;
mod config;
mod coordinates;
mod gateways;
mod indexes;
mod instances;
mod intentions;
mod kv;
pub mod model;
mod nodes;
mod pieces;
mod prepared;
pub mod query;
mod read;
mod record;
mod restore;
mod rows;
mod services;
mod sessions;
mod system;
#[cfg(test)]
mod tests;
mod tombstones;
mod transaction;
mod ui;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use change::Change;
use checks::Checks;
use command::{Command, Response};
use config::ConfigEntries;
use coordinates::Coordinates;
use indexes::Indexes;
use kv::Keys;
use model::{Check, KvEntry, Node, Service, Session};
use nodes::Nodes;
use prepared::Prepared;
use query::WatchKey;
use restore::Staging;
use services::{GroupKey, Services};
use sessions::{Sessions, folded};
use system::System;

pub use coordinates::NodeCoordinate;
pub use gateways::GatewayService;
pub use instances::{Instance, InstanceList, Memo, Place, Places, Rendering, ServiceNames};
pub use intentions::{Decision, Intention, IntentionCommand, IntentionDraft, Side};
pub use pieces::Pieces;
pub use prepared::{
    Execute, Executed, Failover, Lent, PreparedCommand, PreparedQuery, ServiceQuery, Template, Unresolved,
};
pub use read::{Found, Rows};
pub use record::{Record, decode_rows};
pub use restore::{Restore, encode_rows};
pub use rows::{BadRow, RowKey, StoreBuilder};
pub use sessions::LockDelay;
pub use system::{Autopilot, AutopilotSettings};
pub use transaction::{Lookup, Operation, OperationError, Outcome, TransactionRow};
pub use ui::{UiGateway, UiNeighbour, UiNode, UiTopology};
pub use watch::Watches;

use crate::Text;
use crate::config_entry::{ConfigEntry, Kind};
use crate::format::Format;
use crate::ids::Uuid;

/// The whole replicated state at one index.
#[derive(Clone, Default)]
pub struct Store {
    kv: Keys,
    nodes: Nodes,
    services: Services,
    checks: Checks,
    sessions: Sessions,
    coordinates: Coordinates,
    prepared: Prepared,
    system: System,
    config: ConfigEntries,
    indexes: Indexes,
    /// The state that is to take the place of this one, as far as it has come.
    staging: Option<Staging>,
}

/// A store that nobody changes any more: what readers get.
pub type View = Store;

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the one who proposed it.
    pub response: Response,
    /// For those who wait; sorted, each once.
    pub touched: Vec<WatchKey>,
    /// For the next checkpoint: the rows that were written or removed; sorted, each once.
    pub dirty: Vec<RowKey>,
    /// The whole state is another one: every row may differ.
    pub replaced: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("keys", &self.kv.len())
            .field("tombstones", &self.kv.tombstones.len())
            .field("nodes", &self.nodes.len())
            .field("services", &self.services.len())
            .field("checks", &self.checks.len())
            .field("sessions", &self.sessions.len())
            .field("coordinates", &self.coordinates.len())
            .field("config_entries", &self.config.len())
            .field("prepared queries", &self.prepared.len())
            .field("indexes", &self.indexes)
            .finish()
    }
}

impl Store {
    /// A store without rows.
    #[must_use]
    pub fn new() -> Store {
        Store::default()
    }

    /// Applies the command at a Raft index. Indexes grow from call to call and begin behind 1, which is the index of an
    /// answer about nothing.
    ///
    /// A refused command changes nothing.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        let mut change = Change::new(index + self.system.index_offset);
        let response = match command {
            Command::Kv(command) => self.kv.apply(&self.sessions, &mut self.indexes, &mut change, command),
            Command::Register(registration) => self.register(&mut change, registration),
            Command::Deregister(command) => self.deregister(&mut change, command),
            Command::SessionCreate(session) => self.create_session(&mut change, session),
            Command::SessionDestroy { id } => {
                self.end_session(&mut change, *id);
                Response::Done
            }
            Command::LockDelayOver { keys } => {
                for (key, begun) in keys {
                    self.sessions.end_delay(&mut change, key, *begun);
                }
                Response::Done
            }
            Command::ReapTombstones { up_to } => {
                self.kv.reap(&mut self.indexes, &mut change, *up_to);
                Response::Done
            }
            Command::AutopilotSet { settings, cas } => self.system.set_autopilot(&mut change, settings, *cas),
            Command::GroupNamed { id } => self.system.name_group(&mut change, *id),
            Command::FormatRaised { to } => self.system.raise_format(&mut change, *to),
            Command::Coordinates(located) => {
                for (node, coordinate) in located {
                    self.locate(&mut change, node, coordinate);
                }
                Response::Done
            }
            Command::ConfigSet { entry, cas } => self.config.set(&mut self.indexes, &mut change, entry, *cas),
            Command::ConfigDelete { kind, name, cas } => {
                self.config.delete(&mut self.indexes, &mut change, *kind, name, *cas)
            }
            Command::Restore(step) => self.restore(&mut change, step),
            Command::Transaction(operations) => Response::Transaction(self.transact(&mut change, operations)),
            Command::Prepared(command) => self.prepare(&mut change, command),
            Command::Intention(command) => {
                self.config.apply_intention(&mut self.indexes, &mut change, command)
            }
        };
        let replaced = change.replaced;
        let (touched, dirty) = change.finish();
        Applied { response, touched, dirty, replaced }
    }

    /// A key.
    #[must_use]
    pub fn kv(&self, key: &str) -> Option<Arc<KvEntry>> {
        self.kv.get(key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn kv_len(&self) -> usize {
        self.kv.len()
    }

    /// A session.
    #[must_use]
    pub fn session(&self, id: Uuid) -> Option<&Arc<Session>> {
        self.sessions.get(id)
    }

    /// A node by name, without regard to letter case.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(&folded(name)).map(|entry| &entry.row)
    }

    /// A node by its agent's identity.
    #[must_use]
    pub fn node_by_id(&self, id: Uuid) -> Option<&Arc<Node>> {
        self.nodes.by_id(id).map(|entry| &entry.row)
    }

    /// The first node with an address, in the order of lower-case names.
    #[must_use]
    pub fn node_at(&self, address: IpAddr) -> Option<&Arc<Node>> {
        self.nodes.at(address).map(|entry| &entry.row)
    }

    /// The first service with an address of its own, in the order of nodes and ids.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.services.at(address)
    }

    /// Where a node is; without regard to letter case.
    #[must_use]
    pub fn coordinate(&self, node: &str) -> Option<&Arc<NodeCoordinate>> {
        self.coordinates.get(&folded(node))
    }

    /// All nodes in the order of their lower-case names.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.all().map(|entry| &entry.row)
    }

    /// The services on a node in the order of their ids.
    #[must_use]
    pub fn node_services(&self, name: &str) -> Vec<Arc<Service>> {
        self.services.of_node(&folded(name)).map(|(_, row)| Arc::clone(row)).collect()
    }

    /// One service on a node, without regard to letter case.
    #[must_use]
    pub fn service(&self, node: &str, id: &str) -> Option<&Arc<Service>> {
        self.services.get(&(folded(node), folded(id)))
    }

    /// The checks on a node, those of its services included, in the order of their ids.
    #[must_use]
    pub fn node_checks(&self, name: &str) -> Vec<Arc<Check>> {
        self.checks.of_node(&folded(name)).map(|(_, row)| Arc::clone(row)).collect()
    }

    /// One check on a node, without regard to letter case.
    #[must_use]
    pub fn check(&self, node: &str, id: &str) -> Option<&Arc<Check>> {
        self.checks.get(&(folded(node), folded(id)))
    }

    /// The instances of a service, without regard to letter case; `None` if there is none.
    #[must_use]
    pub fn service_instances(&self, name: &str) -> Option<&Arc<InstanceList>> {
        self.services.group(&GroupKey::new(name, false)).map(|group| group.all())
    }

    /// The instances that take mesh traffic for a service, without regard to letter case; `None` if there is none.
    #[must_use]
    pub fn connect_instances(&self, name: &str) -> Option<&Arc<InstanceList>> {
        self.services.group(&GroupKey::new(name, true)).map(|group| group.all())
    }

    /// The sessions that end unless they are renewed.
    pub fn sessions_with_ttl(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.all().filter(|session| session.ttl_parsed.is_some())
    }

    /// The keys that cannot be locked for now, with the index at which that began and for how long it lasts.
    pub fn lock_delays(&self) -> impl Iterator<Item = (&Text, u64, Duration)> {
        self.sessions.delays().map(|(key, delay)| (key, delay.begun, delay.delay))
    }

    /// Autopilot's settings; `None` until the first leader has written them.
    #[must_use]
    pub fn autopilot(&self) -> Option<&Arc<Autopilot>> {
        self.system.autopilot.as_ref()
    }

    /// The identity of the group of servers whose state this is; `None` until its first leader has named it.
    #[must_use]
    pub fn group(&self) -> Option<Uuid> {
        self.system.group
    }

    /// The format of commands that every server of the group knows.
    #[must_use]
    pub fn format(&self) -> Format {
        self.system.format
    }

    /// A configuration entry, without regard to the letter case of its name.
    #[must_use]
    pub fn config_entry(&self, kind: Kind, name: &str) -> Option<&Arc<ConfigEntry>> {
        self.config.get(kind, name)
    }

    /// Raft index of the oldest deletion that is remembered.
    #[must_use]
    pub fn oldest_tombstone(&self) -> Option<u64> {
        self.kv.tombstones.oldest()
    }

    /// Raft index of the newest deletion that is remembered.
    #[must_use]
    pub fn newest_tombstone(&self) -> Option<u64> {
        self.kv.tombstones.newest()
    }
}
