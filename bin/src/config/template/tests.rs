use std::net::IpAddr;

use super::*;

fn one(name: &str, address: &str, bits: u8, is_default: bool) -> Interface {
    let address: IpAddr = address.parse().expect("an address");
    let flags =
        if address.is_loopback() { vec!["up", "loopback"] } else { vec!["up", "broadcast", "multicast"] };
    Interface { name: name.to_owned(), address, bits, flags, is_default }
}

fn machine() -> Vec<Interface> {
    vec![
        one("lo", "127.0.0.1", 8, false),
        one("lo", "::1", 128, false),
        one("eth0", "10.1.2.3", 24, true),
        one("eth0", "fd00::2", 64, true),
        one("eth0", "fe80::1", 64, true),
        one("eth1", "172.16.5.6", 12, false),
        one("ppp0", "8.8.4.4", 32, false),
    ]
}

#[test]
fn templates_become_addresses() {
    for (template, expected) in [
        ("no template", "no template"),
        ("{{ GetPrivateIP }}", "10.1.2.3"),
        ("{{GetPrivateIP}}:8301", "10.1.2.3:8301"),
        ("{{ GetPrivateIPs }}", "10.1.2.3 fd00::2 172.16.5.6"),
        ("{{ GetPublicIP }}", "8.8.4.4"),
        ("{{ GetPublicIPs }}", "8.8.4.4"),
        ("{{ GetInterfaceIP \"eth1\" }}", "172.16.5.6"),
        ("{{ GetInterfaceIP `eth1` }}", "172.16.5.6"),
        ("{{ GetInterfaceIP \"lo\" }}", ""),
        ("{{ GetInterfaceIPs \"lo\" }}", "127.0.0.1 ::1"),
        ("{{ GetInterfaceIP \"none\" }}", ""),
        ("127.0.0.1 {{ GetPrivateIP }}", "127.0.0.1 10.1.2.3"),
        ("{{ GetDefaultInterfaces | attr \"name\" }}", "eth0"),
        (
            "{{ GetAllInterfaces | include \"name\" \"^eth\" | include \"type\" \"IPv4\" | join \"address\" \",\" }}",
            "10.1.2.3,172.16.5.6",
        ),
        (
            "{{ GetAllInterfaces | exclude \"type\" \"ipv6\" | exclude \"rfc\" \"1918\" | join \"address\" \" \" }}",
            "127.0.0.1 8.8.4.4",
        ),
        (
            "{{ GetAllInterfaces | include \"flags\" \"up|loopback\" | join \"address\" \" \" }}",
            "127.0.0.1 ::1",
        ),
        (
            "{{ GetAllInterfaces | include \"network\" \"10.0.0.0/8|172.16.0.0/12\" | join \"name\" \" \" }}",
            "eth0 eth1",
        ),
        (
            "{{ GetAllInterfaces | include \"type\" \"IPv4\" | sort \"-address\" | limit 1 | attr \"address\" }}",
            "172.16.5.6",
        ),
        (
            "{{ GetAllInterfaces | include \"type\" \"IPv4\" | sort \"size\" | attr \"address\" }}",
            "127.0.0.1",
        ),
        ("{{ GetAllInterfaces | offset -1 | attr \"address\" }}", "8.8.4.4"),
        ("{{ GetAllInterfaces | unique \"name\" | join \"name\" \" \" }}", "lo eth0 eth1 ppp0"),
        ("{{ GetPrivateInterfaces | math \"address\" \"+5\" | attr \"address\" }}", "10.1.2.8"),
        ("{{ GetPrivateInterfaces | math \"network\" \"1\" | attr \"address\" }}", "10.1.2.1"),
        ("{{ GetPrivateInterfaces | math \"network\" \"-1\" | attr \"address\" }}", "10.1.2.255"),
        // The network of all addresses has nothing behind its end.
        (
            "{{ GetInterfaceIPs \"lo\" }} {{ GetAllInterfaces | include \"type\" \"ipv6\" | limit 1 | math \"mask\" \"0\" | math \"network\" \"-1\" | attr \"address\" }}",
            "127.0.0.1 ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ),
        ("{{ GetPrivateInterfaces | math \"mask\" \"16\" | attr \"string\" }}", "10.1.0.0/16"),
        ("{{ GetPrivateInterfaces | attr \"network\" }}", "10.1.2.0/24"),
        ("{{ GetPrivateInterfaces | attr \"netmask\" }}", "255.255.255.0"),
        ("{{ GetPrivateInterfaces | attr \"first_usable\" }}", "10.1.2.1"),
        ("{{ GetPrivateInterfaces | attr \"broadcast\" }}", "10.1.2.255"),
        ("{{ GetPrivateInterfaces | attr \"size\" }}", "256"),
        ("{{ attr \"address\" (GetAllInterfaces | include \"name\" \"ppp\") }}", "8.8.4.4"),
        ("{{ GetAllInterfaces | include \"name\" \"none\" | attr \"address\" }}", ""),
        ("{{- GetPrivateIP -}}", "10.1.2.3"),
    ] {
        assert_eq!(expand(template, &machine()).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn what_is_wrong_with_a_template_is_said() {
    for (template, why) in [
        ("{{ GetPrivateIP", "unclosed action"),
        ("{{ GetNosuch }}", "function \"GetNosuch\" not defined"),
        ("{{ }}", "missing value"),
        ("{{ GetAllInterfaces | }}", "missing value"),
        ("{{ GetAllInterfaces | include \"nosuch\" \"x\" }}", "invalid include selector \"nosuch\""),
        ("{{ GetAllInterfaces | include \"name\" }}", "include wants text"),
        ("{{ GetAllInterfaces | include \"name\" \"(\" }}", "include \"name\":"),
        ("{{ GetAllInterfaces | include \"type\" \"ipx\" }}", "none of ip, ipv4"),
        ("{{ GetAllInterfaces | include \"flags\" \"odd\" }}", "unknown flag \"odd\""),
        ("{{ GetAllInterfaces | include \"network\" \"x\" }}", "is no network"),
        ("{{ GetAllInterfaces | include \"rfc\" \"1\" }}", "names no networks"),
        ("{{ GetAllInterfaces | attr \"nosuch\" }}", "unsupported attribute name \"nosuch\""),
        ("{{ GetAllInterfaces | sort \"nosuch\" }}", "unknown sort type"),
        ("{{ GetAllInterfaces | limit \"x\" }}", "wants a number"),
        ("{{ GetAllInterfaces | offset 99 }}", "there are only 7"),
        ("{{ GetAllInterfaces | math \"address\" \"x\" }}", "is no number"),
        ("{{ GetAllInterfaces | math \"mask\" \"200\" }}", "too many"),
        ("{{ GetPrivateIP | attr \"address\" }}", "attr wants interfaces"),
        ("{{ attr \"a\" (GetAllInterfaces }}", "unclosed left paren"),
        ("{{ GetPrivateIP \"x\" }}", "wrong number of args"),
        ("{{ \"x }}", "unclosed action"),
        ("{{ range GetAllInterfaces }}x{{ end }}", "range is not known here"),
    ] {
        let error = expand(template, &machine()).expect_err(template);
        assert!(error.contains(why), "{template}: {error}");
    }
}

#[test]
fn settings_are_expanded_where_they_hold_addresses() {
    let mut errors = Vec::new();
    let settings = serde_json::json!({
        "client_addr": "{{ GetInterfaceIPs \"lo\" }}",
        "addresses": {"http": "{{ GetNosuch }}"},
        "retry_join": ["a", "{{ GetInterfaceIPs \"lo\" }}"],
        "node_name": "{{ GetPrivateIP }}",
    });
    let Value::Object(mut settings) = settings else { unreachable!("written as an object") };
    expand_all(&mut settings, &mut errors);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with("addresses.http: error parsing \"{{ GetNosuch }}\": function"),
        "{errors:?}"
    );
    assert!(settings["client_addr"].as_str().is_some_and(|text| text.starts_with("127.0.0.1")));
    assert!(!settings["retry_join"].to_string().contains("{{"));
    assert_eq!(settings["node_name"], "{{ GetPrivateIP }}");
}
