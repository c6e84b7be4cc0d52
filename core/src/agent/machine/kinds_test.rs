//! Every kind of check: what its definition becomes, and what its results make of it.

use super::*;
use crate::agent::Tls;
use crate::agent::definition::check_from_config;

#[test]
fn every_kind_becomes_its_probe() {
    let mut world = World::joined(Config { scripts: Scripts::All, ..config() });
    for (field, kind, probe) in [
        (json!({"UDP": "h:1"}), "udp", ProbeKind::Udp { address: "h:1".into() }),
        (json!({"Args": ["a", "b"]}), "script", ProbeKind::Script { args: vec!["a".into(), "b".into()] }),
        (
            json!({"DockerContainerID": "c", "Shell": "/bin/sh", "Args": ["a"]}),
            "docker",
            ProbeKind::Docker { container: "c".into(), shell: "/bin/sh".into(), args: vec!["a".into()] },
        ),
        (json!({"GRPC": "h:1/s"}), "grpc", ProbeKind::Grpc { target: "h:1/s".into(), tls: None }),
        (
            json!({"H2PING": "h:1", "H2PingUseTLS": false}),
            "h2ping",
            ProbeKind::H2Ping { address: "h:1".into(), tls: None },
        ),
        (json!({"OSService": "sshd"}), "os_service", ProbeKind::OsService { name: "sshd".into() }),
    ] {
        let mut body = field;
        body["Name"] = kind.into();
        body["Interval"] = "10s".into();
        world.register_check(&body).unwrap();
        assert_eq!(world.agent.view().checks[kind].kind, kind);
        let mut seen = Vec::new();
        world.run_for(10 * SECOND, |probe| {
            seen.push(probe.kind.clone());
            Health::Passing
        });
        assert!(seen.contains(&probe), "{seen:?}");
        assert_eq!(world.check(kind).0, Health::Passing);
        world.call(Call::DeregisterCheck { id: kind.into() }).unwrap();
    }
}

#[test]
fn what_is_asked_of_tls_reaches_the_probe() {
    let mut world = World::joined(config());
    let tls = |skip_verify, name: &str| Tls { skip_verify, server_name: name.into() };
    let (target, address) = (Text::new("h:1"), Text::new("h:1"));
    for (field, kind, probe) in [
        (
            json!({"GRPC": "h:1", "GRPCUseTLS": true, "TLSSkipVerify": true}),
            "grpc",
            ProbeKind::Grpc { target, tls: Some(tls(true, "")) },
        ),
        (
            json!({"H2PING": "h:1", "TLSServerName": "n"}),
            "h2ping",
            ProbeKind::H2Ping { address: address.clone(), tls: Some(tls(false, "n")) },
        ),
        (
            json!({"TCP": "h:1", "TCPUseTLS": true, "TLSServerName": "n", "TLSSkipVerify": true}),
            "tcp",
            ProbeKind::Tcp { address, tls: Some(tls(true, "n")) },
        ),
    ] {
        let mut body = field;
        body["Name"] = "x".into();
        body["Interval"] = "10s".into();
        world.register_check(&body).unwrap();
        assert_eq!(world.agent.view().checks["x"].kind, kind);
        let mut seen = Vec::new();
        world.run_for(10 * SECOND, |probe| {
            seen.push(probe.kind.clone());
            Health::Passing
        });
        assert!(seen.contains(&probe), "{seen:?}");
        world.call(Call::DeregisterCheck { id: "x".into() }).unwrap();
    }
}

#[test]
fn programs_run_only_where_that_is_allowed() {
    let body = json!({"name": "x", "args": ["true"], "interval": "10s"});
    let from_file = || check_from_config("check", &body).unwrap();
    for (scripts, by_request, by_file) in
        [(Scripts::None, false, false), (Scripts::OfFiles, false, true), (Scripts::All, true, true)]
    {
        let config = Config { scripts, ..config() };
        let mut world = World::joined(config.clone());
        let registered = world.register_check(&json!({"Name": "x", "Args": ["true"], "Interval": "10s"}));
        assert_eq!(registered.is_ok(), by_request, "{scripts:?}");
        if let Err(error) = registered {
            assert!(error.status == 500 && error.text.starts_with("Scripts are disabled on this agent from"));
        }
        let reloaded = world.call(Call::Reload {
            services: Vec::new(),
            checks: vec![from_file()],
            settings: Reloaded::default(),
        });
        assert_eq!(reloaded.is_ok(), by_file, "{scripts:?}");
        let started =
            Agent::new(Config { checks: vec![from_file()], ..config }, &[], Rng::from_seed(1), world.now);
        assert_eq!(started.is_ok(), by_file, "{scripts:?}");
    }
}

#[test]
fn thresholds_hold_back_what_is_told_to_the_catalog() {
    let mut world = World::joined(config());
    world
        .register_check(&json!({
            "Name": "x", "TCP": "h:1", "Interval": "10s", "Status": "passing",
            "SuccessBeforePassing": 2, "FailuresBeforeWarning": 1, "FailuresBeforeCritical": 3,
        }))
        .unwrap();
    // The first result counts at once, whatever it is.
    world.run_for(10 * SECOND, passing);
    let mut told = Vec::new();
    for result in [Health::Critical, Health::Critical, Health::Critical, Health::Passing, Health::Passing] {
        world.run_for(10 * SECOND, |_| result);
        told.push((world.check("x").0, world.catalog.checks["x"].status));
    }
    let both = |health| (health, health);
    // A run falls into each ten seconds, and its result is seen in the next.
    let expected = [Health::Warning, Health::Warning, Health::Critical, Health::Critical, Health::Passing];
    assert_eq!(told, expected.map(both));
}

#[test]
fn an_alias_of_another_node_follows_the_catalog() {
    let mut world = World::joined(config());
    world.register_check(&json!({"Name": "x", "AliasNode": "other", "AliasService": "db"})).unwrap();
    let check = |service: &str, status, output: &str| Check {
        name: "c".into(),
        service_id: service.into(),
        status,
        output: output.into(),
        ..Check::default()
    };
    let row = Service { id: "db".into(), ..Service::default() };
    let with = |checks| Some(CatalogState { node: None, services: vec![row.clone()], checks });
    let critical = |text: &str| (Health::Critical, text.to_owned());
    let silent = "Failure checking aliased node or service: the servers do not answer";
    for (catalog, expected) in [
        (Some(CatalogState::default()), critical("Service db could not be found on node other")),
        (with(Vec::new()), (Health::Passing, "No checks found.".to_owned())),
        (
            with(vec![
                check("", Health::Passing, ""),
                check("db", Health::Warning, "slow"),
                check("web", Health::Critical, "gone"),
            ]),
            (Health::Warning, "Aliased check \"c\" failing: slow".to_owned()),
        ),
        (None, (Health::Warning, "Aliased check \"c\" failing: slow".to_owned())),
        (None, critical(silent)),
        (with(Vec::new()), (Health::Passing, "No checks found.".to_owned())),
    ] {
        world.run_for(6 * SECOND, passing);
        let (ticket, node) = world.readings.pop().expect("it is looked at again");
        assert_eq!((node.as_str(), world.readings.len()), ("other", 0));
        world.with(|agent, cx| agent.on_catalog(cx, ticket, catalog));
        let (status, output) = world.check("x");
        assert_eq!((status, output.to_string()), expected);
    }
    world.run_for(6 * SECOND, passing);
    let (ticket, _) = world.readings.pop().expect("it is looked at again");
    world.call(Call::DeregisterCheck { id: "x".into() }).unwrap();
    world.with(|agent, cx| agent.on_catalog(cx, ticket, None));
    world.run_for(6 * SECOND, passing);
    assert!(world.readings.is_empty() && world.agent.readings.is_empty());
}
