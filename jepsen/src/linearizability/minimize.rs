//! Cuts a history without an order down to a few operations without an order.

use super::model::{ABSENT, Action, Expected, Model, Step, Version};
use super::search::{Found, search};
use crate::history::Nanos;

/// Search nodes, and steps set up for searches, that one minimization may take.
const EFFORT: u64 = 500_000;

pub(super) struct Minimal {
    /// Steps that have no order.
    pub(super) steps: Vec<Step>,
    /// The first answer that no order explains came at this time.
    pub(super) broken_at: Nanos,
}

/// What is left of the effort, and what every search of this history needs.
struct Effort<'a> {
    index_known: &'a [bool],
    left: u64,
}

impl Effort<'_> {
    /// Whether the steps certainly have no order.
    fn no_order(&mut self, steps: &[Step]) -> bool {
        self.left = self.left.saturating_sub(steps.len() as u64);
        let cut = Model { steps: steps.to_vec(), index_known: self.index_known.to_vec() };
        let (found, nodes) = search(&cut, self.left);
        self.left -= nodes.min(self.left);
        found == Found::NoOrder
    }
}

/// Cuts `model`, which has no order, as far as a bounded effort allows.
pub(super) fn minimize(model: &Model) -> Minimal {
    let mut effort = Effort { index_known: &model.index_known, left: EFFORT };
    let (mut steps, broken_at) = shortest_prefix(model, &mut effort);
    // A refused compare-and-set can need a write that nobody reads: without any, more can be left out.
    let wanted: Vec<Step> =
        steps.iter().filter(|step| !matches!(step.action, Action::CasRefused(_))).copied().collect();
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
    Minimal { steps, broken_at }
}

/// The history as it was when the first inexplicable answer arrived. Having an order is inherited by prefixes.
fn shortest_prefix(model: &Model, effort: &mut Effort<'_>) -> (Vec<Step>, Nanos) {
    let mut returns: Vec<Nanos> = model.steps.iter().filter_map(|step| step.ret).collect();
    returns.sort_unstable();
    // What cannot be decided within the effort counts as in order, so that the cut is never too short.
    let broken = returns.partition_point(|end| !effort.no_order(&prefix(model, *end)));
    match returns.get(broken).or(returns.last()) {
        Some(&end) => (prefix(model, end), end),
        None => (model.steps.clone(), 0),
    }
}

fn prefix(model: &Model, end: Nanos) -> Vec<Step> {
    let known = |step: &Step| step.ret.is_some_and(|ret| ret <= end);
    let pure = |step: &Step| matches!(step.action, Action::Read(_) | Action::CasRefused(_));
    model
        .steps
        .iter()
        .filter(|step| step.call <= end && (known(step) || !pure(step)))
        .map(|step| if known(step) { *step } else { Step { ret: None, ..*step } })
        .collect()
}

fn needs_absence(step: &Step) -> bool {
    matches!(step.action, Action::Read(ABSENT) | Action::Cas(Expected::Version(ABSENT), _))
}

/// Whether a change can be left out, together with all that refers to its version, without making an order of the rest
/// impossible that would else exist: the state before it then just lasts longer.
fn can_go(change: &Step, steps: &[Step]) -> bool {
    let minds = |other: &Step| match other.action {
        // What follows from an index that nobody saw cannot be said.
        Action::Cas(Expected::UnseenIndex, _) => true,
        // The refusal may need the change to come between the expected version and itself.
        Action::CasRefused(version) => {
            let written =
                |step: &&Step| matches!(step.action, Action::Put(v) | Action::Cas(_, v) if v == version);
            let before = version != ABSENT
                && steps
                    .iter()
                    .find(written)
                    .is_some_and(|write| change.ret.is_some_and(|ret| ret < write.call));
            !before && other.ret.is_some_and(|ret| change.call <= ret)
        }
        Action::Read(_) | Action::Put(_) | Action::Cas(..) => false,
    };
    // Absence is written by many: which of them a step needs cannot be said.
    let needed = change.action == Action::Put(ABSENT) && steps.iter().any(needs_absence);
    !needed && !steps.iter().any(minds)
}

/// The steps without `size` of them from `at` on, and without those that refer to what these wrote. A step whose
/// absence could by itself spoil an order stays.
pub(super) fn without(steps: &[Step], at: usize, size: usize) -> Vec<Step> {
    let mut gone = vec![false; steps.len()];
    for (number, step) in steps.iter().enumerate().skip(at).take(size) {
        gone[number] = match step.action {
            Action::Read(_) | Action::CasRefused(_) => true,
            Action::Put(_) | Action::Cas(..) => can_go(step, steps),
        };
    }
    loop {
        let lost: Vec<Version> = steps
            .iter()
            .zip(&gone)
            .filter(|(_, gone)| **gone)
            .filter_map(|(step, _)| match step.action {
                Action::Put(version) | Action::Cas(_, version) => Some(version),
                Action::Read(_) | Action::CasRefused(_) => None,
            })
            .collect();
        let mut grew = false;
        for (step, gone) in steps.iter().zip(&mut gone) {
            let refers = match step.action {
                Action::Read(version) | Action::Cas(Expected::Version(version), _) => lost.contains(&version),
                Action::CasRefused(_) | Action::Put(_) | Action::Cas(Expected::UnseenIndex, _) => false,
            };
            grew |= refers && !*gone;
            *gone |= refers;
        }
        if !grew {
            return steps.iter().zip(gone).filter(|(_, gone)| !gone).map(|(step, _)| *step).collect();
        }
    }
}
