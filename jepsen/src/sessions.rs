//! Do sessions live as long as they were promised to?
//!
//! A session with a TTL does not end before the TTL has passed since the last acknowledged renewal began, unless it was
//! destroyed or what it is bound to went away (Consul, «Sessions»: the TTL is a lower bound). And a session that was
//! seen to have ended never comes back.

use std::collections::BTreeMap;

use crate::history::{Consistency, History, Nanos, Op, Operation, Outcome, Reply};
use crate::verdict::{Verdict, Violation};

const PROPERTY: &str = "session lifetime";

/// What clocks are allowed to do to promises about durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// How much faster than the history's clock a server's clock may run, in parts per million.
    pub drift_ppm: u64,
    /// How much earlier than promised something may happen on top, in nanoseconds.
    pub slack: Nanos,
}

impl Timing {
    /// The time, on the history's clock, that must pass when a server promised this duration.
    #[must_use]
    pub fn at_least(&self, duration: Nanos) -> Nanos {
        let shorter = u128::from(duration) * 1_000_000 / (1_000_000 + u128::from(self.drift_ppm));
        u64::try_from(shorter).expect("no longer than the duration").saturating_sub(self.slack)
    }
}

/// What a history says about one session.
#[derive(Clone, Debug)]
pub struct Life<'a> {
    /// The operation that created it.
    pub created: &'a Operation,
    /// Its TTL.
    pub ttl: Option<Nanos>,
    /// How long locks stay free after its end.
    pub lock_delay: Nanos,
    /// Whether its end deletes the keys that it holds.
    pub deletes_keys: bool,
    /// The last acknowledged renewal (or the creation): the one that began last.
    pub renewed: &'a Operation,
    /// Until when its TTL keeps it alive; no bound without TTL.
    pub kept_until: Nanos,
    /// The first operation that may end it early: a destroy, or something done to what it is bound to.
    pub ended_by: Option<&'a Operation>,
}

impl Life<'_> {
    /// The session had certainly not ended before this moment.
    #[must_use]
    pub fn certain_until(&self) -> Nanos {
        self.kept_until.min(self.ended_by.map_or(Nanos::MAX, |operation| operation.invoked))
    }
}

/// The lives of all sessions whose creation was acknowledged.
#[must_use]
pub fn lives(history: &History, timing: Timing) -> BTreeMap<&str, Life<'_>> {
    let kept = |ttl: Option<Nanos>, since: Nanos| {
        ttl.map_or(Nanos::MAX, |ttl| since.saturating_add(timing.at_least(ttl)))
    };
    let mut lives: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    for operation in history.operations() {
        if let (Op::SessionCreate { ttl, lock_delay, deletes_keys }, Some(Reply::Session { id })) =
            (&operation.op, operation.reply())
        {
            let life = Life {
                created: operation,
                ttl: *ttl,
                lock_delay: *lock_delay,
                deletes_keys: *deletes_keys,
                renewed: operation,
                kept_until: kept(*ttl, operation.invoked),
                ended_by: None,
            };
            lives.insert(id, life);
        }
    }
    for operation in history.operations() {
        let Some(life) = operation.op.session().and_then(|session| lives.get_mut(session)) else { continue };
        match operation.op {
            Op::SessionRenew { .. } if is_alive(operation) && operation.invoked > life.renewed.invoked => {
                life.renewed = operation;
                life.kept_until = kept(life.ttl, operation.invoked);
            }
            Op::SessionDestroy { .. } | Op::SessionUndermine { .. }
                if operation.outcome != Outcome::Failed
                    && life.ended_by.is_none_or(|other| operation.invoked < other.invoked) =>
            {
                life.ended_by = Some(operation);
            }
            _ => {}
        }
    }
    lives
}

/// Checks every session of a history.
#[must_use]
pub fn check(history: &History, timing: Timing) -> Verdict {
    if let Err(error) = history.validate() {
        return Verdict::Undecided { why: error.to_string() };
    }
    let lives = lives(history, timing);
    // The first moment by which each session was known to have ended, and who knew.
    let mut gone: BTreeMap<&str, &Operation> = BTreeMap::new();
    for operation in history.operations() {
        let Some((id, life)) = operation.op.session().and_then(|id| lives.get_key_value(id)) else {
            continue;
        };
        if is_gone(operation) {
            if operation.effect_until() < life.certain_until() {
                let summary = match life.ttl {
                    Some(ttl) => format!("it ended within its TTL of {ttl} ns, for no reason"),
                    None => "it ended, though it has no TTL, for no reason".to_owned(),
                };
                let proof = [Some(life.created), Some(life.renewed), life.ended_by, Some(operation)];
                return Violation::verdict(PROPERTY, id, summary, proof.into_iter().flatten());
            }
            gone.entry(id)
                .and_modify(|first| {
                    if operation.effect_until() < first.effect_until() {
                        *first = operation;
                    }
                })
                .or_insert(operation);
        }
        // A destroyed session has ended once that is acknowledged.
        if matches!(operation.op, Op::SessionDestroy { .. }) && operation.is_done() {
            let first = gone.entry(id).or_insert(operation);
            if operation.effect_until() < first.effect_until() {
                *first = operation;
            }
        }
    }
    for operation in history.operations() {
        let Some((id, ended)) = operation.op.session().and_then(|id| gone.get_key_value(id)) else {
            continue;
        };
        if is_alive(operation) && ended.effect_until() < operation.invoked {
            let summary = "it was alive after it had ended".to_owned();
            return Violation::verdict(PROPERTY, id, summary, [lives[id].created, ended, operation]);
        }
    }
    Verdict::Valid
}

/// Whether the operation found its session alive, at some time between invocation and completion.
fn is_alive(operation: &Operation) -> bool {
    matches!(
        (&operation.op, operation.reply()),
        (
            Op::SessionRead { consistency: Consistency::Linearizable, .. } | Op::SessionRenew { .. },
            Some(Reply::Session { .. } | Reply::Done { .. }),
        ) | (Op::Acquire { .. }, Some(Reply::Done { .. }))
    )
}

/// Whether the operation found that its session did not exist.
fn is_gone(operation: &Operation) -> bool {
    match operation.op {
        // An old state may be one from before the creation.
        Op::SessionRead { consistency: Consistency::Stale | Consistency::StaleWithin(_), .. } => false,
        _ => operation.reply() == Some(&Reply::NoSession),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::at;

    const SECOND: Nanos = 1_000_000_000;

    fn create(ttl: Option<Nanos>) -> Operation {
        at(1, "", SECOND, SECOND + 9).is(
            Op::SessionCreate { ttl, lock_delay: 0, deletes_keys: false },
            Outcome::Ok(Reply::Session { id: "s".into() }),
        )
    }

    fn renew(from: Nanos, to: Nanos) -> Operation {
        let session = || "s".to_owned();
        at(1, "", from, to)
            .is(Op::SessionRenew { session: session() }, Outcome::Ok(Reply::Session { id: session() }))
    }

    fn read(from: Nanos, to: Nanos, alive: bool) -> Operation {
        let reply = if alive { Reply::Session { id: "s".into() } } else { Reply::NoSession };
        let consistency = Consistency::Linearizable;
        at(2, "", from, to).is(Op::SessionRead { session: "s".into(), consistency }, Outcome::Ok(reply))
    }

    fn destroy(from: Nanos, to: Nanos) -> Operation {
        at(3, "", from, to).done(Op::SessionDestroy { session: "s".into() })
    }

    #[track_caller]
    fn passes(operations: Vec<Operation>) {
        let verdict = check(&operations.into(), Timing::default());
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[track_caller]
    fn fails(operations: Vec<Operation>, why: &str) {
        let verdict = check(&operations.into(), Timing::default());
        assert!(verdict.violation().is_some_and(|v| v.summary.contains(why)), "{verdict}");
    }

    #[test]
    fn a_session_may_end_after_its_ttl() {
        passes(vec![create(Some(10 * SECOND)), read(11 * SECOND, 11 * SECOND, false)]);
        passes(vec![
            create(Some(10 * SECOND)),
            renew(5 * SECOND, 6 * SECOND),
            read(14 * SECOND, 15 * SECOND, false),
        ]);
    }

    #[test]
    fn a_session_that_ends_early_fails() {
        fails(vec![create(Some(10 * SECOND)), read(10 * SECOND, 11 * SECOND - 1, false)], "within its TTL");
        fails(
            vec![
                create(Some(10 * SECOND)),
                renew(5 * SECOND, 6 * SECOND),
                read(14 * SECOND, 15 * SECOND - 1, false),
            ],
            "within its TTL",
        );
        fails(vec![create(None), read(99 * SECOND, 100 * SECOND, false)], "has no TTL");
    }

    #[test]
    fn a_refused_renewal_is_an_observation_too() {
        let refused = at(1, "", 3 * SECOND, 4 * SECOND)
            .is(Op::SessionRenew { session: "s".into() }, Outcome::Ok(Reply::NoSession));
        fails(vec![create(Some(10 * SECOND)), refused], "within its TTL");
    }

    #[test]
    fn an_unacknowledged_renewal_promises_nothing() {
        let lost =
            at(1, "", 5 * SECOND, 6 * SECOND).is(Op::SessionRenew { session: "s".into() }, Outcome::Unknown);
        passes(vec![create(Some(10 * SECOND)), lost, read(11 * SECOND, 12 * SECOND, false)]);
    }

    #[test]
    fn a_destroyed_or_undermined_session_may_end_at_once() {
        passes(vec![
            create(Some(10 * SECOND)),
            destroy(2 * SECOND, 9 * SECOND),
            read(2 * SECOND, 2 * SECOND, false),
        ]);
        let undermine = at(9, "", 2 * SECOND, 3 * SECOND)
            .is(Op::SessionUndermine { session: "s".into() }, Outcome::Unknown);
        passes(vec![create(None), undermine, read(2 * SECOND, 4 * SECOND, false)]);
        fails(
            vec![
                create(Some(10 * SECOND)),
                destroy(5 * SECOND, 6 * SECOND),
                read(2 * SECOND, 4 * SECOND, false),
            ],
            "within its TTL",
        );
    }

    #[test]
    fn a_session_that_comes_back_fails() {
        fails(
            vec![create(None), destroy(2 * SECOND, 3 * SECOND), read(4 * SECOND, 5 * SECOND, true)],
            "alive after it had ended",
        );
        passes(vec![create(None), destroy(2 * SECOND, 3 * SECOND), read(3 * SECOND, 5 * SECOND, true)]);
        fails(
            vec![
                create(Some(SECOND)),
                read(4 * SECOND, 5 * SECOND, false),
                at(4, "l", 6 * SECOND, 7 * SECOND)
                    .done(Op::Acquire { session: "s".into(), value: "x".into() }),
            ],
            "alive after it had ended",
        );
    }

    #[test]
    fn a_fast_clock_is_allowed_for() {
        let history: History =
            vec![create(Some(10 * SECOND)), read(10 * SECOND, 11 * SECOND - SECOND / 1_000, false)].into();
        assert!(!check(&history, Timing::default()).is_valid());
        assert!(check(&history, Timing { drift_ppm: 200, slack: 0 }).is_valid());
        assert!(check(&history, Timing { drift_ppm: 0, slack: SECOND / 1_000 }).is_valid());
    }
}
