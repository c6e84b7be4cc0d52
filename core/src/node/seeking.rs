//! Looking for servers: an agent that sees no living server of its datacenter tries those that it knew, in turn, and whom it
//! was told to join, until one answers.
//!
//! Gossip by itself tries random members that have failed, each about once in 30 s however large the pool is, and never those
//! that have left. That is too seldom and too little for servers, without which an agent can do nothing: of several only
//! one may be back, and a sole one that left and came back knows nobody.

use std::ops::Bound;
use std::time::Duration;

use super::Node;
use crate::cx::Timer;
use crate::gossip::{Pool, Status};
use crate::ids::ServerId;
use crate::rng::Rng;
use crate::time::{Mono, Now};

/// The shortest time between two tries of one agent; up to two thirds are added by chance. Longer by as much for each
/// doubling of the pool beyond 64, because whoever is cut off alone exchanges the state of the whole pool with the first
/// that answers.
const TURN_MIN: Duration = Duration::from_secs(3);
/// Agents that see each other try so many times a second together, however many they are: the first one whose server
/// answers tells the others. A server that starts is thus asked by two agents in a second until it is known, and not by
/// thousands. Where thousands of agents are each alone, as after an outage of the whole network, 5,000 of them come
/// within about 40 s.
const TRIES_PER_SECOND: u64 = 2;

/// What is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// This server, where it was last.
    Server(ServerId),
    /// The addresses that the agent was told to join.
    Configured,
}

/// Whose turn it is.
#[derive(Debug)]
pub struct Seeking {
    rng: Rng,
    /// The server that was tried last; `None`: whom the agent was told to join.
    tried: Option<ServerId>,
}

impl Seeking {
    /// An agent that has tried nobody yet.
    #[must_use]
    pub fn new(rng: Rng) -> Seeking {
        Seeking { rng, tried: None }
    }

    /// When the search begins: not for all agents at the same moment.
    fn first(&mut self, now: Mono, known: usize) -> Mono {
        now + self.rng.duration_below(turn_min(known))
    }

    /// When it goes on.
    fn next(&mut self, now: Mono, known: usize) -> Mono {
        let turn = turn_min(known);
        now + turn + self.rng.duration_below(turn * 2 / 3)
    }

    /// What this agent tries now, in a pool of `known` members of which it sees `alive`, itself included. `lost` are the
    /// servers that might be back, in the order of their identities. `None`: this time it is for others to try.
    fn choose(&mut self, known: usize, alive: usize, lost: &[ServerId]) -> Option<Try> {
        let mean_millis = u64::try_from(turn_min(known).as_millis()).expect("seconds") * 4 / 3;
        let share = TRIES_PER_SECOND * mean_millis;
        if self.rng.below((alive as u64).max(1) * 1_000) >= share {
            return None;
        }
        let after = self.tried.map_or(Bound::Unbounded, Bound::Excluded);
        let later = |id: &&ServerId| match after {
            Bound::Excluded(tried) => **id > tried,
            Bound::Included(_) | Bound::Unbounded => true,
        };
        self.tried = lost.iter().find(later).copied();
        Some(self.tried.map_or(Try::Configured, Try::Server))
    }
}

/// The shortest time between two tries of one agent in a pool of `known` members, failed and left ones included.
fn turn_min(known: usize) -> Duration {
    TURN_MIN * (1 + known.max(1).ilog2().saturating_sub(5))
}

impl Node {
    /// Begins to look for servers if none is there, and stops when one is.
    pub(super) fn seek_if_alone(&mut self, now: Now) {
        let armed = self.timers.deadline(&Timer::Seek).is_some();
        match (self.is_alone(), armed) {
            (true, false) => {
                let at = self.seeking.first(now.mono, self.cluster.lan.len());
                self.timers.set(Timer::Seek, at);
            }
            (false, true) => self.timers.cancel(&Timer::Seek),
            (true, true) | (false, false) => {}
        }
    }

    pub(super) fn on_seek_timer(&mut self, now: Now) {
        if !self.is_alone() {
            return;
        }
        let known = self.cluster.lan.len();
        let lost = self.lost_servers();
        let chosen = self.seeking.choose(known, self.alive, &lost);
        self.timers.set(Timer::Seek, self.seeking.next(now.mono, known));
        match chosen {
            Some(Try::Server(id)) => {
                if let Some(name) = self.servers.get(id).map(|server| server.name.clone()) {
                    self.gossip(now, Pool::Lan, |gossip, cx| gossip.try_again(cx, &name));
                }
            }
            // Attempts that wait for their time will come by themselves.
            Some(Try::Configured) if self.timers.deadline(&Timer::Join(Pool::Lan)).is_none() => {
                let steps = self.joining.search(Pool::Lan);
                self.perform_joining(now, steps);
            }
            Some(Try::Configured) | None => {}
        }
    }

    /// Whether this agent means to stay, sees no server but possibly itself, and knows where one might be. A server that
    /// never knew another one is not alone but the only one.
    fn is_alone(&self) -> bool {
        let own = self.about.id;
        !self.leaving.is_under_way()
            && !self.servers.all().any(|(id, server)| server.alive && id != own)
            && (!self.lost_servers().is_empty() || !self.about.server && self.joining.has_policy(Pool::Lan))
    }

    /// Servers that might be back. For another server those that left are not missing.
    fn lost_servers(&self) -> Vec<ServerId> {
        let own = self.about.id;
        let failed = |name: &str| self.cluster.lan.get(name).is_some_and(|it| it.status == Status::Failed);
        self.servers
            .all()
            .filter(|(id, server)| *id != own && !server.alive)
            .filter(|(_, server)| !self.about.server || failed(&server.name))
            .map(|(id, _)| id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;

    #[test]
    fn lost_servers_are_tried_in_turn_and_then_whom_it_was_told_to_join() {
        let mut seeking = Seeking::new(Rng::from_seed(1));
        let lost = [Uuid(1), Uuid(5)];
        let mut tried = |lost: &[ServerId]| seeking.choose(7, 4, lost).expect("a small pool");
        assert_eq!(tried(&lost), Try::Server(Uuid(1)));
        assert_eq!(tried(&lost), Try::Server(Uuid(5)));
        assert_eq!(tried(&lost), Try::Configured);
        assert_eq!(tried(&lost), Try::Server(Uuid(1)));
        assert_eq!(tried(&[Uuid(3)]), Try::Server(Uuid(3)), "the first is not there any more");
        assert_eq!(tried(&[Uuid(3)]), Try::Configured);
        assert_eq!(tried(&[]), Try::Configured);
    }

    #[test]
    fn a_pool_tries_twice_a_second_at_most_however_large_it_is() {
        for members in [1, 7, 50, 500, 5_000] {
            let mut seeking = Seeking::new(Rng::from_seed(members as u64));
            let (mut now, mut tries, mut turns) = (Mono(0), 0_u64, 0_u64);
            while turns < 40_000 {
                turns += 1;
                now = seeking.next(now, members);
                tries += u64::from(seeking.choose(members, members, &[Uuid(1)]).is_some());
            }
            let seconds = now.0 / 1_000_000_000;
            let of_all = tries * members as u64;
            assert!(of_all <= seconds * TRIES_PER_SECOND * 5 / 4, "{members}: {of_all} in {seconds} s");
            if members >= 50 {
                assert!(of_all >= seconds * TRIES_PER_SECOND * 3 / 4, "{members}: {of_all} in {seconds} s");
            }
        }
    }

    #[test]
    fn whoever_is_alone_tries_each_time_and_in_a_small_pool_every_few_seconds() {
        let mut seeking = Seeking::new(Rng::from_seed(1));
        for _ in 0..100 {
            assert!(seeking.choose(5_000, 1, &[]).is_some());
            let next = seeking.next(Mono(0), 40);
            assert!(next >= Mono(0) + TURN_MIN && next <= Mono(0) + TURN_MIN * 2, "{next:?}");
        }
        assert_eq!(turn_min(5_000), Duration::from_secs(24));
    }
}
