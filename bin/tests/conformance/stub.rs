//! The target of the agents' own checks: `/<code>` answers that status, `/var` the one that a step has set.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proconsul_jepsen::process::ports::free_port;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server that runs until it is dropped.
pub struct Stub {
    pub port: u16,
    status: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl Stub {
    pub async fn start() -> io::Result<Stub> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()?)).await?;
        let port = listener.local_addr()?.port();
        let status = Arc::new(AtomicU16::new(200));
        let set = status.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let set = set.clone();
                let service = service_fn(move |request| answer(request, set.load(Ordering::Relaxed)));
                // Whoever asked sees how the connection ended.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Stub { port, status, task })
    }

    pub fn set(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request<Incoming>, set: u16) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = request.uri().path().trim_matches('/').to_owned();
    let method = request.method().clone();
    let header =
        request.headers().get("x-test").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = format!("{method} /{name} [{header}] [{}]", String::from_utf8_lossy(&body));
    let status = name.parse().unwrap_or(set);
    let answer = Response::builder().status(status).body(Full::new(text.into()));
    Ok(answer.expect("a status that a case names"))
}
