//! Coordinates that agents tell are collected and replicated together, so that the log does not grow with every probe
//! of a large cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DutyTimer, Effect};
use crate::Text;
use crate::coordinate::Coordinate;
use crate::cx::{Cx, Timer};
use crate::store::Store;
use crate::store::command::Command;

/// For so long they are collected.
const PERIOD: Duration = Duration::from_secs(5);
/// And so many at most; what comes in excess is dropped, its agent tells it again (Consul: 128 in each of 5 batches).
const PENDING_MAX: usize = 640;

/// What agents have told since the last command.
#[derive(Debug, Default)]
pub(super) struct Coordinates {
    /// The newest of each node, under its lower-case name.
    pending: BTreeMap<String, (Text, Coordinate)>,
}

impl Coordinates {
    /// A node says where it is.
    pub(super) fn locate(&mut self, cx: &mut Cx<'_, Effect>, node: Text, coordinate: Coordinate) {
        let key = node.to_lowercase();
        if self.pending.len() >= PENDING_MAX && !self.pending.contains_key(&key) {
            return;
        }
        self.pending.insert(key, (node, coordinate));
        let timer = Timer::Duty(DutyTimer::Coordinates);
        if cx.timers.deadline(&timer).is_none() {
            cx.timers.set(timer, cx.mono() + PERIOD);
        }
    }

    /// Replicates what would be noticed. Nodes that are not registered have no coordinate.
    pub(super) fn on_timer(&mut self, cx: &mut Cx<'_, Effect>, store: &Store) {
        let moved: Vec<(Text, Coordinate)> = std::mem::take(&mut self.pending)
            .into_values()
            .filter(|(node, coordinate)| {
                let before = store.coordinate(node);
                store.node(node).is_some() && before.is_none_or(|row| coordinate.moved_from(&row.coordinate))
            })
            .collect();
        if !moved.is_empty() {
            cx.emit(Effect::Propose(Command::Coordinates(moved)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::command::Registration;
    use crate::time::{Mono, Now, Wall};
    use crate::timers::Timers;

    /// The duty alone, with a store and a clock.
    #[derive(Default)]
    struct World {
        duty: Coordinates,
        store: Store,
        timers: Timers<Timer>,
        index: u64,
        now: Mono,
    }

    impl World {
        fn act<T>(
            &mut self,
            act: impl FnOnce(&mut Coordinates, &mut Cx<'_, Effect>, &Store) -> T,
        ) -> (T, Vec<Effect>) {
            let mut effects = Vec::new();
            let now = Now { mono: self.now, wall: Wall(0) };
            let mut cx = Cx { now, timers: &mut self.timers, effects: &mut effects };
            let result = act(&mut self.duty, &mut cx, &self.store);
            (result, effects)
        }

        fn locate(&mut self, node: &str, height: f64) {
            let coordinate = Coordinate { height, ..Coordinate::default() };
            let (_, effects) = self.act(|duty, cx, _| duty.locate(cx, Text::new(node), coordinate));
            assert_eq!(effects, []);
        }

        fn register(&mut self, node: &str) {
            self.index += 1;
            let registration =
                Registration { node: Text::new(node), address: "a".into(), ..Registration::default() };
            self.store.apply(self.index, &Command::Register(Box::new(registration)));
        }

        /// Fires the timer, applies what is proposed, and says which nodes it was.
        fn fire(&mut self) -> Vec<Text> {
            self.now = self.timers.next().expect("armed").0;
            assert!(self.timers.pop_due(self.now).is_some());
            let (_, effects) = self.act(|duty, cx, store| duty.on_timer(cx, store));
            let mut nodes = Vec::new();
            for effect in effects {
                let Effect::Propose(command) = effect else { panic!("{effect:?}") };
                self.index += 1;
                self.store.apply(self.index, &command);
                let Command::Coordinates(located) = command else { panic!("{command:?}") };
                nodes.extend(located.into_iter().map(|(node, _)| node));
            }
            nodes
        }
    }

    #[test]
    fn updates_are_collected_for_five_seconds_and_only_the_newest_of_a_node_counts() {
        let mut world = World::default();
        world.register("a");
        world.register("b");
        assert!(world.timers.is_empty(), "nothing is armed while nothing is pending");
        world.locate("a", 0.1);
        world.now = world.now + Duration::from_secs(1);
        world.locate("A", 0.2);
        world.locate("b", 0.3);
        world.locate("unknown", 0.4);
        assert_eq!(world.fire(), ["A", "b"]);
        assert_eq!(world.now, Mono(5_000_000_000));
        assert_eq!(world.store.coordinate("a").map(|row| row.coordinate.height), Some(0.2));
        assert!(world.timers.is_empty());
    }

    #[test]
    fn what_nobody_would_notice_is_not_replicated() {
        let mut world = World::default();
        world.register("a");
        world.locate("a", 0.1);
        assert_eq!(world.fire(), ["a"]);
        world.locate("a", 0.100_001);
        assert!(world.fire().is_empty());
        world.locate("a", 0.101);
        assert_eq!(world.fire(), ["a"]);
    }

    #[test]
    fn what_comes_in_excess_is_dropped() {
        let mut world = World::default();
        for number in 0..PENDING_MAX + 10 {
            let node = format!("node-{number}");
            world.register(&node);
            world.locate(&node, 0.1);
        }
        world.locate("node-0", 0.2);
        assert_eq!(world.fire().len(), PENDING_MAX);
        assert_eq!(world.store.coordinate("node-0").map(|row| row.coordinate.height), Some(0.2));
    }
}
