//! Clients that register services with checks at an agent, report the checks' states, and deregister them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use proconsul_jepsen::history::{Consistency, Op, Reply, Through};
use serde_json::{Value, json};

use super::Client;
use super::client::{Ask, PATIENCE, parsed};

/// So many names do services have.
const NAMES: u64 = 2;
/// So many instances does a client look after.
const INSTANCES: u64 = 3;

/// What agents were told to run. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Registered(Arc<Mutex<Told>>);

/// What all agents were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By agent and identifier of the service: the state that the agent acknowledged last, if nothing was ever asked of which
    /// the outcome is unknown.
    pub states: BTreeMap<(usize, String), Option<Instance>>,
    /// How often each agent has lost what it was told.
    losses: BTreeMap<usize, u64>,
}

impl Told {
    fn losses(&self, agent: usize) -> u64 {
        self.losses.get(&agent).copied().unwrap_or_default()
    }
}

/// What becomes of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Instance {
    /// It runs, with this tag.
    Runs(String),
    /// It does not.
    Gone,
}

impl Registered {
    /// An agent has lost what it was told.
    pub fn forget(&self, agent: usize) {
        let mut told = self.lock();
        told.states.retain(|(of, _), _| *of != agent);
        *told.losses.entry(agent).or_default() += 1;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Where an instance stands in the catalog.
struct Place<'a> {
    node: &'a str,
    name: &'a str,
    id: &'a str,
}

impl Place<'_> {
    fn service(&self) -> String {
        format!("service/{}/{}/{}", self.name, self.node, self.id)
    }

    fn check(&self) -> String {
        format!("check/{}/{}/{}-ttl", self.name, self.node, self.id)
    }
}

pub(super) async fn run(client: &mut Client) {
    let Some(node) = node_name(client).await else { return };
    for _ in 0..client.operations {
        if client.must_stop() {
            return;
        }
        let number = client.rng.below(INSTANCES);
        let (id, name) = (format!("c{}-{number}", client.id), format!("web{}", number % NAMES));
        let place = Place { node: &node, name: &name, id: &id };
        match client.rng.below(10) {
            0..=2 => register(client, &place).await,
            3..=5 => report(client, &place).await,
            6 => deregister(client, &place).await,
            7 => maintain(client, &place).await,
            8 => read_health(client, &name).await,
            _ => {
                let target = format!("/v1/agent/health/service/id/{id}");
                let _ = client.ask("GET", &target, String::new(), PATIENCE).await;
            }
        }
        client.think().await;
    }
}

/// The name of its agent, asked for until it tells.
async fn node_name(client: &mut Client) -> Option<String> {
    while !client.must_stop() {
        let answer = client.ask("GET", "/v1/agent/self", String::new(), PATIENCE).await;
        if let Some(response) = answer.ok().filter(|response| response.status == 200) {
            let about: Value = parsed("/v1/agent/self", &response);
            return about["Config"]["NodeName"].as_str().map(str::to_owned);
        }
        client.think().await;
    }
    None
}

async fn register(client: &mut Client, place: &Place<'_>) {
    let tag = client.fresh_value();
    let (id, name) = (place.id, place.name);
    let body = json!({
        "ID": id,
        "Name": name,
        "Tags": [tag],
        "Port": 8000,
        "Checks": [{ "CheckID": format!("{id}-ttl"), "Name": "alive", "TTL": "600s", "Status": "passing" }],
    });
    let op = Op::Register { value: tag.clone(), through: Through::Agent };
    let target = "/v1/agent/service/register?replace-existing-checks";
    change(client, place, op, Ask::put(target, body.to_string()), Instance::Runs(tag)).await;
}

async fn deregister(client: &mut Client, place: &Place<'_>) {
    let target = format!("/v1/agent/service/deregister/{}", place.id);
    let op = Op::Deregister { through: Through::Agent };
    change(client, place, op, Ask::put(&target, ""), Instance::Gone).await;
}

/// Tells the agent about a service. What it acknowledges has survived a restart of the agent (Consul's documentation,
/// «Services»: registrations are persisted in the agent's data directory).
async fn change(client: &mut Client, place: &Place<'_>, op: Op, ask: Ask<'_>, to: Instance) {
    let agent = client.agent;
    let losses = client.shared.registered.lock().losses(agent);
    let reply = client
        .record(&place.service(), op, ask, |response| match response.status {
            200 => Some(Reply::Done { index: None }),
            // It was not there.
            404 if to == Instance::Gone => Some(Reply::Refused),
            _ => None,
        })
        .await;
    let mut told = client.shared.registered.lock();
    // Whether it was lost with the rest, or came after that, nobody knows.
    let reply = reply.filter(|_| told.losses(agent) == losses);
    let known = told.states.entry((agent, place.id.to_owned())).or_insert(Some(Instance::Gone));
    // What was never answered may still be on its way, and come after this.
    if known.is_some() {
        *known = reply.map(|_| to);
    }
}

/// Reports the state of an instance's check.
async fn report(client: &mut Client, place: &Place<'_>) {
    let choice = usize::try_from(client.rng.below(3)).expect("below three");
    let (action, state) = [("pass", "passing"), ("warn", "warning"), ("fail", "critical")][choice];
    let note = client.fresh_value();
    let target = format!("/v1/agent/check/{action}/{}-ttl?note={note}", place.id);
    let op = Op::Register { value: state.to_owned(), through: Through::Agent };
    client
        .record(&place.check(), op, Ask::put(&target, ""), |response| match response.status {
            200 => Some(Reply::Done { index: None }),
            500 if response.text().contains("does not have associated TTL") => Some(Reply::Refused),
            _ => None,
        })
        .await;
}

/// Reads all instances of a service.
async fn read_health(client: &mut Client, name: &str) {
    let target = format!("/v1/health/service/{name}?{}", client.shared.fresh_mode);
    let op = Op::Catalog { above: None, consistency: Consistency::Linearizable };
    client
        .record(&format!("service/{name}/"), op, Ask::get(&target), |response| {
            if response.status != 200 {
                return None;
            }
            let rows: Vec<Value> = parsed(&target, response);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let entries = rows.iter().map(|row| {
                let (node, service) = (text(&row["Node"]["Node"]), &row["Service"]);
                let path = format!("service/{name}/{node}/{}", text(&service["ID"]));
                (path, text(&service["Tags"][0]))
            });
            Some(Reply::Catalog { entries: entries.collect(), index: response.index })
        })
        .await;
}

async fn maintain(client: &mut Client, place: &Place<'_>) {
    let id = place.id;
    let enable = client.one_in(2);
    let target = if client.one_in(3) {
        format!("/v1/agent/maintenance?enable={enable}&reason=work")
    } else {
        format!("/v1/agent/service/maintenance/{id}?enable={enable}&reason=work")
    };
    let _ = client.ask("PUT", &target, String::new(), PATIENCE).await;
}
