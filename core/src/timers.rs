//! The one table of deadlines.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Mono;

/// Deadlines by key: setting a timer again moves it, cancelling twice is fine, ties fire in the order of keys.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, Mono>,
    by_time: BTreeSet<(Mono, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Timers { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Arms or moves a timer.
    pub fn set(&mut self, key: K, at: Mono) {
        self.cancel(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Disarms a timer, if it is armed.
    pub fn cancel(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The deadline of one timer.
    #[must_use]
    pub fn deadline(&self, key: &K) -> Option<Mono> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline and whose it is.
    #[must_use]
    pub fn next(&self) -> Option<(Mono, &K)> {
        self.by_time.first().map(|(at, key)| (*at, key))
    }

    /// Takes the earliest timer that is due at `now`. It is disarmed; its owner arms it again or not.
    pub fn pop_due(&mut self, now: Mono) -> Option<K> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many timers are armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_moves_and_ties_fire_in_key_order() {
        let mut timers = Timers::default();
        timers.set("b", Mono(5));
        timers.set("a", Mono(5));
        timers.set("c", Mono(1));
        timers.set("c", Mono(9));
        assert_eq!(timers.next(), Some((Mono(5), &"a")));
        assert_eq!(timers.pop_due(Mono(4)), None);
        assert_eq!(timers.pop_due(Mono(5)), Some("a"));
        assert_eq!(timers.pop_due(Mono(5)), Some("b"));
        assert_eq!(timers.pop_due(Mono(5)), None);
        timers.cancel(&"c");
        timers.cancel(&"c");
        assert!(timers.is_empty());
    }
}
