//! Transactions as clients send them and read their answers.

use serde_json::{Value, json};

use super::HttpReply;
use super::api_test::{World, text};

impl World {
    /// Sends a transaction that writes.
    fn txn(&mut self, operations: &Value) -> (u16, Value) {
        parsed(&self.put("/v1/txn", &operations.to_string()))
    }

    /// Sends a transaction that only reads, or one that is refused.
    fn look(&self, operations: &Value) -> HttpReply {
        self.reply("PUT", "/v1/txn", &operations.to_string())
    }
}

fn parsed(reply: &HttpReply) -> (u16, Value) {
    (reply.status, serde_json::from_slice(&reply.body).expect("JSON"))
}

fn kv(verb: &str, key: &str) -> Value {
    json!({"KV": {"Verb": verb, "Key": key, "Value": "MQ=="}})
}

fn failure(at: u32, what: &str) -> Value {
    json!({"OpIndex": at, "What": what})
}

#[test]
fn writes_answer_without_headers_of_reads() {
    let mut world = World::new();
    let reply = world.put("/v1/txn", &json!([kv("set", "a"), kv("get", "a"), kv("delete", "a")]).to_string());
    assert_eq!(reply.meta, None);
    let entry = |value: Value| json!({"KV": {"LockIndex": 0, "Key": "a", "Flags": 0, "Value": value, "CreateIndex": 1, "ModifyIndex": 1}});
    let expected = json!({"Results": [entry(Value::Null), entry("MQ==".into())], "Errors": null});
    assert_eq!(parsed(&reply), (200, expected));
}

#[test]
fn reads_tell_their_freshness_in_the_body_and_no_index() {
    let mut world = World::new();
    world.txn(&json!([kv("set", "a")]));
    let reply = world.look(&json!([kv("get", "a"), kv("get-or-empty", "b"), kv("check-not-exists", "b")]));
    assert_eq!(reply.meta.map(|meta| (meta.index, meta.known_leader)), Some((0, true)));
    let (status, body) = parsed(&reply);
    assert_eq!((status, body["Results"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(body["Results"][1]["KV"]["ModifyIndex"], 0);
    let rest: Vec<&Value> =
        ["Errors", "Index", "LastContact", "KnownLeader", "ConsistencyLevel"].map(|key| &body[key]).into();
    assert_eq!(rest, [&Value::Null, &json!(0), &json!(0), &json!(true), &json!("")]);
    assert_eq!(parsed(&world.look(&Value::Null)), parsed(&world.look(&json!([{}, {"KV": null}]))));
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_tried() {
    let mut world = World::new();
    let node = |verb: &str| json!({"Node": {"Verb": verb, "Node": {"Address": "10.0.0.1"}}});
    let service = |verb: &str| json!({"Service": {"Verb": verb, "Node": "n", "Service": {"ID": "w"}}});
    let reply =
        world.look(&json!([kv("get", "none"), kv("set", ""), node("set"), node("delete"), service("set")]));
    let errors = json!([
        failure(1, "Must provide key"),
        failure(2, "Must provide node"),
        failure(3, "Must provide node"),
        failure(4, "Must provide service name with ID"),
    ]);
    assert_eq!(parsed(&reply), (409, json!({"Results": null, "Errors": errors})));
    let (status, body) = parsed(&world.look(&json!([kv("get", "none"), kv("get-tree", "")])));
    assert_eq!((status, &body["Errors"]), (409, &json!([failure(1, "Must provide key")])));
    let deleted =
        world.txn(&json!([{"Service": {"Verb": "delete", "Node": "n", "Service": {"ID": "w"}}}, {}]));
    assert_eq!(deleted.0, 409);
}

#[test]
fn verbs_and_sessions_that_nobody_knows_fail_with_the_rest() {
    let mut world = World::new();
    let lock = |verb: &str, session: &str| json!({"KV": {"Verb": verb, "Key": "a", "Session": session}});
    let (status, body) = world.txn(&json!([
        kv("set", "a"),
        kv("frob", "a"),
        lock("lock", ""),
        lock("lock", "x"),
        lock("unlock", ""),
        lock("unlock", "x"),
        {"Check": {"Verb": "frob"}},
    ]));
    let errors = [
        "unknown KV verb \"frob\"",
        "missing session",
        "failed session lookup: index error: UUID must be 36 characters",
        "missing session",
        "failed to unlock key \"a\", lock isn't held, or is held by another session",
        "unknown Check verb \"frob\"",
    ];
    let errors: Vec<Value> = errors.iter().zip(1..).map(|(what, at)| failure(at, what)).collect();
    assert_eq!((status, &body["Errors"]), (409, &json!(errors)));
}

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    let world = World::new();
    for (body, expected) in [
        ("", "Failed to parse body: EOF"),
        (r#"[{"Frob":{}}]"#, "Failed to parse body: json: unknown field \"Frob\""),
        (
            r#"[{"KV":{"Verb":"get","Key":"a","Frob":1}}]"#,
            "Failed to parse body: json: unknown field \"Frob\"",
        ),
        (r#"[{"Check":{"Check":{"Frob":1}}}]"#, "Failed to parse body: json: unknown field \"Frob\""),
        ("{", "Failed to parse body: "),
        (r#"{"KV":{}}"#, "Failed to parse body: "),
        (r#"[{"KV":[]}]"#, "Failed to parse body: "),
        (r#"[5]"#, "Failed to parse body: "),
        (r#"[{"KV":{"Verb":"set","Key":"a","Value":"***"}}]"#, "Failed to parse body: illegal base64 data"),
        (r#"[{"KV":{"Verb":"set","Key":"a","Index":-1}}]"#, "Failed to parse body: "),
        (r#"[{"KV":{"Verb":"set","Key":"a","Flags":"1"}}]"#, "Failed to parse body: "),
    ] {
        let reply = world.reply("PUT", "/v1/txn", body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(text(&reply).starts_with(expected), "{body}: {}", text(&reply));
    }
}

#[test]
fn a_transaction_is_bounded() {
    let mut world = World::new();
    let many = |count: usize| Value::from(vec![kv("set", "a"); count]);
    assert_eq!(world.txn(&many(128)).0, 200);
    let reply = world.look(&many(129));
    assert_eq!((reply.status, text(&reply)), (413, "Transaction contains too many operations (129 > 128)"));
    assert_eq!(world.reply("PUT", "/v1/txn", &"x".repeat(524_289)).status, 413);
    let about = std::sync::Arc::make_mut(&mut world.published.about);
    about.kv_max_value_size = 2;
    let reply = world.look(&json!([{"KV": {"Verb": "set", "Key": "a", "Value": "MTIz"}}]));
    assert_eq!((reply.status, text(&reply)), (413, "Value for key \"a\" is too large (3 > 2 bytes)"));
}

#[test]
fn flags_take_all_of_64_bits() {
    let mut world = World::new();
    let operation = json!({"KV": {"Verb": "set", "Key": "a", "Flags": 16_210_313_421_097_356_768_u64}});
    let (_, body) = world.txn(&json!([operation]));
    assert_eq!(body["Results"][0]["KV"]["Flags"], json!(16_210_313_421_097_356_768_u64));
}

#[test]
fn the_catalog_is_written_read_and_removed_row_by_row() {
    let mut world = World::new();
    let (status, body) = world.txn(&json!([
        {"Node": {"Verb": "cas", "Node": {"Node": "n1", "Address": "10.0.0.1"}}},
        {"Service": {"Verb": "set", "Node": "n1", "Service": {"Service": "web", "Port": 80}}},
        {"Check": {"Verb": "set", "Check": {"Node": "n1", "Name": "c", "ServiceID": "web", "Status": "passing"}}},
    ]));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["Results"][0]["Node"]["Datacenter"], "dc1");
    assert_eq!(body["Results"][1]["Service"]["ID"], "web");
    assert_eq!(body["Results"][1]["Service"]["Tags"], Value::Null);
    let check = &body["Results"][2]["Check"];
    assert_eq!((&check["CheckID"], &check["ServiceName"]), (&json!("c"), &json!("web")));
    let read = parsed(&world.look(&json!([
        {"Node": {"Verb": "get", "Node": {"Node": "N1"}}},
        {"Service": {"Verb": "get", "Node": "n1", "Service": {"ID": "web"}}},
        {"Check": {"Verb": "get", "Check": {"Node": "n1", "CheckID": "c"}}},
    ])));
    assert_eq!((read.0, &read.1["Results"]), (200, &body["Results"]));
    let (status, _) = world.txn(&json!([
        {"Check": {"Verb": "delete-cas", "Check": {"Node": "n1", "CheckID": "c", "ModifyIndex": 1}}},
        {"Service": {"Verb": "delete", "Node": "n1", "Service": {"ID": "web", "Service": "web"}}},
        {"Node": {"Verb": "delete", "Node": {"Node": "n1"}}},
    ]));
    assert_eq!((status, world.json("/v1/catalog/nodes")), (200, json!([])));
}

#[test]
fn another_datacenter_is_no_place_for_a_transaction() {
    let world = World::new();
    for verb in ["get", "set"] {
        let reply = world.reply("PUT", "/v1/txn?dc=nowhere", &json!([kv(verb, "a")]).to_string());
        assert_eq!((reply.status, text(&reply)), (500, "No path to datacenter"));
    }
}
