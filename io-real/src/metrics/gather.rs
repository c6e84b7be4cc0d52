//! From cells, and from what the node has published, to the metrics of an interval.
//!
//! Source of the names: Consul's documentation, «Agent telemetry».

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proconsul_core::api::endpoint_labels;
use proconsul_core::gossip::Status;
use proconsul_core::node::{Cluster, Published};
use proconsul_core::time::Now;

use super::cells::Cell;
use super::interval::{Events, Gauge, Interval, Labels, Stats};
use super::{METHODS, Metrics, Settings};

/// What was counted by looking, again and again, at what the node has published.
#[derive(Debug, Default)]
pub(super) struct Seen {
    began: Option<Now>,
    cluster: Arc<Cluster>,
    applied: u64,
    term: u64,
    is_leader: bool,
    /// Of this interval and of all before it.
    counts: [(u64, u64); Count::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
enum Count {
    Applied,
    Term,
    Leader,
    Joined,
    Left,
    Failed,
    Updated,
    Forgotten,
}

impl Count {
    const ALL: [(Count, &'static str); 8] = [
        (Count::Applied, "raft.apply"),
        (Count::Term, "raft.state.candidate"),
        (Count::Leader, "raft.state.leader"),
        (Count::Joined, "serf.member.join"),
        (Count::Left, "serf.member.left"),
        (Count::Failed, "serf.member.failed"),
        (Count::Updated, "serf.member.update"),
        (Count::Forgotten, "serf.member.reap"),
    ];
}

impl Seen {
    /// Counts what is new.
    pub(super) fn look(&mut self, published: &Published, now: Now) {
        let lease = &published.lease;
        let is_first = self.began.is_none();
        self.began.get_or_insert(now);
        // Only a leader counts entries, as each is applied by every server.
        if lease.is_leader && self.is_leader {
            self.count(Count::Applied, lease.applied.0.saturating_sub(self.applied));
        }
        if lease.is_leader && !self.is_leader {
            self.count(Count::Leader, 1);
        }
        if !is_first && lease.term.0 > self.term {
            self.count(Count::Term, lease.term.0 - self.term);
        }
        (self.applied, self.term, self.is_leader) = (lease.applied.0, lease.term.0, lease.is_leader);
        let before = std::mem::replace(&mut self.cluster, Arc::clone(&published.cluster));
        for (before, now) in published.cluster.changes_since(&before) {
            let former = before.map(|member| member.status);
            let count = match now.map(|member| member.status) {
                None => Count::Forgotten,
                Some(Status::Alive) if former == Some(Status::Alive) => Count::Updated,
                Some(Status::Alive) => Count::Joined,
                Some(Status::Left) if former != Some(Status::Left) => Count::Left,
                Some(Status::Failed) if former != Some(Status::Failed) => Count::Failed,
                Some(Status::Leaving | Status::Left | Status::Failed) => continue,
            };
            self.count(count, 1);
        }
    }

    fn count(&mut self, count: Count, by: u64) {
        self.counts[count as usize].0 += by;
    }

    /// Begins another interval.
    pub(super) fn begin(&mut self, now: Now) {
        self.began = Some(now);
        for (current, former) in &mut self.counts {
            *former += std::mem::take(current);
        }
    }
}

/// The metrics of the interval that runs.
pub(super) fn gather(metrics: &Metrics, seen: &Seen, published: &Published, now: Now) -> Interval {
    let settings = metrics.settings.load();
    let began = seen.began.unwrap_or(now);
    let mut writer = Writer { settings: &settings, interval: Interval::default() };
    writer.interval.began = began.wall.0 / 10_000 * 10;
    writer.interval.length = now.mono.since(began.mono);
    runtime(&mut writer);
    writer.gauge("rpc.queries_blocking", metrics.blocking.load(Relaxed).max(0) as f64);
    cluster(&mut writer, published);
    if published.about.server {
        raft(&mut writer, published);
        state(&mut writer, published);
    }
    for ((_, name), (current, former)) in Count::ALL.into_iter().zip(seen.counts) {
        let totals = (current + former, (current + former) as f64);
        writer.counter(name, Vec::new(), Stats::of_events(current), totals);
    }
    for (name, cell) in [
        ("rpc.request", &metrics.requests),
        ("rpc.query", &metrics.queries),
        ("client.rpc", &metrics.forwarded),
        ("client.rpc.exceeded", &metrics.refused),
    ] {
        writer.counter(name, Vec::new(), cell.events(), cell.totals());
    }
    let node = || vec![("node", settings.node.clone())];
    writer.sample("dns.domain_query", node(), &metrics.dns);
    writer.sample("dns.ptr_query", node(), &metrics.dns_reverse);
    http(&mut writer, metrics, published.about.server);
    let mut interval = writer.interval;
    // One after the other those of one name, as Prometheus demands.
    interval.counters.sort_by(|one, other| one.name.cmp(&other.name));
    interval.samples.sort_by(|one, other| one.name.cmp(&other.name));
    interval
}

/// Adds metrics under their whole names, if they are wanted.
struct Writer<'a> {
    settings: &'a Settings,
    interval: Interval,
}

impl Writer<'_> {
    fn named(&self, name: &str) -> Option<String> {
        let name = format!("{}.{name}", self.settings.prefix);
        self.settings.shows(&name).then_some(name)
    }

    fn gauge(&mut self, name: &str, value: f64) {
        let labels = Vec::new();
        let shown = if self.settings.host.is_empty() {
            self.named(name)
        } else {
            // Rules are written without the host's name.
            self.named(name).map(|_| format!("{}.{}.{name}", self.settings.prefix, self.settings.host))
        };
        self.interval.gauges.extend(shown.map(|name| Gauge { name, labels, value }));
    }

    fn labelled_gauge(&mut self, name: &str, labels: Labels, value: f64) {
        self.gauge(name, value);
        if let Some(gauge) = self.interval.gauges.last_mut().filter(|gauge| gauge.name.ends_with(name)) {
            gauge.labels = labels;
        }
    }

    fn counter(&mut self, name: &str, labels: Labels, stats: Stats, totals: (u64, f64)) {
        let name = self.named(name);
        self.interval.counters.extend(name.map(|name| Events { name, labels, stats, totals }));
    }

    fn sample(&mut self, name: &str, labels: Labels, cell: &Cell) {
        if cell.totals().0 == 0 {
            return;
        }
        let (name, stats, totals) = (self.named(name), cell.times(), cell.totals());
        self.interval.samples.extend(name.map(|name| Events { name, labels, stats, totals }));
    }
}

/// The process. Bytes come from the kernel: those of the allocator and those of everything.
fn runtime(writer: &mut Writer<'_>) {
    // What the system does not tell is left out.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    for (name, key) in [("runtime.alloc_bytes", "RssAnon"), ("runtime.sys_bytes", "VmRSS")] {
        if let Some(bytes) = bytes(key) {
            writer.gauge(name, bytes as f64);
        }
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        writer.gauge("runtime.num_goroutines", runtime.metrics().num_alive_tasks() as f64);
    }
}

fn cluster(writer: &mut Writer<'_>, published: &Published) {
    let alive = published.cluster.lan.values().filter(|member| member.status == Status::Alive);
    let (servers, clients): (Vec<_>, Vec<_>) = alive.partition(|member| member.is_server());
    let datacenter = || vec![("datacenter", published.about.datacenter.to_string())];
    writer.labelled_gauge("members.servers", datacenter(), servers.len() as f64);
    writer.labelled_gauge("members.clients", datacenter(), clients.len() as f64);
}

fn raft(writer: &mut Writer<'_>, published: &Published) {
    let lease = &published.lease;
    writer.gauge("raft.applied_index", lease.applied.0 as f64);
    writer.gauge("server.isLeader", f64::from(u8::from(lease.is_leader)));
    let voters = published.membership.servers.iter().filter(|(_, server)| server.voter);
    let voters = voters.map(|(id, _)| *id).collect::<Vec<_>>();
    writer.gauge("raft.peers", published.membership.servers.len() as f64);
    if lease.is_leader {
        let is_alive =
            |id: &&_| published.cluster.by_id(**id).is_some_and(|member| member.status == Status::Alive);
        let alive = voters.iter().filter(is_alive).count();
        let quorum = voters.len() / 2 + 1;
        writer.gauge("autopilot.healthy", f64::from(u8::from(alive == voters.len())));
        writer.gauge("autopilot.failure_tolerance", alive.saturating_sub(quorum) as f64);
    }
}

fn state(writer: &mut Writer<'_>, published: &Published) {
    let view = &published.view;
    let datacenter = || vec![("datacenter", published.about.datacenter.to_string())];
    writer.labelled_gauge("state.nodes", datacenter(), view.nodes().count() as f64);
    writer.labelled_gauge("state.kv_entries", datacenter(), view.kv_len() as f64);
    writer.gauge("session_ttl.active", view.sessions_with_ttl().count() as f64);
}

/// Requests of HTTP clients, and the same under the names that older dashboards have for some of them.
fn http(writer: &mut Writer<'_>, metrics: &Metrics, server: bool) {
    for (label, cells) in endpoint_labels().zip(&metrics.http) {
        for (method, cell) in METHODS.iter().zip(cells) {
            if cell.totals().0 == 0 {
                continue;
            }
            let labels = vec![("method", (*method).to_owned()), ("path", label.clone())];
            writer.sample("api.http", labels, cell);
            writer.sample(&format!("http.{method}.{label}"), Vec::new(), cell);
            let node = || vec![("node", writer.settings.node.clone())];
            let name = match label.strip_prefix("v1.").unwrap_or(&label) {
                "kv._" if server && *method != "GET" => Some("kvs.apply"),
                "txn" if server => Some("txn.apply"),
                "catalog.register" if server => Some("catalog.register"),
                "catalog.deregister" if server => Some("catalog.deregister"),
                "session.create" | "session.destroy._" if server => Some("session.apply"),
                "session.renew._" if server => Some("session.renew"),
                _ => None,
            };
            if let Some(name) = name {
                writer.sample(name, vec![("method", (*method).to_owned())], cell);
            }
            if let Some(api) = label.strip_prefix("v1.catalog.") {
                let api = format!("catalog_{}", api.trim_end_matches("._").replace(['.', '-'], "_"));
                let (stats, failed) = (cell.events(), cell.failures());
                let labels = node();
                writer.counter(&format!("client.api.{api}"), labels.clone(), stats, cell.totals());
                let good = Stats::of_events(stats.count.saturating_sub(failed));
                let name = format!("client.api.success.{api}");
                if let Some(name) = writer.named(&name).filter(|_| good.count > 0) {
                    let totals = (0, 0.0);
                    writer.interval.counters.push(Events { name, labels, stats: good, totals });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proconsul_core::agent::AgentView;
    use proconsul_core::ids::{LogIndex, Term};
    use proconsul_core::node::{About, Lease};
    use proconsul_core::store::View;
    use proconsul_core::time::{Mono, Wall};

    use super::*;

    fn now(second: u64) -> Now {
        Now { mono: Mono(second * 1_000_000_000), wall: Wall(second * 1_000) }
    }

    fn published(applied: u64) -> Published {
        let lease = Lease { is_leader: true, term: Term(1), applied: LogIndex(applied), ..Lease::default() };
        Published {
            view: View::new(),
            lease,
            membership: Arc::default(),
            agent: Arc::new(AgentView::default()),
            cluster: Arc::default(),
            alarm: None,
            about: Arc::new(About { server: true, ..About::default() }),
        }
    }

    fn find<'a>(interval: &'a [Events], name: &str) -> &'a Events {
        interval.iter().find(|events| events.name == name).expect("it was counted")
    }

    #[test]
    fn an_interval_has_what_happened_in_it() {
        let metrics = Metrics::default();
        metrics.settings.store(Arc::new(Settings { host: "h".into(), ..Settings::default() }));
        metrics.look(&published(5), now(100));
        metrics.served("PUT", "/v1/kv/a", 200, Duration::from_millis(2));
        metrics.served("GET", "/v1/catalog/nodes", 500, Duration::from_millis(1));
        metrics.served("GET", "/v1/nothing", 404, Duration::from_millis(1));
        metrics.rotate(&published(9), now(110));
        let interval = metrics.last(&published(9), now(112));
        assert_eq!(find(&interval.counters, "consul.raft.apply").stats.count, 4);
        assert_eq!(find(&interval.samples, "consul.http.PUT.v1.kv._").stats.sum, 2.0);
        assert_eq!(find(&interval.samples, "consul.kvs.apply").stats.count, 1);
        assert_eq!(find(&interval.counters, "consul.client.api.catalog_nodes").stats.count, 1);
        assert!(interval.counters.iter().all(|events| !events.name.contains("success")));
        assert!(interval.gauges.iter().any(|gauge| gauge.name == "consul.h.raft.applied_index"));
        metrics.rotate(&published(9), now(120));
        let interval = metrics.last(&published(9), now(121));
        assert_eq!(find(&interval.counters, "consul.raft.apply").stats.count, 0);
        assert_eq!(find(&interval.samples, "consul.kvs.apply").totals, (1, 2.0));
    }

    #[test]
    fn what_is_filtered_away_is_not_shown() {
        let metrics = Metrics::default();
        let rules = vec![("consul.raft".to_owned(), true)];
        metrics.settings.store(Arc::new(Settings { shown: false, rules, ..Settings::default() }));
        metrics.served("GET", "/v1/kv/a", 200, Duration::ZERO);
        let interval = metrics.last(&published(1), now(1));
        assert!(interval.samples.is_empty());
        assert!(interval.gauges.iter().all(|gauge| gauge.name.starts_with("consul.raft.")));
    }
}
