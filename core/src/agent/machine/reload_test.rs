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
    world.with(|agent, cx| agent.call(cx, Call::Reload { services, checks }).map(|_| ()))
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

#[test]
fn a_refused_reload_changes_nothing() {
    let mut world = World::joined(Config { services: vec![service("a", json!([ttl("a1")]))], ..config() });
    let mut check = CheckDefinition::new("x", "x", CheckKind::Ttl { ttl: Duration::from_secs(30) });
    check.service_id = "gone".into();
    let error = reload(&mut world, Vec::new(), vec![check]).unwrap_err();
    assert_eq!(error.text, "ServiceID \"gone\" does not exist");
    assert!(world.agent.view().services.contains_key("a") && world.agent.view().checks.contains_key("a1"));
}
