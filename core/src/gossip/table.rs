//! The table of members: addressed by slot, found by name and by identity.
//!
//! Nothing here costs time in proportion to the pool but what says so. The table is persistent: a clone shares all rows
//! with its origin until they differ, so that a process may hold thousands of members that all know each other.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, Vector};

use super::member::{Entry, MemberInfo, Millis, State};
use crate::Text;
use crate::ids::Uuid;
use crate::rng::Rng;
use crate::time::Mono;

/// Where a member is in the table. Reused after the member is forgotten.
pub(super) type Slot = u32;

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    slots: Vector<Option<Entry>>,
    by_name: OrdMap<Text, Slot>,
    /// The member that came last with this identity.
    by_id: OrdMap<Uuid, Slot>,
    vacant: Vec<Slot>,
    /// How many are alive or suspected.
    alive: usize,
    /// Those that are dead or left.
    gone: BTreeSet<Slot>,
}

impl Table {
    /// All of these, alive in their first incarnation. Costs time in proportion to their number.
    pub fn of(infos: impl IntoIterator<Item = Arc<MemberInfo>>) -> Table {
        let mut table = Table::default();
        for info in infos {
            table.insert(info, 1, State::Alive, Millis::at(Mono(0)));
        }
        table
    }

    /// Adds a member whose name is not in the table.
    pub fn insert(&mut self, info: Arc<MemberInfo>, incarnation: u32, state: State, since: Millis) -> Slot {
        let name = info.name.clone();
        let id = info.id;
        let entry = Entry { info, incarnation, state, leaving: false, intent_time: 0, since };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push_back(Some(entry));
                Slot::try_from(self.slots.len() - 1).expect("a pool has fewer than four billion members")
            }
        };
        let former = self.by_name.insert(name, slot);
        assert!(former.is_none(), "a name is in the table once");
        if let Some(id) = id {
            self.by_id.insert(id, slot);
        }
        self.count(slot, state);
        slot
    }

    /// Forgets a member.
    pub fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.slots.get_mut(slot as usize)?.take()?;
        self.by_name.remove(&entry.info.name);
        self.forget_id(slot, entry.info.id);
        self.uncount(slot, entry.state);
        self.vacant.push(slot);
        Some(entry)
    }

    pub fn find(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    pub fn find_id(&self, id: Uuid) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// A member that is known to be there.
    pub fn at(&self, slot: Slot) -> &Entry {
        self.get(slot).expect("a slot that is held is occupied")
    }

    /// Changes what is believed of a member.
    pub fn set_state(&mut self, slot: Slot, state: State, incarnation: u32, since: Millis) {
        let former = self.at(slot).state;
        self.uncount(slot, former);
        let entry = self.at_mut(slot);
        if entry.state != state {
            entry.since = since;
        }
        entry.state = state;
        entry.incarnation = incarnation;
        self.count(slot, state);
    }

    /// Changes what a member says of itself; the name stays.
    pub fn set_info(&mut self, slot: Slot, info: Arc<MemberInfo>) {
        let former = self.at(slot).info.id;
        assert!(self.at(slot).info.name == info.name, "a slot belongs to a name");
        if former != info.id {
            self.forget_id(slot, former);
        }
        if let Some(id) = info.id {
            self.by_id.insert(id, slot);
        }
        self.at_mut(slot).info = info;
    }

    /// Changes what the intents about a member say.
    pub fn set_intent(&mut self, slot: Slot, leaving: bool, time: u64) {
        let entry = self.at_mut(slot);
        entry.leaving = leaving;
        entry.intent_time = time;
    }

    /// Everybody with an identity, in the order of identities and round in a circle, beginning after this member, which
    /// comes last; nobody, when it has none.
    pub fn circle_after(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let circle = self.at(slot).info.id.map(|id| {
            let after = self.by_id.range((Bound::Excluded(id), Bound::Unbounded));
            after.chain(self.by_id.range(..=id)).map(|(_, slot)| *slot)
        });
        circle.into_iter().flatten()
    }

    /// How many slots there are, vacant ones included.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many members are known.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many are alive or suspected.
    pub fn alive(&self) -> usize {
        self.alive
    }

    /// Those that are dead or left.
    pub fn gone(&self) -> impl Iterator<Item = Slot> + '_ {
        self.gone.iter().copied()
    }

    /// Everybody, in the order of slots. Costs time in proportion to the pool.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot as Slot, entry.as_ref()?)))
    }

    /// Everybody, in the order of names. Costs time in proportion to the pool.
    pub fn by_name(&self) -> impl Iterator<Item = &Entry> {
        self.by_name.values().map(|slot| self.at(*slot))
    }

    /// Up to `count` different members that fit, at random. Costs time in proportion to `count`: in a large pool in
    /// which few fit, fewer may be found than there are.
    pub fn random(&self, rng: &mut Rng, count: usize, fits: impl Fn(Slot, &Entry) -> bool) -> Vec<Slot> {
        const SCANNED_MAX: usize = 48;
        let slots = self.slots.len();
        if slots <= SCANNED_MAX {
            let mut found: Vec<Slot> =
                self.iter().filter(|(slot, entry)| fits(*slot, entry)).map(|(slot, _)| slot).collect();
            for at in 0..count.min(found.len()) {
                let other = at + rng.below((found.len() - at) as u64) as usize;
                found.swap(at, other);
            }
            found.truncate(count);
            return found;
        }
        let mut found = Vec::with_capacity(count);
        for _ in 0..(8 * count + 16) {
            if found.len() == count {
                break;
            }
            let slot = rng.below(slots as u64) as Slot;
            if !found.contains(&slot) && self.get(slot).is_some_and(|entry| fits(slot, entry)) {
                found.push(slot);
            }
        }
        found
    }

    /// What must hold of the table.
    #[cfg(test)]
    pub fn invariants(&self) {
        assert_eq!(self.iter().filter(|(_, entry)| entry.state.is_alive()).count(), self.alive);
        let gone: BTreeSet<Slot> =
            self.iter().filter(|(_, entry)| !entry.state.is_alive()).map(|(slot, _)| slot).collect();
        assert_eq!(gone, self.gone);
        assert_eq!(self.by_name.len(), self.alive + self.gone.len());
        assert!(self.iter().all(|(slot, entry)| self.find(&entry.info.name) == Some(slot)));
        assert_eq!(self.slots.len(), self.by_name.len() + self.vacant.len());
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Entry {
        self.slots[slot as usize].as_mut().expect("a slot that is held is occupied")
    }

    fn forget_id(&mut self, slot: Slot, id: Option<Uuid>) {
        if let Some(id) = id
            && self.by_id.get(&id) == Some(&slot)
        {
            self.by_id.remove(&id);
        }
    }

    fn count(&mut self, slot: Slot, state: State) {
        if state.is_alive() {
            self.alive += 1;
        } else {
            self.gone.insert(slot);
        }
    }

    fn uncount(&mut self, slot: Slot, state: State) {
        if state.is_alive() {
            self.alive -= 1;
        } else {
            self.gone.remove(&slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn table(members: u16) -> Table {
        Table::of((0..members).map(|n| {
            let address = std::net::SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 8301));
            Arc::new(MemberInfo::new(format!("m{n}").into(), address, BTreeMap::new()))
        }))
    }

    #[test]
    fn counts_follow_every_change() {
        let mut table = table(5);
        table.invariants();
        let slot = table.find("m3").unwrap();
        for state in [State::Suspect, State::Dead, State::Left, State::Alive, State::Left] {
            table.set_state(slot, state, 2, Millis::at(Mono(1)));
            table.invariants();
        }
        assert_eq!((table.alive(), table.len()), (4, 5));
        table.remove(slot);
        table.invariants();
        assert!(table.find("m3").is_none());
        let info = Arc::new(MemberInfo::new("new".into(), "10.1.1.1:1".parse().unwrap(), BTreeMap::new()));
        assert_eq!(table.insert(info, 1, State::Alive, Millis::at(Mono(1))), slot);
        table.invariants();
    }

    #[test]
    fn a_random_choice_is_distinct_and_fits_in_small_and_large_pools() {
        let mut rng = Rng::from_seed(3);
        for members in [1, 4, 40, 1_000] {
            let table = table(members);
            for _ in 0..50 {
                let chosen = table.random(&mut rng, 3, |slot, _| slot % 2 == 0);
                let distinct: BTreeSet<Slot> = chosen.iter().copied().collect();
                assert_eq!(distinct.len(), chosen.len());
                assert_eq!(chosen.len(), 3.min(usize::from(members).div_ceil(2)));
                assert!(chosen.iter().all(|slot| slot % 2 == 0));
            }
        }
    }
}
