//! The search for an order: Wing and Gong's algorithm with Lowe's memo of dead ends («Testing for linearizability»,
//! 2017), and shortcuts that drop only branches which cannot be the sole way to an order.
//!
//! A search node is (the set of steps taken, the state); what was not found with a set is not found with a set that
//! has more optional steps. The steps that may come next are those called before the first
//! pending return: the window. The shortcuts, each with the reason why an order is still found if there is one:
//!
//! 1. *Pure steps at once.* A read or refused compare-and-set in the window that is possible in this state is taken
//!    without alternative: moving it forward in any order changes no state.
//! 2. *No overwrite while needed.* A version is written once. As long as an answered step still has to meet it, only
//!    that step may replace it.
//! 3. *Unknown steps only on demand.* A step of unknown outcome need not happen. It is taken only if some step in the
//!    window is impossible before it and possible after it; in an order with as few unknown steps as can be, each as
//!    late as can be, exactly such a step follows. Those that nobody can ever demand are dropped beforehand.
//! 4. *Other changes on demand or when due.* The same goes for an answered change to a version that answered steps still
//!    have to meet, unless its own return is the next: what follows it in an order is either possible without it, in
//!    the window, and therefore already taken, or it is a demand.
//! 5. *Unseen writes are alike.* Versions that no step refers to are one state. Of several such writes (likewise of
//!    several deletes) in the window, the one that returns first is tried: exchanging it with another one later in an
//!    order is always allowed.
//! 6. *Unseen writes vanish under the next write.* When a plain write is taken, unseen writes in the window go directly
//!    before it, and without it they wait until they are due (unless an unknown write, which itself waits for a demand,
//!    is in the window). The only step that could miss such a write later is a
//!    refused compare-and-set that needs the state to be something else than what a step taken before the unseen
//!    write's return made it; then the write is an ordinary candidate.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::model::{ABSENT, Action, Expected, Model, Step, Version, apply};

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
    Search::new(model).run(budget)
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

/// SplitMix64: from consecutive numbers to well mixed ones.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn mix_wide(seed: u64) -> u128 {
    u128::from(mix(2 * seed + 1)) << 64 | u128::from(mix(2 * seed + 2))
}

/// A place in the list of calls and returns. 0 is the head.
type Place = usize;

#[derive(Clone, Copy)]
enum Event {
    Head,
    Call(usize),
    Return,
}

struct Frame {
    /// State and number of taken steps at the node, after its pure steps.
    state: Version,
    taken: usize,
    /// The rest of the node's candidates: `candidates[next..]`, as frames are stacked.
    next: usize,
    end: usize,
}

struct Search {
    steps: Vec<Step>,
    index_known: Vec<bool>,
    /// The version that stands for all versions to which no step refers.
    unseen: Option<Version>,
    /// Whether a delete can bring absence back.
    absence_returns: bool,

    events: Vec<Event>,
    next: Vec<Place>,
    previous: Vec<Place>,
    /// Per step: the places of its call and its return; 0 for «no return».
    call_at: Vec<Place>,
    return_at: Vec<Place>,

    state: Version,
    /// Steps taken, in order.
    taken: Vec<usize>,
    /// XOR over the taken steps, but for optional ones.
    taken_hash: u128,
    /// Unknown deletes and unknown unseen writes taken. They are taken in the order of their calls, so that the numbers
    /// say which.
    options_taken: [u32; 2],
    /// Answered steps that are not taken.
    answered_left: usize,
    /// Per version: answered steps not taken that are possible only in it.
    needed: Vec<u32>,
    /// Per version: refused compare-and-sets not taken that expected it.
    refused: Vec<u32>,
}

impl Search {
    fn new(model: &Model) -> Search {
        let versions = model.index_known.len();
        let mut steps = model.steps.clone();
        drop_undemanded(&mut steps, &model.index_known);
        let referred = referred_versions(&steps, &model.index_known);
        let unseen = (1..versions).find(|version| !referred[*version]).map(|version| version as Version);
        if let Some(unseen) = unseen {
            for step in &mut steps {
                if let Action::Put(version) | Action::Cas(_, version) = &mut step.action
                    && *version != ABSENT
                    && !referred[*version as usize]
                {
                    *version = unseen;
                }
            }
        }

        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
        for (at, step) in steps.iter().enumerate() {
            order.push((step.call, false, at));
            if let Some(ret) = step.ret {
                order.push((ret, true, at));
            }
        }
        // Steps that touch in time are concurrent: calls go before returns.
        order.sort_unstable();
        let mut search = Search {
            absence_returns: steps.iter().any(|step| step.action == Action::Put(ABSENT)),
            unseen,
            index_known: model.index_known.clone(),
            events: vec![Event::Head],
            next: (1..=order.len()).chain([0]).collect(),
            previous: [order.len()].into_iter().chain(0..order.len()).collect(),
            call_at: vec![0; steps.len()],
            return_at: vec![0; steps.len()],
            state: ABSENT,
            taken: Vec::with_capacity(steps.len()),
            taken_hash: 0,
            options_taken: [0; 2],
            answered_left: 0,
            needed: vec![0; versions],
            refused: vec![0; versions],
            steps,
        };
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
        for at in 0..search.steps.len() {
            search.count(at, 1);
        }
        search
    }

    fn run(mut self, budget: u64) -> (Found, u64) {
        // Per node, without its optional steps: with how many of those it was looked at. With more it is no better.
        let mut seen: HashMap<u128, [u32; 2], BuildHasherDefault<Identity>> = HashMap::default();
        let mut candidates: Vec<usize> = Vec::new();
        let mut frames: Vec<Frame> = Vec::new();
        let mut nodes = 0;
        loop {
            // A new node.
            self.take_pure();
            if self.answered_left == 0 {
                return (Found::Order, nodes);
            }
            nodes += 1;
            if nodes > budget {
                return (Found::OutOfBudget, nodes);
            }
            // Numbers above any step's stand for states.
            let node = self.taken_hash ^ mix_wide((1 << 40) + u64::from(self.state));
            let options = self.options_taken;
            let known = seen.entry(node).or_insert([u32::MAX; 2]);
            if options[0] < known[0] || options[1] < known[1] {
                *known = options;
                let start = candidates.len();
                self.candidates(&mut candidates);
                let end = candidates.len();
                frames.push(Frame { state: self.state, taken: self.taken.len(), next: start, end });
            }
            // The next branch, of this node or of the nearest one that has any left.
            loop {
                let Some(frame) = frames.last_mut() else { return (Found::NoOrder, nodes) };
                if frame.next == frame.end {
                    frames.pop();
                    candidates.truncate(frames.last().map_or(0, |frame| frame.end));
                    continue;
                }
                let candidate = candidates[frame.next];
                frame.next += 1;
                let (state, taken) = (frame.state, frame.taken);
                self.untake_to(taken);
                self.state = state;
                if matches!(self.steps[candidate].action, Action::Put(_)) {
                    self.take_vanishing(candidate);
                }
                self.take(candidate);
                self.state = apply(self.steps[candidate].action, self.state, &self.index_known)
                    .expect("candidates are possible, and vanishing writes come only before plain ones");
                break;
            }
        }
    }

    /// The step only possible in one version: which one.
    fn needs(&self, at: usize) -> Option<Version> {
        match self.steps[at].action {
            Action::Read(version) | Action::Cas(Expected::Version(version), _) => Some(version),
            Action::CasRefused(_) | Action::Put(_) | Action::Cas(Expected::UnseenIndex, _) => None,
        }
    }

    /// Which kind of optional step this is: one that need not be taken and has equals.
    fn option(&self, at: usize) -> Option<usize> {
        match self.steps[at].action {
            _ if self.steps[at].ret.is_some() => None,
            Action::Put(ABSENT) => Some(0),
            Action::Put(_) if self.is_unseen_put(at) => Some(1),
            _ => None,
        }
    }

    fn is_unseen_put(&self, at: usize) -> bool {
        matches!(self.steps[at].action, Action::Put(version) if Some(version) == self.unseen)
    }

    fn count(&mut self, at: usize, by: i32) {
        if let Action::CasRefused(version) = self.steps[at].action {
            let refused = &mut self.refused[version as usize];
            *refused = refused.checked_add_signed(by).expect("a step is taken once");
        }
        if self.steps[at].ret.is_some() {
            if let Some(version) = self.needs(at) {
                let needed = &mut self.needed[version as usize];
                *needed = needed.checked_add_signed(by).expect("a step is taken once");
            }
            self.answered_left =
                self.answered_left.checked_add_signed(by as isize).expect("a step is taken once");
        }
    }

    fn unlink(&mut self, place: Place) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn relink(&mut self, place: Place) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }

    fn take(&mut self, at: usize) {
        if self.return_at[at] != 0 {
            self.unlink(self.return_at[at]);
        }
        self.unlink(self.call_at[at]);
        self.count(at, -1);
        match self.option(at) {
            Some(option) => self.options_taken[option] += 1,
            None => self.taken_hash ^= mix_wide(at as u64),
        }
        self.taken.push(at);
    }

    fn untake_to(&mut self, length: usize) {
        while self.taken.len() > length {
            let at = self.taken.pop().expect("longer than a length");
            match self.option(at) {
                Some(option) => self.options_taken[option] -= 1,
                None => self.taken_hash ^= mix_wide(at as u64),
            }
            self.count(at, 1);
            self.relink(self.call_at[at]);
            if self.return_at[at] != 0 {
                self.relink(self.return_at[at]);
            }
        }
    }

    /// The first step of the window at or after a place.
    fn window(&self, place: Place) -> Option<usize> {
        match self.events[place] {
            Event::Call(at) => Some(at),
            Event::Head | Event::Return => None,
        }
    }

    /// Shortcut 1, and 6 for a state that is unseen already.
    fn take_pure(&mut self) {
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            let step = self.steps[at];
            let now = match step.action {
                Action::Read(version) => version == self.state,
                Action::CasRefused(version) => version != self.state,
                Action::Put(version) => {
                    Some(version) == self.unseen
                        && version == self.state
                        && step.ret.is_some()
                        && self.may_vanish(at)
                }
                Action::Cas(..) => false,
            };
            if now {
                self.take(at);
            }
            place = self.next[place];
        }
    }

    /// Shortcut 6: takes the unseen writes that vanish under `under`.
    fn take_vanishing(&mut self, under: usize) {
        if self.unseen.is_none() || self.is_unseen_put(under) {
            return;
        }
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            if self.steps[at].ret.is_some() && self.is_unseen_put(at) && self.may_vanish(at) {
                self.take(at);
            }
            place = self.next[place];
        }
    }

    /// Whether no refused compare-and-set can depend on this unseen write coming later.
    fn may_vanish(&self, write: usize) -> bool {
        let mut place = self.next[0];
        while place != self.return_at[write] {
            if let Event::Call(at) = self.events[place]
                && let Action::Put(version) | Action::Cas(_, version) = self.steps[at].action
                && self.refused[version as usize] > 0
            {
                return false;
            }
            place = self.next[place];
        }
        true
    }

    /// Appends the changing steps worth trying at this node, in order of their returns.
    fn candidates(&self, into: &mut Vec<usize>) {
        let start = into.len();
        let returns = |at: usize| self.steps[at].ret.unwrap_or(u64::MAX);
        let mut unseen_put: Option<usize> = None;
        let mut delete: Option<usize> = None;
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            place = self.next[place];
            let step = self.steps[at];
            if matches!(step.action, Action::Read(_) | Action::CasRefused(_)) {
                continue;
            }
            let Some(state) = apply(step.action, self.state, &self.index_known) else { continue };
            if !self.may_leave_state(at) {
                continue;
            }
            let may_wait = step.ret.is_none()
                || (state != ABSENT && self.needed[state as usize] > 0)
                || (self.is_unseen_put(at) && self.may_vanish(at) && !self.has_unknown_put());
            if may_wait && !self.is_demanded(at, state) && !self.is_due(at) {
                continue;
            }
            // Shortcut 5.
            let alike = match step.action {
                Action::Put(ABSENT) => Some(&mut delete),
                Action::Put(_) if self.is_unseen_put(at) => Some(&mut unseen_put),
                _ => None,
            };
            match alike {
                Some(first) if first.is_some_and(|first| returns(first) <= returns(at)) => {}
                Some(first) => *first = Some(at),
                None => into.push(at),
            }
        }
        into.extend(delete);
        into.extend(unseen_put);
        into[start..].sort_by_key(|at| returns(*at));
    }

    /// Shortcut 2.
    fn may_leave_state(&self, at: usize) -> bool {
        if self.state == ABSENT && self.absence_returns {
            return true;
        }
        let own = self.steps[at].ret.is_some() && self.needs(at) == Some(self.state);
        self.needed[self.state as usize] == u32::from(own)
    }

    /// Whether an unknown write or delete is in the window: it may be in demand only after an unseen write.
    fn has_unknown_put(&self) -> bool {
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            if self.steps[at].ret.is_none() && matches!(self.steps[at].action, Action::Put(_)) {
                return true;
            }
            place = self.next[place];
        }
        false
    }

    /// Whether the step's return ends the window.
    fn is_due(&self, at: usize) -> bool {
        let mut place = self.next[0];
        while self.window(place).is_some() {
            place = self.next[place];
        }
        place != 0 && place == self.return_at[at]
    }

    /// Shortcuts 3 and 4: whether a step in the window is possible in `state` and is not in the present one.
    fn is_demanded(&self, change: usize, state: Version) -> bool {
        let possible = |at: usize, state| apply(self.steps[at].action, state, &self.index_known).is_some();
        let mut place = self.next[0];
        while let Some(at) = self.window(place) {
            if at != change && possible(at, state) && !possible(at, self.state) {
                return true;
            }
            place = self.next[place];
        }
        false
    }
}

/// Per version: whether a step's possibility depends on it.
fn referred_versions(steps: &[Step], index_known: &[bool]) -> Vec<bool> {
    let mut referred = vec![false; index_known.len()];
    for step in steps {
        match step.action {
            Action::Read(version)
            | Action::CasRefused(version)
            | Action::Cas(Expected::Version(version), _) => referred[version as usize] = true,
            Action::Cas(Expected::UnseenIndex, _) => {
                referred.iter_mut().zip(index_known).for_each(|(referred, known)| *referred |= !known);
            }
            Action::Put(_) => {}
        }
    }
    referred
}

/// Drops the unknown steps to whose result no step refers, until there is none left (one may have been referred to only
/// by another): without one, the state before it just lasts longer. Only a refused compare-and-set may have needed that
/// state to end; what such a step may follow is kept.
fn drop_undemanded(steps: &mut Vec<Step>, index_known: &[bool]) {
    let last_refused = steps
        .iter()
        .filter(|step| matches!(step.action, Action::CasRefused(_)))
        .map(|step| step.ret.unwrap_or(u64::MAX))
        .max();
    loop {
        let before = steps.len();
        let referred = referred_versions(steps, index_known);
        steps.retain(|step| match step.action {
            Action::Put(version) | Action::Cas(_, version) => {
                step.ret.is_some()
                    || referred[version as usize]
                    || last_refused.is_some_and(|refused| step.call <= refused)
            }
            Action::Read(_) | Action::CasRefused(_) => true,
        });
        if steps.len() == before {
            return;
        }
    }
}
