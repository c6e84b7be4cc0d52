//! Servers and client agents on loopback addresses of their own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proconsul_jepsen::process::agent::Agent;
use proconsul_jepsen::process::cluster::{self, Layout};
use tokio::runtime::{Builder, Runtime};

use super::{BINARY, Http, wait_for};

/// Names another program that the tests of clusters run, such as a release build.
const OTHER_BINARY: &str = "PROCONSUL_TEST_CLUSTER_BINARY";

/// The program that the tests of clusters run.
pub fn binary() -> PathBuf {
    std::env::var_os(OTHER_BINARY).map_or_else(|| BINARY.into(), PathBuf::from)
}

/// A layout with the program under test.
pub fn layout(servers: usize, clients: usize, arguments: &[&str]) -> Layout {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Layout { binary: binary(), servers, clients, arguments }
}

/// A cluster; agents are named by their place: first the servers, then the client agents.
pub struct Cluster {
    runtime: Runtime,
    pub inner: cluster::Cluster,
}

impl Cluster {
    /// A cluster at work.
    pub fn start(servers: usize, clients: usize, arguments: &[&str]) -> Cluster {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let started = runtime.block_on(cluster::Cluster::start(&layout(servers, clients, arguments)));
        Cluster { runtime, inner: started.unwrap_or_else(|error| panic!("{error}")) }
    }

    /// Waits until all running agents see each other and nobody else, and the catalog agrees.
    pub fn formed(&self) {
        let formed = self.runtime.block_on(self.inner.formed());
        formed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The place of the leader that all running servers agree on.
    pub fn leader(&self) -> usize {
        self.runtime.block_on(self.inner.leader()).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn agent(&mut self, at: usize) -> &mut Agent {
        &mut self.inner.agents[at]
    }

    pub fn name(&self, at: usize) -> &str {
        self.inner.agents[at].name()
    }

    pub fn address(&self, at: usize) -> String {
        self.inner.agents[at].address().to_string()
    }

    pub fn http(&self, at: usize) -> Http {
        Http::new(self.inner.agents[at].http())
    }

    pub fn dns(&self, at: usize) -> SocketAddr {
        self.inner.agents[at].dns()
    }

    /// Starts an agent that does not run.
    pub fn start_agent(&mut self, at: usize) {
        self.inner.agents[at].start().expect("the program runs");
    }

    /// Waits until a process has ended by itself.
    pub fn ended(&mut self, at: usize) {
        let agent = &mut self.inner.agents[at];
        wait_for("the agent ends", || match agent.ended().expect("ours") {
            Some(_) => Ok(()),
            None => Err(agent.log_tail()),
        });
    }

    /// Runs a command of the program against an agent: status, output, errors.
    pub fn cli<S: AsRef<OsStr>>(&self, at: usize, arguments: &[S]) -> (Option<i32>, String, String) {
        let output = Command::new(binary())
            .args(arguments)
            .env("CONSUL_HTTP_ADDR", self.inner.agents[at].http().to_string())
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command that must succeed, and returns its output.
    pub fn run<S: AsRef<OsStr> + std::fmt::Debug>(&self, at: usize, arguments: &[S]) -> String {
        let (status, out, err) = self.cli(at, arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {out}{err}");
        out
    }

    /// Waits until an agent sees a member in a state as `members` prints it, or does not see it at all.
    pub fn sees(&self, at: usize, member: &str, wanted: Option<&str>) {
        let mut http = self.http(at);
        wait_for(&format!("{} sees {member} as {wanted:?}", self.name(at)), || {
            let members = http.try_get("/v1/agent/members")?;
            let found = members.as_array().expect("a list").iter().find(|one| one["Name"] == member);
            let status = found.map(|member| match member["Status"].as_u64() {
                Some(1) => "alive",
                Some(2) => "leaving",
                Some(3) => "left",
                Some(4) => "failed",
                _ => "unknown",
            });
            if status == wanted { Ok(()) } else { Err(format!("{status:?}: {members}")) }
        });
    }

    /// Waits until so many servers have a vote, as an agent sees it, and returns their identities in order.
    pub fn voters(&self, at: usize, wanted: usize) -> Vec<(String, String)> {
        let mut http = self.http(at);
        wait_for(&format!("{wanted} servers vote"), || {
            let answer = http.request("GET", "/v1/operator/raft/configuration", "");
            let answer = answer.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&answer.body);
            let group: serde_json::Value = serde_json::from_str(&text).map_err(|_| text.to_string())?;
            let servers = group["Servers"].as_array().ok_or_else(|| text.to_string())?;
            let field = |server: &serde_json::Value, name: &str| server[name].as_str().map(str::to_owned);
            let mut voters: Vec<_> = servers
                .iter()
                .filter(|server| server["Voter"] == true)
                .filter_map(|server| Some((field(server, "ID")?, field(server, "Address")?)))
                .collect();
            voters.sort();
            if voters.len() == wanted && servers.len() == wanted { Ok(voters) } else { Err(text.to_string()) }
        })
    }

    /// Waits until a write through an agent is acknowledged.
    pub fn write(&self, at: usize, key: &str, value: &str) {
        let mut http = self.http(at);
        wait_for(&format!("{} takes a write", self.name(at)), || {
            match http.request("PUT", &format!("/v1/kv/{key}"), value) {
                Ok(answer) if answer.status == 200 && answer.body.trim_ascii() == b"true" => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        });
    }

    /// Waits until a fresh read through an agent is answered, and returns the value.
    pub fn read(&self, at: usize, key: &str) -> String {
        let mut http = self.http(at);
        let body = wait_for(&format!("{} answers a read", self.name(at)), || {
            match http.request("GET", &format!("/v1/kv/{key}?raw&consistent"), "") {
                Ok(answer) if answer.status == 200 || answer.status == 404 => Ok(answer.body),
                answer => Err(format!("{answer:?}")),
            }
        });
        String::from_utf8_lossy(&body).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.inner.logs());
        }
    }
}
