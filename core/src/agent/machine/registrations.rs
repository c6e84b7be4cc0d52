//! What the agent is asked to know: services, checks, maintenance.

use std::collections::BTreeSet;

use super::{Agent, Scripts};
use crate::Text;
use crate::agent::definition::{CheckDefinition, CheckKind, ServiceDefinition};
use crate::agent::local::{Origin, Run};
use crate::agent::sync::Item;
use crate::agent::{CallError, Reloaded, persist, proxy};
use crate::store::model::{Check, Health, Service};

const NODE_MAINTENANCE: &str = "_node_maintenance";
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
/// A later version may define more services than this allows; the limit keeps one agent from flooding the catalog.
const SERVICES_MAX: usize = 100_000;
/// See [`SERVICES_MAX`].
const CHECKS_MAX: usize = 200_000;

impl Agent {
    pub(super) fn put_service(
        &mut self,
        definition: ServiceDefinition,
        from_file: bool,
        replace_existing_checks: bool,
    ) -> Result<(), CallError> {
        let (service, checks) = complete(definition.service, definition.checks);
        let mut parts = vec![(service, checks, Origin { from_file, sidecar_of: None })];
        if let Some(sidecar) = definition.sidecar {
            let parent = parts[0].0.id.clone();
            let mut sidecar = *sidecar;
            if sidecar.service.port == 0 {
                sidecar.service.port = self.free_sidecar_port(&sidecar.service.id)?;
            }
            if sidecar.checks.is_empty() {
                sidecar.checks = proxy::default_checks(&parent, sidecar.service.port);
            }
            let (service, checks) = complete(sidecar.service, sidecar.checks);
            parts.push((service, checks, Origin { from_file, sidecar_of: Some(parent) }));
        }
        self.has_room(parts.len(), parts.iter().map(|part| part.1.len()).sum())?;
        for (_, checks, _) in &parts {
            checks.iter().try_for_each(|check| self.is_acceptable(check, from_file))?;
        }
        // Nothing is refused from here on.
        for (service, checks, origin) in parts {
            let id = service.id.clone();
            if replace_existing_checks {
                let kept = checks.iter().map(|check| check.id.clone()).collect::<Vec<_>>();
                let stale =
                    self.local.checks_of(&id).filter(|id| !kept.contains(id)).cloned().collect::<Vec<_>>();
                for check in stale.into_iter().filter(|check| !check.starts_with(SERVICE_MAINTENANCE)) {
                    self.drop_check(&check);
                    self.sync.mark(Item::Check(check));
                }
            }
            if !from_file {
                self.pending.unsaved.push(persist::put_service(&service, origin.sidecar_of.clone()));
            }
            self.local.put_service(service, origin);
            self.sync.mark(Item::Service(id));
            for check in checks {
                self.insert_check(check, from_file);
            }
        }
        self.pending.is_changed = true;
        Ok(())
    }

    fn free_sidecar_port(&self, id: &str) -> Result<u16, CallError> {
        if let Some(former) = self.local.service(id).filter(|service| service.port != 0) {
            return Ok(former.port);
        }
        let taken = self.local.services().map(|(_, service)| service.port).collect::<BTreeSet<_>>();
        proxy::SIDECAR_PORTS.into_iter().find(|port| !taken.contains(port)).ok_or_else(|| {
            let (from, to) = (proxy::SIDECAR_PORTS.start(), proxy::SIDECAR_PORTS.end());
            CallError::new(500, format!("none of the {from}-{to} ports is free for a sidecar; name one"))
        })
    }

    pub(super) fn has_room(&self, services: usize, checks: usize) -> Result<(), CallError> {
        let full = self.local.services_len() + services > SERVICES_MAX
            || self.local.checks_len() + checks > CHECKS_MAX;
        match full {
            true => Err(CallError::new(
                429,
                format!("this agent holds at most {SERVICES_MAX} services and {CHECKS_MAX} checks"),
            )),
            false => Ok(()),
        }
    }

    pub(super) fn is_acceptable(&self, check: &CheckDefinition, from_file: bool) -> Result<(), CallError> {
        let allowed = match self.config.scripts {
            Scripts::None => false,
            Scripts::OfFiles => from_file,
            Scripts::All => true,
        };
        if check.kind.is_script() && !allowed {
            let text = if from_file {
                "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or \
                 'enable_local_script_checks' to true"
            } else {
                "Scripts are disabled on this agent from remote calls; to enable, configure \
                 'enable_script_checks' to true"
            };
            return Err(CallError::new(500, text));
        }
        Ok(())
    }

    pub(super) fn put_check(
        &mut self,
        mut definition: CheckDefinition,
        from_file: bool,
    ) -> Result<(), CallError> {
        if definition.id.is_empty() {
            definition.id.clone_from(&definition.name);
        }
        if definition.id.is_empty() {
            return Err(CallError::new(500, "CheckID missing"));
        }
        if !definition.service_id.is_empty() && self.local.service(&definition.service_id).is_none() {
            let text = format!("ServiceID {:?} does not exist", definition.service_id.as_str());
            return Err(CallError::new(500, text));
        }
        self.has_room(0, 1)?;
        self.is_acceptable(&definition, from_file)?;
        self.insert_check(definition, from_file);
        Ok(())
    }

    /// Adds or replaces a check that is known to be fine. A former check of the same id hands on its state, so that
    /// registering again does not make a healthy service vanish.
    pub(super) fn insert_check(&mut self, definition: CheckDefinition, from_file: bool) {
        let id = definition.id.clone();
        let former = self.local.check(&id).cloned();
        let mut run = Run::new(definition.clone(), from_file);
        if let Some(former) = self.local.run(&id) {
            run.critical_since = former.critical_since;
            run.saved = former.saved;
            if former.definition.kind == definition.kind {
                // The schedule goes on, or registering again and again would keep the check from ever running.
                (run.op, run.successes, run.failures) = (former.op, former.successes, former.failures);
            } else {
                self.pending.dropped.push((id.clone(), former.op));
            }
        }
        let service = self.local.service(&definition.service_id);
        let status = former.as_ref().map(|check| check.status).or(definition.status).unwrap_or_default();
        let check = Check {
            node: self.config.node.clone(),
            id: id.clone(),
            name: definition.name.clone(),
            status,
            notes: definition.notes.clone(),
            output: former.map(|check| check.output.clone()).unwrap_or_default(),
            service_id: definition.service_id.clone(),
            service_name: service.map(|service| service.service.clone()).unwrap_or_default(),
            service_tags: service.map(|service| service.tags.clone()).unwrap_or_default(),
            kind: definition.kind.as_str().into(),
            interval: definition.interval_text(),
            timeout: definition.timeout_text(),
            ..Check::default()
        };
        if !from_file {
            self.pending.unsaved.push(persist::put_check(&definition));
        }
        self.local.put_check(check, run);
        self.sync.mark(Item::Check(id.clone()));
        self.pending.unarmed.push(id);
        self.pending.is_changed = true;
    }

    /// Removes a check from the agent's own state.
    pub(super) fn drop_check(&mut self, id: &Text) {
        let run = self.local.remove_check(id).expect("the caller has seen it");
        if run.saved.is_some() {
            self.pending.unsaved.push(persist::remove_ttl(id));
        }
        if !run.from_file {
            self.pending.unsaved.push(persist::remove_check(id));
        }
        self.pending.dropped.push((id.clone(), run.op));
        self.pending.is_changed = true;
    }

    pub(super) fn deregister_service(&mut self, id: &str) -> Result<(), CallError> {
        if id.is_empty() {
            return Err(CallError::new(500, "ServiceID missing"));
        }
        if self.local.service(id).is_none() {
            let text = format!(
                "Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name."
            );
            return Err(CallError::new(404, text));
        }
        self.remove_service(id);
        Ok(())
    }

    pub(super) fn remove_service(&mut self, id: &str) {
        if let Some(sidecar) = self.local.sidecar_of(id) {
            self.remove_service(&sidecar);
        }
        for check in self.local.checks_of(id).cloned().collect::<Vec<_>>() {
            self.drop_check(&check);
            // The catalog removes it together with its service.
            self.sync.forget(&Item::Check(check));
        }
        if self.local.origin(id).is_some_and(|origin| !origin.from_file) {
            self.pending.unsaved.push(persist::remove_service(id));
        }
        self.local.remove_service(id);
        self.sync.mark(Item::Service(id.into()));
        self.pending.is_changed = true;
    }

    /// Nothing is changed if anything is refused.
    pub(super) fn reload(
        &mut self,
        services: Vec<ServiceDefinition>,
        checks: Vec<CheckDefinition>,
        settings: Reloaded,
    ) -> Result<(), CallError> {
        // A definition may be refused for what the others before it have left, so they are tried one after another, and
        // all of that is taken back. These are all the parts that registrations change; nothing has left the agent yet.
        let before = (self.local.clone(), self.sync.clone(), self.pending.clone());
        let replaced = self.replace_files(services, checks);
        if replaced.is_err() {
            (self.local, self.sync, self.pending) = before;
            return replaced;
        }
        let Reloaded { node_meta, discard_check_output, check_update_interval, discovery_max_stale: _ } =
            settings;
        if self.config.node_meta != node_meta {
            self.config.node_meta = node_meta;
            self.sync.mark(Item::Node);
        }
        self.config.discard_check_output = discard_check_output;
        self.config.check_update_interval = check_update_interval;
        replaced
    }

    /// Puts definitions of files in the place of the former ones. On an error something may have changed.
    fn replace_files(
        &mut self,
        services: Vec<ServiceDefinition>,
        checks: Vec<CheckDefinition>,
    ) -> Result<(), CallError> {
        let sidecars = |definition: &ServiceDefinition| Some(definition.sidecar.as_ref()?.service.id.clone());
        let own = services.iter().map(|definition| definition.service.id.clone());
        let ids = own.chain(services.iter().filter_map(sidecars)).collect::<BTreeSet<_>>();
        let is_of_file = |id: &Text| self.local.origin(id).is_some_and(|origin| origin.from_file);
        let gone = |id: &&Text| is_of_file(id) && !ids.contains(*id);
        let stale = self.local.services().map(|(id, _)| id).filter(gone).cloned().collect::<Vec<_>>();
        for id in stale {
            // It may have gone as the sidecar of another one.
            if self.local.service(&id).is_some() {
                self.remove_service(&id);
            }
        }
        for id in ids.iter().filter(|id| self.local.origin(id).is_some_and(|origin| !origin.from_file)) {
            // Files win.
            self.pending.unsaved.push(persist::remove_service(id));
        }
        let (former, requested): (Vec<_>, Vec<_>) = {
            let all = self.local.checks().map(|(id, _)| id.clone()).collect::<Vec<_>>();
            all.into_iter().partition(|id| self.local.run(id).is_some_and(|run| run.from_file))
        };
        for id in &former {
            // Until it is defined again.
            self.local.run_mut(id).expect("just listed").from_file = false;
        }
        for definition in services {
            let name = definition.service.service.clone();
            self.put_service(definition, true, false).map_err(|error| {
                let text = format!("Failed to register service {:?}: {}", name.as_str(), error.text);
                CallError::new(error.status, text)
            })?;
        }
        for check in checks {
            let name = check.name.clone();
            self.put_check(check, true).map_err(|error| {
                CallError::new(error.status, format!("Failed to register check '{name}': {}", error.text))
            })?;
        }
        for id in former {
            let Some(run) = self.local.run_mut(&id).filter(|run| !run.from_file) else { continue };
            run.from_file = true;
            self.drop_check(&id);
            self.sync.mark(Item::Check(id));
        }
        for id in requested {
            if self.local.run(&id).is_some_and(|run| run.from_file) {
                self.pending.unsaved.push(persist::remove_check(&id));
            }
        }
        self.pending.is_changed = true;
        Ok(())
    }

    pub(super) fn maintain_node(&mut self, enable: bool, reason: &str) {
        self.maintain(NODE_MAINTENANCE.into(), "Node Maintenance Mode", "", enable, reason, "node");
    }

    pub(super) fn maintain_service(&mut self, id: &str, enable: bool, reason: &str) -> Result<(), CallError> {
        if id.is_empty() {
            return Err(CallError::new(400, "Missing service ID"));
        }
        if self.local.service(id).is_none() {
            return Err(CallError::new(404, format!("No service registered with ID {id:?}")));
        }
        let check = format!("{SERVICE_MAINTENANCE}{id}").into();
        self.maintain(check, "Service Maintenance Mode", id, enable, reason, "service");
        Ok(())
    }

    fn maintain(
        &mut self,
        check: Text,
        name: &str,
        service_id: &str,
        enable: bool,
        reason: &str,
        what: &str,
    ) {
        // A second request does not change the reason.
        if self.local.check(&check).is_some() == enable {
            return;
        }
        if !enable {
            self.drop_check(&check);
            self.sync.mark(Item::Check(check));
            return;
        }
        let mut definition = CheckDefinition::new(check, name, CheckKind::Maintenance);
        definition.service_id = service_id.into();
        definition.status = Some(Health::Critical);
        definition.notes = match reason {
            "" => format!(
                "Maintenance mode is enabled for this {what}, but no reason was provided. This is a default message."
            )
            .into(),
            reason => reason.into(),
        };
        self.insert_check(definition, false);
    }
}

/// Fills in the ids and names of a service's checks.
fn complete(service: Service, mut checks: Vec<CheckDefinition>) -> (Service, Vec<CheckDefinition>) {
    let several = checks.len() > 1;
    for (at, check) in checks.iter_mut().enumerate() {
        if check.id.is_empty() {
            check.id = match several {
                true => format!("service:{}:{}", service.id, at + 1).into(),
                false => format!("service:{}", service.id).into(),
            };
        }
        if check.name.is_empty() {
            check.name = format!("Service '{}' check", service.service).into();
        }
        check.service_id.clone_from(&service.id);
    }
    (service, checks)
}
