//! What the holder of a lock does while its child runs: pure decisions, no clock and no process of its own.
//!
//! The servers end a session at the earliest one TTL after they took its last renewal. The holder counts the same TTL from
//! the moment at which it *sent* the last renewal that was acknowledged, which is earlier; so by its own clock, whatever
//! the agent, the network and the servers do meanwhile, the child has ended before anybody else can hold the lock. The
//! last part of that time belongs to the child: it is asked to end, and killed when the time is over.

use std::collections::BTreeSet;
use std::time::Duration;

/// A moment, as the time since the machine was started; time in which the machine was suspended counts.
pub type Moment = Duration;

/// How long the child has between the request to end and its death.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long to wait before a renewal that failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Wake,
    /// A renewal was acknowledged.
    Renewed {
        /// When it was sent.
        sent: Moment,
    },
    /// A renewal was not acknowledged: nobody knows whether it had an effect.
    NotRenewed,
    /// The session does not exist any more.
    SessionGone,
    /// The lock is as it should be.
    Seen,
    /// Somebody else has the lock, or nobody.
    Lost,
    /// The lock could not be looked at.
    Unseen,
    /// A signal that is meant to end this program.
    Stop,
    /// The child has ended.
    Exited,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Renew the session. Its end is told by one [`Input`].
    Renew,
    /// Ask the child to end.
    Terminate,
    /// End the child, and everything that it has started.
    Kill,
    /// The child has ended, and what remains may be given back.
    Release,
}

/// Why the child is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody else may have the lock, or soon.
    Lost,
    /// The servers have not been heard of for too long.
    Deadline,
    /// The user wants it.
    Stopped,
}

/// How far it is with the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It runs, and may.
    Running,
    /// It was asked to end, and is killed at the given time.
    Ending { kill_at: Moment },
    /// It was killed; left when the system says that it has ended.
    Killed,
    /// It has ended. The last phase.
    Over,
}

/// The holder of a lock, whose child runs.
#[derive(Clone, Debug)]
pub struct Holder {
    ttl: Duration,
    /// When the last renewal that was acknowledged had been sent. Never goes back.
    confirmed: Moment,
    /// When to renew next; `None` while a renewal is under way, and when there is no session to renew.
    renew_at: Option<Moment>,
    session: bool,
    /// How often in a row the lock could not be looked at, and how often it may.
    unseen: u32,
    unseen_max: u32,
    phase: Phase,
    reason: Option<Reason>,
}

impl Holder {
    /// The holder of a session with this TTL, which was made or last renewed by a request that was sent at `confirmed`. It
    /// may fail `unseen_max` times in a row to look at the lock.
    #[must_use]
    pub fn new(ttl: Duration, confirmed: Moment, unseen_max: u32) -> Holder {
        Holder {
            ttl,
            confirmed,
            renew_at: Some(confirmed + ttl / 3),
            session: true,
            unseen: 0,
            unseen_max,
            phase: Phase::Running,
            reason: None,
        }
    }

    /// The moment at which the child does not run any more.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.confirmed + self.ttl
    }

    /// Why the child was made to end, if it was.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// When to come back with [`Input::Wake`] at the latest.
    #[must_use]
    pub fn next(&self) -> Option<Moment> {
        let child = match self.phase {
            Phase::Running => Some(self.end_at()),
            Phase::Ending { kill_at } => Some(kill_at.min(self.deadline())),
            Phase::Killed => None,
            Phase::Over => return None,
        };
        child.into_iter().chain(self.renew_at).min()
    }

    /// When the child is asked to end, if nothing is heard until then.
    fn end_at(&self) -> Moment {
        self.confirmed + self.ttl.saturating_sub(GRACE).max(self.ttl / 2)
    }

    /// Takes what happened, and says what to do. `now` does not go back.
    pub fn step(&mut self, now: Moment, input: Input) -> BTreeSet<Output> {
        let mut todo = BTreeSet::new();
        match input {
            Input::Wake => {}
            Input::Renewed { sent } => {
                self.confirmed = self.confirmed.max(sent);
                if self.session {
                    self.renew_at = Some(sent + self.ttl / 3);
                }
            }
            Input::NotRenewed => {
                if self.session {
                    self.renew_at = Some(now + RENEWAL_RETRY);
                }
            }
            Input::SessionGone => {
                self.session = false;
                self.renew_at = None;
                self.end(now, Reason::Lost, &mut todo);
            }
            Input::Seen => self.unseen = 0,
            Input::Lost => self.end(now, Reason::Lost, &mut todo),
            Input::Unseen => {
                self.unseen += 1;
                if self.unseen > self.unseen_max {
                    self.end(now, Reason::Lost, &mut todo);
                }
            }
            Input::Stop => self.end(now, Reason::Stopped, &mut todo),
            Input::Exited => {
                if self.phase != Phase::Over {
                    self.phase = Phase::Over;
                    self.renew_at = None;
                    todo.insert(Output::Release);
                }
                return todo;
            }
        }
        if now >= self.end_at() {
            self.end(now, Reason::Deadline, &mut todo);
        }
        if let Phase::Ending { kill_at } = self.phase
            && now >= kill_at.min(self.deadline())
        {
            self.phase = Phase::Killed;
            todo.insert(Output::Kill);
        }
        if self.phase != Phase::Over && self.renew_at.is_some_and(|at| now >= at) {
            self.renew_at = None;
            todo.insert(Output::Renew);
        }
        todo
    }

    /// Makes the child end, for the first reason that there is.
    fn end(&mut self, now: Moment, reason: Reason, todo: &mut BTreeSet<Output>) {
        if self.phase == Phase::Running {
            self.phase = Phase::Ending { kill_at: now + GRACE };
            self.reason = Some(reason);
            todo.insert(Output::Terminate);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// Plays inputs against a holder whose session was made at second 0; each line is second, input, outputs.
    fn play(unseen_max: u32, lines: &[(u64, Input, &[Output])]) -> Holder {
        let mut holder = Holder::new(TTL, at(0), unseen_max);
        for (number, (second, input, expected)) in lines.iter().enumerate() {
            let outputs: Vec<Output> = holder.step(at(*second), *input).into_iter().collect();
            assert_eq!(outputs, *expected, "line {number}: {input:?} at {second}");
        }
        holder
    }

    #[test]
    fn a_holder_that_hears_of_the_servers_goes_on() {
        play(
            3,
            &[
                (1, Input::Wake, &[]),
                (5, Input::Wake, &[Output::Renew]),
                (6, Input::Renewed { sent: at(5) }, &[]),
                (9, Input::Wake, &[]),
                (10, Input::Wake, &[Output::Renew]),
                (14, Input::Renewed { sent: at(10) }, &[]),
                (19, Input::Seen, &[Output::Renew]),
                (19, Input::Renewed { sent: at(19) }, &[]),
                (20, Input::Exited, &[Output::Release]),
            ],
        );
    }

    #[test]
    fn silence_ends_the_child_before_the_session_can_end() {
        let holder = play(
            3,
            &[
                (5, Input::Wake, &[Output::Renew]),
                (8, Input::NotRenewed, &[]),
                (9, Input::Wake, &[Output::Renew]),
                (10, Input::Wake, &[Output::Terminate]),
                (14, Input::Wake, &[]),
                (15, Input::Wake, &[Output::Kill]),
                (16, Input::Wake, &[]),
                (17, Input::Exited, &[Output::Release]),
            ],
        );
        assert_eq!(holder.reason(), Some(Reason::Deadline));
        assert_eq!(holder.next(), None);
    }

    #[test]
    fn time_that_the_machine_slept_counts() {
        play(
            3,
            &[(1, Input::Wake, &[]), (3600, Input::Wake, &[Output::Renew, Output::Terminate, Output::Kill])],
        );
    }

    #[test]
    fn an_acknowledgement_counts_from_when_the_renewal_was_sent() {
        let mut holder = Holder::new(TTL, at(0), 3);
        holder.step(at(5), Input::Wake);
        holder.step(at(9), Input::Renewed { sent: at(5) });
        assert_eq!(holder.deadline(), at(20));
        // An older one that comes late changes nothing.
        holder.step(at(9), Input::Renewed { sent: at(2) });
        assert_eq!(holder.deadline(), at(20));
    }

    #[test]
    fn a_lost_lock_ends_the_child_and_its_session_is_renewed_meanwhile() {
        for (input, renews) in [(Input::Lost, true), (Input::SessionGone, false)] {
            let mut holder = Holder::new(TTL, at(0), 3);
            assert_eq!(holder.step(at(1), input), BTreeSet::from([Output::Terminate]), "{input:?}");
            assert_eq!(holder.step(at(5), Input::Wake).contains(&Output::Renew), renews, "{input:?}");
            assert_eq!(holder.step(at(6), Input::Wake), BTreeSet::from([Output::Kill]), "{input:?}");
            assert_eq!(holder.reason(), Some(Reason::Lost));
        }
    }

    #[test]
    fn looking_may_fail_as_often_as_is_allowed() {
        for allowed in [0, 1, 3] {
            let mut holder = Holder::new(TTL, at(0), allowed);
            for _ in 0..allowed {
                assert_eq!(holder.step(at(1), Input::Unseen), BTreeSet::new());
            }
            holder.step(at(1), Input::Seen);
            for _ in 0..allowed {
                assert_eq!(holder.step(at(1), Input::Unseen), BTreeSet::new());
            }
            assert_eq!(holder.step(at(1), Input::Unseen), BTreeSet::from([Output::Terminate]));
        }
    }

    #[test]
    fn a_child_that_does_not_end_when_it_is_stopped_is_killed() {
        let holder = play(
            3,
            &[
                (1, Input::Stop, &[Output::Terminate]),
                (2, Input::Stop, &[]),
                (5, Input::Wake, &[Output::Renew]),
                (6, Input::Renewed { sent: at(5) }, &[Output::Kill]),
                (7, Input::Exited, &[Output::Release]),
                (8, Input::Exited, &[]),
            ],
        );
        assert_eq!(holder.reason(), Some(Reason::Stopped));
    }

    fn input() -> impl Strategy<Value = (u64, u8, u64)> {
        (0_u64..4_000, 0_u8..9, 0_u64..4_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever happens, whoever comes back when told to finds that the child was killed, or had ended, when the
        /// deadline came; renewals are one at a time; and nothing follows the child's end.
        #[test]
        fn no_child_outlives_the_deadline(inputs in prop::collection::vec(input(), 1..60)) {
            let mut holder = Holder::new(TTL, Duration::ZERO, 3);
            let (mut now, mut alive, mut renewal, mut asked, mut gone) =
                (Duration::ZERO, true, None::<Moment>, false, false);
            for (pause, kind, delay) in inputs {
                let goal = now + Duration::from_millis(pause);
                // What is due before that is done in time.
                let mut todo = Vec::new();
                while let Some(due) = holder.next().filter(|due| *due <= goal) {
                    now = now.max(due);
                    for output in holder.step(now, Input::Wake) {
                        todo.push((now, output));
                    }
                    prop_assert!(holder.next().is_none_or(|next| next > now), "it asks to come back at once");
                }
                now = goal;
                let input = match kind {
                    0 => Input::Wake,
                    1 | 2 => match renewal.take() {
                        Some(sent) => Input::Renewed { sent },
                        None => Input::Seen,
                    },
                    3 => match renewal.take() {
                        Some(_) => Input::NotRenewed,
                        None => Input::Unseen,
                    },
                    4 if renewal.is_some() && delay < 200 => { renewal = None; gone = true; Input::SessionGone }
                    5 if delay < 200 => Input::Lost,
                    6 if delay < 200 => Input::Stop,
                    7 if asked => { alive = false; Input::Exited }
                    _ => Input::Seen,
                };
                todo.extend(holder.step(now, input).into_iter().map(|output| (now, output)));
                for (moment, output) in todo {
                    match output {
                        Output::Renew => {
                            prop_assert!(renewal.is_none() && !gone, "renewals are one at a time, of a session");
                            renewal = Some(moment);
                        }
                        Output::Terminate => asked = true,
                        Output::Kill => { prop_assert!(asked); alive = false; }
                        Output::Release => prop_assert!(!alive),
                    }
                }
                prop_assert!(!alive || now < holder.deadline(), "alive at {now:?}, deadline {:?}", holder.deadline());
            }
        }
    }
}
