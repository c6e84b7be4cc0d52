//! The definition of linearizability, spelled out: try every order. Only for small histories, as the search's oracle.

use std::collections::BTreeSet;

use super::model::{ABSENT, Model, Version, apply};

pub(super) fn is_linearizable(model: &Model) -> bool {
    assert!(model.steps.len() <= 20, "the naive checker is for small histories");
    search(model, 0, ABSENT, &mut BTreeSet::new())
}

fn search(model: &Model, taken: u32, state: Version, dead: &mut BTreeSet<(u32, Version)>) -> bool {
    let left = |at: &usize| taken & (1 << at) == 0;
    let all = 0..model.steps.len();
    if all.clone().filter(left).all(|at| model.steps[at].ret.is_none()) {
        return true;
    }
    if dead.contains(&(taken, state)) {
        return false;
    }
    let first_return =
        all.clone().filter(left).filter_map(|at| model.steps[at].ret).min().expect("one step is answered");
    for at in all.filter(left) {
        let step = model.steps[at];
        if step.call <= first_return
            && let Some(next) = apply(step.action, state, &model.index_known)
            && search(model, taken | (1 << at), next, dead)
        {
            return true;
        }
    }
    dead.insert((taken, state));
    false
}
