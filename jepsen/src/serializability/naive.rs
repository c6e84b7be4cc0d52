//! The definition of strict serializability, spelled out: try every order. Only for small histories, as the search's
//! oracle.

use std::collections::BTreeSet;

use super::model::{Model, Version};

pub(super) fn is_serializable(model: &Model) -> bool {
    assert!(model.steps.len() <= 20, "the naive checker is for small histories");
    search(model, 0, &model.start(), &mut BTreeSet::new())
}

fn search(model: &Model, taken: u32, state: &[Version], dead: &mut BTreeSet<(u32, Vec<Version>)>) -> bool {
    let left = |at: &usize| taken & (1 << at) == 0;
    let all = 0..model.steps.len();
    let Some(first_return) = all.clone().filter(left).filter_map(|at| model.steps[at].ret).min() else {
        return true;
    };
    if dead.contains(&(taken, state.to_vec())) {
        return false;
    }
    for at in all.filter(left) {
        let mut next = state.to_vec();
        if model.steps[at].call <= first_return
            && model.apply(&model.steps[at], &mut next)
            && search(model, taken | (1 << at), &next, dead)
        {
            return true;
        }
    }
    dead.insert((taken, state.to_vec()));
    false
}
