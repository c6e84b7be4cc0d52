//! What this agent has been asked, so that a question which comes twice is done once.
//!
//! A network may repeat a frame, and hold the copy back until the first one has been answered: a server that did not
//! lead when it saw the first might lead when it sees the second, and repeat what another server has done meanwhile.
//! Connections do not outlive a process at either end, so a copy never meets a process that has not seen the first.

use std::collections::BTreeMap;

use super::peer::AskId;
use crate::ids::ServerId;
use crate::marks::{self, Mark};

/// So many numbers up to the newest one are remembered for each life of an asker; what is older than that is taken for
/// a copy. Far more than can be under way at once.
const WINDOW: u64 = 4_096;
const WORDS: usize = (WINDOW / 64) as usize;
/// So many processes of one asker are told apart: the present one, and former ones whose frames may still be under way.
const LIVES_MAX: usize = 3;
/// At least so many askers are remembered, and at most twice as many.
const ASKERS_MAX: usize = 8_192;

/// What each asker has asked lately.
#[derive(Debug, Default)]
pub struct Asked {
    /// Those that have asked since `earlier` was set aside.
    recent: BTreeMap<ServerId, Vec<Life>>,
    earlier: BTreeMap<ServerId, Vec<Life>>,
}

/// What one process of an asker has asked.
#[derive(Debug)]
struct Life {
    life: u64,
    newest: u64,
    /// One bit for each of the last numbers, at its remainder.
    seen: Box<[u64; WORDS]>,
}

impl Asked {
    /// Notes a question. `false` if it has been seen, or may have been.
    pub fn is_new(&mut self, asker: ServerId, id: AskId) -> bool {
        if !self.recent.contains_key(&asker) {
            let lives = self.earlier.remove(&asker).unwrap_or_default();
            if self.recent.len() >= ASKERS_MAX {
                self.earlier = std::mem::take(&mut self.recent);
            }
            self.recent.insert(asker, lives);
        }
        let lives = self.recent.get_mut(&asker).expect("just found or inserted");
        let mut life = match lives.iter().position(|life| life.life == id.life) {
            Some(at) => lives.remove(at),
            None => Life { life: id.life, newest: 0, seen: Box::new([0; WORDS]) },
        };
        let is_new = life.note(id.number);
        // The one that spoke last is at the front.
        lives.insert(0, life);
        lives.truncate(LIVES_MAX);
        if !is_new {
            marks::hit(Mark::AskRepeated);
        }
        is_new
    }
}

impl Life {
    fn note(&mut self, number: u64) -> bool {
        if number > self.newest {
            // Numbers in between have not been seen; their bits are those of numbers that have left the window.
            let first = (self.newest + 1).max(number.saturating_sub(WINDOW - 1));
            for between in first..number {
                let (word, bit) = place(between);
                self.seen[word] &= !bit;
            }
            self.newest = number;
            let (word, bit) = place(number);
            self.seen[word] |= bit;
            return true;
        }
        let (word, bit) = place(number);
        let is_new = self.newest - number < WINDOW && self.seen[word] & bit == 0;
        if is_new {
            self.seen[word] |= bit;
        }
        is_new
    }
}

/// Where the bit of a number is.
fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::Uuid;

    fn id(life: u64, number: u64) -> AskId {
        AskId { life, number }
    }

    #[test]
    fn each_process_of_an_asker_is_heard_once_for_each_number() {
        let mut asked = Asked::default();
        assert!(asked.is_new(Uuid(1), id(5, 7)));
        assert!(!asked.is_new(Uuid(1), id(5, 7)));
        assert!(asked.is_new(Uuid(2), id(5, 7)), "another asker");
        assert!(asked.is_new(Uuid(1), id(6, 7)), "its next process");
        assert!(!asked.is_new(Uuid(1), id(5, 7)), "a late copy from the process before");
        assert!(asked.is_new(Uuid(1), id(5, 6)), "what that one asked was only overtaken");
        assert!(asked.is_new(Uuid(1), id(6, 8)));
    }

    #[test]
    fn memory_is_bounded_and_whoever_asks_often_is_remembered() {
        let mut asked = Asked::default();
        assert!(asked.is_new(Uuid(0), id(0, 1)));
        for stranger in 1..3 * ASKERS_MAX as u128 {
            assert!(asked.is_new(Uuid(stranger), id(0, 1)));
            assert!(!asked.is_new(Uuid(0), id(0, 1)));
        }
        assert!(asked.recent.len() + asked.earlier.len() <= 2 * ASKERS_MAX + 1);
        for life in 0..100 {
            asked.is_new(Uuid(0), id(life, 1));
        }
        assert_eq!(asked.recent[&Uuid(0)].len(), LIVES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_number_is_new_unless_it_was_seen_or_is_too_old(
            steps in prop::collection::vec((any::<bool>(), 0..2 * WINDOW), 0..200)
        ) {
            let (mut asked, mut seen, mut newest) = (Asked::default(), BTreeSet::new(), 0_u64);
            for (forward, by) in steps {
                let by = if by % 3 == 0 { by } else { by % 8 };
                let number = if forward { newest + by } else { newest.saturating_sub(by) };
                let too_old = newest.saturating_sub(number) >= WINDOW;
                let is_new = asked.is_new(Uuid(1), id(1, number));
                prop_assert_eq!(is_new, !too_old && seen.insert(number), "{} of {}", number, newest);
                newest = newest.max(number);
            }
        }
    }
}
