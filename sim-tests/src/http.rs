//! An HTTP client inside the simulation: hyper over a simulated stream.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use madsim::task::JoinHandle;
use proconsul_io_sim::net::{Fabric, HostId};
use proconsul_io_sim::time::sim_sleep;

/// A client with at most one connection.
pub struct HttpClient {
    fabric: Fabric,
    host: HostId,
    connection: Option<Connection>,
}

struct Connection {
    server: HostId,
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `X-Consul-Index`, zero when there is none.
    pub index: u64,
    /// `X-Consul-KnownLeader`.
    pub known_leader: Option<bool>,
    /// `X-Consul-LastContact` in milliseconds.
    pub last_contact_ms: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The body as text, for messages and for `true` and `false`.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was no connection to ask on: the question has certainly not reached anybody.
    NotSent,
    /// The question was, or may have been, sent.
    Unknown,
}

impl HttpClient {
    /// A client on a host that is on the network.
    #[must_use]
    pub fn new(fabric: Fabric, host: HostId) -> HttpClient {
        HttpClient { fabric, host, connection: None }
    }

    /// Asks a server, on the connection there is or on a new one, and waits for the whole answer, but not longer than
    /// `limit`. After anything but an answer the connection is gone.
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn ask(
        &mut self,
        server: HostId,
        method: &str,
        target: &str,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Response, Lost> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header("host", server.address(8500))
            .body(Full::new(body.into()))
            .expect("workloads build well-formed requests");
        let mut sent = false;
        let answer = {
            let exchange = self.exchange(server, request, &mut sent);
            tokio::select! {
                biased;
                answer = exchange => answer,
                () = sim_sleep(limit) => None,
            }
        };
        if answer.is_none() {
            self.connection = None;
        }
        answer.ok_or(if sent { Lost::Unknown } else { Lost::NotSent })
    }

    async fn exchange(
        &mut self,
        server: HostId,
        request: hyper::Request<Full<Bytes>>,
        sent: &mut bool,
    ) -> Option<Response> {
        let usable = self.connection.as_ref().is_some_and(|it| it.server == server && !it.sender.is_closed());
        if !usable {
            self.connection = None;
            self.connection = Some(self.connect(server).await?);
        }
        let connection = self.connection.as_mut().expect("made above");
        connection.sender.ready().await.ok()?;
        *sent = true;
        let response = connection.sender.send_request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut answer = Response {
            status: parts.status.as_u16(),
            index: header("x-consul-index").and_then(|value| value.parse().ok()).unwrap_or(0),
            known_leader: header("x-consul-knownleader").and_then(|value| value.parse().ok()),
            last_contact_ms: header("x-consul-lastcontact").and_then(|value| value.parse().ok()),
            body: Bytes::new(),
        };
        answer.body = body.collect().await.ok()?.to_bytes();
        Some(answer)
    }

    async fn connect(&self, server: HostId) -> Option<Connection> {
        let stream = self.fabric.connect(self.host, server).await.ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        let task = madsim::task::spawn(async move {
            // Its end is seen by whoever waits for an answer.
            let _ = connection.await;
        });
        Some(Connection { server, sender, task })
    }
}
