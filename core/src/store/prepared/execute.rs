//! Running a prepared query: which query it is, which instances it finds, in which order.
//!
//! Source: Consul's documentation of the HTTP API, «Execute Prepared Query», and what Consul answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::super::instances::Instance;
use super::super::model::{Health, Node};
use super::super::services::GroupKey;
use super::{PreparedQuery, ServiceQuery, template};
use crate::Text;
use crate::ids::Uuid;
use crate::rng::Rng;
use crate::store::Store;

/// Stands for the node of the agent that was asked.
const NEAR_AGENT: &str = "_agent";
/// Stands for the node that has the client's address.
const NEAR_ADDRESS: &str = "_ip";
/// The node that others are to be near to comes first if it is among so many of the first ones.
const OWN_PLACES: usize = 10;

/// What to run, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Execute {
    /// Identity or name.
    pub query: Text,
    /// Most instances that are wanted; `None`: all.
    pub limit: Option<u64>,
    /// The nearest to this node first, whatever the query says; empty: as the query says.
    pub near: Text,
    /// Only instances that take mesh traffic, whatever the query says.
    pub connect: bool,
    /// The node of the agent that was asked.
    pub agent: Text,
    /// The client's address, as far as it is known.
    pub client: Text,
    /// Decides the order of instances that are equally good.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Name of the service that was looked for.
    pub service: Text,
    /// What was found, in the order of preference.
    pub instances: Vec<Arc<Instance>>,
    /// Time to live over DNS, as it was written.
    pub dns_ttl: Text,
    /// How many other datacenters were asked.
    pub failovers: u64,
    /// The query, if nothing was found and it says where else to look.
    pub failover: Option<Arc<PreparedQuery>>,
}

/// A query of another datacenter, where it has found nothing, to be run here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lent {
    /// The query, filled in if it is a template.
    pub query: PreparedQuery,
    /// How to run it.
    pub run: Execute,
    /// So many other datacenters have been asked, this one included.
    pub failovers: u64,
}

/// Why there is no such query.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unresolved {
    /// Neither a query nor a template fits.
    #[error("Query not found")]
    Unknown,
    /// An identity says nothing that could be filled into a template.
    #[error("prepared query templates can only be resolved up by name, not by ID")]
    TemplateById,
    /// The template makes no sense for this name.
    #[error("{0}")]
    Template(String),
}

impl Store {
    /// The query that is meant: by identity, by name, or the template for that name with its fields filled in.
    ///
    /// # Errors
    /// [`Unresolved`] when there is none.
    pub fn resolve_prepared(&self, id_or_name: &str) -> Result<Arc<PreparedQuery>, Unresolved> {
        let table = &self.prepared;
        if let Some(query) = Uuid::parse(id_or_name).and_then(|id| table.get(id)) {
            return if query.is_template() { Err(Unresolved::TemplateById) } else { Ok(Arc::clone(query)) };
        }
        if let Some(query) = table.named(id_or_name) {
            return Ok(Arc::clone(query));
        }
        let template = table.template_for(id_or_name).ok_or(Unresolved::Unknown)?;
        template::render(template, id_or_name).map(Arc::new).map_err(Unresolved::Template)
    }

    /// Runs a query.
    ///
    /// # Errors
    /// [`Unresolved`] when there is none.
    pub fn execute_prepared(&self, run: &Execute) -> Result<Executed, Unresolved> {
        let query = self.resolve_prepared(&run.query)?;
        let mut done = self.run_prepared(&query, run);
        if done.instances.is_empty() && query.service.failover.is_wanted() {
            done.failover = Some(query);
        }
        Ok(done)
    }

    /// Runs a query of another datacenter.
    #[must_use]
    pub fn execute_lent(&self, lent: &Lent) -> Executed {
        Executed { failovers: lent.failovers, ..self.run_prepared(&lent.query, &lent.run) }
    }

    fn run_prepared(&self, query: &PreparedQuery, run: &Execute) -> Executed {
        let service = &query.service;
        let group = GroupKey::new(&service.service, service.connect || run.connect);
        let group = self.services.group(&group);
        let mut instances: Vec<Arc<Instance>> = group
            .into_iter()
            .flat_map(|group| group.instances())
            .filter(|instance| service.finds(instance))
            .cloned()
            .collect();
        Rng::from_seed(run.seed).shuffle(&mut instances);
        let near = self.near(run, service);
        if !near.is_empty() {
            instances = self.nearest_first(near, &instances, |instance| &instance.node.name);
            let first = instances.iter().take(OWN_PLACES);
            let own = |instance: &Arc<Instance>| instance.node.name.eq_ignore_ascii_case(near);
            if let Some(at) = first.into_iter().position(own) {
                instances.swap(0, at);
            }
        }
        if let Some(limit) = run.limit.and_then(|limit| usize::try_from(limit).ok()) {
            instances.truncate(limit);
        }
        Executed {
            service: service.service.clone(),
            instances,
            dns_ttl: query.dns_ttl.clone(),
            failovers: 0,
            failover: None,
        }
    }

    /// The node that instances are to be near to; empty: none.
    fn near<'a>(&'a self, run: &'a Execute, service: &'a ServiceQuery) -> &'a str {
        let near = if run.near.is_empty() { &service.near } else { &run.near };
        match near.as_str() {
            NEAR_AGENT => &run.agent,
            NEAR_ADDRESS if run.client.is_empty() => "",
            NEAR_ADDRESS => {
                let has_address = |node: &&Arc<Node>| node.address == run.client;
                self.nodes().find(has_address).map_or("", |node| &node.name)
            }
            near => near,
        }
    }
}

impl ServiceQuery {
    fn finds(&self, instance: &Instance) -> bool {
        let worst = if self.only_passing { Health::Passing } else { Health::Warning };
        let ignored = |id: &Text| self.ignore_check_ids.iter().flatten().any(|ignored| ignored == id);
        instance.checks.iter().all(|check| check.status <= worst || ignored(&check.id))
            && has_pairs(&instance.node.meta, self.node_meta.as_ref())
            && has_pairs(&instance.service.meta, self.service_meta.as_ref())
            && self.tags.iter().flatten().all(|tag| match tag.strip_prefix('!') {
                Some(unwanted) => !instance.has_tags(&[unwanted.into()]),
                None => instance.has_tags(std::slice::from_ref(tag)),
            })
    }
}

fn has_pairs(meta: &BTreeMap<Text, Text>, pairs: Option<&BTreeMap<Text, Text>>) -> bool {
    pairs.into_iter().flatten().all(|(key, value)| meta.get(key) == Some(value))
}
