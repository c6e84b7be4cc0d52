//! What an agent's configuration says about its HTTP interface as a whole (Consul: `http_config`, `limits`): who may
//! write, which endpoints are shut, which headers every answer has, and how many requests there may be.

use std::net::IpAddr;
use std::time::Duration;

use super::HttpReply;
use super::params::{WAIT_DEFAULT, WAIT_MAX};
use crate::Text;
use crate::network::Network;
use crate::time::Mono;

/// Rules for every request, whatever its endpoint.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// Headers of every response that does not set them itself (Consul: `http_config.response_headers`).
    pub response_headers: Vec<(Text, Text)>,
    /// Paths that begin so are shut (Consul: `http_config.block_endpoints`).
    pub block_endpoints: Vec<Text>,
    /// Networks from which writes are taken; empty: all (Consul: `http_config.allow_write_http_from`).
    pub writers: Vec<Network>,
    /// How long blocking queries wait.
    pub waits: Waits,
    /// Reads of catalog and health that name no consistency mode may be so old; zero: not at all (Consul:
    /// `discovery_max_stale`).
    pub discovery_max_stale: Duration,
    /// How many requests a server takes in.
    pub limits: RequestLimits,
    /// Whether `?cached` has no effect (Consul: `http_config.use_cache = false`).
    pub ignores_cached: bool,
    /// Where the web page is, with a slash at both ends; `None`: nowhere (Consul: `ui_config.enabled`,
    /// `ui_config.content_path`).
    pub page: Option<Text>,
}

/// How long blocking queries wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// If they do not say (Consul: `default_query_time`).
    pub default: Duration,
    /// At most (Consul: `max_query_time`).
    pub max: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { default: WAIT_DEFAULT, max: WAIT_MAX }
    }
}

impl Front {
    /// The refusal of a request that nobody may send, or not from there. `path` is decoded and clean; `peer` is
    /// unknown for Unix sockets, whose file says who may write.
    #[must_use]
    pub fn refuse(&self, peer: Option<IpAddr>, method: &str, path: &str) -> Option<HttpReply> {
        if self.block_endpoints.iter().any(|blocked| path.starts_with(blocked.as_str())) {
            return Some(HttpReply::text(403, "Endpoint is blocked by agent configuration"));
        }
        let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
        let may_write = |peer: IpAddr| self.writers.iter().any(|network| network.contains(peer));
        if !reads && !self.writers.is_empty() && !peer.is_none_or(may_write) {
            return Some(HttpReply::text(403, "Access is restricted"));
        }
        None
    }
}

/// How many requests a server takes in (Consul: `limits.request_limits`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RequestLimits {
    /// What is done about those beyond.
    pub mode: LimitMode,
    /// Reads per second; `None`: any number.
    pub read_rate: Option<f64>,
    /// Writes per second; `None`: any number.
    pub write_rate: Option<f64>,
}

/// What is done about requests beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitMode {
    /// Nothing is counted.
    #[default]
    Disabled,
    /// They are counted and reported.
    Permissive,
    /// They are refused.
    Enforcing,
}

/// Which of the two limits a request counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is served.
    Admitted,
    /// It is served, and beyond the limit.
    Noted,
    /// It gets this.
    Refused(HttpReply),
}

/// Counts requests against the limits.
#[derive(Debug)]
pub struct RequestLimiter {
    mode: LimitMode,
    reads: Option<Bucket>,
    writes: Option<Bucket>,
}

impl RequestLimiter {
    /// A limiter that has seen nothing; none if there is nothing to limit.
    #[must_use]
    pub fn new(limits: &RequestLimits) -> Option<RequestLimiter> {
        let RequestLimits { mode, read_rate, write_rate } = *limits;
        let limited = mode != LimitMode::Disabled && (read_rate.is_some() || write_rate.is_some());
        limited.then(|| RequestLimiter {
            mode,
            reads: read_rate.map(Bucket::new),
            writes: write_rate.map(Bucket::new),
        })
    }

    /// Counts one request. Writes are the leader's alone: a refused one is no better off with another server.
    #[must_use]
    pub fn admit(&mut self, work: Work, is_leader: bool, now: Mono) -> Admission {
        let bucket = match work {
            Work::Read => &mut self.reads,
            Work::Write => &mut self.writes,
        };
        if bucket.as_mut().is_none_or(|bucket| bucket.take(now)) {
            return Admission::Admitted;
        }
        if self.mode == LimitMode::Permissive {
            return Admission::Noted;
        }
        Admission::Refused(match work {
            Work::Write if is_leader => HttpReply::text(
                503,
                "rate limit exceeded for operation that can only be performed by the leader, try again later",
            ),
            _ => HttpReply::text(429, "rate limit exceeded, try again later or against a different server"),
        })
    }
}

/// So many seconds' worth of requests may come at once (as in Consul).
const BURST_SECONDS: f64 = 10.0;

/// A token bucket: it fills at a rate, up to its depth.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Option<Mono>,
}

impl Bucket {
    fn new(rate: f64) -> Bucket {
        Bucket { rate, tokens: Bucket::depth(rate), at: None }
    }

    /// At least one, or a slow rate would let nothing through.
    fn depth(rate: f64) -> f64 {
        (rate * BURST_SECONDS).max(if rate > 0.0 { 1.0 } else { 0.0 })
    }

    fn take(&mut self, now: Mono) -> bool {
        let passed = self.at.map_or(Duration::ZERO, |at| now.since(at));
        // Requests are served in parallel, so that their times come a little out of order.
        self.at = self.at.max(Some(now));
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(Bucket::depth(self.rate));
        let takes = self.tokens >= 1.0;
        if takes {
            self.tokens -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_shut_is_shut_to_all_and_writes_come_from_writers() {
        let front = Front {
            block_endpoints: vec!["/v1/agent/self".into(), "/v1/kv/secret".into()],
            writers: vec![Network::parse("10.0.0.0/8").unwrap()],
            ..Front::default()
        };
        let status =
            |peer, method, path| front.refuse(peer, method, path).map(|reply| (reply.status, reply.body));
        let blocked = Some((403, "Endpoint is blocked by agent configuration".into()));
        let restricted = Some((403, "Access is restricted".into()));
        let (near, far) = (Some(ip("10.1.1.1")), Some(ip("127.0.0.1")));
        assert_eq!(status(near, "GET", "/v1/agent/self"), blocked);
        assert_eq!(status(near, "OPTIONS", "/v1/kv/secrets/a"), blocked);
        assert_eq!(status(near, "PUT", "/v1/kv/a"), None);
        assert_eq!(status(far, "PUT", "/v1/kv/a"), restricted);
        assert_eq!(status(far, "DELETE", "/v1/kv/a"), restricted);
        assert_eq!(status(far, "GET", "/v1/kv/a"), None);
        assert_eq!(status(far, "OPTIONS", "/v1/kv/a"), None);
        assert_eq!(status(None, "PUT", "/v1/kv/a"), None);
        assert_eq!(Front::default().refuse(far, "PUT", "/v1/kv/a"), None);
    }

    #[test]
    fn requests_beyond_the_rate_are_refused_until_time_has_passed() {
        let limits =
            RequestLimits { mode: LimitMode::Enforcing, read_rate: Some(1.0), write_rate: Some(0.0) };
        let mut limiter = RequestLimiter::new(&limits).unwrap();
        let at = |millis: u64| Mono(millis * 1_000_000);
        for _ in 0..10 {
            assert_eq!(limiter.admit(Work::Read, true, at(0)), Admission::Admitted);
        }
        let refusal = |admission| match admission {
            Admission::Refused(reply) => reply.status,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal(limiter.admit(Work::Read, true, at(900))), 429);
        assert_eq!(limiter.admit(Work::Read, true, at(1_000)), Admission::Admitted);
        assert_eq!(refusal(limiter.admit(Work::Read, true, at(1_000))), 429);
        assert_eq!(refusal(limiter.admit(Work::Write, true, at(1_000))), 503);
        assert_eq!(refusal(limiter.admit(Work::Write, false, at(1_000))), 429);
    }

    #[test]
    fn a_permissive_limit_notes_and_a_disabled_one_is_none() {
        let limits = RequestLimits { mode: LimitMode::Permissive, read_rate: Some(0.1), write_rate: None };
        let mut limiter = RequestLimiter::new(&limits).unwrap();
        assert_eq!(limiter.admit(Work::Read, false, Mono(0)), Admission::Admitted);
        assert_eq!(limiter.admit(Work::Read, false, Mono(0)), Admission::Noted);
        assert_eq!(limiter.admit(Work::Write, false, Mono(0)), Admission::Admitted);
        assert!(RequestLimiter::new(&RequestLimits { mode: LimitMode::Disabled, ..limits }).is_none());
    }
}
