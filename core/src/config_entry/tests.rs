use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::fuzz::{cases, hostile_text};

fn parsed(value: &Value) -> Result<Draft, String> {
    Draft::parse(value).map_err(|bad| bad.to_string())
}

fn refused(value: &Value) -> String {
    parsed(value).expect_err("it makes no sense")
}

/// As the HTTP API shows it.
fn shown(value: &Value) -> Value {
    let Draft { kind, name, fields } = parsed(value).expect("it makes sense");
    let entry = ConfigEntry { kind, name, fields, create_index: 3, modify_index: 7 };
    let mut json = Json::with_capacity(0);
    entry.write(&mut json);
    serde_json::from_slice(&json.into_bytes()).expect("JSON")
}

#[test]
fn keys_are_read_in_either_notation_and_written_in_one() {
    let expected = json!({
        "Kind": "service-defaults", "Name": "web", "Protocol": "http", "MeshGateway": {"Mode": "remote"},
        "Expose": {"Checks": true, "Paths": [{"ListenerPort": 5, "ParsedFromCheck": false}]}, "ExternalSNI": "x",
        "Meta": {"some_key": "v"}, "CreateIndex": 3, "ModifyIndex": 7,
    });
    let snake = json!({
        "kind": "service-defaults", "name": "web", "protocol": "HTTP", "mesh_gateway": {"mode": "remote"},
        "expose": [{"checks": "true", "paths": {"listener_port": "5"}}], "external_sni": "x",
        "meta": {"some_key": "v"},
    });
    assert_eq!(shown(&snake), expected);
    let camel = json!({
        "Kind": "service-defaults", "Name": "web", "Protocol": "http", "MeshGateway": {"Mode": "remote"},
        "Expose": {"Checks": true, "Paths": [{"ListenerPort": 5}]}, "ExternalSNI": "x",
        "Meta": {"some_key": "v"}, "CreateIndex": 12, "ModifyIndex": 13,
    });
    assert_eq!(shown(&camel), expected);
}

#[test]
fn what_is_unset_is_left_out_unless_clients_expect_it() {
    let plain = |kind: &str| shown(&json!({"Kind": kind, "Name": "a"}));
    let with = |rest: Value| {
        let mut all = json!({"Name": "a", "CreateIndex": 3, "ModifyIndex": 7});
        for (key, value) in rest.as_object().expect("an object") {
            all[key] = value.clone();
        }
        all
    };
    assert_eq!(
        plain("service-defaults"),
        with(json!({"Kind": "service-defaults", "Protocol": "", "MeshGateway": {}, "Expose": {}}))
    );
    let global =
        json!({"Kind": "proxy-defaults", "Name": GLOBAL, "Config": null, "MeshGateway": {}, "Expose": {}});
    assert_eq!(plain("proxy-defaults"), with(global));
    assert_eq!(plain("service-router"), with(json!({"Kind": "service-router", "Routes": null})));
    assert_eq!(plain("service-resolver"), with(json!({"Kind": "service-resolver"})));
    assert_eq!(
        plain("ingress-gateway"),
        with(json!({"Kind": "ingress-gateway", "TLS": {"Enabled": false}, "Listeners": null}))
    );
    assert_eq!(plain("terminating-gateway"), with(json!({"Kind": "terminating-gateway", "Services": null})));
    let empty = shown(&json!({"Kind": "service-router", "Name": "a", "Routes": []}));
    assert_eq!(empty, with(json!({"Kind": "service-router", "Routes": []})));
}

#[test]
fn durations_and_weights_are_normalised() {
    let resolver = |timeout: Value| {
        shown(&json!({"Kind": "service-resolver", "Name": "a", "ConnectTimeout": timeout}))["ConnectTimeout"]
            .clone()
    };
    assert_eq!(resolver(json!("1500ms")), "1.5s");
    assert_eq!(resolver(json!(60_000_000_000_u64)), "1m0s");
    assert_eq!(resolver(json!(0)), Value::Null);
    let splitter = shown(&json!({
        "Kind": "service-splitter", "Name": "a",
        "Splits": [{"weight": "33.3", "service_subset": "b"}, {"Weight": 66.7}],
    }));
    assert_eq!(splitter["Splits"], json!([{"Weight": 33.3, "ServiceSubset": "b"}, {"Weight": 66.7}]));
}

#[test]
fn what_cannot_be_read_is_refused_in_words_that_clients_know() {
    let cases = [
        (json!({"Name": "web"}), "Payload does not contain a kind/Kind key at the top level"),
        (json!(null), "Payload does not contain a kind/Kind key at the top level"),
        (json!({"Kind": 3}), "Kind value in payload is not a string"),
        (json!({"Kind": "frob"}), "invalid config entry kind: frob"),
        (
            json!({"Kind": "service-defaults", "Name": {}}),
            "1 error(s) decoding:\n\n* 'Name' expected type 'string', got unconvertible type 'map[string]interface {}'",
        ),
        (
            json!({"Kind": "service-defaults", "Name": "w", "mesh_gateway": {"Frob": 1}, "x": 1}),
            "2 errors occurred:\n\t* invalid config key \"MeshGateway.Frob\"\n\t* invalid config key \"x\"\n\n",
        ),
        (
            json!({"Kind": "service-defaults", "Name": "w", "Namespace": "default"}),
            "1 error occurred:\n\t* invalid config key \"Namespace\", namespaces are a consul enterprise feature\n\n",
        ),
        (
            json!({"Kind": "service-defaults", "Name": "w", "MeshGateway": "x"}),
            "1 error(s) decoding:\n\n* 'MeshGateway' expected a map, got 'string'",
        ),
        (
            json!({"Kind": "service-defaults", "Name": "w", "Expose": {"Checks": "zz"}}),
            "1 error(s) decoding:\n\n* cannot parse 'Expose.Checks' as bool: strconv.ParseBool: parsing \"zz\": invalid \
          syntax",
        ),
        (
            json!({"Kind": "service-resolver", "Name": "w", "ConnectTimeout": "x"}),
            "1 error(s) decoding:\n\n* error decoding 'ConnectTimeout': time: invalid duration \"x\"",
        ),
    ];
    for (entry, expected) in cases {
        assert_eq!(refused(&entry), expected, "{entry}");
    }
}

#[test]
fn entries_that_make_no_sense_are_refused_in_words_that_clients_know() {
    let resolver = |rest: Value| {
        let mut entry = json!({"Kind": "service-resolver", "Name": "w"});
        entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        refused(&entry)
    };
    assert_eq!(resolver(json!({"ConnectTimeout": "-5s"})), "Bad ConnectTimeout '-5s', must be >= 0");
    assert_eq!(resolver(json!({"DefaultSubset": "zz"})), "DefaultSubset \"zz\" is not a valid subset");
    assert_eq!(resolver(json!({"Subsets": {"": {}}})), "Subset defined with empty name");
    assert_eq!(resolver(json!({"Redirect": {}})), "Redirect is empty");
    assert_eq!(
        resolver(json!({"Redirect": {"ServiceSubset": "z"}})),
        "Redirect.ServiceSubset defined without Redirect.Service"
    );
    assert_eq!(
        resolver(json!({"Failover": {"*": {}}})),
        "Bad Failover[\"*\"] one of Service, ServiceSubset, Namespace, or Datacenters is required"
    );
    assert_eq!(
        resolver(json!({"Failover": {"v1": {"Service": "q"}}})),
        "Bad Failover[\"v1\"]: not a valid subset"
    );
    let routes = |route: Value| refused(&json!({"Kind": "service-router", "Name": "w", "Routes": [route]}));
    let http = |http: Value| routes(json!({"Match": {"HTTP": http}}));
    assert_eq!(http(json!({"PathPrefix": "x"})), "Route[0] PathPrefix doesn't start with '/': \"x\"");
    assert_eq!(http(json!({"Header": [{"Exact": "b"}]})), "Route[0] Header[0] missing required Name field");
    assert_eq!(
        http(json!({"QueryParam": [{"Name": "b"}]})),
        "Route[0] QueryParam[0] should only contain one of Present, Exact, or Regex"
    );
    assert_eq!(http(json!({"Methods": ["GET", "get"]})), "Route[0] Methods contains \"GET\" more than once");
    let splits = |splits: Value| refused(&json!({"Kind": "service-splitter", "Name": "w", "Splits": splits}));
    assert_eq!(splits(json!([])), "no splits configured");
    assert_eq!(
        splits(json!([{"Weight": 50}, {"Weight": 50, "Service": "w"}])),
        "split destination occurs more than once: service=\"w\", subset=\"\", namespace=\"\""
    );
    assert_eq!(
        splits(json!([{"Weight": 50.005, "Service": "o"}, {"Weight": 49.995}])),
        "the sum of all split weights must be 100, not 100.010002"
    );
    assert_eq!(
        refused(&json!({"Kind": "mesh", "Name": "x"})),
        "invalid name (\"x\"), only \"mesh\" is supported"
    );
    assert_eq!(
        refused(
            &json!({"Kind": "service-intentions", "Name": "w", "Sources": [{"Name": "a*", "Action": "deny"}]})
        ),
        "Sources[0].Name: wildcard character '*' cannot be used with partial values"
    );
}

#[test]
fn sources_of_intentions_are_sorted_by_what_counts_first() {
    let entry = shown(&json!({
        "Kind": "service-intentions", "Name": "db",
        "Sources": [{"Name": "*", "Action": "deny"}, {"Name": "web", "Action": "allow"}],
    }));
    assert_eq!(
        entry["Sources"],
        json!([
            {"Name": "web", "Action": "allow", "Precedence": 9, "Type": "consul"},
            {"Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul"},
        ])
    );
}

#[test]
fn every_kind_is_known_by_its_name() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::parse("frob"), None);
}

fn known() -> impl Strategy<Value = String> {
    let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
    (proptest::sample::select(kinds), "[a-z*]{0,3}").prop_map(|(kind, name)| {
        json!({"Kind": kind, "Name": name, "Protocol": "http", "Sources": [{"Name": name, "Action": "allow"}]})
            .to_string()
    })
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn what_is_written_reads_as_the_same(text in hostile_text(known(), 100)) {
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
        let Ok(draft) = Draft::parse(&value) else { return Ok(()) };
        let entry = ConfigEntry {
            kind: draft.kind,
            name: draft.name.clone(),
            fields: draft.fields.clone(),
            create_index: 1,
            modify_index: 2,
        };
        let mut json = Json::with_capacity(0);
        entry.write(&mut json);
        let again: Value = serde_json::from_slice(&json.into_bytes()).expect("JSON");
        prop_assert_eq!(Draft::parse(&again), Ok(draft));
    }
}
