//! Prepared queries: what they need, which one a name means, what they find, how they end.

use super::super::{Execute, Failover, PreparedCommand, PreparedQuery, ServiceQuery, Template, Unresolved};
use super::*;
use crate::coordinate::Coordinate;

pub(super) fn prepared(id: u128, name: &str, service: &str) -> PreparedQuery {
    PreparedQuery {
        id: Uuid(id),
        name: Text::new(name),
        service: ServiceQuery { service: Text::new(service), ..ServiceQuery::default() },
        ..PreparedQuery::default()
    }
}

fn template(id: u128, prefix: &str) -> PreparedQuery {
    let template = Template { by_prefix: true, ..Template::default() };
    PreparedQuery { template, ..prepared(id, prefix, &format!("of {prefix}|${{name.suffix}}")) }
}

fn create(query: PreparedQuery) -> Command {
    Command::Prepared(PreparedCommand::Create(Box::new(query)))
}

fn refused(world: &mut World, command: Command) -> String {
    let applied = world.apply(command);
    assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    let Response::Refused(refusal) = applied.response else { panic!("{:?}", applied.response) };
    refusal.to_string()
}

fn created(world: &mut World, query: PreparedQuery) {
    let id = query.id;
    assert_eq!(world.apply(create(query)).response, Response::PreparedQueryCreated(id));
}

#[test]
fn names_are_unique_and_sessions_must_be_there() {
    let mut world = World::default();
    created(&mut world, prepared(1, "Web", "web"));
    created(&mut world, template(2, ""));
    let id = Uuid(1).to_string();
    let cases = [
        (prepared(3, "wEB", "web"), "name 'wEB' aliases an existing query name"),
        (template(3, "web"), "name 'web' aliases an existing query name"),
        (prepared(3, &id, "web"), "name '00000000-0000-0000-0000-000000000001' aliases an existing query ID"),
        (template(3, ""), "a query template with an empty name already exists"),
        (prepared(3, "", "web"), "Invalid prepared query: Must be bound to a session"),
        (
            PreparedQuery { session: Some(Uuid(9)), ..prepared(3, "", "web") },
            "invalid session \"00000000-0000-0000-0000-000000000009\"",
        ),
    ];
    for (query, text) in cases {
        assert_eq!(refused(&mut world, create(query)), text);
    }
    for command in [PreparedCommand::Update(Box::new(prepared(3, "", ""))), PreparedCommand::Delete(Uuid(3))]
    {
        let text = "Cannot modify non-existent prepared query: '00000000-0000-0000-0000-000000000003'";
        assert_eq!(refused(&mut world, Command::Prepared(command)), text);
    }
}

#[test]
fn a_query_is_changed_in_place_and_its_former_name_is_free() {
    let mut world = World::default();
    created(&mut world, prepared(1, "a", "web"));
    let renamed = Box::new(prepared(1, "b", "db"));
    assert_eq!(world.apply(Command::Prepared(PreparedCommand::Update(renamed))).response, Response::Done);
    assert_eq!(world.store.resolve_prepared("a"), Err(Unresolved::Unknown));
    let query = world.store.resolve_prepared("B").unwrap();
    assert_eq!((query.service.service.as_str(), query.create_index, query.modify_index), ("db", 1, 2));
    created(&mut world, prepared(2, "a", "web"));
    assert_eq!(world.index_of(&Query::PreparedQueries), 3);
    assert_eq!(world.index_of(&Query::PreparedQuery(Uuid(1))), 2);
    world.apply(Command::Prepared(PreparedCommand::Delete(Uuid(1))));
    assert_eq!(world.index_of(&Query::PreparedQuery(Uuid(1))), 4);
    assert_eq!(world.store.resolve_prepared("b"), Err(Unresolved::Unknown));
}

#[test]
fn a_query_ends_with_its_session() {
    let mut world = World::default();
    world.register(node("n"));
    world.session(session(9, "n"));
    world.session(session(10, "n"));
    created(&mut world, PreparedQuery { session: Some(Uuid(9)), ..prepared(1, "", "web") });
    created(&mut world, PreparedQuery { session: Some(Uuid(9)), ..prepared(2, "named", "web") });
    created(&mut world, PreparedQuery { session: Some(Uuid(10)), ..prepared(3, "moved", "web") });
    let unbound = Box::new(prepared(3, "moved", "web"));
    world.apply(Command::Prepared(PreparedCommand::Update(unbound)));
    let applied = world.apply(Command::SessionDestroy { id: Uuid(9) });
    assert!(applied.touched.contains(&WatchKey::PreparedQuery(Uuid(1))));
    assert!(applied.touched.contains(&WatchKey::PreparedQueries));
    world.deregister("n", None, None);
    let Rows::Prepared(left) = world.store.evaluate(&Query::PreparedQueries).rows else { panic!("queries") };
    assert_eq!(left.iter().map(|query| query.name.as_str()).collect::<Vec<_>>(), ["moved"]);
}

#[test]
fn a_name_means_its_query_or_the_template_with_the_longest_name_before_it() {
    let mut world = World::default();
    created(&mut world, prepared(1, "abc", "exact"));
    for (id, prefix) in [(2, "a"), (3, "AB"), (4, "abd"), (5, "é"), (6, "ab-x")] {
        created(&mut world, template(id, prefix));
    }
    let of = |world: &World, name: &str| match world.store.resolve_prepared(name) {
        Ok(query) => query.service.service.to_string(),
        Err(why) => why.to_string(),
    };
    let cases = [
        ("abc", "exact"),
        ("ABC", "exact"),
        ("a", "of a|"),
        ("ab", "of AB|ab"),
        ("ABc2", "of AB|c2"),
        ("abe", "of AB|abe"),
        ("abdicate", "of abd|icate"),
        ("ab-", "of AB|ab-"),
        ("axe", "of a|xe"),
        ("éa", "of é|a"),
        ("è", "Query not found"),
        ("b", "Query not found"),
        ("", "Query not found"),
    ];
    for (name, service) in cases {
        assert_eq!(of(&world, name), service, "{name}");
    }
    created(&mut world, template(7, ""));
    assert_eq!(of(&world, "b"), "of |b");
    assert_eq!(of(&world, ""), "of |");
    assert_eq!(of(&world, &Uuid(1).to_string()), "exact");
    let by_id = Unresolved::TemplateById.to_string();
    assert_eq!(of(&world, &Uuid(7).to_string()), by_id);
    // An identity that nobody has is a name like any other.
    assert_eq!(of(&world, &Uuid(99).to_string()), format!("of |{}", Uuid(99)));
}

/// Nodes `a` to `e` with an instance each; `a` warns, `b` is critical, the others are well. Where `e` is nobody knows.
fn running() -> World {
    let mut world = World::default();
    let statuses =
        [Health::Warning, Health::Critical, Health::Passing, Health::Passing, Health::Passing].into_iter();
    for (at, (name, status)) in ["a", "b", "c", "d", "e"].into_iter().zip(statuses).enumerate() {
        let mut registration = node(name);
        registration.address = Text::new(format!("10.0.0.{at}"));
        registration.node_meta = [(Text::new("rack"), Text::new(if at < 3 { "1" } else { "2" }))].into();
        registration.service = Some(Service {
            tags: vec![Text::new(if at % 2 == 0 { "Even" } else { "odd" }), Text::new("v1")],
            meta: [(Text::new("name"), Text::new(name))].into(),
            ..service("web", "web")
        });
        registration.checks = vec![check(&format!("check-{name}"), "web", status)];
        world.register(registration);
    }
    let located = [("a", 0.4), ("b", 0.1), ("c", 0.3), ("d", 0.2)].map(|(name, x)| {
        let mut coordinate = Coordinate::default();
        coordinate.vec[0] = x;
        (Text::new(name), coordinate)
    });
    world.apply(Command::Coordinates(located.into()));
    world
}

fn found(world: &World, run: &Execute) -> String {
    let done = world.store.execute_prepared(run).expect("the query is there");
    done.instances.iter().map(|instance| instance.node.name.as_str()).collect()
}

fn sorted(mut world: World, change: impl Fn(&mut ServiceQuery)) -> String {
    let mut query = prepared(1, "q", "WEB");
    change(&mut query.service);
    created(&mut world, query);
    let run = Execute { query: Text::new("q"), ..Execute::default() };
    let mut letters: Vec<char> = found(&world, &run).chars().collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

#[test]
fn a_query_finds_the_instances_that_fit() {
    let list = |items: &[&str]| Some(items.iter().copied().map(Text::new).collect::<Vec<_>>());
    let pair = |key: &str, value: &str| Some([(Text::new(key), Text::new(value))].into());
    type Change = Box<dyn Fn(&mut ServiceQuery)>;
    let cases: [(&str, Change); 10] = [
        ("acde", Box::new(|_| {})),
        ("cde", Box::new(|query| query.only_passing = true)),
        ("abcde", Box::new(move |query| query.ignore_check_ids = list(&["check-b"]))),
        ("ace", Box::new(move |query| query.tags = list(&["even", "V1"]))),
        ("d", Box::new(move |query| query.tags = list(&["!EVEN"]))),
        ("", Box::new(move |query| query.tags = list(&["v1", "!v1"]))),
        ("de", Box::new(move |query| query.node_meta = pair("rack", "2"))),
        ("c", Box::new(move |query| query.service_meta = pair("name", "c"))),
        ("", Box::new(move |query| query.service_meta = pair("none", ""))),
        ("", Box::new(|query| query.connect = true)),
    ];
    for (expected, change) in cases {
        assert_eq!(sorted(running(), change), expected);
    }
}

#[test]
fn the_nearest_come_first_and_the_node_itself_before_all() {
    let mut world = running();
    created(&mut world, prepared(1, "q", "web"));
    let mut near = prepared(2, "near", "web");
    near.service.near = Text::new("_agent");
    created(&mut world, near);
    let run = |query: &str, near: &str| Execute {
        query: Text::new(query),
        near: Text::new(near),
        agent: Text::new("b"),
        client: Text::new("10.0.0.2"),
        ..Execute::default()
    };
    assert_eq!(found(&world, &run("q", "B")), "dcae");
    assert_eq!(found(&world, &run("q", "a")), "acde");
    assert_eq!(found(&world, &run("near", "")), "dcae");
    assert_eq!(found(&world, &run("near", "a")), "acde");
    assert!(["cade", "cdae"].contains(&found(&world, &run("q", "_ip")).as_str()));
    // Nobody knows where it is, but it is what was asked for.
    assert!(found(&world, &run("q", "e")).starts_with('e'));
    let limited = Execute { limit: Some(2), ..run("q", "a") };
    assert_eq!(found(&world, &limited), "ac");
    let stranger = Execute { client: Text::new("10.9.9.9"), ..run("q", "_ip") };
    assert_eq!(found(&world, &stranger).len(), 4);
}

#[test]
fn without_a_place_to_be_near_to_every_order_comes() {
    let mut world = running();
    let mut query = prepared(1, "q", "web");
    query.service.failover =
        Failover { nearest_n: 2, datacenters: Some(vec![Text::new("dc9")]), targets: None };
    query.dns_ttl = Text::new("7s");
    created(&mut world, query);
    let run = |seed| Execute { query: Text::new("q"), seed, ..Execute::default() };
    let firsts: std::collections::BTreeSet<char> =
        (0..64).filter_map(|seed| found(&world, &run(seed)).chars().next()).collect();
    assert_eq!(firsts.len(), 4);
    assert_eq!(found(&world, &run(5)), found(&world, &run(5)));
    let done = world.store.execute_prepared(&run(5)).unwrap();
    assert_eq!((done.service.as_str(), done.dns_ttl.as_str(), done.failovers), ("web", "7s", 0));
}
