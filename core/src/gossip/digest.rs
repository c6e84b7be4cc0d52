//! Whether two members know the same, for a few hundred bytes: the regular exchange of state compares digests first and
//! then exchanges only what differs, so that its cost does not grow with the pool.

use serde::{Deserialize, Serialize};

use super::Gossip;
use super::intents::hash;
use super::member::{Entry, State};
use super::packet::Ring;
use super::round::mix;

/// The table of members falls into so many parts, by the hash of the name. A set of parts is one number.
pub(super) const PARTS: usize = 64;

/// All parts.
pub(super) const ALL: u64 = u64::MAX;

/// What a member knows, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Digest {
    /// Drawn anew each time, so that two states that look alike once do not look alike for ever.
    pub salt: u64,
    /// A sum over the members of each part.
    pub parts: Vec<u32>,
    /// Events up to this time are none of the sender's business.
    pub ignored: u64,
    /// Time and hash of its latest events.
    pub events: Vec<(u64, u32)>,
    /// Its keys; only in a sealed packet. The answer is sealed with the first of them, if it is known.
    pub ring: Option<Ring>,
}

/// Which part a member belongs to.
pub(super) fn part_of(name: &str) -> usize {
    (mix(hash(name)) % PARTS as u64) as usize
}

/// What is compared of a member. Suspicion is not: it spreads by itself, and is soon over.
fn fingerprint(entry: &Entry, salt: u64) -> u32 {
    let state: u64 = match entry.state {
        State::Alive | State::Suspect => 0,
        State::Dead => 1,
        State::Left => 2,
    };
    // What a member says of itself changes with its incarnation, but incarnations begin anew with each of its processes: two
    // lives of a name may say different things in the same incarnation.
    let said = entry.info.meta.iter().fold(0, |sum: u64, byte| mix(sum ^ u64::from(*byte)));
    let ip: u64 = match entry.info.address.ip() {
        std::net::IpAddr::V4(ip) => u64::from(u32::from(ip)),
        std::net::IpAddr::V6(ip) => (u128::from(ip) ^ (u128::from(ip) >> 64)) as u64,
    };
    let place = mix(ip) ^ u64::from(entry.info.address.port()) ^ said;
    let life = u64::from(entry.incarnation) << 3 | state << 1 | u64::from(entry.leaving);
    let name = mix(hash(&entry.info.name) ^ salt);
    mix(mix(mix(name ^ place) ^ life) ^ entry.intent_time) as u32
}

impl Gossip {
    /// This member's digest. Costs time in proportion to the pool.
    pub(super) fn digest(&self, salt: u64) -> Digest {
        let mut parts = vec![0u32; PARTS];
        for (_, entry) in self.table.iter() {
            let part = &mut parts[part_of(&entry.info.name)];
            *part = part.wrapping_add(fingerprint(entry, salt));
        }
        let events = self.events.recent().map(|event| {
            let id = event.id.0;
            (event.ltime, mix((id ^ (id >> 64)) as u64 ^ hash(&event.name)) as u32)
        });
        let ring = self.ring_to_tell();
        Digest { salt, parts, ignored: self.events.ignored(), events: events.collect(), ring }
    }

    /// Which parts differ from that; `None`: nothing differs at all.
    pub(super) fn difference(&self, theirs: &Digest) -> Option<u64> {
        if theirs.parts.len() != PARTS {
            return Some(ALL);
        }
        let ours = self.digest(theirs.salt);
        let differing = |part: &usize| ours.parts[*part] != theirs.parts[*part];
        let parts = (0..PARTS).filter(differing).fold(0, |parts, part| parts | 1 << part);
        let lacks = |of: &Digest, other: &Digest| {
            other.events.iter().any(|event| event.0 > of.ignored && !of.events.contains(event))
        };
        let same = parts == 0 && !lacks(&ours, theirs) && !lacks(theirs, &ours) && ours.ring == theirs.ring;
        (!same).then_some(parts)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::gossip::member::Millis;
    use crate::gossip::{Config, MemberInfo, Pool, Roster};
    use crate::rng::Rng;
    use crate::time::{Mono, Now, Wall};

    fn members(count: u8) -> (Gossip, Gossip) {
        let configs: Vec<Config> = (0..count)
            .map(|n| Config::new(format!("m{n}").into(), SocketAddr::from(([10, 0, 0, n + 1], 8301))))
            .collect();
        let roster = Roster::new(configs.iter().map(|config| {
            Arc::new(MemberInfo::new(config.name.clone(), config.address, config.tags.clone()))
        }));
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
        let member = |n: usize| {
            Gossip::with_members(Pool::Lan, configs[n].clone(), &roster, Rng::from_seed(n as u64), now)
        };
        (member(0), member(1))
    }

    #[test]
    fn only_the_parts_of_what_differs_are_exchanged() {
        let (mut one, other) = members(100);
        assert_eq!(other.difference(&one.digest(7)), None);
        let slot = one.table.find("m42").unwrap();
        let at = Millis::at(Mono(2_000_000_000));
        one.table.set_state(slot, State::Suspect, 1, at);
        assert_eq!(other.difference(&one.digest(8)), None, "suspicion spreads by itself");
        one.table.set_state(slot, State::Dead, 1, at);
        assert_eq!(other.difference(&one.digest(9)), Some(1 << part_of("m42")));
        assert_eq!(one.difference(&other.digest(9)), Some(1 << part_of("m42")));
        one.table.set_state(slot, State::Alive, 1, at);
        one.table.set_intent(slot, true, 5);
        assert_eq!(other.difference(&one.digest(10)), Some(1 << part_of("m42")));
    }

    #[test]
    fn two_lives_of_a_member_differ_in_what_they_say_though_not_in_their_incarnation() {
        let (mut one, other) = members(100);
        let slot = one.table.find("m42").unwrap();
        let (name, address) = (one.table.at(slot).info.name.clone(), one.table.at(slot).info.address);
        let tags = [("id".into(), "another".into())].into();
        one.table.set_info(slot, Arc::new(MemberInfo::new(name, address, tags)));
        assert_eq!(other.difference(&one.digest(7)), Some(1 << part_of("m42")));
    }

    #[test]
    fn a_digest_of_another_shape_differs_in_everything() {
        let (one, other) = members(3);
        let digest = Digest { parts: vec![1, 2, 3], ..one.digest(1) };
        assert_eq!(other.difference(&digest), Some(ALL));
    }
}
