//! Making a failing plan smaller while it still fails.

use crate::plan::Plan;

/// Removes what a plan does not need in order to fail: faults, clients, operations, disturbances of the ground state.
/// `fails` runs a plan; it is called at most `budget` times.
pub fn shrink(plan: Plan, mut budget: u32, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan;
    loop {
        let mut smaller = false;
        for candidate in candidates(&best) {
            if budget == 0 {
                return best;
            }
            budget -= 1;
            if fails(&candidate) {
                best = candidate;
                smaller = true;
                break;
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// Plans with a little less, the boldest cuts first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        if smaller != *plan {
            candidates.push(smaller);
        }
    };
    let faults = plan.faults.len();
    if faults > 1 {
        add(&|plan| drop(plan.faults.drain(..faults / 2)));
        add(&|plan| plan.faults.truncate(faults / 2));
    }
    for at in (0..faults).rev() {
        add(&|plan| drop(plan.faults.remove(at)));
    }
    for at in (0..plan.clients.len()).rev() {
        add(&|plan| {
            plan.clients.remove(at);
        });
    }
    add(&|plan| plan.clients.iter_mut().for_each(|client| client.padding_max = 0));
    add(&|plan| plan.net.datagrams = false);
    add(&|plan| plan.net.quality = Default::default());
    add(&|plan| plan.clocks.iter_mut().for_each(|clock| *clock = Default::default()));
    add(&|plan| {
        for client in &mut plan.clients {
            client.operations = client.operations.div_ceil(2);
        }
    });
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let plan = (0..)
            .map(Plan::from_seed)
            .find(|plan| plan.faults.iter().any(|it| matches!(it.fault, Fault::Kill { .. })))
            .unwrap();
        let fails = |plan: &Plan| {
            plan.faults.iter().any(|it| matches!(it.fault, Fault::Kill { .. })) && plan.clients.len() >= 2
        };
        let small = shrink(plan, 1_000, fails);
        assert_eq!((small.faults.len(), small.clients.len()), (1, 2));
        assert!(matches!(small.faults[0].fault, Fault::Kill { .. }));
        assert!(small.clients.iter().all(|client| client.operations == 1));
    }

    #[test]
    fn a_budget_is_kept() {
        let mut runs = 0;
        shrink(Plan::from_seed(1), 7, |_| {
            runs += 1;
            true
        });
        assert!(runs <= 7);
    }
}
