use proptest::prelude::*;
use serde_json::json;

use super::*;

fn service(body: &Value) -> Result<ServiceDefinition, CallError> {
    service_from_request(body.to_string().as_bytes())
}

fn check(body: &Value) -> Result<CheckDefinition, CallError> {
    check_from_request(body.to_string().as_bytes())
}

#[test]
fn a_service_is_read_with_keys_in_either_style() {
    let read = service(&json!({
        "id": "low1", "name": "low", "Tags": ["a"], "tagged_addresses": {"lan": {"address": "10.1.0.2", "Port": 1}},
        "enable_tag_override": true, "Meta": {"k": "v"}, "Port": 80
    }))
    .unwrap();
    assert_eq!(read.service.id, "low1");
    assert_eq!(read.service.service, "low");
    assert_eq!(read.service.tags, ["a"]);
    assert_eq!(read.service.tagged_addresses.len(), 1);
    assert_eq!(read.service.tagged_addresses["lan"].port, 1);
    assert!(read.service.enable_tag_override);
    assert_eq!(read.service.port, 80);
}

#[test]
fn an_own_address_implies_addresses_by_family() {
    let read = service(&json!({"Name": "v6", "Address": "2001:db8::1", "Port": 5})).unwrap();
    assert_eq!(read.service.tagged_addresses.keys().collect::<Vec<_>>(), ["lan_ipv6", "wan_ipv6"]);
    assert_eq!(read.service.tagged_addresses["wan_ipv6"].port, 5);
}

#[test]
fn refused_services_are_answered_with_the_known_texts() {
    let long = "v".repeat(513);
    let cases = [
        (json!({"ID": "x"}), 400, "Missing service name"),
        (json!({"Name": "x", "Frob": 1}), 400, "Request decode failed: json: unknown field \"Frob\""),
        (
            json!({"Name": "x", "Port": "http"}),
            400,
            "Request decode failed: 'port' expected an integer, got string \"http\"",
        ),
        (
            json!({"Name": "x", "Tags": "a"}),
            400,
            "Request decode failed: 'tags' expected a list of strings, got string \"a\"",
        ),
        (json!([]), 400, "Request decode failed: '' expected an object, got a list"),
        (json!({"Name": "x", "Address": "0.0.0.0"}), 400, "Invalid service address"),
        (json!({"Name": "x", "Address": "::"}), 400, "Invalid service address"),
        (json!({"Name": "x", "Address": "[::]"}), 400, "Invalid service address"),
        (
            json!({"Name": "x", "Connect": {"SidecarService": {"ID": "y"}}}),
            400,
            "1 error occurred:\n\t* A SidecarService cannot specify an ID as this is managed by the agent\n\n",
        ),
        (json!({"Name": "x", "Address": "::"}), 400, "Invalid service address"),
        (json!({"Name": "x", "Port": 70000}), 400, "Invalid service port 70000: must be between 0 and 65535"),
        (json!({"Name": "x", "Check": {"Name": "c"}}), 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (
            json!({"Name": "x", "Check": {"HTTP": "http://127.0.0.1/"}}),
            400,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            json!({"Name": "x", "Check": {"TTL": "10s", "HTTP": "http://127.0.0.1/", "Interval": "10s"}}),
            400,
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (
            json!({"Name": "x", "Check": {"TTL": "10s", "Status": "fine"}}),
            400,
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        (
            json!({"Name": "x", "Weights": {"Passing": 0}}),
            400,
            "Invalid Weights: Passing must be greater than 0",
        ),
        (
            json!({"Name": "x", "Weights": {"Passing": 1, "Warning": -1}}),
            400,
            "Invalid Weights: Warning must be greater or equal than 0",
        ),
        (
            json!({"Name": "x", "Weights": {"Passing": 70000}}),
            400,
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        (
            json!({"Name": "x", "Meta": {"a b": "v"}}),
            400,
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'v'): Key contains invalid characters",
        ),
        (
            json!({"Name": "x", "Meta": {"": "v"}}),
            400,
            "Invalid Service Meta: Couldn't load metadata pair ('', 'v'): Key cannot be blank",
        ),
        (
            json!({"Name": "x", "Kind": "connect-proxy", "Port": 1}),
            400,
            "1 error occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n",
        ),
        (
            json!({"Name": "x", "Kind": "connect-proxy", "Proxy": {"DestinationServiceName": "y"}}),
            400,
            "1 error occurred:\n\t* Port must be set for a Connect proxy\n\n",
        ),
        (
            json!({"Name": "x", "Kind": "connect-proxy", "Connect": {"Native": true}}),
            400,
            "3 errors occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\t* Port must \
             be set for a Connect proxy\n\t* A Proxy cannot also be Connect Native, only typical services\n\n",
        ),
        (
            json!({"Name": "x", "Kind": "mesh-gateway", "Proxy": {"DestinationServiceName": "y"}}),
            400,
            "2 errors occurred:\n\t* Port must be non-zero for a mesh-gateway\n\t* The Proxy.DestinationServiceName \
             configuration is invalid for a mesh-gateway\n\n",
        ),
        (
            json!({"Name": "x", "Kind": "connect-proxy", "Port": 4, "Proxy": {"DestinationServiceName": "w", "Upstreams": [
                {"LocalBindPort": 5}, {"DestinationName": "a"}, {"DestinationName": "a", "LocalBindPort": 7},
                {"DestinationName": "a", "LocalBindPort": 7}, {"DestinationName": "b", "LocalBindPort": 7},
            ]}}),
            400,
            "4 errors occurred:\n\t* upstream destination name cannot be empty\n\t* upstream local bind port cannot be \
             zero\n\t* upstreams cannot contain duplicates of [type=\"service\", name=\"a\", namespace=\"\", datacenter=\"\"]\
             \n\t* upstreams cannot contain duplicates by local bind address and port; \"127.0.0.1:7\" is specified \
             twice\n\n",
        ),
        (
            json!({"Name": "x", "Connect": {"SidecarService": {"Connect": {"SidecarService": {}}}}}),
            400,
            "1 error occurred:\n\t* A SidecarService cannot have a nested SidecarService\n\n",
        ),
    ];
    for (body, status, text) in cases {
        assert_eq!(service(&body), Err(CallError::new(status, text)), "{body}");
    }
    let error = service(&json!({"Name": "x", "Meta": {"k": long}})).unwrap_err();
    assert!(error.text.ends_with("Value is too long (limit: 512 characters)"));
    for (body, text) in [("", "Request decode failed: EOF"), ("{", "Request decode failed: unexpected EOF")] {
        assert_eq!(service_from_request(body.as_bytes()), Err(CallError::new(400, text)));
    }
}

#[test]
fn refused_checks_are_answered_with_the_known_texts() {
    let cases = [
        (json!({"ID": "x", "TTL": "1h"}), 400, "Missing check name"),
        (json!({"Name": "x"}), 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (json!({"Name": "x", "TTL": "-3s"}), 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (json!({"Name": "x", "TTL": "10s", "Status": "fine"}), 400, "Bad check status"),
        (
            json!({"Name": "x", "TTL": "soon"}),
            400,
            "Request decode failed: time: invalid duration \"soon\" (ttl)",
        ),
        (
            json!({"Name": "x", "TTL": "10s", "Frob": 1}),
            400,
            "Request decode failed: json: unknown field \"Frob\"",
        ),
        (
            json!({"Name": "x", "Script": "true"}),
            400,
            "Request decode failed: json: unknown field \"Script\"",
        ),
        (
            json!({"Name": "x", "AliasNode": "n", "TTL": "3s"}),
            400,
            "Invalid check: TTL must be not be set for Alias checks",
        ),
        (
            json!({"Name": "x", "TTL": "3s", "OutputMaxSize": -1}),
            400,
            "Invalid check: MaxOutputMaxSize must be positive",
        ),
    ];
    for (body, status, text) in cases {
        assert_eq!(check(&body), Err(CallError::new(status, text)), "{body}");
    }
}

#[test]
fn a_check_is_read_with_everything() {
    let read = check(&json!({
        "ID": "h", "Name": "H", "HTTP": "http://127.0.0.1:1", "Method": "POST", "Header": {"X-Test": ["yes"]},
        "Body": "b", "Interval": 3_600_000_000_000_i64, "timeout": "2s", "TLSSkipVerify": true, "Status": "warning",
        "SuccessBeforePassing": 3, "FailuresBeforeCritical": 4, "deregister_critical_service_after": "1s"
    }))
    .unwrap();
    assert_eq!(read.status, Some(Health::Warning));
    assert_eq!(read.interval_text(), "1h0m0s");
    assert_eq!(read.timeout_text(), "2s");
    assert_eq!(
        (read.success_before_passing, read.failures_before_warning, read.failures_before_critical),
        (3, 4, 4)
    );
    assert_eq!(read.deregister_after, Some(DEREGISTER_AFTER_MIN));
    let CheckKind::Http { method, headers, body, tls_skip_verify, disable_redirects, .. } = read.kind else {
        panic!()
    };
    assert_eq!(
        (method.as_str(), body.as_str(), tls_skip_verify, disable_redirects),
        ("POST", "b", true, false)
    );
    assert_eq!(headers["X-Test"], ["yes"]);
}

#[test]
fn configuration_files_are_strict_and_name_the_path() {
    let error = |value: Value| service_from_config("services[1]", &value).unwrap_err().to_string();
    assert_eq!(error(json!({"name": "x", "frob": 1})), "invalid config key services[1].frob");
    assert_eq!(
        error(json!({"name": "x", "check": {"script": "true"}})),
        "invalid config key services[1].check.script"
    );
    assert_eq!(
        error(json!({"name": "x", "EnableTagOverride": true})),
        "invalid config key services[1].EnableTagOverride"
    );
    assert_eq!(
        error(json!({"name": "x", "port": "80"})),
        "'services[1].port' expected an integer, got string \"80\""
    );
    assert_eq!(error(json!("a")), "'services[1]' expected an object, got string \"a\"");
    for nothing in [json!({}), json!({"notes": "", "interval": null, "args": []})] {
        let service = service_from_config("service", &json!({"name": "x", "check": nothing})).unwrap();
        assert_eq!(service.checks.len(), 0, "a check that says nothing is none, as with Consul");
    }
    let hcl = json!([{"NAME": ["x"], "check": [{"ttl": "30s"}]}]);
    let read = service_from_config("service", &hcl).unwrap();
    assert_eq!((read.service.service.as_str(), read.checks.len()), ("x", 1));
}

#[test]
fn the_famous_definition_is_read() {
    let body = json!({"name":"test","port":9999,"check":{"tcp":"127.0.0.1:9999","interval":"10s"}});
    let read = service_from_config("service", &body).unwrap();
    let schedule = Schedule { interval: Duration::from_secs(10), timeout: None };
    assert_eq!(read.checks[0].kind, CheckKind::Tcp { address: "127.0.0.1:9999".into(), schedule });
}

#[test]
fn a_sidecar_follows_its_service() {
    let read = service(&json!({"Name": "web", "Port": 8080, "Connect": {"SidecarService": {"Proxy": {
        "Upstreams": [{"DestinationName": "db", "LocalBindPort": 9191}], "Config": {"protocol": "http"}}}}}))
    .unwrap();
    let sidecar = read.sidecar.unwrap();
    assert_eq!(sidecar.service.id, "web-sidecar-proxy");
    assert_eq!(
        sidecar.service.proxy,
        r#"{"DestinationServiceName":"web","DestinationServiceID":"web","LocalServiceAddress":"127.0.0.1","LocalServicePort":8080,"Config":{"protocol":"http"},"Upstreams":[{"DestinationType":"service","DestinationName":"db","Datacenter":"","LocalBindPort":9191,"Config":null,"MeshGateway":{}}],"MeshGateway":{},"Expose":{}}"#
    );
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("Name".to_owned()),
        Just("check".to_owned()),
        Just("Checks".to_owned()),
        Just("TTL".to_owned()),
        Just("interval".to_owned()),
        Just("http".to_owned()),
        Just("Connect".to_owned()),
        Just("sidecar_service".to_owned()),
        Just("weights".to_owned()),
        Just("tagged_addresses".to_owned()),
        "[a-z_]{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(Value::from("10s")),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_value_makes_the_reader_panic(value in arbitrary_json()) {
        let _ = service_from_config("service", &value);
        let _ = check_from_config("check", &value);
        let _ = service(&value);
        let _ = check(&value);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = service_from_request(&body);
        let _ = check_from_request(&body);
    }
}
