//! What a client agent knows of the catalog for its DNS: the instances of the services, and the nodes, that it was asked
//! for lately, each kept new by a blocking query at a server.
//!
//! Data is kept, not answers: order, limits, times to live, health and tags are decided for each question, as on a server.
//! Everything here is bookkeeping. Whoever answers packets looks with a [`Look`]; what it misses is begun with
//! [`Kept::begin`] and asked of a server, as [`Kept::read`] says, again and again; [`Kept::settle`] takes the replies and
//! says how to go on.
//!
//! - **Fresh** is what a server said not longer ago than `max_stale`: what is older is as good as absent. So a lost server
//!   is not noticed by those who ask until then. Without `allow_stale` nothing of this is used.
//! - **Bounds.** [`SUBJECTS_MAX`] subjects of [`BYTES_MAX`] bytes in all, of which at most [`ABSENT_MAX`] are names of
//!   nothing, and at most [`BEGUN_MAX`] have not been heard of yet: who asks for random names finds the place of none
//!   that others ask for.
//! - **Without use** for [`IDLE_MAX`], a subject is forgotten when the server next says anything about it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::DnsConfig;
use crate::Text;
use crate::api::{Blocking, Consistency, ContentType, HttpReply, Read};
use crate::store::model::{Check, Health, Node, Service};
use crate::store::query::{Query, ServiceSelector};
use crate::store::{Instance, InstanceList, Memo, Rows};
use crate::time::Mono;

/// Subjects that are kept; the one that was asked for longest ago makes room.
pub const SUBJECTS_MAX: usize = 1_024;
/// Of them, those that there is nothing of.
pub const ABSENT_MAX: usize = 128;
/// Of them, those that no server has been heard about yet.
pub const BEGUN_MAX: usize = 256;
/// Bytes of all that is kept, as servers send it.
pub const BYTES_MAX: usize = 64 << 20;
/// What is larger is not kept.
pub const BODY_MAX: usize = 8 << 20;
/// What nobody has asked for in this time is forgotten.
pub const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// Longest wait of a blocking query, and shortest.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Pause after a failure; twice as long after each further one in a row.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How packed rows begin.
const PACKED: u8 = 1;

/// What may be kept. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The instances of a service.
    Service(Text),
    /// The instances that take mesh traffic for a service.
    Connect(Text),
    /// A node.
    Node(Text),
}

impl Subject {
    fn query(&self) -> Query {
        let health = |service: &Text, connect| {
            let select = ServiceSelector { service: service.clone(), connect, ..ServiceSelector::default() };
            Query::ServiceHealth { select, passing: false }
        };
        match self {
            Subject::Service(service) => health(service, false),
            Subject::Connect(service) => health(service, true),
            Subject::Node(node) => Query::Node(node.clone()),
        }
    }
}

/// What is known of a subject.
#[derive(Clone, Debug)]
enum Found {
    Instances(Arc<InstanceList>),
    Node(Option<Arc<Node>>),
}

impl Found {
    fn is_absent(&self) -> bool {
        match self {
            Found::Instances(list) => list.items.is_empty(),
            Found::Node(node) => node.is_none(),
        }
    }
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Kept {
    entries: BTreeMap<Subject, Entry>,
    /// Sum of their sizes.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` until a server has been heard.
    found: Option<Found>,
    index: u64,
    size: usize,
    /// When what is known was the newest, at the earliest.
    as_of: Mono,
    /// When it was asked for last, in nanoseconds; readers set it.
    asked: AtomicU64,
    failures: u32,
}

/// What becomes of a subject that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is to be asked for, and these are to be asked for no more.
    Ask(Vec<Subject>),
    /// It is asked for already.
    UnderWay,
    /// There is no place.
    Full,
}

/// How asking for a subject goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Again, at once.
    Ask,
    /// Again, after a pause.
    AskAfter(Duration),
    /// Not at all; and these are to be asked for no more.
    End,
}

impl Kept {
    /// Begins to keep a subject.
    #[must_use]
    pub fn begin(&mut self, subject: &Subject, now: Mono) -> Begun {
        if self.entries.contains_key(subject) {
            return Begun::UnderWay;
        }
        if self.entries.values().filter(|entry| entry.found.is_none()).count() >= BEGUN_MAX {
            return Begun::Full;
        }
        let mut dropped = Vec::new();
        while self.entries.len() >= SUBJECTS_MAX {
            dropped.extend(self.drop_oldest(|entry| entry.found.is_some()));
        }
        let asked = AtomicU64::new(now.0);
        let entry = Entry { found: None, index: 0, size: 0, as_of: Mono(0), asked, failures: 0 };
        self.entries.insert(subject.clone(), entry);
        Begun::Ask(dropped)
    }

    /// What to ask a server for next; `None`: nothing, the subject is kept no more.
    #[must_use]
    pub fn read(&self, subject: &Subject, config: &DnsConfig) -> Option<Read> {
        let entry = self.entries.get(subject)?;
        let mut read = Read::new(subject.query());
        read.consistency = Consistency::Stale;
        read.shape.raw = true;
        if entry.index > 0 && entry.found.is_some() {
            // Long enough that it costs nothing, often enough that what is known does not age.
            let wait = (config.max_stale / 4).clamp(WAIT_MIN, WAIT_MAX);
            read.blocking = Some(Blocking { index: entry.index, wait });
        }
        Some(read)
    }

    /// Takes what a server has said to a [`Kept::read`] of `asked_at`; `None` if it said nothing that helps. What is
    /// dropped to make room goes into `dropped`.
    #[must_use]
    pub fn settle(
        &mut self,
        subject: &Subject,
        said: Option<Said>,
        asked_at: Mono,
        now: Mono,
        dropped: &mut Vec<Subject>,
    ) -> Onward {
        let Some(entry) = self.entries.get_mut(subject) else { return Onward::End };
        let is_idle = now.since(Mono(entry.asked.load(Ordering::Relaxed))) > IDLE_MAX;
        // Those who wait for a first answer that does not come ask a server themselves. What cannot be waited for
        // cannot be kept new.
        let is_useless = match &said {
            None => entry.found.is_none(),
            Some(said) => said.index == 0 || said.size > BODY_MAX,
        };
        if is_idle || is_useless {
            self.remove(subject);
            return Onward::End;
        }
        let Some(said) = said else {
            let pause = PAUSE_MIN * 2u32.saturating_pow(entry.failures.min(16));
            entry.failures += 1;
            return Onward::AskAfter(pause.min(PAUSE_MAX));
        };
        let as_of = asked_at - said.last_contact;
        // A server that lags says what is older.
        if said.index < entry.index && as_of <= entry.as_of {
            return Onward::AskAfter(PAUSE_MIN);
        }
        let before = entry.size;
        let (index, size, found) = (said.index, said.size, Some(said.found));
        (entry.index, entry.size, entry.found) = (index, size, found);
        (entry.as_of, entry.failures) = (entry.as_of.max(as_of), 0);
        self.bytes = self.bytes - before + size;
        if self.entries.values().filter(|entry| entry.is_absent()).count() > ABSENT_MAX {
            dropped.extend(self.drop_oldest(Entry::is_absent));
        }
        while self.bytes > BYTES_MAX {
            dropped.extend(self.drop_oldest(|entry| entry.size > 0));
        }
        if self.entries.contains_key(subject) { Onward::Ask } else { Onward::End }
    }

    fn drop_oldest(&mut self, of: impl Fn(&Entry) -> bool) -> Option<Subject> {
        let entries = self.entries.iter().filter(|(_, entry)| of(entry));
        let oldest = entries.min_by_key(|(_, entry)| entry.asked.load(Ordering::Relaxed));
        let oldest = oldest.map(|(subject, _)| subject.clone())?;
        self.remove(&oldest);
        Some(oldest)
    }

    fn remove(&mut self, subject: &Subject) {
        if let Some(entry) = self.entries.remove(subject) {
            self.bytes -= entry.size;
        }
    }

    /// How many subjects are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    fn is_absent(&self) -> bool {
        self.found.as_ref().is_some_and(Found::is_absent)
    }
}

/// How one question looks at what is kept.
#[derive(Debug)]
pub struct Look<'a> {
    kept: &'a Kept,
    now: Mono,
    max_stale: Duration,
    /// What was looked for and is not there.
    missing: RefCell<Vec<Subject>>,
    /// Whether more was looked for than can be kept.
    beyond: Cell<bool>,
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// All that was looked for was there.
    Enough,
    /// These are to be had first.
    Missing(Vec<Subject>),
    /// Only a server can answer.
    Beyond,
}

impl<'a> Look<'a> {
    /// Looks at what is not older than `max_stale`.
    #[must_use]
    pub fn new(kept: &'a Kept, now: Mono, max_stale: Duration) -> Look<'a> {
        Look { kept, now, max_stale, missing: RefCell::default(), beyond: Cell::new(false) }
    }

    /// What came of it.
    #[must_use]
    pub fn outcome(self) -> Looked {
        match (self.beyond.into_inner(), self.missing.into_inner()) {
            (true, _) => Looked::Beyond,
            (false, missing) if missing.is_empty() => Looked::Enough,
            (false, missing) => Looked::Missing(missing),
        }
    }

    /// Notes that only a server can answer.
    pub(super) fn beyond(&self) {
        self.beyond.set(true);
    }

    /// The instances of a service, its name in lower case.
    pub(super) fn instances(&self, service: &str, connect: bool) -> Option<&'a Arc<InstanceList>> {
        let name = Text::new(service);
        match self.find(if connect { Subject::Connect(name) } else { Subject::Service(name) })? {
            Found::Instances(list) => Some(list).filter(|list| !list.items.is_empty()),
            Found::Node(_) => unreachable!("a service is no node"),
        }
    }

    /// A node, its name in lower case.
    pub(super) fn node(&self, node: &str) -> Option<&'a Arc<Node>> {
        match self.find(Subject::Node(Text::new(node)))? {
            Found::Node(node) => node.as_ref(),
            Found::Instances(_) => unreachable!("a node is no service"),
        }
    }

    fn find(&self, subject: Subject) -> Option<&'a Found> {
        if let Some(entry) = self.kept.entries.get(&subject) {
            // Readers share it: written once a second, not for every question.
            if self.now.since(Mono(entry.asked.load(Ordering::Relaxed))) >= Duration::from_secs(1) {
                entry.asked.store(self.now.0, Ordering::Relaxed);
            }
            if let Some(found) = &entry.found {
                if self.now.since(entry.as_of) <= self.max_stale {
                    return Some(found);
                }
                // It is asked for all the time, and in vain.
                self.beyond();
                return None;
            }
        }
        let mut missing = self.missing.borrow_mut();
        if !missing.contains(&subject) {
            missing.push(subject);
        }
        None
    }
}

/// What servers send of an instance: all that DNS may show.
#[derive(Serialize, Deserialize)]
struct Row {
    node: Node,
    service: Option<(Service, Health)>,
}

/// The rows of an answer as agents send them to each other (`shape.raw`); `None` for rows that are not sent so.
#[must_use]
pub fn pack(rows: &Rows) -> Option<Bytes> {
    let row = |instance: &Arc<Instance>| Row {
        node: Node::clone(&instance.node),
        service: Some((Service::clone(&instance.service), instance.health())),
    };
    let rows = match rows {
        Rows::Instances(list) => list.items.iter().map(row).collect(),
        Rows::Node(node) => {
            let node = node.as_ref().map(|(node, _)| Row { node: Node::clone(node), service: None });
            Vec::from_iter(node)
        }
        _ => return None,
    };
    let packed = postcard::to_extend(&rows, vec![PACKED]).expect("rows are plain data");
    Some(packed.into())
}

/// What a server has said about a subject.
#[derive(Clone, Debug)]
pub struct Said {
    found: Found,
    index: u64,
    last_contact: Duration,
    size: usize,
}

impl Said {
    /// Reads a reply to a [`Kept::read`]; `None` if it is none that helps.
    #[must_use]
    pub fn of(subject: &Subject, reply: &HttpReply) -> Option<Said> {
        // A server that does not know how to pack sends JSON.
        if reply.status != 200 || reply.content_type != ContentType::Raw {
            return None;
        }
        let meta = reply.meta.as_ref()?;
        let body = reply.body.strip_prefix(&[PACKED])?;
        let (rows, rest) = postcard::take_from_bytes::<Vec<Row>>(body).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let found = match subject {
            Subject::Node(_) => Found::Node(rows.into_iter().next().map(|row| Arc::new(row.node))),
            Subject::Service(_) | Subject::Connect(_) => {
                let items = rows.into_iter().filter_map(instance).collect();
                Found::Instances(Arc::new(InstanceList::new(meta.index, items)))
            }
        };
        let last_contact = Duration::from_millis(meta.last_contact_ms);
        Some(Said { found, index: meta.index, last_contact, size: reply.body.len() })
    }
}

fn instance(row: Row) -> Option<Arc<Instance>> {
    let (service, status) = row.service?;
    // Only the worst of its checks matters.
    let checks = vec![Arc::new(Check { status, ..Check::default() })];
    let (node, service) = (Arc::new(row.node), Arc::new(service));
    Some(Arc::new(Instance { node, service, checks, rendered: Memo::new() }))
}

#[cfg(test)]
#[path = "kept_test.rs"]
mod tests;
