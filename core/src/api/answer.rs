//! Reads that need not enter the node: pure functions of what it has published.

use super::render::render_rows;
use super::{Consistency, HttpReply, QueryMeta, Read};
use crate::node::Published;
use crate::planted::{Bug, planted};
use crate::store::Rows;
use crate::time::Now;

/// How a read is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Here it is.
    Reply(HttpReply),
    /// The node must decide: there is no lease, the leader is another server, leadership is to be confirmed, or the
    /// read has to wait.
    Enter,
}

/// Answers a read from what is published, if that is fresh enough for its consistency mode.
///
/// A default read is linearizable as long as `now` was read after `published`, on the clock that the lease was
/// granted by.
#[must_use]
pub fn answer(published: &Published, read: &Read, now: Now) -> Answer {
    if !may_answer(published, read, now) {
        return Answer::Enter;
    }
    let found = read.evaluate(&published.view);
    let looks_further = matches!(&found.rows, Rows::Executed(Ok(done)) if done.failover.is_some());
    if looks_further || read.blocking.is_some_and(|blocking| blocking.index >= found.index) {
        return Answer::Enter;
    }
    let meta = query_meta(published, found.index, now);
    Answer::Reply(render_rows(&published.about, read, &found, meta))
}

/// The headers of an answer that is given from what is published.
#[must_use]
pub fn query_meta(published: &Published, index: u64, now: Now) -> QueryMeta {
    let lease = &published.lease;
    let holds_lease = lease.is_leader && now.mono < lease.until;
    let last_contact_ms = if holds_lease { 0 } else { QueryMeta::age_ms(lease.as_of, now) };
    QueryMeta { index: index.max(1), known_leader: lease.leader.is_some(), last_contact_ms }
}

fn may_answer(published: &Published, read: &Read, now: Now) -> bool {
    let lease = &published.lease;
    // Clients of the cluster have no replica.
    if !published.about.server {
        return false;
    }
    let holds_lease = lease.is_leader && now.mono < lease.until;
    match read.consistency {
        Consistency::Consistent => false,
        Consistency::Default => holds_lease || planted(Bug::FollowerAnswersDefaultReads),
        Consistency::Stale => {
            let is_within = |bound| {
                lease.leader.is_some() && lease.as_of.is_some_and(|as_of| now.mono.since(as_of) <= bound)
            };
            let fresh_enough = read.max_stale.is_none_or(is_within);
            // A server that knows nothing yet has nothing to say, not even something old.
            holds_lease || (lease.applied.0 > 0 && fresh_enough)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::api::Blocking;
    use crate::ids::{LogIndex, Uuid};
    use crate::node::{About, Lease};
    use crate::store::Store;
    use crate::store::command::{Command, KvCommand, KvVerb};
    use crate::store::query::Query;
    use crate::time::{Mono, Wall};

    fn published(lease: Lease) -> Published {
        let mut view = Store::new();
        let value = bytes::Bytes::from_static(b"v");
        let command = KvCommand { verb: KvVerb::Set, key: "k".into(), value, flags: 0 };
        view.apply(7, &Command::Kv(command));
        Published {
            view,
            lease,
            membership: Arc::default(),
            agent: Arc::default(),
            cluster: Arc::default(),
            alarm: None,
            about: Arc::new(About { server: true, ..About::default() }),
        }
    }

    fn leading(until: u64) -> Lease {
        let leader = Some(Uuid(1));
        Lease { leader, is_leader: true, applied: LogIndex(7), until: Mono(until), ..Lease::default() }
    }

    fn following(as_of: u64) -> Lease {
        let as_of = Some(Mono(as_of));
        Lease { leader: Some(Uuid(2)), applied: LogIndex(7), as_of, ..Lease::default() }
    }

    fn at(mono: u64) -> Now {
        Now { mono: Mono(mono), wall: Wall(0) }
    }

    fn read(consistency: Consistency) -> Read {
        Read { consistency, ..Read::new(Query::Kv("k".into())) }
    }

    fn answered(lease: Lease, read: &Read, now: u64) -> bool {
        matches!(answer(&published(lease), read, at(now)), Answer::Reply(_))
    }

    #[test]
    fn a_default_read_is_answered_only_within_the_lease() {
        let read = read(Consistency::Default);
        assert!(answered(leading(100), &read, 99));
        assert!(!answered(leading(100), &read, 100));
        assert!(!answered(following(0), &read, 0));
    }

    #[test]
    fn a_consistent_read_always_enters_the_node() {
        assert!(!answered(leading(100), &read(Consistency::Consistent), 1));
    }

    #[test]
    fn a_stale_read_is_answered_by_any_server_that_has_seen_the_log() {
        let read = read(Consistency::Stale);
        assert!(answered(following(0), &read, 1_000_000));
        assert!(answered(leading(100), &read, 1_000_000));
        assert!(!answered(Lease::default(), &read, 0));
    }

    #[test]
    fn a_stale_read_with_a_bound_is_answered_within_it() {
        let mut read = read(Consistency::Stale);
        read.max_stale = Some(Duration::from_nanos(10));
        assert!(answered(following(100), &read, 110));
        assert!(!answered(following(100), &read, 111));
        assert!(answered(leading(1_000), &read, 900));
    }

    #[test]
    fn a_blocking_read_is_answered_when_the_index_has_moved_on() {
        let mut read = read(Consistency::Default);
        read.blocking = Some(Blocking { index: 6, wait: Duration::from_secs(1) });
        assert!(answered(leading(100), &read, 1));
        read.blocking = Some(Blocking { index: 7, wait: Duration::from_secs(1) });
        assert!(!answered(leading(100), &read, 1));
    }

    #[test]
    fn headers_say_how_old_an_answer_is() {
        let meta = query_meta(&published(following(1_000_000)), 0, at(43_000_000));
        assert_eq!(meta, QueryMeta { index: 1, known_leader: true, last_contact_ms: 42 });
        let meta = query_meta(&published(leading(43_000_001)), 9, at(43_000_000));
        assert_eq!(meta, QueryMeta { index: 9, known_leader: true, last_contact_ms: 0 });
        let deposed = Lease { as_of: Some(Mono(1_000_000)), ..leading(43_000_000) };
        assert_eq!(query_meta(&published(deposed), 9, at(43_000_000)).last_contact_ms, 42);
        let started = Lease { as_of: None, ..following(0) };
        assert_eq!(query_meta(&published(started), 9, at(5)).last_contact_ms, 9_223_372_036_854);
    }
}
