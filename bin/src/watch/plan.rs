//! What is to be watched, from the parameters of a command line or a configuration.

use serde_json::{Map, Value};

use super::follow::Shape;
use super::handler::Handler;
use crate::client::escape;

/// Something to watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    kind: String,
    path: String,
    query: Vec<(&'static str, String)>,
    shape: Shape,
    /// The token to ask with, if it is not the default one.
    pub token: Option<String>,
    /// Whom to tell; a command has its own way.
    pub handler: Option<Handler>,
}

/// Parameters that are left, and what was wrong with those that were taken.
struct Parameters {
    left: Map<String, Value>,
}

impl Parameters {
    /// Takes a text, empty if there is none.
    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("Expecting {name} to be a string")),
        }
    }

    /// Takes texts; one stands for a list.
    fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let bad = || format!("Expecting {name} to be a string or a list of strings");
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty()).into_iter().collect()),
            Some(Value::Array(list)) => {
                list.into_iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(bad)).collect()
            }
            Some(_) => Err(bad()),
        }
    }

    /// Takes a boolean, which may be written as text.
    fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(on)) => Ok(on),
            Some(Value::String(text)) => {
                crate::cli::flags::go_bool(&text).ok_or_else(|| format!("Expecting {name} to be a boolean"))
            }
            Some(_) => Err(format!("Expecting {name} to be a boolean")),
        }
    }

    /// Takes a text that there must be.
    fn single(&mut self, name: &str, what: &str) -> Result<String, String> {
        let text = self.text(name)?;
        if text.is_empty() { Err(format!("Must specify a single {what} to watch")) } else { Ok(text) }
    }
}

impl Plan {
    /// Reads parameters by the names that configurations use.
    ///
    /// # Errors
    /// In words: something is missing, unknown, or of the wrong type.
    pub fn read(parameters: &Map<String, Value>) -> Result<Plan, String> {
        let mut all = Parameters { left: parameters.clone() };
        let datacenter = all.text("datacenter")?;
        let token = Some(all.text("token")?).filter(|token| !token.is_empty());
        let kind = all.text("type")?;
        if kind.is_empty() {
            return Err("Watch type must be specified".to_owned());
        }
        let handler = Handler::take(&mut all.left)?;
        let mut query = Vec::new();
        if !datacenter.is_empty() {
            query.push(("dc", datacenter));
        }
        let (path, shape) = target(&kind, &mut all, &mut query)?;
        if !all.left.is_empty() {
            let names: Vec<&str> = all.left.keys().map(String::as_str).collect();
            return Err(format!("Invalid parameters: [{}]", names.join(" ")));
        }
        Ok(Plan { kind, path, query, shape, token, handler })
    }

    /// The type of the watch.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn query(&self) -> &[(&'static str, String)] {
        &self.query
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }
}

/// Path and shape of a type of watch; its parameters go to the query.
fn target(
    kind: &str,
    all: &mut Parameters,
    query: &mut Vec<(&'static str, String)>,
) -> Result<(String, Shape), String> {
    let mut stale = |all: &mut Parameters| -> Result<(), String> {
        if all.flag("stale")? {
            query.push(("stale", String::new()));
        }
        Ok(())
    };
    Ok(match kind {
        "key" => {
            stale(all)?;
            (format!("/v1/kv/{}", escape(&all.single("key", "key")?)), Shape::Key)
        }
        "keyprefix" => {
            stale(all)?;
            query.push(("recurse", String::new()));
            (format!("/v1/kv/{}", escape(&all.single("prefix", "prefix")?)), Shape::Keys)
        }
        "services" => {
            stale(all)?;
            ("/v1/catalog/services".to_owned(), Shape::Plain)
        }
        "nodes" => {
            stale(all)?;
            ("/v1/catalog/nodes".to_owned(), Shape::Nodes)
        }
        "service" => {
            stale(all)?;
            let service = all.single("service", "service")?;
            query.extend(all.texts("tag")?.into_iter().map(|tag| ("tag", tag)));
            if all.flag("passingonly")? {
                query.push(("passing", "1".to_owned()));
            }
            (format!("/v1/health/service/{}", escape(&service)), Shape::Instances)
        }
        "checks" => {
            stale(all)?;
            let (service, state) = (all.text("service")?, all.text("state")?);
            match (service.is_empty(), state.is_empty()) {
                (false, false) => return Err("Cannot specify service and state".to_owned()),
                (false, true) => (format!("/v1/health/checks/{}", escape(&service)), Shape::Checks),
                (true, false) => (format!("/v1/health/state/{}", escape(&state)), Shape::Checks),
                (true, true) => ("/v1/health/state/any".to_owned(), Shape::Checks),
            }
        }
        "event" => {
            let name = all.text("name")?;
            if !name.is_empty() {
                query.push(("name", name));
            }
            ("/v1/event/list".to_owned(), Shape::Events)
        }
        "connect_roots" => ("/v1/agent/connect/ca/roots".to_owned(), Shape::Plain),
        "connect_leaf" => {
            let service = all.single("service", "service")?;
            (format!("/v1/agent/connect/ca/leaf/{}", escape(&service)), Shape::Plain)
        }
        "agent_service" => {
            let id = all.single("service_id", "service ID")?;
            (format!("/v1/agent/service/{}", escape(&id)), Shape::Plain)
        }
        other => return Err(format!("Unsupported watch type: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: Value) -> Result<String, String> {
        let plan = Plan::read(parameters.as_object().expect("an object"))?;
        let query: Vec<String> = plan.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(format!("{} {}", plan.path, query.join("&")))
    }

    #[test]
    fn every_type_has_its_question() {
        for (parameters, expected) in [
            (json!({"type": "key", "key": "a/b c"}), "/v1/kv/a/b%20c "),
            (json!({"type": "keyprefix", "prefix": "a/", "stale": true}), "/v1/kv/a/ stale=&recurse="),
            (json!({"type": "services", "datacenter": "dc2"}), "/v1/catalog/services dc=dc2"),
            (json!({"type": "nodes"}), "/v1/catalog/nodes "),
            (
                json!({"type": "service", "service": "web", "tag": ["a", "b"], "passingonly": "true"}),
                "/v1/health/service/web tag=a&tag=b&passing=1",
            ),
            (json!({"type": "service", "service": "web", "tag": "a"}), "/v1/health/service/web tag=a"),
            (json!({"type": "checks"}), "/v1/health/state/any "),
            (json!({"type": "checks", "state": "critical"}), "/v1/health/state/critical "),
            (json!({"type": "checks", "service": "web"}), "/v1/health/checks/web "),
            (json!({"type": "event", "name": "deploy"}), "/v1/event/list name=deploy"),
            (json!({"type": "connect_roots"}), "/v1/agent/connect/ca/roots "),
            (json!({"type": "connect_leaf", "service": "web"}), "/v1/agent/connect/ca/leaf/web "),
            (json!({"type": "agent_service", "service_id": "web-1"}), "/v1/agent/service/web-1 "),
        ] {
            assert_eq!(read(parameters).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (parameters, expected) in [
            (json!({}), "Watch type must be specified"),
            (json!({"type": "bogus"}), "Unsupported watch type: bogus"),
            (json!({"type": "key"}), "Must specify a single key to watch"),
            (json!({"type": "keyprefix"}), "Must specify a single prefix to watch"),
            (json!({"type": "service"}), "Must specify a single service to watch"),
            (json!({"type": "key", "key": "a", "service": "b"}), "Invalid parameters: [service]"),
            (json!({"type": "checks", "service": "a", "state": "b"}), "Cannot specify service and state"),
            (json!({"type": "key", "key": 1}), "Expecting key to be a string"),
            (
                json!({"type": "key", "key": "a", "handler": "b", "args": ["c"]}),
                "Only one watch handler allowed",
            ),
        ] {
            assert_eq!(read(parameters), Err(expected.to_owned()));
        }
    }
}
