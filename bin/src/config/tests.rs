//! Whole configurations: merging, defaults, and the rules between keys.

use serde_json::{Value, json};

use super::*;

/// Writes files into a directory and loads those named in `paths`; the fixed part makes every case complete.
fn load_files(
    files: &[(&str, &str)],
    paths: &[&str],
    edit: impl FnOnce(&mut Inputs),
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside the directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let base = dir.path().join("zz-base.json");
    std::fs::write(&base, r#"{"node_name":"n","bind_addr":"127.0.0.1","data_dir":"/nonexistent/data"}"#)
        .expect("a file");
    let mut inputs = Inputs::default();
    inputs.paths.push(base);
    inputs.paths.extend(paths.iter().map(|path| dir.path().join(path)));
    edit(&mut inputs);
    // Messages name files as they were given: shorten them to what the case wrote.
    let within = format!("{}/", dir.path().display());
    let shortened = |error: ConfigError| ConfigError {
        message: error.message.replace(&within, ""),
        hints: error.hints.into_iter().map(|hint| hint.replace(&within, "")).collect(),
    };
    let mut config = load(&inputs).map_err(shortened)?;
    config.trouble = config.trouble.map(shortened);
    Ok(config)
}

fn one(document: Value) -> Result<Config, ConfigError> {
    load_files(&[("a.json", &document.to_string())], &["a.json"], |_| {})
}

fn refusal(document: Value) -> String {
    match one(document.clone()) {
        Err(error) => error.to_string(),
        // What `validate` puts up with, and an agent does not.
        Ok(config) => config.trouble.unwrap_or_else(|| panic!("{document} is taken")).to_string(),
    }
}

fn flags(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

#[test]
fn the_file_that_everybody_has_makes_a_service_with_a_check() {
    let config = one(json!({"service": {"name": "test", "port": 9999, "check": {"tcp": "127.0.0.1:9999", "interval": "10s"}}}))
        .expect("a good file");
    assert_eq!(config.services.len(), 1);
    let service = &config.services[0];
    assert_eq!((service.service.service.as_str(), service.service.port), ("test", 9999));
    assert_eq!(service.checks.len(), 1);
    let agent = config.agent(Uuid(7));
    assert_eq!((agent.node.as_str(), agent.address.as_str(), agent.id), ("n", "127.0.0.1", Some(Uuid(7))));
    assert_eq!(agent.tagged_addresses.len(), 4);
    assert!(agent.persist && agent.services == config.services);
}

#[test]
fn directories_are_read_in_the_order_of_names_and_not_below() {
    for (files, name) in [
        (
            &[
                ("d/b.json", r#"{"node_name":"b"}"#),
                ("d/a.json", r#"{"node_name":"a"}"#),
                ("d/c.hcl", "node_name = \"c\""),
            ][..],
            "c",
        ),
        (&[("d/10.json", r#"{"node_name":"ten"}"#), ("d/9.json", r#"{"node_name":"nine"}"#)], "nine"),
        (&[("d/a.json", r#"{"node_name":"a"}"#), ("d/sub/b.json", r#"{"node_name":"sub"}"#)], "a"),
        (&[("d/.hidden.json", r#"{"node_name":"hidden"}"#)], "hidden"),
        (&[("d/a.JSON", r#"{"node_name":"upper"}"#), ("d/b.txt", "garbage [")], "n"),
    ] {
        let config = load_files(files, &["d"], |_| {}).expect("good files");
        assert_eq!(config.node_name, name, "{files:?}");
    }
}

#[test]
fn files_that_are_skipped_are_named() {
    let config = load_files(&[("d/c.txt", "garbage [")], &["d"], |_| {}).expect("nothing wrong");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].ends_with("extension must be .hcl or .json, or config format must be set"));
}

#[test]
fn fragments_beat_flags_and_flags_beat_files() {
    let file =
        [("a.json", r#"{"node_name":"file","recursors":["9.9.9.1"],"node_meta":{"a":"file","b":"file"}}"#)];
    let config = load_files(&file, &["a.json"], |inputs| {
        inputs.flags =
            flags(json!({"node_name": "flag", "recursors": ["9.9.9.2"], "node_meta": {"b": "flag"}}));
        inputs.fragments = vec![
            "node_name = \"one\"".to_owned(),
            "node_name = \"two\" recursors = [\"9.9.9.3\"]".to_owned(),
        ];
    })
    .expect("a good configuration");
    assert_eq!(config.node_name, "two");
    assert_eq!(config.dns.recursors, ["9.9.9.2", "9.9.9.1", "9.9.9.3"], "lists from flags come first");
    let meta: Vec<_> = config.node_meta.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(meta, [("a", "file"), ("b", "flag")]);
}

#[test]
fn scalars_are_replaced_maps_merged_and_definitions_joined() {
    let files = [
        (
            "a.json",
            r#"{"translate_wan_addrs":true,"dns_config":{"a_record_limit":4,"service_ttl":{"x":"1s"}},"service":{"name":"one"}}"#,
        ),
        (
            "b.json",
            r#"{"translate_wan_addrs":false,"dns_config":{"a_record_limit":0,"service_ttl":{"y":"2s"}},"services":[{"name":"two"},{"name":"three"}]}"#,
        ),
        ("c.hcl", "service { name = \"four\" }"),
    ];
    let config = load_files(&files, &["a.json", "b.json", "c.hcl"], |_| {}).expect("good files");
    assert_eq!(config.settings["translate_wan_addrs"], json!(false));
    assert_eq!(config.dns.a_record_limit, 0);
    assert_eq!(config.dns.service_ttl.keys().collect::<Vec<_>>(), ["x", "y"]);
    let names: Vec<_> = config.services.iter().map(|s| s.service.service.as_str()).collect();
    assert_eq!(names, ["one", "two", "three", "four"]);
}

#[test]
fn a_format_flag_reads_any_file() {
    let files = [("a.conf", "node_name = \"hcl\"")];
    let config = load_files(&files, &["a.conf"], |inputs| inputs.format = Some(Format::Hcl)).expect("HCL");
    assert_eq!(config.node_name, "hcl");
    let error =
        load_files(&files, &["a.conf"], |inputs| inputs.format = Some(Format::Json)).expect_err("no JSON");
    assert!(error.to_string().starts_with("failed to parse "), "{error}");
}

#[test]
fn empty_files_are_empty_configurations() {
    for name in ["a.json", "a.hcl"] {
        let config = load_files(&[(name, " \n")], &[name], |_| {}).expect("an empty file");
        assert_eq!(config.node_name, "n");
    }
}

#[test]
fn errors_name_file_and_key() {
    for (text, error) in [
        (r#"{"nosuch":1}"#, "failed to parse a.json: 1 error occurred: * invalid config key nosuch"),
        (
            r#"{"dns_config":{"nosuch":1}}"#,
            "failed to parse a.json: 1 error occurred: * invalid config key dns_config.nosuch",
        ),
        (
            r#"{"datacentre":"x"}"#,
            "failed to parse a.json: 1 error occurred: * invalid config key datacentre\n    datacentre: did you mean datacenter?",
        ),
        (
            r#"{"ports":{"http":"x"}}"#,
            "failed to parse a.json: ports.http must be a whole number, not the text \"x\"; write it without quotes",
        ),
        ("{\n\"node_name\" \"x\"}", "failed to parse a.json: line 2, column 13: expected `:`"),
        (r#"{"node_name":"x",}"#, "failed to parse a.json: line 1, column 18: trailing comma"),
        ("// c\n{}", "failed to parse a.json: line 1, column 1: expected value"),
    ] {
        let found = load_files(&[("a.json", text)], &["a.json"], |_| {}).map(|_| ()).expect_err(text);
        assert_eq!(found.to_string(), error, "{text}");
    }
    let missing = load_files(&[], &["none.json"], |_| {}).map(|_| ()).expect_err("no such file");
    assert_eq!(missing.to_string(), "open none.json: no such file or directory");
}

#[test]
fn every_rule_has_its_refusal() {
    for (document, error) in [
        (json!({"data_dir": ""}), "data_dir cannot be empty"),
        (json!({"datacenter": "a.b"}), "datacenter cannot be \"a.b\". Please use only [a-z0-9-_]"),
        (json!({"bind_addr": "999.1.1.1"}), "bind_addr cannot be empty\n    \"999.1.1.1\" is no IP address."),
        (json!({"bind_addr": "127.0.0.1 127.0.0.2"}), "bind_addr cannot contain multiple addresses."),
        (json!({"advertise_addr": "0.0.0.0"}), "Advertise address cannot be 0.0.0.0, :: or [::]"),
        (json!({"advertise_addr_wan": "::"}), "Advertise WAN address cannot be 0.0.0.0, :: or [::]"),
        (json!({"client_addr": "not an ip"}), "1 error occurred: * client_addr: invalid ip address: not"),
        (json!({"client_addr": "unix:///tmp/x"}), "1 error occurred: * client_addr cannot be a unix socket"),
        (json!({"ports": {"dns": 70000}}), "1 error occurred: * ports.dns: invalid port: 70000"),
        (
            json!({"ports": {"serf_lan": 8300}}),
            "Serf Advertise LAN address 127.0.0.1:8300 already configured for RPC Advertise",
        ),
        (
            json!({"check_update_interval": "5 minutes"}),
            "1 error occurred: * check_update_interval: invalid duration: \"5 minutes\"",
        ),
        (
            json!({"dns_config": {"service_ttl": {"x": "abc"}}}),
            "1 error occurred: * dns_config.service_ttl[\"x\"]: invalid duration: \"abc\"",
        ),
        (json!({"bootstrap": true}), "'bootstrap = true' requires 'server = true'"),
        (json!({"bootstrap_expect": 3}), "'bootstrap_expect > 0' requires 'server = true'"),
        (json!({"server": true, "bootstrap_expect": -1}), "bootstrap_expect cannot be -1."),
        (
            json!({"server": true, "bootstrap": true, "bootstrap_expect": 3}),
            "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive",
        ),
        (
            json!({"performance": {"raft_multiplier": 11}}),
            "performance.raft_multiplier cannot be 11. Must be between 1 and 10",
        ),
        (json!({"check_output_max_size": 0}), "check_output_max_size must be positive"),
        (json!({"dns_config": {"udp_answer_limit": -1}}), "dns_config.udp_answer_limit cannot be -1."),
        (
            json!({"node_meta": {"": "x"}}),
            "node_meta invalid: Couldn't load metadata pair ('', 'x'): Key cannot be blank",
        ),
        (
            json!({"node_meta": {"a.b": "x"}}),
            "node_meta invalid: Couldn't load metadata pair ('a.b', 'x'): Key contains invalid characters",
        ),
        (
            json!({"node_meta": {"consul-x": "x"}}),
            "node_meta invalid: Couldn't load metadata pair ('consul-x', 'x'): Key prefix 'consul-' is reserved",
        ),
        (json!({"node_id": "xyz"}), "node_id \"xyz\" is no NodeID"),
        (json!({"log_level": "loud"}), "Invalid log level: loud."),
        (json!({"encrypt": "!!"}), "encrypt has invalid key: "),
        (
            json!({"encrypt": "AAAA"}),
            "Failed to configure keyring: Invalid key: key size must be 16, 24 or 32 bytes",
        ),
        (
            json!({"retry_join": ["10.0.0.1", "provider=aws tag_key=x"]}),
            "retry_join: \"provider=aws tag_key=x\" asks a cloud",
        ),
        (json!({"retry_join_wan": ["a b"]}), "retry_join_wan: \"a b\" is no address to join"),
        (json!({"retry_max": -1}), "retry_max cannot be -1. Must be greater than or equal to zero"),
        (
            json!({"gossip_lan": {"gossip_nodes": 0}}),
            "gossip_lan.gossip_nodes cannot be 0. Must be greater than zero",
        ),
        (
            json!({"gossip_wan": {"probe_interval": "0s"}}),
            "gossip_wan.probe_interval must be greater than zero",
        ),
        (json!({"autopilot": {"min_quorum": -1}}), "autopilot.min_quorum cannot be -1."),
        (
            json!({"server": true, "bootstrap": true, "read_replica": true}),
            "'read_replica = true' and 'bootstrap = true' exclude each other",
        ),
        (json!({"recursors": ["0.0.0.0"]}), "DNS recursor address cannot be 0.0.0.0, :: or [::]"),
        (
            json!({"serf_lan_allowed_cidrs": ["127.0.0.0"]}),
            "serf_lan_allowed_cidrs: 1 error occurred: * invalid cidr: 127.0.0.0",
        ),
        (json!({"acl": {"default_policy": "maybe"}}), "Unsupported default ACL policy: maybe"),
        (json!({"ui": true, "ui_dir": "/x"}), "Both the ui and ui-dir flags were specified"),
        (
            json!({"ui": true, "ui_content_path": "/v1/"}),
            "ui-content-path cannot have 'v[0-9]'. received: /v1/",
        ),
        (json!({"ui": true, "ui_content_path": "a b"}), "ui-content-path can only contain alphanumeric"),
        (json!({"segment": "a"}), "Network segments are not supported"),
        (json!({"verify_outgoing": true}), "VerifyOutgoing set, and no CA certificate provided!"),
        (json!({"protocol": 99}), "Protocol version '99' too high"),
        (
            json!({"ports": {"sidecar_min_port": 2, "sidecar_max_port": 1}}),
            "sidecar_min_port must be less than sidecar_max_port.",
        ),
        (
            json!({"limits": {"request_limits": {"mode": "maybe"}}}),
            "limits.request_limits.mode \"maybe\" is unknown",
        ),
        (
            json!({"http_config": {"response_headers": {"a b": "c"}}}),
            "http_config.response_headers: \"a b\": \"c\" is no header",
        ),
        (
            json!({"http_config": {"allow_write_http_from": ["127.0.0.1"]}}),
            "http_config.allow_write_http_from: 1 error occurred: * invalid cidr: 127.0.0.1",
        ),
        (json!({"unix_sockets": {"user": "no such user"}}), "unix_sockets.user \"no such user\" is not in"),
        (json!({"unix_sockets": {"mode": "rwx"}}), "unix_sockets.mode \"rwx\" is no file mode"),
        (
            json!({"service": {"port": 1}}),
            "Failed to register service \"\": Service name missing\n    service in a.json",
        ),
        (
            json!({"check": {"id": "x", "name": "X", "tcp": "127.0.0.1:1"}}),
            "Failed to register check 'X': Check is not valid: Interval must be > 0",
        ),
        (
            json!({"check": {"name": "X", "service_id": "nosuch", "ttl": "1m"}}),
            "Failed to register check 'X': ServiceID \"nosuch\" does not exist",
        ),
    ] {
        let found = refusal(document.clone());
        assert!(found.starts_with(error), "{document}: {found}");
    }
}

#[test]
fn a_data_directory_must_be_a_directory() {
    let error = load_files(&[("a.json", "{}")], &["a.json"], |inputs| {
        let file = inputs.paths[0].display().to_string();
        inputs.flags = flags(json!({"data_dir": file}));
    });
    let error = error.map(|_| ()).expect_err("a file is no directory");
    assert!(error.to_string().ends_with("is not a directory"), "{error}");
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = one(json!({})).expect("nothing set");
    assert_eq!(config.datacenter, "dc1");
    assert_eq!(config.dns.domain, "consul");
    assert_eq!((config.ports.http, config.ports.dns, config.ports.server), (Some(8500), Some(8600), 8300));
    assert_eq!(config.http, [Listen::Tcp("127.0.0.1:8500".parse().expect("an address"))]);
    assert_eq!(config.raft.multiplier, 5);
    assert_eq!(
        config.limits,
        Limits {
            kv_max_value_size: 524_288,
            txn_max_req_len: 524_288,
            http_max_conns_per_client: 200,
            max_header_bytes: None,
            http_idle_timeout: Duration::from_secs(120),
        }
    );
    assert_eq!(config.session_ttl_min, Duration::from_secs(10));
    assert!(config.leave_on_terminate && !config.skip_leave_on_interrupt && !config.server);
    assert!(!config.elects_itself());
    assert_eq!(config.log, LogConfig::default());
}

#[test]
fn addresses_to_join_come_from_both_keys_with_the_port_of_gossip() {
    let config = one(json!({
        "ports": {"serf_lan": 9301}, "start_join": ["a"], "retry_join": ["10.0.0.1", "[::1]:7"],
        "retry_interval": "2s", "retry_max": 5, "server": true, "retry_join_wan": ["other"],
    }))
    .expect("good addresses");
    let lan: Vec<_> = config.join_lan.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(lan, ["10.0.0.1:9301", "[::1]:7", "a:9301"]);
    assert_eq!((config.join_lan.interval, config.join_lan.attempts_max), (Duration::from_secs(2), 5));
    let wan: Vec<_> = config.join_wan.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((wan, config.join_wan.attempts_max), (vec!["other:8302".to_owned()], 0));
}

#[test]
fn gossip_and_autopilot_are_read_with_their_defaults() {
    let config = one(json!({})).expect("nothing set");
    let (gossip, autopilot) = (&config.gossip, &config.autopilot);
    assert!(gossip.key.is_none() && gossip.verify_incoming && gossip.verify_outgoing && gossip.keyring_file);
    assert_eq!((gossip.lan.suspicion_mult, gossip.wan.suspicion_mult), (4, 6));
    assert_eq!(gossip.lan.reconnect_timeout, Duration::from_secs(72 * 3600));
    assert_eq!(*autopilot, AutopilotSettings::default());
    let config = one(json!({
        "encrypt": "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=", "encrypt_verify_incoming": false,
        "gossip_lan": {"probe_interval": "3s"}, "reconnect_timeout": "7h",
        "autopilot": {"min_quorum": 3, "last_contact_threshold": "1s"},
    }))
    .expect("good values");
    let (gossip, autopilot) = (&config.gossip, &config.autopilot);
    assert!(gossip.key.as_ref().is_some_and(|key| key.as_bytes().len() == 32) && !gossip.verify_incoming);
    assert_eq!(gossip.lan.probe_interval, Duration::from_secs(3));
    assert_eq!(gossip.lan.reconnect_timeout, Duration::from_secs(8 * 3600), "less is too short for repairs");
    assert!(config.warnings.iter().any(|w| w.contains("8h is used")), "{:?}", config.warnings);
    assert_eq!((autopilot.min_quorum, autopilot.last_contact_threshold), (3, Duration::from_secs(1)));
}

#[test]
fn servers_stay_in_the_cluster_when_they_are_stopped() {
    let config = one(json!({"server": true, "bootstrap_expect": 1})).expect("a good file");
    assert!(!config.leave_on_terminate && config.skip_leave_on_interrupt);
    assert!(
        config.bootstrap && config.elects_itself(),
        "expecting one server is the same as being the first"
    );
    assert_eq!(config.bootstrap_expect, 0);
}

#[test]
fn development_mode_needs_nothing_else() {
    let config = load(&Inputs { dev: true, ..Inputs::default() }).expect("no setting is needed");
    assert!(config.dev && config.server && config.elects_itself());
    assert_eq!(config.data_dir, None);
    assert_eq!(config.advertise_lan, "127.0.0.1".parse::<IpAddr>().expect("an address"));
    assert_eq!(config.log.level, crate::log::Level::Debug);
    assert!(config.warnings.is_empty() && config.idle.is_empty(), "{:?} {:?}", config.warnings, config.idle);
    let quiet = load(&Inputs {
        dev: true,
        flags: flags(json!({"log_level": "err", "server": false})),
        ..Inputs::default()
    });
    let quiet = quiet.expect("flags over the defaults of development mode");
    assert!(!quiet.server && quiet.log.level == crate::log::Level::Err);
}

#[test]
fn old_keys_are_moved_with_a_warning_unless_the_new_one_is_there() {
    let config = one(json!({"acl_ttl": "15s", "acl": {"token_ttl": "25s"}, "acl_default_policy": "deny"}))
        .expect("old keys");
    assert_eq!(config.settings["acl"], json!({"token_ttl": "25s", "default_policy": "deny"}));
    assert!(
        config
            .warnings
            .contains(&"acl_default_policy is deprecated: write acl.default_policy instead".to_owned())
    );
}

#[test]
fn the_old_name_of_the_primary_datacenter_switches_acls_on() {
    let config = one(json!({"acl_datacenter": "DC1"})).expect("an old key");
    assert_eq!(config.settings["acl"], json!({"enabled": true}));
    assert_eq!(config.primary_datacenter, "dc1");
}

#[test]
fn settings_without_effect_are_named_and_protection_first() {
    let config =
        one(json!({"acl": {"enabled": true}, "telemetry": {"statsd_address": "p"}, "ports": {"https": -1}}))
            .expect("a good file");
    assert_eq!(
        config.idle,
        [
            "NOT PROTECTED: this version does not enforce acl.enabled (there are no access rules yet)",
            "accepted, and without effect: telemetry.statsd_address (metrics are asked for, not sent: /v1/agent/metrics)",
        ]
    );
}

#[test]
fn ports_below_one_are_off_and_sockets_stand_beside_addresses() {
    let config = one(json!({"ports": {"dns": -1, "serf_wan": 0}, "client_addr": "127.0.0.1 127.0.0.2", "addresses": {"http": "127.0.0.1 unix:///tmp/h.sock"}}))
        .expect("a good file");
    assert!(config.dns_listen.is_empty() && config.serf_wan_bind.is_none());
    assert_eq!(config.http[1], Listen::Unix("/tmp/h.sock".into()));
    assert_eq!(config.client_addrs.len(), 2);
}

#[test]
fn the_report_shows_settings_under_their_known_names_and_hides_secrets() {
    let config = one(json!({
        "encrypt": "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=", "dns_config": {"node_ttl": "1500ms", "service_ttl": {"x": "90s"}},
        "performance": {"raft_multiplier": 3}, "ui_content_path": "x/y", "acl": {"tokens": {"default": "secret"}},
    }))
    .expect("a good file");
    let report = report::debug(&config);
    for (path, value) in [
        ("/DNSNodeTTL", json!("1.5s")),
        ("/DNSServiceTTL", json!({"x": "1m30s"})),
        ("/ConsulRaftElectionTimeout", json!("3s")),
        ("/ConsulRaftLeaderLeaseTimeout", json!("1.5s")),
        ("/Logging/LogLevel", json!("INFO")),
        ("/UIContentPath", json!("/x/y/")),
        ("/ACLToken", json!("hidden")),
        ("/RPCBindAddr", json!("tcp://127.0.0.1:8300")),
        ("/CheckUpdateInterval", json!("5m0s")),
        ("/TaggedAddresses/lan_ipv4", json!("127.0.0.1")),
    ] {
        assert_eq!(report.pointer(path), Some(&value), "{path}");
    }
    assert!(!report.to_string().contains("secret") && !report.to_string().contains("pUqJ"));
}
