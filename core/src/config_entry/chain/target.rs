//! Where a chain leads: instances of a service, or a subset of them, in a datacenter.

use serde_json::Value;

use crate::api::render::json::Json;
use crate::config_entry::free;

/// One end of a chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Target {
    pub(super) service: String,
    /// Empty: all instances.
    pub(super) subset: String,
    pub(super) datacenter: String,
    /// Another cluster that the service was imported from.
    pub(super) peer: String,
    /// How other datacenters are reached; empty: as proxies like.
    pub(super) mesh_gateway: String,
    /// What makes up the subset, as its resolver says.
    pub(super) definition: Option<Value>,
    /// The name that clients ask for in TLS when the service is none of the mesh.
    pub(super) external_sni: String,
    /// The name that clients ask for in TLS otherwise.
    pub(super) sni: String,
}

impl Target {
    /// Names it within a chain.
    pub(super) fn id(&self) -> String {
        let place = if self.peer.is_empty() { &self.datacenter } else { &self.peer };
        match self.subset.as_str() {
            "" => format!("{}.default.{place}", self.service),
            subset => format!("{subset}.{}.default.{place}", self.service),
        }
    }

    /// The same with what is given in place of what there is; another service has other subsets.
    pub(super) fn moved(&self, service: &str, subset: &str, datacenter: &str, peer: &str) -> Target {
        let mut to = Target {
            service: self.service.clone(),
            subset: self.subset.clone(),
            datacenter: self.datacenter.clone(),
            peer: self.peer.clone(),
            ..Target::default()
        };
        if !service.is_empty() && service != self.service {
            service.clone_into(&mut to.service);
            to.subset.clear();
        }
        if !subset.is_empty() {
            subset.clone_into(&mut to.subset);
        }
        if !datacenter.is_empty() {
            datacenter.clone_into(&mut to.datacenter);
        }
        if !peer.is_empty() {
            peer.clone_into(&mut to.peer);
        }
        to
    }

    pub(super) fn write(&self, json: &mut Json) {
        json.open(b'{');
        json.key("ID");
        json.string(&self.id());
        json.key("Service");
        json.string(&self.service);
        if !self.subset.is_empty() {
            json.key("ServiceSubset");
            json.string(&self.subset);
        }
        json.key("Namespace");
        json.string("default");
        json.key("Datacenter");
        json.string(&self.datacenter);
        if !self.peer.is_empty() {
            json.key("Peer");
            json.string(&self.peer);
        }
        json.key("MeshGateway");
        json.open(b'{');
        if !self.mesh_gateway.is_empty() {
            json.key("Mode");
            json.string(&self.mesh_gateway);
        }
        json.close(b'}');
        json.key("Subset");
        match &self.definition {
            Some(definition) => free(json, definition),
            None => json.raw(b"{}"),
        }
        if !self.external_sni.is_empty() {
            json.key("External");
            json.flag(true);
        }
        json.key("SNI");
        json.string(if self.external_sni.is_empty() { &self.sni } else { &self.external_sni });
        json.key("Name");
        json.string(&self.sni);
        json.close(b'}');
    }
}
