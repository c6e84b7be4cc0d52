//! Instances of services as discovery sees them: with their node and their checks, ready to be rendered once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::model::{Check, Health, Node, Service};
use crate::Text;
use crate::dns::Records;

/// Bytes that are made when they are first asked for and kept as long as what they were made from.
///
/// Any thread may fill a cell; whoever comes second takes what is there.
#[derive(Clone, Debug)]
pub struct Memo<const N: usize> {
    cells: [OnceLock<Bytes>; N],
}

impl<const N: usize> Default for Memo<N> {
    fn default() -> Self {
        Memo::new()
    }
}

impl<const N: usize> Memo<N> {
    /// A memo with empty cells.
    #[must_use]
    pub fn new() -> Memo<N> {
        Memo { cells: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// The bytes in a cell, made by `render` if nobody has yet. A cell means one rendering, always the same one.
    pub fn get(&self, cell: usize, render: impl FnOnce() -> Bytes) -> &Bytes {
        self.cells[cell].get_or_init(render)
    }
}

/// One instance of a service: with everything that health and catalog answers show of it. Immutable; a change of the
/// node, the service or one of the checks makes a new one.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Where it runs.
    pub node: Arc<Node>,
    /// What it is.
    pub service: Arc<Service>,
    /// The node's checks, then the instance's own, each in the order of their ids.
    pub checks: Vec<Arc<Check>>,
    /// Its JSON: see [`Rendering::entry`] for the cells.
    pub rendered: Memo<2>,
}

impl PartialEq for Instance {
    fn eq(&self, other: &Instance) -> bool {
        self.node == other.node && self.service == other.service && self.checks == other.checks
    }
}

impl Eq for Instance {}

impl Instance {
    /// The worst of its checks; passing when it has none.
    #[must_use]
    pub fn health(&self) -> Health {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Health::Passing)
    }

    /// Its weight for DNS: the one for its health. Zero means «hardly ever» (RFC 2782), and is for those that are critical.
    #[must_use]
    pub fn weight(&self) -> u16 {
        let weights = self.service.weights;
        let weight = match self.health() {
            Health::Passing => weights.passing,
            Health::Warning => weights.warning,
            // A prepared query may ignore the check that says so.
            Health::Critical => return 0,
        };
        u16::try_from(weight.max(1)).unwrap_or(u16::MAX)
    }

    /// Whether it has all these tags, without regard to letter case.
    #[must_use]
    pub fn has_tags(&self, tags: &[Text]) -> bool {
        tags.iter().all(|tag| self.service.tags.iter().any(|has| has.eq_ignore_ascii_case(tag)))
    }
}

/// Which JSON of an instance or of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendering {
    /// As `/v1/health/service` shows it; otherwise as `/v1/catalog/service` does.
    pub health: bool,
    /// Indented.
    pub pretty: bool,
}

impl Rendering {
    /// The cell of [`Instance::rendered`]: entries are kept in compact form.
    #[must_use]
    pub fn entry(self) -> usize {
        usize::from(self.health)
    }

    /// The cell of [`InstanceList::rendered`].
    #[must_use]
    pub fn list(self) -> usize {
        usize::from(self.health) + 2 * usize::from(self.pretty)
    }
}

/// Instances of one service, in the order of node names and instance ids. All readers of an unchanged service share one.
#[derive(Clone, Debug, Default)]
pub struct InstanceList {
    /// Index of the service.
    pub index: u64,
    /// The instances.
    pub items: Vec<Arc<Instance>>,
    /// Whole bodies: see [`Rendering::list`] for the cells.
    pub rendered: Memo<4>,
    places: OnceLock<Places>,
    records: OnceLock<Records>,
}

/// Where the instances of a list are, as DNS asks for it: read from their texts once per list.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// One for each instance, in the order of the list.
    pub of: Box<[Place]>,
    /// The instances that are not critical, by their position in the list.
    pub alive: Box<[u32]>,
    /// Those of them that are passing.
    pub passing: Box<[u32]>,
    /// Whether no two instances have the same address.
    pub distinct: bool,
    /// Whether the node of any of them has metadata.
    pub has_meta: bool,
}

/// Where an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its own address, or else that of its node; `None` if that is a name.
    pub address: Option<IpAddr>,
    /// Whether that is its own.
    pub is_own: bool,
}

impl Place {
    fn of(instance: &Instance) -> Place {
        let parse = |address: &str| address.parse::<IpAddr>().map(|address| address.to_canonical());
        let service = &instance.service;
        let (address, is_own) = match (parse(&service.address), service.address.is_empty()) {
            (Ok(own), _) => (Some(own), true),
            (Err(_), true) => (parse(&instance.node.address).ok(), false),
            (Err(_), false) => (None, true),
        };
        Place { address, is_own }
    }
}

impl Places {
    fn new(items: &[Arc<Instance>]) -> Places {
        let of = items.iter().map(|item| Place::of(item)).collect::<Box<[_]>>();
        let up_to = |worst| {
            let healthy = (0..).zip(items).filter(|(_, item)| item.health() <= worst);
            healthy.map(|(at, _)| at).collect()
        };
        let mut addresses = of.iter().filter_map(|place| place.address).collect::<Vec<_>>();
        addresses.sort_unstable();
        let distinct = addresses.windows(2).all(|pair| pair[0] != pair[1]);
        let has_meta = items.iter().any(|item| !item.node.meta.is_empty());
        Places { of, alive: up_to(Health::Warning), passing: up_to(Health::Passing), distinct, has_meta }
    }
}

impl PartialEq for InstanceList {
    fn eq(&self, other: &InstanceList) -> bool {
        self.index == other.index && self.items == other.items
    }
}

impl Eq for InstanceList {}

impl InstanceList {
    /// A list of which nothing has been rendered.
    #[must_use]
    pub fn new(index: u64, items: Vec<Arc<Instance>>) -> InstanceList {
        InstanceList {
            index,
            items,
            rendered: Memo::new(),
            places: OnceLock::new(),
            records: OnceLock::new(),
        }
    }

    /// Where its instances are.
    pub fn places(&self) -> &Places {
        self.places.get_or_init(|| Places::new(&self.items))
    }

    /// Their SRV records with targets in a zone: `<dc>.<domain>` as in packets. They are made for the first zone that is asked
    /// for, which on an agent is the only one; `None` for others.
    pub(crate) fn records(&self, zone: &[u8]) -> Option<&Records> {
        let records = self.records.get_or_init(|| Records::new(&self.items, self.places(), zone));
        (records.zone() == zone).then_some(records)
    }
}

/// Service names as registered, with the distinct tags of their instances.
pub type ServiceNames = BTreeMap<Text, BTreeSet<Text>>;
