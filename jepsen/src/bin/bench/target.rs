//! The processes that are measured.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proconsul_jepsen::process::ports::free_port;
use proconsul_jepsen::process::server::{Launch, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::load;

/// An agent's program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) binary: PathBuf,
}

impl Program {
    /// Starts the agent, in memory or on disk, and waits until it takes writes.
    pub(crate) async fn start(&self, dev: bool) -> Result<(Server, Duration), Box<dyn Error>> {
        let mut server = Server::start(self.launch(dev)?)?;
        let first_put = server.first_put().await.map_err(|error| format!("{}: {error}", self.name))?;
        Ok((server, first_put))
    }

    fn launch(&self, dev: bool) -> io::Result<Launch> {
        // By default an agent admits 200 connections per client, which is no limit that is to be measured.
        let mut arguments =
            vec!["-hcl".to_owned(), "limits { http_max_conns_per_client = 19000 }".to_owned()];
        if self.name == "consul" {
            // Its port for gRPC, if it has one, is the same for all agents of a machine.
            arguments.extend(["-hcl".to_owned(), "ports { grpc = -1 }".to_owned()]);
        }
        Ok(Launch { binary: self.binary.clone(), dev, arguments })
    }
}

/// A bare program: this program with another command. Ended when it goes out of scope.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Bare {
    /// Starts a bare program, and waits until it answers.
    pub(crate) async fn start(command: &str, arguments: &[&str]) -> Result<Bare, Box<dyn Error>> {
        let port = free_port()?;
        let child = Command::new(std::env::current_exe()?)
            .args([command, "--port", &port.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()?;
        let mut bare = Bare { child, address: (Ipv4Addr::LOCALHOST, port).into() };
        for _ in 0..500 {
            let answers = match command {
                "bare-udp" => answers_dns(bare.address).await,
                _ => tokio::net::TcpStream::connect(bare.address).await.is_ok(),
            };
            if answers {
                return Ok(bare);
            }
            if let Some(status) = bare.child.try_wait()? {
                return Err(format!("{command} ended with {status}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("{command} does not answer").into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // If it ended by itself there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn answers_dns(address: SocketAddr) -> bool {
    let turn = Duration::from_millis(1);
    let sample = load::dns(address, &load::dns_question(&["ready"], load::A, None), 1, turn).await;
    sample.is_ok_and(|sample| sample.errors == 0 && !sample.latencies.is_empty())
}

/// Allows this process, and those that it starts, at least this many open files.
pub(crate) fn raise_open_files(wanted: u64) -> Result<(), Box<dyn Error>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum;
        if maximum.is_some_and(|maximum| maximum < wanted) {
            return Err(format!(
                "needs {wanted} open files, the system allows {maximum:?}: ask for fewer --blocked"
            )
            .into());
        }
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok(())
}
