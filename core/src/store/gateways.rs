//! Which services gateways are for: what their entries say, and for a wildcard what the catalog holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Store;
use super::instances::{Instance, InstanceList};
use super::model::{Health, ServiceKind};
use super::services::GroupKey;
use super::sessions::folded;
use crate::Text;
use crate::config_entry::chain::{self, Chain, Request};
use crate::config_entry::{ConfigEntry, Doc, Kind, Overrides};

/// The service that servers themselves are.
const SERVERS: &str = "consul";

/// A service that a gateway is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayService {
    /// The gateway.
    pub gateway: Text,
    /// Whether it lets traffic in; otherwise it lets it out.
    pub ingress: bool,
    /// The service.
    pub service: Text,
    /// Port of the listener; zero for those that let traffic out.
    pub port: i64,
    /// Protocol of the listener; empty for those that let traffic out.
    pub protocol: Text,
    /// Hosts that mean this service.
    pub hosts: Vec<Text>,
    /// Files with which TLS to the service is begun, by field, and the name that is asked for.
    pub tls: BTreeMap<&'static str, Text>,
    /// Whether the entry means all services.
    pub from_wildcard: bool,
    /// Raft index of the entry that says so, or of the service if that is newer.
    pub modify_index: u64,
}

const TLS_FIELDS: [&str; 4] = ["CAFile", "CertFile", "KeyFile", "SNI"];

impl Store {
    /// Makes the discovery chain of a service.
    pub(super) fn chain(
        &self,
        service: &str,
        datacenter: &str,
        overrides: &Overrides,
    ) -> Result<Arc<Chain>, String> {
        let group = self.system.group.unwrap_or_default();
        let trust_domain = format!("{group}.consul");
        let request = Request { service, datacenter, trust_domain: &trust_domain, overrides };
        chain::compile(&self.config, request).map(Arc::new)
    }

    /// The services that a gateway is for, in the order of their names.
    pub(super) fn gateway_services(&self, gateway: &str) -> Vec<GatewayService> {
        let mut found = self.services_of(Kind::IngressGateway, gateway);
        found.extend(self.services_of(Kind::TerminatingGateway, gateway));
        found.sort_by(|a, b| (&a.service, a.port).cmp(&(&b.service, b.port)));
        found
    }

    fn services_of(&self, kind: Kind, gateway: &str) -> Vec<GatewayService> {
        let Some((row, fields)) = self.config.find(kind, gateway) else { return Vec::new() };
        if kind == Kind::TerminatingGateway {
            let lists = fields.list("Services").map(|service| self.listed(row, service, None));
            return without_doubles(lists.flatten());
        }
        let mut found = Vec::new();
        for listener in fields.list("Listeners") {
            let lists = listener.list("Services").map(|service| self.listed(row, service, Some(listener)));
            found.extend(without_doubles(lists.flatten()));
        }
        found
    }

    /// What one line of an entry means.
    fn listed(&self, row: &ConfigEntry, service: Doc<'_>, listener: Option<Doc<'_>>) -> Vec<GatewayService> {
        let tls = TLS_FIELDS.into_iter().filter(|field| service.has(field));
        let plain = GatewayService {
            gateway: row.name.clone(),
            ingress: listener.is_some(),
            service: service.text("Name").into(),
            port: listener.map_or(0, |listener| listener.integer("Port")),
            protocol: listener.map_or("", |listener| listener.text("Protocol")).into(),
            hosts: service.texts("Hosts").map(Text::new).collect(),
            tls: tls.map(|field| (field, service.text(field).into())).collect(),
            from_wildcard: false,
            modify_index: row.modify_index,
        };
        if plain.service != "*" {
            return vec![plain];
        }
        let fits =
            |name: &str| plain.protocol.is_empty() || self.config.protocol(name) == plain.protocol.as_str();
        self.ordinary_services()
            .into_iter()
            .filter(|(name, _)| fits(name))
            .map(|(service, index)| GatewayService {
                service,
                from_wildcard: true,
                modify_index: row.modify_index.max(index),
                ..plain.clone()
            })
            .collect()
    }

    /// The names of services that are neither proxies nor gateways nor the servers, with the index of the first one's
    /// creation.
    fn ordinary_services(&self) -> BTreeMap<Text, u64> {
        let mut names = BTreeMap::new();
        for (_, group) in self.services.groups().filter(|(key, _)| !key.connect) {
            for instance in group.instances() {
                let service = &instance.service;
                if service.kind == ServiceKind::Typical && service.service != SERVERS {
                    let index = names.entry(service.service.clone()).or_insert(service.create_index);
                    *index = service.create_index.min(*index);
                }
            }
        }
        names
    }

    /// The instances of all gateways that let traffic in for a service, whatever their state.
    #[must_use]
    pub fn ingress_of(&self, service: &str) -> Vec<Arc<Instance>> {
        self.ingress_instances(service, false).items.clone()
    }

    /// The instances of all gateways that let traffic in for a service.
    pub(super) fn ingress_instances(&self, service: &str, passing: bool) -> InstanceList {
        let wanted = folded(service);
        let mut items = Vec::new();
        for (row, _) in self.config.of_kind(Kind::IngressGateway) {
            let serves = self.services_of(Kind::IngressGateway, &row.name);
            if serves.iter().any(|served| folded(&served.service) == wanted) {
                items.extend(self.instances_of(&row.name));
            }
        }
        items.retain(|instance| {
            instance.service.kind == ServiceKind::IngressGateway
                && (!passing || instance.health() == Health::Passing)
        });
        InstanceList::new(self.catalog_index(), items)
    }

    /// The instances of a service.
    pub(super) fn instances_of(&self, service: &str) -> Vec<Arc<Instance>> {
        let group = self.services.group(&GroupKey::new(service, false));
        group.into_iter().flat_map(|group| group.instances().cloned()).collect()
    }

    /// The instances of all services, service by service.
    pub(super) fn all_instances(&self) -> Vec<Arc<Instance>> {
        let groups = self.services.groups().filter(|(key, _)| !key.connect);
        groups.flat_map(|(_, group)| group.instances().cloned()).collect()
    }

    /// The newest index of anything that the catalog shows, configuration entries included.
    pub(super) fn catalog_index(&self) -> u64 {
        let indexes = &self.indexes;
        [indexes.nodes, indexes.services, indexes.checks, indexes.config_entries]
            .into_iter()
            .max()
            .unwrap_or(0)
    }
}

/// What is named counts more than what a wildcard means.
fn without_doubles(list: impl Iterator<Item = GatewayService>) -> Vec<GatewayService> {
    let list: Vec<GatewayService> = list.collect();
    let named: BTreeSet<Text> = list
        .iter()
        .filter(|service| !service.from_wildcard)
        .map(|service| folded(&service.service))
        .collect();
    list.into_iter()
        .filter(|service| !service.from_wildcard || !named.contains(&folded(&service.service)))
        .collect()
}
