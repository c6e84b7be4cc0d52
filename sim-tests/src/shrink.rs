//! Making a failing plan smaller while it still fails.

use std::ops::Range;

use crate::plan::Plan;

/// Removes what a plan does not need in order to fail: faults, clients, operations, time, disturbances of the ground
/// state. `fails` runs a plan; it is called at most `budget` times.
pub fn shrink(plan: Plan, budget: u32, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search { best: plan, budget, fails };
    loop {
        let before = search.best.clone();
        search.drop_many(|plan| plan.faults.len(), |plan, chunk| drop(plan.faults.drain(chunk)));
        search.drop_many(|plan| plan.clients.len(), |plan, chunk| drop(plan.clients.drain(chunk)));
        search.halve_operations();
        search.shorten();
        search.calm();
        if search.best == before || search.budget == 0 {
            return search.best;
        }
    }
}

/// What is left of a plan, in a few words.
#[must_use]
pub fn size(plan: &Plan) -> String {
    let operations: u32 = plan.clients.iter().map(|client| client.operations).sum();
    let (faults, clients) = (plan.faults.len(), plan.clients.len());
    format!("{faults} faults, {clients} clients with {operations} operations, {} ms", plan.safety_ms)
}

struct Search<F> {
    /// The smallest plan so far that fails.
    best: Plan,
    budget: u32,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Keeps a change if the plan still fails with it.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut smaller = self.best.clone();
        change(&mut smaller);
        if smaller == self.best || self.budget == 0 {
            return false;
        }
        self.budget -= 1;
        let fails = (self.fails)(&smaller);
        if fails {
            self.best = smaller;
        }
        fails
    }

    /// Drops items of a list: halves first, then quarters, down to single ones (Zeller's delta debugging).
    fn drop_many(&mut self, count: impl Fn(&Plan) -> usize, drop: impl Fn(&mut Plan, Range<usize>)) {
        let mut size = count(&self.best).div_ceil(2);
        while size > 0 {
            let mut end = count(&self.best);
            while end > 0 {
                let begin = end.saturating_sub(size);
                self.attempt(|plan| drop(plan, begin..end));
                end = begin;
            }
            size /= 2;
        }
    }

    fn halve_operations(&mut self) {
        while self.attempt(|plan| {
            for client in &mut plan.clients {
                client.operations = client.operations.div_ceil(2);
            }
        }) {}
        for at in 0..self.best.clients.len() {
            while self.attempt(|plan| {
                plan.clients[at].operations = plan.clients[at].operations.div_ceil(2);
            }) {}
        }
    }

    /// Heals sooner. Faults that would come later are none of the failure's.
    fn shorten(&mut self) {
        while self.attempt(|plan| {
            plan.safety_ms = plan.safety_ms.div_ceil(2);
            plan.faults.retain(|timed| timed.at_ms < plan.safety_ms);
        }) {}
    }

    /// Takes one disturbance of the ground state after the other away.
    fn calm(&mut self) {
        self.attempt(|plan| plan.clients.iter_mut().for_each(|client| client.padding_max = 0));
        self.attempt(|plan| plan.net.datagrams = false);
        self.attempt(|plan| plan.net.quality = Default::default());
        self.attempt(|plan| plan.clocks.iter_mut().for_each(|clock| *clock = Default::default()));
        self.attempt(|plan| plan.disk.sync_max_us = plan.disk.sync_max_us.min(1_000));
        self.attempt(|plan| plan.disk.checkpoint_max_us = plan.disk.checkpoint_max_us.min(1_000));
    }
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
        assert!(small.clients.iter().all(|client| client.operations <= 1));
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
