//! Auditors: each watches one promise, in its own file, with the promise's source quoted at its top.
//!
//! Auditors of Raft see every server after each of its steps. Auditors of what clients are promised see the history of
//! all clients, at the end, through the checkers of `proconsul-jepsen`.

mod election_safety;
mod leader_completeness;
mod log_matching;
mod promises;
mod state_equality;
mod state_machine_safety;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use proconsul_core::node::Published;
use proconsul_core::raft::{Raft, Role};
use proconsul_core::store::Store;

pub use promises::{check_history, check_names, stale_slack};

use crate::runner::Violation;

/// An agent, counted from zero.
pub type Agent = usize;
/// An agent that is a server.
pub type Server = Agent;

/// All auditors of one run. Clones share them.
#[derive(Clone, Default)]
pub struct Audit(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    election_safety: election_safety::ElectionSafety,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    state_machine_safety: state_machine_safety::StateMachineSafety,
    state_equality: state_equality::StateEquality,
    violations: Vec<Violation>,
    counts: BTreeMap<String, u64>,
    roles: BTreeMap<Server, (Role, u64)>,
    /// What each running agent publishes.
    published: BTreeMap<Agent, Arc<ArcSwap<Published>>>,
}

/// Of one kind, so many violations are kept: the first ones tell the story.
const PER_AUDITOR_MAX: usize = 5;

impl Audit {
    /// Looks at a server after one of its steps.
    pub fn observe(&self, server: Server, raft: &Raft, store: &Store, applied: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        let now = (raft.role(), raft.term().0);
        if state.roles.insert(server, now) != Some(now) {
            tracing::debug!(server, role = ?now.0, term = now.1, last = raft.last_index().0, "role");
            if now.0 == Role::Leader {
                *state.counts.entry("elections".to_owned()).or_default() += 1;
            }
        }
        let checks: [(&str, Result<(), String>); 5] = [
            ("election safety", state.election_safety.observe(server, raft)),
            ("log matching", state.log_matching.observe(server, raft)),
            ("leader completeness", state.leader_completeness.observe(server, raft)),
            ("state machine safety", state.state_machine_safety.observe(server, raft)),
            ("state equality", state.state_equality.observe(server, applied, store)),
        ];
        for (auditor, result) in checks {
            if let Err(what) = result {
                report(&mut state.violations, auditor, what);
            }
        }
    }

    /// An agent's process begins.
    pub fn introduce(&self, agent: Agent, published: Arc<ArcSwap<Published>>) {
        self.lock().published.insert(agent, published);
    }

    /// What each running agent shows to its front-ends.
    #[must_use]
    pub fn published(&self) -> BTreeMap<Agent, Arc<Published>> {
        self.lock().published.iter().map(|(agent, published)| (*agent, published.load_full())).collect()
    }

    /// A server's process has ended: what it had in memory only is forgotten.
    pub fn forget(&self, server: Server) {
        let mut state = self.lock();
        state.log_matching.forget(server);
        state.leader_completeness.forget(server);
        state.state_machine_safety.forget(server);
        state.state_equality.forget(server);
        state.roles.remove(&server);
        state.published.remove(&server);
    }

    /// The server that leads in the highest term, as far as anybody has seen.
    #[must_use]
    pub fn leader(&self) -> Option<Server> {
        let state = self.lock();
        let leaders = state.roles.iter().filter(|(_, (role, _))| *role == Role::Leader);
        leaders.max_by_key(|(_, (_, term))| *term).map(|(server, _)| *server)
    }

    /// The last index that each running server has applied.
    #[must_use]
    pub fn applied(&self) -> BTreeMap<Server, u64> {
        self.lock().state_equality.applied().clone()
    }

    /// Whether so many servers run and have all applied the same. That their states are equal then is watched anyway.
    #[must_use]
    pub fn have_converged(&self, servers: usize) -> bool {
        let applied = self.applied();
        applied.len() == servers && applied.values().all(|index| Some(index) == applied.values().next())
    }

    /// Adds a violation that somebody else has found.
    pub fn report(&self, auditor: &str, what: String) {
        report(&mut self.lock().violations, auditor, what);
    }

    /// Counts something for the report.
    pub fn count(&self, what: &str, by: u64) {
        *self.lock().counts.entry(what.to_owned()).or_default() += by;
    }

    /// Whether a promise was broken already.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.lock().violations.is_empty()
    }

    /// All violations and counts so far.
    #[must_use]
    pub fn findings(&self) -> (Vec<Violation>, BTreeMap<String, u64>) {
        let state = self.lock();
        (state.violations.clone(), state.counts.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn report(violations: &mut Vec<Violation>, auditor: &str, what: String) {
    if violations.iter().filter(|it| it.auditor == auditor).count() < PER_AUDITOR_MAX {
        tracing::warn!(auditor, %what, "violation");
        violations.push(Violation { auditor: auditor.to_owned(), what });
    }
}
