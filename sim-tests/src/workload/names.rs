//! Clients that keep instances of a service in the catalog, change the state of their checks, and look the service up over
//! DNS.
//!
//! «By default, any service instance with a failing health check is not returned» (Consul's documentation, «Perform static
//! DNS lookups»). With `allow_stale` off an answer is as of some moment between question and answer; else it may be
//! as old as `max_stale`. So an instance that has been critical, by what was acknowledged, for all of that time is in no
//! answer, and one that has been passing is in each.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proconsul_core::dns::{DnsConfig, Transport};
use proconsul_core::rng::Rng;
use proconsul_io_real::dns::{Answered, NodeResponder, Responder as _, Settings};
use proconsul_io_real::gate::Gate;
use proconsul_io_sim::net::HostId;
use proconsul_io_sim::time::{nanos, sim_now, sim_sleep};
use proconsul_jepsen::history::Nanos;
use serde_json::json;

use super::Client;
use super::client::PATIENCE;
use crate::http::Lost;

/// How the names of their nodes begin, which have no agent.
pub(super) const NODES: &str = "named";
/// The service that all instances belong to.
const SERVICE: &str = "named";
/// `named.service.consul. A`
const QUESTION: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x05named\x07service\x06consul\0\0\x01\0\x01";
/// How old an answer may be that need not be new.
const STALE_MAX: Duration = Duration::from_secs(2);
/// The code of an answer that says that somebody could not be asked.
const SERVFAIL: u8 = 2;

/// The way into each agent's process, for those who ask for names: they stand for programs on its machine. Clones share it.
#[derive(Clone, Default)]
pub struct Doors(Arc<Mutex<BTreeMap<HostId, Gate>>>);

impl Doors {
    /// A process begins on a machine.
    pub fn open(&self, host: HostId, gate: Gate) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(host, gate);
    }

    fn get(&self, host: HostId) -> Option<Gate> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&host).cloned()
    }
}

/// The instances of all clients. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Named(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// By number: the state that was acknowledged last, and when; `None` while it is changed, and when nobody knows.
    instances: Vec<Option<(State, Nanos)>>,
    /// Answers that were older than they may be, unless what the leader said was held up.
    late: Vec<Late>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Passing,
    Critical,
}

/// An answer that was too old.
#[derive(Clone, Debug)]
pub struct Late {
    /// The time that it may be as of.
    pub from: Nanos,
    /// When it came.
    pub to: Nanos,
    /// What is wrong with it.
    pub what: String,
}

impl Named {
    /// Answers that were too old, if nothing excuses them.
    #[must_use]
    pub fn late(&self) -> Vec<Late> {
        self.lock().late.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn address(number: usize) -> Ipv4Addr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

pub(super) async fn run(client: &mut Client) {
    let mut own = None;
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        if client.one_in(3) {
            change(client, &mut own).await;
        } else {
            look_up(client).await;
        }
        client.think().await;
    }
}

/// Gives the own instance a state.
async fn change(client: &mut Client, own: &mut Option<usize>) {
    let number = *own.get_or_insert_with(|| {
        let mut book = client.shared.named.lock();
        book.instances.push(None);
        book.instances.len() - 1
    });
    let state = if client.one_in(2) { State::Passing } else { State::Critical };
    let status = if state == State::Passing { "passing" } else { "critical" };
    let body = json!({
        "Node": format!("{NODES}{number}"),
        "Address": address(number),
        "Service": { "Service": SERVICE, "Port": 80 },
        "Check": { "CheckID": "state", "Name": "state", "ServiceID": SERVICE, "Status": status },
    });
    client.shared.named.lock().instances[number] = None;
    match client.ask("PUT", "/v1/catalog/register", body.to_string(), PATIENCE).await {
        Ok(response) if response.status == 200 => {
            client.shared.named.lock().instances[number] = Some((state, sim_now()));
        }
        Err(Lost::NotSent) => {}
        // It may be done yet, at any time: nothing can be said of this instance any more.
        Ok(_) | Err(Lost::Unknown) => *own = None,
    }
}

async fn look_up(client: &mut Client) {
    let Some(gate) = client.shared.doors.get(client.shared.agents[client.agent]) else {
        return client.change_agent();
    };
    tokio::select! {
        biased;
        // The process has died; nobody on that machine is answered.
        () = gate.closed() => return client.change_agent(),
        () = std::future::ready(()) => {}
    }
    // What a client agent keeps lives outside the simulation; so there everything is asked for.
    let must_be_new = !gate.published().about.server || client.one_in(2);
    let config = DnsConfig { allow_stale: !must_be_new, max_stale: STALE_MAX, ..DnsConfig::default() };
    let rng = Rng::from_seed(client.rng.next_u64());
    let mut responder = NodeResponder::new(gate, Settings::new(config), rng);
    let invoked = sim_now();
    let mut answer = Vec::new();
    match responder.answer(QUESTION, Transport::Tcp, &mut answer) {
        Answered::Now => {}
        Answered::Never => unreachable!("it is a question"),
        Answered::Later(later) => {
            tokio::select! {
                biased;
                said = later => answer = said.map(Vec::from).unwrap_or_default(),
                () = sim_sleep(PATIENCE) => return client.change_agent(),
            }
        }
    }
    if answer.get(3).is_none_or(|flags| flags & 0xf == SERVFAIL) {
        return client.change_agent();
    }
    judge(client, invoked, must_be_new, &answer);
}

fn judge(client: &Client, invoked: Nanos, must_be_new: bool, answer: &[u8]) {
    let shared = &client.shared;
    // What was may be restored, and clocks without a bound do not count.
    if shared.restores || !shared.fresh_mode.is_empty() {
        return;
    }
    let age = if must_be_new { 0 } else { nanos(STALE_MAX) + shared.stale_slack };
    let mut book = shared.named.lock();
    let mut judged = 0;
    let mut late = Vec::new();
    for (number, known) in book.instances.iter().enumerate() {
        let Some((state, since)) = *known else { continue };
        if since + age > invoked {
            continue;
        }
        judged += 1;
        let [a, b, c, d] = address(number).octets();
        let is_there = answer.windows(6).any(|window| window == [0, 4, a, b, c, d]);
        if is_there != (state == State::Passing) {
            let agent = client.agent;
            let what = format!(
                "instance {number} is {state:?} since {since}, and agent {agent}, asked at {invoked}, says it is {}there",
                if is_there { "" } else { "not " }
            );
            late.push(Late { from: invoked.saturating_sub(age), to: sim_now(), what });
        }
    }
    shared.audit.count("instances judged over DNS", judged);
    if must_be_new {
        for Late { what, .. } in late {
            shared.audit.report("names over DNS", what);
        }
    } else {
        book.late.extend(late);
    }
}
