//! Cuts a group's history without an order down to a few operations without an order.

use super::model::{ABSENT, Act, Expected, Model, Step, Version};
use super::search::{Found, search};
use crate::history::Nanos;

/// Search nodes, and steps set up for searches, that one minimization may take.
const EFFORT: u64 = 300_000;

struct Effort<'a> {
    model: &'a Model,
    left: u64,
}

impl Effort<'_> {
    /// Whether the steps certainly have no order.
    fn no_order(&mut self, steps: &[Step]) -> bool {
        self.left = self.left.saturating_sub(steps.len() as u64);
        let cut = Model { steps: steps.to_vec(), index: self.model.index.clone(), ..*self.model };
        let (found, nodes) = search(&cut, self.left);
        self.left -= nodes.min(self.left);
        found == Found::NoOrder
    }
}

/// Cuts `model`, which has no order, as far as a bounded effort allows.
pub(super) fn minimize(model: &Model) -> Vec<Step> {
    let mut effort = Effort { model, left: EFFORT };
    let mut steps = shortest_prefix(model, &mut effort);
    // A failed condition can need a change that nobody saw: without any, more can be left out.
    let wanted: Vec<Step> = steps.iter().filter(|step| step.failed.is_none()).cloned().collect();
    if wanted.len() < steps.len() && effort.no_order(&wanted) {
        steps = wanted;
    }
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut changed = false;
        let mut at = 0;
        while at < steps.len() && effort.left > 0 {
            let without = without(&steps, at, size);
            if without.len() < steps.len() && effort.no_order(&without) {
                steps = without;
                changed = true;
            } else {
                at += size;
            }
        }
        if effort.left == 0 {
            break;
        }
        if !(changed && size == 1) {
            size /= 2;
        }
    }
    steps
}

/// The history as it was when the first inexplicable answer arrived. Having an order is inherited by prefixes.
fn shortest_prefix(model: &Model, effort: &mut Effort<'_>) -> Vec<Step> {
    let mut returns: Vec<Nanos> = model.steps.iter().filter_map(|step| step.ret).collect();
    returns.sort_unstable();
    // What cannot be decided within the effort counts as in order, so that the cut is never too short.
    let broken = returns.partition_point(|end| !effort.no_order(&prefix(model, *end)));
    match returns.get(broken) {
        Some(&end) => prefix(model, end),
        None => model.steps.clone(),
    }
}

fn prefix(model: &Model, end: Nanos) -> Vec<Step> {
    let known = |step: &Step| step.ret.is_some_and(|ret| ret <= end);
    model
        .steps
        .iter()
        .filter(|step| step.call <= end && (known(step) || step.changes()))
        .map(|step| if known(step) { step.clone() } else { Step { ret: None, ..step.clone() } })
        .collect()
}

/// Whether a change can be left out, together with all that refers to its versions, without making an order of the rest
/// impossible that would else exist: the state before it then just lasts longer.
fn can_go(change: &Step, steps: &[Step]) -> bool {
    let acts = || steps.iter().flat_map(|step| &step.acts);
    let unseen = |act: &Act| {
        matches!(
            act,
            Act::Is(Expected::UnseenIndex)
                | Act::PutIf(Expected::UnseenIndex, _)
                | Act::DeleteIf(Expected::UnseenIndex)
        )
    };
    let delicate = steps.iter().any(|step| step.failed.is_some()) || acts().any(|(_, act)| unseen(act));
    let snapshots = change.acts.iter().any(|(_, act)| matches!(act, Act::Save(_) | Act::Restore(_)));
    // Absence is written by many: which of them a step needs cannot be said.
    let removes = change.acts.iter().any(|(_, act)| matches!(act, Act::Put(ABSENT) | Act::DeleteIf(_)));
    let wants_absence = || {
        acts().any(|(_, act)| {
            matches!(
                act,
                Act::Read(ABSENT)
                    | Act::Is(Expected::Version(ABSENT))
                    | Act::PutIf(Expected::Version(ABSENT), _)
                    | Act::DeleteIf(_)
            )
        })
    };
    let spoils = delicate || snapshots || (removes && wants_absence());
    !spoils
}

/// The steps without `size` of them from `at` on, and without those that refer to what these wrote. A step whose
/// absence could by itself spoil an order stays.
pub(super) fn without(steps: &[Step], at: usize, size: usize) -> Vec<Step> {
    let mut gone = vec![false; steps.len()];
    for (number, step) in steps.iter().enumerate().skip(at).take(size) {
        gone[number] = !step.changes() || can_go(step, steps);
    }
    loop {
        let mut lost: Vec<Version> = Vec::new();
        for (step, _) in steps.iter().zip(&gone).filter(|(_, gone)| **gone) {
            if step.changes() {
                lost.extend(step.written().filter(|version| *version != ABSENT));
            }
        }
        let mut grew = false;
        for (step, gone) in steps.iter().zip(&mut gone) {
            let refers = step.acts.iter().any(|(_, act)| match act {
                Act::Read(version)
                | Act::Is(Expected::Version(version))
                | Act::PutIf(Expected::Version(version), _)
                | Act::DeleteIf(Expected::Version(version)) => lost.contains(version),
                _ => false,
            });
            let stays = refers && step.changes() && !can_go(step, steps);
            if stays {
                return steps.to_vec();
            }
            grew |= refers && !*gone;
            *gone |= refers;
        }
        if !grew {
            return steps.iter().zip(gone).filter(|(_, gone)| !gone).map(|(step, _)| step.clone()).collect();
        }
    }
}
