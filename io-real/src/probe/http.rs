//! The HTTP check.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use proconsul_core::agent::{Probe, ProbeKind, ProbeOutcome};
use proconsul_core::store::model::Health;
use tokio::time::{Instant, timeout_at};

use rustls::ClientConfig;

use super::tls::Secure;
use super::{outcome, tls};
use crate::words::io_reason;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 10;
/// Bytes of a body that are read; what comes later cannot matter to anybody.
const BODY_MAX: usize = 16 << 20;

/// Runs an HTTP check: any 2xx passes, 429 warns, everything else is critical.
pub(super) async fn probe(probe: &Probe, own: Option<&ClientConfig>) -> ProbeOutcome {
    let ProbeKind::Http { url, method, .. } = &probe.kind else { unreachable!("the caller has looked") };
    let deadline = Instant::now() + probe.timeout.max(Duration::from_millis(1));
    let exchange = match timeout_at(deadline, exchange(probe, own)).await {
        Ok(exchange) => exchange,
        Err(_) => {
            Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
        }
    };
    let (response, method) = match exchange {
        Ok(response) => (response, method),
        Err(error) => {
            // «Get», «Put»: the method as a word.
            let mut verb = method.to_lowercase();
            verb.get_mut(..1).unwrap_or_default().make_ascii_uppercase();
            return outcome(Health::Critical, format!("{verb} {:?}: {error}", without_password(url)));
        }
    };
    let status = response.status();
    let reason = match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let body = tail(response.into_body(), probe.output_max, deadline).await;
    let health = match status {
        status if status.is_success() => Health::Passing,
        StatusCode::TOO_MANY_REQUESTS => Health::Warning,
        _ => Health::Critical,
    };
    outcome(health, format!("HTTP {method} {url}: {} {reason} Output: {body}", status.as_u16()))
}

/// Sends the request, and those that redirects ask for. Fails with words.
async fn exchange(probe: &Probe, own: Option<&ClientConfig>) -> Result<Response<Incoming>, String> {
    let ProbeKind::Http { url, method, headers, body, follow_redirects, tls } = &probe.kind else {
        unreachable!("the caller has looked")
    };
    let mut method = Method::from_bytes(method.as_bytes())
        .map_err(|_| format!("net/http: invalid method {:?}", method.as_str()))?;
    let mut uri = url.parse::<Uri>().map_err(|error| error.to_string())?;
    let mut body = Bytes::copy_from_slice(body.as_bytes());
    let custom =
        header_map(headers.iter().map(|(name, values)| (name.as_str(), values.iter().map(|v| v.as_str()))))?;
    for _ in 0..=REDIRECTS_MAX {
        let response = send(&method, &uri, &custom, body.clone(), Secure { tls, own }).await?;
        let status = response.status().as_u16();
        if !follow_redirects || !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let Some(location) = response.headers().get(LOCATION) else {
            return Err(format!("{status} response missing Location header"));
        };
        uri =
            resolve(&uri, location).ok_or_else(|| format!("failed to parse Location header {location:?}"))?;
        if matches!(status, 301..=303) && method != Method::HEAD {
            method = Method::GET;
            body = Bytes::new();
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects"))
}

async fn send(
    method: &Method,
    uri: &Uri,
    custom: &HeaderMap,
    body: Bytes,
    tls: Secure<'_>,
) -> Result<Response<Incoming>, String> {
    let (tls, port) = match uri.scheme_str() {
        Some("http") => (None, 80),
        Some("https") => (Some(tls), 443),
        other => return Err(format!("unsupported protocol scheme {:?}", other.unwrap_or_default())),
    };
    let authority = uri.authority().ok_or("http: no Host in request URL")?;
    let (userinfo, host) = match authority.as_str().rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority.as_str()),
    };
    let address = match authority.port_u16() {
        Some(_) => host.to_owned(),
        None => format!("{}:{port}", host.trim_end_matches(':')),
    };
    let stream = tls::connect(&address, tls, None).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| words(&error))?;

    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method.clone();
    *request.uri_mut() = path.parse().map_err(|_| "invalid URL path".to_owned())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| "invalid host".to_owned())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("Consul Health Check"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/plain, text/*, */*"));
    if let Some(userinfo) = userinfo {
        let token = base64::engine::general_purpose::STANDARD.encode(userinfo);
        let value =
            HeaderValue::from_str(&format!("Basic {token}")).map_err(|_| "invalid user info".to_owned())?;
        headers.insert(AUTHORIZATION, value);
    }
    for name in custom.keys() {
        headers.remove(name);
        for value in custom.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));

    // The connection is driven here, so that dropping the probe drops the connection.
    let response = sender.send_request(request);
    tokio::pin!(response);
    let connection = Box::pin(connection);
    match futures_util::future::select(connection, response).await {
        futures_util::future::Either::Left((end, response)) => match response.await {
            Ok(response) => Ok(response),
            Err(error) => Err(words(end.as_ref().err().unwrap_or(&error))),
        },
        futures_util::future::Either::Right((response, connection)) => {
            let response = response.map_err(|error| words(&error))?;
            Ok(response.map(|body| {
                // The body needs its connection driven until it is read; it ends with the body.
                tokio::spawn(connection);
                body
            }))
        }
    }
}

fn words(error: &hyper::Error) -> String {
    use std::error::Error as _;
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "EOF".into();
    }
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
        return io_reason(error);
    }
    format!("net/http: HTTP/1.x transport connection broken: {error}")
}

fn header_map<'a>(
    headers: impl Iterator<Item = (&'a str, impl Iterator<Item = &'a str>)>,
) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
        for value in values {
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("net/http: invalid header field value for {name:?}"))?;
            map.append(parsed.clone(), value);
        }
    }
    Ok(map)
}

/// The target of a redirect (RFC 9110, section 10.2.2; RFC 3986, section 5.2, without dot segments).
fn resolve(base: &Uri, location: &HeaderValue) -> Option<Uri> {
    let location = location.to_str().ok()?;
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse().ok();
    }
    let scheme = base.scheme_str()?;
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let authority = base.authority()?;
    let path = match location.as_bytes().first() {
        Some(b'/') => location.to_owned(),
        Some(b'?') => format!("{}{location}", base.path()),
        _ => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{location}")
        }
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

/// The last `max` bytes of a body, as far as they came in time.
async fn tail(mut body: Incoming, max: usize, deadline: Instant) -> String {
    let mut kept = VecDeque::with_capacity(max.min(4096));
    let mut read = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        kept.extend(&data[data.len().saturating_sub(max)..]);
        let excess = kept.len().saturating_sub(max);
        kept.drain(..excess);
        if read > BODY_MAX {
            break;
        }
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority
        .rsplit_once('@')
        .and_then(|(userinfo, _)| userinfo.split_once(':').map(|(user, _)| (user, userinfo)))
    {
        Some((user, userinfo)) => format!("{scheme}://{user}:***{}", &rest[userinfo.len()..]),
        None => url.to_owned(),
    }
}
