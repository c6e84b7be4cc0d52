//! Where a case is played: on a dev agent, or on a client agent of three servers.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use proconsul_jepsen::process::agent::{Agent, ON_DISK};
use proconsul_jepsen::process::cluster::{Cluster, Layout, WITHIN, retry_join};
use proconsul_jepsen::process::network::{Network, Place};
use proconsul_jepsen::process::ports::free_port;
use serde_json::{Map, Value, json};

use super::case::{Acl, AgentSpec, Case};
use super::paths::{Variables, substitute};
use super::wire::Request;

const BINARY: &str = env!("CARGO_BIN_EXE_proconsul");

/// What answers the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A server in memory that is alone.
    Dev,
    /// A client agent of three servers.
    Client,
}

/// The agents of a case; they end with it.
pub struct Ground {
    kind: Kind,
    http: BTreeMap<String, SocketAddr>,
    _agents: Vec<Agent>,
    _cluster: Option<Cluster>,
}

impl Kind {
    /// Whether a case can be played there.
    pub fn has_room_for(self, case: &Case) -> bool {
        self == Kind::Dev || case.agents.is_empty()
    }
}

impl Ground {
    /// Starts the agents of a case, and waits until they are ready. Their ports become variables.
    pub async fn start(kind: Kind, case: &Case, variables: &mut Variables) -> Result<Ground, String> {
        // Another program may take a port between the moment it is chosen and the moment the agent listens.
        for _ in 0..4 {
            match Ground::try_start(kind, case, variables).await {
                Err(why) if why.contains("cannot listen") => {}
                outcome => return outcome,
            }
        }
        Ground::try_start(kind, case, variables).await
    }

    async fn try_start(kind: Kind, case: &Case, variables: &mut Variables) -> Result<Ground, String> {
        let mut ground = Ground { kind, http: BTreeMap::new(), _agents: Vec::new(), _cluster: None };
        let further = case.agents.iter().map(|(name, spec)| (name.as_str(), spec));
        for (name, spec) in std::iter::once(("a", &case.agent)).chain(further) {
            let node = if name == "a" { "conf-node".to_owned() } else { format!("conf-node-{name}") };
            let place = Place::tied().map_err(said)?;
            let address = SocketAddr::from((place.address, place.ports.http));
            let grpc = free_port().map_err(said)?;
            let ports = place.ports;
            for (kind, port) in [
                ("http", ports.http),
                ("dns", ports.dns),
                ("grpc", grpc),
                ("server", ports.server),
                ("serf_lan", ports.serf_lan),
                ("serf_wan", ports.serf_wan),
            ] {
                variables.insert(format!("{name}.{kind}"), port.into());
            }
            ground.http.insert(name.to_owned(), address);
            match kind {
                Kind::Dev => {
                    let arguments = ["-dev", "-config-dir", "conf"].map(str::to_owned).to_vec();
                    let mut agent = Agent::new(Path::new(BINARY), &node, place, arguments).map_err(said)?;
                    configure(&agent, spec, grpc, variables)?;
                    agent.start().map_err(said)?;
                    until(|| agent.ended(), async || leads(address).await)
                        .await
                        .map_err(|why| format!("the agent does not start: {why}\n{}", agent.log_tail()))?;
                    ground._agents.push(agent);
                }
                Kind::Client => {
                    let cluster = cluster(&node, place, spec, grpc, variables).await?;
                    ground._cluster = Some(cluster);
                }
            }
            if case.acl == Acl::Off {
                until(|| Ok(None), async || in_catalog(address, &node, None).await).await?;
            }
        }
        Ok(ground)
    }

    /// Where an agent's HTTP interface is.
    pub fn http(&self, agent: &str) -> Result<SocketAddr, String> {
        self.http.get(agent).copied().ok_or_else(|| format!("there is no agent {agent}"))
    }

    /// An answer without what is only there because of where it is played: on a client agent of three servers, what
    /// lists say of these servers.
    pub fn without_others(&self, answer: Value) -> Value {
        match self.kind {
            Kind::Dev => answer,
            Kind::Client => without_servers(answer),
        }
    }

    /// Bootstraps ACLs; returns the first token's secret and accessor.
    pub async fn bootstrap(&self) -> Result<(String, String), String> {
        let http = self.http("a")?;
        let begun = Instant::now();
        let token = loop {
            let reply = Request::plain("PUT", "/v1/acl/bootstrap").send(http).await?;
            match reply.json {
                Some(token) if reply.status == 200 => break token,
                _ if reply.status < 500 || begun.elapsed() > WITHIN => {
                    let said = String::from_utf8_lossy(&reply.body).into_owned();
                    return Err(format!("bootstrap of ACLs: {} {said}", reply.status));
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        };
        let field = |name: &str| {
            token[name].as_str().map(str::to_owned).ok_or_else(|| format!("bootstrap: {name} is missing"))
        };
        let (secret, accessor) = (field("SecretID")?, field("AccessorID")?);
        let mut request = Request::plain("PUT", "/v1/agent/token/agent");
        request.headers.insert("X-Consul-Token".to_owned(), secret.clone());
        request.body = json!({"Token": secret}).to_string().into_bytes();
        request.send(http).await?;
        until(|| Ok(None), async || in_catalog(http, "conf-node", Some(&secret)).await).await?;
        Ok((secret, accessor))
    }
}

fn said(error: io::Error) -> String {
    error.to_string()
}

/// Writes an agent's configuration.
fn configure(agent: &Agent, spec: &AgentSpec, grpc: u16, variables: &Variables) -> Result<(), String> {
    let mut known = variables.clone();
    known.insert("dir".to_owned(), agent.directory().display().to_string().into());
    let own = substitute(&Value::Object(spec.config.clone()), &known)?;
    let mut all: Map<String, Value> = Map::new();
    all.insert("ports".to_owned(), json!({"grpc": grpc, "https": -1}));
    all.insert("disable_update_check".to_owned(), true.into());
    all.insert("log_level".to_owned(), "err".into());
    all.extend(own.as_object().expect("an object").clone());
    let file = agent.directory().join("conf").join("case.json");
    std::fs::write(file, Value::Object(all).to_string()).map_err(said)
}

/// Three servers and the client agent that a case is played on, which is the last agent.
async fn cluster(
    node: &str,
    place: Place,
    spec: &AgentSpec,
    grpc: u16,
    variables: &Variables,
) -> Result<Cluster, String> {
    let layout = Layout { binary: BINARY.into(), servers: 3, clients: 0, arguments: Vec::new() };
    let network = Network::claim_tied().map_err(said)?;
    let mut cluster = Cluster::prepare_on(network, &layout).map_err(said)?;
    let gossip = |server: &Agent| format!("{}:{}", server.address(), server.ports().serf_lan);
    let servers: Vec<String> = cluster.servers().iter().map(gossip).collect();
    let arguments = ON_DISK.map(str::to_owned).into_iter().chain(retry_join(&servers)).collect();
    let client = Agent::new(Path::new(BINARY), node, place, arguments).map_err(said)?;
    configure(&client, spec, grpc, variables)?;
    for server in &mut cluster.agents {
        configure(server, spec, free_port().map_err(said)?, variables)?;
        server.start().map_err(said)?;
    }
    cluster.agents.push(client);
    cluster.agents.last_mut().expect("pushed just now").start().map_err(said)?;
    cluster.formed().await.map_err(said)?;
    Ok(cluster)
}

/// How long to wait before something is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Tries until it succeeds, unless the process ends.
async fn until(
    mut ended: impl FnMut() -> io::Result<Option<std::process::ExitStatus>>,
    mut attempt: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let Err(why) = attempt().await else { return Ok(()) };
        if let Some(status) = ended().map_err(said)? {
            return Err(format!("it ended with {status}"));
        }
        if begun.elapsed() > WITHIN {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn leads(http: SocketAddr) -> Result<(), String> {
    let leader = Request::plain("GET", "/v1/status/leader").json(http).await?;
    if leader.as_str().is_some_and(|leader| !leader.is_empty()) { Ok(()) } else { Err("no leader".into()) }
}

/// Whether the agent's own entry in the catalog is complete.
async fn in_catalog(http: SocketAddr, node: &str, token: Option<&str>) -> Result<(), String> {
    let mut request = Request::plain("GET", &format!("/v1/catalog/node/{node}"));
    request.headers.extend(token.map(|token| ("X-Consul-Token".to_owned(), token.to_owned())));
    let entry = request.json(http).await?;
    if entry["Node"]["TaggedAddresses"]["lan"].is_string() { Ok(()) } else { Err(entry.to_string()) }
}

/// Leaves out the elements of arrays that speak of servers beside the agent that is asked.
fn without_servers(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let others = list.into_iter().filter(|one| !of_a_server(one));
            others.map(without_servers).collect()
        }
        Value::Object(map) => {
            map.into_iter().map(|(key, value)| (key, without_servers(value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

fn of_a_server(element: &Value) -> bool {
    let names = [&element["Node"], &element["Name"], &element["Node"]["Node"]];
    names.into_iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("server-")))
}
