//! The agent in virtual time beside a catalog that may lose, refuse or delay what is proposed.

use proptest::prelude::*;
use serde_json::json;

use super::super::definition::{
    check_from_config, check_from_request, service_from_config, service_from_request,
};
use super::super::{Probe, ProbeKind, Reloaded};
use super::*;
use crate::agent::definition::CheckKind;
use crate::rng::Rng;
use crate::store::Store;
use crate::store::command::{Command, Deregistration, Refusal, Registration};
use crate::store::model::{Check, Service};
use crate::time::Mono;
use crate::timers::Timers;

#[path = "machine/kinds_test.rs"]
mod kinds;
#[path = "machine/reload_test.rs"]
mod reload;

/// The catalog, with the picture of it that assertions look at.
#[derive(Default)]
struct Catalog {
    store: Store,
    index: u64,
    services: BTreeMap<Text, Service>,
    checks: BTreeMap<Text, Check>,
    writes: usize,
}

impl Catalog {
    fn apply(&mut self, command: &Command) -> Response {
        self.writes += 1;
        self.index += 1;
        let response = self.store.apply(self.index, command).response;
        let state = self.state();
        self.services = state.services.into_iter().map(|service| (service.id.clone(), service)).collect();
        self.checks = state.checks.into_iter().map(|check| (check.id.clone(), check)).collect();
        response
    }

    /// Somebody else registers something on the node.
    fn meddle(&mut self, service: Option<Service>, checks: Vec<Check>) {
        let (node, address) = ("n".into(), "10.0.0.1".into());
        let skip_node_update = true;
        let registration =
            Registration { node, address, service, checks, skip_node_update, ..Registration::default() };
        assert_eq!(self.apply(&Command::Register(Box::new(registration))), Response::Done);
    }

    fn state(&self) -> CatalogState {
        CatalogState {
            node: self.store.node("n").map(|node| node.as_ref().clone()),
            services: self.store.node_services("n").iter().map(|service| service.as_ref().clone()).collect(),
            checks: self.store.node_checks("n").iter().map(|check| check.as_ref().clone()).collect(),
        }
    }
}

struct World {
    agent: Agent,
    timers: Timers<cx::Timer>,
    effects: Vec<Effect>,
    now: Now,
    catalog: Catalog,
    probes: Vec<(OpId, Probe)>,
    saved: BTreeMap<Text, Bytes>,
    proposals: Vec<(u64, Command)>,
    fetches: Vec<u64>,
    readings: Vec<(u64, Text)>,
}

fn config() -> Config {
    Config { node: "n".into(), address: "10.0.0.1".into(), datacenter: "dc1".into(), ..Config::default() }
}

impl World {
    fn new(config: Config) -> World {
        World::restarted(config, BTreeMap::new(), Now { mono: Mono(0), wall: Wall(1_000_000) })
    }

    fn restarted(config: Config, saved: BTreeMap<Text, Bytes>, now: Now) -> World {
        let persisted = saved.clone().into_iter().collect::<Vec<_>>();
        let agent = Agent::new(config, &persisted, Rng::from_seed(1), now).unwrap();
        let mut world = World {
            agent,
            timers: Timers::default(),
            effects: Vec::new(),
            now,
            catalog: Catalog::default(),
            probes: Vec::new(),
            saved,
            proposals: Vec::new(),
            fetches: Vec::new(),
            readings: Vec::new(),
        };
        world.with(|agent, cx| agent.start(cx));
        world
    }

    /// An agent whose cluster works.
    fn joined(config: Config) -> World {
        let mut world = World::new(config);
        world.with(|agent, cx| agent.on_leader_known(cx));
        world.serve();
        world
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Agent, &mut Cx<'_>) -> R) -> R {
        let mut cx = Cx { now: self.now, timers: &mut self.timers, effects: &mut self.effects };
        let result = f(&mut self.agent, &mut cx);
        self.agent.invariants();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Probe { op, probe } => self.probes.push((op, probe)),
                Effect::Cancel { op } => self.probes.retain(|(other, _)| *other != op),
                Effect::Propose { ticket, command } => self.proposals.push((ticket, command)),
                Effect::FetchCatalog { ticket } => self.fetches.push(ticket),
                Effect::FetchNode { ticket, node } => self.readings.push((ticket, node)),
                Effect::Persist { changes, .. } => {
                    for (key, value) in changes {
                        match value {
                            Some(value) => self.saved.insert(key, value),
                            None => self.saved.remove(&key),
                        };
                    }
                }
                Effect::Changed => {}
            }
        }
        result
    }

    /// Carries out what the agent proposed and asked, until it asks no more.
    fn serve(&mut self) {
        while !(self.proposals.is_empty() && self.fetches.is_empty()) {
            for (ticket, command) in std::mem::take(&mut self.proposals) {
                let response = self.catalog.apply(&command);
                self.with(|agent, cx| agent.on_proposed(cx, ticket, Ok(response)));
            }
            for ticket in std::mem::take(&mut self.fetches) {
                let state = self.catalog.state();
                self.with(|agent, cx| agent.on_catalog(cx, ticket, Some(state)));
            }
        }
    }

    /// Loses what the agent proposed and asked.
    fn fail(&mut self) {
        for (ticket, _) in std::mem::take(&mut self.proposals) {
            self.with(|agent, cx| agent.on_proposed(cx, ticket, Err("no leader".into())));
        }
        for ticket in std::mem::take(&mut self.fetches) {
            self.with(|agent, cx| agent.on_catalog(cx, ticket, None));
        }
    }

    /// Proposals reach the catalog, but nobody says so.
    fn doubt(&mut self) {
        for (ticket, command) in std::mem::take(&mut self.proposals) {
            self.catalog.apply(&command);
            self.with(|agent, cx| agent.on_proposed(cx, ticket, Err("timeout".into())));
        }
    }

    fn call(&mut self, call: Call) -> Result<CallDone, CallError> {
        let done = self.with(|agent, cx| agent.call(cx, call));
        self.serve();
        done
    }

    fn register(&mut self, body: &serde_json::Value) {
        let definition = Box::new(service_from_request(body.to_string().as_bytes()).unwrap());
        self.call(Call::RegisterService { definition, replace_existing_checks: false }).unwrap();
    }

    fn register_check(&mut self, body: &serde_json::Value) -> Result<CallDone, CallError> {
        let definition = Box::new(check_from_request(body.to_string().as_bytes()).unwrap());
        self.call(Call::RegisterCheck { definition })
    }

    fn pass(&mut self, id: &str) {
        self.call(Call::UpdateTtl { id: id.into(), status: Health::Passing, output: "ok".into() }).unwrap();
    }

    /// Lets time pass; probes answer with `outcome` at once.
    fn run_for(&mut self, duration: Duration, mut outcome: impl FnMut(&Probe) -> Health) {
        let end = self.now.mono + duration;
        loop {
            for (op, probe) in std::mem::take(&mut self.probes) {
                let outcome = ProbeOutcome { status: outcome(&probe), output: "probed".into() };
                self.with(|agent, cx| agent.on_probed(cx, op, outcome));
                self.serve();
            }
            let Some(at) = self.timers.next().map(|(at, _)| at).filter(|at| *at <= end) else { break };
            self.advance_to(at);
            while let Some(timer) = self.timers.pop_due(self.now.mono) {
                let cx::Timer::Agent(timer) = timer else { panic!("{timer:?} is not the agent's") };
                self.with(|agent, cx| agent.on_timer(cx, timer));
                self.serve();
            }
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, at: Mono) {
        self.now.wall.0 += u64::try_from(at.since(self.now.mono).as_millis()).unwrap();
        self.now.mono = at.max(self.now.mono);
    }

    fn check(&self, id: &str) -> (Health, &str) {
        let check = &self.agent.local.check(id).expect("registered");
        (check.status, &check.output)
    }

    fn assert_converged(&self) {
        assert!(self.agent.is_in_sync());
        let catalog = self.catalog.state();
        let node = catalog.node.expect("registered");
        assert_eq!((node.name.as_str(), node.address.as_str()), ("n", "10.0.0.1"));
        let view = self.agent.view();
        let services = catalog.services.into_iter().map(|service| Service {
            create_index: 0,
            modify_index: 0,
            ..service
        });
        let foreign = |id: &Text| id == "consul" || id == "serfHealth";
        assert!(services.filter(|s| !foreign(&s.id)).eq(view.services.values().map(|s| Service::clone(s))));
        let checks = catalog.checks.into_iter().filter(|check| !foreign(&check.id));
        for (remote, local) in checks.clone().zip(view.checks.values()) {
            assert_eq!((&remote.id, remote.status, &remote.output), (&local.id, local.status, &local.output));
            assert_eq!((&remote.name, &remote.service_id), (&local.name, &local.service_id));
        }
        assert_eq!(checks.count(), view.checks.len());
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn passing(_: &Probe) -> Health {
    Health::Passing
}

fn failing(_: &Probe) -> Health {
    Health::Critical
}

#[test]
fn the_node_registers_itself_when_a_leader_is_known() {
    let mut world = World::new(config());
    assert!(world.fetches.is_empty());
    world.with(|agent, cx| agent.on_leader_known(cx));
    world.serve();
    world.assert_converged();
    assert_eq!(world.catalog.writes, 1);
}

#[test]
fn a_registration_is_proposed_in_the_step_of_its_call_as_one_command() {
    let mut world = World::joined(config());
    let body = json!({"Name": "web", "Check": {"TTL": "10s"}, "Port": 1});
    let definition = Box::new(service_from_request(body.to_string().as_bytes()).unwrap());
    let call = Call::RegisterService { definition, replace_existing_checks: false };
    let done = world.with(|agent, cx| agent.call(cx, call)).unwrap();
    assert!(matches!(done, CallDone::WhenPersisted(_)));
    let [(_, Command::Register(registration))] = &world.proposals[..] else {
        panic!("{:?}", world.proposals)
    };
    assert_eq!(registration.service.as_ref().unwrap().id, "web");
    assert_eq!(registration.checks[0].id, "service:web");
    assert_eq!(registration.checks[0].name, "Service 'web' check");
    world.serve();
    world.assert_converged();
}

#[test]
fn two_writes_of_one_item_are_never_under_way_together() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "web", "Check": {"TTL": "10s"}}));
    let report = |status| Call::UpdateTtl { id: "service:web".into(), status, output: "".into() };
    world.with(|agent, cx| agent.call(cx, report(Health::Passing))).unwrap();
    world.with(|agent, cx| agent.call(cx, report(Health::Warning))).unwrap();
    assert_eq!(world.proposals.len(), 1);
    world.serve();
    assert_eq!(world.catalog.checks["service:web"].status, Health::Warning);
    world.assert_converged();
}

#[test]
fn several_checks_get_numbered_ids_and_keep_given_ones() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "m", "Checks": [{"TTL": "1h"}, {"TTL": "1h", "Name": "nn"}, {"CheckID": "c", "TTL": "1h"}]}));
    let ids = world.agent.view().checks.keys().cloned().collect::<Vec<_>>();
    assert_eq!(ids, ["c", "service:m:1", "service:m:2"]);
}

#[test]
fn registering_again_keeps_the_state_of_checks_and_only_replaces_them_when_asked() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "s", "Check": {"CheckID": "k1", "TTL": "1h"}}));
    world.pass("k1");
    world.register(&json!({"Name": "s", "Check": {"CheckID": "k1", "TTL": "1h", "Status": "warning"}}));
    assert_eq!(world.check("k1"), (Health::Passing, "ok"));
    world.register(&json!({"Name": "s", "Check": {"CheckID": "k2", "TTL": "1h"}}));
    assert_eq!(world.agent.view().checks.len(), 2);
    let definition =
        Box::new(service_from_request(br#"{"Name":"s","Check":{"CheckID":"k3","TTL":"1h"}}"#).unwrap());
    world.call(Call::RegisterService { definition, replace_existing_checks: true }).unwrap();
    assert_eq!(world.agent.view().checks.keys().collect::<Vec<_>>(), ["k3"]);
    world.assert_converged();
}

#[test]
fn refused_calls_are_answered_with_the_known_texts() {
    let mut world = World::joined(config());
    let cases = [
        (Call::DeregisterService { id: "".into() }, 500, "ServiceID missing"),
        (Call::DeregisterCheck { id: "".into() }, 500, "CheckID missing"),
        (
            Call::DeregisterService { id: "x".into() },
            404,
            "Unknown service ID \"x\". Ensure that the service ID is passed, not the service name.",
        ),
        (
            Call::DeregisterCheck { id: "x".into() },
            404,
            "Unknown check ID \"x\". Ensure that the check ID is passed, not the check name.",
        ),
        (
            Call::UpdateTtl { id: "nope".into(), status: Health::Passing, output: "".into() },
            500,
            "CheckID \"nope\" does not have associated TTL",
        ),
        (
            Call::ServiceMaintenance { id: "nope".into(), enable: true, reason: "".into() },
            404,
            "No service registered with ID \"nope\"",
        ),
    ];
    for (call, status, text) in cases {
        assert_eq!(world.call(call), Err(CallError::new(status, text)));
    }
    let refused = world.register_check(&json!({"Name": "x", "ServiceID": "none", "TTL": "1h"}));
    assert_eq!(refused, Err(CallError::new(500, "ServiceID \"none\" does not exist")));
    world.assert_converged();
}

#[test]
fn a_silent_client_makes_its_ttl_check_critical_with_its_last_words() {
    let mut world = World::joined(config());
    world.register_check(&json!({"ID": "k", "Name": "k", "TTL": "10s"})).unwrap();
    world.pass("k");
    world.run_for(9 * SECOND, passing);
    assert_eq!(world.check("k"), (Health::Passing, "ok"));
    world.pass("k");
    world.run_for(9 * SECOND, passing);
    assert_eq!(world.check("k"), (Health::Passing, "ok"));
    world.run_for(SECOND, passing);
    assert_eq!(world.check("k"), (Health::Critical, "TTL expired (last output before timeout follows): ok"));
    world.assert_converged();
    world.pass("k");
    assert_eq!(world.catalog.checks["k"].status, Health::Passing);
}

#[test]
fn a_check_runs_within_its_interval_and_then_at_intervals() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "t", "Check": {"TCP": "127.0.0.1:9999", "Interval": "10s"}}));
    assert_eq!(world.check("service:t"), (Health::Critical, ""));
    let mut runs = 0;
    world.run_for(95 * SECOND, |probe| {
        assert_eq!(probe.kind, ProbeKind::Tcp { address: "127.0.0.1:9999".into(), tls: None });
        assert_eq!((probe.timeout, probe.output_max), (10 * SECOND, 4096));
        runs += 1;
        Health::Passing
    });
    assert!((9..=10).contains(&runs), "{runs}");
    assert_eq!(world.catalog.checks["service:t"].status, Health::Passing);
}

#[test]
fn registering_again_and_again_does_not_keep_a_check_from_running() {
    let mut world = World::joined(config());
    let mut runs = 0;
    for _ in 0..30 {
        world.register(&json!({"Name": "t", "Check": {"TCP": "127.0.0.1:9999", "Interval": "10s"}}));
        world.run_for(SECOND, |_| {
            runs += 1;
            Health::Passing
        });
    }
    assert!((2..=4).contains(&runs), "{runs}");
}

#[test]
fn a_removed_check_cancels_its_probe_and_a_late_result_is_ignored() {
    let mut world = World::joined(config());
    world.register_check(&json!({"ID": "k", "Name": "k", "TCP": "x:1", "Interval": "1s"})).unwrap();
    let run = cx::Timer::Agent(Timer::Run("k".into()));
    world.advance_to(world.timers.deadline(&run).unwrap());
    world.timers.cancel(&run);
    world.with(|agent, cx| agent.on_timer(cx, Timer::Run("k".into())));
    let op = world.probes[0].0;
    assert!(op.0 >= OP_BASE);
    world.call(Call::DeregisterCheck { id: "k".into() }).unwrap();
    assert!(world.probes.is_empty());
    let outcome = ProbeOutcome { status: Health::Passing, output: String::new() };
    world.with(|agent, cx| agent.on_probed(cx, op, outcome));
    assert!(world.agent.view().checks.is_empty());
    world.assert_converged();
}

#[test]
fn a_new_output_waits_and_a_new_state_does_not() {
    let mut world = World::joined(config());
    world.register_check(&json!({"ID": "k", "Name": "k", "TTL": "2h"})).unwrap();
    let report = |status, output: &str| Call::UpdateTtl { id: "k".into(), status, output: output.into() };
    world.call(report(Health::Passing, "one")).unwrap();
    assert_eq!(world.catalog.checks["k"].output, "one");
    world.call(report(Health::Passing, "two")).unwrap();
    assert_eq!(world.check("k").1, "two");
    assert_eq!(world.catalog.checks["k"].output, "one");
    world.run_for(149 * SECOND, passing);
    assert_eq!(world.catalog.checks["k"].output, "one", "not even by a full synchronisation");
    world.run_for(302 * SECOND, passing);
    assert_eq!(world.catalog.checks["k"].output, "two");
    world.call(report(Health::Warning, "three")).unwrap();
    assert_eq!(world.catalog.checks["k"].output, "three");
}

#[test]
fn a_service_that_stays_critical_is_removed_and_one_that_recovers_is_not() {
    let mut world = World::joined(config());
    let body = json!({"Name": "bye", "Check": {"TCP": "x:1", "Interval": "10s", "DeregisterCriticalServiceAfter": "90s"}});
    world.register(&body);
    world.run_for(80 * SECOND, failing);
    world.run_for(11 * SECOND, passing);
    world.run_for(85 * SECOND, failing);
    assert!(world.agent.local.service("bye").is_some());
    world.run_for(20 * SECOND, failing);
    assert!(world.agent.local.service("bye").is_none());
    assert!(world.saved.is_empty());
    world.assert_converged();
}

#[test]
fn aliases_follow_their_service() {
    let mut world = World::joined(config());
    world.register(
        &json!({"ID": "web1", "Name": "web", "Check": {"CheckID": "t", "TTL": "1h", "Status": "passing"}}),
    );
    world.register(&json!({"Name": "side", "Check": {"CheckID": "alias", "AliasService": "web1"}}));
    assert_eq!(world.check("alias"), (Health::Passing, "All checks passing."));
    world.call(Call::UpdateTtl { id: "t".into(), status: Health::Critical, output: "bad".into() }).unwrap();
    assert_eq!(
        world.check("alias"),
        (Health::Critical, "Aliased check \"Service 'web' check\" failing: bad")
    );
    assert_eq!(world.catalog.checks["alias"].status, Health::Critical);
    world.call(Call::DeregisterService { id: "web1".into() }).unwrap();
    assert_eq!(world.check("alias"), (Health::Critical, "Service web1 could not be found on node "));
}

#[test]
fn aliases_in_a_circle_do_not_hold_each_other() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "a", "Check": {"CheckID": "ca", "AliasService": "b"}}));
    world.register(&json!({"Name": "b", "Checks": [{"CheckID": "cb", "AliasService": "a"}, {"CheckID": "t", "TTL": "1h"}]}));
    assert_eq!((world.check("ca").0, world.check("cb").0), (Health::Critical, Health::Critical));
    world.pass("t");
    assert_eq!((world.check("ca").0, world.check("cb").0), (Health::Passing, Health::Passing));
    world.assert_converged();
}

#[test]
fn maintenance_is_a_critical_check_and_keeps_its_first_reason() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "web"}));
    let node = |enable, reason: &str| Call::NodeMaintenance { enable, reason: reason.into() };
    world.call(node(true, "disk")).unwrap();
    world.call(node(true, "other")).unwrap();
    assert_eq!(world.catalog.checks["_node_maintenance"].notes, "disk");
    let service = |enable| Call::ServiceMaintenance { id: "web".into(), enable, reason: "".into() };
    world.call(service(true)).unwrap();
    assert_eq!(
        world.catalog.checks["_service_maintenance:web"].notes,
        "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
    );
    let mut again = World::restarted(config(), world.saved.clone(), world.now);
    assert_eq!(again.check("_node_maintenance").0, Health::Critical);
    again.call(node(false, "")).unwrap();
    again.call(service(false)).unwrap();
    assert!(again.agent.view().checks.is_empty());
    assert_eq!(again.saved.len(), 1);
}

#[test]
fn registrations_by_request_survive_a_restart_and_ttl_states_while_they_last() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "web", "Port": 1, "Check": {"CheckID": "t", "TTL": "30s"}}));
    world.pass("t");
    world.advance_to(world.now.mono + 10 * SECOND);
    let mut again =
        World::restarted(config(), world.saved.clone(), Now { mono: Mono(5), wall: world.now.wall });
    assert_eq!(again.agent.view().services["web"].port, 1);
    assert_eq!(again.check("t"), (Health::Passing, "ok"));
    again.run_for(28 * SECOND, passing);
    assert_eq!(again.check("t"), (Health::Critical, "TTL expired (last output before timeout follows): ok"));
    world.advance_to(world.now.mono + 60 * SECOND);
    let late = World::restarted(config(), world.saved.clone(), Now { mono: Mono(5), wall: world.now.wall });
    assert_eq!(late.check("t").0, Health::Critical);
}

#[test]
fn definitions_of_files_win_over_persisted_ones_and_are_not_persisted() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "web", "Port": 1}));
    let of_file = service_from_config("service", &json!({"name": "web", "port": 2})).unwrap();
    let config = Config { services: vec![of_file], ..config() };
    let again = World::restarted(config, world.saved.clone(), world.now);
    assert_eq!(again.agent.view().services["web"].port, 2);
    assert!(again.saved.is_empty());
}

#[test]
fn a_file_with_a_check_of_an_unknown_service_refuses_to_start() {
    let mut check = CheckDefinition::new("x", "X", CheckKind::Ttl { ttl: SECOND });
    check.service_id = "nosuch".into();
    let config = Config { checks: vec![check], ..config() };
    let error = Agent::new(config, &[], Rng::from_seed(1), Now::default()).unwrap_err();
    assert_eq!(error.to_string(), "Failed to register check 'X': ServiceID \"nosuch\" does not exist");
}

#[test]
fn a_full_synchronisation_removes_what_is_foreign_and_leaves_what_is_the_leaders() {
    let mut world = World::joined(config());
    for (service, check) in [("consul", "serfHealth"), ("foreign", "foreign")] {
        let service = Service { id: service.into(), service: service.into(), ..Service::default() };
        world.catalog.meddle(Some(service), vec![Check { id: check.into(), ..Check::default() }]);
    }
    world.run_for(125 * SECOND, passing);
    assert_eq!(world.catalog.services.keys().collect::<Vec<_>>(), ["consul"]);
    assert_eq!(world.catalog.checks.keys().collect::<Vec<_>>(), ["serfHealth"]);
}

#[test]
fn the_catalogs_tags_win_where_that_is_allowed() {
    let mut world = World::joined(config());
    world.register(
        &json!({"ID": "a", "Name": "a", "Tags": ["own"], "EnableTagOverride": true, "Check": {"TTL": "9h"}}),
    );
    world.register(&json!({"ID": "b", "Name": "b", "Tags": ["own"]}));
    for mut service in world.catalog.services.clone().into_values() {
        service.tags = vec!["theirs".into()];
        world.catalog.meddle(Some(service), Vec::new());
    }
    world.run_for(125 * SECOND, passing);
    assert_eq!(world.agent.view().services["a"].tags, ["theirs"]);
    assert_eq!(world.agent.view().checks["service:a"].service_tags, ["theirs"]);
    assert_eq!(world.catalog.services["b"].tags, ["own"]);
    world.assert_converged();
}

#[test]
fn a_refused_write_is_not_hammered() {
    let mut world = World::joined(config());
    let body = json!({"Name": "web"});
    let definition = Box::new(service_from_request(body.to_string().as_bytes()).unwrap());
    let call = Call::RegisterService { definition, replace_existing_checks: false };
    world.with(|agent, cx| agent.call(cx, call)).unwrap();
    let (ticket, _) = world.proposals.remove(0);
    let refused = Response::Refused(Refusal::Other("no".into()));
    world.with(|agent, cx| agent.on_proposed(cx, ticket, Ok(refused)));
    assert!(world.proposals.is_empty());
    world.run_for(2 * SECOND, passing);
    world.assert_converged();
}

#[test]
fn what_failed_is_tried_again_after_a_while_or_with_the_next_leader() {
    let mut world = World::joined(config());
    let body = br#"{"Name":"web"}"#;
    let call = || Call::RegisterService {
        definition: Box::new(service_from_request(body).unwrap()),
        replace_existing_checks: false,
    };
    world.with(|agent, cx| agent.call(cx, call())).unwrap();
    world.fail();
    world.with(|agent, cx| agent.call(cx, call())).unwrap();
    assert!(world.proposals.is_empty(), "a cluster without a leader is left alone");
    let mut later = Duration::ZERO;
    while world.catalog.services.is_empty() {
        world.run_for(SECOND / 10, passing);
        later += SECOND / 10;
    }
    assert!(later <= SECOND, "{later:?}");

    world.call(Call::DeregisterService { id: "web".into() }).unwrap();
    world.with(|agent, cx| agent.call(cx, call())).unwrap();
    world.fail();
    world.with(|agent, cx| agent.on_leader_known(cx));
    world.run_for(Duration::ZERO, passing);
    world.assert_converged();
}

#[test]
fn regression_a_registration_after_a_long_outage_does_not_wait_until_the_next_retry() {
    let mut world = World::joined(config());
    let call = || Call::RegisterService {
        definition: Box::new(service_from_request(br#"{"Name":"web"}"#).unwrap()),
        replace_existing_checks: false,
    };
    world.with(|agent, cx| agent.call(cx, call())).unwrap();
    for _ in 0..8 {
        world.fail();
        world.with(|agent, cx| {
            let timer = crate::cx::Timer::Agent(Timer::Retry);
            cx.timers.cancel(&timer);
            agent.on_timer(cx, Timer::Retry);
        });
    }
    world.fail();
    world.with(|agent, cx| agent.call(cx, call())).unwrap();
    world.run_for(SECOND, passing);
    world.assert_converged();
}

#[test]
fn a_sidecar_comes_and_goes_with_its_service() {
    let mut world = World::joined(config());
    world.register(&json!({"Name": "web", "Port": 8080, "Connect": {"SidecarService": {}}}));
    let view = world.agent.view();
    assert_eq!(view.services["web-sidecar-proxy"].port, 21_000);
    assert_eq!(view.checks["service:web-sidecar-proxy:1"].name, "Connect Sidecar Listening");
    assert_eq!(world.check("service:web-sidecar-proxy:2").0, Health::Passing);
    world.register(&json!({"Name": "db", "Connect": {"SidecarService": {}}}));
    assert_eq!(world.agent.view().services["db-sidecar-proxy"].port, 21_001);
    world.call(Call::DeregisterService { id: "web".into() }).unwrap();
    assert_eq!(world.agent.view().services.keys().collect::<Vec<_>>(), ["db", "db-sidecar-proxy"]);
    world.assert_converged();
}

#[derive(Clone, Debug)]
enum Step {
    Register { id: u8, port: u16, checks: u8, replace: bool },
    Deregister(u8),
    Check { id: u8, service: Option<u8>, ttl: bool },
    DeregisterCheck(u8),
    Report { id: u8, status: u8, output: u8 },
    Maintain { service: Option<u8>, enable: bool },
    Serve,
    Fail,
    Wait(u16),
    Leader,
    Meddle(u8),
    DeregisterNode,
    Doubt,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..4u8;
    prop_oneof![
        3 => (id.clone(), any::<u16>(), 0..3u8, any::<bool>())
            .prop_map(|(id, port, checks, replace)| Step::Register { id, port, checks, replace }),
        2 => id.clone().prop_map(Step::Deregister),
        2 => (id.clone(), prop::option::of(id.clone()), any::<bool>())
            .prop_map(|(id, service, ttl)| Step::Check { id, service, ttl }),
        1 => id.clone().prop_map(Step::DeregisterCheck),
        3 => (id.clone(), 0..3u8, 0..3u8).prop_map(|(id, status, output)| Step::Report { id, status, output }),
        1 => (prop::option::of(id.clone()), any::<bool>())
            .prop_map(|(service, enable)| Step::Maintain { service, enable }),
        3 => Just(Step::Serve),
        2 => Just(Step::Fail),
        2 => any::<u16>().prop_map(Step::Wait),
        1 => Just(Step::Leader),
        1 => id.prop_map(Step::Meddle),
        1 => Just(Step::DeregisterNode),
        2 => Just(Step::Doubt),
        1 => Just(Step::Restart),
    ]
}

fn apply(world: &mut World, step: Step) {
    let health = |status| [Health::Passing, Health::Warning, Health::Critical][usize::from(status)];
    match step {
        Step::Register { id, port, checks, replace } => {
            let checks =
                (0..checks).map(|at| json!({"CheckID": format!("c{at}"), "TTL": "1m"})).collect::<Vec<_>>();
            let body = json!({"ID": format!("s{id}"), "Name": "s", "Port": port, "Checks": checks});
            let definition = Box::new(service_from_request(body.to_string().as_bytes()).unwrap());
            let call = Call::RegisterService { definition, replace_existing_checks: replace };
            let _ = world.with(|agent, cx| agent.call(cx, call));
        }
        Step::Deregister(id) => {
            let call = Call::DeregisterService { id: format!("s{id}").into() };
            let _ = world.with(|agent, cx| agent.call(cx, call));
        }
        Step::Check { id, service, ttl } => {
            let service = service.map(|id| format!("s{id}")).unwrap_or_default();
            let how = if ttl { json!({"TTL": "30s"}) } else { json!({"TCP": "x:1", "Interval": "5s"}) };
            let mut body = json!({"Name": format!("c{id}"), "ServiceID": service});
            body.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
            let definition = Box::new(check_from_request(body.to_string().as_bytes()).unwrap());
            let _ = world.with(|agent, cx| agent.call(cx, Call::RegisterCheck { definition }));
        }
        Step::DeregisterCheck(id) => {
            let call = Call::DeregisterCheck { id: format!("c{id}").into() };
            let _ = world.with(|agent, cx| agent.call(cx, call));
        }
        Step::Report { id, status, output } => {
            let call = Call::UpdateTtl {
                id: format!("c{id}").into(),
                status: health(status),
                output: format!("o{output}").into(),
            };
            let _ = world.with(|agent, cx| agent.call(cx, call));
        }
        Step::Maintain { service: None, enable } => {
            let call = Call::NodeMaintenance { enable, reason: "".into() };
            let _ = world.with(|agent, cx| agent.call(cx, call));
        }
        Step::Maintain { service: Some(id), enable } => {
            let call = Call::ServiceMaintenance { id: format!("s{id}").into(), enable, reason: "".into() };
            let _ = world.with(|agent, cx| agent.call(cx, call));
        }
        Step::Serve => world.serve(),
        Step::Fail => world.fail(),
        Step::Wait(millis) => wait_without_catalog(world, Duration::from_millis(u64::from(millis))),
        Step::Leader => world.with(|agent, cx| agent.on_leader_known(cx)),
        Step::Meddle(id) => {
            for (service_id, check_id) in [(Some(format!("s{id}")), None), (None, Some(format!("c{id}")))] {
                let (service_id, check_id) = (service_id.map(Text::from), check_id.map(Text::from));
                let command = Deregistration { node: "n".into(), service_id, check_id };
                world.catalog.apply(&Command::Deregister(command));
            }
            let service = Service { id: "bad".into(), service: "bad".into(), ..Service::default() };
            world.catalog.meddle(Some(service), vec![Check { id: "bad".into(), ..Check::default() }]);
        }
        Step::DeregisterNode => {
            let command = Deregistration { node: "n".into(), ..Deregistration::default() };
            world.catalog.apply(&Command::Deregister(command));
        }
        Step::Doubt => world.doubt(),
        Step::Restart => {
            let catalog = std::mem::take(&mut world.catalog);
            *world = World::restarted(config(), world.saved.clone(), world.now);
            world.catalog = catalog;
        }
    }
}

/// Timers fire and probes answer, but nobody serves the catalog.
fn wait_without_catalog(world: &mut World, duration: Duration) {
    let end = world.now.mono + duration;
    while let Some(at) = world.timers.next().map(|(at, _)| at).filter(|at| *at <= end) {
        world.advance_to(at);
        while let Some(cx::Timer::Agent(timer)) = world.timers.pop_due(world.now.mono) {
            world.with(|agent, cx| agent.on_timer(cx, timer));
        }
        for (op, _) in std::mem::take(&mut world.probes) {
            let status = if op.0 % 3 == 0 { Health::Critical } else { Health::Passing };
            let outcome = ProbeOutcome { status, output: format!("{}", op.0 % 2) };
            world.with(|agent, cx| agent.on_probed(cx, op, outcome));
        }
    }
    world.advance_to(end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happened_a_calm_phase_brings_the_catalog_in_step(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(config());
        for step in steps {
            apply(&mut world, step);
        }
        world.with(|agent, cx| agent.on_leader_known(cx));
        world.serve();
        // Long enough for a full synchronisation and for the longest wait of a deferred output.
        world.run_for(600 * SECOND, passing);
        world.assert_converged();
    }
}
