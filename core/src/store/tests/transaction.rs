//! Transactions: all or nothing, each operation after the one before it, every failure told.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Lookup, Operation, OperationError, Outcome, TransactionRow};
use super::property::{all_rows, any_command, any_operation};
use super::*;

fn kv(verb: KvVerb, key: &str, value: &str) -> Operation {
    let Command::Kv(command) = kv_command(verb, key, value, 0) else { unreachable!("it is made of a key") };
    Operation::Kv(command)
}

fn get(key: &str) -> Operation {
    Operation::Look(Lookup::Kv(Text::new(key)))
}

fn put(registration: Registration, cas: Option<u64>) -> Operation {
    Operation::Put { registration: Box::new(registration), cas }
}

fn on(node: &str, service: Option<Service>, checks: Vec<Check>) -> Registration {
    Registration { node: Text::new(node), service, checks, skip_node_update: true, ..Registration::default() }
}

fn transact(world: &mut World, operations: Vec<Operation>) -> (Outcome, Applied) {
    let applied = world.apply(Command::Transaction(operations));
    let Response::Transaction(outcome) = applied.response.clone() else { panic!("{applied:?}") };
    (outcome, applied)
}

fn errors(outcome: Outcome) -> Vec<(u32, String)> {
    let errors = outcome.expect_err("it fails");
    errors.into_iter().map(|OperationError { operation, what }| (operation, what.to_string())).collect()
}

fn error(world: &mut World, operation: Operation) -> String {
    let mut errors = errors(transact(world, vec![operation]).0);
    assert_eq!(errors.len(), 1);
    errors.remove(0).1
}

#[test]
fn operations_see_what_the_ones_before_them_did() {
    let mut world = World::default();
    let (outcome, applied) = transact(
        &mut world,
        vec![
            kv(KvVerb::Set, "a/b", "1"),
            get("a/b"),
            kv(KvVerb::Delete, "a/b", ""),
            Operation::Look(Lookup::KvAbsent(Text::new("a/b"))),
            kv(KvVerb::Set, "a/c", "2"),
            Operation::Look(Lookup::KvTree(Text::new("a/"))),
        ],
    );
    let read = |row: TransactionRow| match row {
        TransactionRow::Kv(entry) => (entry.key.to_string(), entry.value.to_vec()),
        other => panic!("{other:?}"),
    };
    let rows: Vec<_> = outcome.expect("all hold").into_iter().map(read).collect();
    let expected = [("a/b", ""), ("a/b", "1"), ("a/c", ""), ("a/c", "2")];
    assert_eq!(rows, expected.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())));
    assert_eq!(applied.touched, [WatchKey::Kv(Text::new("a/b")), WatchKey::Kv(Text::new("a/c"))]);
    assert_eq!(world.entry("a/c").modify_index, world.index);
}

#[test]
fn one_failure_undoes_everything_and_all_failures_are_told() {
    let mut world = World::default();
    world.set("k", "old");
    let (outcome, applied) = transact(
        &mut world,
        vec![
            kv(KvVerb::Set, "k", "new"),
            get("none"),
            put(node("n1"), None),
            kv(KvVerb::Cas(99), "k", "x"),
            put(on("n2", Some(service("s", "s")), vec![]), None),
        ],
    );
    assert_eq!(
        errors(outcome),
        [
            (1, "key \"none\" doesn't exist".to_owned()),
            (3, "failed to set key \"k\", index is stale".to_owned()),
            (4, "Missing node registration".to_owned()),
        ]
    );
    assert!(applied.touched.is_empty() && applied.dirty.is_empty());
    assert_eq!(&world.entry("k").value[..], b"old");
    assert_eq!(world.store.node("n1"), None);
}

#[test]
fn failures_read_as_from_consul() {
    let mut world = World::default();
    world.register(node("n1"));
    world.register(on("n1", Some(service("web1", "web")), vec![check("c1", "", Health::Passing)]));
    for id in [1, 2] {
        world.session(session(id, "n1"));
    }
    let holder = Uuid(1);
    world.set("k", "v");
    world.kv(KvVerb::Acquire(holder), "l", "");
    let at = world.entry("k").modify_index;
    let key = || Text::new("k");
    let remove = |service: Option<&str>, check: Option<&str>| Operation::Remove {
        deregistration: Deregistration {
            node: Text::new("n1"),
            service_id: service.map(Text::new),
            check_id: check.map(Text::new),
        },
        cas: Some(77),
    };
    let cases = [
        (get("none"), "key \"none\" doesn't exist".to_owned()),
        (Operation::Look(Lookup::KvAbsent(key())), "key \"k\" exists".into()),
        (
            Operation::Look(Lookup::KvIndex { key: key(), index: 1 }),
            format!("failed index check for key \"k\", current modify index {at} != 1"),
        ),
        (
            Operation::Look(Lookup::KvIndex { key: Text::new("none"), index: 0 }),
            "failed to check index, key \"none\" doesn't exist".into(),
        ),
        (
            Operation::Look(Lookup::KvSession { key: Text::new("l"), session: Text::default() }),
            format!("failed session check for key \"l\", current session \"{holder}\" != \"\""),
        ),
        (
            Operation::Look(Lookup::KvSession { key: Text::new("none"), session: Text::default() }),
            "failed to check session, key \"none\" doesn't exist".into(),
        ),
        (kv(KvVerb::Cas(0), "k", ""), "failed to set key \"k\", index is stale".into()),
        (kv(KvVerb::DeleteCas(1), "k", ""), "failed to delete key \"k\", index is stale".into()),
        (kv(KvVerb::Acquire(Uuid(2)), "l", ""), "failed to lock key \"l\", lock is already held".into()),
        (kv(KvVerb::Acquire(Uuid(7)), "k", ""), format!("invalid session \"{}\"", Uuid(7))),
        (
            kv(KvVerb::Release(Uuid(2)), "l", ""),
            "failed to unlock key \"l\", lock isn't held, or is held by another session".into(),
        ),
        (put(node("n1"), Some(0)), "failed to set node \"n1\", index is stale".into()),
        (put(node("n2"), Some(1)), "failed to set node \"n2\", index is stale".into()),
        (
            put(on("n1", Some(service("web1", "web")), vec![]), Some(0)),
            "failed to set service \"web1\" on node \"n1\", index is stale".into(),
        ),
        (
            put(on("n1", None, vec![check("c1", "", Health::Passing)]), Some(0)),
            "failed to set check \"c1\" on node \"n1\", index is stale".into(),
        ),
        (
            put(on("n1", None, vec![check("c2", "none", Health::Passing)]), None),
            "Missing service registration".into(),
        ),
        (remove(None, None), "failed to delete node \"n1\", index is stale".into()),
        (
            remove(Some("web1"), None),
            "failed to delete service \"web1\" on node \"n1\", index is stale".into(),
        ),
        (remove(None, Some("c1")), "failed to delete check \"c1\" on node \"n1\", index is stale".into()),
        (
            Operation::Look(Lookup::Service { node: Text::new("n1"), id: Text::new("x") }),
            "service \"x\" on node \"n1\" doesn't exist".into(),
        ),
        (
            Operation::Look(Lookup::Check { node: Text::new("n1"), id: Text::new("x") }),
            "check \"x\" on node \"n1\" doesn't exist".into(),
        ),
        (
            Operation::Look(Lookup::Node { id: Some(Uuid(3)), name: Text::new("n1") }),
            "node \"n1\" doesn't exist".into(),
        ),
    ];
    for (operation, expected) in cases {
        assert_eq!(error(&mut world, operation), expected);
    }
}

#[test]
fn a_lock_delay_is_told_alone() {
    let mut world = World::default();
    world.register(node("n1"));
    let ends = world.session(Session { lock_delay: Duration::from_secs(15), ..session(1, "n1") });
    let waits = world.session(session(2, "n1"));
    world.kv(KvVerb::Acquire(ends), "l", "");
    world.apply(Command::SessionDestroy { id: ends });
    let (outcome, _) = transact(&mut world, vec![get("none"), kv(KvVerb::Acquire(waits), "l", "")]);
    assert_eq!(errors(outcome), [(1, "failed to lock key \"l\" due to lock delay".to_owned())]);
}

#[test]
fn a_lock_delay_that_the_transaction_itself_begins_is_kept() {
    let mut world = World::default();
    world.register(node("n1"));
    world.register(node("n2"));
    let ends = world.session(Session { lock_delay: Duration::from_secs(15), ..session(1, "n1") });
    let waits = world.session(session(2, "n2"));
    world.kv(KvVerb::Acquire(ends), "l", "");
    let deregistration = Deregistration { node: Text::new("n1"), ..Deregistration::default() };
    let remove = Operation::Remove { deregistration, cas: None };
    let (outcome, _) = transact(&mut world, vec![remove, kv(KvVerb::Acquire(waits), "l", "")]);
    assert_eq!(errors(outcome), [(1, "failed to lock key \"l\" due to lock delay".to_owned())]);
    assert_eq!(world.entry("l").session, Some(ends), "the node and its session are still there");
}

#[test]
fn a_check_without_an_id_is_not_its_whole_node() {
    let mut world = World::default();
    world.register(node("n1"));
    let deregistration =
        Deregistration { node: Text::new("n1"), service_id: None, check_id: Some(Text::default()) };
    let (outcome, _) = transact(&mut world, vec![Operation::Remove { deregistration, cas: None }]);
    assert_eq!(outcome, Ok(Vec::new()));
    assert!(world.store.node("n1").is_some());
}

#[test]
fn a_read_answers_as_the_same_operation_among_writes() {
    let mut world = World::default();
    world.set("k", "v");
    let lookups = vec![Lookup::Kv(Text::new("k")), Lookup::KvOrEmpty(Text::new("none"))];
    let read = world.store.evaluate(&Query::Transaction(lookups.clone()));
    assert!(read.watch.is_empty());
    let Rows::Transaction(read) = read.rows else { panic!("{read:?}") };
    let written = transact(&mut world, lookups.into_iter().map(Operation::Look).collect()).0;
    assert_eq!(read, written);
}

/// What an operation is on its own, or `None` when its condition does not hold.
fn alone(store: &Store, operation: &Operation) -> Option<Command> {
    let present = |name: &Text| store.node(name).is_some();
    match operation {
        Operation::Look(lookup) => {
            // A command that does nothing stands for a read that succeeds.
            let nothing = Command::ReapTombstones { up_to: 0 };
            store.look_up(std::slice::from_ref(lookup)).ok().map(|_| nothing)
        }
        Operation::Kv(command) => Some(Command::Kv(command.clone())),
        Operation::Put { registration, cas } => {
            let name = &registration.node;
            let old = match (&registration.service, registration.checks.first()) {
                (Some(service), _) => store.service(name, &service.id).map(|row| row.modify_index),
                (None, Some(check)) => store.check(name, &check.id).map(|row| row.modify_index),
                (None, None) => registration
                    .id
                    .and_then(|id| store.node_by_id(id))
                    .or(store.node(name))
                    .map(|row| row.modify_index),
            };
            let whole = registration.service.is_none() && registration.checks.is_empty();
            let holds = cas.is_none_or(|cas| cas == old.unwrap_or(0)) && (whole || present(name));
            holds.then(|| Command::Register(registration.clone()))
        }
        Operation::Remove { deregistration, cas } => {
            let name = &deregistration.node;
            let old = match (&deregistration.service_id, &deregistration.check_id) {
                (Some(id), _) => store.service(name, id).map(|row| row.modify_index),
                (None, Some(id)) => store.check(name, id).map(|row| row.modify_index),
                (None, None) => store.node(name).map(|row| row.modify_index),
            };
            cas.is_none_or(|cas| Some(cas) == old).then(|| Command::Deregister(deregistration.clone()))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_transaction_is_its_operations_one_by_one_or_nothing(
        history in vec(any_command(true), 0..30),
        operations in vec(any_operation(), 1..8),
    ) {
        let mut world = World { index: 1, ..World::default() };
        for command in history {
            world.apply(command);
        }
        let before = all_rows(&world.store);
        let index = world.index + 1;
        let mut single = world.store.clone();
        let mut touched = BTreeSet::new();
        let mut failed = Vec::new();
        for (operation, at) in operations.iter().zip(0u32..) {
            let applied = alone(&single, operation).map(|command| single.apply(index, &command));
            match applied {
                Some(applied) if !matches!(applied.response, Response::Held(false) | Response::Refused(_)) => {
                    touched.extend(applied.touched);
                }
                _ => failed.push(at),
            }
        }
        let (outcome, applied) = transact(&mut world, operations);
        match outcome {
            Ok(_) => {
                prop_assert_eq!(failed, Vec::<u32>::new());
                prop_assert_eq!(all_rows(&world.store), all_rows(&single));
                prop_assert_eq!(applied.touched, touched.into_iter().collect::<Vec<_>>());
            }
            Err(errors) => {
                let told: Vec<u32> = errors.iter().map(|error| error.operation).collect();
                let delayed = errors.iter().any(|error| error.what.ends_with("lock delay"));
                prop_assert!(!told.is_empty());
                prop_assert!(told == failed || (delayed && told.iter().all(|at| failed.contains(at))));
                prop_assert_eq!(all_rows(&world.store), before);
                prop_assert!(applied.touched.is_empty() && applied.dirty.is_empty());
            }
        }
    }
}
