//! Blocking queries that wait for a change.
//!
//! Equal queries form a group: when a commit touches what the group looked at, the group is evaluated and rendered
//! once, and all whose index is older share the bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Read;
use crate::ids::RequestId;
use crate::store::Watches;
use crate::store::query::WatchKey;
use crate::time::Mono;

type GroupId = u64;

/// Waiting queries by what wakes them and by when they give up.
#[derive(Debug, Default)]
pub struct Parked {
    next_group: GroupId,
    groups: BTreeMap<GroupId, Group>,
    /// Groups by what they read, the wait left out.
    by_read: BTreeMap<Read, GroupId>,
    /// What groups looked at.
    watches: Watches<GroupId>,
    deadlines: BTreeSet<(Mono, RequestId)>,
    requests: BTreeMap<RequestId, (GroupId, Mono)>,
    #[cfg(test)]
    evaluations: u64,
}

/// One query and those who wait for it.
#[derive(Debug)]
struct Group {
    read: Read,
    watch: Vec<WatchKey>,
    /// The index that each one knows.
    waiters: BTreeMap<RequestId, u64>,
}

impl Parked {
    /// Parks a query that looked at `watch` and found nothing newer than `index`.
    pub fn park(&mut self, id: RequestId, read: &Read, index: u64, until: Mono, watch: Vec<WatchKey>) {
        let read = Read { blocking: None, ..read.clone() };
        let group = if let Some(group) = self.by_read.get(&read) {
            *group
        } else {
            self.next_group += 1;
            let group = self.next_group;
            self.watches.park(group, &watch);
            self.by_read.insert(read.clone(), group);
            self.groups.insert(group, Group { read, watch, waiters: BTreeMap::new() });
            group
        };
        self.groups.get_mut(&group).expect("just found or made").waiters.insert(id, index);
        self.deadlines.insert((until, id));
        self.requests.insert(id, (group, until));
    }

    /// Forgets a query, if it is parked. Answers with what it read.
    pub fn remove(&mut self, id: RequestId) -> Option<Read> {
        let (group, until) = self.requests.remove(&id)?;
        self.deadlines.remove(&(until, id));
        let members = self.groups.get_mut(&group).expect("requests point to groups");
        members.waiters.remove(&id);
        let read = members.read.clone();
        if members.waiters.is_empty() {
            self.dissolve(group);
        }
        Some(read)
    }

    /// Takes a query whose wait is over.
    pub fn take_expired(&mut self, now: Mono) -> Option<(RequestId, Read)> {
        let (until, id) = *self.deadlines.first()?;
        if until > now {
            return None;
        }
        self.remove(id).map(|read| (id, read))
    }

    /// The earliest end of a wait.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many queries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// How often a group was looked at again because of a commit.
    #[cfg(test)]
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// The groups that a commit concerns.
    #[must_use]
    pub fn concerned(&self, touched: &[WatchKey]) -> BTreeSet<GroupId> {
        self.watches.woken_by(touched)
    }

    /// What a group reads.
    #[must_use]
    pub fn read(&self, group: GroupId) -> &Read {
        &self.groups[&group].read
    }

    /// Takes those of a group who know an older index than `index`, and notes what the group looked at this time.
    pub fn wake(&mut self, group: GroupId, index: u64, watch: Vec<WatchKey>) -> Vec<RequestId> {
        #[cfg(test)]
        {
            self.evaluations += 1;
        }
        let members = self.groups.get_mut(&group).expect("a concerned group");
        let woken: Vec<RequestId> =
            members.waiters.iter().filter(|(_, known)| **known < index).map(|(id, _)| *id).collect();
        for id in &woken {
            members.waiters.remove(id);
            if let Some((_, until)) = self.requests.remove(id) {
                self.deadlines.remove(&(until, *id));
            }
        }
        if members.waiters.is_empty() {
            self.dissolve(group);
        } else if members.watch != watch {
            self.watches.park(group, &watch);
            let former = std::mem::replace(&mut members.watch, watch);
            let gone: Vec<WatchKey> = former.into_iter().filter(|key| !members.watch.contains(key)).collect();
            self.watches.leave(group, &gone);
        }
        woken
    }

    fn dissolve(&mut self, group: GroupId) {
        let Group { read, watch, .. } = self.groups.remove(&group).expect("dissolved once");
        self.watches.leave(group, &watch);
        self.by_read.remove(&read);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Text;
    use crate::api::Blocking;
    use crate::store::query::Query;

    fn read(query: Query) -> Read {
        let blocking = Some(Blocking { index: 1, wait: Duration::from_secs(1) });
        Read { blocking, ..Read::new(query) }
    }

    #[test]
    fn equal_queries_share_a_group_and_only_older_ones_wake() {
        let mut parked = Parked::default();
        let query = read(Query::Kv(Text::new("a")));
        let watch = vec![WatchKey::Kv(Text::new("a"))];
        parked.park(RequestId(1), &query, 5, Mono(10), watch.clone());
        parked.park(RequestId(2), &query, 9, Mono(20), watch.clone());
        let groups = parked.concerned(&[WatchKey::Kv(Text::new("a"))]);
        assert_eq!(groups.len(), 1);
        let group = *groups.first().expect("one group");
        assert_eq!(parked.wake(group, 7, watch.clone()), [RequestId(1)]);
        assert_eq!(parked.len(), 1);
        assert_eq!(parked.wake(group, 10, watch), [RequestId(2)]);
        assert!(parked.is_empty() && parked.watches.is_empty() && parked.next_deadline().is_none());
    }

    #[test]
    fn a_key_concerns_the_watchers_of_all_its_prefixes() {
        let mut parked = Parked::default();
        for (id, prefix) in [(1, ""), (2, "a/"), (3, "a/é"), (4, "b/")] {
            let prefix = Text::new(prefix);
            let query = read(Query::KvTree(prefix.clone()));
            parked.park(RequestId(id), &query, 5, Mono(10), vec![WatchKey::KvPrefix(prefix)]);
        }
        assert_eq!(parked.concerned(&[WatchKey::Kv(Text::new("a/éx"))]).len(), 3);
        assert_eq!(parked.concerned(&[WatchKey::Kv(Text::new("b"))]).len(), 1);
        assert_eq!(parked.concerned(&[WatchKey::All]).len(), 4);
    }

    #[test]
    fn an_expired_or_abandoned_query_leaves_nothing_behind() {
        let mut parked = Parked::default();
        let query = read(Query::Sessions);
        parked.park(RequestId(1), &query, 5, Mono(10), vec![WatchKey::Sessions]);
        parked.park(RequestId(2), &query, 5, Mono(11), vec![WatchKey::Sessions]);
        assert_eq!(parked.take_expired(Mono(9)), None);
        assert_eq!(parked.take_expired(Mono(10)).map(|(id, _)| id), Some(RequestId(1)));
        assert!(parked.remove(RequestId(2)).is_some());
        assert!(parked.remove(RequestId(2)).is_none());
        assert!(parked.groups.is_empty() && parked.by_read.is_empty() && parked.watches.is_empty());
    }
}
