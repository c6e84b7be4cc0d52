//! From entries to a chain.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::time::Duration;

use fnv::FnvHasher;
use serde_json::{Map, Value, json};

use super::{
    CONNECT_TIMEOUT, Chain, Doc, Entries, GLOBAL, Kind, Node, Request, Resolver, Split, Target, protocol_of,
};
use crate::config_entry::is_http_like;
use crate::duration;

/// Makes the chain of a service.
///
/// # Errors
/// What does not fit together, in Consul's words.
pub(crate) fn compile<E: Entries>(entries: &E, request: Request<'_>) -> Result<Chain, String> {
    let mut compiler = Compiler {
        entries,
        request,
        protocol: None,
        nodes: BTreeMap::new(),
        targets: BTreeMap::new(),
        path: Vec::new(),
        customized: BTreeSet::new(),
    };
    let overridden = request.overrides.protocol.to_lowercase();
    // What cannot be told apart is neither routed nor split.
    let plain = !overridden.is_empty() && !is_http_like(&overridden);
    let start = compiler.start(plain)?;
    let own = compiler.protocol.clone().unwrap_or_default();
    let advanced = matches!(compiler.nodes.get(&start), Some(Node::Router { .. } | Node::Splitter { .. }));
    if !plain && advanced && overridden.is_empty() && !is_http_like(&own) {
        return Err(format!(
            "discovery chain {:?} uses a protocol {own:?} that does not permit advanced routing or splitting behavior",
            request.service
        ));
    }
    let protocol = if overridden.is_empty() { own.clone() } else { overridden };
    if protocol != own {
        compiler.customized.insert(format!("protocol={protocol}"));
    }
    Ok(compiler.finish(start, protocol))
}

/// Work in progress.
struct Compiler<'a, E> {
    entries: &'a E,
    request: Request<'a>,
    /// What all services of the chain must speak: what the first one does.
    protocol: Option<String>,
    nodes: BTreeMap<String, Node>,
    targets: BTreeMap<String, Target>,
    /// The routers and splitters that are being looked into.
    path: Vec<String>,
    /// The overrides that changed something.
    customized: BTreeSet<String>,
}

impl<'a, E: Entries> Compiler<'a, E> {
    fn fields(&self, kind: Kind, name: &str) -> Option<Doc<'a>> {
        self.entries.fields(kind, name)
    }

    fn plain_target(&self, service: &str, subset: &str) -> Target {
        Target {
            service: service.to_owned(),
            subset: subset.to_owned(),
            datacenter: self.request.datacenter.to_owned(),
            ..Target::default()
        }
    }

    /// All services of a chain speak the same.
    fn speak(&mut self, service: &str) -> Result<(), String> {
        let protocol = protocol_of(self.entries, service);
        match &self.protocol {
            None => self.protocol = Some(protocol),
            Some(first) if *first == protocol => {}
            Some(first) => {
                return Err(format!(
                    "discovery chain {:?} uses inconsistent protocols; service {service:?} has {protocol:?} which is \
                     not {first:?}",
                    self.request.service
                ));
            }
        }
        Ok(())
    }

    fn start(&mut self, plain: bool) -> Result<String, String> {
        let service = self.request.service;
        if plain {
            return self.resolve(self.plain_target(service, ""), false);
        }
        let Some(router) = self.fields(Kind::ServiceRouter, service) else {
            return self.split_or_resolve(service);
        };
        let id = format!("router:{service}.default");
        self.speak(service)?;
        self.path.push(id.clone());
        let mut routes = Vec::new();
        for route in router.list("Routes") {
            let to = route.object("Destination");
            let named = to.map_or("", |to| to.text("Service"));
            let subset = to.map_or("", |to| to.text("ServiceSubset"));
            let named = if named.is_empty() { service } else { named };
            let next = if subset.is_empty() {
                self.split_or_resolve(named)?
            } else {
                self.resolve(self.plain_target(named, subset), false)?
            };
            routes.push((route.0.clone(), next));
        }
        // What fits none of them goes to the service itself.
        let rest = json!({
            "Match": {"HTTP": {"PathPrefix": "/"}},
            "Destination": {"Service": service, "Namespace": "default"},
        });
        let rest = match rest {
            Value::Object(rest) => rest,
            _ => Map::new(),
        };
        routes.push((rest, self.split_or_resolve(service)?));
        self.path.pop();
        self.nodes.insert(id.clone(), Node::Router { name: format!("{service}.default"), routes });
        Ok(id)
    }

    fn split_or_resolve(&mut self, service: &str) -> Result<String, String> {
        let Some(splitter) = self.fields(Kind::ServiceSplitter, service) else {
            return self.resolve(self.plain_target(service, ""), false);
        };
        let id = format!("splitter:{service}.default");
        if self.path.contains(&id) {
            self.path.push(id);
            return Err(format!("detected circular reference: [{}]", self.path.join(" -> ")));
        }
        if self.nodes.contains_key(&id) {
            return Ok(id);
        }
        self.path.push(id.clone());
        let mut splits = Vec::new();
        let mut balancer = None;
        for split in splitter.list("Splits") {
            let weight = split.number("Weight");
            let (named, subset) = (split.text("Service"), split.text("ServiceSubset"));
            let named = if named.is_empty() { service } else { named };
            let next = if subset.is_empty() && !named.eq_ignore_ascii_case(service) {
                self.split_or_resolve(named)?
            } else {
                self.resolve(self.plain_target(named, subset), false)?
            };
            let definition = changes(split);
            match self.nodes.get(&next) {
                // A splitter behind a splitter becomes part of it.
                Some(Node::Splitter { splits: inner, balancer: theirs, .. }) => {
                    balancer = balancer.or_else(|| theirs.clone());
                    splits.extend(inner.iter().map(|inner| Split {
                        weight: libm::round(inner.weight * weight) / 100.0,
                        definition: if inner.definition.is_empty() {
                            definition.clone()
                        } else {
                            inner.definition.clone()
                        },
                        next: inner.next.clone(),
                    }));
                }
                found => {
                    if let Some(Node::Resolver(resolver)) = found {
                        balancer = balancer.or_else(|| resolver.balancer.clone());
                    }
                    splits.push(Split { weight, definition, next });
                }
            }
        }
        self.path.pop();
        self.nodes
            .insert(id.clone(), Node::Splitter { name: format!("{service}.default"), splits, balancer });
        Ok(id)
    }

    /// Follows redirects to where a target really is.
    fn redirected(&mut self, mut target: Target) -> Result<Target, String> {
        let mut passed: Vec<String> = Vec::new();
        loop {
            self.speak(&target.service)?;
            let id = target.id();
            let circular = passed.contains(&id);
            passed.push(id);
            if circular {
                return Err(format!("detected circular resolver redirect: [{}]", passed.join(" -> ")));
            }
            let Some(resolver) = self.fields(Kind::ServiceResolver, &target.service) else {
                return Ok(target);
            };
            if let Some(redirect) = resolver.object("Redirect") {
                let to = target.moved(
                    redirect.text("Service"),
                    redirect.text("ServiceSubset"),
                    redirect.text("Datacenter"),
                    redirect.text("Peer"),
                );
                if to.id() != target.id() {
                    target = to;
                    continue;
                }
            }
            let default = resolver.text("DefaultSubset");
            if target.subset.is_empty() && !default.is_empty() {
                let to = target.moved("", default, "", "");
                target = to;
                passed.clear();
                continue;
            }
            return Ok(target);
        }
    }

    /// The node that ends a chain at a target. Those that are only there in case of need have none of their own.
    fn resolve(&mut self, target: Target, in_need: bool) -> Result<String, String> {
        let target = self.completed(target)?;
        let name = target.id();
        let id = format!("resolver:{name}");
        if in_need {
            self.targets.insert(name.clone(), target);
            return Ok(name);
        }
        if self.nodes.contains_key(&id) {
            return Ok(id);
        }
        let resolver = self.fields(Kind::ServiceResolver, &target.service);
        let mut connect_timeout = resolver
            .and_then(|resolver| duration::parse(resolver.text("ConnectTimeout")))
            .and_then(|nanos| u64::try_from(nanos).ok())
            .filter(|nanos| *nanos > 0)
            .map_or(CONNECT_TIMEOUT, Duration::from_nanos);
        let wanted = self.request.overrides.connect_timeout;
        if !wanted.is_zero() && wanted != connect_timeout {
            connect_timeout = wanted;
            self.customized.insert(format!("connect_timeout={}", wanted.as_nanos()));
        }
        let node = Resolver {
            name: name.clone(),
            connect_timeout,
            request_timeout: resolver.map_or("", |resolver| resolver.text("RequestTimeout")).to_owned(),
            default: resolver.is_none(),
            failover: Vec::new(),
            balancer: resolver.and_then(|resolver| resolver.0.get("LoadBalancer").cloned()),
        };
        self.nodes.insert(id.clone(), Node::Resolver(node));
        self.targets.insert(name.clone(), target.clone());
        let failover = resolver.and_then(|resolver| {
            let by_subset: BTreeMap<&str, Doc<'_>> = resolver.map("Failover").collect();
            by_subset.get(target.subset.as_str()).or_else(|| by_subset.get("*")).copied()
        });
        let mut others: Vec<String> = Vec::new();
        for other in failover.into_iter().flat_map(|failover| elsewhere(&target, failover)) {
            let other = self.resolve(other, true)?;
            if other != name && !others.contains(&other) {
                others.push(other);
            }
        }
        if let Some(Node::Resolver(node)) = self.nodes.get_mut(&id) {
            node.failover = others;
        }
        Ok(id)
    }

    /// A target with all that is to be said about it.
    fn completed(&mut self, target: Target) -> Result<Target, String> {
        let mut target = self.redirected(target)?;
        let resolver = self.fields(Kind::ServiceResolver, &target.service);
        if !target.subset.is_empty() {
            let found = resolver
                .and_then(|resolver| resolver.map("Subsets").find(|(name, _)| *name == target.subset));
            let Some((_, subset)) = found else {
                return Err(format!(
                    "service {:?} does not have a subset named {:?}",
                    target.service, target.subset
                ));
            };
            target.definition = Some(Value::Object(subset.0.clone()));
        }
        let defaults = self.fields(Kind::ServiceDefaults, &target.service);
        target.external_sni = defaults.map_or("", |defaults| defaults.text("ExternalSNI")).to_owned();
        let subset = if target.subset.is_empty() { String::new() } else { format!("{}.", target.subset) };
        target.sni = format!(
            "{subset}{}.default.{}.internal.{}",
            target.service, target.datacenter, self.request.trust_domain
        );
        if target.datacenter != self.request.datacenter && target.external_sni.is_empty() {
            let mode = |fields: Option<Doc<'a>>| {
                fields
                    .and_then(|fields| fields.object("MeshGateway"))
                    .map_or("", |gateway| gateway.text("Mode"))
            };
            let own = [mode(defaults), mode(self.fields(Kind::ProxyDefaults, GLOBAL))];
            let own = own.into_iter().find(|mode| !mode.is_empty()).unwrap_or("");
            own.clone_into(&mut target.mesh_gateway);
            let wanted = self.request.overrides.mesh_gateway.as_str();
            if !wanted.is_empty() && wanted != own {
                wanted.clone_into(&mut target.mesh_gateway);
                self.customized.insert(format!("mesh_gateway={wanted}"));
            }
        }
        Ok(target)
    }

    /// The chain, with nothing in it that does not belong to it.
    fn finish(mut self, start: String, protocol: String) -> Chain {
        let mut nodes = BTreeMap::new();
        let mut targets = BTreeMap::new();
        let mut next = vec![start.clone()];
        while let Some(id) = next.pop() {
            let Some(node) = self.nodes.remove(&id) else { continue };
            match &node {
                Node::Router { routes, .. } => next.extend(routes.iter().map(|(_, next)| next.clone())),
                Node::Splitter { splits, .. } => next.extend(splits.iter().map(|split| split.next.clone())),
                Node::Resolver(resolver) => {
                    for name in resolver.failover.iter().chain([&resolver.name]) {
                        if let Some(target) = self.targets.get(name) {
                            targets.insert(name.clone(), target.clone());
                        }
                    }
                }
            }
            nodes.insert(id, node);
        }
        Chain {
            service: self.request.service.to_owned(),
            datacenter: self.request.datacenter.to_owned(),
            customization: hash(&self.customized),
            protocol,
            start,
            nodes,
            targets,
        }
    }
}

/// What a split changes of requests and answers.
fn changes(split: Doc<'_>) -> Map<String, Value> {
    if split.has("RequestHeaders") || split.has("ResponseHeaders") { split.0.clone() } else { Map::new() }
}

/// Where traffic goes when a target has no healthy instance, in the order of preference.
fn elsewhere(target: &Target, failover: Doc<'_>) -> Vec<Target> {
    let service = failover.text("Service");
    let subset = failover.text("ServiceSubset");
    let listed: Vec<Target> = failover
        .list("Targets")
        .map(|to| {
            target.moved(to.text("Service"), to.text("ServiceSubset"), to.text("Datacenter"), to.text("Peer"))
        })
        .collect();
    if !listed.is_empty() {
        return listed;
    }
    let mut datacenters: Vec<&str> = failover.texts("Datacenters").collect();
    if datacenters.is_empty() {
        datacenters.push("");
    }
    datacenters.into_iter().map(|datacenter| target.moved(service, subset, datacenter, "")).collect()
}

/// It only has to tell one customisation from another.
fn hash(customized: &BTreeSet<String>) -> String {
    if customized.is_empty() {
        return String::new();
    }
    let mut hasher = FnvHasher::default();
    for text in customized {
        hasher.write(text.as_bytes());
        hasher.write_u8(b'\n');
    }
    // As long as Consul's.
    format!("{:08x}", hasher.finish() >> 32)
}
