//! Drawing who uses a cluster, and how.

use super::{Draw, Theme};
use crate::plan::{ClientKind, ClientPlan};

/// Clients do so much at most where states are restored: the order of everything on all keys is searched for then.
const RESTORED_OPERATIONS_MAX: u32 = 100;

impl Draw {
    pub(super) fn clients(&mut self, theme: Theme, safety_ms: u64) -> Vec<ClientPlan> {
        // A restore ties all keys together and sets the catalog, sessions and locks back: seldom, and among less.
        let restores = theme == Theme::Mixed && self.part(1).one_in(8);
        let mut kinds = self.mix(theme);
        let think_max_ms =
            if theme == Theme::Mixed { self.choice(&[20, 100, 400]) } else { self.choice(&[10, 40]) };
        // Readers of one agent see what it shows after a start, a snapshot, a lost leader.
        if theme == Theme::Mixed && self.part(3).one_in(3) {
            kinds.push(ClientKind::Reader);
        }
        let mut operations = u32::try_from((safety_ms / think_max_ms).min(400)).expect("at most 400");
        if restores {
            operations = operations.min(RESTORED_OPERATIONS_MAX);
            let count = self.part(2).between(1, 2);
            kinds.extend((0..count).map(|_| ClientKind::Restorer));
        }
        let padding_max = match theme {
            Theme::Disks => self.choice(&[0, 3_000, 12_000]),
            _ => 0,
        };
        // From a part of their own, so that the others are what they were before there were these.
        let mut part = self.part(4);
        let asks_names = theme == Theme::Mixed && !restores && part.one_in(4);
        let mut plans: Vec<ClientPlan> = kinds
            .into_iter()
            .map(|kind| ClientPlan { kind, seed: self.0.next_u64(), operations, think_max_ms, padding_max })
            .collect();
        if asks_names {
            let kind = ClientKind::Names;
            let names =
                || ClientPlan { kind, seed: part.0.next_u64(), operations, think_max_ms, padding_max };
            plans.extend(std::iter::repeat_with(names).take(2));
        }
        plans
    }

    /// Which kinds work together: each run has some of them only, so that each is sometimes among few.
    fn mix(&mut self, theme: Theme) -> Vec<ClientKind> {
        let some = |kind, count: u64| std::iter::repeat_n(kind, usize::try_from(count).expect("a handful"));
        let mut kinds = Vec::new();
        if theme == Theme::Mixed {
            for (kind, at_most) in [
                (ClientKind::Kv, 4),
                (ClientKind::Lock, 3),
                (ClientKind::Lifetime, 2),
                (ClientKind::Registrar, 2),
                (ClientKind::Event, 2),
                (ClientKind::Transfer, 3),
                (ClientKind::Set, 2),
                (ClientKind::Fence, 3),
            ] {
                if self.one_in(2) {
                    let count = self.between(1, at_most);
                    kinds.extend(some(kind, count));
                }
            }
            if kinds.is_empty() {
                kinds.extend(some(ClientKind::Kv, 3));
            }
        } else {
            kinds.extend(some(ClientKind::Kv, self.between(3, 5)));
            kinds.extend(some(ClientKind::Lock, self.between(1, 3)));
            if theme == Theme::Leases {
                kinds.extend(some(ClientKind::Reader, 3));
            }
        }
        let watchers = self.between(1, 3);
        for _ in 0..watchers {
            kinds.push(self.choice(&[
                ClientKind::Watcher,
                ClientKind::PrefixWatcher,
                ClientKind::Follower,
                ClientKind::Follower,
            ]));
        }
        kinds
    }
}
