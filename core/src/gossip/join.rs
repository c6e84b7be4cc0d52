//! Coming together: joins, attempts after a restart and after a failure, and the addresses that are kept for them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::leave::Leaving;
use super::member::{Millis, State};
use super::push_pull::NoExchange;
use super::types::{Clocks, Effect, Status};
use super::{Gossip, Timer};
use crate::Text;
use crate::cx::Cx;
use crate::time::Mono;

/// So many addresses are kept for a restart: any living one is enough.
const KNOWN_MAX: usize = 256;
/// So many of them are tried at once.
const REJOIN_AT_ONCE: usize = 3;
/// About so long after a join, state is exchanged once more.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// They are saved at most this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Why a stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The regular exchange.
    PushPull,
    /// A comparison before it.
    Compare { to: SocketAddr },
    /// Somebody asked to join.
    Join { ticket: u64, to: SocketAddr },
    /// An address from before the restart.
    Rejoin,
    /// A member that has failed.
    Reconnect,
    /// A member that failed or left, and that this agent cannot do without.
    Again,
    /// A ping over a stream, in a probe with this number.
    Probe(u32),
}

impl Purpose {
    pub fn is_join(self) -> bool {
        matches!(self, Purpose::Join { .. } | Purpose::Rejoin | Purpose::Again)
    }
}

/// An attempt to join.
#[derive(Debug)]
pub(super) struct Joining {
    pending: usize,
    contacted: usize,
    /// We ourselves answered.
    itself: bool,
    error: Option<Text>,
}

/// Addresses for the next start.
#[derive(Debug)]
pub(super) struct Known {
    /// From the last run; not tried yet.
    untried: Vec<SocketAddr>,
    saved: BTreeSet<SocketAddr>,
    /// Saved last by this run.
    clocks: Clocks,
    saved_at: Option<Mono>,
}

impl Known {
    pub fn new(addresses: Vec<SocketAddr>) -> Known {
        Known {
            saved: addresses.iter().copied().collect(),
            untried: addresses,
            clocks: Clocks::default(),
            saved_at: None,
        }
    }
}

impl Gossip {
    /// Contacts these addresses and merges what they know; ends with [`Effect::Joined`].
    ///
    /// This member itself counts as contacted only when no other address was asked for: otherwise two that start at
    /// the same moment would each be content with themselves.
    pub fn join(&mut self, cx: &mut Cx<'_, Effect>, addresses: Vec<SocketAddr>, ticket: u64) {
        if self.leaving != Leaving::No {
            // Whoever joins again has changed its mind.
            self.leaving = Leaving::No;
            self.disarm(cx, Timer::Leave);
            let incarnation = self.incarnation().saturating_add(1);
            self.table.set_state(self.me, State::Alive, incarnation, Millis::at(cx.mono()));
            let time = self.intents.clock.tick();
            self.table.set_intent(self.me, false, time);
            self.tell(cx, self.me);
        }
        let addresses: BTreeSet<SocketAddr> = addresses.into_iter().collect();
        let joining = Joining { pending: addresses.len(), contacted: 0, itself: false, error: None };
        self.joins.insert(ticket, joining);
        for to in addresses {
            self.exchange(cx, to, true, Purpose::Join { ticket, to });
        }
        self.check_joined(cx, ticket);
    }

    /// Tries a member that failed or left at the address where it was last, unless it is there, or this one is leaving.
    /// Whether that works shows in [`Effect::Member`].
    pub fn try_again(&mut self, cx: &mut Cx<'_, Effect>, name: &str) {
        let gone = self.table.find(name).map(|slot| self.table.at(slot)).filter(|it| !it.state.is_alive());
        if let Some(to) = gone.map(|entry| entry.info.address)
            && self.leaving.is_no()
        {
            self.exchange(cx, to, true, Purpose::Again);
        }
    }

    /// Tries the addresses of the last run, a few at a time, until one answers.
    pub(super) fn rejoin(&mut self, cx: &mut Cx<'_, Effect>) {
        let own = self.config.address;
        self.known.untried.retain(|address| *address != own);
        self.rng.shuffle(&mut self.known.untried);
        for _ in 0..REJOIN_AT_ONCE {
            self.rejoin_next(cx);
        }
    }

    /// An exchange ended.
    pub(super) fn on_exchanged(
        &mut self,
        cx: &mut Cx<'_, Effect>,
        purpose: Purpose,
        outcome: Result<Text, NoExchange>,
    ) {
        let itself = outcome.as_ref().is_ok_and(|name| *name == self.config.name);
        if purpose.is_join() && outcome.is_ok() && !itself && self.leaving == Leaving::No {
            self.announce(cx);
            let time = self.intents.clock.tick();
            let name = self.config.name.clone();
            self.on_join_intent(cx, time, &name);
            // When many join at once, the first exchange misses those that come a moment later.
            let soon = SECOND_LOOK / 2 + self.rng.duration_below(SECOND_LOOK);
            self.arm(cx, Timer::PushPull, cx.mono() + soon);
        }
        match (purpose, outcome) {
            (Purpose::Join { ticket, to }, outcome) => {
                let Some(joining) = self.joins.get_mut(&ticket) else {
                    return;
                };
                joining.pending -= 1;
                match outcome {
                    Ok(_) if itself => joining.itself = true,
                    Ok(_) => joining.contacted += 1,
                    Err(error) => joining.error = Some(format!("Failed to join {to}: {error}").into()),
                }
                self.check_joined(cx, ticket);
            }
            (Purpose::Rejoin, Ok(_)) => self.known.untried.clear(),
            (Purpose::Rejoin, Err(_)) => self.rejoin_next(cx),
            (Purpose::PushPull | Purpose::Reconnect, Err(NoExchange::Misfit(reason))) => {
                cx.emit(Effect::Warn(format!("exchange of state was refused: {reason}").into()));
            }
            // At an address that was left long ago there may be anybody.
            (Purpose::Again | Purpose::PushPull | Purpose::Reconnect | Purpose::Compare { .. }, _) => {}
            (Purpose::Probe(_), _) => unreachable!("a ping is no exchange"),
        }
    }

    /// A random failed member is tried again. So many members do this that each failed one is tried about once per
    /// interval, however large the pool is.
    pub(super) fn on_reconnect(&mut self, cx: &mut Cx<'_, Effect>) {
        let failed: Vec<SocketAddr> = self
            .table
            .gone()
            .map(|slot| self.table.at(slot))
            .filter(|entry| entry.status() == Status::Failed)
            .map(|entry| entry.info.address)
            .collect();
        if failed.is_empty() {
            return;
        }
        self.arm(cx, Timer::Reconnect, cx.mono() + self.config.profile.reconnect_interval);
        if self.rng.below(self.table.alive().max(1) as u64) < failed.len() as u64 {
            let to = failed[self.rng.below(failed.len() as u64) as usize];
            self.exchange(cx, to, false, Purpose::Reconnect);
        }
    }

    /// The set of addresses for the next start, or the time of events, may have changed.
    pub(super) fn known_changed(&mut self, cx: &mut Cx<'_, Effect>) {
        if self.leaving == Leaving::No && self.deadline(cx, Timer::SaveKnown).is_none() {
            let now = cx.mono();
            let at = self.known.saved_at.map_or(now + SAVE_INTERVAL, |at| (at + SAVE_INTERVAL).max(now));
            self.arm(cx, Timer::SaveKnown, at);
        }
    }

    pub(super) fn on_save_known(&mut self, cx: &mut Cx<'_, Effect>) {
        let me = self.me;
        let slots = self.table.slots();
        // From a random place, so that in a large pool not all members keep the same ones.
        let first = if slots as usize > KNOWN_MAX { self.rng.below(u64::from(slots)) as u32 } else { 0 };
        let alive: BTreeSet<SocketAddr> = (0..slots)
            .map(|at| (first + at) % slots)
            .filter_map(|slot| self.table.get(slot).filter(|entry| slot != me && entry.state == State::Alive))
            .take(KNOWN_MAX)
            .map(|entry| entry.info.address)
            .collect();
        let clocks = self.clocks();
        if clocks != self.known.clocks {
            self.known.saved_at = Some(cx.mono());
            self.known.clocks = clocks;
            cx.emit(Effect::SaveClocks(clocks));
        }
        // Whoever sees nobody keeps what it knew: they may come back.
        if alive != self.known.saved && !alive.is_empty() {
            self.known.saved_at = Some(cx.mono());
            cx.emit(Effect::SaveKnown(alive.iter().copied().collect()));
            self.known.saved = alive;
        }
    }

    fn rejoin_next(&mut self, cx: &mut Cx<'_, Effect>) {
        if let Some(to) = self.known.untried.pop() {
            self.exchange(cx, to, true, Purpose::Rejoin);
        }
    }

    fn check_joined(&mut self, cx: &mut Cx<'_, Effect>, ticket: u64) {
        let over = |joining: &Joining| joining.pending == 0;
        if self.joins.get(&ticket).is_some_and(over)
            && let Some(joining) = self.joins.remove(&ticket)
        {
            let alone = joining.contacted == 0 && joining.itself && joining.error.is_none();
            let contacted = if alone { 1 } else { joining.contacted };
            cx.emit(Effect::Joined { ticket, contacted, error: joining.error });
        }
    }
}
