//! What the agent itself has registered: the truth that the catalog is repaired towards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::definition::CheckDefinition;
use super::{AgentView, CheckKind};
use crate::Text;
use crate::ids::OpId;
use crate::store::model::{Check, Health, Service};
use crate::time::Mono;

/// Services and checks with all that is known about them besides what clients see.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    view: AgentView,
    origins: BTreeMap<Text, Origin>,
    runs: BTreeMap<Text, Run>,
    /// Checks by service id; the node's own under the empty id. No empty sets.
    checks_of: BTreeMap<Text, BTreeSet<Text>>,
    /// Ids of alias checks that stand for something on this node.
    aliases: BTreeSet<Text>,
}

/// Where a service comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// It is defined by a configuration file, so it is not persisted.
    pub(super) from_file: bool,
    /// The service that it is the sidecar of, and is removed with.
    pub(super) sidecar_of: Option<Text>,
}

/// How a check is run, and how that goes.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) definition: CheckDefinition,
    pub(super) from_file: bool,
    /// The probe that is under way; results of others are stale.
    pub(super) op: Option<OpId>,
    /// Consecutive results that were not critical. Starts full, so that the first result counts at once.
    pub(super) successes: u32,
    /// Consecutive results that were critical. Starts full as well.
    pub(super) failures: u32,
    /// Since when it has been critical without interruption.
    pub(super) critical_since: Option<Mono>,
    /// What the client last said about a TTL check.
    pub(super) last_output: Text,
    /// Until when the persisted state of a TTL check stands for it.
    pub(super) saved: Option<(Health, Mono)>,
}

impl Run {
    pub(super) fn new(definition: CheckDefinition, from_file: bool) -> Run {
        Run {
            successes: definition.success_before_passing,
            failures: definition.failures_before_critical,
            definition,
            from_file,
            op: None,
            critical_since: None,
            last_output: Text::default(),
            saved: None,
        }
    }

    /// The node that an alias check stands for, if that is another one than its own.
    pub(super) fn other_node(&self, own: &str) -> Option<&Text> {
        match &self.definition.kind {
            CheckKind::Alias { node, .. } => {
                (!node.is_empty() && !node.eq_ignore_ascii_case(own)).then_some(node)
            }
            _ => None,
        }
    }
}

impl Local {
    pub(super) fn view(&self) -> AgentView {
        self.view.clone()
    }

    pub(super) fn service(&self, id: &str) -> Option<&Arc<Service>> {
        self.view.services.get(id)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = (&Text, &Arc<Service>)> {
        self.view.services.iter()
    }

    pub(super) fn check(&self, id: &str) -> Option<&Arc<Check>> {
        self.view.checks.get(id)
    }

    pub(super) fn checks(&self) -> impl Iterator<Item = (&Text, &Arc<Check>)> {
        self.view.checks.iter()
    }

    pub(super) fn origin(&self, id: &str) -> Option<&Origin> {
        self.origins.get(id)
    }

    pub(super) fn run(&self, id: &str) -> Option<&Run> {
        self.runs.get(id)
    }

    pub(super) fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.get_mut(id)
    }

    /// Ids of the checks of a service, or of the node for the empty id.
    pub(super) fn checks_of(&self, service_id: &str) -> impl Iterator<Item = &Text> {
        self.checks_of.get(service_id).into_iter().flatten()
    }

    /// The sidecar of a service, if it was registered with one.
    pub(super) fn sidecar_of(&self, service_id: &str) -> Option<Text> {
        let id = Text::from(format!("{service_id}-sidecar-proxy"));
        self.origins.get(&id).is_some_and(|o| o.sidecar_of.as_deref() == Some(service_id)).then_some(id)
    }

    /// Node and service that a check stands for, if it is an alias of something on this node.
    pub(super) fn alias(&self, id: &Text) -> Option<(&Text, &Text)> {
        match &self.runs.get(id)?.definition.kind {
            CheckKind::Alias { node, service } if self.aliases.contains(id) => Some((node, service)),
            _ => None,
        }
    }

    /// Ids of alias checks that stand for something on this node.
    pub(super) fn aliases(&self) -> Vec<Text> {
        self.aliases.iter().cloned().collect()
    }

    pub(super) fn has_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    pub(super) fn services_len(&self) -> usize {
        self.origins.len()
    }

    pub(super) fn checks_len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn put_service(&mut self, service: Service, origin: Origin) {
        // Clients see a service's name and tags in its checks.
        for id in self.checks_of(&service.id).cloned().collect::<Vec<_>>() {
            let check = Arc::make_mut(self.view.checks.get_mut(&id).expect("indexed checks exist"));
            check.service_name.clone_from(&service.service);
            check.service_tags.clone_from(&service.tags);
        }
        self.origins.insert(service.id.clone(), origin);
        self.view.services.insert(service.id.clone(), Arc::new(service));
    }

    /// Removes a service; its checks must be gone.
    pub(super) fn remove_service(&mut self, id: &str) {
        assert!(!self.checks_of.contains_key(id), "a service outlives its checks");
        self.view.services.remove(id);
        self.origins.remove(id);
    }

    pub(super) fn put_check(&mut self, check: Check, run: Run) {
        assert!(
            check.service_id.is_empty() || self.service(&check.service_id).is_some(),
            "checked by the caller"
        );
        if let Some(former) = self.view.checks.get(&check.id).map(|former| former.service_id.clone()) {
            self.unindex(&former, &check.id);
        }
        self.checks_of.entry(check.service_id.clone()).or_default().insert(check.id.clone());
        match run.definition.kind {
            CheckKind::Alias { .. } if run.other_node(&check.node).is_none() => {
                self.aliases.insert(check.id.clone())
            }
            _ => self.aliases.remove(&check.id),
        };
        self.runs.insert(check.id.clone(), run);
        self.view.checks.insert(check.id.clone(), Arc::new(check));
    }

    pub(super) fn remove_check(&mut self, id: &str) -> Option<Run> {
        let check = self.view.checks.remove(id)?;
        self.unindex(&check.service_id, id);
        self.aliases.remove(id);
        self.runs.remove(id)
    }

    /// Changes state and output of a check.
    pub(super) fn set_check(&mut self, id: &str, status: Health, output: Text) {
        let check = Arc::make_mut(self.view.checks.get_mut(id).expect("only existing checks change"));
        check.status = status;
        check.output = output;
    }

    /// Takes over tags that the catalog's owner set (`EnableTagOverride`).
    pub(super) fn set_tags(&mut self, id: &str, tags: Vec<Text>) {
        let origin = self.origins[id].clone();
        let mut service = Service::clone(self.view.services.get(id).expect("every origin has its service"));
        service.tags = tags;
        self.put_service(service, origin);
    }

    fn unindex(&mut self, service_id: &str, check_id: &str) {
        if let Some(ids) = self.checks_of.get_mut(service_id) {
            ids.remove(check_id);
            if ids.is_empty() {
                self.checks_of.remove(service_id);
            }
        }
    }

    /// What must hold between two calls.
    #[cfg(test)]
    pub(super) fn invariants(&self) {
        assert!(self.view.services.keys().eq(self.origins.keys()));
        assert!(self.view.checks.keys().eq(self.runs.keys()));
        let indexed = self.checks_of.values().flatten().collect::<BTreeSet<_>>();
        assert!(self.view.checks.keys().eq(indexed));
        for (service_id, ids) in &self.checks_of {
            assert!(!ids.is_empty());
            assert!(service_id.is_empty() || self.view.services.contains_key(service_id));
            assert!(ids.iter().all(|id| self.view.checks[id].service_id == *service_id));
        }
    }
}
