//! The agent's machine: takes calls, runs checks, keeps the catalog in step.

mod registrations;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::checks;
use super::definition::{CheckDefinition, CheckKind, ServiceDefinition};
use super::local::{Local, Origin};
use super::persist::{self, BadPersisted, Change, Saved, SavedTtl};
use super::sync::{Item, RETRY_MIN, Sync, scale};
use super::{AgentView, Call, CallDone, CallError, CatalogState, Effect, OP_BASE, ProbeOutcome, Timer};
use crate::Text;
use crate::cx;
use crate::ids::{OpId, Uuid};
use crate::rng::Rng;
use crate::store::command::Response;
use crate::store::model::Health;
use crate::time::{Now, Wall};

type Cx<'a> = cx::Cx<'a, Effect>;

/// Words around what a peer sent, in bytes at most; URLs are longer than one thinks.
const OUTPUT_AROUND: usize = 4096;
/// A full synchronisation after a new leader appeared is spread over this time, times the cluster's scale.
const SPREAD_AFTER_ELECTION: Duration = Duration::from_secs(3);

/// The catalog is asked about the other nodes of alias checks so often, give or take a quarter.
const OTHER_NODE_INTERVAL: Duration = Duration::from_secs(4);

/// What an agent is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether commands are run that somebody sends to agents (Consul: `disable_remote_exec = false`).
    pub remote_exec: bool,
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
    /// Which checks may run programs.
    pub scripts: Scripts,
}

/// Which checks may run programs (Consul: `enable_script_checks`, `enable_local_script_checks`). Whoever may register
/// one can run anything on the agent's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scripts {
    /// None.
    #[default]
    None,
    /// Those of configuration files.
    OfFiles,
    /// Those that clients register, too.
    All,
}

impl Default for Config {
    /// Consul's defaults; names and addresses are empty.
    fn default() -> Self {
        Config {
            remote_exec: false,
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
            scripts: Scripts::None,
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
#[derive(Clone, Debug, Default)]
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
    /// Alias checks, and the other nodes that they stand for, by the readings that are under way for them.
    readings: BTreeMap<u64, (Text, Text)>,
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
            readings: BTreeMap::new(),
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
            Call::Reload { services, checks, settings } => self.reload(services, checks, settings)?,
            Call::NodeMaintenance { enable, reason } => self.maintain_node(enable, &reason),
            Call::ServiceMaintenance { id, enable, reason } => self.maintain_service(&id, enable, &reason)?,
        }
        self.hasten_retry(cx);
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
            Ok(
                Response::Done
                | Response::Held(_)
                | Response::SessionCreated(_)
                | Response::Transaction(_)
                | Response::RestoreBegun(_)
                | Response::PreparedQueryCreated(_)
                | Response::IntentionSaved(_),
            ) => {
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
        if let Some((id, node)) = self.readings.remove(&ticket) {
            self.on_other_node(cx, &id, &node, catalog);
            return;
        }
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

    /// Somebody wants to see in the catalog what the agent was just told: what failed long ago may be tried again sooner
    /// than otherwise, though not with every such call.
    fn hasten_retry(&mut self, cx: &mut Cx<'_>) {
        let timer = cx::Timer::Agent(Timer::Retry);
        let soon = cx.now.mono + RETRY_MIN;
        if self.sync.paused && cx.timers.deadline(&timer).is_some_and(|armed| armed > soon) {
            cx.timers.set(timer, soon);
        }
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    // --- registrations ---

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

    /// The catalog was asked about the node that an alias check stands for.
    fn on_other_node(&mut self, cx: &mut Cx<'_>, id: &Text, node: &Text, catalog: Option<CatalogState>) {
        // It may have become another check meanwhile.
        let Some(run) = self.local.run_mut(id).filter(|run| run.other_node(&self.config.node) == Some(node))
        else {
            return;
        };
        let CheckKind::Alias { service, .. } = &run.definition.kind else { return };
        let is_silent = catalog.is_none();
        let result = match catalog {
            Some(catalog) => Some(checks::foreign_alias(&catalog, node, service)),
            // Servers that are silent once may be electing.
            None if run.failures == 0 => None,
            None => {
                let text = "Failure checking aliased node or service: the servers do not answer";
                Some((Health::Critical, text.into()))
            }
        };
        run.failures = u32::from(is_silent);
        let at = cx.now.mono + OTHER_NODE_INTERVAL * 3 / 4 + self.rng.duration_below(OTHER_NODE_INTERVAL / 2);
        cx.timers.set(cx::Timer::Agent(Timer::Run(id.clone())), at);
        if let Some((status, output)) = result {
            self.set_check(cx, id, status, output);
        }
        self.settle(cx);
    }

    fn run(&mut self, cx: &mut Cx<'_>, id: &Text) {
        if let Some(node) = self.local.run(id).and_then(|run| run.other_node(&self.config.node)).cloned() {
            let ticket = self.ticket();
            self.readings.insert(ticket, (id.clone(), node.clone()));
            cx.emit(Effect::FetchNode { ticket, node });
            return;
        }
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
        if run.other_node(&self.config.node).is_some() && cx.timers.deadline(&timer).is_none() {
            cx.timers.set(timer.clone(), cx.now.mono);
        }
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

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
