//! What all connections of an agent's HTTP interface have in common.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use proconsul_core::api::{Admission, HttpReply, RequestLimiter, work};

use super::cache::Cache;
use crate::gate::Gate;

/// Limit of one header block, in bytes, if none is configured.
pub const HEADERS_BYTES_DEFAULT: usize = 64 << 10;
/// The least and the most that may be configured.
const HEADERS_BYTES: (usize, usize) = (8 << 10, 8 << 20);

/// Bounds on what clients may take up.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Most connections at a time from one address; zero: any number (Consul: `limits.http_max_conns_per_client`). It may
    /// be changed while connections are served.
    pub per_client: Arc<AtomicUsize>,
    /// Most bytes of a request's first line and headers (Consul: `http_config.max_header_bytes`).
    pub header_bytes: usize,
    /// A connection on which no request is under way is closed after this long, also if half of the next one's headers
    /// has come (Consul: `http_config.idle_timeout`); and the body of a request may take so long. `None`, which needs no
    /// timer: any time.
    pub idle: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { per_client: Arc::default(), header_bytes: HEADERS_BYTES_DEFAULT, idle: None }
    }
}

/// The HTTP interface of an agent, whatever its listeners. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    shared: Arc<Shared>,
    cache: Option<Cache>,
    /// Where pages of one's own lie.
    pages: Option<Arc<Path>>,
}

struct Shared {
    gate: Gate,
    bounds: Bounds,
    headers: Vec<(HeaderName, HeaderValue)>,
    limiter: Option<Mutex<RequestLimiter>>,
    open: Mutex<BTreeMap<IpAddr, usize>>,
}

impl Site {
    /// The interface to a node, by the rules that it has published.
    #[must_use]
    pub fn new(gate: Gate, bounds: Bounds) -> Site {
        let about = Arc::clone(&gate.published().about);
        // What is no header was refused with the configuration.
        let header = |(name, value): &(proconsul_core::Text, proconsul_core::Text)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
        };
        let headers = about.front.response_headers.iter().filter_map(header).collect();
        // Client agents hand their requests on, to servers that count them.
        let limiter = RequestLimiter::new(&about.front.limits).filter(|_| about.server).map(Mutex::new);
        let header_bytes = bounds.header_bytes.clamp(HEADERS_BYTES.0, HEADERS_BYTES.1);
        let bounds = Bounds { header_bytes, ..bounds };
        let shared = Arc::new(Shared { gate, bounds, headers, limiter, open: Mutex::default() });
        Site { shared, cache: None, pages: None }
    }

    /// The same interface with a cache for those who ask for it (`?cached`). It starts tasks on tokio's runtime.
    #[must_use]
    pub fn with_cache(self) -> Site {
        Site { cache: Some(Cache::default()), ..self }
    }

    /// The same interface with the pages of this directory in the place of the one in the program, if there is one.
    #[must_use]
    pub fn with_pages(self, directory: Option<PathBuf>) -> Site {
        Site { pages: directory.map(Arc::from), ..self }
    }

    pub(super) fn pages(&self) -> Option<&Arc<Path>> {
        self.pages.as_ref()
    }

    pub(super) fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.shared.bounds
    }

    /// Adds the configured headers to a response that does not have them.
    pub(super) fn decorate(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.shared.headers {
            if !headers.contains_key(name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }

    /// Counts a request against the limits; the reply if it is one too many.
    pub(super) fn limit(&self, method: &str, path: &str) -> Option<HttpReply> {
        let limiter = self.shared.limiter.as_ref()?;
        let work = work(method, path)?;
        let gate = &self.shared.gate;
        let (is_leader, now) = (gate.published().lease.is_leader, gate.now().mono);
        let admission = limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(work, is_leader, now);
        match admission {
            Admission::Admitted => None,
            Admission::Noted => {
                tracing::warn!(method, path, "request beyond limits.request_limits, served all the same");
                None
            }
            Admission::Refused(reply) => {
                tracing::debug!(method, path, "request refused by limits.request_limits");
                Some(reply)
            }
        }
    }

    /// A place for one connection, unless its client has too many.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        let limit = self.shared.bounds.per_client.load(Ordering::Relaxed);
        if limit > 0 && *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place { shared: Arc::clone(&self.shared), address })
    }
}

/// One open connection; given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}
