//! What holds after any history: indexes and wakes tell of every change, rows are the whole store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::model::{ServiceCheck, ServiceKind};
use super::super::{
    IntentionCommand, IntentionDraft, Lookup, Operation, PreparedCommand, PreparedQuery, RowKey, Side,
    StoreBuilder,
};
use super::*;
use crate::config_entry::{Draft, Kind};
use crate::coordinate::Coordinate;
use crate::testing::frugal;
use crate::testing::fuzz::hostile;

const KEYS: [&str; 6] = ["a", "a/b", "a/b/c", "a/d", "b", "a\u{0}é"];
const NODES: [&str; 4] = ["n1", "N1", "n2", "n\u{0}"];
const SERVICES: [&str; 3] = ["s1", "S1", "s2"];
const NAMES: [&str; 3] = ["web", "Web", "db"];
const CHECKS: [&str; 4] = ["serfHealth", "c1", "C1", "c2"];
const ADDRESSES: [&str; 4] = ["", "10.0.0.1", "::ffff:10.0.0.1", "host.example"];
const TAGS: [&str; 3] = ["v1", "V1", "blue"];

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = Text> {
    select(choices).prop_map(Text::new)
}

fn session_id() -> impl Strategy<Value = Uuid> {
    (1..4u128).prop_map(Uuid)
}

fn health() -> impl Strategy<Value = Health> {
    select(&[Health::Passing, Health::Passing, Health::Warning, Health::Critical][..])
}

fn meta() -> impl Strategy<Value = BTreeMap<Text, Text>> {
    option::of(select(&["1", "2"][..]))
        .prop_map(|rack| rack.map(|rack| (Text::new("rack"), Text::new(rack))).into_iter().collect())
}

/// Any command on keys. Indexes are small, so that conditions hold now and then.
pub(super) fn any_kv() -> impl Strategy<Value = Command> {
    let verb = prop_oneof![
        3 => Just(KvVerb::Set),
        1 => (0..20u64).prop_map(KvVerb::Cas),
        4 => session_id().prop_map(KvVerb::Acquire),
        1 => session_id().prop_map(KvVerb::Release),
        1 => Just(KvVerb::Delete),
        1 => (0..20u64).prop_map(KvVerb::DeleteCas),
        1 => Just(KvVerb::DeleteTree),
    ];
    (verb, select(&KEYS[..]), select(&["", "x", "y"][..]), 0..2u64)
        .prop_map(|(verb, key, value, flags)| kv_command(verb, key, value, flags))
}

/// Any session on a node, bound to some checks.
pub(super) fn any_session() -> impl Strategy<Value = Command> {
    let checks = || vec(text(&CHECKS), 0..2);
    (session_id(), text(&NODES), checks(), option::of(checks()), any::<bool>(), any::<bool>()).prop_map(
        |(id, node, node_checks, service_checks, delayed, delete)| {
            Command::SessionCreate(Box::new(Session {
                lock_delay: Duration::from_secs(u64::from(delayed)),
                behavior: if delete { SessionBehavior::Delete } else { SessionBehavior::Release },
                node_checks,
                service_checks: service_checks
                    .map(|ids| ids.into_iter().map(|id| ServiceCheck { id }).collect()),
                ..session(id.0, &node)
            }))
        },
    )
}

fn any_service() -> impl Strategy<Value = Service> {
    let ids = (text(&SERVICES), text(&NAMES), text(&ADDRESSES));
    (ids, vec(text(&TAGS), 0..2), 0..2u16, any::<bool>(), any::<bool>()).prop_map(
        |((id, name, address), tags, port, native, proxy)| Service {
            tags,
            address,
            port,
            connect_native: native,
            kind: if proxy { ServiceKind::ConnectProxy } else { ServiceKind::Typical },
            proxy: if proxy { Text::new("{\"DestinationServiceName\":\"db\"}") } else { Text::default() },
            ..service(&id, &name)
        },
    )
}

fn any_check() -> impl Strategy<Value = Check> {
    (text(&CHECKS), option::of(text(&SERVICES)), health(), 0..2u8).prop_map(
        |(id, service, status, output)| Check {
            output: Text::new(output.to_string()),
            ..check(&id, &service.unwrap_or_default(), status)
        },
    )
}

/// Any registration; with `ids` nodes have identities and may be renamed.
pub(super) fn any_registration(ids: bool) -> impl Strategy<Value = Command> {
    let id = option::of((1..4u128).prop_map(Uuid)).prop_map(move |id| id.filter(|_| ids));
    ((id, text(&NODES), 0..2u8, meta()), option::of(any_service()), vec(any_check(), 0..3), any::<bool>())
        .prop_map(|((id, name, address, node_meta), service, checks, skip_node_update)| {
            Command::Register(Box::new(Registration {
                id,
                address: Text::new(format!("10.0.0.{address}")),
                node_meta,
                service,
                checks,
                skip_node_update,
                ..node(&name)
            }))
        })
}

pub(super) fn any_deregistration() -> impl Strategy<Value = Command> {
    (text(&NODES), option::of(text(&SERVICES)), option::of(text(&CHECKS))).prop_map(
        |(node, service_id, check_id)| Command::Deregister(Deregistration { node, service_id, check_id }),
    )
}

/// One of few, so that the same one comes again.
fn any_coordinate() -> impl Strategy<Value = Coordinate> {
    (0..3u8).prop_map(|height| Coordinate { height: f64::from(height), ..Coordinate::default() })
}

/// Any change of a prepared query; names, sessions and templates meet and miss.
fn any_prepared() -> impl Strategy<Value = Command> {
    let query =
        (1..4u128, select(&["", "a", "A", "ab"][..]), text(&NAMES), option::of(session_id()), any::<bool>());
    (query, 0..4u8).prop_map(|((id, name, service, session, by_prefix), verb)| {
        let mut query = PreparedQuery { session, ..super::prepared::prepared(id, name, &service) };
        query.template.by_prefix = by_prefix;
        Command::Prepared(match verb {
            0 => PreparedCommand::Delete(query.id),
            1 => PreparedCommand::Update(Box::new(query)),
            // The proposer draws an identity that nobody has.
            _ => PreparedCommand::Create(Box::new(query)),
        })
    })
}

/// Any change of an intention; identities, pairs and wildcards meet and miss.
fn any_intention() -> impl Strategy<Value = Command> {
    let pair = (select(&["web", "db", "*"][..]), select(&["web", "DB", "db", "*"][..]), any::<bool>());
    (pair, 1..5u128, 0..5u8).prop_map(|((source, destination, allow), id, verb)| {
        let (source, destination) = (Text::new(source), Text::new(destination));
        let draft = Box::new(IntentionDraft {
            source: source.clone(),
            destination: destination.clone(),
            action: Text::new(if allow { "allow" } else { "deny" }),
            ..IntentionDraft::default()
        });
        let id = Uuid(id);
        Command::Intention(match verb {
            0 => IntentionCommand::Update { id, draft },
            1 => IntentionCommand::Delete { id },
            2 => IntentionCommand::Upsert(draft),
            3 => IntentionCommand::DeleteExact { source, destination },
            _ => IntentionCommand::Create { id, draft },
        })
    })
}

pub(super) fn any_command(ids: bool) -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any_kv(),
        3 => any_session(),
        1 => session_id().prop_map(|id| Command::SessionDestroy { id }),
        6 => any_registration(ids),
        2 => any_deregistration(),
        1 => (select(&KEYS[..]), 0..40u64).prop_map(|(key, begun)| {
            // Every index is tried, so that the right one is among them.
            let keys = (begun..begun + 10).map(|begun| (Text::new(key), begun)).collect();
            Command::LockDelayOver { keys }
        }),
        1 => (0..40u64).prop_map(|up_to| Command::ReapTombstones { up_to }),
        2 => vec((text(&NODES), any_coordinate()), 0..3).prop_map(Command::Coordinates),
    ]
}

/// Any operation of a transaction; of the catalog, conditional ones too.
pub(super) fn any_operation() -> impl Strategy<Value = Operation> {
    let cas = || option::of(0..20u64);
    let lookup = prop_oneof![
        text(&KEYS).prop_map(Lookup::Kv),
        text(&KEYS).prop_map(Lookup::KvOrEmpty),
        text(&KEYS).prop_map(Lookup::KvTree),
        text(&KEYS).prop_map(Lookup::KvAbsent),
        (text(&NODES)).prop_map(|name| Lookup::Node { id: None, name }),
    ];
    prop_oneof![
        1 => lookup.prop_map(Operation::Look),
        6 => any_kv().prop_map(|command| match command {
            Command::Kv(command) => Operation::Kv(command),
            other => unreachable!("{other:?} is about no key"),
        }),
        4 => (any_registration(true), 0..3u8, cas()).prop_map(|(command, part, cas)| {
            let Command::Register(mut registration) = command else { unreachable!("a registration") };
            registration.checks.truncate(1);
            match part {
                0 => (registration.service, registration.checks) = (None, Vec::new()),
                1 => registration.checks.clear(),
                _ => registration.service = None,
            }
            let of_node = registration.service.is_none() && registration.checks.is_empty();
            registration.skip_node_update = !of_node;
            Operation::Put { registration, cas }
        }),
        2 => (any_deregistration(), cas()).prop_map(|(command, cas)| match command {
            Command::Deregister(deregistration) => Operation::Remove { deregistration, cas },
            other => unreachable!("{other:?} removes nothing"),
        }),
    ]
}

/// Any command, transactions and prepared queries included.
fn any_change() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => any_command(true),
        1 => vec(any_operation(), 0..5).prop_map(Command::Transaction),
        1 => any_entry(),
        1 => any_prepared(),
        2 => any_intention(),
    ]
}

/// A configuration entry that comes or goes.
fn any_entry() -> impl Strategy<Value = Command> {
    const KINDS: &[Kind] = &[Kind::ServiceDefaults, Kind::ServiceResolver, Kind::ServiceSplitter];
    let entry = (select(KINDS), text(&NAMES), any::<bool>(), any::<bool>(), option::of(0..20u64));
    entry.prop_map(|(kind, name, gone, other, cas)| {
        if gone {
            return Command::ConfigDelete { kind, name, cas };
        }
        let fields = match kind {
            Kind::ServiceDefaults => serde_json::json!({"Protocol": if other { "tcp" } else { "http" }}),
            Kind::ServiceResolver => {
                serde_json::json!({"Redirect": {"Service": if other { "db" } else { "web" }}})
            }
            _ => serde_json::json!({"Splits": [{"Weight": 50}, {"Weight": 50, "Service": "none"}]}),
        };
        let mut entry = serde_json::json!({"Kind": kind.as_str(), "Name": name.as_str()});
        entry.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        Command::ConfigSet { entry: Box::new(Draft::parse(&entry).expect("it makes sense by itself")), cas }
    })
}

/// Every query that could find something, and some that could not.
pub(super) fn queries() -> Vec<Query> {
    let metas = [Vec::new(), vec![(Text::new("rack"), Text::new("1"))]];
    let mut queries = vec![Query::Sessions, Query::Coordinates, Query::ConfigEntries(None)];
    queries.extend([Query::UiServices, Query::UiNodes(None), Query::UiTopology(Text::new("db"))]);
    queries.push(Query::DiscoveryChain {
        service: Text::new("web"),
        datacenter: Text::new("dc1"),
        overrides: Box::default(),
    });
    for kind in [Kind::ServiceDefaults, Kind::ServiceResolver, Kind::Mesh] {
        queries.push(Query::ConfigEntries(Some(kind)));
        for name in ["web", "DB", "none"] {
            queries.push(Query::ConfigEntry { kind, name: Text::new(name) });
        }
    }
    queries.push(Query::Intentions);
    queries.extend((1..5).map(|id| Query::Intention(Uuid(id))));
    for name in ["web", "db", "*"] {
        let (source, destination) = (Text::new("web"), Text::new(name));
        queries.push(Query::ExactIntention { source: source.clone(), destination: destination.clone() });
        queries.push(Query::CheckIntention { source, destination });
        for side in [Side::Source, Side::Destination] {
            let names = vec![(Text::new(name), Text::new(name))];
            queries.push(Query::MatchIntentions { side, names });
        }
    }
    queries.push(Query::PreparedQueries);
    queries.extend((1..4).map(|id| Query::PreparedQuery(Uuid(id))));
    for key in KEYS.iter().chain(&["none"]) {
        queries.push(Query::Kv(Text::new(key)));
    }
    for prefix in ["", "a", "a/", "a/b", "b", "none"] {
        queries.push(Query::KvTree(Text::new(prefix)));
        for separator in ["", "/"] {
            queries.push(Query::KvKeys { prefix: Text::new(prefix), separator: Text::new(separator) });
        }
    }
    queries.extend((1..4).map(|id| Query::Session(Uuid(id))));
    for name in NODES {
        queries.push(Query::NodeSessions(Text::new(name)));
        queries.push(Query::Node(Text::new(name)));
        queries.push(Query::NodeChecks(Text::new(name)));
        queries.push(Query::NodeCoordinates(Text::new(name)));
    }
    for meta in metas {
        queries.push(Query::Nodes { meta: meta.clone() });
        queries.push(Query::Services { meta: meta.clone() });
        for state in [None, Some(Health::Passing), Some(Health::Critical)] {
            queries.push(Query::ChecksInState { state, meta: meta.clone() });
        }
        for name in ["web", "DB", "none"] {
            let service = Text::new(name);
            queries.push(Query::ServiceChecks { service: service.clone(), meta: meta.clone() });
            for (connect, tags) in [(false, vec![]), (true, vec![]), (false, vec![Text::new("v1")])] {
                let select =
                    ServiceSelector { service: service.clone(), tags, node_meta: meta.clone(), connect };
                queries.push(Query::ServiceNodes(select.clone()));
                for passing in [false, true] {
                    queries.push(Query::ServiceHealth { select: select.clone(), passing });
                }
            }
        }
    }
    queries
}

/// Whether two answers show the same, whatever the index that comes along with instances.
fn same(a: &Rows, b: &Rows) -> bool {
    match (a, b) {
        (Rows::Instances(a), Rows::Instances(b)) => a.items == b.items,
        (a, b) => a == b,
    }
}

pub(super) fn all_rows(store: &Store) -> BTreeMap<RowKey, Vec<u8>> {
    store.rows().map(|key| (key.clone(), store.row(&key).expect("it is listed"))).collect()
}

/// Nodes and services are found by address as a walk over all of them would find them.
fn addresses_agree(store: &Store) {
    for octet in 0..3 {
        let address = IpAddr::from([10, 0, 0, octet]);
        let has = |text: &Text| text.parse::<IpAddr>().is_ok_and(|has| has.to_canonical() == address);
        let mut services = store.nodes().flat_map(|node| store.node_services(&node.name));
        assert_eq!(store.node_at(address), store.nodes().find(|node| has(&node.address)));
        assert_eq!(store.service_at(address), services.find(|service| has(&service.address)).as_ref());
    }
}

fn rebuilt(store: &Store) -> Store {
    let mut builder = StoreBuilder::new();
    for (key, value) in all_rows(store) {
        builder.put_row(key.as_bytes(), &value).expect("own rows are good");
    }
    builder.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_change_of_an_answer_raises_its_index_and_touches_what_it_watched(
        commands in vec(any_change(), 1..40),
    ) {
        let queries = queries();
        // A log never begins with a command: the first entry is its leader's.
        let mut world = World { index: 1, ..World::default() };
        let mut before: Vec<Found> = queries.iter().map(|query| world.store.evaluate(query)).collect();
        for command in commands {
            let applied = world.apply(command.clone());
            if matches!(
                applied.response,
                Response::Refused(_) | Response::Held(false) | Response::Transaction(Err(_))
            ) {
                prop_assert!(applied.touched.is_empty() && applied.dirty.is_empty(), "{:?}", command);
            }
            for (query, old) in queries.iter().zip(&mut before) {
                let new = world.store.evaluate(query);
                prop_assert_eq!(new.index, world.store.query_index(query));
                prop_assert!(new.index >= old.index.max(1), "{:?} goes back after {:?}", query, command);
                if !same(&new.rows, &old.rows) {
                    prop_assert!(new.index > old.index, "{:?} stays after {:?}", query, command);
                    prop_assert!(
                        old.watch.iter().any(|key| touched(&applied, key)),
                        "{:?} is not woken by {:?}: {:?}", query, command, applied.touched
                    );
                }
                if let Rows::Instances(list) = &new.rows {
                    prop_assert_eq!(list.index.max(1), new.index);
                }
                *old = new;
            }
        }
    }

    #[test]
    fn rows_are_the_whole_store_and_dirty_names_all_that_changed(
        commands in vec(any_change(), 1..40),
        restart in 0..40usize,
    ) {
        let queries = queries();
        let mut world = World::default();
        let mut twin = Store::new();
        let mut before = BTreeMap::new();
        for (at, command) in commands.into_iter().enumerate() {
            if at == restart {
                twin = rebuilt(&twin);
            }
            let applied = world.apply(command.clone());
            prop_assert_eq!(&twin.apply(world.index, &command), &applied, "{:?}", command);
            let after = all_rows(&world.store);
            let dirty: BTreeSet<&RowKey> = applied.dirty.iter().collect();
            for key in before.keys().chain(after.keys()) {
                if before.get(key) != after.get(key) {
                    prop_assert!(dirty.contains(key), "{:?} after {:?}", key, command);
                }
            }
            before = after;
            addresses_agree(&world.store);
        }
        let copy = rebuilt(&world.store);
        addresses_agree(&copy);
        prop_assert_eq!(all_rows(&copy), all_rows(&world.store));
        prop_assert_eq!(all_rows(&twin), all_rows(&world.store));
        for query in &queries {
            prop_assert_eq!(copy.evaluate(query), world.store.evaluate(query));
            prop_assert_eq!(twin.evaluate(query), world.store.evaluate(query));
        }
    }

    #[test]
    fn hostile_rows_are_refused_or_make_a_store(
        commands in vec(any_change(), 1..12),
        which in any::<prop::sample::Index>(),
        (of_key, of_value) in (any::<bool>(), any::<bool>()),
        seed in hostile(vec(any::<u8>(), 0..60), 60),
    ) {
        let mut store = Store::new();
        for (index, command) in (1..).zip(&commands) {
            store.apply(index, command);
        }
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> =
            all_rows(&store).into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect();
        if let Some(at) = (!rows.is_empty()).then(|| which.index(rows.len())) {
            // Bytes of the seed take the places of bytes of the row.
            let spoil = |bytes: &mut Vec<u8>| bytes.iter_mut().zip(&seed).for_each(|(byte, other)| *byte ^= other);
            if of_key { spoil(&mut rows[at].0) }
            if of_value { spoil(&mut rows[at].1) }
        } else {
            rows.push((seed.clone(), seed));
        }
        let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        frugal(bytes, || {
            let mut builder = StoreBuilder::new();
            if rows.iter().all(|(key, value)| builder.put_row(key, value).is_ok()) {
                drop(builder.finish());
            }
        });
    }

    #[test]
    fn a_walk_in_chunks_sees_every_row_once_and_in_order(
        commands in vec(any_change(), 1..40),
        max_bytes in 0..200usize,
    ) {
        let mut world = World::default();
        for command in commands {
            world.apply(command);
        }
        let whole: Vec<(RowKey, Vec<u8>)> = all_rows(&world.store).into_iter().collect();
        let mut walked = Vec::new();
        let mut cursor = None;
        loop {
            let (rows, next) = world.store.rows_after(cursor.as_ref(), max_bytes);
            walked.extend(rows);
            let Some(next) = next else { break };
            cursor = Some(RowKey::from_bytes(next.as_bytes()).expect("own keys are good"));
        }
        prop_assert_eq!(walked, whole);
    }
}
