//! The search for an order of the steps of a group: Wing and Gong's algorithm with Lowe's memo of dead ends
//! («Testing for linearizability», 2017) over the state of all keys.
//!
//! The steps that may come next are those called before the first pending return: the window. What keeps the search
//! short, each with the reason why an order is still found if there is one:
//!
//! 1. *Readings at once.* A step in the window that is possible and can change nothing is taken without alternative:
//!    moving it forward in any order changes no state.
//! 2. *No overwrite while needed.* A version is written once. While an answered step still has to find it, only that
//!    step may replace it; unless a snapshot that holds it can still be restored in time.
//! 3. *Unknown steps only where they can matter.* A step whose change nobody has to find can only matter to what failed
//!    a condition, or to what found a key absent.
//! 4. Candidates are tried in the order of their indexes: in a correct history that is the order. Where an index is not
//!    known, the step comes after the highest one that had been answered when it was called.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::model::{ABSENT, Act, Expected, Model, Step, Version};

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Order,
    NoOrder,
    /// More nodes than the budget allows.
    OutOfBudget,
}

/// Searches for an order of the steps, looking at no more than `budget` nodes; also says at how many it looked.
pub(super) fn search(model: &Model, budget: u64) -> (Found, u64) {
    let steps = without_idle(model);
    Search::new(model, &steps).run(budget)
}

/// The set keeps values that are random already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only 128-bit numbers are hashed");
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

/// SplitMix64, twice: from consecutive numbers to well mixed ones.
fn mix(seed: u64) -> u128 {
    let half = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(half(2 * seed + 1)) << 64 | u128::from(half(2 * seed + 2))
}

/// Shortcut 3: the steps without those that can be left out of any order.
fn without_idle(model: &Model) -> Vec<Step> {
    let mut failing: BTreeSet<usize> = BTreeSet::new();
    let mut absent: BTreeSet<usize> = BTreeSet::new();
    let mut wanted: BTreeSet<Version> = BTreeSet::new();
    for step in &model.steps {
        for (key, act) in &step.acts {
            let unseen = matches!(
                act,
                Act::Is(Expected::UnseenIndex)
                    | Act::PutIf(Expected::UnseenIndex, _)
                    | Act::DeleteIf(Expected::UnseenIndex)
            );
            if step.failed.is_some() || unseen {
                failing.insert(*key);
            }
            if let Act::Read(ABSENT) | Act::PutIf(Expected::Version(ABSENT), _) | Act::DeleteIf(_) = act {
                absent.insert(*key);
            }
            if let Act::Read(version)
            | Act::Is(Expected::Version(version))
            | Act::PutIf(Expected::Version(version), _) = act
            {
                wanted.insert(*version);
            }
        }
    }
    let matters = |(key, act): &(usize, Act)| match act {
        Act::Put(ABSENT) | Act::DeleteIf(_) => absent.contains(key) || failing.contains(key),
        Act::Put(version) | Act::PutIf(_, version) => failing.contains(key) || wanted.contains(version),
        Act::Restore(_) => true,
        Act::Read(_) | Act::Exists | Act::Is(_) | Act::Unjudged | Act::Save(_) => false,
    };
    model.steps.iter().filter(|step| step.ret.is_some() || step.acts.iter().any(matters)).cloned().collect()
}

/// Where steps probably belong in the order of indexes; `order` has their calls and returns in order of time.
fn places(steps: &[Step], order: &[(u64, bool, usize)]) -> Vec<u64> {
    let mut places = vec![0; steps.len()];
    let mut answered = 0;
    for (_, is_return, at) in order {
        if *is_return {
            answered = answered.max(steps[*at].index.unwrap_or(0));
        } else {
            places[*at] = steps[*at].index.unwrap_or(answered);
        }
    }
    places
}

#[derive(Clone, Copy)]
enum Event {
    Head,
    Call(usize),
    Return,
}

struct Frame {
    /// State and number of taken steps at the node, after its readings.
    state: Vec<Version>,
    taken: usize,
    /// The rest of the node's candidates.
    candidates: Vec<usize>,
}

struct Search<'a> {
    model: &'a Model,
    steps: &'a [Step],
    /// Per step: its index, or the one after which it comes.
    place: Vec<u64>,
    /// Per step: what it needs to find.
    needs: Vec<Vec<(usize, Version)>>,
    /// Per key: whether it can become absent.
    deleted: Vec<bool>,

    /// Calls and returns in order of time, as a list; the head is at 0.
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    call_at: Vec<usize>,
    return_at: Vec<usize>,

    state: Vec<Version>,
    scratch: Vec<Version>,
    taken: Vec<usize>,
    taken_hash: u128,
    /// Answered steps that are not taken.
    answered_left: usize,
    /// Per version: answered steps, not taken, that must find it; absence is counted per key.
    needed: Vec<u32>,
    needed_absent: Vec<u32>,
    /// Per version: the answered steps that must find it, in order of their returns; absence is listed per key.
    finders: Vec<Vec<usize>>,
    finders_absent: Vec<Vec<usize>>,
    /// Per snapshot: the steps that restore it, in order of their calls.
    restorers: Vec<Vec<usize>>,
    is_taken: Vec<bool>,
}

impl<'a> Search<'a> {
    fn new(model: &'a Model, steps: &'a [Step]) -> Search<'a> {
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
        for (at, step) in steps.iter().enumerate() {
            order.push((step.call, false, at));
            order.extend(step.ret.map(|ret| (ret, true, at)));
        }
        // Steps that touch in time are concurrent: calls go before returns.
        order.sort_unstable();
        let mut deleted = vec![false; model.keys];
        for (key, act) in steps.iter().flat_map(|step| &step.acts) {
            deleted[*key] |= matches!(act, Act::Put(ABSENT) | Act::DeleteIf(_));
        }
        let mut search = Search {
            model,
            steps,
            place: places(steps, &order),
            needs: steps.iter().map(|step| step.needs().collect()).collect(),
            deleted,
            events: vec![Event::Head],
            next: (1..=order.len()).chain([0]).collect(),
            previous: [order.len()].into_iter().chain(0..order.len()).collect(),
            call_at: vec![0; steps.len()],
            return_at: vec![0; steps.len()],
            state: model.start(),
            scratch: model.start(),
            taken: Vec::with_capacity(steps.len()),
            taken_hash: 0,
            answered_left: 0,
            needed: vec![0; model.index.len()],
            needed_absent: vec![0; model.keys],
            finders: vec![Vec::new(); model.index.len()],
            finders_absent: vec![Vec::new(); model.keys],
            restorers: vec![Vec::new(); model.snapshots],
            is_taken: vec![false; steps.len()],
        };
        search.list();
        for (_, is_return, at) in order {
            let place = search.events.len();
            if is_return {
                search.events.push(Event::Return);
                search.return_at[at] = place;
            } else {
                search.events.push(Event::Call(at));
                search.call_at[at] = place;
            }
        }
        for at in 0..steps.len() {
            search.count(at, 1);
        }
        search
    }

    /// Notes who must find what, and who restores what.
    fn list(&mut self) {
        for (at, step) in self.steps.iter().enumerate() {
            step.restored().for_each(|snapshot| self.restorers[snapshot].push(at));
            for (key, version) in self.needs[at].iter().filter(|_| step.ret.is_some()) {
                match *version {
                    ABSENT => self.finders_absent[*key].push(at),
                    version => self.finders[version as usize].push(at),
                }
            }
        }
        for finders in self.finders.iter_mut().chain(&mut self.finders_absent) {
            finders.sort_by_key(|at| self.steps[*at].ret);
        }
        for restorers in &mut self.restorers {
            restorers.sort_by_key(|at| self.steps[*at].call);
        }
    }

    fn run(mut self, budget: u64) -> (Found, u64) {
        let mut seen: HashSet<u128, BuildHasherDefault<Identity>> = HashSet::default();
        let mut frames: Vec<Frame> = Vec::new();
        let mut nodes = 0;
        loop {
            // A new node.
            self.take_readings();
            if self.answered_left == 0 {
                return (Found::Order, nodes);
            }
            nodes += 1;
            if nodes > budget {
                return (Found::OutOfBudget, nodes);
            }
            if seen.insert(self.taken_hash ^ self.state_hash()) {
                let candidates = self.candidates();
                frames.push(Frame { state: self.state.clone(), taken: self.taken.len(), candidates });
            }
            // The next branch, of this node or of the nearest one that has any left.
            loop {
                let Some(frame) = frames.last_mut() else { return (Found::NoOrder, nodes) };
                let Some(candidate) = frame.candidates.pop() else {
                    frames.pop();
                    continue;
                };
                let taken = frame.taken;
                self.state.copy_from_slice(&frame.state);
                self.untake_to(taken);
                self.take(candidate);
                let possible = self.model.apply(&self.steps[candidate], &mut self.state);
                assert!(possible, "candidates are possible");
                break;
            }
        }
    }

    fn state_hash(&self) -> u128 {
        let part = |(at, version): (usize, &Version)| mix(1 << 61 | (at as u64) << 32 | u64::from(*version));
        self.state.iter().enumerate().map(part).fold(0, |hash, part| hash ^ part)
    }

    fn count(&mut self, at: usize, by: i32) {
        if self.steps[at].ret.is_none() {
            return;
        }
        self.answered_left =
            self.answered_left.checked_add_signed(by as isize).expect("a step is taken once");
        for (key, version) in &self.needs[at] {
            let needed = match *version {
                ABSENT => &mut self.needed_absent[*key],
                version => &mut self.needed[version as usize],
            };
            *needed = needed.checked_add_signed(by).expect("a step is taken once");
        }
    }

    fn take(&mut self, at: usize) {
        for place in [self.return_at[at], self.call_at[at]] {
            if place != 0 {
                let (previous, next) = (self.previous[place], self.next[place]);
                self.next[previous] = next;
                self.previous[next] = previous;
            }
        }
        self.count(at, -1);
        self.taken_hash ^= mix(at as u64);
        self.is_taken[at] = true;
        self.taken.push(at);
    }

    fn untake_to(&mut self, length: usize) {
        while self.taken.len() > length {
            let at = self.taken.pop().expect("longer than the length");
            self.taken_hash ^= mix(at as u64);
            self.is_taken[at] = false;
            self.count(at, 1);
            for place in [self.call_at[at], self.return_at[at]] {
                if place != 0 {
                    let (previous, next) = (self.previous[place], self.next[place]);
                    self.next[previous] = place;
                    self.previous[next] = place;
                }
            }
        }
    }

    /// The first step of the window at or after a place.
    fn window(&self, place: usize) -> Option<usize> {
        match self.events[place] {
            Event::Call(at) => Some(at),
            Event::Head | Event::Return => None,
        }
    }

    /// Takes a step in the scratch state; false if it is not possible.
    fn try_step(&mut self, at: usize) -> bool {
        let needs = &self.needs[at];
        if needs.iter().any(|(key, version)| self.state[*key] != *version) {
            return false;
        }
        self.scratch.copy_from_slice(&self.state);
        self.model.apply(&self.steps[at], &mut self.scratch)
    }

    /// Shortcut 1.
    fn take_readings(&mut self) {
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            if !self.steps[at].changes() && self.try_step(at) {
                self.take(at);
                // A return may have gone: the window has grown, and begins anew.
                place = self.next[0];
            } else {
                place = self.next[place];
            }
        }
    }

    /// The changing steps worth trying at this node, the best one last.
    fn candidates(&mut self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            place = self.next[place];
            let step = &self.steps[at];
            let changes = step.changes();
            let optional = step.ret.is_none();
            if changes && self.try_step(at) && !(optional && self.scratch == self.state) && !self.buries(at) {
                candidates.push(at);
            }
        }
        let rank = |at: &usize| {
            let step = &self.steps[*at];
            let due = step.ret.unwrap_or(u64::MAX);
            // A snapshot holds what was written at its own index.
            let saves = step.acts.iter().any(|(_, act)| matches!(act, Act::Save(_)));
            (step.ret.is_none(), self.place[*at], step.index.is_none(), saves, due)
        };
        candidates.sort_by_key(|at| std::cmp::Reverse(rank(at)));
        candidates
    }

    /// Shortcut 2: whether the step, just tried, replaces what another one still has to find.
    fn buries(&self, at: usize) -> bool {
        (0..self.model.keys).any(|key| {
            let version = self.state[key];
            if self.scratch[key] == version || (version == ABSENT && self.deleted[key]) {
                return false;
            }
            let needed =
                if version == ABSENT { self.needed_absent[key] } else { self.needed[version as usize] };
            let own = self.steps[at].ret.is_some() && self.needs[at].contains(&(key, version));
            needed > u32::from(own) && !self.may_come_back(at, key, version)
        })
    }

    /// Whether a step after this one, just tried, can restore a snapshot that holds the version before the first of
    /// those who must find it has returned.
    fn may_come_back(&self, at: usize, key: usize, version: Version) -> bool {
        let finders =
            if version == ABSENT { &self.finders_absent[key] } else { &self.finders[version as usize] };
        let is_left = |step: &&usize| **step != at && !self.is_taken[**step];
        let Some(due) = finders.iter().find(is_left).and_then(|first| self.steps[*first].ret) else {
            return true; // Nobody has to find it.
        };
        (0..self.model.snapshots).any(|snapshot| {
            self.scratch[self.model.snapshot_at(snapshot) + key] == version
                && self.restorers[snapshot]
                    .iter()
                    .find(is_left)
                    .is_some_and(|first| self.steps[*first].call <= due)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(call: u64, ret: u64, index: Option<u64>) -> Step {
        Step { acts: vec![(0, Act::Put(1))], failed: None, call, ret: Some(ret), index, source: 0 }
    }

    #[test]
    fn a_step_without_an_index_comes_after_what_had_been_answered() {
        // The last one is a snapshot that took long: it is not tried before everything of unknown index.
        let steps = [put(0, 10, Some(7)), put(11, 20, None), put(21, 30, Some(9)), put(5, 40, Some(9))];
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            order.extend([(step.call, false, at), (step.ret.expect("answered"), true, at)]);
        }
        order.sort_unstable();
        assert_eq!(places(&steps, &order), [7, 7, 9, 9]);
    }
}
