//! Reading: rows, index, and what the answer depends on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::checks::OnNode;
use super::coordinates::NodeCoordinate;
use super::gateways::GatewayService;
use super::instances::{Instance, InstanceList, ServiceNames};
use super::intentions::{Decision, Intention, Side};
use super::model::{Check, KvEntry, Node, Service, Session};
use super::nodes::has_meta;
use super::prepared::{Executed, PreparedQuery, Unresolved};
use super::query::{Query, ServiceSelector, WatchKey};
use super::services::GroupKey;
use super::sessions::folded;
use super::transaction::Outcome;
use super::ui::{UiGateway, UiNode, UiTopology};
use crate::Text;
use crate::config_entry::{Chain, ConfigEntry, Kind};

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `X-Consul-Index`: at least 1, never lower than in an earlier answer to the same query, higher whenever the rows
    /// are different.
    pub index: u64,
    /// What was found.
    pub rows: Rows,
    /// What a change of the answer is bound to touch.
    pub watch: Vec<WatchKey>,
    /// Whether there is anything; keys and prefixes without rows are `404 Not Found`.
    pub exists: bool,
}

/// Rows by kind of query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// [`Query::Kv`]
    Kv(Option<Arc<KvEntry>>),
    /// [`Query::KvTree`], in byte order of the keys.
    KvTree(Vec<Arc<KvEntry>>),
    /// [`Query::KvKeys`], in byte order.
    KvKeys(Vec<Text>),
    /// [`Query::Session`], [`Query::NodeSessions`], [`Query::Sessions`], in the order of their ids.
    Sessions(Vec<Arc<Session>>),
    /// [`Query::Nodes`], in the order of their names.
    Nodes(Vec<Arc<Node>>),
    /// [`Query::Services`]
    Services(ServiceNames),
    /// [`Query::ServiceNodes`], [`Query::ServiceHealth`]. Queries that select nothing share one list.
    Instances(Arc<InstanceList>),
    /// [`Query::Node`], with its services in the order of their ids.
    Node(Option<(Arc<Node>, Vec<Arc<Service>>)>),
    /// [`Query::NodeChecks`], [`Query::ServiceChecks`], [`Query::ChecksInState`], in the order of nodes and ids.
    Checks(Vec<Arc<Check>>),
    /// [`Query::Coordinates`], [`Query::NodeCoordinates`], in the order of their nodes.
    Coordinates(Vec<Arc<NodeCoordinate>>),
    /// [`Query::Transaction`]
    Transaction(Outcome),
    /// [`Query::ConfigEntry`], [`Query::ConfigEntries`], by kind and name.
    ConfigEntries(Vec<Arc<ConfigEntry>>),
    /// [`Query::PreparedQueries`], [`Query::PreparedQuery`], in the order of their ids.
    Prepared(Vec<Arc<PreparedQuery>>),
    /// [`Query::Explain`]
    Explained(Result<Arc<PreparedQuery>, Unresolved>),
    /// [`Query::Execute`], [`Query::ExecuteLent`]
    Executed(Result<Executed, Unresolved>),
    /// [`Query::DiscoveryChain`], or why there is none.
    Chain(Result<Arc<Chain>, String>),
    /// [`Query::GatewayServices`], in the order of their names.
    GatewayServices(Vec<GatewayService>),
    /// [`Query::UiNodes`], in the order of their names.
    UiNodes(Vec<UiNode>),
    /// [`Query::UiServices`]: the instances of all services, service by service.
    UiServices(Vec<Arc<Instance>>),
    /// [`Query::UiOverview`]: all nodes, and the instances of all services.
    UiOverview(Vec<UiNode>, Vec<Arc<Instance>>),
    /// [`Query::UiGateway`], in the order of their names.
    UiGateway(Vec<UiGateway>),
    /// [`Query::UiTopology`]
    UiTopology(UiTopology),
    /// [`Query::Intentions`], [`Query::Intention`], [`Query::ExactIntention`], [`Query::UiGatewayIntentions`], the most
    /// precise first.
    Intentions(Vec<Intention>),
    /// [`Query::MatchIntentions`]: the same for each name.
    MatchIntentions(BTreeMap<Text, Vec<Intention>>),
    /// [`Query::CheckIntention`], [`Query::AuthorizeConnect`]
    CheckIntention(Decision),
}

impl Rows {
    fn is_some(&self) -> bool {
        match self {
            Rows::Kv(row) => row.is_some(),
            Rows::KvTree(rows) => !rows.is_empty(),
            Rows::KvKeys(rows) => !rows.is_empty(),
            Rows::Sessions(rows) => !rows.is_empty(),
            Rows::Nodes(rows) => !rows.is_empty(),
            Rows::Services(rows) => !rows.is_empty(),
            Rows::Instances(list) => !list.items.is_empty(),
            Rows::Node(row) => row.is_some(),
            Rows::Checks(rows) => !rows.is_empty(),
            Rows::Coordinates(rows) => !rows.is_empty(),
            Rows::Transaction(outcome) => outcome.is_ok(),
            Rows::ConfigEntries(rows) => !rows.is_empty(),
            Rows::Prepared(rows) => !rows.is_empty(),
            Rows::Explained(outcome) => outcome.is_ok(),
            Rows::Executed(outcome) => outcome.is_ok(),
            Rows::Chain(chain) => chain.is_ok(),
            Rows::GatewayServices(rows) => !rows.is_empty(),
            Rows::UiNodes(rows) => !rows.is_empty(),
            Rows::UiServices(rows) => !rows.is_empty(),
            Rows::UiGateway(rows) => !rows.is_empty(),
            Rows::Intentions(rows) => !rows.is_empty(),
            Rows::UiOverview(..)
            | Rows::UiTopology(_)
            | Rows::MatchIntentions(_)
            | Rows::CheckIntention(_) => true,
        }
    }
}

impl Store {
    /// Answers a query.
    #[must_use]
    pub fn evaluate(&self, query: &Query) -> Found {
        let rows = self.find(query);
        Found { index: self.query_index(query), exists: rows.is_some(), rows, watch: self.watch(query) }
    }

    /// What the answer to a query depends on.
    fn watch(&self, query: &Query) -> Vec<WatchKey> {
        let mut keys = watch(query);
        if is_of_everything(query) {
            keys.extend([WatchKey::Nodes, WatchKey::ConfigEntries]);
            keys.extend(self.nodes.all().map(|entry| WatchKey::Node(folded(&entry.row.name))));
        }
        keys
    }

    /// The index of a query's answer, without collecting rows. Equal to [`Found::index`].
    #[must_use]
    pub fn query_index(&self, query: &Query) -> u64 {
        let indexes = &self.indexes;
        let with_meta = |table: u64, meta: &[(Text, Text)]| {
            if meta.is_empty() { table } else { table.max(indexes.nodes) }
        };
        let index = match query {
            Query::Kv(key) => self.kv.key_index(indexes, key),
            Query::KvTree(prefix) | Query::KvKeys { prefix, .. } => self.kv.prefix_index(indexes, prefix),
            Query::Session(_) | Query::NodeSessions(_) | Query::Sessions => indexes.sessions,
            Query::Nodes { .. } => indexes.nodes,
            Query::Services { meta } => with_meta(indexes.services, meta),
            Query::ServiceNodes(select) | Query::ServiceHealth { select, .. } => {
                self.service_index(&select.service, select.connect)
            }
            Query::ServiceChecks { service, .. } => self.service_index(service, false),
            // What is absent has the index of the table of nodes, which its removal has moved.
            Query::Node(name) => self.nodes.get(&folded(name)).map_or(indexes.nodes, |node| node.index),
            Query::NodeChecks(name) => {
                self.nodes.get(&folded(name)).map_or(indexes.nodes, |node| node.checks_index)
            }
            Query::ChecksInState { meta, .. } => with_meta(indexes.checks, meta),
            Query::Coordinates => indexes.coordinates,
            // What is absent has the index of the table, which its removal has moved.
            Query::NodeCoordinates(name) => {
                self.coordinates.get(&folded(name)).map_or(indexes.coordinates, |row| row.modify_index)
            }
            Query::PreparedQueries => indexes.prepared,
            Query::PreparedQuery(id) => {
                self.prepared.get(*id).map_or(indexes.prepared, |query| query.modify_index)
            }
            // They tell no index, and have none that could be waited for.
            Query::Transaction(_) | Query::Explain(_) | Query::Execute(_) | Query::ExecuteLent(_) => {
                return 1;
            }
            Query::State => self.newest_index(),
            // What is absent has the index of the table, which its removal has moved.
            Query::ConfigEntry { kind, name } => {
                self.config.get(*kind, name).map_or(indexes.config_entries, |row| row.modify_index)
            }
            Query::ConfigEntries(_)
            | Query::DiscoveryChain { .. }
            | Query::Intentions
            | Query::Intention(_)
            | Query::ExactIntention { .. }
            | Query::MatchIntentions { .. }
            | Query::CheckIntention { .. }
            | Query::AuthorizeConnect { .. } => indexes.config_entries,
            Query::GatewayServices(_)
            | Query::IngressHealth { .. }
            | Query::UiNodes(_)
            | Query::UiServices
            | Query::UiOverview
            | Query::UiGateway(_)
            | Query::UiTopology(_)
            | Query::UiGatewayIntentions(_) => self.catalog_index(),
        };
        index.max(indexes.restored).max(1)
    }

    fn service_index(&self, name: &str, connect: bool) -> u64 {
        let group = self.services.group(&GroupKey::new(name, connect));
        group.map_or(self.indexes.services, |group| group.index)
    }

    fn find(&self, query: &Query) -> Rows {
        match query {
            Query::Kv(key) => Rows::Kv(self.kv.get(key)),
            Query::KvTree(prefix) => Rows::KvTree(self.kv.tree(prefix)),
            Query::KvKeys { prefix, separator } => Rows::KvKeys(self.kv.list(prefix, separator)),
            Query::Session(id) => Rows::Sessions(self.sessions.get(*id).cloned().into_iter().collect()),
            Query::NodeSessions(node) => {
                Rows::Sessions(self.sessions.of_node(&folded(node)).cloned().collect())
            }
            Query::Sessions => Rows::Sessions(self.sessions.all().cloned().collect()),
            Query::Nodes { meta } => Rows::Nodes(
                self.nodes.all().map(|node| &node.row).filter(|node| has_meta(node, meta)).cloned().collect(),
            ),
            Query::Services { meta } => Rows::Services(self.service_names(meta)),
            Query::ServiceNodes(select) => Rows::Instances(self.select(select, false)),
            Query::ServiceHealth { select, passing } => Rows::Instances(self.select(select, *passing)),
            Query::Node(name) => {
                let name = folded(name);
                Rows::Node(self.nodes.get(&name).map(|node| {
                    let services = self.services.of_node(&name).map(|(_, row)| Arc::clone(row)).collect();
                    (Arc::clone(&node.row), services)
                }))
            }
            Query::NodeChecks(name) => {
                Rows::Checks(self.checks.of_node(&folded(name)).map(|(_, row)| Arc::clone(row)).collect())
            }
            Query::ServiceChecks { service, meta } => {
                let group = self.services.group(&GroupKey::new(service, false));
                let mut checks: Vec<(OnNode, Arc<Check>)> = Vec::new();
                for instance in group.into_iter().flat_map(|group| group.instances()) {
                    if has_meta(&instance.node, meta) {
                        let own = instance.checks.iter().filter(|check| !check.service_id.is_empty());
                        checks.extend(own.map(|row| ((folded(&row.node), folded(&row.id)), Arc::clone(row))));
                    }
                }
                checks.sort_by(|(a, _), (b, _)| a.cmp(b));
                Rows::Checks(checks.into_iter().map(|(_, row)| row).collect())
            }
            Query::ChecksInState { state, meta } => {
                let on_node = |check: &Check| {
                    meta.is_empty()
                        || self.nodes.get(&folded(&check.node)).is_some_and(|node| has_meta(&node.row, meta))
                };
                let rows = self
                    .checks
                    .all()
                    .filter(|check| state.is_none_or(|state| check.status == state))
                    .filter(|check| on_node(check));
                Rows::Checks(rows.cloned().collect())
            }
            Query::Coordinates => Rows::Coordinates(self.coordinates.all().cloned().collect()),
            Query::NodeCoordinates(name) => {
                Rows::Coordinates(self.coordinates.get(&folded(name)).cloned().into_iter().collect())
            }
            Query::Transaction(lookups) => Rows::Transaction(self.look_up(lookups)),
            Query::State => Rows::KvKeys(Vec::new()),
            Query::ConfigEntry { kind, name } => {
                Rows::ConfigEntries(self.config.get(*kind, name).cloned().into_iter().collect())
            }
            Query::DiscoveryChain { service, datacenter, overrides } => {
                Rows::Chain(self.chain(service, datacenter, overrides))
            }
            Query::GatewayServices(gateway) => Rows::GatewayServices(self.gateway_services(gateway)),
            Query::IngressHealth { service, passing } => {
                Rows::Instances(Arc::new(self.ingress_instances(service, *passing)))
            }
            Query::UiNodes(name) => Rows::UiNodes(self.ui_nodes(name.as_deref())),
            Query::UiServices => Rows::UiServices(self.all_instances()),
            Query::UiOverview => Rows::UiOverview(self.ui_nodes(None), self.all_instances()),
            Query::UiGateway(gateway) => Rows::UiGateway(self.ui_gateway(gateway)),
            Query::UiTopology(service) => Rows::UiTopology(self.ui_topology(service)),
            Query::ConfigEntries(None) => {
                // By the name of the kind, as Consul lists them.
                let mut all: Vec<_> = self.config.all().cloned().collect();
                all.sort_by_key(|entry| entry.kind.as_str());
                Rows::ConfigEntries(all)
            }
            Query::ConfigEntries(Some(kind)) => {
                Rows::ConfigEntries(self.config.of_kind(*kind).map(|(row, _)| Arc::clone(row)).collect())
            }
            Query::Intentions => Rows::Intentions(self.config.intentions()),
            Query::Intention(id) => Rows::Intentions(self.config.intention(*id).into_iter().collect()),
            Query::ExactIntention { source, destination } => {
                Rows::Intentions(self.config.exact_intention(source, destination).into_iter().collect())
            }
            Query::MatchIntentions { side, names } => Rows::MatchIntentions(
                names
                    .iter()
                    .map(|(label, name)| (label.clone(), self.config.matching_intentions(*side, name)))
                    .collect(),
            ),
            Query::CheckIntention { source, destination }
            | Query::AuthorizeConnect { source, destination } => {
                Rows::CheckIntention(self.config.decide(source, destination))
            }
            Query::UiGatewayIntentions(gateway) => Rows::Intentions(self.gateway_intentions(gateway)),
            Query::PreparedQueries => Rows::Prepared(self.prepared.all().cloned().collect()),
            Query::PreparedQuery(id) => Rows::Prepared(self.prepared.get(*id).cloned().into_iter().collect()),
            Query::Explain(name) => Rows::Explained(self.resolve_prepared(name)),
            Query::Execute(run) => Rows::Executed(self.execute_prepared(run)),
            Query::ExecuteLent(lent) => Rows::Executed(Ok(self.execute_lent(lent))),
        }
    }

    fn select(&self, select: &ServiceSelector, passing: bool) -> Arc<InstanceList> {
        let Some(group) = self.services.group(&GroupKey::new(&select.service, select.connect)) else {
            return Arc::new(InstanceList::new(self.indexes.services, Vec::new()));
        };
        let list = if passing { group.passing() } else { group.all() };
        if select.tags.is_empty() && select.node_meta.is_empty() {
            return Arc::clone(list);
        }
        let items = list
            .items
            .iter()
            .filter(|item| item.has_tags(&select.tags) && has_meta(&item.node, &select.node_meta));
        Arc::new(InstanceList::new(list.index, items.cloned().collect()))
    }

    fn service_names(&self, meta: &[(Text, Text)]) -> ServiceNames {
        let mut names = ServiceNames::new();
        for (_, group) in self.services.groups().filter(|(key, _)| !key.connect) {
            for instance in group.instances().filter(|instance| has_meta(&instance.node, meta)) {
                let service = &instance.service;
                if !names.contains_key(&service.service) {
                    names.insert(service.service.clone(), Default::default());
                }
                if let Some(tags) = names.get_mut(&service.service) {
                    for tag in &service.tags {
                        if !tags.contains(tag) {
                            tags.insert(tag.clone());
                        }
                    }
                }
            }
        }
        names
    }
}

/// Whether it shows so much that it depends on everything in the catalog.
fn is_of_everything(query: &Query) -> bool {
    matches!(
        query,
        Query::GatewayServices(_)
            | Query::IngressHealth { .. }
            | Query::UiNodes(_)
            | Query::UiServices
            | Query::UiOverview
            | Query::UiGateway(_)
            | Query::UiTopology(_)
            | Query::UiGatewayIntentions(_)
    )
}

/// What the answer to a query depends on, whatever the state is.
fn watch(query: &Query) -> Vec<WatchKey> {
    let with_nodes = |key: WatchKey, meta: &[(Text, Text)]| {
        if meta.is_empty() { vec![key] } else { vec![key, WatchKey::Nodes] }
    };
    match query {
        Query::Kv(key) => vec![WatchKey::Kv(key.clone())],
        Query::KvTree(prefix) | Query::KvKeys { prefix, .. } => vec![WatchKey::KvPrefix(prefix.clone())],
        Query::Session(id) => vec![WatchKey::Session(*id)],
        Query::NodeSessions(node) => vec![WatchKey::NodeSessions(folded(node))],
        Query::Sessions => vec![WatchKey::Sessions],
        Query::Nodes { .. } => vec![WatchKey::Nodes],
        Query::Services { meta } => with_nodes(WatchKey::Services, meta),
        Query::ServiceNodes(select) | Query::ServiceHealth { select, .. } => {
            vec![GroupKey::new(&select.service, select.connect).watch()]
        }
        Query::Node(name) | Query::NodeChecks(name) => vec![WatchKey::Node(folded(name))],
        Query::ServiceChecks { service, .. } => vec![GroupKey::new(service, false).watch()],
        Query::ChecksInState { meta, .. } => with_nodes(WatchKey::Checks, meta),
        Query::Coordinates => vec![WatchKey::Coordinates],
        Query::NodeCoordinates(name) => vec![WatchKey::NodeCoordinates(folded(name))],
        Query::ConfigEntry { kind, name } => vec![WatchKey::ConfigEntry(*kind, folded(name))],
        Query::ConfigEntries(None) | Query::DiscoveryChain { .. } => vec![WatchKey::ConfigEntries],
        Query::GatewayServices(_)
        | Query::IngressHealth { .. }
        | Query::UiNodes(_)
        | Query::UiServices
        | Query::UiOverview
        | Query::UiGateway(_)
        | Query::UiTopology(_)
        | Query::UiGatewayIntentions(_) => Vec::new(),
        Query::ConfigEntries(Some(kind)) => vec![WatchKey::ConfigKind(*kind)],
        Query::Intentions | Query::Intention(_) | Query::MatchIntentions { side: Side::Source, .. } => {
            vec![WatchKey::ConfigKind(Kind::ServiceIntentions)]
        }
        Query::ExactIntention { destination, .. } => vec![of_destination(destination)],
        Query::MatchIntentions { side: Side::Destination, names } => {
            let names = names.iter().map(|(_, name)| name.as_str()).chain(["*"]);
            names.map(of_destination).collect()
        }
        Query::CheckIntention { destination, .. } | Query::AuthorizeConnect { destination, .. } => {
            vec![of_destination(destination), of_destination("*")]
        }
        Query::PreparedQueries => vec![WatchKey::PreparedQueries],
        Query::PreparedQuery(id) => vec![WatchKey::PreparedQuery(*id)],
        // They never wait.
        Query::Transaction(_)
        | Query::State
        | Query::Explain(_)
        | Query::Execute(_)
        | Query::ExecuteLent(_) => Vec::new(),
    }
}

/// The entry that intentions towards a service stand in.
fn of_destination(name: &str) -> WatchKey {
    WatchKey::ConfigEntry(Kind::ServiceIntentions, folded(name))
}
