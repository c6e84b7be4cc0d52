//! Requests and their answers.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use proconsul_jepsen::process::client::Client;
use serde_json::Value;

/// The longest wait for an answer; blocking queries among the cases end long before.
const TIMEOUT: Duration = Duration::from_secs(40);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body are waited for; 0 for all.
    pub stream: usize,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    headers: HeaderMap,
    /// Unpacked, if it came packed.
    pub body: Vec<u8>,
    pub json: Option<Value>,
    pub took: Duration,
}

impl Request {
    /// A request with neither headers nor a body.
    pub fn plain(method: &str, path: &str) -> Request {
        let (method, path) = (method.to_owned(), path.to_owned());
        Request { method, path, headers: BTreeMap::new(), body: Vec::new(), stream: 0 }
    }

    /// Sends it on a connection of its own.
    pub async fn send(self, to: SocketAddr) -> Result<Reply, String> {
        let begun = Instant::now();
        let mut client = Client::with_timeout(to, TIMEOUT);
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = client.send(&self.method, &self.path, &headers, self.body.into()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let (head, mut rest) = answer.into_parts();
        let mut body = Vec::new();
        while self.stream == 0 || body.len() < self.stream {
            let next = tokio::time::timeout(TIMEOUT, rest.frame()).await;
            match next.map_err(|_| format!("no more of the body within {TIMEOUT:?}"))? {
                Some(Ok(frame)) => body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(format!("the body ended early: {error}")),
                None => break,
            }
        }
        if self.stream > 0 {
            body.truncate(self.stream);
        }
        let packed = head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip");
        if packed {
            let mut unpacked = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut unpacked).map_err(|error| error.to_string())?;
            body = unpacked;
        }
        let json = serde_json::from_slice(&body).ok();
        let (status, took) = (head.status.as_u16(), begun.elapsed());
        Ok(Reply { status, headers: head.headers, body, json, took })
    }

    /// Sends it and takes the JSON of an answer with status 200.
    pub async fn json(self, to: SocketAddr) -> Result<Value, String> {
        let reply = self.send(to).await?;
        match reply.json {
            Some(json) if reply.status == 200 => Ok(json),
            _ => Err(format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body))),
        }
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()
    }
}
