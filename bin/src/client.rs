//! The HTTP client of the commands: one request at a time, to an address or a Unix socket.

mod body;
mod stream;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use body::Sent;
use bytes::{Bytes, BytesMut};
use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proconsul_io_real::gate::Gate;
use proconsul_io_real::words::io_reason;
use serde_json::Value;

use crate::cli::Terminal;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How often to look how far an upload is.
const UPLOAD_PACE: Duration = Duration::from_millis(100);

/// What is on its way between a client and the agent in the same process.
const PIPE_BYTES: usize = 64 << 10;

/// How to reach an agent; common to all client commands.
#[derive(Args, Debug, Default)]
pub struct HttpOptions {
    /// Address and port of the agent's HTTP API: HOST:PORT, http://HOST:PORT or unix://PATH. Also CONSUL_HTTP_ADDR.
    /// The default is 127.0.0.1:8500.
    #[arg(long, value_name = "address")]
    pub http_addr: Option<String>,
    /// ACL token to send. Also CONSUL_HTTP_TOKEN. Without one the agent's own token counts.
    #[arg(long, value_name = "value")]
    pub token: Option<String>,
    /// File that holds the ACL token. Also CONSUL_HTTP_TOKEN_FILE.
    #[arg(long, value_name = "file")]
    pub token_file: Option<String>,
    /// Certificate authority for HTTPS, as a file. Also CONSUL_CACERT.
    #[arg(long, value_name = "file")]
    pub ca_file: Option<String>,
    /// Certificate authorities for HTTPS, as a directory. Also CONSUL_CAPATH.
    #[arg(long, value_name = "directory")]
    pub ca_path: Option<String>,
    /// Certificate to show to the agent. Also CONSUL_CLIENT_CERT.
    #[arg(long, value_name = "file")]
    pub client_cert: Option<String>,
    /// Key of that certificate. Also CONSUL_CLIENT_KEY.
    #[arg(long, value_name = "file")]
    pub client_key: Option<String>,
    /// Name that the agent's certificate must carry. Also CONSUL_TLS_SERVER_NAME.
    #[arg(long, value_name = "name")]
    pub tls_server_name: Option<String>,
}

/// Where and how a server answers; common to most client commands.
#[derive(Args, Debug, Default)]
pub struct ServerOptions {
    /// Datacenter to ask. The default is that of the agent.
    #[arg(long, value_name = "name")]
    pub datacenter: Option<String>,
    /// Let any server answer, not only the leader: quicker, but perhaps not the latest state.
    #[arg(long)]
    pub stale: bool,
    /// Namespace (Consul Enterprise); only `default` exists here.
    #[arg(long, value_name = "name")]
    pub namespace: Option<String>,
}

impl ServerOptions {
    /// These options as query parameters.
    #[must_use]
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.datacenter.clone().filter(|dc| !dc.is_empty()).map(|dc| ("dc", dc)));
        query.extend(self.namespace.clone().filter(|ns| !ns.is_empty()).map(|ns| ("ns", ns)));
        query.extend(self.stale.then(|| ("stale", String::new())));
        query
    }
}

/// Why a request had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error("{method} {url}: {reason}")]
    Transport {
        /// Method of the request.
        method: Method,
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// An answer other than 200.
    #[error("Unexpected response code: {} ({body})", status.as_u16())]
    Status {
        /// Its code.
        status: StatusCode,
        /// Its body, where the reason stands.
        body: String,
    },
    /// An answer that cannot be read.
    #[error("unexpected answer to {url}: {reason}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Tcp { host: String, authority: String },
    Unix(PathBuf),
    InProcess(InProcess),
    Https { host: String, authority: String },
}

/// The agent of this process.
#[derive(Clone)]
struct InProcess(Gate);

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}

impl PartialEq for InProcess {
    fn eq(&self, _: &InProcess) -> bool {
        // There is one agent in a process.
        true
    }
}

impl Eq for InProcess {}

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    token: Option<String>,
    /// Name and password for a proxy in front of the agent, in base64.
    login: Option<String>,
    https: Option<tls::Https>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
    /// Index of the state that is shown (`X-Consul-Index`), where there is one.
    pub index: Option<u64>,
    /// Hash of what is shown (`X-Consul-ContentHash`), where there is one.
    pub hash: Option<String>,
    /// When it was made by the clock of the one who made it (`Date`), where that is said.
    pub date: Option<String>,
    url: String,
}

impl Response {
    /// The body if the status is 200.
    pub fn ok(self) -> Result<Bytes, ClientError> {
        if self.status == StatusCode::OK {
            return Ok(self.body);
        }
        let body = String::from_utf8_lossy(&self.body).trim_end().to_owned();
        Err(ClientError::Status { status: self.status, body })
    }

    /// The body as JSON if the status is 200.
    pub fn json(self) -> Result<Value, ClientError> {
        let url = self.url.clone();
        let body = self.ok()?;
        serde_json::from_slice(&body)
            .map_err(|e| ClientError::Malformed { url, reason: format!("it is no JSON: {e}") })
    }
}

impl Client {
    /// Takes options and the environment together. An error says what is wrong with them.
    pub fn new(options: &HttpOptions, terminal: &Terminal<'_>) -> Result<Client, String> {
        let setting = |flag: &Option<String>, variable: &str| {
            flag.clone().or_else(|| (terminal.env)(variable)).filter(|value| !value.is_empty())
        };
        let switch =
            |variable: &str| (terminal.env)(variable).and_then(|text| crate::cli::flags::go_bool(&text));
        let address =
            setting(&options.http_addr, "CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned());
        let https = tls::HttpsOptions {
            ca_file: setting(&options.ca_file, "CONSUL_CACERT"),
            ca_path: setting(&options.ca_path, "CONSUL_CAPATH"),
            client_cert: setting(&options.client_cert, "CONSUL_CLIENT_CERT"),
            client_key: setting(&options.client_key, "CONSUL_CLIENT_KEY"),
            server_name: setting(&options.tls_server_name, "CONSUL_TLS_SERVER_NAME"),
            skip_verify: switch("CONSUL_HTTP_SSL_VERIFY") == Some(false),
        };
        if https.client_cert.is_some() != https.client_key.is_some() {
            return Err("both client cert and client key must be provided".to_owned());
        }
        let target = target(&address, switch("CONSUL_HTTP_SSL") == Some(true))?;
        let https = match &target {
            Target::Https { .. } => {
                if let Some(file) = &https.ca_file {
                    read(Path::new(file)).map_err(|e| format!("Error loading CA File: {e}"))?;
                }
                Some(tls::Https::new(https)?)
            }
            Target::Tcp { .. } | Target::Unix(_) | Target::InProcess(_) => None,
        };
        let token_file = setting(&options.token_file, "CONSUL_HTTP_TOKEN_FILE");
        let token = match token_file {
            Some(file) => {
                let text = read(Path::new(&file)).map_err(|e| format!("Error loading token file: {e}"))?;
                Some(text.trim().to_owned())
            }
            None => setting(&options.token, "CONSUL_HTTP_TOKEN"),
        };
        let login = (terminal.env)("CONSUL_HTTP_AUTH").filter(|login| !login.is_empty());
        let login =
            login.map(|login| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, login));
        Ok(Client { target, token: token.filter(|token| !token.is_empty()), login, https })
    }

    /// A client that asks without TLS and without a token.
    #[cfg(test)]
    pub(crate) fn of(address: &str) -> Client {
        let target = target(address, false).expect("an address");
        Client { target, token: None, login: None, https: None }
    }

    /// A client of the agent in this process. It needs no listener.
    #[must_use]
    pub fn in_process(gate: Gate) -> Client {
        Client { target: Target::InProcess(InProcess(gate)), token: None, login: None, https: None }
    }

    /// The same client, but of an agent on another machine, behind the same port as far as this one's is known, and in the
    /// same way: where it speaks HTTPS, the certificate has to carry the name that this agent's was asked for, as those of
    /// one cluster do.
    #[must_use]
    pub fn elsewhere(&self, machine: IpAddr, port: u16) -> Client {
        let at = |host: &str| {
            let known = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            SocketAddr::new(machine, known.unwrap_or(port)).to_string()
        };
        let mut client = self.clone();
        client.target = match &self.target {
            Target::Tcp { host, .. } => Target::Tcp { host: at(host), authority: at(host) },
            Target::Https { host, .. } => {
                client.https = client.https.map(|https| https.named_after(host));
                Target::Https { host: at(host), authority: at(host) }
            }
            Target::Unix(_) | Target::InProcess(_) => Target::Tcp { host: at(""), authority: at("") },
        };
        client
    }

    /// The same client with another token, if there is one.
    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Client {
        Client { token: token.or(self.token), ..self }
    }

    /// Sends a request and waits for the whole answer. `path` is already escaped, `query` is not.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: impl Into<Bytes>,
    ) -> Result<Response, ClientError> {
        let runtime = runtime().map_err(transport(&method, path))?;
        runtime.block_on(self.ask(method, path, query, body))
    }

    /// Sends a request; completes with the whole answer. Dropping the future closes the connection.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: impl Into<Bytes>,
    ) -> Result<Response, ClientError> {
        let (request, url) = self.request(&method, path, query, body.into())?;
        self.exchange(request, &url, |_| {}).await.map_err(transport(&method, &url))
    }

    /// Sends something long; `seen` hears how many of its bytes are on their way.
    ///
    /// # Errors
    /// There is no answer.
    pub fn upload(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: impl Into<Bytes>,
        mut seen: impl FnMut(u64),
    ) -> Result<Response, ClientError> {
        let (request, url) = self.request(&method, path, query, body.into())?;
        let runtime = runtime().map_err(transport(&method, &url))?;
        let sent = request.body().counter();
        let answer = runtime.block_on(async {
            let mut answer = std::pin::pin!(self.exchange(request, &url, |_| {}));
            loop {
                tokio::select! {
                    biased;
                    answer = &mut answer => return answer,
                    () = tokio::time::sleep(UPLOAD_PACE) => seen(sent.get()),
                }
            }
        });
        answer.map_err(transport(&method, &url))
    }

    /// Fetches something long; `seen` hears how many bytes have come.
    ///
    /// # Errors
    /// There is no answer, or not all of it.
    pub fn fetch(
        &self,
        path: &str,
        query: &[(&str, String)],
        seen: impl FnMut(u64),
    ) -> Result<Response, ClientError> {
        let (request, url) = self.request(&Method::GET, path, query, Bytes::new())?;
        let runtime = runtime().map_err(transport(&Method::GET, &url))?;
        runtime.block_on(self.exchange(request, &url, seen)).map_err(transport(&Method::GET, &url))
    }

    /// Sends a request and reads the whole answer; `seen` hears how many of its bytes have come.
    async fn exchange(
        &self,
        request: Request<Sent>,
        url: &str,
        mut seen: impl FnMut(u64),
    ) -> Result<Response, String> {
        let (head, mut body) = self.begin(request).await?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                bytes.extend(data);
                seen(bytes.len() as u64);
            }
        }
        let text = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
        Ok(Response {
            status: head.status,
            body: bytes.freeze(),
            index: text("x-consul-index").and_then(|index| index.parse().ok()),
            hash: text("x-consul-contenthash"),
            date: text("date"),
            url: url.to_owned(),
        })
    }

    /// A request, and what to call it in errors.
    fn request(
        &self,
        method: &Method,
        path: &str,
        query: &[(&str, String)],
        body: Bytes,
    ) -> Result<(Request<Sent>, String), ClientError> {
        let mut path = path.to_owned();
        for (at, (name, value)) in query.iter().enumerate() {
            path.push(if at == 0 { '?' } else { '&' });
            path.push_str(name);
            if !value.is_empty() || *name == "separator" {
                path.push('=');
                path.push_str(&escape(value));
            }
        }
        let (authority, url) = match &self.target {
            Target::Tcp { authority, .. } => (authority.clone(), format!("http://{authority}{path}")),
            Target::InProcess(_) => ("localhost".to_owned(), format!("this agent: {path}")),
            Target::Unix(socket) => ("localhost".to_owned(), format!("unix://{}{path}", socket.display())),
            Target::Https { authority, .. } => (authority.clone(), format!("https://{authority}{path}")),
        };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(&path)
            .header("host", &authority)
            .header("user-agent", concat!("proconsul/", env!("CARGO_PKG_VERSION")));
        if let Some(login) = &self.login {
            request = request.header("authorization", format!("Basic {login}"));
        }
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let request = request.body(Sent::new(body)).map_err(|e| transport(method, &url)(e.to_string()))?;
        Ok((request, url))
    }

    /// Asks for a path and reads the answer as JSON.
    pub fn get_json(&self, path: &str, query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.send(Method::GET, path, query, Bytes::new())?.json()
    }

    /// Sends a request; the body of the response is yet to come.
    async fn begin(&self, request: Request<Sent>) -> Result<hyper::Response<Incoming>, String> {
        match &self.target {
            Target::Tcp { host, .. } => talk(TokioIo::new(dial(host).await?), request).await,
            Target::InProcess(InProcess(gate)) => {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let gate = gate.clone();
                // It ends with our end of the pipe; what goes wrong is seen there.
                tokio::spawn(async move {
                    let _ = proconsul_io_real::http::serve(TokioIo::new(theirs), gate, None).await;
                });
                talk(TokioIo::new(ours), request).await
            }
            Target::Unix(socket) => {
                let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| io_reason(&e))?;
                talk(TokioIo::new(stream), request).await
            }
            Target::Https { host, .. } => {
                let https = self.https.as_ref().expect("made with the client for this target");
                let stream = https.connect(dial(host).await?, host).await?;
                talk(TokioIo::new(stream), request).await
            }
        }
    }
}

async fn dial(host: &str) -> Result<tokio::net::TcpStream, String> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(host));
    let stream = stream.await.map_err(|_| "connection timed out".to_owned())?;
    stream.map_err(|e| io_reason(&e))
}

/// There is no usable answer to a request, for a reason that is yet to be named.
fn transport(method: &Method, url: &str) -> impl Fn(String) -> ClientError {
    let (method, url) = (method.clone(), url.to_owned());
    move |reason| ClientError::Transport { method: method.clone(), url: url.clone(), reason }
}

/// What a command waits in: its own thread.
///
/// # Errors
/// The system refuses; in words.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| io_reason(&error))
}

/// What went wrong with a connection, in words.
fn broken(error: hyper::Error) -> String {
    let source = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
    format!("{error}{source}")
}

async fn talk<S>(stream: S, request: Request<Sent>) -> Result<hyper::Response<Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broken)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(broken)
}

/// Reads an address as given by flag or variable.
fn target(address: &str, ssl: bool) -> Result<Target, String> {
    if let Some(path) = address.strip_prefix("unix://") {
        return Ok(Target::Unix(PathBuf::from(path)));
    }
    let (https, authority) = match address.split_once("://") {
        Some(("http", authority)) => (ssl, authority),
        Some(("https", authority)) => (true, authority),
        Some((scheme, _)) => {
            return Err(format!("unknown protocol scheme: {scheme} (use http, https or unix)"));
        }
        None => (ssl, address),
    };
    let authority = authority.trim_end_matches('/').to_owned();
    if authority.is_empty() || authority.contains('/') {
        return Err(format!("{address:?} is no address of an agent: write HOST:PORT"));
    }
    let has_port =
        authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let default = if https { 443 } else { 80 };
    let host = if has_port { authority.clone() } else { format!("{authority}:{default}") };
    Ok(if https { Target::Https { host, authority } } else { Target::Tcp { host, authority } })
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("open {}: {}", path.display(), io_reason(&e)))
}

/// What stands in paths and values of queries as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Percent-encodes a path segment or a query value, leaving `/` alone.
#[must_use]
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme() {
        let tcp = |host: &str, authority: &str| {
            Ok(Target::Tcp { host: host.to_owned(), authority: authority.to_owned() })
        };
        assert_eq!(target("127.0.0.1:8500", false), tcp("127.0.0.1:8500", "127.0.0.1:8500"));
        assert_eq!(target("http://a:1/", false), tcp("a:1", "a:1"));
        assert_eq!(target("http://a", false), tcp("a:80", "a"));
        assert_eq!(target("[::1]:8500", false), tcp("[::1]:8500", "[::1]:8500"));
        assert_eq!(target("unix:///a/b", false), Ok(Target::Unix("/a/b".into())));
        let https = |host: &str, authority: &str| {
            Ok(Target::Https { host: host.to_owned(), authority: authority.to_owned() })
        };
        assert_eq!(target("https://a:1", false), https("a:1", "a:1"));
        assert_eq!(target("a:1", true), https("a:1", "a:1"));
        assert_eq!(target("https://a", false), https("a:443", "a"));
        assert!(target("ftp://a", false).is_err());
        assert!(target("", false).is_err());
    }

    #[test]
    fn other_agents_are_asked_in_the_same_way() {
        let there = |address: &str| match Client::of(address).elsewhere([10, 0, 0, 2].into(), 8500).target {
            Target::Tcp { host, .. } => host,
            Target::Https { host, .. } => format!("https {host}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(there("127.0.0.1:18500"), "10.0.0.2:18500");
        assert_eq!(there("https://localhost:8501"), "https 10.0.0.2:8501");
        assert_eq!(there("unix:///run/agent.sock"), "10.0.0.2:8500");
    }

    #[test]
    fn keys_are_escaped_but_their_slashes_stay() {
        assert_eq!(escape("a b/ключ?"), "a%20b/%D0%BA%D0%BB%D1%8E%D1%87%3F");
    }
}
