//! Drawing what is done to a cluster.

use proconsul_io_sim::net::{Death, LinkQuality};

use super::{Draw, Theme};
use crate::plan::{Fault, Target, TimedFault, Way};

impl Draw {
    pub(super) fn faults(
        &mut self,
        theme: Theme,
        servers: u8,
        safety_ms: u64,
        drift_max: i64,
    ) -> Vec<TimedFault> {
        let count = if theme == Theme::Mixed { self.between(2, 10) } else { self.between(6, 16) };
        // The first seconds are for electing a leader in peace; a few faults come then all the same.
        let mut faults: Vec<TimedFault> = (0..count)
            .map(|_| {
                let earliest = if self.one_in(5) { 0 } else { 2_000 };
                let at_ms = self.between(earliest, safety_ms - 1_000);
                let left_ms = safety_ms - at_ms;
                let fault = match theme {
                    Theme::Disks if !self.one_in(4) => self.outage(servers),
                    Theme::Leases if !self.one_in(4) => self.deposition(servers, left_ms),
                    _ => self.fault(servers, left_ms, drift_max),
                };
                TimedFault { at_ms, fault }
            })
            .collect();
        faults.sort_by_key(|timed| timed.at_ms);
        faults
    }

    /// Something that comes while disks are busy, and is over soon.
    fn outage(&mut self, servers: u8) -> Fault {
        let down_ms = self.between(5, 600);
        match self.0.below(5) {
            0 | 1 => Fault::KillAll { death: Death::Power, down_ms },
            2 => Fault::Isolate { server: Target::Leader, way: self.way(), ms: self.between(500, 3_000) },
            _ => Fault::Kill { server: self.target(servers), death: Death::Power, down_ms },
        }
    }

    /// Something that makes the others elect another leader while the former may still believe in itself.
    fn deposition(&mut self, servers: u8, left_ms: u64) -> Fault {
        let ms = self.between(500, 4_000).min(left_ms);
        let server = Target::Leader;
        match self.0.below(9) {
            0..=2 => Fault::Sever { server, ms },
            3 => Fault::Isolate { server, way: self.way(), ms },
            4 => Fault::Pause { server, ms },
            5 => Fault::Kill { server, death: self.death(), down_ms: ms },
            6 => Fault::CutPair { server, further: 1 + u8::from(self.one_in(2)), ms: 2 * ms },
            _ => Fault::Kill {
                server: self.target(servers),
                death: Death::Process,
                down_ms: self.between(2, 40),
            },
        }
    }

    fn fault(&mut self, servers: u8, left_ms: u64, drift_max: i64) -> Fault {
        let ms = self.between(300, 8_000).min(left_ms);
        let server = self.target(servers);
        match self.0.below(15) {
            0 | 1 if servers > 1 => Fault::Partition { group: self.group(servers), ms },
            2 if servers > 1 => Fault::Isolate { server, way: self.way(), ms },
            3 if servers > 1 => Fault::Sever { server, ms },
            4 => Fault::CutClients { server, way: self.way(), ms },
            5 if servers > 1 => Fault::Weather { quality: self.bad_weather(), ms },
            6 if servers > 1 => Fault::SlowLink { server, quality: self.bad_weather(), ms },
            7 | 8 => Fault::Kill { server, death: Death::Power, down_ms: ms.min(4_000) },
            9 => Fault::Kill { server, death: Death::Process, down_ms: self.between(5, 2_000) },
            10 => Fault::KillAll { death: self.death(), down_ms: self.between(5, 2_000) },
            11 => Fault::Drift { server, ppm: self.signed(drift_max) },
            12 => Fault::SlowDisk { server, sync_max_us: self.choice(&[50_000, 300_000, 2_000_000]), ms },
            14 if self.one_in(3) => Fault::FailingDisk { server, per_thousand: self.choice(&[20, 200]), ms },
            13 if self.one_in(3) => Fault::WallJump { server, by_ms: self.signed(3_600_000) },
            _ => Fault::Pause { server, ms },
        }
    }

    fn bad_weather(&mut self) -> LinkQuality {
        let latency_min_us = self.choice(&[100, 5_000, 50_000]);
        LinkQuality {
            latency_min_us,
            latency_max_us: latency_min_us + self.choice(&[10_000, 100_000, 400_000]),
            loss_ppm: self.choice(&[0, 50_000, 300_000]),
            duplicate_ppm: self.choice(&[0, 100_000]),
            reorder_ppm: self.choice(&[0, 300_000]),
            bytes_per_s: self.choice(&[0, 0, 20_000]),
        }
    }

    fn group(&mut self, servers: u8) -> Vec<u8> {
        let mut all: Vec<u8> = (0..servers).collect();
        self.0.shuffle(&mut all);
        let size = 1 + self.0.below(u64::from(servers) - 1);
        all.truncate(usize::try_from(size).expect("at most five"));
        all.sort_unstable();
        all
    }

    fn target(&mut self, servers: u8) -> Target {
        if self.one_in(2) {
            Target::Leader
        } else {
            Target::Server(u8::try_from(self.0.below(u64::from(servers))).expect("at most five"))
        }
    }

    fn way(&mut self) -> Way {
        self.choice(&[Way::Both, Way::Outbound, Way::Inbound])
    }

    fn death(&mut self) -> Death {
        self.choice(&[Death::Power, Death::Process])
    }
}
