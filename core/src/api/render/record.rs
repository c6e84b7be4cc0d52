//! Rows of an archive, a line of JSON each (`snapshot decode`).

use super::json::Json;
use super::{coordinate, prepared, rows, written};
use crate::api::operator::autopilot;
use crate::store::Record;

/// A row as an object with its table's name (`Type`), its length in the archive (`Size`, in bytes) and its fields in the
/// shape of the HTTP API (`Data`). Values of keys are in base64.
#[must_use]
pub fn render_record(record: &Record, size: u64) -> Vec<u8> {
    written(|json| {
        json.open(b'{');
        json.key("Type");
        json.string(record.name());
        json.key("Size");
        json.number(size);
        json.key("Data");
        data(json, record);
        json.close(b'}');
    })
}

fn data(json: &mut Json, record: &Record) {
    match record {
        Record::Kv(entry) => rows::kv_entry(json, entry),
        Record::Node(node) => rows::node(json, node),
        Record::Check(check) => rows::check(json, check),
        Record::Session(session) => rows::session(json, session),
        Record::ConfigEntry(entry) => entry.write(json),
        Record::PreparedQuery(query) => prepared::query(json, query),
        Record::Autopilot(row) => autopilot::write_configuration(json, row),
        Record::Tombstone { key, index } => fields(json, |json| {
            json.key("Key");
            json.string(key);
            json.key("Index");
            json.number(*index);
        }),
        Record::Service { node, service } => fields(json, |json| {
            json.key("Node");
            json.string(node);
            json.key("Service");
            rows::service(json, service);
        }),
        Record::LockDelay { key, delay } => fields(json, |json| {
            json.key("Key");
            json.string(key);
            json.key("Begun");
            json.number(delay.begun);
            json.key("Delay");
            json.number(u64::try_from(delay.delay.as_nanos()).unwrap_or(u64::MAX));
        }),
        Record::Index { name, index } => fields(json, |json| {
            json.key("Key");
            json.string(name);
            json.key("Value");
            json.number(*index);
        }),
        Record::System { name, value } => fields(json, |json| {
            json.key("Key");
            json.string(name);
            json.key("Value");
            json.string(value);
        }),
        Record::Coordinate(row) => fields(json, |json| {
            json.key("Node");
            json.string(&row.node);
            json.key("Coord");
            coordinate(json, &row.coordinate);
            json.key("ModifyIndex");
            json.number(row.modify_index);
        }),
        Record::Piece(number) => fields(json, |json| {
            json.key("Number");
            json.number(*number);
        }),
    }
}

fn fields(json: &mut Json, write: impl FnOnce(&mut Json)) {
    json.open(b'{');
    write(json);
    json.close(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::Text;
    use crate::store::command::{Command, KvCommand, KvVerb, Registration};
    use crate::store::model::Service;
    use crate::store::{Store, decode_rows, encode_rows};

    #[test]
    fn every_row_of_a_state_is_told_with_its_table() {
        let mut store = Store::new();
        let service =
            Service { id: Text::new("w1"), service: Text::new("web"), port: 80, ..Service::default() };
        let registration = Registration {
            node: Text::new("N1"),
            address: Text::new("10.0.0.1"),
            service: Some(service),
            ..Registration::default()
        };
        let kv = |verb, key: &str, value: &'static [u8]| {
            Command::Kv(KvCommand { verb, key: key.into(), value: value.into(), flags: 7 })
        };
        for (at, command) in [
            kv(KvVerb::Set, "a", b"\xff\x00"),
            kv(KvVerb::Set, "b", b"x"),
            kv(KvVerb::Delete, "b", b""),
            Command::Register(Box::new(registration)),
            Command::AutopilotSet { settings: Box::default(), cas: None },
        ]
        .iter()
        .enumerate()
        {
            store.apply(at as u64 + 2, command);
        }
        let (rows, _) = store.rows_after(None, usize::MAX);
        let piece = encode_rows(&rows);
        let lines: Vec<Value> = decode_rows(&piece)
            .expect("as it was encoded")
            .iter()
            .map(|(key, row)| {
                let record = Record::parse(key, row).expect("rows of this version");
                let size = (key.len() + row.len()) as u64;
                let line: Value = serde_json::from_slice(&render_record(&record, size)).expect("JSON");
                assert_eq!(line["Size"], size);
                line
            })
            .collect();
        let of = |kind: &str| lines.iter().find(|line| line["Type"] == kind).expect("a row of the table");
        assert_eq!(of("KV")["Data"]["Key"], "a");
        assert_eq!(of("KV")["Data"]["Value"], "/wA=");
        assert_eq!(of("Tombstone")["Data"]["Index"], 4);
        assert_eq!(of("Node")["Data"]["Node"], "N1");
        assert_eq!(of("Service")["Data"]["Service"]["Port"], 80);
        assert_eq!(of("Autopilot")["Data"]["MaxTrailingLogs"], 250);
        let web =
            lines.iter().find(|line| line["Data"]["Key"] == "service.web").expect("an index of the service");
        assert_eq!(web["Data"]["Value"], 5);
        assert!(decode_rows(&piece[..piece.len() - 1]).is_err());
    }
}
