//! The Docker check: a program inside a container, run by Docker's daemon (Docker Engine API, «Exec»).

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use proconsul_core::Text;
use proconsul_core::agent::ProbeOutcome;
use proconsul_core::store::model::Health;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::command::Output;
use super::outcome;
use crate::words::io_reason;

/// Where Docker's daemon listens, if `DOCKER_HOST` does not say.
const SOCKET: &str = "/var/run/docker.sock";
/// Bytes before each piece of output: which of the two streams it is of, and how long it is.
const FRAME_HEAD: usize = 8;
/// Longest answer of the daemon that is read as a whole.
const ANSWER_MAX: usize = 1 << 20;

/// Runs a program in a container: exit status 0 passes, 1 warns, everything else is critical.
pub(super) async fn probe(
    container: &str,
    shell: &str,
    args: &[Text],
    (limit, output_max): (Duration, usize),
) -> ProbeOutcome {
    let socket = match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => match host.strip_prefix("unix://") {
            Some(path) => PathBuf::from(path),
            None => {
                let text =
                    format!("Unable to run the check in Docker: DOCKER_HOST={host} is no unix:// path");
                return outcome(Health::Critical, text);
            }
        },
        _ => PathBuf::from(SOCKET),
    };
    match timeout(limit, run(&socket, container, shell, args, output_max)).await {
        Ok(Ok((code, output))) => {
            let health = match code {
                0 => Health::Passing,
                1 => Health::Warning,
                _ => Health::Critical,
            };
            outcome(health, output)
        }
        Ok(Err(error)) => outcome(Health::Critical, error),
        Err(_) => {
            let limit = proconsul_core::duration::format(limit);
            outcome(Health::Critical, format!("Timed out ({limit}) running check"))
        }
    }
}

/// Exit status and output.
async fn run(
    socket: &Path,
    container: &str,
    shell: &str,
    args: &[Text],
    output_max: usize,
) -> Result<(i64, String), String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !container.chars().all(valid) {
        return Err(format!("{container:?} is no name of a container"));
    }
    let command: Vec<&str> = if shell.is_empty() {
        args.iter().map(Text::as_str).collect()
    } else {
        [shell, "-c"].into_iter().chain(args.iter().map(Text::as_str)).collect()
    };
    let exec = json!({"AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "Tty": false, "Cmd": command});
    let failed = |step: &'static str| {
        move |error: String| format!("{step} exec failed for container {container}: {error}")
    };
    let id = make(socket, container, exec).await.map_err(failed("create"))?;
    let output = start(socket, &id, output_max).await.map_err(failed("start"))?;
    let code = inspect(socket, &id).await.map_err(failed("inspect"))?;
    Ok((code, output))
}

/// Prepares a program; its identity.
async fn make(socket: &Path, container: &str, exec: Value) -> Result<String, String> {
    let response = call(socket, Method::POST, &format!("/containers/{container}/exec"), Some(exec)).await?;
    let made = answer(response, 201).await?;
    Ok(made["Id"].as_str().ok_or("the daemon's answer has no Id")?.to_owned())
}

/// Runs it to its end; its output.
async fn start(socket: &Path, id: &str, output_max: usize) -> Result<String, String> {
    let start = json!({"Detach": false, "Tty": false});
    let response = call(socket, Method::POST, &format!("/exec/{id}/start"), Some(start)).await?;
    if response.status().as_u16() != 200 {
        return Err(answer(response, 200).await.err().unwrap_or_default());
    }
    output(response.into_body(), output_max).await
}

/// Its exit status.
async fn inspect(socket: &Path, id: &str) -> Result<i64, String> {
    let response = call(socket, Method::GET, &format!("/exec/{id}/json"), None).await?;
    let state = answer(response, 200).await?;
    Ok(state["ExitCode"].as_i64().ok_or("the daemon's answer has no ExitCode")?)
}

async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Response<Incoming>, String> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| format!("dial unix {}: connect: {}", socket.display(), io_reason(&error)))?;
    let broken = |error: hyper::Error| format!("{}: {error}", socket.display());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the answer, or when that is dropped.
    tokio::spawn(connection);
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| format!("invalid path {path:?}"))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    sender.send_request(request).await.map_err(broken)
}

/// The JSON of an answer with this status.
async fn answer(response: Response<Incoming>, expected: u16) -> Result<Value, String> {
    let status = response.status().as_u16();
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    if status == expected {
        return serde_json::from_slice(&body).map_err(|error| error.to_string());
    }
    let told = serde_json::from_slice::<Value>(&body).ok();
    let told = told.as_ref().and_then(|told| told["message"].as_str()).unwrap_or_default();
    Err(format!("unexpected response {status}: {told}"))
}

/// Both streams of a program in one, without the heads of frames.
async fn output(mut body: Incoming, max: usize) -> Result<String, String> {
    let mut output = Output::new(max);
    let (mut head, mut left) = (Vec::with_capacity(FRAME_HEAD), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Some(mut data) = frame.data_ref().map(|data| &data[..]) else { continue };
        while !data.is_empty() {
            if left > 0 {
                let (piece, rest) = data.split_at(data.len().min(left));
                output.add(piece);
                left -= piece.len();
                data = rest;
                continue;
            }
            let (piece, rest) = data.split_at(data.len().min(FRAME_HEAD - head.len()));
            head.extend_from_slice(piece);
            data = rest;
            if let Ok([_, _, _, _, length @ ..]) = <[u8; FRAME_HEAD]>::try_from(&head[..]) {
                left = u32::from_be_bytes(length) as usize;
                head.clear();
            }
        }
    }
    Ok(output.text())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// A daemon whose programs end with this status.
    async fn daemon(code: i64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let mut request = vec![0; 8192];
                let length = stream.read(&mut request).await.expect("read");
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let (status, body) = match request.split(' ').nth(1).expect("a path") {
                    "/containers/web/exec" => ("201 Created", br#"{"Id":"e1"}"#.to_vec()),
                    "/exec/e1/start" => {
                        ("200 OK", b"\x01\0\0\0\0\0\0\x03one\x02\0\0\0\0\0\0\x03two".to_vec())
                    }
                    "/exec/e1/json" => ("200 OK", format!("{{\"ExitCode\":{code}}}").into_bytes()),
                    _ => ("404 Not Found", br#"{"message":"No such container"}"#.to_vec()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("written");
            }
        });
        (dir, path)
    }

    #[tokio::test]
    async fn a_program_in_a_container_tells_its_status_and_output() {
        let (_dir, socket) = daemon(1).await;
        let done = run(&socket, "web", "", &["true".into()], 100).await;
        assert_eq!(done, Ok((1, "onetwo".to_owned())));
        let error = run(&socket, "db", "", &["true".into()], 100).await.expect_err("not there");
        assert_eq!(error, "create exec failed for container db: unexpected response 404: No such container");
        let error = run(&socket, "../x", "", &["true".into()], 100).await.expect_err("no name");
        assert!(error.contains("no name of a container"), "{error}");
    }

    #[tokio::test]
    async fn without_a_daemon_the_socket_is_named() {
        let error = run(Path::new("/does/not/exist"), "web", "", &[], 9).await.expect_err("nobody");
        let words = "dial unix /does/not/exist: connect: no such file or directory";
        assert_eq!(error, format!("create exec failed for container web: {words}"));
    }
}
