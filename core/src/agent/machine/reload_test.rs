//! What files define is put in the place of what they defined before.

use super::*;

fn service(name: &str, checks: serde_json::Value) -> ServiceDefinition {
    service_from_config("service", &json!({"name": name, "port": 80, "checks": checks})).unwrap()
}

fn reload(
    world: &mut World,
    services: Vec<ServiceDefinition>,
    checks: Vec<CheckDefinition>,
) -> Result<(), CallError> {
    let settings = Reloaded::default();
    world.with(|agent, cx| agent.call(cx, Call::Reload { services, checks, settings }).map(|_| ()))
}

#[test]
fn other_settings_follow_unless_a_definition_is_refused() {
    let mut world = World::joined(config());
    let meta = |value: &str| [("rack".into(), value.into())].into_iter().collect::<BTreeMap<Text, Text>>();
    let settings = |value: &str| Reloaded { node_meta: meta(value), ..Reloaded::default() };
    let call = Call::Reload { services: Vec::new(), checks: Vec::new(), settings: settings("7") };
    world.with(|agent, cx| agent.call(cx, call)).unwrap();
    world.serve();
    assert_eq!(world.catalog.state().node.map(|node| node.meta), Some(meta("7")));
    let refused =
        check_from_config("check", &json!({"name": "x", "ttl": "1s", "service_id": "none"})).unwrap();
    let call = Call::Reload { services: Vec::new(), checks: vec![refused], settings: settings("8") };
    world.with(|agent, cx| agent.call(cx, call)).unwrap_err();
    world.serve();
    assert_eq!(world.catalog.state().node.map(|node| node.meta), Some(meta("7")));
}

fn ttl(id: &str) -> serde_json::Value {
    json!({"id": id, "name": id, "ttl": "30s"})
}

#[test]
fn what_is_defined_again_keeps_its_state_and_the_rest_goes() {
    let services = vec![service("a", json!([ttl("a1"), ttl("a2")])), service("b", json!([]))];
    let mut world = World::joined(Config { services, ..config() });
    let by_request = service_from_request(br#"{"Name": "c"}"#).unwrap();
    let call = Call::RegisterService { definition: Box::new(by_request), replace_existing_checks: false };
    world.with(|agent, cx| agent.call(cx, call)).unwrap();
    let pass = Call::UpdateTtl { id: "a1".into(), status: Health::Passing, output: "fine".into() };
    world.with(|agent, cx| agent.call(cx, pass)).unwrap();
    reload(&mut world, vec![service("a", json!([ttl("a1")])), service("d", json!([]))], Vec::new()).unwrap();
    world.serve();
    let view = world.agent.view();
    assert_eq!(view.services.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
    assert_eq!(view.checks.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["a1"]);
    assert_eq!((view.checks["a1"].status, view.checks["a1"].output.as_str()), (Health::Passing, "fine"));
    assert!(world.catalog.services.keys().eq(view.services.keys()));
    assert!(world.catalog.checks.keys().eq(view.checks.keys()));
}

#[test]
fn a_file_takes_over_what_was_registered_by_request() {
    let mut world = World::joined(config());
    let by_request = service_from_request(br#"{"Name": "a", "Check": {"TTL": "30s"}}"#).unwrap();
    let call = Call::RegisterService { definition: Box::new(by_request), replace_existing_checks: false };
    world.with(|agent, cx| agent.call(cx, call)).unwrap();
    assert!(world.saved.keys().any(|key| key.contains("service/a")));
    reload(&mut world, vec![service("a", json!([ttl("service:a")]))], Vec::new()).unwrap();
    assert_eq!(world.saved.len(), 0, "{:?}", world.saved.keys());
    reload(&mut world, Vec::new(), Vec::new()).unwrap();
    assert!(world.agent.view().services.is_empty());
}

/// What is refused last, after everything else was fine.
fn refused(world: &mut World, services: Vec<ServiceDefinition>, checks: Vec<CheckDefinition>) -> CallError {
    let before = format!("{:?}", (&world.agent.local, &world.agent.sync, &world.agent.pending));
    let error = reload(world, services, checks).unwrap_err();
    let after = format!("{:?}", (&world.agent.local, &world.agent.sync, &world.agent.pending));
    assert_eq!(before, after);
    error
}

#[test]
fn a_refused_reload_changes_nothing_and_says_why() {
    let mut world = World::joined(Config { services: vec![service("a", json!([ttl("a1")]))], ..config() });
    let new = || vec![service("b", json!([ttl("b1")])), service("c", json!([]))];
    let mut of_nobody = CheckDefinition::new("x", "x", CheckKind::Ttl { ttl: Duration::from_secs(30) });
    of_nobody.service_id = "gone".into();
    let error = refused(&mut world, new(), vec![of_nobody]);
    assert_eq!(error.text, "Failed to register check 'x': ServiceID \"gone\" does not exist");
    let script = json!([ttl("d1"), {"args": ["true"], "interval": "10s"}]);
    let error = refused(&mut world, [new(), vec![service("d", script)]].concat(), Vec::new());
    assert!(error.text.starts_with("Failed to register service \"d\": Scripts are disabled"), "{error}");
    let nameless = CheckDefinition::new("", "", CheckKind::Ttl { ttl: Duration::from_secs(30) });
    assert_eq!(
        refused(&mut world, new(), vec![nameless]).text,
        "Failed to register check '': CheckID missing"
    );
    // What came from files before is known to have: it goes with the next reload that is fine.
    reload(&mut world, new(), Vec::new()).unwrap();
    world.serve();
    assert_eq!(world.catalog.services.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(world.catalog.checks.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["b1"]);
}

#[test]
fn a_reload_whose_sidecar_finds_no_port_changes_nothing() {
    let mut world = World::joined(Config { services: vec![service("a", json!([ttl("a1")]))], ..config() });
    for port in crate::agent::proxy::SIDECAR_PORTS {
        let body = json!({"Name": "taken", "ID": format!("taken-{port}"), "Port": port});
        let definition = Box::new(service_from_request(body.to_string().as_bytes()).unwrap());
        let call = Call::RegisterService { definition, replace_existing_checks: false };
        world.with(|agent, cx| agent.call(cx, call)).unwrap();
    }
    let sidecar = json!({"name": "e", "port": 80, "connect": {"sidecar_service": {}}});
    let sidecar = service_from_config("service", &sidecar).unwrap();
    let error = refused(&mut world, vec![service("b", json!([])), sidecar], Vec::new());
    assert!(error.text.contains("ports is free for a sidecar"), "{error}");
    assert!(world.agent.view().services.contains_key("a") && world.agent.view().checks.contains_key("a1"));
}
