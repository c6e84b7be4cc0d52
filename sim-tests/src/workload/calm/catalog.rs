//! The catalog has of every agent what that agent has, and nothing besides («Anti-Entropy», documentation of Consul: «the
//! agent … ensures that the catalog is in sync with its local state»).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proconsul_io_sim::time::{sim_now, sim_sleep};
use serde_json::{Value, json};

use super::Client;
use crate::workload::registrar::Instance;
use crate::workload::{Shared, names};

/// The catalog is repaired within this time: a full synchronisation comes once a minute, and one that failed is tried
/// again within half a minute.
const REPAIR_LIMIT: Duration = Duration::from_secs(130);
/// What leaders register of agents.
const LEADERS: [&str; 2] = ["consul", "serfHealth"];

/// A part of the catalog, by identifier.
type Rows = BTreeMap<String, Value>;

/// What one agent has.
struct Local {
    node: String,
    services: Rows,
    checks: Rows,
}

/// Demands of each agent that it has what it was told, and of the catalog that it has what the agents have.
pub(super) async fn prove(provers: &mut [Client], shared: &Shared) {
    let begun = sim_now();
    let mut pause = Duration::from_millis(50);
    loop {
        let Some(wrong) = compare(provers, shared).await else { return };
        if wrong.is_empty() {
            return;
        }
        if Duration::from_nanos(sim_now() - begun) > REPAIR_LIMIT {
            for what in wrong {
                shared.audit.report("catalog", format!("after {REPAIR_LIMIT:?} of calm: {what}"));
            }
            return;
        }
        sim_sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What is wrong; `None` if somebody did not answer, which has been reported.
async fn compare(provers: &mut [Client], shared: &Shared) -> Option<Vec<String>> {
    let mut wrong = Vec::new();
    let mut agents = Vec::new();
    for prover in &mut *provers {
        let local = local(prover).await?;
        wrong.extend(forgotten(prover.agent, &local, shared));
        agents.push(local);
    }
    let prover = &mut provers[0];
    let mut instances: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for agent in &agents {
        let node = &agent.node;
        let row = prover.json(&format!("/v1/catalog/node/{node}?consistent")).await?;
        wrong.extend(differences(node, &agent.services, &rows(&row["Services"], "ID", service)));
        let checks = prover.json(&format!("/v1/health/node/{node}?consistent")).await?;
        wrong.extend(differences(node, &agent.checks, &rows(&checks, "CheckID", check)));
        if !list(&checks).any(|it| it["CheckID"] == "serfHealth" && it["Status"] == "passing") {
            wrong.push(format!("{node} is not healthy: {checks}"));
        }
        for (id, row) in &agent.services {
            let name = row["Service"].as_str().unwrap_or_default().to_owned();
            instances.entry(name).or_default().insert((node.clone(), id.clone()));
        }
    }
    let nodes = prover.json("/v1/catalog/nodes?consistent").await?;
    let listed = list(&nodes).filter_map(|row| row["Node"].as_str());
    let listed: Vec<&str> = listed.filter(|node| !node.starts_with(names::NODES)).collect();
    let known: BTreeSet<&str> = agents.iter().map(|agent| agent.node.as_str()).collect();
    if listed.len() != known.len() || listed.iter().any(|node| !known.contains(node)) {
        wrong.push(format!("the catalog has the nodes {listed:?}, not {known:?}"));
    }
    for name in ["web0", "web1"] {
        let health = prover.json(&format!("/v1/health/service/{name}?consistent")).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pair = |row: &Value| (text(&row["Node"]["Node"]), text(&row["Service"]["ID"]));
        let listed: Vec<_> = list(&health).map(pair).collect();
        let known = instances.remove(name).unwrap_or_default();
        if listed.len() != known.len() || listed.iter().any(|it| !known.contains(it)) {
            wrong.push(format!("{name} has the instances {listed:?}, not {known:?}"));
        }
    }
    Some(wrong)
}

async fn local(prover: &mut Client) -> Option<Local> {
    let about = prover.json("/v1/agent/self").await?;
    let services = prover.json("/v1/agent/services").await?;
    let checks = prover.json("/v1/agent/checks").await?;
    Some(Local {
        node: about["Config"]["NodeName"].as_str().unwrap_or_default().to_owned(),
        services: rows(&services, "ID", service),
        checks: rows(&checks, "CheckID", check),
    })
}

/// What the agent acknowledged and does not have, or has although it acknowledged that it is gone.
fn forgotten(agent: usize, local: &Local, shared: &Shared) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((of, id), told) in &shared.registered.lock().states {
        let tags = local.services.get(id).map(|row| &row["Tags"]);
        let is_right = match told {
            _ if *of != agent => true,
            None => true,
            Some(Instance::Gone) => tags.is_none(),
            Some(Instance::Runs(tag)) => tags.is_some_and(|tags| *tags == json!([tag])),
        };
        if !is_right {
            wrong.push(format!("agent {agent} was told {told:?} of {id}, and has the tags {tags:?}"));
        }
    }
    wrong
}

fn differences(node: &str, local: &Rows, catalog: &Rows) -> Vec<String> {
    let ids: BTreeSet<&String> = local.keys().chain(catalog.keys()).collect();
    ids.into_iter()
        .filter(|id| local.get(*id) != catalog.get(*id))
        .map(|id| format!("{node} has of {id} {:?}, the catalog {:?}", local.get(id), catalog.get(id)))
        .collect()
}

/// The elements of a list or of an object.
fn list(rows: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match rows {
        Value::Array(rows) => Box::new(rows.iter()),
        Value::Object(rows) => Box::new(rows.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Rows that are the agent's own business, by identifier, reduced to what agent and catalog both show.
fn rows(from: &Value, id: &str, reduce: fn(&Value) -> Value) -> Rows {
    list(from)
        .filter_map(|row| Some((row[id].as_str()?.to_owned(), row)))
        .filter(|(id, row)| !LEADERS.contains(&id.as_str()) && row["ServiceID"] != "consul")
        .map(|(id, row)| (id, reduce(row)))
        .collect()
}

fn service(row: &Value) -> Value {
    json!({ "Service": row["Service"], "Tags": row["Tags"], "Port": row["Port"], "Address": row["Address"] })
}

/// Without the output, which may differ for minutes as long as the state does not («check_update_interval»).
fn check(row: &Value) -> Value {
    json!({
        "Name": row["Name"], "Status": row["Status"], "Notes": row["Notes"],
        "ServiceID": row["ServiceID"], "ServiceName": row["ServiceName"], "Type": row["Type"],
    })
}
