//! Telling the leader where this agent is in the space of network coordinates.
//!
//! Nobody waits for an answer: what is lost is told again. All agents of a datacenter together send at most 64 updates
//! a second, however many they are (Consul: «Network coordinates», `SyncCoordinateRateTarget`).

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use super::Node;
use super::peer::{Ask, PeerMessage, Serve};
use crate::Text;
use crate::api::{ClusterCall, Forwarded};
use crate::coordinate::Coordinate;
use crate::cx::Timer;
use crate::rng::Rng;
use crate::time::{Mono, Now};
use crate::timers::Timers;

/// Turns are not closer than this.
const TURN_MIN: Duration = Duration::from_secs(15);
/// All agents together may send so many updates a second.
const UPDATES_PER_SECOND: u32 = 64;
/// An unchanged coordinate is told again after twice as many turns each time, and at least every so many: it may have
/// been lost on the way, or with the node's registration.
const QUIET_TURNS_MAX: u32 = 16;

/// When this agent tells its coordinate.
#[derive(Debug)]
pub struct Locating {
    rng: Rng,
    /// What was told last.
    told: Option<Coordinate>,
    /// Turns since then.
    quiet: u32,
    /// After so many turns the same coordinate is told again.
    patience: u32,
}

impl Locating {
    /// An agent that has told nothing yet.
    #[must_use]
    pub fn new(rng: Rng) -> Locating {
        Locating { rng, told: None, quiet: 0, patience: 1 }
    }

    /// Arms the timer for the first time, within one turn.
    pub fn start(&mut self, timers: &mut Timers<Timer>, now: Mono) {
        timers.set(Timer::Locate, now + self.rng.duration_below(TURN_MIN));
    }

    /// This agent's turn has come: the coordinate, if it should be told now. `agents` are the live members of the
    /// datacenter's pool; the next turn is between one and two intervals away.
    pub fn on_timer(
        &mut self,
        timers: &mut Timers<Timer>,
        now: Mono,
        agents: usize,
        coordinate: &Coordinate,
    ) -> Option<Coordinate> {
        let agents = u32::try_from(agents).unwrap_or(u32::MAX);
        let turn = TURN_MIN.max(Duration::from_secs(1) * agents / UPDATES_PER_SECOND);
        timers.set(Timer::Locate, now + turn + self.rng.duration_below(turn));
        self.quiet += 1;
        let moved = self.told.as_ref().is_none_or(|told| coordinate.moved_from(told));
        if moved {
            self.patience = 1;
        } else if self.quiet >= self.patience {
            self.patience = QUIET_TURNS_MAX.min(self.patience * 2);
        } else {
            return None;
        }
        self.quiet = 0;
        self.told = Some(coordinate.clone());
        self.told.clone()
    }
}

impl Node {
    /// This agent's turn to say where it is has come.
    pub(super) fn locate(&mut self, now: Now) {
        let coordinate = self.lan.coordinate().clone();
        let wan = self.servers_located();
        if self.cluster.coordinate != coordinate || self.cluster.wan_coordinates != wan {
            let cluster = Arc::make_mut(&mut self.cluster);
            cluster.coordinate = coordinate.clone();
            cluster.wan_coordinates = wan;
            self.publish = true;
        }
        let Some(coordinate) = self.locating.on_timer(&mut self.timers, now.mono, self.alive, &coordinate)
        else {
            return;
        };
        let call = ClusterCall::Coordinate { node: self.about.node.clone(), coordinate };
        if self.is_leader() {
            self.lead(now, call);
            return;
        }
        let (to, ask) = if self.about.server {
            (self.raft.leader(), Ask::Lead(call))
        } else {
            let server = self.choose_server(now);
            (server, Ask::Serve(Serve::Request(Box::new(Forwarded::Cluster(call)))))
        };
        if let Some(to) = to {
            let id = self.jobs.id();
            self.frames.push((to, PeerMessage::Ask { id: self.ask_id(id), ask }));
        }
    }

    /// Where this server and others are among all datacenters.
    fn servers_located(&self) -> OrdMap<Text, Coordinate> {
        let Some((wan, config)) = self.wan.as_ref().zip(self.config.wan.as_ref()) else {
            return OrdMap::new();
        };
        let mut located: OrdMap<Text, Coordinate> =
            wan.located().iter().map(|(name, coordinate)| (name.clone(), coordinate.clone())).collect();
        located.insert(config.name.clone(), wan.coordinate().clone());
        located
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        locating: Locating,
        timers: Timers<Timer>,
        now: Mono,
    }

    impl World {
        fn new() -> World {
            let mut world =
                World { locating: Locating::new(Rng::from_seed(3)), timers: Timers::default(), now: Mono(0) };
            world.locating.start(&mut world.timers, world.now);
            world
        }

        /// Waits for the next turn; how long that took, and whether it told.
        fn turn(&mut self, agents: usize, height: f64) -> (Duration, bool) {
            let (at, _) = self.timers.next().expect("always armed");
            let waited = at.since(self.now);
            self.now = at;
            assert_eq!(self.timers.pop_due(at), Some(Timer::Locate));
            let coordinate = Coordinate { height, ..Coordinate::default() };
            let told = self.locating.on_timer(&mut self.timers, at, agents, &coordinate);
            assert!(told.is_none() || told == Some(coordinate));
            (waited, told.is_some())
        }
    }

    #[test]
    fn turns_are_fifteen_seconds_apart_or_as_far_as_the_size_of_the_cluster_demands() {
        let mut world = World::new();
        let (waited, told) = world.turn(10, 0.1);
        assert!(told && waited < TURN_MIN, "the first turn comes soon, {waited:?}");
        for (agents, interval) in [(10, 15), (960, 15), (6_400, 100)] {
            world.turn(agents, 0.1);
            let interval = Duration::from_secs(interval);
            for _ in 0..20 {
                let (waited, _) = world.turn(agents, 0.1);
                assert!((interval..interval * 2).contains(&waited), "{agents} agents, {waited:?}");
            }
        }
    }

    #[test]
    fn a_move_is_told_at_once_and_the_same_place_ever_more_seldom() {
        let mut world = World::new();
        let told: Vec<usize> = (0..64).filter(|_| world.turn(1, 0.1).1).collect();
        assert_eq!(told, [0, 1, 3, 7, 15, 31, 47, 63]);
        assert!(!world.turn(1, 0.1).1);
        assert!(world.turn(1, 0.2).1);
        assert!(world.turn(1, 0.2).1);
        assert!(!world.turn(1, 0.2).1);
        assert!(world.turn(1, 0.2).1);
        assert!(world.turn(1, 0.3).1);
    }
}
