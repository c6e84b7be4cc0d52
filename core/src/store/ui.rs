//! What the user interface shows: nodes, services and gateways with all that belongs to them.

use std::sync::Arc;

use super::Store;
use super::gateways::GatewayService;
use super::instances::Instance;
use super::intentions::{Decision, Side};
use super::model::{Check, Node, Service, ServiceKind};
use super::sessions::folded;
use crate::Text;

/// A node with everything on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiNode {
    /// The node.
    pub node: Arc<Node>,
    /// Its services in the order of their ids.
    pub services: Vec<Arc<Service>>,
    /// Its checks in the order of their ids.
    pub checks: Vec<Arc<Check>>,
}

/// A service of a gateway with its instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiGateway {
    /// The service.
    pub service: GatewayService,
    /// Its instances.
    pub instances: Vec<Arc<Instance>>,
}

/// The services around one, by name, with their instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UiTopology {
    /// What the service speaks.
    pub protocol: Text,
    /// Those that it speaks to.
    pub upstreams: Vec<UiNeighbour>,
    /// Those that speak to it.
    pub downstreams: Vec<UiNeighbour>,
}

/// A service beside another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiNeighbour {
    /// Its name.
    pub name: Text,
    /// Its instances.
    pub instances: Vec<Arc<Instance>>,
    /// Whether they may speak in this direction.
    pub decision: Decision,
}

impl Store {
    /// All nodes, or one.
    pub(super) fn ui_nodes(&self, name: Option<&str>) -> Vec<UiNode> {
        let nodes: Vec<&Arc<Node>> = match name {
            Some(name) => self.nodes.get(&folded(name)).map(|entry| &entry.row).into_iter().collect(),
            None => self.nodes.all().map(|entry| &entry.row).collect(),
        };
        nodes
            .into_iter()
            .map(|node| UiNode {
                node: Arc::clone(node),
                services: self.node_services(&node.name),
                checks: self.node_checks(&node.name),
            })
            .collect()
    }

    /// The services of a gateway.
    pub(super) fn ui_gateway(&self, gateway: &str) -> Vec<UiGateway> {
        let services = self.gateway_services(gateway).into_iter();
        services
            .map(|service| UiGateway { instances: self.instances_of(&service.service), service })
            .collect()
    }

    /// Who speaks to whom, as the proxies are registered.
    pub(super) fn ui_topology(&self, service: &str) -> UiTopology {
        let wanted = folded(service);
        let mut upstreams = std::collections::BTreeSet::new();
        let mut downstreams = std::collections::BTreeSet::new();
        for instance in self.all_instances() {
            if instance.service.kind != ServiceKind::ConnectProxy {
                continue;
            }
            let Ok(proxy) = serde_json::from_str::<serde_json::Value>(&instance.service.proxy) else {
                continue;
            };
            let Some(own) = proxy["DestinationServiceName"].as_str() else { continue };
            let to = proxy["Upstreams"].as_array().into_iter().flatten();
            let to = to.filter_map(|upstream| upstream["DestinationName"].as_str());
            for name in to {
                if folded(own) == wanted {
                    upstreams.insert(Text::new(name));
                }
                if folded(name) == wanted {
                    downstreams.insert(Text::new(own));
                }
            }
        }
        let neighbours = |names: std::collections::BTreeSet<Text>, side: Side| {
            let with = |name: Text| UiNeighbour {
                instances: self.instances_of(&name),
                decision: match side {
                    Side::Source => self.may_speak(&name, service),
                    Side::Destination => self.may_speak(service, &name),
                },
                name,
            };
            names.into_iter().map(with).collect()
        };
        UiTopology {
            protocol: self.config.protocol(service).into(),
            upstreams: neighbours(upstreams, Side::Destination),
            downstreams: neighbours(downstreams, Side::Source),
        }
    }
}
