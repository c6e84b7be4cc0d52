//! What one member knows of another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::types::{META_BYTES_MAX, Member, Status, tag};
use crate::Text;
use crate::ids::Uuid;
use crate::time::Mono;

/// Longest name of a member, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// What a member says of itself. Shared by all who know it in one process, which matters to simulations only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Name, unique in the pool.
    pub name: Text,
    /// Where it receives gossip.
    pub address: SocketAddr,
    /// Its tags as they travel.
    pub meta: Bytes,
    /// Its tags.
    pub tags: Arc<BTreeMap<Text, Text>>,
    /// The tag `id`, when it is a UUID.
    pub id: Option<Uuid>,
}

impl MemberInfo {
    /// A member with these tags.
    ///
    /// # Panics
    /// The tags' encoding exceeds [`META_BYTES_MAX`]: tags are made by the agent, which keeps them short.
    #[must_use]
    pub fn new(name: Text, address: SocketAddr, tags: BTreeMap<Text, Text>) -> MemberInfo {
        let meta = postcard::to_allocvec(&tags).expect("texts always encode");
        assert!(meta.len() <= META_BYTES_MAX, "the tags of a member take {} bytes", meta.len());
        let id = tags.get(tag::ID).and_then(|id| Uuid::parse(id));
        MemberInfo { name, address, meta: Bytes::from(meta), tags: Arc::new(tags), id }
    }

    /// A member as a message describes it; `None` when the description makes no sense.
    pub(super) fn received(name: &str, address: SocketAddr, meta: &[u8]) -> Option<MemberInfo> {
        if !is_good_name(name)
            || meta.len() > META_BYTES_MAX
            || address.port() == 0
            || address.ip().is_unspecified()
        {
            return None;
        }
        let tags: BTreeMap<Text, Text> = if meta.is_empty() {
            BTreeMap::new()
        } else {
            let (tags, rest) = postcard::take_from_bytes(meta).ok()?;
            rest.is_empty().then_some(tags)?
        };
        let id = tags.get(tag::ID).and_then(|id| Uuid::parse(id));
        Some(MemberInfo {
            name: name.into(),
            address,
            meta: Bytes::copy_from_slice(meta),
            tags: Arc::new(tags),
            id,
        })
    }

    /// The value of a tag; empty when it is absent.
    pub(super) fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", Text::as_str)
    }
}

/// Whether a member may be called so.
pub(super) fn is_good_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control)
}

/// What SWIM believes of a member (SWIM, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum State {
    /// It answered, or nobody has said otherwise.
    Alive,
    /// Somebody could not reach it; it may still object.
    Suspect,
    /// The suspicion was not refuted in time.
    Dead,
    /// It said so itself.
    Left,
}

impl State {
    /// Whether it counts as a member of the pool.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }
}

/// One row of the table of members.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub info: Arc<MemberInfo>,
    /// Counts the member's own refutations; only the member itself raises it.
    pub incarnation: u32,
    pub state: State,
    /// An intent to leave was heard: it is leaving, and when it is gone, it has left.
    pub leaving: bool,
    /// Lamport time of the last intent about it.
    pub intent_time: u64,
    /// When `state` was entered.
    pub since: Millis,
}

impl Entry {
    /// What the member is to the world outside of gossip.
    pub fn status(&self) -> Status {
        match (self.state, self.leaving) {
            (State::Alive | State::Suspect, false) => Status::Alive,
            (State::Alive | State::Suspect, true) => Status::Leaving,
            (State::Dead, false) => Status::Failed,
            (State::Dead, true) | (State::Left, _) => Status::Left,
        }
    }

    pub fn member(&self) -> Member {
        Member {
            name: self.info.name.clone(),
            address: self.info.address,
            tags: Arc::clone(&self.info.tags),
            status: self.status(),
        }
    }
}

/// A point on the monotonic clock in milliseconds; may lie before the clock's origin, because a member may have failed
/// before this process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Millis(i64);

impl Millis {
    pub fn at(mono: Mono) -> Millis {
        Millis(i64::try_from(mono.0 / 1_000_000).expect("nanoseconds over a million fit"))
    }

    pub fn ago(now: Mono, age: Duration) -> Millis {
        Millis(Millis::at(now).0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from here to `now`.
    pub fn age(self, now: Mono) -> Duration {
        Duration::from_millis(u64::try_from(Millis::at(now).0.saturating_sub(self.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_way_and_nonsense_does_not() {
        let address: SocketAddr = "10.0.0.1:8301".parse().unwrap();
        let tags = BTreeMap::from([("role".into(), "node".into()), ("dc".into(), "dc1".into())]);
        let info = MemberInfo::new("a".into(), address, tags);
        assert_eq!(MemberInfo::received("a", address, &info.meta), Some(info.clone()));
        assert_eq!(MemberInfo::received("", address, &info.meta), None);
        assert_eq!(MemberInfo::received("a\n", address, &info.meta), None);
        assert_eq!(MemberInfo::received("a", "0.0.0.0:1".parse().unwrap(), &info.meta), None);
        assert_eq!(MemberInfo::received("a", address, &info.meta[1..]), None);
        assert_eq!(MemberInfo::received("a", address, &[0; META_BYTES_MAX + 1]), None);
    }

    #[test]
    fn an_age_may_reach_behind_the_clocks_origin() {
        let since = Millis::ago(Mono(5_000_000_000), Duration::from_secs(60));
        assert_eq!(since.age(Mono(7_000_000_000)), Duration::from_secs(62));
    }
}
