//! Drawing plans from seeds.
//!
//! Each part of a plan is drawn by a generator of its own: one more draw for the clients leaves the faults as they were.

mod clients;
mod faults;

use proconsul_core::rng::Rng;
use proconsul_io_sim::clock::ClockError;
use proconsul_io_sim::net::LinkQuality;

use crate::plan::{DRIFT_BOUND_PPM, DiskPlan, Fault, NetPlan, Plan, TimedFault, Tuning};

impl Plan {
    /// The plan of a seed. The same seed gives the same plan for as long as these files stay as they are.
    #[must_use]
    pub fn from_seed(seed: u64) -> Plan {
        Draw(Rng::from_seed(seed).fork(0x706c_616e)).plan(seed, None)
    }

    /// The plan of a seed for a cluster of so many servers.
    #[must_use]
    pub fn with_servers(seed: u64, servers: u8) -> Plan {
        Draw(Rng::from_seed(seed).fork(0x706c_616e)).plan(seed, Some(servers))
    }
}

/// How many agents there are.
#[derive(Clone, Copy)]
struct Size {
    servers: u8,
    client_agents: u8,
}

/// What a plan dwells upon. A third of all plans has no theme.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Theme {
    /// A bit of everything.
    Mixed,
    /// Slow disks, and power that fails in the middle of writes.
    Disks,
    /// Leaders that are cut off while their clients still reach them.
    Leases,
    /// Frames that are lost, doubled and overtaken.
    Loss,
}

/// The plan's own generator.
struct Draw(Rng);

impl Draw {
    fn plan(&mut self, seed: u64, servers: Option<u8>) -> Plan {
        let drawn = self.choice(&[1, 3, 3, 3, 3, 3, 5, 5, 5]);
        let servers = servers.unwrap_or(drawn);
        let size = Size { servers, client_agents: self.choice(&[0, 0, 0, 1, 1, 2, 3, 4]) };
        let theme = match self.0.below(9) {
            0 | 1 => Theme::Disks,
            2 | 3 if servers > 1 => Theme::Leases,
            4 | 5 if servers > 1 => Theme::Loss,
            _ => Theme::Mixed,
        };
        let safety_ms = self.between(15_000, 30_000);
        // One mixed run in four has clocks that break the promise that default reads depend on; it does without those.
        let wild_clocks = theme == Theme::Mixed && self.one_in(4);
        let bound = i64::from(DRIFT_BOUND_PPM);
        let drift_max = if wild_clocks { bound * 20 } else { bound * 99 / 100 };
        let mut plan = Plan {
            seed,
            servers,
            client_agents: size.client_agents,
            old: Vec::new(),
            safety_ms,
            clocks: (0..servers + size.client_agents).map(|_| self.clock(drift_max)).collect(),
            net: self.net(theme),
            disk: DiskPlan {
                sync_max_us: match theme {
                    Theme::Disks => self.choice(&[20_000, 100_000, 600_000]),
                    Theme::Mixed => self.choice(&[500, 3_000, 20_000, 100_000]),
                    Theme::Leases | Theme::Loss => 3_000,
                },
                checkpoint_max_us: self.choice(&[5_000, 50_000, 500_000]),
            },
            tuning: Tuning {
                snapshot_threshold: self.choice(&[20, 60, 200, 10_000]),
                segment_bytes: self.choice(&[8 << 10, 64 << 10, 1 << 20]),
                stabilization_ms: self.choice(&[0, 1_000, 5_000, 10_000]),
                frame_bytes: self.part(4).choice(&[256, 4 << 10, 4 << 20]),
                tombstone_ttl_ms: self.part(5).choice(&[0, 20_000, 900_000]),
            },
            clients: self.part(1).clients(theme, safety_ms),
            faults: self.part(2).faults(theme, size, safety_ms, drift_max),
            bug: None,
        };
        // With frames of a record each, slow disks are slower than what calm demands.
        if plan.disk.sync_max_us > 3_000 {
            plan.tuning.frame_bytes = Tuning::default().frame_bytes;
        }
        self.part(3).upgrade(&mut plan);
        plan
    }

    /// One plan in five begins with an older program on some agents. They are upgraded, in half of these plans under faults.
    fn upgrade(&mut self, plan: &mut Plan) {
        if !self.one_in(5) {
            return;
        }
        plan.old = (0..plan.servers + plan.client_agents).filter(|_| !self.one_in(4)).collect();
        if self.one_in(2) {
            let at_ms = self.between(2_000, plan.safety_ms / 2);
            let fault = Fault::Upgrade { pause_ms: self.choice(&[100, 500, 2_000]) };
            plan.faults.push(TimedFault { at_ms, fault });
            plan.faults.sort_by_key(|timed| timed.at_ms);
        }
    }

    /// A generator for a part of the plan.
    fn part(&self, number: u64) -> Draw {
        Draw(self.0.fork(number))
    }

    fn clock(&mut self, drift_max: i64) -> ClockError {
        ClockError {
            origin_ns: self.0.below(1 << 50),
            drift_ppm: self.signed(drift_max),
            wall_offset_ms: self.signed(60_000),
        }
    }

    fn net(&mut self, theme: Theme) -> NetPlan {
        let latency_min_us = self.choice(&[100, 500, 2_000, 10_000]);
        let lossy = theme == Theme::Loss;
        let quality = LinkQuality {
            latency_min_us,
            latency_max_us: latency_min_us + self.choice(&[500, 3_000, 20_000]),
            loss_ppm: if lossy {
                self.choice(&[20_000, 100_000])
            } else {
                self.choice(&[0, 0, 1_000, 20_000])
            },
            duplicate_ppm: self.choice(&[0, 1_000, 20_000]),
            reorder_ppm: if lossy { 100_000 } else { self.choice(&[0, 1_000, 50_000]) },
            bytes_per_s: 0,
        };
        NetPlan { quality, datagrams: lossy || (theme == Theme::Mixed && self.one_in(4)) }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.0.below(n) == 0
    }

    fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.0.below(max.saturating_sub(min) + 1)
    }

    fn signed(&mut self, max: i64) -> i64 {
        let span = u64::try_from(2 * max + 1).expect("bounds are positive");
        i64::try_from(self.0.below(span)).expect("below twice a positive i64 that is small") - max
    }

    fn choice<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.0.below(of.len() as u64)).expect("a slice index")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_json_and_a_seed_gives_the_same_plan_again() {
        for seed in 0..50 {
            let plan = Plan::from_seed(seed);
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(Plan::from_json(&json).unwrap(), plan);
            assert_eq!(Plan::from_seed(seed), plan);
        }
    }

    #[test]
    fn most_plans_keep_their_clocks_within_the_bound_and_some_do_not() {
        let trusting = (0..300).filter(|seed| Plan::from_seed(*seed).trusts_clocks()).count();
        assert!((200..299).contains(&trusting), "{trusting}");
    }
}
