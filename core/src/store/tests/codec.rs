//! Formats: what was written once can be read for ever, and what is foreign is refused by name.

use super::super::command::BadCommand;
use super::super::{
    BadRow, Failover, IntentionCommand, IntentionDraft, Lookup, Operation, PreparedCommand, PreparedQuery,
    RowKey, ServiceQuery, StoreBuilder, Template,
};
use super::*;
use crate::config_entry::{Draft, Kind};
use crate::coordinate::Coordinate;
use crate::format::{Format, Formats};

/// What an older program understands.
const FIRST: Formats = Formats { oldest: Format::FIRST, newest: Format::FIRST };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One of each command, with all fields in use.
fn commands() -> Vec<Command> {
    let mut registration = node("n1");
    registration.id = Some(Uuid(5));
    registration.tagged_addresses = [(Text::new("lan"), Text::new("10.0.0.1"))].into();
    registration.node_meta = [(Text::new("rack"), Text::new("1"))].into();
    registration.service = Some(Service { tags: vec![Text::new("v1")], port: 80, ..service("web1", "web") });
    registration.checks = vec![check("c", "web1", Health::Warning)];
    vec![
        kv_command(KvVerb::Set, "a/b", "value", 7),
        kv_command(KvVerb::Cas(300), "a/b", "", 0),
        kv_command(KvVerb::Acquire(Uuid(9)), "a/b", "v", 0),
        kv_command(KvVerb::Release(Uuid(9)), "a/b", "v", 0),
        kv_command(KvVerb::Delete, "a/b", "", 0),
        kv_command(KvVerb::DeleteCas(300), "a/b", "", 0),
        kv_command(KvVerb::DeleteTree, "a/", "", 0),
        Command::Register(Box::new(registration)),
        Command::Deregister(Deregistration {
            node: Text::new("n1"),
            service_id: Some(Text::new("web1")),
            check_id: None,
        }),
        Command::SessionCreate(Box::new(Session {
            lock_delay: Duration::from_secs(15),
            behavior: SessionBehavior::Delete,
            ttl: Text::new("10s"),
            ttl_parsed: Some(Duration::from_secs(10)),
            node_checks: vec![Text::new("serfHealth")],
            ..session(9, "n1")
        })),
        Command::SessionDestroy { id: Uuid(9) },
        Command::LockDelayOver { keys: vec![(Text::new("a/b"), 300)] },
        Command::ReapTombstones { up_to: 300 },
        Command::AutopilotSet { settings: Box::default(), cas: Some(0) },
        Command::GroupNamed { id: Uuid(9) },
        Command::Coordinates(vec![(Text::new("n1"), Coordinate { height: 0.25, ..Coordinate::default() })]),
        Command::FormatRaised { to: Format(2) },
        Command::Transaction(vec![
            Operation::Look(Lookup::KvIndex { key: Text::new("a/b"), index: 300 }),
            Operation::Kv(KvCommand {
                verb: KvVerb::Cas(300),
                key: Text::new("a/b"),
                value: Bytes::from_static(b"v"),
                flags: 7,
            }),
            Operation::Put { registration: Box::new(node("n1")), cas: Some(300) },
            Operation::Remove {
                deregistration: Deregistration {
                    node: Text::new("n1"),
                    service_id: None,
                    check_id: Some(Text::new("c")),
                },
                cas: None,
            },
        ]),
        Command::Prepared(PreparedCommand::Create(Box::new(prepared_query()))),
        Command::Prepared(PreparedCommand::Delete(Uuid(8))),
        Command::Intention(IntentionCommand::Create {
            id: Uuid(7),
            draft: Box::new(IntentionDraft {
                source: Text::new("web"),
                destination: Text::new("db"),
                action: Text::new("allow"),
                meta: [(Text::new("k"), Text::new("v"))].into(),
                at: Text::new("2026-11-21T05:06:16Z"),
                ..IntentionDraft::default()
            }),
        }),
        Command::Intention(IntentionCommand::DeleteExact {
            source: Text::new("web"),
            destination: Text::new("*"),
        }),
    ]
}

fn prepared_query() -> PreparedQuery {
    let list = |item: &str| Some(vec![Text::new(item)]);
    let pair = |value: &str| Some([(Text::new("k"), Text::new(value))].into());
    PreparedQuery {
        id: Uuid(7),
        name: Text::new("q-"),
        session: None,
        token: Text::new("t"),
        service: ServiceQuery {
            service: Text::new("web"),
            failover: Failover { nearest_n: 3, datacenters: list("dc2"), targets: Some(Vec::new()) },
            only_passing: true,
            ignore_check_ids: list("c"),
            near: Text::new("_agent"),
            tags: list("!v1"),
            node_meta: pair("n"),
            service_meta: pair("s"),
            connect: true,
        },
        dns_ttl: Text::new("10s"),
        template: Template { by_prefix: true, regexp: Text::new("^q"), remove_empty_tags: true },
        create_index: 0,
        modify_index: 0,
    }
}

#[test]
fn commands_read_back_and_keep_their_bytes() {
    let golden = [
        "01000003612f620576616c756507",
        "010001ac0203612f620000",
        "0100020903612f62017600",
        "0100030903612f62017600",
        "01000403612f620000",
        "010005ac0203612f620000",
        "01000602612f0000",
        "01010105026e310831302e302e302e3101036c616e0831302e302e302e3101047261636b0131036463310100047765623103776562010276310000005001010000000000010001630001000004776562310000000000000000000000000000000000",
        "0102026e3101047765623100",
        "01030900026e310f000103313073010a00010a736572664865616c746800000000",
        "010409",
        "01050103612f62ac02",
        "0106ac02",
        "010701008084af5ffa010a00000000000100",
        "010809",
        "010901026e3100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000f83f0000000000000000000000000000d03f",
        "010a02",
        "010b04000303612f62ac020101ac0203612f620176070200026e310831302e302e302e3100000364633100000001ac0203026e310001016300",
        "010f000702712d000174037765620301010364633201000101010163065f6167656e740101032176310101016b016e0101016b0173010331307301025e71010000",
        "010f0208",
        "011000070377656202646205616c6c6f77000001016b017614323032362d31312d32315430353a30363a31365a",
        "01100403776562012a",
    ];
    let commands = commands();
    let encoded: Vec<String> = commands.iter().map(|command| hex(&command.encode(Format::FIRST))).collect();
    assert_eq!(encoded, golden);
    for command in commands {
        assert_eq!(Command::decode(&command.encode(Format::FIRST), Formats::KNOWN), Ok(command));
    }
}

#[test]
fn a_command_of_the_second_format_is_the_same_with_its_checksum_before_it() {
    for command in commands() {
        let first = command.encode(Format::FIRST);
        let second = command.encode(Format::CHECKED);
        assert_eq!(second[0], 2);
        assert_eq!(second[1..5], crc32c::crc32c(&first[1..]).to_le_bytes());
        assert_eq!(second[5..], first[1..]);
        assert_eq!(Command::decode(&second, Formats::KNOWN), Ok(command));
        let refused = Command::decode(&second, FIRST).expect_err("an older program");
        assert_eq!(refused, BadCommand::Format(Format(2)));
        assert!(refused.to_string().contains("start the newer version again"), "{refused}");
        let mut damaged = second.to_vec();
        *damaged.last_mut().expect("it has bytes") ^= 4;
        assert_eq!(Command::decode(&damaged.into(), Formats::KNOWN), Err(BadCommand::Damaged));
    }
}

#[test]
fn a_decoded_value_is_a_slice_of_its_command() {
    let bytes = kv_command(KvVerb::Set, "k", "a value", 0).encode(Format::FIRST);
    let Ok(Command::Kv(command)) = Command::decode(&bytes, Formats::KNOWN) else { panic!("decodes") };
    assert!(bytes.as_ptr_range().contains(&command.value.as_ptr()));
}

#[test]
fn a_foreign_or_damaged_command_is_refused() {
    let good = kv_command(KvVerb::Set, "k", "v", 0).encode(Format::FIRST);
    let mut newer = good.to_vec();
    newer[0] = 2;
    let mut longer = good.to_vec();
    longer.push(0);
    let mut variant = good.to_vec();
    variant[1] = 99;
    let mut not_text = good.to_vec();
    not_text[4] = 0xff;
    let cases = [
        (newer, BadCommand::Format(Format(2))),
        (Vec::new(), BadCommand::Malformed),
        (vec![1], BadCommand::Malformed),
        (longer, BadCommand::Malformed),
        (good[..good.len() - 1].to_vec(), BadCommand::Malformed),
        (variant, BadCommand::Malformed),
        (not_text, BadCommand::Malformed),
    ];
    for (bytes, error) in cases {
        assert_eq!(Command::decode(&Bytes::from(bytes.clone()), FIRST), Err(error), "{bytes:?}");
    }
}

#[test]
fn rows_keep_their_bytes() {
    let mut world = World::default();
    let mut commands = commands();
    commands.truncate(commands.len() - 2);
    commands.pop().expect("a deletion of what is not there");
    let prepared = commands.pop().expect("the one before");
    commands.pop().expect("the transaction, which makes rows of other kinds");
    let raised = commands.pop().expect("the one before");
    let coordinates = commands.pop().expect("and the one before that");
    let registration = commands[7].clone();
    for command in commands {
        world.apply(command);
    }
    world.apply(registration);
    let mut dead = session(9, "n1");
    dead.lock_delay = Duration::from_secs(15);
    world.session(dead);
    world.session(session(10, "n1"));
    world.kv(KvVerb::Acquire(Uuid(9)), "a/l", "v");
    world.kv(KvVerb::Acquire(Uuid(10)), "a/m", "v");
    world.apply(Command::SessionDestroy { id: Uuid(9) });
    world.set("z", "1");
    world.kv(KvVerb::Delete, "z", "");
    world.apply(coordinates);
    world.apply(raised);
    world.apply(prepared);
    let golden = [
        "01612f6c 000100131576",
        "01612f6d 0001010a141476",
        "027a 17",
        "036e31 0105026e310831302e302e302e310364633101036c616e0831302e302e302e3101047261636b013108081010",
        "046e31000077656231 00047765623103776562010276310000005001010000001010",
        "056e31000063 026e31016300010000047765623103776562010276310000000000000000000000001010",
        "060000000000000000000000000000000a 0a00026e3100000000000000001212",
        "07612f6c 150f00",
        "08776562000000 10",
        "0901 17",
        "0902 08",
        "0903 10",
        "0904 10",
        "0905 15",
        "0906 05",
        "0907 18",
        "090a 1a",
        "0a01 01008084af5ffa010a00000000000e0e",
        "0a02 09",
        "0a03 02",
        "0b6e31 026e3100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000f83f0000000000000000000000000000d03f18",
        "0e00000000000000000000000000000007 0702712d000174037765620301010364633201000101010163065f6167656e740101032176310101016b016e0101016b0173010331307301025e71011a1a",
    ];
    let rows: Vec<String> = world
        .store
        .rows()
        .map(|key| format!("{} {}", hex(key.as_bytes()), hex(&world.store.row(&key).expect("listed"))))
        .collect();
    assert_eq!(rows, golden);
}

#[test]
fn configuration_entries_keep_their_bytes() {
    let entry = serde_json::json!({"Kind": "service-defaults", "Name": "Web"});
    let entry = Box::new(Draft::parse(&entry).expect("it makes sense"));
    let fields = hex(entry.fields.as_bytes());
    let length = format!("{:02x}", entry.fields.len());
    let set = Command::ConfigSet { entry, cas: Some(0) };
    assert_eq!(hex(&set.encode(Format::FIRST)), format!("010d0003576562{length}{fields}0100"));
    let delete = Command::ConfigDelete { kind: Kind::JwtProvider, name: Text::new("a"), cas: None };
    assert_eq!(hex(&delete.encode(Format::FIRST)), "010e10016100");
    let mut world = World::default();
    world.apply(set);
    let rows: Vec<String> = world
        .store
        .rows()
        .map(|key| format!("{} {}", hex(key.as_bytes()), hex(&world.store.row(&key).expect("listed"))))
        .collect();
    assert_eq!(rows, ["0909 01".to_owned(), format!("0d00776562 0003576562{length}{fields}0101")]);
}

#[test]
fn a_foreign_or_damaged_row_is_refused() {
    let mut builder = StoreBuilder::new();
    let cases: [(&[u8], &[u8], BadRow); 9] = [
        (&[200, 1], &[], BadRow::Table(200)),
        (&[], &[], BadRow::Key),
        (&[1, 0xff], &[0, 0, 0, 1, 1], BadRow::Key),
        (&[1, b'k'], &[0, 0], BadRow::Value),
        (&[2, b'k'], &[], BadRow::Value),
        (&[4, b'n'], &[], BadRow::Key),
        (&[6, 1, 2], &[], BadRow::Key),
        (&[9, 77], &[1], BadRow::Key),
        (&[9, 1], &[1, 1], BadRow::Value),
    ];
    for (key, value, error) in cases {
        assert_eq!(builder.put_row(key, value), Err(error), "{key:?}");
    }
    assert_eq!(RowKey::from_bytes(&[200]), Err(BadRow::Table(200)));
    assert!(BadRow::Table(200).to_string().contains("200"));
}
