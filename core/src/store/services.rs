//! Services: their rows, and per name the instances that discovery answers with.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;

use super::addresses::Addresses;
use super::change::Change;
use super::checks::OnNode;
use super::instances::{Instance, InstanceList};
use super::model::{Health, Service, ServiceKind};
use super::query::WatchKey;
use super::rows::RowKey;
use super::sessions::folded;
use crate::Text;

/// What instances are looked up by: a name, and whether ordinary traffic or mesh traffic for that name is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    /// Lower-case name of the service.
    pub(super) name: Text,
    /// The instances that take mesh traffic for it: its proxies, and itself where it speaks the protocol.
    pub(super) connect: bool,
}

impl GroupKey {
    pub(super) fn new(name: &str, connect: bool) -> GroupKey {
        GroupKey { name: folded(name), connect }
    }

    pub(super) fn watch(&self) -> WatchKey {
        if self.connect {
            WatchKey::ServiceConnect(self.name.clone())
        } else {
            WatchKey::Service(self.name.clone())
        }
    }

    /// The groups that a row belongs to.
    pub(super) fn of(service: &Service) -> Vec<GroupKey> {
        let mut keys = vec![GroupKey::new(&service.service, false)];
        if service.connect_native {
            keys.push(GroupKey::new(&service.service, true));
        }
        if service.kind == ServiceKind::ConnectProxy
            && let Ok(proxy) = serde_json::from_str::<serde_json::Value>(&service.proxy)
            && let Some(name) = proxy.get("DestinationServiceName").and_then(|name| name.as_str())
        {
            keys.push(GroupKey::new(name, true));
        }
        keys.dedup();
        keys
    }
}

/// The instances behind one [`GroupKey`].
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Newest change of an instance, its node or its checks, removals included.
    pub(super) index: u64,
    instances: OrdMap<OnNode, Arc<Instance>>,
    all: OnceLock<Arc<InstanceList>>,
    passing: OnceLock<Arc<InstanceList>>,
}

impl Group {
    pub(super) fn all(&self) -> &Arc<InstanceList> {
        self.all.get_or_init(|| {
            Arc::new(InstanceList::new(self.index, self.instances.values().cloned().collect()))
        })
    }

    pub(super) fn passing(&self) -> &Arc<InstanceList> {
        self.passing.get_or_init(|| {
            let items = self.instances.values().filter(|item| item.health() == Health::Passing);
            Arc::new(InstanceList::new(self.index, items.cloned().collect()))
        })
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values()
    }
}

/// All services.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    rows: OrdMap<OnNode, Arc<Service>>,
    /// Rows by their own addresses. Derived.
    by_address: Addresses<OnNode>,
    /// Instances are derived from the rows; the indexes are not.
    groups: OrdMap<GroupKey, Arc<Group>>,
}

impl Services {
    pub(super) fn get(&self, key: &OnNode) -> Option<&Arc<Service>> {
        self.rows.get(key)
    }

    /// Writes a row. Instances follow by [`Services::place`].
    pub(super) fn put(&mut self, key: OnNode, service: Arc<Service>) {
        if let Some(old) = self.rows.get(&key) {
            self.by_address.remove(&old.address, &key);
        }
        self.by_address.insert(&service.address, &key);
        self.rows.insert(key, service);
    }

    /// Removes a row and its instances.
    pub(super) fn remove(&mut self, change: &mut Change, key: &OnNode) -> Option<Arc<Service>> {
        let service = self.rows.remove(key)?;
        self.by_address.remove(&service.address, key);
        self.displace(change, key, &service);
        Some(service)
    }

    /// Takes an instance from the groups that its row belonged to.
    pub(super) fn displace(&mut self, change: &mut Change, key: &OnNode, service: &Service) {
        for group in GroupKey::of(service) {
            let Some(entry) = self.groups.get(&group) else { continue };
            let mut instances = entry.instances.clone();
            instances.remove(key);
            self.set(change, group, instances);
        }
    }

    /// Puts an instance into its groups, in place of the one that was there.
    pub(super) fn place(&mut self, change: &mut Change, key: &OnNode, instance: &Arc<Instance>) {
        for group in GroupKey::of(&instance.service) {
            let mut instances = self.groups.get(&group).map(|old| old.instances.clone()).unwrap_or_default();
            instances.insert(key.clone(), Arc::clone(instance));
            self.set(change, group, instances);
        }
    }

    fn set(&mut self, change: &mut Change, key: GroupKey, instances: OrdMap<OnNode, Arc<Instance>>) {
        change.touch(key.watch());
        change.dirty(RowKey::group(&key));
        if instances.is_empty() {
            // What is gone has the table's index, which its removal has moved.
            self.groups.remove(&key);
        } else {
            let group = Group { index: change.index, instances, ..Group::default() };
            self.groups.insert(key, Arc::new(group));
        }
    }

    /// Takes all instances and indexes of a checkpoint at once.
    pub(super) fn restore(
        &mut self,
        instances: Vec<(OnNode, Arc<Instance>)>,
        indexes: &OrdMap<GroupKey, u64>,
    ) {
        let mut groups: std::collections::BTreeMap<GroupKey, Group> = std::collections::BTreeMap::new();
        for (key, instance) in instances {
            for group in GroupKey::of(&instance.service) {
                let index = indexes.get(&group).copied().unwrap_or(0);
                let entry = groups.entry(group).or_default();
                entry.index = index;
                entry.instances.insert(key.clone(), Arc::clone(&instance));
            }
        }
        self.groups = groups.into_iter().map(|(key, group)| (key, Arc::new(group))).collect();
    }

    pub(super) fn group(&self, key: &GroupKey) -> Option<&Arc<Group>> {
        self.groups.get(key)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&GroupKey, &Arc<Group>)> {
        self.groups.iter()
    }

    pub(super) fn groups_from(&self, from: GroupKey) -> impl Iterator<Item = (&GroupKey, &Arc<Group>)> {
        self.groups.range(from..)
    }

    /// The first row with an address of its own, in the order of nodes and ids.
    pub(super) fn at(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.rows.get(self.by_address.first(address)?)
    }

    /// All rows in the order of nodes and ids.
    pub(super) fn from(&self, from: OnNode) -> impl Iterator<Item = (&OnNode, &Arc<Service>)> {
        self.rows.range(from..)
    }

    /// The services on a node in the order of their ids.
    pub(super) fn of_node(&self, node: &str) -> impl Iterator<Item = (&OnNode, &Arc<Service>)> {
        self.from((Text::new(node), Text::default())).take_while(move |(key, _)| key.0 == node)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}
