//! Does a lock have one holder at a time, and does it wait out its delay?
//!
//! A client that was told «acquired» holds the lock from then on until it begins to release it, somebody begins to
//! delete the key, or its session may have ended ([`sessions::Life::certain_until`]). Inside such a certain hold nobody
//! may be told anything else. Besides:
//!
//! - the lock index of a key counts acquisitions, so that one number never belongs to two holders (it is a fencing number);
//! - after a holder's session was invalidated, nobody acquires the lock before the session's lock-delay has passed.

use std::collections::BTreeMap;

use crate::history::{History, Nanos, Op, Operation, Parts, Reply, TxnVerb};
use crate::sessions::{self, Life, Timing};
use crate::verdict::{Verdict, Violation};

/// Which promises of locks to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What clocks may do.
    pub timing: Timing,
    /// Whether lock-delay is promised to hold in this history. Consul keeps it in the leader's memory only.
    pub lock_delay: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { timing: Timing::default(), lock_delay: true }
    }
}

/// Checks every key of a history on which a lock was taken.
#[must_use]
pub fn check(history: &History, rules: Rules) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let lives = sessions::lives(history, rules.timing);
    let mut vouched = vouched(history);
    let parts = Parts::new(history);
    for (key, operations) in parts.by_key() {
        let lock = Lock::new(operations, vouched.remove(key).unwrap_or_default(), &lives);
        if let Some(session) =
            lock.acquires.iter().find_map(|o| o.op.session().filter(|s| !lives.contains_key(s)))
        {
            return Verdict::Undecided {
                why: format!("session {session} acquired {key:?}, but its creation is not in the history"),
            };
        }
        if let Err((property, summary, proof)) = lock.check(rules) {
            return Violation::verdict(property, key, summary, proof);
        }
    }
    Verdict::Valid
}

/// Per lock: sessions that held it when an operation elsewhere took effect, as that operation found out.
fn vouched(history: &History) -> BTreeMap<&str, Vec<(&str, &Operation)>> {
    let mut vouched: BTreeMap<&str, Vec<(&str, &Operation)>> = BTreeMap::new();
    for operation in history.operations().iter().filter(|operation| operation.is_done()) {
        match &operation.op {
            Op::FencedWrite { lock, session, .. } => {
                vouched.entry(lock).or_default().push((session, operation));
            }
            Op::Txn { actions, .. } => {
                for (at, action) in actions.iter().enumerate() {
                    let changed = actions[..at].iter().any(|o| o.key == action.key && o.verb.mutates());
                    if let TxnVerb::CheckSession { session } = &action.verb
                        && !changed
                    {
                        vouched.entry(&action.key).or_default().push((session, operation));
                    }
                }
            }
            _ => {}
        }
    }
    vouched
}

type Broken<'a> = (&'static str, String, Vec<&'a Operation>);

/// A session certainly holds the lock from `from` until just before `until`.
#[derive(Clone, Copy)]
struct Hold<'a> {
    from: Nanos,
    until: Nanos,
    session: &'a str,
    acquire: &'a Operation,
}

struct Lock<'a> {
    lives: &'a BTreeMap<&'a str, Life<'a>>,
    operations: Vec<&'a Operation>,
    /// Sessions that held the lock when an operation on other keys took effect.
    vouched: Vec<(&'a str, &'a Operation)>,
    /// Acknowledged acquisitions, in order of their acknowledgements.
    acquires: Vec<&'a Operation>,
    /// Per session: what may have taken the lock from it otherwise than by its end.
    releases: BTreeMap<&'a str, Vec<&'a Operation>>,
    deletes: Vec<&'a Operation>,
    /// Per session: reads that saw it as the holder, as (completed, latest invocation up to this one).
    seen: BTreeMap<&'a str, Vec<(Nanos, Nanos)>>,
}

impl<'a> Lock<'a> {
    fn new(
        operations: Vec<&'a Operation>,
        vouched: Vec<(&'a str, &'a Operation)>,
        lives: &'a BTreeMap<&'a str, Life<'a>>,
    ) -> Lock<'a> {
        let mut acquires = Vec::new();
        let mut releases: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        let mut deletes = Vec::new();
        let mut seen: BTreeMap<&str, Vec<(Nanos, Nanos)>> = BTreeMap::new();
        for operation in operations.iter().copied() {
            match &operation.op {
                Op::Acquire { .. } if operation.is_done() => acquires.push(operation),
                Op::Release { session, .. } if operation.may_be_done() => {
                    releases.entry(session).or_default().push(operation);
                }
                op if op.deletes_key() && operation.may_be_done() => deletes.push(operation),
                _ => {}
            }
            if let Some(session) = holder(operation).flatten() {
                seen.entry(session).or_default().push((operation.effect_until(), operation.invoked));
            }
        }
        acquires.sort_by_key(|acquire| (acquire.effect_until(), acquire.invoked));
        for seen in seen.values_mut() {
            seen.sort_unstable();
            let mut latest = 0;
            for (_, invoked) in seen {
                latest = latest.max(*invoked);
                *invoked = latest;
            }
        }
        Lock { lives, operations, vouched, acquires, releases, deletes, seen }
    }

    fn check(&self, rules: Rules) -> Result<(), Broken<'a>> {
        let holds = self.exclusion()?;
        self.observations(&holds)?;
        self.fencing()?;
        if rules.lock_delay { self.lock_delay(rules.timing) } else { Ok(()) }
    }

    /// The operations that may take the lock from a session in another way than by the session's end.
    fn losses(&self, session: &str) -> impl Iterator<Item = &'a Operation> {
        self.releases.get(session).into_iter().flatten().chain(&self.deletes).copied()
    }

    /// From when to when the session that acquired certainly holds the lock.
    fn certain_hold(&self, acquire: &'a Operation) -> Option<Hold<'a>> {
        let session = acquire.op.session().expect("an acquisition is for a session");
        let from = acquire.effect_until();
        let until = self
            .losses(session)
            .filter(|loss| loss.effect_until() >= acquire.invoked)
            .map(|loss| loss.invoked)
            .chain([self.lives[session].certain_until()])
            .min()
            .expect("there is at least the session's end");
        (from < until).then_some(Hold { from, until, session, acquire })
    }

    /// No two sessions certainly hold the lock at one time. The holds that result follow each other.
    fn exclusion(&self) -> Result<Vec<Hold<'a>>, Broken<'a>> {
        let mut holds: Vec<Hold<'_>> = self.acquires.iter().filter_map(|a| self.certain_hold(a)).collect();
        holds.sort_by_key(|hold| hold.from);
        let mut merged: Vec<Hold<'_>> = Vec::new();
        for hold in holds {
            match merged.last_mut() {
                Some(last) if hold.from < last.until && hold.session != last.session => {
                    let summary = format!("{} and {} hold the lock at one time", last.session, hold.session);
                    let proof = vec![
                        self.lives[last.session].renewed,
                        self.lives[hold.session].renewed,
                        last.acquire,
                        hold.acquire,
                    ];
                    return Err(("lock exclusion", summary, proof));
                }
                Some(last) if hold.from < last.until => last.until = last.until.max(hold.until),
                _ => merged.push(hold),
            }
        }
        Ok(merged)
    }

    /// What anybody was told inside a certain hold agrees with it.
    fn observations(&self, holds: &[Hold<'a>]) -> Result<(), Broken<'a>> {
        let within = |operation: &Operation| {
            let at = holds.partition_point(|hold| hold.from <= operation.invoked).checked_sub(1)?;
            Some(holds[at]).filter(|hold| operation.effect_until() < hold.until)
        };
        for (session, operation) in self.vouched.iter().copied() {
            if let Some(hold) = within(operation).filter(|hold| hold.session != session) {
                let why = format!("{session} passed for the holder while {} held the lock", hold.session);
                let proof = vec![self.lives[hold.session].renewed, hold.acquire, operation];
                return Err(("lock exclusion", why, proof));
            }
        }
        for operation in self.operations.iter().copied() {
            let Some(hold) = within(operation) else { continue };
            let why = match (&operation.op, operation.reply()) {
                (Op::Acquire { session, .. }, Some(Reply::Done { .. })) if session != hold.session => {
                    format!("{session} acquired the lock while {} held it", hold.session)
                }
                (Op::Release { session, .. }, Some(Reply::Done { .. })) if session != hold.session => {
                    format!("{session} released the lock while {} held it", hold.session)
                }
                (Op::Release { session, .. }, Some(Reply::Refused)) if session == hold.session => {
                    format!("{session} could not release the lock that it held")
                }
                _ => match holder(operation) {
                    Some(seen) if seen != Some(hold.session) => {
                        let seen = seen.unwrap_or("nobody");
                        format!("{seen} was seen as the holder while {} held the lock", hold.session)
                    }
                    _ => continue,
                },
            };
            let proof = vec![self.lives[hold.session].renewed, hold.acquire, operation];
            return Err(("lock exclusion", why, proof));
        }
        Ok(())
    }

    /// A lock index belongs to one holder, and never goes back.
    fn fencing(&self) -> Result<(), Broken<'a>> {
        // Plain writes and deletes start the count again.
        let restarts = self.operations.iter().any(|operation| match &operation.op {
            Op::Write { .. } | Op::Cas { .. } | Op::Delete | Op::DeleteCas { .. } => operation.may_be_done(),
            Op::Acquire { session, .. } => {
                self.lives.get(session.as_str()).is_some_and(|life| life.deletes_keys)
            }
            _ => false,
        });
        if restarts {
            return Ok(());
        }
        let mut reads: Vec<(u64, &Operation)> = self
            .operations
            .iter()
            .filter_map(|operation| Some((operation.observed_fresh()??.lock_index, *operation)))
            .collect();
        let mut holders: BTreeMap<u64, (&str, &Operation)> = BTreeMap::new();
        for (lock_index, read) in &reads {
            if let Some(session) = holder(read).flatten() {
                let (other, by) = *holders.entry(*lock_index).or_insert((session, read));
                if other != session {
                    let why = format!("{other} and {session} both hold with lock index {lock_index}");
                    return Err(("lock fencing", why, vec![by, read]));
                }
            }
        }
        let mut ended = reads.clone();
        ended.sort_by_key(|(_, read)| read.effect_until());
        reads.sort_by_key(|(_, read)| read.invoked);
        let mut ended = ended.into_iter().peekable();
        let mut highest: Option<(u64, &Operation)> = None;
        for (lock_index, read) in reads {
            while let Some(before) = ended.next_if(|(_, other)| other.effect_until() < read.invoked) {
                highest = highest.filter(|(highest, _)| *highest > before.0).or(Some(before));
            }
            if let Some((before, other)) = highest
                && lock_index < before
            {
                let why = format!("the lock index went back from {before} to {lock_index}");
                return Err(("lock fencing", why, vec![other, read]));
            }
        }
        Ok(())
    }

    /// After an invalidation the lock stays free for the lock-delay of the session that held it.
    fn lock_delay(&self, timing: Timing) -> Result<(), Broken<'a>> {
        for next in self.acquires.iter().copied() {
            let before = self.acquires.partition_point(|acquire| acquire.effect_until() < next.invoked);
            let Some(last) = self.acquires[..before].iter().rfind(|a| a.op.session() != next.op.session())
            else {
                continue;
            };
            let session = last.op.session().expect("an acquisition is for a session");
            let given_away = self
                .losses(session)
                .any(|loss| loss.effect_until() >= last.invoked && loss.invoked <= next.effect_until());
            if given_away {
                continue;
            }
            // The session held the lock until it ended; that was no earlier than the last sign of it.
            let life = &self.lives[session];
            let seen = self.seen.get(session).and_then(|seen| {
                let before = seen.partition_point(|(completed, _)| *completed < next.invoked);
                seen[..before].last().map(|(_, latest)| *latest)
            });
            let held = last.invoked.max(life.certain_until()).max(seen.unwrap_or(0));
            let free = held.saturating_add(timing.at_least(life.lock_delay));
            if next.effect_until() < free {
                let why = format!(
                    "acquired {} ns before the lock-delay of {} ns after the end of {session} had passed",
                    free - next.effect_until(),
                    life.lock_delay
                );
                let proof = [Some(life.created), Some(life.renewed), life.ended_by, Some(last), Some(next)];
                return Err(("lock delay", why, proof.into_iter().flatten().collect()));
            }
        }
        Ok(())
    }
}

/// The holder that a linearizable read saw; `Some(None)` for nobody.
fn holder(operation: &Operation) -> Option<Option<&str>> {
    operation.observed_fresh().map(|entry| entry.and_then(|entry| entry.session.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::{at, committed};
    use crate::history::{Consistency, Entry, Outcome, TxnAction};

    const SECOND: Nanos = 1_000_000_000;
    const TTL: Nanos = 10 * SECOND;
    const DELAY: Nanos = 5 * SECOND;

    /// Two sessions created in the first second.
    fn two_sessions() -> Vec<Operation> {
        ["s1", "s2"]
            .map(|id| {
                let op = Op::SessionCreate { ttl: Some(TTL), lock_delay: DELAY, deletes_keys: false };
                at(1, "", 1, SECOND).is(op, Outcome::Ok(Reply::Session { id: id.into() }))
            })
            .to_vec()
    }

    fn seconds(value: f64) -> Nanos {
        (value * SECOND as f64) as Nanos
    }

    fn acquire(session: &str, from: f64, to: f64, reply: Reply) -> Operation {
        let op = Op::Acquire { session: session.into(), value: format!("{session} {from}") };
        at(2, "l", seconds(from), seconds(to)).is(op, Outcome::Ok(reply))
    }

    fn acquired(session: &str, from: f64, to: f64) -> Operation {
        acquire(session, from, to, Reply::Done { index: None })
    }

    fn released(session: &str, from: f64, to: f64) -> Operation {
        let op = Op::Release { session: session.into(), value: format!("-{session} {from}") };
        at(2, "l", seconds(from), seconds(to)).done(op)
    }

    fn renewed(session: &str, from: f64, to: f64) -> Operation {
        let op = Op::SessionRenew { session: session.into() };
        at(3, "", seconds(from), seconds(to)).is(op, Outcome::Ok(Reply::Session { id: session.into() }))
    }

    fn destroyed(session: &str, from: f64, to: f64) -> Operation {
        at(3, "", seconds(from), seconds(to)).done(Op::SessionDestroy { session: session.into() })
    }

    fn seen(session: Option<&str>, lock_index: u64, from: f64, to: f64) -> Operation {
        let entry = Entry {
            value: "x".into(),
            modify_index: seconds(from),
            lock_index,
            session: session.map(str::to_owned),
        };
        at(4, "l", seconds(from), seconds(to)).read_entry(Some(entry), seconds(from))
    }

    fn verdict(more: impl IntoIterator<Item = Operation>) -> Verdict {
        check(&two_sessions().into_iter().chain(more).collect(), Rules::default())
    }

    #[track_caller]
    fn passes(more: impl IntoIterator<Item = Operation>) {
        let verdict = verdict(more);
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(more: impl IntoIterator<Item = Operation>, property: &str, why: &str) {
        let verdict = verdict(more);
        let violation = verdict.violation().unwrap_or_else(|| panic!("{verdict}"));
        assert!(violation.property == property && violation.summary.contains(why), "{verdict}");
    }

    #[test]
    fn a_lock_passes_from_hand_to_hand() {
        passes([
            acquired("s1", 2.0, 2.1),
            acquire("s2", 2.2, 2.3, Reply::Refused),
            seen(Some("s1"), 1, 2.4, 2.5),
            released("s1", 3.0, 3.2),
            acquired("s2", 3.1, 3.3),
            seen(Some("s2"), 2, 3.4, 3.5),
        ]);
    }

    #[test]
    fn a_split_brain_lock_fails() {
        fails([acquired("s1", 2.0, 2.1), acquired("s2", 3.0, 3.1)], "lock exclusion", "at one time");
        fails(
            [acquired("s1", 2.0, 2.1), renewed("s1", 8.0, 8.1), acquired("s2", 15.0, 15.1)],
            "lock exclusion",
            "s2 acquired the lock while s1 held it",
        );
    }

    #[test]
    fn a_lock_may_change_hands_once_its_session_can_have_ended() {
        let rules = Rules { lock_delay: false, ..Rules::default() };
        let history: History = two_sessions()
            .into_iter()
            .chain([acquired("s1", 2.0, 2.1), renewed("s2", 5.0, 5.1), acquired("s2", 10.0, 10.1)])
            .collect();
        assert!(check(&history, rules).is_valid());
    }

    #[test]
    fn an_unknown_release_makes_a_hold_uncertain() {
        let mut release = released("s1", 2.5, 2.6);
        release.outcome = Outcome::Unknown;
        passes([acquired("s1", 2.0, 2.1), release, acquired("s2", 4.0, 4.1)]);
    }

    #[test]
    fn a_lost_lock_fails() {
        fails(
            [acquired("s1", 2.0, 2.1), seen(None, 1, 3.0, 3.1)],
            "lock exclusion",
            "nobody was seen as the holder while s1",
        );
        fails(
            [acquired("s1", 2.0, 2.1), seen(Some("s2"), 1, 3.0, 3.1)],
            "lock exclusion",
            "s2 was seen as the holder while s1",
        );
        let mut refused = released("s1", 3.0, 3.1);
        refused.outcome = Outcome::Ok(Reply::Refused);
        fails([acquired("s1", 2.0, 2.1), refused], "lock exclusion", "could not release");
        fails(
            [acquired("s1", 2.0, 2.1), released("s2", 3.0, 3.1)],
            "lock exclusion",
            "s2 released the lock while s1",
        );
    }

    #[test]
    fn who_passes_for_the_holder_is_the_holder() {
        let write = |session: &str, from, to| {
            let (lock, value) = ("l".to_owned(), format!("by {session} {from}"));
            let op = Op::FencedWrite { lock, session: session.into(), fence: 1, value };
            at(5, "r", seconds(from), seconds(to)).done(op)
        };
        let checked = |session: &str, from, to| {
            let actions =
                vec![TxnAction { key: "l".into(), verb: TxnVerb::CheckSession { session: session.into() } }];
            let op = Op::Txn { actions, consistency: Consistency::Linearizable };
            at(5, "", seconds(from), seconds(to)).is(op, committed(vec![None], 0))
        };
        passes([acquired("s1", 2.0, 2.1), write("s1", 2.2, 2.3), checked("s1", 2.4, 2.5)]);
        passes([acquired("s1", 2.0, 2.1), write("s2", 1.9, 2.3)]);
        fails(
            [acquired("s1", 2.0, 2.1), write("s2", 2.2, 2.3)],
            "lock exclusion",
            "s2 passed for the holder",
        );
        fails(
            [acquired("s1", 2.0, 2.1), checked("s2", 2.2, 2.3)],
            "lock exclusion",
            "s2 passed for the holder",
        );
    }

    #[test]
    fn a_deleted_lock_may_be_taken() {
        passes([
            acquired("s1", 2.0, 2.1),
            at(9, "l", seconds(3.0), seconds(3.1)).done(Op::Delete),
            acquired("s2", 4.0, 4.1),
        ]);
    }

    #[test]
    fn a_fencing_number_used_twice_fails() {
        let hand_over = [acquired("s1", 2.0, 2.1), released("s1", 3.0, 3.1), acquired("s2", 3.2, 3.3)];
        let reads = [seen(Some("s1"), 1, 2.2, 2.3), seen(Some("s2"), 1, 3.4, 3.5)];
        fails(hand_over.clone().into_iter().chain(reads), "lock fencing", "both hold with lock index 1");
        let reads = [seen(Some("s1"), 2, 2.2, 2.3), seen(None, 1, 3.15, 3.16)];
        fails(hand_over.clone().into_iter().chain(reads), "lock fencing", "went back from 2 to 1");
        // A plain write starts the count again.
        let reads = [seen(Some("s1"), 1, 2.2, 2.3), seen(Some("s2"), 1, 3.4, 3.5)];
        let write = at(8, "l", seconds(2.4), seconds(2.5)).write("plain");
        passes(hand_over.into_iter().chain(reads).chain([write]));
    }

    #[test]
    fn lock_delay_is_waited_out_after_a_destroy() {
        let start = [acquired("s1", 2.0, 2.1), destroyed("s1", 3.0, 3.5)];
        passes(start.clone().into_iter().chain([acquired("s2", 7.9, 8.1)]));
        fails(start.into_iter().chain([acquired("s2", 7.0, 7.9)]), "lock delay", "before the lock-delay");
    }

    #[test]
    fn lock_delay_counts_from_the_last_sign_of_the_holder() {
        let expired = [acquired("s1", 2.0, 2.1), renewed("s2", 9.0, 9.1), seen(Some("s1"), 1, 12.0, 12.1)];
        fails(expired.clone().into_iter().chain([acquired("s2", 16.0, 16.9)]), "lock delay", "lock-delay");
        passes(expired.into_iter().chain([acquired("s2", 16.0, 17.1)]));
    }

    #[test]
    fn a_release_needs_no_lock_delay() {
        passes([
            acquired("s1", 2.0, 2.1),
            released("s1", 2.5, 2.6),
            destroyed("s1", 2.7, 2.8),
            acquired("s2", 3.0, 3.1),
        ]);
    }

    #[test]
    fn a_session_from_nowhere_is_no_pass() {
        assert!(matches!(verdict([acquired("s9", 2.0, 2.1)]), Verdict::Undecided { .. }));
    }
}
