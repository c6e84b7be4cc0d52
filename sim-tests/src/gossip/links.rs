//! What happens to packets under way: delay, loss, links that are cut.

use std::collections::BTreeMap;
use std::time::Duration;

use proconsul_core::rng::Rng;

use super::net::Id;

/// A lost segment of a stream is sent again after this long.
const RESENT_AFTER: Duration = Duration::from_millis(200);

/// How a member is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing reaches it; what it sends arrives.
    Inbound,
    /// Nothing leaves it; what is sent to it arrives.
    Outbound,
    /// Half of its links are dead in both directions, drawn by this seed.
    Half(u64),
    /// It reaches those in the same cell only.
    Cell(u8),
}

/// The links between members. All delays are drawn evenly between two bounds.
#[derive(Clone, Debug)]
pub struct Links {
    /// Shortest time of one crossing.
    pub delay_min: Duration,
    /// Longest time of one crossing.
    pub delay_max: Duration,
    /// How many of a thousand datagrams, or segments of a stream, are lost.
    pub loss: u64,
    /// Who is cut off, and how.
    pub cuts: BTreeMap<Id, Cut>,
}

impl Links {
    /// A local network: 0.2 to 2 ms, nothing is lost.
    #[must_use]
    pub fn lan() -> Links {
        Links {
            delay_min: Duration::from_micros(200),
            delay_max: Duration::from_millis(2),
            loss: 0,
            cuts: BTreeMap::new(),
        }
    }

    /// The same, with so many of a thousand packets lost.
    #[must_use]
    pub fn lossy(loss: u64) -> Links {
        Links { loss, ..Links::lan() }
    }

    /// When a datagram arrives; never, when it is lost.
    pub fn datagram(&self, rng: &mut Rng, from: Id, to: Id) -> Option<Duration> {
        let lost = rng.below(1000) < self.loss;
        (!lost && self.carries(from, to)).then(|| self.delay(rng))
    }

    /// When so many crossings of a stream are done; never, when the two cannot both reach each other.
    pub fn stream(&self, rng: &mut Rng, from: Id, to: Id, crossings: u32) -> Option<Duration> {
        if !(self.carries(from, to) && self.carries(to, from)) {
            return None;
        }
        let mut delay = Duration::ZERO;
        for _ in 0..crossings {
            delay += self.delay(rng);
            let mut wait = RESENT_AFTER;
            while rng.below(1000) < self.loss {
                delay += wait;
                wait *= 2;
            }
        }
        Some(delay)
    }

    fn carries(&self, from: Id, to: Id) -> bool {
        if self.cuts.is_empty() || from == to {
            return true;
        }
        let (ours, theirs) = (self.cuts.get(&from), self.cuts.get(&to));
        let cell = |cut: Option<&Cut>| match cut {
            Some(Cut::Cell(cell)) => *cell,
            Some(Cut::Inbound | Cut::Outbound | Cut::Half(_)) | None => 0,
        };
        let dead = |cut: Option<&Cut>, other: Id| match cut {
            Some(Cut::Half(seed)) => Rng::from_seed(*seed).fork(other as u64).below(2) == 0,
            Some(Cut::Inbound | Cut::Outbound | Cut::Cell(_)) | None => false,
        };
        cell(ours) == cell(theirs)
            && ours != Some(&Cut::Outbound)
            && theirs != Some(&Cut::Inbound)
            && !dead(ours, to)
            && !dead(theirs, from)
    }

    fn delay(&self, rng: &mut Rng) -> Duration {
        self.delay_min + rng.duration_below(self.delay_max - self.delay_min)
    }
}
