//! Drawing who uses a cluster, and how.

use super::{Draw, Theme};
use crate::plan::{ClientKind, ClientPlan};

impl Draw {
    pub(super) fn clients(&mut self, theme: Theme, safety_ms: u64) -> Vec<ClientPlan> {
        let kinds = self.mix(theme);
        let think_max_ms =
            if theme == Theme::Mixed { self.choice(&[20, 100, 400]) } else { self.choice(&[10, 40]) };
        let operations = u32::try_from((safety_ms / think_max_ms).min(400)).expect("at most 400");
        let padding_max = match theme {
            Theme::Disks => self.choice(&[0, 3_000, 12_000]),
            _ => 0,
        };
        kinds
            .into_iter()
            .map(|kind| ClientPlan { kind, seed: self.0.next_u64(), operations, think_max_ms, padding_max })
            .collect()
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
