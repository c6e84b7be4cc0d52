//! A server that is none: one process with a map in memory behind real HTTP. It proves the machinery around it, and, as
//! it forgets everything when it dies, that the machinery notices.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use proconsul_sim_tests::cluster::{Exit, Surroundings};

#[derive(Default)]
struct Rows {
    index: u64,
    rows: BTreeMap<String, (Vec<u8>, u64)>,
}

/// The main task of the toy.
pub(crate) fn main(at: Surroundings) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
    Box::pin(async move {
        let rows = Arc::new(Mutex::new(Rows::default()));
        let mut listener = at.fabric.listen(at.host);
        loop {
            let stream = listener.accept().await;
            let rows = rows.clone();
            drop(madsim::task::spawn(async move {
                let service = service_fn(move |request| answer(rows.clone(), request));
                // A client that goes away ends its connection with an error.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }));
        }
    })
}

async fn answer(
    rows: Arc<Mutex<Rows>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return Ok(reply(400, 1, "bad body".to_owned()));
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let mut rows = rows.lock().unwrap();
    let Some(key) = parts.uri.path().strip_prefix("/v1/kv/").map(str::to_owned) else {
        return Ok(reply(500, rows.index, "a toy has no sessions".to_owned()));
    };
    let known = rows.rows.get(&key).map_or(0, |row| row.1);
    if parts.method == Method::GET {
        return Ok(match rows.rows.get(&key) {
            Some((value, index)) => {
                let value = BASE64_STANDARD.encode(value);
                let json =
                    format!(r#"[{{"Key":"{key}","Value":"{value}","ModifyIndex":{index},"LockIndex":0}}]"#);
                reply(200, *index, json)
            }
            None => reply(404, rows.index.max(1), String::new()),
        });
    }
    let expected = query.strip_prefix("cas=").and_then(|index| index.parse::<u64>().ok());
    if expected.is_some_and(|index| index != known) {
        return Ok(reply(200, rows.index, "false".to_owned()));
    }
    rows.index += 1;
    let index = rows.index;
    if parts.method == Method::DELETE {
        rows.rows.remove(&key);
    } else {
        rows.rows.insert(key, (body.to_vec(), index));
    }
    Ok(reply(200, index, "true".to_owned()))
}

fn reply(status: u16, index: u64, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("x-consul-index", index)
        .header("x-consul-knownleader", "true")
        .header("x-consul-lastcontact", "0")
        .body(Full::new(Bytes::from(body)))
        .expect("a well-formed response")
}
