//! Tests of the store's rules, by table, and of its promises, by random histories.

mod catalog;
mod codec;
mod config;
mod coordinates;
mod intentions;
mod kv;
mod model;
#[cfg(feature = "planted")]
mod planted;
mod prepared;
mod property;
mod restore;
mod sessions;
mod system;
mod transaction;

use std::time::Duration;

use bytes::Bytes;

use super::command::{Command, Deregistration, KvCommand, KvVerb, Refusal, Registration, Response};
use super::model::{Check, Health, KvEntry, Service, Session, SessionBehavior};
use super::query::{Query, ServiceSelector, WatchKey};
use super::{Applied, Found, Rows, Store};
use crate::Text;
use crate::ids::Uuid;

/// A store with the index of its last command.
#[derive(Default)]
struct World {
    store: Store,
    index: u64,
}

impl World {
    fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        self.store.apply(self.index, &command)
    }

    fn kv(&mut self, verb: KvVerb, key: &str, value: &str) -> Response {
        self.apply(kv_command(verb, key, value, 0)).response
    }

    fn set(&mut self, key: &str, value: &str) {
        assert_eq!(self.kv(KvVerb::Set, key, value), Response::Held(true));
    }

    fn register(&mut self, registration: Registration) -> Applied {
        self.apply(Command::Register(Box::new(registration)))
    }

    fn deregister(&mut self, node: &str, service: Option<&str>, check: Option<&str>) -> Applied {
        self.apply(Command::Deregister(Deregistration {
            node: Text::new(node),
            service_id: service.map(Text::new),
            check_id: check.map(Text::new),
        }))
    }

    /// Creates a session on a node that is there.
    fn session(&mut self, session: Session) -> Uuid {
        let id = session.id;
        let applied = self.apply(Command::SessionCreate(Box::new(session)));
        assert_eq!(applied.response, Response::SessionCreated(id));
        id
    }

    fn entry(&self, key: &str) -> KvEntry {
        KvEntry::clone(&self.store.kv(key).expect("the key is there"))
    }

    fn index_of(&self, query: &Query) -> u64 {
        let found = self.store.evaluate(query);
        assert_eq!(found.index, self.store.query_index(query), "{query:?}");
        found.index
    }
}

fn kv_command(verb: KvVerb, key: &str, value: &str, flags: u64) -> Command {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Command::Kv(KvCommand { verb, key: Text::new(key), value, flags })
}

fn node(name: &str) -> Registration {
    Registration {
        node: Text::new(name),
        address: Text::new("10.0.0.1"),
        datacenter: Text::new("dc1"),
        ..Registration::default()
    }
}

fn service(id: &str, name: &str) -> Service {
    Service { id: Text::new(id), service: Text::new(name), ..Service::default() }
}

fn check(id: &str, service_id: &str, status: Health) -> Check {
    Check { id: Text::new(id), service_id: Text::new(service_id), status, ..Check::default() }
}

fn session(id: u128, node: &str) -> Session {
    Session {
        id: Uuid(id),
        name: Text::default(),
        node: Text::new(node),
        lock_delay: Duration::ZERO,
        behavior: SessionBehavior::Release,
        ttl: Text::default(),
        ttl_parsed: None,
        node_checks: Vec::new(),
        service_checks: None,
        checks: Vec::new(),
        create_index: 0,
        modify_index: 0,
    }
}

fn health_of(name: &str) -> Query {
    let select = ServiceSelector { service: Text::new(name), ..ServiceSelector::default() };
    Query::ServiceHealth { select, passing: false }
}

fn ids(found: &Found) -> Vec<String> {
    match &found.rows {
        Rows::Kv(entry) => entry.iter().map(|entry| entry.key.to_string()).collect(),
        Rows::KvTree(entries) => entries.iter().map(|entry| entry.key.to_string()).collect(),
        Rows::KvKeys(keys) => keys.iter().map(Text::to_string).collect(),
        Rows::Sessions(sessions) => sessions.iter().map(|session| session.id.0.to_string()).collect(),
        Rows::Nodes(nodes) => nodes.iter().map(|node| node.name.to_string()).collect(),
        Rows::Services(names) => names.keys().map(Text::to_string).collect(),
        Rows::Instances(list) => {
            list.items.iter().map(|item| format!("{}/{}", item.node.name, item.service.id)).collect()
        }
        Rows::Node(node) => {
            node.iter().flat_map(|(_, services)| services).map(|row| row.id.to_string()).collect()
        }
        Rows::Coordinates(rows) => rows.iter().map(|row| row.node.to_string()).collect(),
        Rows::Prepared(rows) => rows.iter().map(|query| query.id.0.to_string()).collect(),
        Rows::Explained(_) | Rows::Executed(_) => panic!("no list"),
        Rows::GatewayServices(rows) => rows.iter().map(|row| row.service.to_string()).collect(),
        Rows::UiNodes(rows) | Rows::UiOverview(rows, _) => {
            rows.iter().map(|row| row.node.name.to_string()).collect()
        }
        Rows::UiServices(rows) => rows.iter().map(|row| row.service.id.to_string()).collect(),
        Rows::UiGateway(rows) => rows.iter().map(|row| row.service.service.to_string()).collect(),
        Rows::Intentions(rows) => {
            rows.iter().map(|row| format!("{}>{}", row.source, row.destination)).collect()
        }
        Rows::Chain(_)
        | Rows::UiTopology(_)
        | Rows::Transaction(_)
        | Rows::MatchIntentions(_)
        | Rows::CheckIntention(_) => panic!("{found:?} is no list"),
        Rows::ConfigEntries(rows) => rows.iter().map(|row| row.name.to_string()).collect(),
        Rows::Checks(checks) => checks.iter().map(|check| format!("{}/{}", check.node, check.id)).collect(),
    }
}

fn touched(applied: &Applied, key: &WatchKey) -> bool {
    applied.touched.iter().any(|touched| key.woken_by(touched))
}
