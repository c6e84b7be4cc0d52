//! The agent's machine: takes calls, runs checks, keeps the catalog in step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::checks;
use super::definition::{CheckDefinition, CheckKind, ServiceDefinition};
use super::local::{Local, Origin, Run};
use super::persist::{self, BadPersisted, Change, Saved, SavedTtl};
use super::proxy;
use super::sync::{Item, Sync, scale};
use super::{AgentView, Call, CallDone, CallError, CatalogState, Effect, OP_BASE, ProbeOutcome, Timer};
use crate::Text;
use crate::cx;
use crate::ids::{OpId, Uuid};
use crate::rng::Rng;
use crate::store::command::Response;
use crate::store::model::{Check, Health, Service};
use crate::time::{Now, Wall};

type Cx<'a> = cx::Cx<'a, Effect>;

const NODE_MAINTENANCE: &str = "_node_maintenance";
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
/// A later version may define more services than this allows; the limit keeps one agent from flooding the catalog.
const SERVICES_MAX: usize = 100_000;
/// See [`SERVICES_MAX`].
const CHECKS_MAX: usize = 200_000;
/// Words around what a peer sent, in bytes at most; URLs are longer than one thinks.
const OUTPUT_AROUND: usize = 4096;
/// A full synchronisation after a new leader appeared is spread over this time, times the cluster's scale.
const SPREAD_AFTER_ELECTION: Duration = Duration::from_secs(3);

/// What an agent is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node.
    pub node: Text,
    /// Identity of the agent.
    pub id: Option<Uuid>,
    /// Address that discovery answers with.
    pub address: Text,
    /// Datacenter.
    pub datacenter: Text,
    /// Further addresses of the node.
    pub tagged_addresses: BTreeMap<Text, Text>,
    /// Metadata of the node.
    pub node_meta: BTreeMap<Text, Text>,
    /// Services of configuration files, in order; a later one replaces an earlier one of the same id.
    pub services: Vec<ServiceDefinition>,
    /// Checks of configuration files.
    pub checks: Vec<CheckDefinition>,
    /// How long a check's output may differ from the catalog's while its state does not; zero: not at all.
    pub check_update_interval: Duration,
    /// Outputs of checks are dropped.
    pub discard_check_output: bool,
    /// Time between full synchronisations, before jitter and scaling.
    pub sync_interval: Duration,
    /// Whether registrations survive a restart.
    pub persist: bool,
}

impl Default for Config {
    /// Consul's defaults; names and addresses are empty.
    fn default() -> Self {
        Config {
            node: Text::default(),
            id: None,
            address: Text::default(),
            datacenter: Text::default(),
            tagged_addresses: BTreeMap::new(),
            node_meta: BTreeMap::new(),
            services: Vec::new(),
            checks: Vec::new(),
            check_update_interval: Duration::from_secs(300),
            discard_check_output: false,
            sync_interval: Duration::from_secs(60),
            persist: true,
        }
    }
}

/// Why an agent cannot start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadStart {
    /// What it persisted cannot be read.
    #[error(transparent)]
    Persisted(#[from] BadPersisted),
    /// A service of a configuration file is refused.
    #[error("Failed to register service {name:?}: {text}")]
    Service {
        /// Its name.
        name: Text,
        /// Why.
        text: String,
    },
    /// A check of a configuration file is refused.
    #[error("Failed to register check '{name}': {text}")]
    Check {
        /// Its name.
        name: Text,
        /// Why.
        text: String,
    },
}

/// Consequences of a call, settled at its end. Empty between calls, but for those of [`Agent::new`].
#[derive(Debug, Default)]
struct Pending {
    /// Changes to persist.
    unsaved: Vec<Change>,
    /// Checks whose timers and probe are no longer wanted.
    dropped: Vec<(Text, Option<OpId>)>,
    /// Checks whose timers are to be set.
    unarmed: Vec<Text>,
    /// Whether the view differs from what readers see.
    is_changed: bool,
}

/// The agent's own state, its checks, and its share in the catalog.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    rng: Rng,
    local: Local,
    sync: Sync,
    /// Persisted TTL states that wait for [`Agent::start`].
    restored: BTreeMap<Text, SavedTtl>,
    /// What the call under way has yet to settle.
    pending: Pending,
    /// Checks by the probes that are under way for them.
    probes: BTreeMap<OpId, Text>,
    view: Arc<AgentView>,
    tickets: u64,
    ops: u64,
    cluster_size: u32,
    leader_known: bool,
}

impl Agent {
    /// An agent with the definitions of its configuration and what it persisted. Nothing runs before [`Agent::start`].
    ///
    /// # Errors
    /// A definition makes no sense together with the others, or something persisted cannot be read.
    pub fn new(config: Config, persisted: &[(Text, Bytes)], rng: Rng, now: Now) -> Result<Agent, BadStart> {
        let saved = Saved::read(persisted)?;
        let mut agent = Agent {
            rng,
            local: Local::default(),
            sync: Sync::default(),
            restored: saved.ttls.into_iter().filter(|(_, ttl)| ttl.remaining(now.wall).is_some()).collect(),
            pending: Pending::default(),
            probes: BTreeMap::new(),
            view: Arc::default(),
            tickets: 0,
            ops: OP_BASE,
            cluster_size: 1,
            leader_known: false,
            config,
        };
        for definition in std::mem::take(&mut agent.config.services) {
            let name = definition.service.service.clone();
            agent
                .put_service(definition, true, false)
                .map_err(|error| BadStart::Service { name, text: error.text })?;
        }
        for saved in saved.services {
            // A configuration file that defines the same service wins; what was persisted is stale.
            if agent.local.origin(&saved.service.id).is_some_and(|origin| origin.from_file) {
                agent.pending.unsaved.push(persist::remove_service(&saved.service.id));
            } else {
                agent
                    .local
                    .put_service(saved.service, Origin { from_file: false, sidecar_of: saved.sidecar_of });
            }
        }
        for definition in std::mem::take(&mut agent.config.checks) {
            let name = definition.name.clone();
            agent.put_check(definition, true).map_err(|error| BadStart::Check { name, text: error.text })?;
        }
        for saved in saved.checks {
            let id = saved.definition.id.clone();
            let is_of_file = agent.local.run(&id).is_some_and(|run| run.from_file);
            if is_of_file || agent.put_check(saved.definition, false).is_err() {
                agent.pending.unsaved.push(persist::remove_check(&id));
            }
        }
        for (id, ttl) in agent.restored.clone() {
            match agent.local.run(&id).map(|run| &run.definition.kind) {
                Some(CheckKind::Ttl { .. }) => {
                    let run = agent.local.run_mut(&id).expect("just looked at");
                    run.last_output.clone_from(&ttl.output);
                    agent.local.set_check(&id, ttl.status, ttl.output);
                }
                _ => agent.pending.unsaved.push(persist::remove_ttl(&id)),
            }
        }
        agent.view = Arc::new(agent.local.view());
        Ok(agent)
    }

    /// Arms all timers. The first synchronisation begins when a leader is known.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        self.settle(cx);
        self.restored.clear();
    }

    /// What readers see.
    #[must_use]
    pub fn view(&self) -> Arc<AgentView> {
        Arc::clone(&self.view)
    }

    /// Whether the catalog is believed to have everything as the agent does.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.sync.is_clean()
    }

    /// How many nodes the datacenter has; synchronisation is stretched accordingly.
    pub fn set_cluster_size(&mut self, nodes: u32) {
        self.cluster_size = nodes;
    }

    /// Changes the agent's own state.
    ///
    /// # Errors
    /// Status and text of the HTTP answer; nothing was changed.
    pub fn call(&mut self, cx: &mut Cx<'_>, call: Call) -> Result<CallDone, CallError> {
        match call {
            Call::RegisterService { definition, replace_existing_checks } => {
                self.put_service(*definition, false, replace_existing_checks)?;
            }
            Call::DeregisterService { id } => self.deregister_service(&id)?,
            Call::RegisterCheck { definition } => self.put_check(*definition, false)?,
            Call::DeregisterCheck { id } => {
                if id.is_empty() {
                    return Err(CallError::new(500, "CheckID missing"));
                }
                if self.local.check(&id).is_none() {
                    return Err(CallError::new(
                        404,
                        format!(
                            "Unknown check ID {:?}. Ensure that the check ID is passed, not the check name.",
                            id.as_str()
                        ),
                    ));
                }
                self.drop_check(&id);
                self.sync.mark(Item::Check(id));
            }
            Call::UpdateTtl { id, status, output } => {
                self.update_ttl(cx, &id, status, &output)?;
                // The state of a TTL check is worth less than a wait for the disk: it is reported again soon.
                self.settle(cx);
                return Ok(CallDone::Now);
            }
            Call::NodeMaintenance { enable, reason } => self.maintain_node(enable, &reason),
            Call::ServiceMaintenance { id, enable, reason } => self.maintain_service(&id, enable, &reason)?,
        }
        Ok(self.settle(cx))
    }

    /// A timer of the agent fired.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>, timer: Timer) {
        match timer {
            Timer::Run(id) => self.run(cx, &id),
            Timer::Ttl(id) => {
                if let Some(run) = self.local.run_mut(&id) {
                    let output = checks::expired(&run.last_output);
                    if run.saved.take().is_some() {
                        self.pending.unsaved.push(persist::remove_ttl(&id));
                    }
                    self.set_check(cx, &id, Health::Critical, output);
                }
            }
            Timer::FullSync => self.fetch(cx),
            Timer::Retry => {
                self.sync.paused = false;
                self.fetch(cx);
            }
            Timer::Output(id) => {
                if self.local.check(&id).is_some() {
                    self.sync.mark(Item::Check(id));
                }
            }
            Timer::Deregister(id) => {
                let service = self.local.check(&id).map(|check| check.service_id.clone()).unwrap_or_default();
                if !service.is_empty() && self.local.service(&service).is_some() {
                    self.remove_service(&service);
                }
            }
        }
        self.settle(cx);
    }

    /// A probe ended.
    pub fn on_probed(&mut self, cx: &mut Cx<'_>, op: OpId, outcome: ProbeOutcome) {
        let Some(id) = self.probes.remove(&op) else { return };
        let run = self.local.run_mut(&id).expect("probes of removed checks are forgotten");
        run.op = None;
        let limit = run.definition.output_max_size as usize;
        if let Some(interval) = checks::interval(&run.definition.kind) {
            cx.timers.set(cx::Timer::Agent(Timer::Run(id.clone())), cx.now.mono + interval);
        }
        if let Some(status) = checks::count(run, outcome.status) {
            // The probe cuts what a peer sent; the words around it are short.
            let output = checks::cut(&outcome.output, limit.saturating_add(OUTPUT_AROUND));
            self.set_check(cx, &id, status, output);
        }
        self.settle(cx);
    }

    /// A proposal ended: with the store's answer, or with words about why it may not have reached the log.
    pub fn on_proposed(&mut self, cx: &mut Cx<'_>, ticket: u64, result: Result<Response, String>) {
        match result {
            Ok(Response::Done | Response::Held(_) | Response::SessionCreated(_)) => {
                self.sync.finished(ticket, true);
                self.sync.succeeded();
            }
            // The items are not tried again at once, they would be refused again; the next comparison decides.
            Ok(Response::Refused(_)) => {
                self.sync.finished(ticket, true);
                self.retry_later(cx, false);
            }
            Err(_) => {
                self.sync.finished(ticket, false);
                self.retry_later(cx, true);
            }
        }
        self.settle(cx);
    }

    /// The catalog was read; `None`: it could not be.
    pub fn on_catalog(&mut self, cx: &mut Cx<'_>, ticket: u64, catalog: Option<CatalogState>) {
        if self.sync.fetch != Some(ticket) {
            return;
        }
        self.sync.fetch = None;
        let Some(catalog) = catalog else {
            self.retry_later(cx, true);
            return;
        };
        let timers = &*cx.timers;
        let deferred = |id: &Text| timers.deadline(&cx::Timer::Agent(Timer::Output(id.clone()))).is_some();
        for (id, tags) in self.sync.compare(&catalog, &self.local, &self.config, deferred) {
            self.local.set_tags(&id, tags);
            self.pending.is_changed = true;
        }
        let interval = self.config.sync_interval;
        let stretched = interval * scale(self.cluster_size);
        let at = cx.now.mono + interval + self.rng.duration_below(stretched);
        cx.timers.set(cx::Timer::Agent(Timer::FullSync), at);
        self.settle(cx);
    }

    /// A leader is known that was not known before.
    pub fn on_leader_known(&mut self, cx: &mut Cx<'_>) {
        let is_first = !std::mem::replace(&mut self.leader_known, true);
        if is_first {
            self.fetch(cx);
        } else if self.sync.paused {
            // What failed is tried again, but not by all agents at once.
            let spread = if self.cluster_size <= 1 { Duration::ZERO } else { SPREAD_AFTER_ELECTION };
            let at = cx.now.mono + self.rng.duration_below(spread * scale(self.cluster_size));
            let timer = cx::Timer::Agent(Timer::Retry);
            if cx.timers.deadline(&timer).is_none_or(|armed| at < armed) {
                cx.timers.set(timer, at);
            }
        }
        self.settle(cx);
    }

    fn fetch(&mut self, cx: &mut Cx<'_>) {
        if self.sync.fetch.is_none() {
            let ticket = self.ticket();
            self.sync.fetch = Some(ticket);
            cx.emit(Effect::FetchCatalog { ticket });
        }
    }

    fn retry_later(&mut self, cx: &mut Cx<'_>, pause: bool) {
        self.sync.paused |= pause;
        let timer = cx::Timer::Agent(Timer::Retry);
        if cx.timers.deadline(&timer).is_none() {
            let at = cx.now.mono + self.sync.retry_after(&mut self.rng);
            cx.timers.set(timer, at);
        }
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    // --- registrations ---

    fn put_service(
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
            checks.iter().try_for_each(|check| self.is_acceptable(check))?;
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

    fn has_room(&self, services: usize, checks: usize) -> Result<(), CallError> {
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

    fn is_acceptable(&self, check: &CheckDefinition) -> Result<(), CallError> {
        match &check.kind {
            CheckKind::Alias { node, .. }
                if !node.is_empty() && !node.eq_ignore_ascii_case(&self.config.node) =>
            {
                Err(CallError::new(
                    400,
                    "Invalid check: Alias checks of other nodes are not supported by this version",
                ))
            }
            CheckKind::Alias { .. }
            | CheckKind::Ttl { .. }
            | CheckKind::Http { .. }
            | CheckKind::Tcp { .. }
            | CheckKind::Maintenance => Ok(()),
        }
    }

    fn put_check(&mut self, mut definition: CheckDefinition, from_file: bool) -> Result<(), CallError> {
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
        self.is_acceptable(&definition)?;
        self.insert_check(definition, from_file);
        Ok(())
    }

    /// Adds or replaces a check that is known to be fine. A former check of the same id hands on its state, so that
    /// registering again does not make a healthy service vanish.
    fn insert_check(&mut self, definition: CheckDefinition, from_file: bool) {
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
    fn drop_check(&mut self, id: &Text) {
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

    fn deregister_service(&mut self, id: &str) -> Result<(), CallError> {
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

    fn remove_service(&mut self, id: &str) {
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

    fn maintain_node(&mut self, enable: bool, reason: &str) {
        self.maintain(NODE_MAINTENANCE.into(), "Node Maintenance Mode", "", enable, reason, "node");
    }

    fn maintain_service(&mut self, id: &str, enable: bool, reason: &str) -> Result<(), CallError> {
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

    // --- checks ---

    fn update_ttl(
        &mut self,
        cx: &mut Cx<'_>,
        id: &Text,
        status: Health,
        output: &str,
    ) -> Result<(), CallError> {
        let Some((run, ttl)) = self.local.run_mut(id).and_then(|run| match run.definition.kind {
            CheckKind::Ttl { ttl } => Some((run, ttl)),
            _ => None,
        }) else {
            return Err(CallError::new(
                500,
                format!("CheckID {:?} does not have associated TTL", id.as_str()),
            ));
        };
        let output = checks::cut(output, run.definition.output_max_size as usize);
        run.last_output.clone_from(&output);
        cx.timers.set(cx::Timer::Agent(Timer::Ttl(id.clone())), cx.now.mono + ttl);
        // What is persisted holds a quarter longer than the TTL, so that not every report needs a write.
        let is_covered =
            run.saved.is_some_and(|(saved, until)| saved == status && until >= cx.now.mono + ttl);
        if !is_covered {
            let holds = ttl + ttl / 4;
            run.saved = Some((status, cx.now.mono + holds));
            let millis = u64::try_from(holds.as_millis()).unwrap_or(u64::MAX);
            let until = Wall(cx.now.wall.0.saturating_add(millis));
            self.pending
                .unsaved
                .push(persist::put_ttl(id, &SavedTtl { status, output: output.clone(), until }));
        }
        self.set_check(cx, id, status, output);
        Ok(())
    }

    fn run(&mut self, cx: &mut Cx<'_>, id: &Text) {
        let Some(run) = self.local.run_mut(id) else { return };
        let Some(probe) = checks::probe(run) else { return };
        assert!(run.op.is_none(), "a check is armed again only when its probe has ended");
        let op = OpId(self.ops);
        self.ops += 1;
        run.op = Some(op);
        self.probes.insert(op, id.clone());
        cx.emit(Effect::Probe { op, probe });
    }

    /// Gives a check a new state and output. A new state goes to the catalog at once, a new output alone may wait.
    fn set_check(&mut self, cx: &mut Cx<'_>, id: &Text, status: Health, output: Text) {
        let output = if self.config.discard_check_output { Text::default() } else { output };
        let former = self.local.check(id).expect("only existing checks change");
        let (is_new_status, is_new_output) = (former.status != status, former.output != output);
        if !is_new_status && !is_new_output {
            return;
        }
        self.local.set_check(id, status, output);
        self.pending.is_changed = true;
        let timer = cx::Timer::Agent(Timer::Output(id.clone()));
        if is_new_status {
            cx.timers.cancel(&timer);
            self.sync.mark(Item::Check(id.clone()));
            self.watch_critical(cx, id);
        } else if self.config.check_update_interval.is_zero() {
            self.sync.mark(Item::Check(id.clone()));
        } else if cx.timers.deadline(&timer).is_none() {
            let interval = self.config.check_update_interval;
            cx.timers.set(timer, cx.now.mono + interval / 2 + self.rng.duration_below(interval));
        }
    }

    /// Keeps account of how long a check has been critical.
    fn watch_critical(&mut self, cx: &mut Cx<'_>, id: &Text) {
        let check = self.local.check(id).expect("the caller has seen it");
        let (is_critical, has_service) = (check.status == Health::Critical, !check.service_id.is_empty());
        let run = self.local.run_mut(id).expect("every check has a run");
        run.critical_since = is_critical.then(|| run.critical_since.unwrap_or(cx.now.mono));
        let timer = cx::Timer::Agent(Timer::Deregister(id.clone()));
        match (run.critical_since, run.definition.deregister_after) {
            (Some(since), Some(after)) if has_service => cx.timers.set(timer, since + after),
            _ => cx.timers.cancel(&timer),
        }
    }

    /// Sets the timers of a check that was registered, or registered again.
    fn arm(&mut self, cx: &mut Cx<'_>, id: &Text) {
        let Some(run) = self.local.run(id) else { return };
        let ttl = match run.definition.kind {
            CheckKind::Ttl { ttl } => Some(ttl),
            _ => None,
        };
        if let Some(ttl) = ttl {
            let remaining =
                self.restored.get(id).and_then(|saved| saved.remaining(cx.now.wall)).unwrap_or(ttl);
            cx.timers
                .set(cx::Timer::Agent(Timer::Ttl(id.clone())), cx.now.mono + remaining.min(ttl + ttl / 4));
        }
        let timer = cx::Timer::Agent(Timer::Run(id.clone()));
        if let Some(interval) = checks::interval(&run.definition.kind)
            && run.op.is_none()
            && cx.timers.deadline(&timer).is_none()
        {
            cx.timers.set(timer, cx.now.mono + self.rng.duration_below(interval));
        }
        self.watch_critical(cx, id);
    }

    fn update_aliases(&mut self, cx: &mut Cx<'_>) {
        for id in self.local.aliases() {
            let (status, output) = checks::alias(&self.local, &id);
            self.set_check(cx, &id, status, output);
        }
    }

    /// Carries out what a call has left behind.
    fn settle(&mut self, cx: &mut Cx<'_>) -> CallDone {
        for (id, op) in std::mem::take(&mut self.pending.dropped) {
            for timer in [Timer::Run, Timer::Ttl, Timer::Output, Timer::Deregister] {
                cx.timers.cancel(&cx::Timer::Agent(timer(id.clone())));
            }
            if let Some(op) = op {
                self.probes.remove(&op);
                cx.emit(Effect::Cancel { op });
            }
        }
        for id in std::mem::take(&mut self.pending.unarmed) {
            self.arm(cx, &id);
        }
        if self.pending.is_changed && self.local.has_aliases() {
            self.update_aliases(cx);
        }
        let mut done = CallDone::Now;
        let changes = std::mem::take(&mut self.pending.unsaved);
        if self.config.persist && !changes.is_empty() {
            let ticket = self.ticket();
            cx.emit(Effect::Persist { ticket, changes });
            done = CallDone::WhenPersisted(ticket);
        }
        loop {
            let ticket = self.tickets + 1;
            let Some(command) = self.sync.next(ticket, &self.local, &self.config) else { break };
            self.tickets = ticket;
            cx.emit(Effect::Propose { ticket, command });
        }
        if std::mem::take(&mut self.pending.is_changed) {
            self.view = Arc::new(self.local.view());
            cx.emit(Effect::Changed);
        }
        done
    }

    /// What must hold between two calls.
    #[cfg(test)]
    fn invariants(&self) {
        self.local.invariants();
        self.sync.invariants();
        for (op, id) in &self.probes {
            assert_eq!(self.local.run(id).and_then(|run| run.op), Some(*op));
        }
        assert_eq!(
            self.local.checks().filter(|(id, _)| self.local.run(id).unwrap().op.is_some()).count(),
            self.probes.len()
        );
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

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
