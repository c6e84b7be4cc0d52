//! Registering and deregistering: the rules that tie nodes, services, checks and sessions together.
//!
//! A registration is taken as a whole or refused as a whole. Whatever goes takes with it what depends on it: a node its
//! services, checks and sessions, a service its checks, a check the sessions bound to it, a session its locks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Store;
use super::change::Change;
use super::checks::OnNode;
use super::command::{Deregistration, Refusal, Registration, Response};
use super::indexes::TableIndex;
use super::instances::{Instance, Memo};
use super::model::{Check, Health, Node, Service, Session, SessionBehavior};
use super::nodes::NodeEntry;
use super::query::WatchKey;
use super::rows::RowKey;
use super::services::GroupKey;
use super::sessions::folded;
use crate::Text;
use crate::coordinate::Coordinate;
use crate::ids::Uuid;
use crate::marks::{self, Mark};
use crate::planted::{Bug, planted};

/// The check by which gossip vouches for a node. While it is not critical, nobody else takes the node's name.
const SERF_HEALTH: &str = "serfhealth";

impl Store {
    /// Upserts what a registration names. Refusals are decided on a copy, so that they change nothing.
    pub(super) fn register(&mut self, change: &mut Change, registration: &Registration) -> Response {
        let mut next = self.clone();
        let mut done = Change::new(change.index);
        match next.try_register(&mut done, registration) {
            Ok(()) => {
                *self = next;
                *change = done;
                Response::Done
            }
            Err(refusal) => Response::Refused(refusal),
        }
    }

    /// Upserts what a registration names. After a refusal the store is of no use.
    pub(super) fn try_register(
        &mut self,
        change: &mut Change,
        registration: &Registration,
    ) -> Result<(), Refusal> {
        let node = folded(&registration.node);
        let mut stale: BTreeSet<OnNode> = BTreeSet::new();
        if !registration.skip_node_update || self.nodes.get(&node).is_none() {
            self.upsert_node(change, registration, &mut stale)?;
        }
        if let Some(service) = &registration.service {
            self.upsert_service(change, &node, service, &mut stale);
        }
        for check in &registration.checks {
            self.upsert_check(change, &node, check, &mut stale)?;
        }
        self.refresh(change, &node, &stale);
        Ok(())
    }

    fn upsert_node(
        &mut self,
        change: &mut Change,
        registration: &Registration,
        stale: &mut BTreeSet<OnNode>,
    ) -> Result<(), Refusal> {
        let name = folded(&registration.node);
        let mut create_index = None;
        if let Some(id) = registration.id {
            let known = self.nodes.by_id(id).cloned();
            match known {
                Some(known) if folded(&known.row.name) == name => {}
                Some(known) => {
                    self.name_is_free(&name, id, Some(&known.row))?;
                    create_index = Some(known.row.create_index);
                    self.remove_node(change, &folded(&known.row.name));
                }
                None => self.name_is_free(&name, id, None)?,
            }
        }
        let old: Option<NodeEntry> = self.nodes.get(&name).cloned();
        let mut row = Node {
            id: registration.id,
            name: registration.node.clone(),
            address: registration.address.clone(),
            datacenter: registration.datacenter.clone(),
            tagged_addresses: registration.tagged_addresses.clone(),
            meta: registration.node_meta.clone(),
            create_index: create_index
                .or(old.as_ref().map(|old| old.row.create_index))
                .unwrap_or(change.index),
            modify_index: change.index,
        };
        if let Some(old) = &old {
            row.modify_index = old.row.modify_index;
            if row == *old.row {
                return Ok(());
            }
            row.modify_index = change.index;
        }
        self.nodes.write(&mut self.indexes, change, row);
        stale.extend(self.services.of_node(&name).map(|(key, _)| key.clone()));
        Ok(())
    }

    /// A name can be taken over only from a node without identity, or from one that gossip does not vouch for.
    fn name_is_free(&self, name: &Text, id: Uuid, known: Option<&Node>) -> Result<(), Refusal> {
        let Some(holder) = self.nodes.get(name).map(|entry| &entry.row) else { return Ok(()) };
        let Some(holder_id) = holder.id.filter(|holder_id| *holder_id != id) else { return Ok(()) };
        let alive = self
            .checks
            .get(&(name.clone(), Text::new_static(SERF_HEALTH)))
            .is_some_and(|check| check.status != Health::Critical);
        if !alive {
            return Ok(());
        }
        let from = known.map(|known| format!(" ({})", known.address)).unwrap_or_default();
        Err(Refusal::Other(format!(
            "failed inserting node: Error while renaming Node ID: \"{id}\"{from}: Node name {wanted} is reserved by \
             node {holder_id} with name {wanted} ({address})",
            wanted = holder.name,
            address = holder.address,
        )))
    }

    fn upsert_service(
        &mut self,
        change: &mut Change,
        node: &Text,
        service: &Service,
        stale: &mut BTreeSet<OnNode>,
    ) {
        let key = (node.clone(), folded(&service.id));
        let old = self.services.get(&key).cloned();
        let mut row = service.clone();
        row.create_index = old.as_ref().map_or(change.index, |old| old.create_index);
        row.modify_index = old.as_ref().map_or(change.index, |old| old.modify_index);
        if old.as_deref() == Some(&row) {
            return;
        }
        row.modify_index = change.index;
        let renamed = old.as_ref().is_none_or(|old| old.service != row.service || old.tags != row.tags);
        if let Some(old) = &old
            && GroupKey::of(old) != GroupKey::of(&row)
        {
            self.services.displace(change, &key, old);
        }
        self.services.put(key.clone(), Arc::new(row.clone()));
        change.dirty(RowKey::service(&key));
        change.raise(&mut self.indexes, TableIndex::Services);
        if renamed {
            change.touch(WatchKey::Services);
            self.relabel_checks(change, &key, &row);
        }
        self.nodes.service_changed(change, node);
        stale.insert(key);
    }

    /// Checks show the name and the tags of their service, so they change with it.
    fn relabel_checks(&mut self, change: &mut Change, service_key: &OnNode, service: &Service) {
        let own: Vec<(OnNode, Arc<Check>)> = self
            .checks
            .of_instance(service_key)
            .filter(|(_, check)| check.service_name != service.service || check.service_tags != service.tags)
            .map(|(key, check)| (key, Arc::clone(check)))
            .collect();
        for (key, check) in own {
            let mut check = Check::clone(&check);
            check.service_name = service.service.clone();
            check.service_tags = service.tags.clone();
            check.modify_index = change.index;
            self.put_check(change, key, check);
        }
    }

    fn upsert_check(
        &mut self,
        change: &mut Change,
        node: &Text,
        check: &Check,
        stale: &mut BTreeSet<OnNode>,
    ) -> Result<(), Refusal> {
        let entry = self.nodes.get(node).expect("a registration writes its node first");
        if check.id.is_empty() {
            let name = &entry.row.name;
            return Err(Refusal::Other(format!("A check of node {name:?} needs a CheckID or a Name")));
        }
        let mut row = check.clone();
        row.node = entry.row.name.clone();
        row.service_name = Text::default();
        row.service_tags = Vec::new();
        if !row.service_id.is_empty() {
            let key = (node.clone(), folded(&row.service_id));
            let Some(service) = self.services.get(&key) else {
                return Err(Refusal::MissingService { node: row.node });
            };
            row.service_name = service.service.clone();
            row.service_tags = service.tags.clone();
        }
        let key = (node.clone(), folded(&row.id));
        let old = self.checks.get(&key).cloned();
        row.create_index = old.as_ref().map_or(change.index, |old| old.create_index);
        row.modify_index = old.as_ref().map_or(change.index, |old| old.modify_index);
        if old.as_deref() == Some(&row) {
            return Ok(());
        }
        row.modify_index = change.index;
        self.shown_by(node, &row, stale);
        if let Some(old) = &old {
            self.shown_by(node, old, stale);
        }
        let critical = row.status == Health::Critical;
        self.put_check(change, key.clone(), row);
        if critical {
            self.end_bound_sessions(change, &key);
        }
        Ok(())
    }

    /// The instances that a check is shown with: its own, or all of its node.
    fn shown_by(&self, node: &Text, check: &Check, stale: &mut BTreeSet<OnNode>) {
        if check.service_id.is_empty() {
            stale.extend(self.services.of_node(node).map(|(key, _)| key.clone()));
        } else {
            stale.insert((node.clone(), folded(&check.service_id)));
        }
    }

    fn put_check(&mut self, change: &mut Change, key: OnNode, check: Check) {
        self.check_changed(change, &key);
        self.checks.put(key, Arc::new(check));
    }

    fn check_changed(&mut self, change: &mut Change, key: &OnNode) {
        change.touch(WatchKey::Checks);
        change.dirty(RowKey::check(key));
        change.raise(&mut self.indexes, TableIndex::Checks);
        self.nodes.check_changed(change, &key.0);
    }

    /// Makes the instances anew whose node, row or checks have changed.
    fn refresh(&mut self, change: &mut Change, node: &Text, stale: &BTreeSet<OnNode>) {
        let Some(entry) = self.nodes.get(node) else { return };
        let row = Arc::clone(&entry.row);
        for (key, instance) in assemble(&row, node, stale, self) {
            self.services.place(change, &key, &instance);
        }
    }

    /// Removes a node, a service or a check. Removing what is absent is fine.
    pub(super) fn deregister(&mut self, change: &mut Change, command: &Deregistration) -> Response {
        let node = folded(&command.node);
        if let Some(id) = &command.service_id {
            self.remove_service(change, &(node, folded(id)));
        } else if let Some(id) = &command.check_id {
            let key = (node.clone(), folded(id));
            let mut stale = BTreeSet::new();
            if let Some(check) = self.checks.get(&key).cloned() {
                self.shown_by(&node, &check, &mut stale);
                self.remove_check(change, &key);
                self.refresh(change, &node, &stale);
            }
        } else {
            self.remove_node(change, &node);
        }
        Response::Done
    }

    fn remove_check(&mut self, change: &mut Change, key: &OnNode) {
        if self.checks.remove(key).is_some() {
            self.check_changed(change, key);
            self.end_bound_sessions(change, key);
        }
    }

    fn remove_service(&mut self, change: &mut Change, key: &OnNode) {
        if self.services.remove(change, key).is_none() {
            return;
        }
        change.touch(WatchKey::Services);
        change.dirty(RowKey::service(key));
        change.raise(&mut self.indexes, TableIndex::Services);
        self.nodes.service_changed(change, &key.0);
        let own: Vec<OnNode> = self.checks.of_instance(key).map(|(check, _)| check).collect();
        for check in own {
            self.remove_check(change, &check);
        }
    }

    fn remove_node(&mut self, change: &mut Change, node: &Text) {
        if self.nodes.get(node).is_none() {
            return;
        }
        let services: Vec<OnNode> = self.services.of_node(node).map(|(key, _)| key.clone()).collect();
        for key in services {
            self.remove_service(change, &key);
        }
        let checks: Vec<OnNode> = self.checks.of_node(node).map(|(key, _)| key.clone()).collect();
        for key in checks {
            self.remove_check(change, &key);
        }
        let sessions: Vec<Uuid> = self.sessions.of_node(node).map(|session| session.id).collect();
        for id in sessions {
            self.end_session(change, id);
        }
        self.coordinates.remove(&mut self.indexes, change, node);
        self.nodes.remove(&mut self.indexes, change, node);
    }

    /// Writes the coordinate of a node; nodes that are not registered have none.
    pub(super) fn locate(&mut self, change: &mut Change, node: &Text, coordinate: &Coordinate) {
        let key = folded(node);
        if let Some(entry) = self.nodes.get(&key) {
            self.coordinates.write(&mut self.indexes, change, (&key, &entry.row.name), coordinate);
        }
    }

    /// Creates a session, if its node is there and its checks are there and not critical.
    pub(super) fn create_session(&mut self, change: &mut Change, session: &Session) -> Response {
        let node = folded(&session.node);
        if self.nodes.get(&node).is_none() {
            return Response::Refused(Refusal::MissingNode);
        }
        if self.sessions.get(session.id).is_some() {
            return Response::Refused(Refusal::Other(format!("Session '{}' exists already", session.id)));
        }
        for id in bound_checks(session) {
            match self.checks.get(&(node.clone(), folded(id))) {
                None => return Response::Refused(Refusal::MissingCheck(id.clone())),
                Some(check) if check.status == Health::Critical => {
                    return Response::Refused(Refusal::CriticalCheck(id.clone()));
                }
                Some(_) => {}
            }
        }
        self.sessions.insert(&mut self.indexes, change, session.clone());
        Response::SessionCreated(session.id)
    }

    /// Ends the sessions that depend on a check which has gone or become critical.
    fn end_bound_sessions(&mut self, change: &mut Change, check: &OnNode) {
        let bound: Vec<Uuid> = self
            .sessions
            .of_node(&check.0)
            .filter(|session| bound_checks(session).any(|id| folded(id) == check.1))
            .map(|session| session.id)
            .collect();
        for id in bound {
            self.end_session(change, id);
        }
    }

    /// Ends a session: its locks are released or their keys deleted, and cannot be taken again during the lock-delay; its
    /// prepared queries go with it.
    pub(super) fn end_session(&mut self, change: &mut Change, id: Uuid) {
        let Some(session) = self.sessions.remove(&mut self.indexes, change, id) else { return };
        if planted(Bug::SessionSurvivesNode) {
            return;
        }
        for query in self.prepared.of_session(id) {
            self.prepared.remove(&mut self.indexes, change, query);
        }
        for key in self.kv.held_by(id) {
            if !session.lock_delay.is_zero() && !planted(Bug::LockDelaySkipped) {
                self.sessions.begin_delay(change, key.clone(), session.lock_delay);
            }
            match session.behavior {
                SessionBehavior::Release => self.kv.release(&mut self.indexes, change, &key),
                SessionBehavior::Delete => {
                    marks::hit(Mark::SessionDeletesKeys);
                    self.kv.delete_held(&mut self.indexes, change, key);
                }
            }
        }
    }
}

/// The checks that a session depends on.
fn bound_checks(session: &Session) -> impl Iterator<Item = &Text> {
    let of_services = session.service_checks.iter().flatten().map(|check| &check.id);
    session.checks.iter().chain(&session.node_checks).chain(of_services)
}

/// The instances of one node behind these keys, as the tables have them; keys without a row are left out.
pub(super) fn assemble(
    row: &Arc<Node>,
    node: &Text,
    keys: &BTreeSet<OnNode>,
    store: &Store,
) -> Vec<(OnNode, Arc<Instance>)> {
    if keys.is_empty() {
        return Vec::new();
    }
    let checks_of = |of: &OnNode| store.checks.of_instance(of).map(|(_, check)| Arc::clone(check)).collect();
    let of_node: Vec<Arc<Check>> = checks_of(&(node.clone(), Text::default()));
    keys.iter()
        .filter_map(|key| {
            let service = Arc::clone(store.services.get(key)?);
            let mut checks = of_node.clone();
            let own: Vec<Arc<Check>> = checks_of(key);
            checks.extend(own);
            let node = Arc::clone(row);
            Some((key.clone(), Arc::new(Instance { node, service, checks, rendered: Memo::new() })))
        })
        .collect()
}
