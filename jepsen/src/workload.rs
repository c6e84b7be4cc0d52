//! What clients do: deterministic streams of operations, for the simulator as for real processes.

use std::collections::BTreeMap;

use crate::history::{Consistency, Op, Outcome, Reply};

/// SplitMix64 (Steele, Lea, Flood, 2014): small, good enough to choose operations, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that repeats itself for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

/// One client of registers: reads, unconditional writes, compare-and-sets by index and deletes.
///
/// Indexes for compare-and-sets come from the client's own reads, so some of them are current and some are not. Values
/// are `client:sequence`, hence unique as long as client numbers are.
#[derive(Clone, Debug)]
pub struct Registers {
    client: u32,
    keys: u64,
    sequence: u64,
    random: Random,
    /// Per key: the modify index that the client saw last.
    seen: BTreeMap<String, u64>,
}

impl Registers {
    /// A client that uses the keys `jepsen/0` to `jepsen/{keys - 1}`.
    #[must_use]
    pub fn new(seed: u64, client: u32, keys: u64) -> Registers {
        assert!(keys > 0, "a workload needs a key");
        let mut random = Random::new(seed);
        let own = random.draw() ^ u64::from(client).wrapping_mul(0xd134_2543_de82_ef95);
        Registers { client, keys, sequence: 0, random: Random::new(own), seen: BTreeMap::new() }
    }

    /// The name of a key.
    #[must_use]
    pub fn key(number: u64) -> String {
        format!("jepsen/{number}")
    }

    /// The next operation: of ten, four read, three write, and three compare and set or, rarely, delete.
    pub fn next_operation(&mut self) -> (String, Op) {
        let key = Registers::key(self.random.below(self.keys));
        let choice = self.random.below(40);
        let op = match choice {
            0..16 => Op::Read { consistency: Consistency::Linearizable },
            16..28 => Op::Write { value: self.value() },
            28..39 => match self.seen.get(&key) {
                Some(&expected) => Op::Cas { expected, value: self.value() },
                None => Op::Read { consistency: Consistency::Linearizable },
            },
            _ => Op::Delete,
        };
        (key, op)
    }

    /// Tells the client how its operation ended.
    pub fn saw(&mut self, key: &str, outcome: &Outcome) {
        if let Outcome::Ok(Reply::Read { entry, .. }) = outcome {
            self.seen.insert(key.to_owned(), entry.as_ref().map_or(0, |entry| entry.modify_index));
        }
    }

    fn value(&mut self) -> String {
        self.sequence += 1;
        format!("{}:{}", self.client, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_clients_differ() {
        let run = |seed, client| {
            let mut registers = Registers::new(seed, client, 4);
            (0..50).map(|_| registers.next_operation()).collect::<Vec<_>>()
        };
        assert_eq!(run(1, 1), run(1, 1));
        assert_ne!(run(1, 1), run(2, 1));
        assert_ne!(run(1, 1), run(1, 2));
    }

    #[test]
    fn every_kind_of_operation_occurs() {
        let mut registers = Registers::new(5, 1, 1);
        let mut kinds = [0; 4];
        for _ in 0..400 {
            let (key, op) = registers.next_operation();
            assert_eq!(key, "jepsen/0");
            match op {
                Op::Read { .. } => kinds[0] += 1,
                Op::Write { .. } => kinds[1] += 1,
                Op::Cas { .. } => kinds[2] += 1,
                Op::Delete => kinds[3] += 1,
                _ => panic!("no register operation: {op:?}"),
            }
            registers.saw(&key, &Outcome::Ok(Reply::Read { entry: None, index: 1 }));
        }
        assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
    }
}
