//! The machinery around the servers, proved with a server that is none.

use std::collections::BTreeMap;

use madsim::runtime::Runtime;
use proconsul_io_sim::net::Death;
use proconsul_io_sim::trace::Trace;
use proconsul_sim_tests::plan::{ClientKind, ClientPlan, Fault, Plan, Target, TimedFault};
use proconsul_sim_tests::world::{self, Outcome};

use crate::toy;

/// A run of the toy, on a thread of its own.
fn run_toy(plan: Plan) -> (Outcome, u64) {
    std::thread::spawn(move || {
        let trace = Trace::default();
        let runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
        let outcome = runtime.block_on(world::run_with(&plan, &trace, toy::main));
        (outcome, trace.hash())
    })
    .join()
    .unwrap()
}

fn toy_plan(seed: u64, faults: Vec<TimedFault>) -> Plan {
    // To be upgraded is to be restarted, and a client agent would be a second toy.
    let mut plan = Plan { faults, old: Vec::new(), client_agents: 0, ..Plan::with_servers(seed, 1) };
    let client = |number| ClientPlan {
        kind: ClientKind::Kv,
        seed: seed * 100 + number,
        operations: 200,
        think_max_ms: 100,
        padding_max: 0,
    };
    plan.clients = (0..4).map(client).collect();
    plan
}

/// A toy has no log to converge by, and no sessions.
fn violations(outcome: &Outcome) -> BTreeMap<&str, usize> {
    let mut found = BTreeMap::new();
    let expected = ["lock handover", "progress"];
    for violation in outcome.violations.iter().filter(|it| !expected.contains(&it.auditor.as_str())) {
        *found.entry(violation.auditor.as_str()).or_default() += 1;
    }
    found
}

#[test]
fn a_toy_that_nobody_disturbs_is_linearizable_and_repeats_itself() {
    let (outcome, hash) = run_toy(toy_plan(3, Vec::new()));
    assert_eq!(violations(&outcome), BTreeMap::new(), "{:#?}", outcome.violations);
    assert!(outcome.counts["operations answered"] > 100, "{:?}", outcome.counts);
    assert_eq!(run_toy(toy_plan(3, Vec::new())).1, hash);
    assert_ne!(run_toy(toy_plan(4, Vec::new())).1, hash);
}

#[test]
fn a_toy_that_forgets_what_it_acknowledged_is_found_out() {
    let fault = Fault::Kill { server: Target::Server(0), death: Death::Process, down_ms: 100 };
    let (outcome, _) = run_toy(toy_plan(3, vec![TimedFault { at_ms: 5_000, fault }]));
    assert!(violations(&outcome).contains_key("linearizability"), "{:#?}", outcome.violations);
}
