//! Servers and client agents that find each other.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::agent::{Agent, ON_DISK};
use super::client::Client;
use super::network::Network;

/// The longest wait for anything that a cluster is expected to do. It is only reached when something is broken.
pub const WITHIN: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The program.
    pub binary: PathBuf,
    /// Servers `server-1`, `server-2`, …; as many are expected before they elect a leader.
    pub servers: usize,
    /// Client agents `client-1`, `client-2`, ….
    pub clients: usize,
    /// More arguments for every agent.
    pub arguments: Vec<String>,
}

/// Agents on a network of their own: first the servers, then the client agents.
#[derive(Debug)]
pub struct Cluster {
    network: Network,
    servers: usize,
    /// All agents, whatever their state.
    pub agents: Vec<Agent>,
}

impl Cluster {
    /// Prepares a cluster and starts nothing.
    ///
    /// # Errors
    ///
    /// If there are no addresses or directories.
    pub fn prepare(layout: &Layout) -> io::Result<Cluster> {
        Cluster::prepare_on(Network::claim()?, layout)
    }

    /// Prepares a cluster on a network and starts nothing.
    ///
    /// # Errors
    ///
    /// If there are no addresses or directories.
    pub fn prepare_on(mut network: Network, layout: &Layout) -> io::Result<Cluster> {
        let names = (1..=layout.servers).map(|number| format!("server-{number}"));
        let names = names.chain((1..=layout.clients).map(|number| format!("client-{number}")));
        let named: Vec<_> = names.map(|name| Ok((name, network.place()?))).collect::<io::Result<_>>()?;
        let join: Vec<String> =
            named.iter().take(layout.servers).map(|(_, place)| place.address.to_string()).collect();
        let mut agents = Vec::new();
        for (at, (name, place)) in named.into_iter().enumerate() {
            let mut arguments: Vec<String> = ON_DISK.map(str::to_owned).to_vec();
            if at < layout.servers {
                arguments.extend(["-server".to_owned(), format!("-bootstrap-expect={}", layout.servers)]);
            }
            arguments.extend(retry_join(&join));
            arguments.extend(layout.arguments.iter().cloned());
            agents.push(Agent::new(&layout.binary, &name, place, arguments)?);
        }
        Ok(Cluster { network, servers: layout.servers, agents })
    }

    /// Starts every agent of a prepared cluster, and waits until it is [formed](Cluster::formed).
    ///
    /// # Errors
    ///
    /// If an agent cannot be started, or they do not find each other [in time](WITHIN).
    pub async fn start(layout: &Layout) -> io::Result<Cluster> {
        let mut cluster = Cluster::prepare(layout)?;
        for agent in &mut cluster.agents {
            agent.start()?;
        }
        cluster.formed().await?;
        Ok(cluster)
    }

    /// Adds an agent that is not started and joins nobody unless its arguments say so.
    ///
    /// # Errors
    ///
    /// If it cannot have a place or a directory.
    pub fn add(&mut self, binary: &Path, name: &str, arguments: Vec<String>) -> io::Result<&mut Agent> {
        let place = self.network.place()?;
        let arguments = ON_DISK.map(str::to_owned).into_iter().chain(arguments).collect();
        self.agents.push(Agent::new(binary, name, place, arguments)?);
        Ok(self.agents.last_mut().expect("pushed just now"))
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &[Agent] {
        &self.agents[..self.servers]
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Gives every server another address, and all agents new addresses to join. Nothing of them may run.
    ///
    /// # Errors
    ///
    /// If there are no more addresses.
    ///
    /// # Panics
    ///
    /// If an agent runs.
    pub fn move_servers(&mut self) -> io::Result<()> {
        for server in &mut self.agents[..self.servers] {
            server.move_to(self.network.place()?);
        }
        let join: Vec<String> = self.servers().iter().map(|server| server.address().to_string()).collect();
        for agent in &mut self.agents {
            let kept = agent.arguments().iter().filter(|argument| !argument.starts_with("-retry-join"));
            let arguments = kept.cloned().chain(retry_join(&join)).collect();
            agent.set_arguments(arguments);
        }
        Ok(())
    }

    fn running(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.is_running())
    }

    /// The place in `agents` of the server that every running server takes for the leader.
    ///
    /// # Errors
    ///
    /// If they do not agree [in time](WITHIN).
    pub async fn leader(&self) -> io::Result<usize> {
        self.until("the servers agree on a leader", async || {
            let mut leader = None;
            for server in self.servers().iter().filter(|server| server.is_running()) {
                let answer = get(server.http(), "/v1/status/leader").await?;
                let named: SocketAddr = answer
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| format!("{} knows no leader: {answer}", server.name()))?;
                if *leader.get_or_insert(named) != named {
                    return Err(format!("{leader:?} and {named}"));
                }
            }
            let named = leader.ok_or("no server runs")?;
            let found = self.servers().iter().position(|server| server.rpc() == named);
            let found = found.ok_or_else(|| format!("{named} is no server"))?;
            if self.agents[found].is_running() { Ok(found) } else { Err(format!("{named} does not run")) }
        })
        .await
    }

    /// Waits until every running agent sees every other one alive and no more, and the catalog has them all passing.
    ///
    /// # Errors
    ///
    /// If that does not happen [in time](WITHIN).
    pub async fn formed(&self) -> io::Result<()> {
        self.leader().await?;
        let mut names: Vec<&str> = self.running().map(Agent::name).collect();
        names.sort_unstable();
        self.until("the agents see each other", async || {
            for agent in self.running() {
                let alive = alive_members(agent.http()).await?;
                if alive != names {
                    return Err(format!("{} sees {alive:?}", agent.name()));
                }
            }
            Ok(())
        })
        .await?;
        let asked = self.running().last().expect("a leader runs").http();
        self.until("the catalog has all agents", async || {
            let checks = get(asked, "/v1/health/state/passing").await?;
            let mut passing: Vec<&str> = list(&checks)
                .iter()
                .filter(|check| check["CheckID"] == "serfHealth")
                .filter_map(|check| check["Node"].as_str())
                .collect();
            passing.sort_unstable();
            if passing == names { Ok(()) } else { Err(format!("passing are {passing:?}")) }
        })
        .await
    }

    /// Waits until an agent answers from its own state what was written through another one just before.
    ///
    /// # Errors
    ///
    /// If that does not happen [in time](WITHIN).
    pub async fn caught_up(&self, at: usize, marker: &str) -> io::Result<()> {
        let other = self.running().find(|agent| agent.name() != self.agents[at].name());
        let other = other.ok_or_else(|| io::Error::other("no other agent runs"))?.http();
        let mut writer = Client::new(other);
        self.until("a marker is written", async || {
            match writer.request("PUT", "/v1/kv/marker", marker.as_bytes()).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await?;
        let mut reader = Client::new(self.agents[at].http());
        self.until("the agent catches up", async || {
            match reader.request("GET", "/v1/kv/marker?raw&stale", b"").await {
                Ok(answer) if answer.body == marker.as_bytes() => Ok(()),
                answer => Err(format!("{}: {answer:?}", self.agents[at].name())),
            }
        })
        .await
    }

    /// Tries until it succeeds.
    ///
    /// # Errors
    ///
    /// If that takes longer than [`WITHIN`], or an agent ends by itself: the last reason, and the end of every agent's
    /// log.
    pub async fn until<T>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Result<T, String>,
    ) -> io::Result<T> {
        let started = Instant::now();
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(why) if started.elapsed() > WITHIN => {
                    let message = format!("not within {WITHIN:?}: {what}: {why}\n{}", self.logs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                Err(why) => {
                    if let Some(ended) = self.running().find(|agent| agent.has_ended()) {
                        let (name, logs) = (ended.name(), self.logs());
                        return Err(io::Error::other(format!(
                            "{name} ended by itself: {what}: {why}\n{logs}"
                        )));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// The end of every agent's log.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.agents.iter().map(|agent| format!("--- {}\n{}\n", agent.name(), agent.log_tail()));
        logs.collect()
    }
}

/// The arguments that join these addresses until one of them answers.
#[must_use]
pub fn retry_join(addresses: &[String]) -> Vec<String> {
    let joins = addresses.iter().map(|address| format!("-retry-join={address}"));
    joins.chain(["-retry-interval=1s".to_owned()]).collect()
}

/// The answer to a GET.
///
/// # Errors
///
/// If there is none with status 200 and JSON in it.
pub async fn get(address: SocketAddr, path: &str) -> Result<Value, String> {
    let answer = Client::new(address).request("GET", path, b"").await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("{path}: status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))
}

/// The names of the members that an agent sees alive, in order.
///
/// # Errors
///
/// If it does not answer.
pub async fn alive_members(address: SocketAddr) -> Result<Vec<String>, String> {
    let members = get(address, "/v1/agent/members").await?;
    let alive = list(&members).iter().filter(|member| member["Status"] == 1);
    let mut names: Vec<_> = alive.filter_map(|member| Some(member["Name"].as_str()?.to_owned())).collect();
    names.sort_unstable();
    Ok(names)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
