//! Who is told of a new state: a program, which reads it from its standard input, or somebody over HTTP.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use proconsul_core::Text;
use proconsul_core::agent::{Probe, ProbeKind, Tls};
use proconsul_core::duration;
use proconsul_core::store::model::Health;
use proconsul_io_real::ports::Prober;
use proconsul_io_real::words::io_reason;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::News;
use crate::child;

/// How long somebody over HTTP may take, if nothing else is configured.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// So much of what a program says is logged, and no more than this of what somebody over HTTP answers.
pub const OUTPUT_MAX: usize = 4096;
/// The variable that tells a program the index.
const INDEX: &str = "CONSUL_INDEX";

/// Who is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Handler {
    /// A command line for a shell.
    Shell(String),
    /// A program and its arguments.
    Program(Vec<String>),
    /// Somebody over HTTP.
    Http {
        /// URL.
        url: String,
        /// Method.
        method: String,
        /// Headers.
        headers: BTreeMap<Text, Vec<Text>>,
        /// How long an answer may take.
        timeout: Duration,
        /// Whether any certificate is taken.
        tls_skip_verify: bool,
    },
}

impl Handler {
    /// Takes a handler's parameters out of those of a watch.
    pub(super) fn take(left: &mut Map<String, Value>) -> Result<Option<Handler>, String> {
        let text = |value: Value| value.as_str().map(str::to_owned);
        let shell = match left.remove("handler") {
            None | Some(Value::Null) => None,
            Some(value) => Some(text(value).ok_or("Watch handler must be a string")?),
        };
        let program = match left.remove("args") {
            None | Some(Value::Null) => None,
            Some(Value::Array(list)) => {
                let args: Option<Vec<String>> = list.into_iter().map(text).collect();
                Some(args.ok_or("Watch args must be a list of strings")?).filter(|args| !args.is_empty())
            }
            Some(_) => return Err("Watch args must be a list of strings".to_owned()),
        };
        let kind = match left.remove("handler_type") {
            None | Some(Value::Null) => "script".to_owned(),
            Some(value) => text(value).ok_or("handler_type must be a string")?,
        };
        let http = left.remove("http_handler_config");
        match kind.as_str() {
            "script" => match (shell, program) {
                (Some(_), Some(_)) => Err("Only one watch handler allowed".to_owned()),
                (Some(line), None) => Ok(Some(Handler::Shell(line))),
                (None, Some(args)) => Ok(Some(Handler::Program(args))),
                (None, None) => Ok(None),
            },
            "http" if shell.is_some() || program.is_some() => {
                Err("Only one watch handler allowed".to_owned())
            }
            "http" => {
                let Some(Value::Object(config)) = http.map(unlisted) else {
                    return Err("Handler type 'http' requires 'http_handler_config' to be set".to_owned());
                };
                Handler::over_http(config).map(Some)
            }
            other => Err(format!("Handler type {other:?} is not known: it is script or http")),
        }
    }

    fn over_http(config: Map<String, Value>) -> Result<Handler, String> {
        let (mut url, mut method, mut headers) = (String::new(), "POST".to_owned(), BTreeMap::new());
        let (mut timeout, mut tls_skip_verify) = (HTTP_TIMEOUT, false);
        for (name, value) in config {
            let bad = || format!("http_handler_config: {name} is not of the right type");
            match name.to_ascii_lowercase().as_str() {
                "path" => url = value.as_str().ok_or_else(bad)?.to_owned(),
                "method" => {
                    let text = value.as_str().ok_or_else(bad)?;
                    if !text.is_empty() {
                        text.clone_into(&mut method);
                    }
                }
                "timeout" => {
                    let nanoseconds = value.as_str().and_then(duration::parse).ok_or_else(bad)?;
                    timeout = Duration::from_nanos(u64::try_from(nanoseconds).map_err(|_| bad())?);
                }
                "tls_skip_verify" => tls_skip_verify = value.as_bool().ok_or_else(bad)?,
                "header" => {
                    for (header, values) in value.as_object().ok_or_else(bad)? {
                        let values: Vec<Text> = match values {
                            Value::String(one) => vec![Text::new(one)],
                            Value::Array(list) => {
                                let texts = list.iter().map(|one| one.as_str().map(Text::new));
                                texts.collect::<Option<_>>().ok_or_else(bad)?
                            }
                            _ => return Err(bad()),
                        };
                        headers.insert(Text::new(header), values);
                    }
                }
                _ => return Err(format!("http_handler_config: {name} is not known")),
            }
        }
        if url.is_empty() {
            return Err("Requires 'path' to be set".to_owned());
        }
        Ok(Handler::Http { url, method, headers, timeout, tls_skip_verify })
    }

    /// Tells of a state. Returns what was said to that.
    ///
    /// # Errors
    /// In words: it failed, or could not be told.
    pub async fn tell(&self, news: &News, prober: &impl Prober) -> Result<String, String> {
        match self {
            Handler::Shell(line) => told(child::command(std::slice::from_ref(line), true), line, news).await,
            Handler::Program(args) => told(child::command(args, false), &args[0], news).await,
            Handler::Http { url, method, headers, timeout, tls_skip_verify } => {
                let mut headers = headers.clone();
                headers.entry("Content-Type".into()).or_insert_with(|| vec!["application/json".into()]);
                headers.insert("X-Consul-Index".into(), vec![Text::new(news.index.to_string())]);
                let kind = ProbeKind::Http {
                    url: Text::new(url),
                    method: Text::new(method),
                    headers,
                    body: Text::new(format!("{}\n", news.text)),
                    follow_redirects: true,
                    tls: Tls { skip_verify: *tls_skip_verify, ..Tls::default() },
                };
                let probe = Probe { kind, timeout: *timeout, output_max: OUTPUT_MAX };
                let outcome = prober.probe(&probe).await;
                if outcome.status == Health::Passing { Ok(outcome.output) } else { Err(outcome.output) }
            }
        }
    }
}

/// HCL makes a list of a block.
fn unlisted(value: Value) -> Value {
    match value {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        other => other,
    }
}

/// Runs a program that reads the state, and keeps what it says.
async fn told(mut command: Command, name: &str, news: &News) -> Result<String, String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = start(command, name, news)?;
    feed(&mut child, news).await;
    let output = child.wait_with_output().await.map_err(|error| io_reason(&error))?;
    let mut said = output.stdout;
    said.extend(output.stderr);
    said.truncate(OUTPUT_MAX);
    let said = String::from_utf8_lossy(&said).into_owned();
    match child::failure(output.status) {
        None => Ok(said),
        Some(failure) => Err(format!("{failure}: {}", said.trim_end())),
    }
}

/// Runs a program that reads the state and writes where this one does.
///
/// # Errors
/// In words, as Consul's command says them.
pub async fn run(mut command: Command, name: &str, news: &News) -> Result<(), String> {
    command.kill_on_drop(true);
    let mut child = start(command, name, news).map_err(|error| format!("Error starting handler: {error}"))?;
    feed(&mut child, news).await;
    let status = child.wait().await.map_err(|error| io_reason(&error));
    let failure = status.map_or_else(Some, child::failure);
    failure.map_or(Ok(()), |failure| Err(format!("Error executing handler: {failure}")))
}

fn start(mut command: Command, name: &str, news: &News) -> Result<tokio::process::Child, String> {
    command.env(INDEX, news.index.to_string()).stdin(Stdio::piped());
    command.spawn().map_err(|error| child::unstarted(&[name.to_owned()], &error))
}

/// Hands the state over. A program that does not read it is none the worse.
async fn feed(child: &mut tokio::process::Child, news: &News) {
    if let Some(mut input) = child.stdin.take() {
        let text = format!("{}\n", news.text);
        let _ = input.write_all(text.as_bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(parameters: Value) -> Result<Option<Handler>, String> {
        let Value::Object(mut map) = parameters else { panic!("an object") };
        let handler = Handler::take(&mut map);
        assert!(handler.is_err() || map.is_empty(), "{map:?} is left");
        handler
    }

    #[test]
    fn handlers_are_programs_shells_or_urls() {
        assert_eq!(take(json!({})), Ok(None));
        assert_eq!(take(json!({"handler": "a | b"})), Ok(Some(Handler::Shell("a | b".into()))));
        let program = Handler::Program(vec!["a".into(), "b".into()]);
        assert_eq!(take(json!({"handler_type": "script", "args": ["a", "b"]})), Ok(Some(program)));
        let http = json!({"handler_type": "http", "http_handler_config": {"path": "http://a/b", "method": "PUT",
            "timeout": "5s", "tls_skip_verify": true, "header": {"X-A": ["b"]}}});
        let expected = Handler::Http {
            url: "http://a/b".into(),
            method: "PUT".into(),
            headers: BTreeMap::from([("X-A".into(), vec!["b".into()])]),
            timeout: Duration::from_secs(5),
            tls_skip_verify: true,
        };
        assert_eq!(take(http), Ok(Some(expected)));
    }

    #[test]
    fn handlers_that_make_no_sense_are_refused() {
        for parameters in [
            json!({"handler": "a", "args": ["b"]}),
            json!({"handler": 1}),
            json!({"args": "a"}),
            json!({"handler_type": "http"}),
            json!({"handler_type": "http", "http_handler_config": {}}),
            json!({"handler_type": "http", "http_handler_config": {"path": "a", "nosuch": 1}}),
            json!({"handler_type": "http", "args": ["a"], "http_handler_config": {"path": "a"}}),
            json!({"handler_type": "smoke", "args": ["a"]}),
        ] {
            assert!(take(parameters.clone()).is_err(), "{parameters}");
        }
    }
}
