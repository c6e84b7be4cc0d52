//! Drawing what is done to a cluster.

use proconsul_io_sim::net::{Death, LinkQuality};

use super::{Draw, Size, Theme};
use crate::plan::{Fault, Target, TimedFault, Way};

/// Kinds of faults. Every seed does with some of them and without the others: a fault that hides another one is absent in
/// half of all runs (Groce and others, «Swarm Testing», ISSTA 2012).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Partition,
    Isolate,
    Sever,
    CutPair,
    CutClients,
    Weather,
    SlowLink,
    PowerLoss,
    Crash,
    CrashAll,
    Pause,
    Drift,
    WallJump,
    SlowDisk,
    FailingDisk,
    FailingReads,
    FullDisk,
    Rot,
    Wipe,
    AddServer,
    Leave,
    RemovePeer,
    TransferLeader,
    ClientAgent,
}

impl Kind {
    const ALL: [Kind; 24] = [
        Kind::Partition,
        Kind::Isolate,
        Kind::Sever,
        Kind::CutPair,
        Kind::CutClients,
        Kind::Weather,
        Kind::SlowLink,
        Kind::PowerLoss,
        Kind::Crash,
        Kind::CrashAll,
        Kind::Pause,
        Kind::Drift,
        Kind::WallJump,
        Kind::SlowDisk,
        Kind::FailingDisk,
        Kind::FailingReads,
        Kind::FullDisk,
        Kind::Rot,
        Kind::Wipe,
        Kind::AddServer,
        Kind::Leave,
        Kind::RemovePeer,
        Kind::TransferLeader,
        Kind::ClientAgent,
    ];

    /// Whether it can happen in a cluster of this size.
    fn fits(self, size: Size) -> bool {
        match self {
            Kind::Partition
            | Kind::Isolate
            | Kind::Sever
            | Kind::CutPair
            | Kind::Weather
            | Kind::SlowLink
            | Kind::RemovePeer
            | Kind::Rot
            | Kind::Wipe
            | Kind::TransferLeader => size.servers > 1,
            Kind::ClientAgent => size.client_agents > 0,
            _ => true,
        }
    }
}

impl Draw {
    pub(super) fn faults(
        &mut self,
        theme: Theme,
        size: Size,
        safety_ms: u64,
        drift_max: i64,
    ) -> Vec<TimedFault> {
        let kinds = self.kinds(size);
        let count = match theme {
            Theme::Mixed => self.choice(&[2, 4, 7, 10, 14]),
            Theme::Disks | Theme::Leases | Theme::Loss => self.between(6, 16),
        };
        // The first seconds are for electing a leader in peace; a few faults come then all the same.
        let mut faults: Vec<TimedFault> = (0..count)
            .map(|_| {
                let earliest = if self.one_in(5) { 0 } else { 2_000 };
                let at_ms = self.between(earliest, safety_ms - 1_000);
                let left_ms = safety_ms - at_ms;
                let fault = match theme {
                    Theme::Disks if !self.one_in(4) => self.outage(size),
                    Theme::Leases if !self.one_in(4) => self.deposition(size, left_ms),
                    _ => {
                        let kind = self.choice(&kinds);
                        self.fault(kind, size, left_ms, drift_max)
                    }
                };
                TimedFault { at_ms, fault }
            })
            .collect();
        faults.sort_by_key(|timed| timed.at_ms);
        faults
    }

    /// Each kind that fits, or not, at the toss of a coin.
    fn kinds(&mut self, size: Size) -> Vec<Kind> {
        let mut kinds: Vec<Kind> =
            Kind::ALL.into_iter().filter(|kind| kind.fits(size) && self.one_in(2)).collect();
        if kinds.is_empty() {
            kinds.push(Kind::Crash);
        }
        kinds
    }

    /// Something that comes while disks are busy, and is over soon.
    fn outage(&mut self, size: Size) -> Fault {
        let down_ms = self.between(5, 600);
        match self.0.below(5) {
            0 | 1 => Fault::KillAll { death: Death::Power, down_ms },
            2 => {
                let (way, ms) = (self.way(), self.between(500, 3_000));
                Fault::Isolate { server: Target::Leader, way, ms, agents: self.one_in(2) }
            }
            _ => Fault::Kill { server: self.target(size), death: Death::Power, down_ms },
        }
    }

    /// Something that makes the others elect another leader while the former may still believe in itself.
    fn deposition(&mut self, size: Size, left_ms: u64) -> Fault {
        let ms = self.between(500, 4_000).min(left_ms);
        let server = Target::Leader;
        match self.0.below(10) {
            0..=2 => Fault::Sever { server, ms },
            3 => Fault::Isolate { server, way: self.way(), ms, agents: self.one_in(2) },
            4 => Fault::Pause { server, ms },
            5 => Fault::Kill { server, death: self.death(), down_ms: ms },
            6 => Fault::CutPair { server, further: 1 + u8::from(self.one_in(2)), ms: 2 * ms },
            7 => Fault::TransferLeader { to: None },
            _ => {
                Fault::Kill { server: self.target(size), death: Death::Process, down_ms: self.between(2, 40) }
            }
        }
    }

    fn fault(&mut self, kind: Kind, size: Size, left_ms: u64, drift_max: i64) -> Fault {
        let ms = self.between(300, 8_000).min(left_ms);
        let server = self.target(size);
        match kind {
            Kind::Partition => Fault::Partition { group: self.group(size), ms },
            Kind::Isolate => Fault::Isolate { server, way: self.way(), ms, agents: self.one_in(2) },
            Kind::Sever => Fault::Sever { server, ms },
            Kind::CutPair => Fault::CutPair { server, further: 1 + u8::from(self.one_in(2)), ms: 2 * ms },
            Kind::CutClients => Fault::CutClients { server, way: self.way(), ms },
            Kind::Weather => Fault::Weather { quality: self.bad_weather(), ms },
            Kind::SlowLink => Fault::SlowLink { server, quality: self.bad_weather(), ms },
            Kind::PowerLoss => Fault::Kill { server, death: Death::Power, down_ms: ms.min(4_000) },
            Kind::Crash => Fault::Kill { server, death: Death::Process, down_ms: self.between(5, 2_000) },
            Kind::CrashAll => Fault::KillAll { death: self.death(), down_ms: self.between(5, 2_000) },
            Kind::Pause => Fault::Pause { server, ms },
            Kind::Drift => Fault::Drift { server, ppm: self.signed(drift_max) },
            Kind::WallJump => Fault::WallJump { server, by_ms: self.signed(3_600_000) },
            Kind::SlowDisk => {
                Fault::SlowDisk { server, sync_max_us: self.choice(&[50_000, 300_000, 2_000_000]), ms }
            }
            Kind::FailingDisk => Fault::FailingDisk { server, per_thousand: self.choice(&[20, 200]), ms },
            Kind::FailingReads => {
                Fault::FailingReads { server, per_thousand: self.choice(&[100, 500, 1_000]), ms }
            }
            Kind::FullDisk => Fault::FullDisk { server, room: self.choice(&[0, 100, 5_000, 50_000]), ms },
            Kind::Rot => {
                Fault::Rot { server, bits: self.choice(&[1, 1, 3]), down_ms: self.between(5, 2_000) }
            }
            Kind::Wipe => Fault::Wipe { server, down_ms: self.between(5, 4_000) },
            Kind::AddServer => Fault::AddServer,
            Kind::Leave => Fault::Leave { server: self.anybody(size), away_ms: self.between(10, 5_000) },
            Kind::RemovePeer => Fault::RemovePeer { server, away_ms: self.between(10, 5_000) },
            Kind::TransferLeader => {
                let to = if self.one_in(2) { Some(self.target(size)) } else { None };
                Fault::TransferLeader { to }
            }
            Kind::ClientAgent => self.client_agent_fault(size, ms),
        }
    }

    /// Something that happens to a client agent.
    fn client_agent_fault(&mut self, size: Size, ms: u64) -> Fault {
        let server = self.client_agent(size);
        match self.0.below(6) {
            0 => Fault::Isolate { server, way: self.way(), ms, agents: true },
            1 => Fault::Sever { server, ms },
            2 => Fault::Pause { server, ms },
            3 => Fault::SlowLink { server, quality: self.bad_weather(), ms },
            _ => Fault::Kill { server, death: self.death(), down_ms: ms },
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

    /// Some agents, and not all servers.
    fn group(&mut self, size: Size) -> Vec<u8> {
        let mut all: Vec<u8> = (0..size.servers).collect();
        self.0.shuffle(&mut all);
        all.truncate(usize::try_from(self.between(1, u64::from(size.servers) - 1)).expect("at most five"));
        all.extend((size.servers..size.servers + size.client_agents).filter(|_| self.one_in(2)));
        all.sort_unstable();
        all
    }

    fn target(&mut self, size: Size) -> Target {
        if self.one_in(2) {
            Target::Leader
        } else {
            Target::Server(u8::try_from(self.0.below(u64::from(size.servers))).expect("at most five"))
        }
    }

    fn client_agent(&mut self, size: Size) -> Target {
        let agents = u64::from(size.client_agents.max(1));
        Target::ClientAgent(u8::try_from(self.0.below(agents)).expect("a few"))
    }

    fn anybody(&mut self, size: Size) -> Target {
        if size.client_agents > 0 && self.one_in(2) { self.client_agent(size) } else { self.target(size) }
    }

    fn way(&mut self) -> Way {
        self.choice(&[Way::Both, Way::Outbound, Way::Inbound])
    }

    fn death(&mut self) -> Death {
        self.choice(&[Death::Power, Death::Process])
    }
}
