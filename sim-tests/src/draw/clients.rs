//! Drawing who uses a cluster, and how.

use super::{Draw, Theme};
use crate::plan::{ClientKind, ClientPlan};

impl Draw {
    pub(super) fn clients(&mut self, theme: Theme, safety_ms: u64) -> Vec<ClientPlan> {
        let mut kinds = vec![ClientKind::Kv; usize::try_from(self.between(3, 5)).expect("at most five")];
        kinds.extend(std::iter::repeat_n(ClientKind::Lock, if self.one_in(3) { 3 } else { 2 }));
        if theme == Theme::Leases {
            kinds.extend([ClientKind::Reader; 3]);
        }
        kinds.push(ClientKind::Watcher);
        kinds.push(if self.one_in(2) { ClientKind::Watcher } else { ClientKind::PrefixWatcher });
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
}
