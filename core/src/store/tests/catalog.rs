//! The catalog: registering, renaming, deregistering, and the indexes of what is listed.

use super::*;

fn with_id(name: &str, id: u128) -> Registration {
    Registration { id: Some(Uuid(id)), ..node(name) }
}

fn vouched(name: &str, id: Option<u128>, status: Health) -> Registration {
    Registration { id: id.map(Uuid), checks: vec![check("serfHealth", "", status)], ..node(name) }
}

fn refusal(applied: &Applied) -> Option<String> {
    match &applied.response {
        Response::Refused(refusal) => Some(refusal.to_string()),
        _ => None,
    }
}

#[test]
fn registering_the_same_again_changes_nothing() {
    let mut world = World::default();
    let mut registration = with_id("n", 5);
    registration.service = Some(service("web", "web"));
    registration.checks = vec![check("c", "web", Health::Passing), check("d", "", Health::Passing)];
    let first = world.register(registration.clone());
    assert!(touched(&first, &WatchKey::Service(Text::new("web"))));
    let again = world.register(registration);
    assert_eq!(again.response, Response::Done);
    assert!(again.touched.is_empty() && again.dirty.is_empty(), "{again:?}");
}

#[test]
fn a_node_is_replaced_as_a_whole_and_keeps_its_create_index() {
    let mut world = World::default();
    let meta = [(Text::new("rack"), Text::new("1"))].into();
    world.register(Registration { node_meta: meta, ..with_id("n1", 5) });
    world.register(Registration { address: Text::new("10.0.0.2"), ..node("N1") });
    let row = world.store.node("n1").expect("it is there");
    assert_eq!((row.name.as_str(), row.id, row.meta.len()), ("N1", None, 0));
    assert_eq!((row.create_index, row.modify_index), (1, 2));
    world.register(Registration {
        address: Text::new("10.9.9.9"),
        skip_node_update: true,
        service: Some(service("s", "s")),
        ..node("n1")
    });
    assert_eq!(world.store.node("n1").expect("still there").address, "10.0.0.2");
    assert_eq!(world.store.node_services("n1").len(), 1);
    world.register(Registration { skip_node_update: true, ..node("new") });
    assert!(world.store.node("new").is_some(), "there is no row to leave as it is");
}

#[test]
fn an_identity_under_a_new_name_is_a_rename_that_leaves_everything_behind() {
    let mut world = World::default();
    let mut registration = vouched("old", Some(5), Health::Passing);
    registration.service = Some(service("web", "web"));
    world.register(registration);
    let id = world.session(session(1, "old"));
    world.kv(KvVerb::Acquire(id), "k", "v");
    let applied = world.register(Registration { skip_node_update: true, ..with_id("new", 5) });
    assert_eq!(applied.response, Response::Done);
    assert!(world.store.node("old").is_none());
    let row = world.store.node_by_id(Uuid(5)).expect("renamed");
    assert_eq!((row.name.as_str(), row.create_index, row.modify_index), ("new", 1, 4));
    assert!(world.store.node_services("new").is_empty() && world.store.node_checks("new").is_empty());
    assert!(world.store.session(id).is_none());
    assert_eq!(world.entry("k").session, None);
    assert!(touched(&applied, &WatchKey::Service(Text::new("web"))));
}

#[test]
fn a_name_that_gossip_vouches_for_is_not_given_to_another_identity() {
    let taken = "failed inserting node: Error while renaming Node ID: \"00000000-0000-0000-0000-000000000002\": Node \
                 name x1 is reserved by node 00000000-0000-0000-0000-000000000001 with name x1 (10.0.0.1)";
    let cases = [
        (Some(1), Health::Passing, false),
        (Some(1), Health::Warning, false),
        (Some(1), Health::Critical, true),
        (None, Health::Passing, true),
    ];
    for (holder, status, given) in cases {
        let mut world = World::default();
        world.register(vouched("x1", holder, status));
        let mut registration = with_id("x1", 2);
        registration.service = Some(service("web", "web"));
        let applied = world.register(registration);
        assert_eq!(refusal(&applied).as_deref(), (!given).then_some(taken), "{holder:?} {status:?}");
        assert_eq!(world.store.node_services("x1").is_empty(), !given, "refused as a whole");
        assert_eq!(applied.touched.is_empty(), !given);
    }
    let mut world = World::default();
    world.register(vouched("x1", Some(1), Health::Passing));
    world.register(vouched("x2", Some(2), Health::Passing));
    let text = refusal(&world.register(with_id("X1", 2))).expect("refused");
    assert!(text.contains("\"00000000-0000-0000-0000-000000000002\" (10.0.0.1): Node name x1"), "{text}");
    assert!(world.store.node("x2").is_some());
}

#[test]
fn a_check_needs_its_service_and_shows_its_name_and_tags() {
    let mut world = World::default();
    let mut registration = node("q");
    registration.checks = vec![check("c", "none", Health::Passing)];
    let text = refusal(&world.register(registration));
    assert_eq!(text.as_deref(), Some("failed inserting check: Missing service registration on node \"q\""));
    assert!(world.store.node("q").is_none(), "refused as a whole");

    let mut registration = node("q");
    let tags = vec![Text::new("v1")];
    registration.service = Some(Service { tags, ..service("Web1", "web") });
    registration.checks = vec![check("c", "web1", Health::Passing)];
    world.register(registration);
    let row = world.store.check("Q", "C").expect("it is there").clone();
    assert_eq!((row.node.as_str(), row.service_name.as_str()), ("q", "web"));
    assert_eq!(row.service_tags, [Text::new("v1")]);

    let renamed = Registration { service: Some(service("WEB1", "www")), ..node("q") };
    let applied = world.register(renamed);
    let row = world.store.check("q", "c").expect("it stays");
    assert_eq!((row.service_name.as_str(), row.service_tags.len(), row.modify_index), ("www", 0, 3));
    for name in ["web", "www"] {
        assert!(touched(&applied, &WatchKey::Service(Text::new(name))), "{name}");
    }
    let of = |service| Query::ServiceChecks { service: Text::new(service), meta: Vec::new() };
    assert_eq!(ids(&world.store.evaluate(&of("WWW"))), ["q/c"]);
    assert!(ids(&world.store.evaluate(&of("web"))).is_empty());
    assert_eq!(ids(&world.store.evaluate(&health_of("www"))), ["q/WEB1"]);
}

#[test]
fn deregistering_takes_along_what_depends_on_it() {
    let full = || {
        let mut world = World::default();
        let mut registration = node("n");
        registration.service = Some(service("a", "a"));
        registration.checks = vec![check("na", "", Health::Passing), check("ca", "a", Health::Passing)];
        world.register(registration);
        world.register(Registration {
            service: Some(service("b", "b")),
            checks: vec![check("cb", "b", Health::Passing)],
            ..node("n")
        });
        world
    };
    let mut world = full();
    world.deregister("N", Some("A"), None);
    assert_eq!(ids(&world.store.evaluate(&Query::NodeChecks(Text::new("n")))), ["n/cb", "n/na"]);
    assert_eq!(ids(&world.store.evaluate(&Query::Node(Text::new("n")))), ["b"]);
    let mut world = full();
    world.deregister("n", None, None);
    let gone = [
        Query::Nodes { meta: Vec::new() },
        Query::Node(Text::new("n")),
        Query::NodeChecks(Text::new("n")),
        Query::ChecksInState { state: None, meta: Vec::new() },
        health_of("a"),
        Query::Services { meta: Vec::new() },
    ];
    for query in gone {
        assert!(!world.store.evaluate(&query).exists, "{query:?}");
        assert_eq!(world.index_of(&query), 3, "{query:?}");
    }
    for (service, check) in [(None, None), (Some("a"), None), (None, Some("ca"))] {
        let applied = world.deregister("n", service, check);
        assert_eq!(applied.response, Response::Done);
        assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    }
}

#[test]
fn a_check_moves_the_index_of_its_service_and_a_nodes_check_that_of_all() {
    let mut world = World::default();
    for name in ["a", "b"] {
        let checks = vec![check(name, name, Health::Passing)];
        world.register(Registration { service: Some(service(name, name)), checks, ..node("n") });
    }
    world.register(Registration { service: Some(service("c", "c")), ..node("m") });
    let indexes = |world: &World| ["a", "b", "c"].map(|name| world.index_of(&health_of(name)));
    assert_eq!(indexes(&world), [1, 2, 3]);
    world.register(Registration { checks: vec![check("a", "a", Health::Critical)], ..node("n") });
    assert_eq!(indexes(&world), [4, 2, 3]);
    let applied = world.register(Registration { checks: vec![check("x", "", Health::Passing)], ..node("n") });
    assert_eq!(indexes(&world), [5, 5, 3]);
    for (name, hit) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(touched(&applied, &WatchKey::Service(Text::new(name))), hit);
    }
    world.register(Registration { address: Text::new("10.0.0.9"), ..node("n") });
    assert_eq!(indexes(&world), [6, 6, 3]);
    world.deregister("n", None, Some("x"));
    assert_eq!(indexes(&world), [7, 7, 3]);
    world.set("k", "v");
    assert_eq!(indexes(&world), [7, 7, 3]);
}

#[test]
fn an_unregistered_service_is_woken_only_by_its_own_coming() {
    let mut world = World::default();
    let query = health_of("Later");
    world.register(Registration { service: Some(service("a", "a")), ..node("n") });
    let found = world.store.evaluate(&query);
    assert_eq!((found.index, found.exists), (1, false));
    let other = world.register(Registration { service: Some(service("b", "b")), ..node("n") });
    let own = world.register(Registration { service: Some(service("l", "later")), ..node("n") });
    assert!(!found.watch.iter().any(|key| touched(&other, key)));
    assert!(found.watch.iter().any(|key| touched(&own, key)));
    assert_eq!(world.index_of(&query), 3);
    world.deregister("n", Some("l"), None);
    assert_eq!(world.index_of(&query), 4);
}

#[test]
fn instances_are_selected_by_tag_health_and_metadata() {
    let mut world = World::default();
    for (name, tags, status, rack) in [
        ("a", ["v1", "Blue"], Health::Passing, "1"),
        ("b", ["v2", "blue"], Health::Warning, "1"),
        ("c", ["v2", "green"], Health::Critical, "2"),
    ] {
        let tags = tags.iter().copied().map(Text::new).collect();
        world.register(Registration {
            service: Some(Service { tags, ..service("web", "Web") }),
            checks: vec![check("z", "", status), check("own", "web", Health::Passing)],
            node_meta: [(Text::new("rack"), Text::new(rack))].into(),
            ..node(name)
        });
    }
    let find = |tags: &[&str], rack: Option<&str>, passing: bool| {
        let select = ServiceSelector {
            service: Text::new("wEb"),
            tags: tags.iter().copied().map(Text::new).collect(),
            node_meta: rack.map(|rack| (Text::new("rack"), Text::new(rack))).into_iter().collect(),
            connect: false,
        };
        ids(&world.store.evaluate(&Query::ServiceHealth { select, passing }))
    };
    assert_eq!(find(&[], None, false), ["a/web", "b/web", "c/web"]);
    assert_eq!(find(&[], None, true), ["a/web"]);
    assert_eq!(find(&["BLUE"], None, false), ["a/web", "b/web"]);
    assert_eq!(find(&["v2", "blue"], None, false), ["b/web"]);
    assert_eq!(find(&["v2"], None, true), [""; 0]);
    assert_eq!(find(&[], Some("2"), false), ["c/web"]);
    let list = world.store.service_instances("WEB").expect("registered");
    let order: Vec<&str> = list.items[0].checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(order, ["z", "own"], "the node's checks come first");
}

#[test]
fn mesh_traffic_finds_proxies_and_native_services() {
    let mut world = World::default();
    let proxy = Service {
        kind: super::super::model::ServiceKind::ConnectProxy,
        proxy: Text::new("{\"DestinationServiceName\":\"Web\"}"),
        ..service("p", "web-proxy")
    };
    world.register(Registration { service: Some(proxy), ..node("n") });
    world.register(Registration { service: Some(service("w", "web")), ..node("n") });
    let select = ServiceSelector { service: Text::new("web"), connect: true, ..Default::default() };
    let query = Query::ServiceNodes(select);
    let found = world.store.evaluate(&query);
    assert_eq!((ids(&found), found.index), (vec!["n/p".to_owned()], 1));
    let native = Service { connect_native: true, ..service("w", "web") };
    let applied = world.register(Registration { service: Some(native), ..node("n") });
    assert!(found.watch.iter().any(|key| touched(&applied, key)));
    assert_eq!(ids(&world.store.evaluate(&query)), ["n/p", "n/w"]);
    world.deregister("n", Some("p"), None);
    assert_eq!(ids(&world.store.evaluate(&query)), ["n/w"]);
}

#[test]
fn readers_share_one_list_and_one_rendering_until_something_changes() {
    let mut world = World::default();
    for name in ["a", "b"] {
        world.register(Registration { service: Some(service("web", "web")), ..node(name) });
    }
    let view = world.store.clone();
    let list = |store: &Store| store.service_instances("web").expect("registered").clone();
    let first = list(&view);
    first.items[0].rendered.get(1, || Bytes::from_static(b"a"));
    assert!(std::sync::Arc::ptr_eq(&first, &list(&world.store)), "a view is the same store");
    world.register(Registration { address: Text::new("10.0.0.9"), ..node("b") });
    let second = list(&world.store);
    assert!(!std::sync::Arc::ptr_eq(&first, &second));
    assert!(std::sync::Arc::ptr_eq(&first.items[0], &second.items[0]), "untouched instances stay");
    assert_eq!(second.items[0].rendered.get(1, || unreachable!("rendered before")), "a");
    assert!(std::sync::Arc::ptr_eq(&first, &list(&view)), "the old view stays as it is");
}

#[test]
fn names_of_services_come_with_their_distinct_tags() {
    let mut world = World::default();
    for (name, tags) in [("a", ["v1", "blue"]), ("b", ["v2", "blue"])] {
        let tags = tags.iter().copied().map(Text::new).collect();
        world.register(Registration {
            service: Some(Service { tags, ..service("web", "web") }),
            node_meta: [(Text::new("name"), Text::new(name))].into(),
            ..node(name)
        });
    }
    let tags = |meta: Vec<(Text, Text)>| match world.store.evaluate(&Query::Services { meta }).rows {
        Rows::Services(names) => names[&Text::new("web")].iter().map(Text::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(tags(Vec::new()), ["blue", "v1", "v2"]);
    assert_eq!(tags(vec![(Text::new("name"), Text::new("a"))]), ["blue", "v1"]);
}
