//! Plays a case, step by step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proconsul_jepsen::process::ports::free_port;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::case::{Acl, Case, Relation, Step};
use super::comparison::{Known, digits};
use super::ground::{Ground, Kind};
use super::paths::{Variables, lookup, plain, substitute, substitute_text};
use super::stub::Stub;
use super::wire::{Reply, Request};

/// A request in the background has reached the agent after this time. Nothing tells when it blocks; a later step would
/// only be less sharp if it took longer.
const UNDER_WAY: Duration = Duration::from_millis(400);
/// Before a request is repeated.
const PAUSE: Duration = Duration::from_millis(150);
/// The longest wait for a request in the background.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

const TOKEN: &str = "X-Consul-Token";

/// The problems of each step; none where it went as recorded.
pub type Outcome = Vec<Vec<String>>;

/// Plays a case; an error if it did not even begin.
pub async fn play(kind: Kind, case: &Case) -> Result<Outcome, String> {
    let mut player = Player::begin(kind, case).await?;
    let mut outcome = Vec::new();
    for step in &case.steps {
        let mut problems = Vec::new();
        if let Err(why) = player.step(step, &mut problems).await {
            problems.push(why);
        }
        outcome.push(problems);
    }
    Ok(outcome)
}

struct Player<'a> {
    case: &'a Case,
    ground: Ground,
    stub: Stub,
    known: Known,
    bodies: BTreeMap<String, Vec<u8>>,
    /// Headers of every request.
    headers: BTreeMap<String, String>,
    background: BTreeMap<String, JoinHandle<Result<Reply, String>>>,
}

impl Player<'_> {
    async fn begin(kind: Kind, case: &Case) -> Result<Player<'_>, String> {
        let stub = Stub::start().await.map_err(|error| error.to_string())?;
        let closed = free_port().map_err(|error| error.to_string())?;
        let mut variables = Variables::from([
            ("stub".to_owned(), stub.port.into()),
            ("closed".to_owned(), closed.into()),
            ("dollar".to_owned(), "$".into()),
        ]);
        let ground = Ground::start(kind, case, &mut variables).await?;
        let mut headers = BTreeMap::new();
        if case.acl == Acl::Bootstrapped {
            let (secret, accessor) = ground.bootstrap().await?;
            headers.insert(TOKEN.to_owned(), secret.clone());
            variables.insert("root".to_owned(), secret.into());
            variables.insert("root_accessor".to_owned(), accessor.into());
        }
        let (known, bodies, background) = (Known::new(variables), BTreeMap::new(), BTreeMap::new());
        Ok(Player { case, ground, stub, known, bodies, headers, background })
    }

    async fn step(&mut self, step: &Step, problems: &mut Vec<String>) -> Result<(), String> {
        tokio::time::sleep(Duration::from_secs_f64(step.sleep)).await;
        if let Some(status) = step.stub {
            self.stub.set(status);
            return Ok(());
        }
        if let Some(name) = &step.background {
            let (request, http) = (self.request(step)?, self.ground.http(&step.agent)?);
            self.background.insert(name.clone(), tokio::spawn(request.send(http)));
            tokio::time::sleep(UNDER_WAY).await;
            return Ok(());
        }
        let reply = match &step.join {
            Some(name) => self.join(name).await?,
            None => self.answer(step, problems).await?,
        };
        for (name, source) in &step.capture {
            self.capture(name, source, &reply)?;
        }
        if let Some((low, high)) = step.elapsed {
            let took = reply.took.as_secs_f64();
            if !(low..=high).contains(&took) {
                problems.push(format!("took {took:.2} s, expected {low} to {high} s"));
            }
        }
        problems.extend(self.index_differs(step, &reply)?);
        let rules = step.rules.with_defaults(&self.case.rules);
        problems.extend(self.known.check(&step.golden, &step.also, &rules, &reply));
        Ok(())
    }

    /// The answer to a step's request, repeated until it is as the step wants it.
    async fn answer(&self, step: &Step, problems: &mut Vec<String>) -> Result<Reply, String> {
        let begun = Instant::now();
        loop {
            let reply = self.request(step)?.send(self.ground.http(&step.agent)?).await?;
            let reply = self.seen(reply);
            let Some(until) = &step.until else { return Ok(reply) };
            if self.holds(until, &reply)? {
                return Ok(reply);
            }
            if begun.elapsed().as_secs_f64() > step.patience {
                problems.push(format!("waited in vain for {until:?}"));
                return Ok(reply);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn join(&mut self, name: &str) -> Result<Reply, String> {
        let task = self.background.remove(name).ok_or_else(|| format!("nothing is called {name}"))?;
        let ended = tokio::time::timeout(JOIN_WITHIN, task).await;
        let ended = ended.map_err(|_| "the request in the background did not end".to_owned())?;
        let reply = ended.map_err(|error| error.to_string())??;
        Ok(self.seen(reply))
    }

    /// An answer as it would be of an agent that is alone.
    fn seen(&self, mut reply: Reply) -> Reply {
        reply.json = reply.json.map(|json| self.ground.without_others(json));
        reply
    }

    fn request(&self, step: &Step) -> Result<Request, String> {
        let variables = &self.known.variables;
        let mut headers = self.headers.clone();
        headers.extend(step.headers.clone());
        if let Some(token) = &step.token {
            headers.remove(TOKEN);
            headers.extend(token.clone().map(|token| (TOKEN.to_owned(), token)));
        }
        for value in headers.values_mut() {
            *value = substitute_text(value, variables)?;
        }
        let body = if let Some(body) = &step.body64 {
            STANDARD.decode(body).map_err(|error| error.to_string())?
        } else if let Some((text, times)) = &step.body_repeat {
            text.repeat(*times).into_bytes()
        } else if let Some(name) = &step.body_from {
            self.bodies.get(name).cloned().ok_or_else(|| format!("{name} was not captured"))?
        } else if let Some(body) = &step.body {
            plain(&substitute(body, variables)?).into_bytes()
        } else {
            Vec::new()
        };
        let path = substitute_text(&step.path, variables)?;
        Ok(Request { method: step.method.clone(), path, headers, body, stream: step.stream })
    }

    fn capture(&mut self, name: &str, source: &str, reply: &Reply) -> Result<(), String> {
        let nothing = || format!("nothing to capture at {source}");
        if source == "body" {
            self.bodies.insert(name.to_owned(), reply.body.clone());
            return Ok(());
        }
        let value = if source.starts_with('$') {
            reply.json.as_ref().and_then(|json| lookup(json, source)).filter(|value| !value.is_null())
        } else {
            reply.header(source).and_then(|value| {
                if source == "X-Consul-Index" {
                    Some(Value::from(value.parse::<u64>().ok()?))
                } else {
                    Some(value.into())
                }
            })
        };
        self.known.variables.insert(name.to_owned(), value.ok_or_else(nothing)?);
        Ok(())
    }

    fn holds(&self, until: &BTreeMap<String, Value>, reply: &Reply) -> Result<bool, String> {
        for (path, want) in until {
            let want = substitute(want, &self.known.variables)?;
            let got = match path.as_str() {
                "status" => Some(Value::from(reply.status)),
                path => reply.json.as_ref().and_then(|json| lookup(json, path)),
            };
            if got != Some(want) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// X-Consul-Index is never behind the objects that it comes with, and stands as a step says to another one.
    fn index_differs(&self, step: &Step, reply: &Reply) -> Result<Vec<String>, String> {
        let Some(index) = reply.header("X-Consul-Index").filter(|index| digits(index)) else {
            return Ok(Vec::new());
        };
        let index: u64 = index.parse().map_err(|_| format!("X-Consul-Index {index} is too large"))?;
        let (relation, source) = match &step.index {
            Some(Relation::Any(_)) => return Ok(Vec::new()),
            Some(Relation::To(relation, source)) => (relation.as_str(), source.as_str()),
            None => (">=", "0"),
        };
        let mut problems = Vec::new();
        let newest = reply.json.as_ref().map_or(0, newest_index);
        if index < newest.max(1) {
            problems.push(format!("X-Consul-Index {index} is less than a returned ModifyIndex {newest}"));
        }
        let other = if source.starts_with("$[") {
            reply.json.as_ref().and_then(|json| lookup(json, source)).map(|value| plain(&value))
        } else {
            Some(substitute_text(source, &self.known.variables)?)
        };
        let other = other.and_then(|other| other.parse::<u64>().ok());
        let other = other.ok_or_else(|| format!("{source} is no index"))?;
        let holds = match relation {
            "=" => index == other,
            ">" => index > other,
            ">=" => index >= other,
            _ => return Err(format!("{relation} is no relation")),
        };
        if !holds {
            problems.push(format!("X-Consul-Index {index} is not {relation} {other} ({source})"));
        }
        Ok(problems)
    }
}

/// The greatest ModifyIndex in an answer.
fn newest_index(value: &Value) -> u64 {
    match value {
        Value::Array(list) => list.iter().map(newest_index).max().unwrap_or(0),
        Value::Object(map) => {
            let of = |(key, value): (&String, &Value)| match value.as_u64() {
                Some(index) if key == "ModifyIndex" => index,
                _ => newest_index(value),
            };
            map.iter().map(of).max().unwrap_or(0)
        }
        _ => 0,
    }
}
