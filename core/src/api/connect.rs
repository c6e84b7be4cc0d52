//! `/v1/connect` and `/v1/agent/connect`, as far as they need no certificate authority.

use super::catalog::object;
use super::route::{Context, Handled};
use super::{HttpReply, params, refused};
use crate::Text;
use crate::agent::decode::{DecodeError, Object};
use crate::store::query::Query;

/// Whether a client whose certificate has this name may connect to a local service.
pub(super) fn authorize(context: &Context<'_>) -> Handled {
    let bad = |why: &str| HttpReply::text(400, why.to_owned());
    let body = object(&context.request.body)?;
    let given = Given::of(body).map_err(|error| {
        let why = match error {
            DecodeError::UnknownKeys(keys) => format!("json: unknown field {:?}", keys.join(", ")),
            other => other.to_string(),
        };
        HttpReply::text(400, format!("Request decode failed: {why}"))
    })?;
    if given.target.is_empty() {
        return Err(bad("Target service must be specified"));
    }
    let Some(name) = given.uri.strip_prefix("spiffe://") else {
        return Err(bad("ClientCertURI not a valid Connect identifier"));
    };
    let source = service_of(name).ok_or_else(|| bad("ClientCertURI not a valid Service identifier"))?;
    let query = Query::AuthorizeConnect { source, destination: given.target };
    let mut read = context.params.read(query, context.about())?;
    read.blocking = None;
    read.filter = Text::default();
    context.read(read)
}

/// The service in `domain/ns/…/dc/…/svc/…`, the part of a SPIFFE identity behind its scheme.
fn service_of(name: &str) -> Option<Text> {
    let mut parts = name.split('/');
    let _domain = parts.next()?;
    let mut part = parts.next()?;
    // A partition, where there are some, comes first.
    if part == "ap" {
        parts.next()?;
        part = parts.next()?;
    }
    (part == "ns").then_some(())?;
    parts.next()?;
    (parts.next()? == "dc").then_some(())?;
    parts.next()?;
    (parts.next()? == "svc").then_some(())?;
    let service = params::decode_path(parts.next()?).ok()?;
    (parts.next().is_none() && !service.is_empty()).then(|| Text::from(service.into_owned()))
}

struct Given {
    target: Text,
    uri: Text,
}

impl Given {
    fn of(mut body: Object) -> Result<Given, DecodeError> {
        let given = Given { target: body.text("target")?, uri: body.text("client_cert_uri")? };
        body.take("client_cert_serial");
        body.finish()?;
        Ok(given)
    }
}

/// The configuration of the authority that there is not. What cannot be read is refused first.
pub(super) fn configuration(context: &Context<'_>) -> Handled {
    if context.request.method == "PUT" {
        object(&context.request.body)?;
    }
    refused::connect(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_have_names_that_intentions_know() {
        let of = |name| service_of(name).map(|name| name.to_string());
        assert_eq!(of("x.consul/ns/default/dc/dc1/svc/web").as_deref(), Some("web"));
        assert_eq!(of("x.consul/ap/default/ns/default/dc/dc1/svc/a%20b").as_deref(), Some("a b"));
        for other in [
            "x.consul",
            "x.consul/agent/client/dc/dc1/id/n",
            "x.consul/ns/default/dc/dc1/svc/",
            "x/ns/a/dc/b/svc/c/d",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
