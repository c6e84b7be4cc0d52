//! An HTTP client with one connection that is kept alive, and that never repeats a request by itself.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a request may take, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `X-Consul-Index`, if there is one.
    pub index: Option<u64>,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The request was certainly not sent.
    NotSent(String),
    /// The request may have been received, and acted upon.
    Lost(String),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::NotSent(why) => write!(f, "not sent: {why}"),
            RequestError::Lost(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// One client.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of the agent at this address. It connects when it is first used.
    #[must_use]
    pub fn new(address: SocketAddr) -> Client {
        Client::with_timeout(address, TIMEOUT)
    }

    /// A client that waits no longer than this for an answer.
    #[must_use]
    pub fn with_timeout(address: SocketAddr, timeout: Duration) -> Client {
        Client { address, timeout, connection: None }
    }

    /// Sends a request and reads the answer. After an error the next request opens a new connection.
    ///
    /// # Errors
    ///
    /// If there is no answer; the kind of the error says whether the request can have had an effect.
    pub async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, RequestError> {
        let answer = self.send(method, path, &[], Bytes::copy_from_slice(body)).await?;
        let status = answer.status().as_u16();
        let index = answer.headers().get("x-consul-index").and_then(|v| v.to_str().ok()?.parse().ok());
        let body = tokio::time::timeout(self.timeout, answer.into_body().collect())
            .await
            .map_err(|_| self.took_too_long())
            .and_then(|body| body.map_err(|error| RequestError::Lost(error.to_string())));
        match body {
            Ok(body) => Ok(Answer { status, index, body: body.to_bytes() }),
            Err(error) => {
                self.connection = None;
                Err(error)
            }
        }
    }

    /// Sends a request with headers and reads the head of the answer. The next request on the same client waits until
    /// the body was read or dropped.
    ///
    /// # Errors
    ///
    /// As with [`Client::request`].
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, RequestError> {
        let mut kept = self.connection.take();
        let usable = match &mut kept {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept {
            Some(connection) if usable => connection,
            _ => tokio::time::timeout(self.timeout, connect(self.address))
                .await
                .map_err(|_| RequestError::NotSent("connecting took too long".into()))?
                .map_err(RequestError::NotSent)?,
        };
        let host = self.address.to_string();
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| RequestError::NotSent(error.to_string()))?;
        let answer = tokio::time::timeout(self.timeout, connection.send_request(request))
            .await
            .map_err(|_| self.took_too_long())?
            .map_err(|error| {
                let why = error.to_string();
                if error.is_canceled() { RequestError::NotSent(why) } else { RequestError::Lost(why) }
            })?;
        self.connection = Some(connection);
        Ok(answer)
    }

    fn took_too_long(&self) -> RequestError {
        RequestError::Lost(format!("no answer within {:?}", self.timeout))
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the connection; its errors reach the one who waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}
