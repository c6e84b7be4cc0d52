//! The agent's cache (`?cached`): which answers are kept, when a kept one is good enough, and how it is kept new.
//!
//! Source: Consul's documentation, «Agent caching» and «HTTP API structure». Endpoints are of two types. Answers of the
//! simple type stay as they are, and `Cache-Control` says how old one may be. Those of the refreshed type are watched by a
//! blocking query from the first question on: a kept one is as new as the servers' last word, and its age is the time
//! since they were last heard.
//!
//! Everything here is bookkeeping. Whoever serves requests asks [`AgentCache::kept`] first, passes what the node answered
//! through [`AgentCache::settle`], and carries out watches: it asks for [`CachedRead::newer_than`] and tells
//! [`AgentCache::refreshed`], which says how to go on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::params::{self, Params};
use super::probes::hears_servers;
use super::{HttpReply, HttpRequest};
use crate::Text;
use crate::node::{About, Published};
use crate::time::Mono;

/// What nobody has asked for in this time is dropped, and a kept answer is not older (as in Consul).
const KEPT_FOR: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// So many answers are kept; the one that was asked for longest ago makes room.
const KEPT_MAX: usize = 1_024;
/// The bodies of all kept answers together have no more bytes.
const BYTES_MAX: usize = 64 << 20;
/// Larger answers are not kept.
const BODY_MAX: usize = 4 << 20;
/// Pause of a watch after its first failure; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// It does not get longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How Consul caches the answers of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CacheType {
    /// Kept as they are; `Cache-Control` says for how long that is good enough.
    Simple,
    /// Kept new; `Cache-Control` does not matter.
    Refreshed,
}

/// A request that a kept answer may do for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRead {
    /// Equal for questions that have equal answers.
    key: Text,
    /// The request's path, as it was sent.
    path: Text,
    /// Its parameters, but for those that concern the cache and waiting.
    query: Text,
    cache_type: CacheType,
    control: Control,
    /// The client knows this index and waits for a greater one.
    index: u64,
}

/// What `Cache-Control` of a request asks for (RFC 9111, section 5.2.1; RFC 5861, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Control {
    max_age: Option<Duration>,
    revalidate: bool,
    stale_if_error: Option<Duration>,
}

impl Control {
    fn parse(header: &str) -> Option<Control> {
        let mut control = Control::default();
        for directive in header.split(',').map(str::trim) {
            // A directive without a value says nothing.
            let Some((name, value)) = directive.split_once('=') else {
                control.revalidate |= directive.eq_ignore_ascii_case("must-revalidate");
                continue;
            };
            let seconds = || value.trim().parse().ok().map(Duration::from_secs);
            match name.trim().to_ascii_lowercase().as_str() {
                "max-age" => control.max_age = Some(seconds()?),
                "stale-if-error" => control.stale_if_error = Some(seconds()?),
                _ => {}
            }
        }
        control.revalidate |= control.max_age == Some(Duration::ZERO);
        Some(control)
    }

    /// Whether an answer of this age is good enough.
    fn takes(&self, age: Duration) -> bool {
        !self.revalidate && self.max_age.is_none_or(|max| age <= max)
    }
}

/// How Consul caches an endpoint's answers, if it does.
fn cache_type(path: &str) -> Option<CacheType> {
    let refreshed = [
        "/v1/health/service/",
        "/v1/health/connect/",
        "/v1/health/ingress/",
        "/v1/catalog/service/",
        "/v1/catalog/connect/",
        "/v1/discovery-chain/",
    ];
    if path == "/v1/catalog/datacenters" || is_execution(path) {
        Some(CacheType::Simple)
    } else if path == "/v1/catalog/services" || refreshed.iter().any(|prefix| path.starts_with(prefix)) {
        Some(CacheType::Refreshed)
    } else {
        None
    }
}

fn is_execution(path: &str) -> bool {
    path.starts_with("/v1/query/") && path.ends_with("/execute")
}

impl CachedRead {
    /// What a request asks of the cache; `None` if nothing.
    ///
    /// # Errors
    /// 400 for a `Cache-Control` that cannot be read.
    pub fn of(about: &About, request: &HttpRequest<'_>) -> Result<Option<CachedRead>, HttpReply> {
        if request.method != "GET" || about.front.ignores_cached || !request.query.contains("cached") {
            return Ok(None);
        }
        // What makes no sense is refused by its endpoint.
        let (Ok(path), Ok(params)) = (params::decode_path(request.path), Params::parse(request.query)) else {
            return Ok(None);
        };
        if !params.has("cached") || params.has("consistent") {
            return Ok(None);
        }
        let Some(cache_type) = cache_type(&path) else { return Ok(None) };
        let index = match params.filled("index").map_or(Ok(0), str::parse) {
            Ok(index) if params.blocking(about.front.waits).is_ok() => index,
            _ => return Ok(None),
        };
        let control = Control::parse(request.headers.cache_control)
            .ok_or_else(|| HttpReply::text(400, "Invalid Cache-Control header."))?;
        let query = params.without(&["cached", "index", "wait"]).canonical();
        // The order of a query's results may depend on who asks.
        let asker = match request.client.filter(|_| is_execution(&path)) {
            Some(client) => format!(" {client} {}", request.headers.forwarded_for),
            None => String::new(),
        };
        Ok(Some(CachedRead {
            key: format!("{path}?{query}{asker}").into(),
            path: request.path.into(),
            query: query.into(),
            cache_type,
            control,
            index,
        }))
    }

    /// Equal for questions that have equal answers.
    #[must_use]
    pub fn key(&self) -> &Text {
        &self.key
    }

    /// Path and parameters of the same question, answered when there is something newer than this index.
    #[must_use]
    pub fn newer_than(&self, index: u64) -> (&Text, String) {
        let separator = if self.query.is_empty() { "" } else { "&" };
        (&self.path, format!("{}{separator}index={index}", self.query))
    }
}

/// What became of an answer.
#[derive(Debug)]
pub struct Settled {
    /// What to send.
    pub reply: HttpReply,
    /// It is to be watched from this index on.
    pub watch: Option<u64>,
    /// Watches of these keys are to end.
    pub dropped: Vec<Text>,
}

/// How a watch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Ask for what is newer than this, at once.
    Ask(u64),
    /// Ask for what is newer than this, after a pause.
    AskAfter(u64, Duration),
    /// Not at all.
    End,
}

/// Answers that were given.
#[derive(Debug, Default)]
pub struct AgentCache {
    entries: BTreeMap<Text, Entry>,
    /// Sum of the bodies' lengths; at most [`BYTES_MAX`].
    bytes: usize,
    /// When it was first seen that there is no server to ask, if there is none. Watches learn of that much later.
    unheard_since: Option<Mono>,
}

#[derive(Debug)]
struct Entry {
    reply: HttpReply,
    fetched: Mono,
    /// When it was asked for last.
    asked: Mono,
    /// When its watch failed first, since it last succeeded.
    failing_since: Option<Mono>,
    /// How often the watch failed in a row.
    failures: u32,
}

impl Entry {
    fn index(&self) -> u64 {
        self.reply.meta.map_or(0, |meta| meta.index)
    }

    fn is_over(&self, now: Mono, cache_type: CacheType) -> bool {
        now.since(self.asked) > KEPT_FOR
            || (cache_type == CacheType::Simple && now.since(self.fetched) > KEPT_FOR)
    }
}

impl AgentCache {
    /// A kept answer that is good enough.
    #[must_use]
    pub fn kept(&mut self, read: &CachedRead, published: &Published, now: Mono) -> Option<HttpReply> {
        self.unheard_since = match (hears_servers(published), self.unheard_since) {
            (true, _) => None,
            (false, since) => since.or(Some(now)),
        };
        let entry = self.entries.get_mut(&read.key)?;
        if entry.is_over(now, read.cache_type) {
            return None;
        }
        let age = match read.cache_type {
            CacheType::Simple => Some(now.since(entry.fetched)).filter(|age| read.control.takes(*age))?,
            // Whoever waits for something newer waits at the servers.
            CacheType::Refreshed if read.index > 0 && entry.index() <= read.index => return None,
            CacheType::Refreshed => {
                let since = [entry.failing_since, self.unheard_since].into_iter().flatten().min();
                since.map_or(Duration::ZERO, |since| now.since(since))
            }
        };
        entry.asked = entry.asked.max(now);
        Some(hit(entry.reply.clone(), age))
    }

    /// Passes an answer of the node on with the header that tells of the cache, keeps it, or gives a kept one instead of
    /// a failure.
    #[must_use]
    pub fn settle(&mut self, read: &CachedRead, reply: HttpReply, now: Mono) -> Settled {
        let passed_on = |reply| Settled { reply, watch: None, dropped: Vec::new() };
        let known = self.entries.get(&read.key);
        if reply.status >= 500 {
            let good_enough = |entry: &&Entry| {
                read.cache_type == CacheType::Simple
                    && read.control.stale_if_error.is_some_and(|max| now.since(entry.fetched) <= max)
            };
            return passed_on(match known.filter(good_enough) {
                Some(entry) => hit(entry.reply.clone(), now.since(entry.fetched)),
                None => reply,
            });
        }
        if reply.status != 200 {
            return passed_on(reply);
        }
        let index = reply.meta.map_or(0, |meta| meta.index);
        let is_refreshed = read.cache_type == CacheType::Refreshed;
        // A watch knows at least as much; what cannot be watched cannot be kept new.
        let is_watched = is_refreshed && known.is_some();
        if is_watched || (is_refreshed && index == 0) || reply.body.len() > BODY_MAX {
            return passed_on(miss(reply));
        }
        let dropped = self.insert(read, reply.clone(), now);
        Settled { reply: miss(reply), watch: is_refreshed.then_some(index), dropped }
    }

    /// A watch got an answer.
    #[must_use]
    pub fn refreshed(&mut self, read: &CachedRead, reply: HttpReply, now: Mono) -> Onward {
        let Some(entry) = self.entries.get_mut(&read.key) else { return Onward::End };
        let index = reply.meta.map_or(0, |meta| meta.index);
        if entry.is_over(now, read.cache_type) || reply.body.len() > BODY_MAX {
            self.remove(&read.key);
            return Onward::End;
        }
        if reply.status != 200 || index == 0 {
            entry.failing_since.get_or_insert(now);
            let pause = PAUSE_MIN * 2u32.saturating_pow(entry.failures.min(16));
            entry.failures += 1;
            return Onward::AskAfter(entry.index(), pause.min(PAUSE_MAX));
        }
        (entry.failing_since, entry.failures) = (None, 0);
        // A watch that waited in vain brings what is known; one of a server that lags brings what is older.
        if index > entry.index() {
            self.bytes -= entry.reply.body.len();
            self.bytes += reply.body.len();
            entry.reply = reply;
            entry.fetched = now;
        }
        Onward::Ask(entry.index())
    }

    fn insert(&mut self, read: &CachedRead, reply: HttpReply, now: Mono) -> Vec<Text> {
        let mut dropped = Vec::new();
        self.remove(&read.key);
        while self.entries.len() >= KEPT_MAX || self.bytes + reply.body.len() > BYTES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.asked).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
            dropped.push(oldest);
        }
        self.bytes += reply.body.len();
        let entry = Entry { reply, fetched: now, asked: now, failing_since: None, failures: 0 };
        self.entries.insert(read.key.clone(), entry);
        dropped
    }

    fn remove(&mut self, key: &Text) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.reply.body.len();
        }
    }
}

fn hit(mut reply: HttpReply, age: Duration) -> HttpReply {
    reply.headers.push((Text::new_static("X-Cache"), Text::new_static("HIT")));
    reply.headers.push((Text::new_static("Age"), age.as_secs().to_string().into()));
    reply
}

fn miss(mut reply: HttpReply) -> HttpReply {
    reply.headers.push((Text::new_static("X-Cache"), Text::new_static("MISS")));
    reply
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::api_test::World;
    use crate::api::{Headers, QueryMeta};

    const SIMPLE: &str = "/v1/catalog/datacenters";
    const REFRESHED: &str = "/v1/health/service/web";

    fn read(path: &str, query: &str, cache_control: &str) -> Result<Option<CachedRead>, HttpReply> {
        let headers = Headers { cache_control, ..Headers::default() };
        let request = HttpRequest { method: "GET", path, query, client: None, headers, body: Bytes::new() };
        CachedRead::of(&About::default(), &request)
    }

    fn wanted(path: &str, cache_control: &str) -> CachedRead {
        read(path, "cached", cache_control).unwrap().unwrap()
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn ok(index: u64) -> HttpReply {
        let meta = QueryMeta { index, known_leader: true, last_contact_ms: 0 };
        HttpReply { meta: Some(meta), ..HttpReply::json(200, format!("[{index}]")) }
    }

    fn failed() -> HttpReply {
        HttpReply::text(500, "No cluster leader")
    }

    impl AgentCache {
        /// As while a server is heard.
        fn kept_now(&mut self, read: &CachedRead, now: Mono) -> Option<HttpReply> {
            self.kept(read, &World::new().published, now)
        }
    }

    /// What the headers and the body say: `HIT 3 [7]`.
    fn told(reply: &HttpReply) -> String {
        let words = reply.headers.iter().map(|(_, value)| value.as_str());
        let body = std::str::from_utf8(&reply.body).unwrap();
        words.chain([body]).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn equal_questions_have_one_key_however_long_they_wait() {
        let key = |query| read(REFRESHED, query, "").unwrap().unwrap().key;
        assert_eq!(key("cached&tag=a&index=7&wait=1s"), key("tag=a&cached"));
        assert_ne!(key("cached&tag=a"), key("cached&tag=b"));
        for (path, query) in [
            (REFRESHED, "tag=cached"),
            (REFRESHED, "cached&consistent"),
            (REFRESHED, "cached&index=x"),
            (REFRESHED, "cached&index=1&wait=x"),
            ("/v1/catalog/nodes", "cached"),
            ("/v1/kv/cached", "cached"),
        ] {
            assert_eq!(read(path, query, ""), Ok(None), "{path} {query}");
        }
        let asked = read(REFRESHED, "cached&wait=1s&tag=a%20b", "").unwrap().unwrap();
        assert_eq!(asked.newer_than(9), (&REFRESHED.into(), "tag=a%20b&index=9".to_owned()));
        assert_eq!(wanted(SIMPLE, "").newer_than(1).1, "index=1");
    }

    #[test]
    fn numbers_in_cache_control_are_numbers() {
        let refused = Err(HttpReply::text(400, "Invalid Cache-Control header."));
        for bad in ["max-age=x", "max-age=\"5\"", "stale-if-error=-1", "must-revalidate, max-age=1s"] {
            assert_eq!(read(SIMPLE, "cached", bad), refused, "{bad}");
            assert_eq!(read(REFRESHED, "cached", bad), refused, "{bad}");
        }
        for good in ["", "max-age", "no-cache", "must-revalidate", " Max-Age = 5 , x=y"] {
            assert!(read(SIMPLE, "cached", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_simple_answer_is_kept_for_as_long_as_the_request_allows() {
        let mut cache = AgentCache::default();
        let plain = wanted(SIMPLE, "");
        assert_eq!(cache.kept_now(&plain, at(0)), None);
        let settled = cache.settle(&plain, ok(1), at(0));
        assert_eq!((told(&settled.reply).as_str(), settled.watch), ("MISS [1]", None));
        let kept = |cache: &mut AgentCache, control, seconds| {
            cache.kept_now(&wanted(SIMPLE, control), at(seconds)).map(|reply| told(&reply))
        };
        assert_eq!(kept(&mut cache, "", 100).as_deref(), Some("HIT 100 [1]"));
        assert_eq!(kept(&mut cache, "max-age=100", 100).as_deref(), Some("HIT 100 [1]"));
        assert_eq!(kept(&mut cache, "max-age=99", 100), None);
        assert_eq!(kept(&mut cache, "must-revalidate", 100), None);
        let good_enough = wanted(SIMPLE, "max-age=0, stale-if-error=200");
        assert_eq!(told(&cache.settle(&good_enough, failed(), at(200)).reply), "HIT 200 [1]");
        assert_eq!(cache.settle(&good_enough, failed(), at(201)).reply, failed());
        assert_eq!(told(&cache.settle(&good_enough, ok(2), at(300)).reply), "MISS [2]");
        assert_eq!(kept(&mut cache, "", 301).as_deref(), Some("HIT 1 [2]"));
        assert_eq!(kept(&mut cache, "", 302 + KEPT_FOR.as_secs()), None);
    }

    #[test]
    fn a_refreshed_answer_is_as_new_as_its_watch_and_ages_when_that_fails() {
        let mut cache = AgentCache::default();
        let asked = wanted(REFRESHED, "max-age=0");
        let settled = cache.settle(&asked, ok(5), at(0));
        assert_eq!((told(&settled.reply).as_str(), settled.watch), ("MISS [5]", Some(5)));
        let kept = |cache: &mut AgentCache, seconds| told(&cache.kept_now(&asked, at(seconds)).unwrap());
        assert_eq!(kept(&mut cache, 9), "HIT 0 [5]");
        assert_eq!(cache.refreshed(&asked, ok(7), at(10)), Onward::Ask(7));
        assert_eq!(cache.refreshed(&asked, ok(6), at(11)), Onward::Ask(7), "a server lags");
        assert_eq!(kept(&mut cache, 12), "HIT 0 [7]");
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(pause);
            assert_eq!(cache.refreshed(&asked, failed(), at(20)), Onward::AskAfter(7, pause));
        }
        assert_eq!(kept(&mut cache, 65), "HIT 45 [7]");
        assert_eq!(cache.refreshed(&asked, ok(7), at(66)), Onward::Ask(7));
        assert_eq!(kept(&mut cache, 67), "HIT 0 [7]");
        let mut alone = World::new().published;
        alone.lease.leader = None;
        for (seconds, answer) in [(67, "HIT 0 [7]"), (70, "HIT 3 [7]")] {
            assert_eq!(told(&cache.kept(&asked, &alone, at(seconds)).unwrap()), answer);
        }
        assert_eq!(kept(&mut cache, 71), "HIT 0 [7]");
        assert_eq!(cache.refreshed(&asked, ok(7), at(72 + KEPT_FOR.as_secs())), Onward::End, "nobody asked");
        assert_eq!(cache.kept_now(&asked, at(73 + KEPT_FOR.as_secs())), None);
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn whoever_waits_for_something_newer_waits_at_the_servers() {
        let mut cache = AgentCache::default();
        let blocking = |index| read(REFRESHED, &format!("cached&index={index}"), "").unwrap().unwrap();
        let settled = cache.settle(&blocking(3), ok(5), at(0));
        assert_eq!(settled.watch, Some(5));
        assert!(cache.kept_now(&blocking(4), at(1)).is_some());
        assert!(cache.kept_now(&blocking(5), at(1)).is_none());
        let settled = cache.settle(&blocking(5), ok(6), at(2));
        assert_eq!((told(&settled.reply).as_str(), settled.watch), ("MISS [6]", None), "one watch is enough");
    }

    #[test]
    fn what_cannot_be_kept_is_passed_on() {
        let mut cache = AgentCache::default();
        let asked = wanted(REFRESHED, "");
        for reply in [failed(), HttpReply::text(400, "bad")] {
            assert_eq!(cache.settle(&asked, reply.clone(), at(0)).reply, reply);
        }
        assert_eq!(told(&cache.settle(&asked, ok(0), at(0)).reply), "MISS [0]");
        let large = HttpReply { body: vec![b' '; BODY_MAX + 1].into(), ..ok(1) };
        assert_eq!(cache.settle(&asked, large, at(0)).watch, None);
        assert_eq!(cache.refreshed(&asked, ok(2), at(0)), Onward::End);
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn a_cache_has_bounds_and_ends_the_watches_of_what_it_drops() {
        let mut cache = AgentCache::default();
        let asked = |name: u64| wanted(&format!("/v1/health/service/{name}"), "");
        let mut dropped = Vec::new();
        for name in 0..2 * KEPT_MAX as u64 {
            dropped.extend(cache.settle(&asked(name), ok(1), at(name)).dropped);
        }
        assert_eq!((cache.entries.len(), dropped.len()), (KEPT_MAX, KEPT_MAX));
        assert_eq!(dropped[0], *asked(0).key());
        assert!(
            cache.kept_now(&asked(0), at(9_999)).is_none()
                && cache.kept_now(&asked(2047), at(9_999)).is_some()
        );
        let large = HttpReply { body: vec![b' '; BODY_MAX].into(), ..ok(1) };
        for name in 0..2 * (BYTES_MAX / BODY_MAX) as u64 {
            let _ = cache.settle(&asked(name), large.clone(), at(10_000 + name));
            assert!(cache.bytes <= BYTES_MAX);
        }
        let sum = cache.entries.values().map(|entry| entry.reply.body.len()).sum::<usize>();
        assert_eq!(cache.bytes, sum);
    }
}
