//! Anti-entropy: which parts of the catalog differ from the agent's own state, and what repairs them.
//!
//! Source: Consul's documentation, «Anti-entropy enforcement». An item is dirty when the catalog may not have it as the
//! agent does. Dirty items are proposed at once, except those that an earlier proposal still carries: two writes of
//! one item are never under way together, so that they cannot overtake each other. Whatever goes wrong is repaired by
//! the next full synchronisation, which compares everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::CatalogState;
use super::local::Local;
use super::machine::Config;
use crate::Text;
use crate::planted::{Bug, planted};
use crate::rng::Rng;
use crate::store::command::{Command, Deregistration, Registration};
use crate::store::model::{Check, Node, Service};

/// Proposals under way at the same time.
const IN_FLIGHT_MAX: usize = 64;
/// Checks that one command carries besides those of its service.
const CHECKS_PER_COMMAND: usize = 64;
/// First delay after something failed; it doubles.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest delay after something failed, before jitter.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A datacenter of up to this many nodes is synchronised at the configured interval.
const NODES_AT_FULL_RATE: u32 = 128;

/// The service that the leader registers for servers, and the check that it registers for members.
const LEADERS_SERVICE: &str = "consul";
const LEADERS_CHECK: &str = "serfHealth";

/// A part of the catalog that is written as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// The node's row.
    Node,
    /// A service, by id.
    Service(Text),
    /// A check, by id.
    Check(Text),
}

/// What is known about the catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct Sync {
    /// Items that the catalog may not have as the agent does.
    dirty: BTreeSet<Item>,
    /// What proposals under way carry, by ticket.
    in_flight: BTreeMap<u64, Vec<Item>>,
    /// All of `in_flight`.
    busy: BTreeSet<Item>,
    /// The full synchronisation under way.
    pub(super) fetch: Option<u64>,
    /// Whether the catalog has been compared since the start. Nothing is written before that.
    pub(super) compared: bool,
    /// Nothing is tried until the retry timer fires or a leader appears.
    pub(super) paused: bool,
    /// Consecutive failures.
    failures: u32,
}

impl Sync {
    pub(super) fn mark(&mut self, item: Item) {
        self.dirty.insert(item);
    }

    /// An item is taken care of by another one.
    pub(super) fn forget(&mut self, item: &Item) {
        self.dirty.remove(item);
    }

    /// The next command to propose, if there is one; its items are under way from here on.
    pub(super) fn next(&mut self, ticket: u64, local: &Local, config: &Config) -> Option<Command> {
        if self.paused || !self.compared || self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let (command, items) = self.pick(local, config)?;
        for item in &items {
            self.dirty.remove(item);
            let new = self.busy.insert(item.clone());
            assert!(new, "two writes of one item are never under way together");
        }
        self.in_flight.insert(ticket, items);
        Some(command)
    }

    fn pick(&self, local: &Local, config: &Config) -> Option<(Command, Vec<Item>)> {
        let mut checks: Vec<&Text> = Vec::new();
        for item in self.dirty.iter().filter(|item| !self.busy.contains(*item)) {
            match item {
                // Every registration carries the node; alone it goes only when nothing else does.
                Item::Node => return Some(self.register(local, config, None, Vec::new())),
                Item::Service(id) => match local.service(id) {
                    Some(service) => {
                        let checks = local.checks_of(id).filter(|id| self.is_due(id)).collect();
                        return Some(self.register(local, config, Some(service), checks));
                    }
                    None if planted(Bug::DeregistrationStaysLocal) => {}
                    None => {
                        let service_id = Some(id.clone());
                        let node = config.node.clone();
                        let command =
                            Command::Deregister(Deregistration { node, service_id, check_id: None });
                        return Some((command, vec![item.clone()]));
                    }
                },
                Item::Check(id) => match local.check(id) {
                    // A check must not reach the catalog before its service.
                    Some(check) if self.is_waiting_for_service(check) => {}
                    Some(_) => {
                        checks.push(id);
                        if checks.len() == CHECKS_PER_COMMAND {
                            break;
                        }
                    }
                    None if checks.is_empty() => {
                        let check_id = Some(id.clone());
                        let node = config.node.clone();
                        let command =
                            Command::Deregister(Deregistration { node, service_id: None, check_id });
                        return Some((command, vec![item.clone()]));
                    }
                    None => {}
                },
            }
        }
        (!checks.is_empty()).then(|| self.register(local, config, None, checks))
    }

    fn is_due(&self, check_id: &Text) -> bool {
        let item = Item::Check(check_id.clone());
        self.dirty.contains(&item) && !self.busy.contains(&item)
    }

    fn is_waiting_for_service(&self, check: &Check) -> bool {
        if check.service_id.is_empty() {
            return false;
        }
        let service = Item::Service(check.service_id.clone());
        self.dirty.contains(&service) || self.busy.contains(&service)
    }

    fn register(
        &self,
        local: &Local,
        config: &Config,
        service: Option<&Service>,
        check_ids: Vec<&Text>,
    ) -> (Command, Vec<Item>) {
        let mut items = Vec::new();
        if self.dirty.contains(&Item::Node) && !self.busy.contains(&Item::Node) {
            items.push(Item::Node);
        }
        items.extend(service.map(|service| Item::Service(service.id.clone())));
        items.extend(check_ids.iter().map(|id| Item::Check((*id).clone())));
        let checks =
            check_ids.iter().filter_map(|id| local.check(id)).map(|check| Check::clone(check)).collect();
        let registration = Registration {
            id: config.id,
            node: config.node.clone(),
            address: config.address.clone(),
            tagged_addresses: config.tagged_addresses.clone(),
            node_meta: config.node_meta.clone(),
            datacenter: config.datacenter.clone(),
            service: service.cloned(),
            checks,
            skip_node_update: false,
        };
        (Command::Register(Box::new(registration)), items)
    }

    /// A proposal ended. Unless it reached the catalog, its items are dirty again.
    pub(super) fn finished(&mut self, ticket: u64, written: bool) {
        let Some(items) = self.in_flight.remove(&ticket) else { return };
        for item in items {
            self.busy.remove(&item);
            if !written {
                self.dirty.insert(item);
            }
        }
    }

    /// Compares the catalog with the agent's own state and marks what differs. Gives services whose tags the catalog
    /// decides (`EnableTagOverride`) and has otherwise.
    pub(super) fn compare(
        &mut self,
        catalog: &CatalogState,
        local: &Local,
        config: &Config,
        output_is_deferred: impl Fn(&Text) -> bool,
    ) -> Vec<(Text, Vec<Text>)> {
        self.compared = true;
        let mut retag = Vec::new();
        if !catalog.node.as_ref().is_some_and(|node| is_same_node(node, config)) {
            self.mark(Item::Node);
        }
        let remote =
            catalog.services.iter().map(|service| (&service.id, service)).collect::<BTreeMap<_, _>>();
        for (id, service) in local.services() {
            match remote.get(id) {
                None => self.mark(Item::Service(id.clone())),
                Some(remote) => {
                    let override_tags = service.enable_tag_override && remote.enable_tag_override;
                    // Tags that await their write are the younger ones.
                    let is_pending = self.dirty.contains(&Item::Service(id.clone()));
                    if override_tags && remote.tags != service.tags && !is_pending {
                        retag.push((id.clone(), remote.tags.clone()));
                    }
                    if !is_same_service(service, remote, override_tags && !is_pending) {
                        self.mark(Item::Service(id.clone()));
                    }
                }
            }
        }
        let unknown = |id: &&&Text| local.service(id).is_none() && id.as_str() != LEADERS_SERVICE;
        for id in remote.keys().filter(unknown).filter(|_| !planted(Bug::FullSyncBlind)) {
            self.mark(Item::Service((*id).clone()));
        }
        let remote = catalog.checks.iter().map(|check| (&check.id, check)).collect::<BTreeMap<_, _>>();
        for (id, check) in local.checks() {
            if !remote.get(id).is_some_and(|remote| is_same_check(check, remote, output_is_deferred(id))) {
                self.mark(Item::Check(id.clone()));
            }
        }
        for (id, check) in remote {
            let is_leaders = id == LEADERS_CHECK || check.service_id == LEADERS_SERVICE;
            let goes_with_service =
                !check.service_id.is_empty() && local.service(&check.service_id).is_none();
            if local.check(id).is_none() && !is_leaders && !goes_with_service {
                self.mark(Item::Check(id.clone()));
            }
        }
        retag
    }

    /// How long to wait after a failure.
    pub(super) fn retry_after(&mut self, rng: &mut Rng) -> Duration {
        let delay = (RETRY_MIN * 2u32.saturating_pow(self.failures.min(10))).min(RETRY_MAX);
        self.failures += 1;
        delay + rng.duration_below(delay)
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Whether the catalog is believed to be as the agent's own state.
    pub(super) fn is_clean(&self) -> bool {
        self.compared && self.dirty.is_empty() && self.in_flight.is_empty()
    }

    /// What must hold between two calls.
    #[cfg(test)]
    pub(super) fn invariants(&self) {
        assert!(self.in_flight.values().flatten().collect::<BTreeSet<_>>().into_iter().eq(&self.busy));
        assert!(self.in_flight.len() <= IN_FLIGHT_MAX);
    }
}

/// By how much the interval between full synchronisations is stretched in a datacenter of so many nodes.
pub(super) fn scale(nodes: u32) -> u32 {
    if nodes <= NODES_AT_FULL_RATE {
        return 1;
    }
    // ceil(log2 n - 7) + 1
    let log2_ceil = u32::BITS - (nodes - 1).leading_zeros();
    log2_ceil - 7 + 1
}

fn is_same_node(remote: &Node, config: &Config) -> bool {
    remote.name == config.node
        && remote.id == config.id
        && remote.address == config.address
        && remote.datacenter == config.datacenter
        && remote.tagged_addresses == config.tagged_addresses
        && remote.meta == config.node_meta
}

fn is_same_service(local: &Service, remote: &Service, ignore_tags: bool) -> bool {
    let mut remote = Service { create_index: 0, modify_index: 0, ..remote.clone() };
    if ignore_tags {
        remote.tags.clone_from(&local.tags);
    }
    *local == remote
}

fn is_same_check(local: &Check, remote: &Check, ignore_output: bool) -> bool {
    local.node == remote.node
        && local.name == remote.name
        && local.status == remote.status
        && local.notes == remote.notes
        && local.service_id == remote.service_id
        && local.kind == remote.kind
        && local.interval == remote.interval
        && local.timeout == remote.timeout
        && local.definition == remote.definition
        && (ignore_output || local.output == remote.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_datacenters_are_synchronised_less_often() {
        let cases = [(1, 1), (128, 1), (129, 2), (256, 2), (257, 3), (512, 3), (1024, 4), (5000, 7)];
        for (nodes, factor) in cases {
            assert_eq!(scale(nodes), factor, "{nodes}");
        }
    }

    #[test]
    fn retries_back_off_to_half_a_minute_at_most() {
        let mut sync = Sync::default();
        let mut rng = Rng::from_seed(1);
        let first = sync.retry_after(&mut rng);
        assert!((RETRY_MIN..2 * RETRY_MIN).contains(&first));
        for _ in 0..20 {
            assert!(sync.retry_after(&mut rng) < 2 * RETRY_MAX);
        }
        assert!(sync.retry_after(&mut rng) >= RETRY_MAX);
    }
}
