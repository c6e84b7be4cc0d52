//! Who waits for what.
//!
//! A read looked at certain keys; a commit touched certain keys. A parked read is woken exactly when the two meet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::query::WatchKey;
use crate::Text;
use crate::planted::{Bug, planted};

impl WatchKey {
    /// Whether a reader that looked at `self` has to look again when `touched` was touched.
    #[must_use]
    pub fn woken_by(&self, touched: &WatchKey) -> bool {
        match (self, touched) {
            (_, WatchKey::All) | (WatchKey::All, _) => true,
            (WatchKey::KvPrefix(prefix), WatchKey::Kv(key)) => key.starts_with(prefix.as_str()),
            (looked_at, touched) => looked_at == touched,
        }
    }
}

/// Parked readers by what they looked at. `T` names a reader; a reader may wait for several keys.
#[derive(Clone, Debug)]
pub struct Watches<T> {
    by_key: BTreeMap<WatchKey, BTreeSet<T>>,
    /// How many watched prefixes have each length: a key has one prefix of each length, so that finding those that are
    /// watched takes as many look-ups as there are lengths.
    prefix_lengths: BTreeMap<usize, usize>,
}

impl<T> Default for Watches<T> {
    fn default() -> Self {
        Watches { by_key: BTreeMap::new(), prefix_lengths: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Watches<T> {
    /// Lets a reader wait for these keys.
    pub fn park(&mut self, reader: T, keys: &[WatchKey]) {
        for key in keys {
            let fresh = !self.by_key.contains_key(key);
            if fresh && let WatchKey::KvPrefix(prefix) = key {
                *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
            }
            self.by_key.entry(key.clone()).or_default().insert(reader);
        }
    }

    /// Forgets a reader; `keys` are those it was parked with.
    pub fn leave(&mut self, reader: T, keys: &[WatchKey]) {
        for key in keys {
            let Some(readers) = self.by_key.get_mut(key) else { continue };
            readers.remove(&reader);
            if !readers.is_empty() {
                continue;
            }
            self.by_key.remove(key);
            if let WatchKey::KvPrefix(prefix) = key
                && let Some(count) = self.prefix_lengths.get_mut(&prefix.len())
            {
                *count -= 1;
                if *count == 0 {
                    self.prefix_lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// The readers that have to look again, each once, in their order. They stay parked.
    #[must_use]
    pub fn woken_by(&self, touched: &[WatchKey]) -> BTreeSet<T> {
        let mut woken = BTreeSet::new();
        if touched.contains(&WatchKey::All) {
            woken.extend(self.by_key.values().flatten().copied());
            return woken;
        }
        for key in touched {
            woken.extend(self.by_key.get(key).into_iter().flatten().copied());
            let WatchKey::Kv(key) = key else { continue };
            if planted(Bug::WatchMissesPrefix) {
                continue;
            }
            let shorter = (Bound::Unbounded, Bound::Included(key.len()));
            for (length, _) in self.prefix_lengths.range(shorter) {
                let Some(prefix) = key.get(..*length) else { continue };
                let watch = WatchKey::KvPrefix(Text::new(prefix));
                woken.extend(self.by_key.get(&watch).into_iter().flatten().copied());
            }
        }
        woken.extend(self.by_key.get(&WatchKey::All).into_iter().flatten().copied());
        woken
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str) -> WatchKey {
        WatchKey::Kv(Text::new(key))
    }

    fn prefix(key: &str) -> WatchKey {
        WatchKey::KvPrefix(Text::new(key))
    }

    #[test]
    fn a_key_wakes_its_own_readers_and_those_of_its_prefixes() {
        let mut watches = Watches::default();
        let parked = [kv("a/b"), prefix("a/"), prefix(""), prefix("a/bc"), kv("a/c"), prefix("b")];
        for (reader, key) in parked.iter().enumerate() {
            watches.park(reader, std::slice::from_ref(key));
        }
        let woken: Vec<usize> = watches.woken_by(&[kv("a/b")]).into_iter().collect();
        assert_eq!(woken, [0, 1, 2]);
        for (reader, key) in parked.iter().enumerate() {
            assert_eq!(key.woken_by(&kv("a/b")), woken.contains(&reader), "{key:?}");
        }
        assert_eq!(watches.woken_by(&[WatchKey::All]).len(), parked.len());
    }

    #[test]
    fn a_reader_that_left_is_forgotten() {
        let mut watches = Watches::default();
        let keys = [kv("a"), prefix("a"), WatchKey::Nodes];
        watches.park(1, &keys);
        watches.park(2, &[prefix("a")]);
        watches.leave(1, &keys);
        assert_eq!(watches.woken_by(&[kv("ab"), kv("a"), WatchKey::Nodes]), BTreeSet::from([2]));
        watches.leave(2, &[prefix("a")]);
        assert!(watches.is_empty() && watches.prefix_lengths.is_empty());
    }

    #[test]
    fn a_prefix_that_ends_within_a_character_of_the_key_is_none() {
        let mut watches = Watches::default();
        watches.park(1, &[prefix("a")]);
        watches.park(2, &[prefix("éa")]);
        assert_eq!(watches.woken_by(&[kv("é")]), BTreeSet::new());
        assert_eq!(watches.woken_by(&[kv("éab")]), BTreeSet::from([2]));
    }
}
