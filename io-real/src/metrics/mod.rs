//! What the agent measures about itself, under the names that Consul's dashboards know.
//!
//! Front-ends count into atomics ([`Metrics::served`] and its like); everything else is read from what the node has
//! published when an interval ends. The node's own thread measures nothing.

mod cells;
mod gather;
mod interval;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use proconsul_core::api::{Call, endpoint_labels, endpoint_place};
use proconsul_core::node::Published;
use proconsul_core::time::Now;
use tokio::sync::watch;

use self::cells::Cell;
use self::gather::Seen;
pub use self::interval::Interval;
use crate::gate::Gate;

/// Length of an interval, as in Consul.
const INTERVAL: Duration = Duration::from_secs(10);
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "other"];

/// How metrics are named, and which are shown (Consul's documentation, «telemetry»).
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all names begin with.
    pub prefix: String,
    /// What gauges have after it; empty for nothing.
    pub host: String,
    /// Name of the node, a label of some metrics.
    pub node: String,
    /// Whether metrics are shown that no rule is about.
    pub shown: bool,
    /// Beginnings of names, and whether metrics that begin so are shown. The longest that fits decides.
    pub rules: Vec<(String, bool)>,
    /// Whether the format of Prometheus is served.
    pub prometheus: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        let text = String::new;
        Settings {
            prefix: "consul".into(),
            host: text(),
            node: text(),
            shown: true,
            rules: Vec::new(),
            prometheus: true,
        }
    }
}

impl Settings {
    fn shows(&self, name: &str) -> bool {
        let fitting = self.rules.iter().filter(|(beginning, _)| name.starts_with(beginning));
        fitting.max_by_key(|(beginning, _)| beginning.len()).map_or(self.shown, |(_, shown)| *shown)
    }
}

/// Everything that is measured. One for each agent.
#[derive(Debug)]
pub struct Metrics {
    settings: ArcSwap<Settings>,
    /// By endpoint and method.
    http: Vec<[Cell; METHODS.len()]>,
    requests: Cell,
    queries: Cell,
    forwarded: Cell,
    refused: Cell,
    blocking: AtomicI64,
    dns: Cell,
    dns_reverse: Cell,
    /// What was known when this interval began.
    seen: Mutex<Seen>,
    last: watch::Sender<Arc<Interval>>,
    /// Whether an interval has ended.
    has_ended: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            settings: ArcSwap::default(),
            http: endpoint_labels().map(|_| <[Cell; METHODS.len()]>::default()).collect(),
            requests: Cell::default(),
            queries: Cell::default(),
            forwarded: Cell::default(),
            refused: Cell::default(),
            blocking: AtomicI64::new(0),
            dns: Cell::default(),
            dns_reverse: Cell::default(),
            seen: Mutex::default(),
            last: watch::channel(Arc::default()).0,
            has_ended: AtomicBool::new(false),
        }
    }
}

/// A question of a front-end that is with the node.
#[derive(Debug)]
pub struct Waiting<'a>(Option<&'a AtomicI64>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(blocking) = self.0 {
            blocking.fetch_sub(1, Relaxed);
        }
    }
}

impl Metrics {
    /// Names and filters from now on.
    pub fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Whether the format of Prometheus is served.
    #[must_use]
    pub fn serves_prometheus(&self) -> bool {
        self.settings.load().prometheus
    }

    /// An HTTP request was answered.
    pub fn served(&self, method: &str, path: &str, status: u16, time: Duration) {
        let Some(place) = endpoint_place(path) else { return };
        let other = METHODS.len() - 1;
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(other);
        let cell = &self.http[place][method];
        cell.record(time);
        if status >= 400 {
            cell.failed();
        }
    }

    /// The node is asked, by an agent that has state of its own or by one that forwards it; until the result is
    /// dropped.
    pub fn asked(&self, call: &Call, published: &Published) -> Waiting<'_> {
        if published.about.server {
            self.requests.add();
        } else if !matches!(call, Call::Agent(_) | Call::LocalService(_)) {
            self.forwarded.add();
        }
        let Call::Read(read) = call else { return Waiting(None) };
        self.queries.add();
        if read.blocking.is_none() {
            return Waiting(None);
        }
        self.blocking.fetch_add(1, Relaxed);
        Waiting(Some(&self.blocking))
    }

    /// The node would not take a request.
    pub fn refused(&self) {
        self.refused.add();
    }

    /// A DNS question was answered.
    pub fn dns_answered(&self, reverse: bool, time: Duration) {
        if reverse { &self.dns_reverse } else { &self.dns }.record(time);
    }

    /// The interval that ended last; the one that runs, as far as it has come, if none has ended.
    #[must_use]
    pub fn last(&self, published: &Published, now: Now) -> Arc<Interval> {
        if self.has_ended.load(Relaxed) { self.last.borrow().clone() } else { self.so_far(published, now) }
    }

    /// The interval that runs, as far as it has come.
    #[must_use]
    pub fn so_far(&self, published: &Published, now: Now) -> Arc<Interval> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look(published, now);
        Arc::new(gather::gather(self, &seen, published, now))
    }

    /// All intervals that end from now on.
    #[must_use]
    pub fn intervals(&self) -> watch::Receiver<Arc<Interval>> {
        self.last.subscribe()
    }

    /// Ends an interval.
    pub fn rotate(&self, published: &Published, now: Now) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look(published, now);
        let interval = gather::gather(self, &seen, published, now);
        seen.begin(now);
        self.cells().for_each(Cell::rotate);
        self.last.send_replace(Arc::new(interval));
        self.has_ended.store(true, Relaxed);
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        let single = [&self.requests, &self.queries, &self.forwarded, &self.refused];
        self.http.iter().flatten().chain(single).chain([&self.dns, &self.dns_reverse])
    }
}

/// Ends intervals for as long as the node runs, and looks at what it publishes in between.
pub async fn run(gate: Gate) {
    const LOOK: Duration = Duration::from_secs(1);
    let mut slot = gate.now().wall.0 / INTERVAL.as_millis() as u64;
    loop {
        tokio::select! {
            () = gate.closed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (published, now) = (gate.published(), gate.now());
        let current = now.wall.0 / INTERVAL.as_millis() as u64;
        if current == slot {
            gate.metrics().look(&published, now);
        } else {
            slot = current;
            gate.metrics().rotate(&published, now);
        }
    }
}

impl Metrics {
    fn look(&self, published: &Published, now: Now) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).look(published, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_decides() {
        let rules = [("consul.http", false), ("consul.http.GET", true)];
        let rules = rules.map(|(beginning, shown)| (beginning.to_owned(), shown)).to_vec();
        let settings = Settings { rules, ..Settings::default() };
        assert!(settings.shows("consul.raft.apply") && settings.shows("consul.http.GET.v1.kv._"));
        assert!(!settings.shows("consul.http.PUT.v1.kv._"));
    }
}
