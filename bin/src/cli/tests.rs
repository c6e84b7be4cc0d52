//! Whole command lines against an agent that is played by the test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use super::{Terminal, run};

mod cluster;

/// What a command left behind.
#[derive(Debug)]
struct Outcome {
    status: u8,
    out: String,
    err: String,
}

fn command(line: &[&str], env: &BTreeMap<&str, String>, input: &str) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args: Vec<OsString> = line.iter().map(OsString::from).collect();
    let status = run(
        &args,
        &mut Terminal {
            program: "proconsul".to_owned(),
            out: &mut out,
            err: &mut err,
            input: &mut input.as_bytes(),
            env: &|name| env.get(name).cloned(),
            err_is_terminal: false,
            colours: false,
        },
    );
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome { status, out: text(out), err: text(err) }
}

fn alone(line: &[&str]) -> Outcome {
    command(line, &BTreeMap::new(), "")
}

/// Plays an agent that gives one answer to one request. The request's first line, the token and the body come back.
fn against(status: &str, answer: &str, line: &[&str]) -> (Outcome, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let (send, receive) = mpsc::channel();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
    let agent = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        let mut heads: Vec<String> = Vec::new();
        loop {
            let mut head = String::new();
            reader.read_line(&mut head).expect("a head line");
            if head.trim().is_empty() {
                break;
            }
            heads.push(head.trim().to_owned());
        }
        let field = |name: &str| {
            let prefix = format!("{name}: ");
            heads.iter().find_map(|head| head.strip_prefix(&prefix).map(str::to_owned))
        };
        let length = field("content-length").map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        let token = field("x-consul-token").map(|token| format!(" token={token}")).unwrap_or_default();
        let first = heads[0].trim_end_matches(" HTTP/1.1").to_owned() + &token;
        send.send((first, String::from_utf8(body).expect("text"))).expect("the test waits");
        reader.into_inner().write_all(answer.as_bytes()).expect("it reads the answer");
    });
    let env = BTreeMap::from([("CONSUL_HTTP_ADDR", address), ("CONSUL_HTTP_TOKEN", "t0".to_owned())]);
    let outcome = command(line, &env, "from stdin\n");
    let (first, body) = receive.recv().unwrap_or_else(|_| panic!("{line:?} sent nothing: {outcome:?}"));
    agent.join().expect("the played agent does not fail");
    (outcome, first, body)
}

const ROW: &str =
    r#"[{"LockIndex":0,"Key":"a","Flags":7,"Value":"eA==","Session":"s1","CreateIndex":3,"ModifyIndex":4}]"#;
const ROWS: &str = r#"[{"Key":"a","Value":"eA=="},{"Key":"b","Value":null}]"#;
const MEMBERS: &str = r#"[
    {"Name":"c1","Addr":"10.0.0.9","Port":8301,"Status":4,"Tags":{"role":"node","dc":"dc1","build":"1.0.0:","vsn":"2"}},
    {"Name":"s1","Addr":"10.0.0.1","Port":8301,"Status":1,"Tags":{"role":"consul","dc":"dc1","build":"1.0.0:","vsn":"2"}}]"#;

#[test]
fn commands_ask_what_they_should_and_print_what_they_got() {
    for (line, status, answer, request, body, code, out) in [
        (&["kv", "get", "a"][..], "200 OK", ROW, "GET /v1/kv/a token=t0", "", 0, "x\n"),
        (&["kv", "get", "-base64", "/a"], "200 OK", ROW, "GET /v1/kv/a token=t0", "", 0, "eA==\n"),
        (
            &["kv", "get", "-detailed", "a"],
            "200 OK",
            ROW,
            "GET /v1/kv/a token=t0",
            "",
            0,
            "CreateIndex      3\nFlags            7\nKey              a\nLockIndex        0\nModifyIndex      4\n\
             Session          s1\nValue            x\n",
        ),
        (
            &["kv", "get", "-recurse", "-token=", "-stale"],
            "200 OK",
            ROWS,
            "GET /v1/kv/?stale&recurse",
            "",
            0,
            "a:x\nb:\n",
        ),
        (
            &["kv", "get", "-keys", "-separator=:", "-datacenter", "dc2", "a b"],
            "200 OK",
            r#"["a:","b"]"#,
            "GET /v1/kv/a%20b?dc=dc2&keys&separator=%3A token=t0",
            "",
            0,
            "a:\nb\n",
        ),
        (
            &["kv", "get", "-keys", "none"],
            "404 Not Found",
            "",
            "GET /v1/kv/none?keys&separator=/ token=t0",
            "",
            0,
            "",
        ),
        (
            &["kv", "put", "a", "-x"],
            "200 OK",
            "true",
            "PUT /v1/kv/a token=t0",
            "-x",
            0,
            "Success! Data written to: a\n",
        ),
        (
            &["kv", "put", "a", "-"],
            "200 OK",
            "true",
            "PUT /v1/kv/a token=t0",
            "from stdin\n",
            0,
            "Success! Data written to: a\n",
        ),
        (
            &["kv", "put", "-cas", "-modify-index=9", "-flags=0x10", "-token=mine", "a", "v"],
            "200 OK",
            "false",
            "PUT /v1/kv/a?flags=16&cas=9 token=mine",
            "v",
            1,
            "",
        ),
        (
            &["kv", "put", "-acquire", "-session=s", "l"],
            "200 OK",
            "true",
            "PUT /v1/kv/l?acquire=s token=t0",
            "",
            0,
            "Success! Lock acquired on: l\n",
        ),
        (
            &["kv", "delete", "-recurse", "p/"],
            "200 OK",
            "true",
            "DELETE /v1/kv/p/?recurse token=t0",
            "",
            0,
            "Success! Deleted keys with prefix: p/\n",
        ),
        (
            &["members"],
            "200 OK",
            MEMBERS,
            "GET /v1/agent/members?segment=_all token=t0",
            "",
            0,
            "Node  Address        Status  Type    Build  Protocol  DC   Partition  Segment\n\
             s1    10.0.0.1:8301  alive   server  1.0.0  2         dc1  default    <all>\n\
             c1    10.0.0.9:8301  failed  client  1.0.0  2         dc1  default    <default>\n",
        ),
        (
            &["members", "-wan", "-status=left"],
            "200 OK",
            MEMBERS,
            "GET /v1/agent/members?wan=1 token=t0",
            "",
            2,
            "",
        ),
        (
            &["catalog", "datacenters"],
            "200 OK",
            r#"["dc1","dc2"]"#,
            "GET /v1/catalog/datacenters token=t0",
            "",
            0,
            "dc1\ndc2\n",
        ),
        (
            &["catalog", "nodes", "-node-meta=a=b", "-service", "w"],
            "200 OK",
            r#"[{"Node":"n","ID":"0123456789","Address":"10.0.0.1","Datacenter":"dc1"},{"Node":"n"}]"#,
            "GET /v1/catalog/service/w?node-meta=a%3Ab token=t0",
            "",
            0,
            "Node  ID        Address   DC\nn     01234567  10.0.0.1  dc1\n",
        ),
        (
            &["catalog", "services", "-tags"],
            "200 OK",
            r#"{"consul":[],"db":["b","a"]}"#,
            "GET /v1/catalog/services token=t0",
            "",
            0,
            "consul\ndb      a,b\n",
        ),
        (
            &[
                "services",
                "register",
                "-name=w",
                "-port=80",
                "-tag=a",
                "-meta=k=v=w",
                "-tagged-address=lan=10.0.0.9:9000",
            ],
            "200 OK",
            "",
            "PUT /v1/agent/service/register token=t0",
            r#"{"Address":"","Meta":{"k":"v=w"},"Name":"w","Port":80,"TaggedAddresses":{"lan":{"Address":"10.0.0.9","Port":9000}},"Tags":["a"]}"#,
            0,
            "Registered service: w\n",
        ),
        (
            &["services", "deregister", "-id", "w"],
            "200 OK",
            "",
            "PUT /v1/agent/service/deregister/w token=t0",
            "",
            0,
            "Deregistered service: w\n",
        ),
    ] {
        let (outcome, first, sent) = against(status, answer, line);
        assert_eq!(first, request, "{line:?}");
        assert_eq!(sent, body, "{line:?}");
        assert_eq!((outcome.status, outcome.out.as_str()), (code, out), "{line:?}: {}", outcome.err);
    }
}

#[test]
fn refusals_of_the_agent_are_shown_with_their_code() {
    for (line, status, answer, err) in [
        (&["kv", "get", "a"][..], "404 Not Found", "", "Error! No key exists at: a\n"),
        (
            &["kv", "get", "a"],
            "500 Internal Server Error",
            "No path to datacenter",
            "Error querying agent: Unexpected response code: 500 (No path to datacenter)\n",
        ),
        (
            &["kv", "put", "a"],
            "413 Payload Too Large",
            "too large",
            "Error! Failed writing data: Unexpected response code: 413 (too large)\n",
        ),
        (
            &["kv", "put", "-cas", "-modify-index=1", "a"],
            "200 OK",
            "false",
            "Error! Did not write to a: CAS failed\n",
        ),
        (
            &["members"],
            "403 Forbidden",
            "Permission denied",
            "Error retrieving members: Unexpected response code: 403 (Permission denied)\n",
        ),
    ] {
        let (outcome, _, _) = against(status, answer, line);
        assert_eq!((outcome.status, outcome.err.as_str()), (1, err), "{line:?}");
    }
}

#[test]
fn notices_about_nothing_found_are_no_errors() {
    for (line, answer, err) in [
        (&["catalog", "nodes"][..], "[]", "No nodes match the given query - try expanding your search.\n"),
        (
            &["catalog", "services", "-node=x"],
            "null",
            "No services match the given query - try expanding your search.\n",
        ),
    ] {
        let (outcome, _, _) = against("200 OK", answer, line);
        assert_eq!((outcome.status, outcome.err.as_str(), outcome.out.as_str()), (0, err, ""), "{line:?}");
    }
}

#[test]
fn files_of_services_are_sent_in_the_spelling_of_the_api() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("api.hcl");
    let text = "service { name = \"api\" meta { my_key = \"v\" } enable_tag_override = true\n check { id = \"c1\" http = \"http://a\" interval = \"30s\" header { x_y = [\"z\"] } } }";
    std::fs::write(&file, text).expect("a file");
    let (outcome, _, body) = against("200 OK", "", &["services", "register", file.to_str().expect("text")]);
    assert_eq!((outcome.status, outcome.out.as_str()), (0, "Registered service: api\n"), "{}", outcome.err);
    let sent: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        sent,
        serde_json::json!({"Name": "api", "Meta": {"my_key": "v"}, "EnableTagOverride": true,
            "Check": {"CheckID": "c1", "HTTP": "http://a", "Interval": "30s", "Header": {"x_y": ["z"]}}})
    );
}

#[test]
fn mistakes_on_the_command_line_are_refused_before_anything_is_sent() {
    for (line, err) in [
        (&["kv", "get"][..], "Error! Missing KEY argument"),
        (&["kv", "get", "a", "-detailed"], "Too many arguments (expected 1, got 2)"),
        (&["kv", "get", "-nosuch", "a"], "flag provided but not defined: -nosuch"),
        (&["kv", "put"], "Error! Missing KEY argument"),
        (&["kv", "put", "a", "b", "c"], "Error! Too many arguments (expected 1 or 2, got 3)"),
        (
            &["kv", "put", "/a", "b"],
            "Error! Failed writing data: Invalid key. Key must not begin with a '/': /a",
        ),
        (&["kv", "put", "-cas", "-modify-index=0", "a"], "Must specify -modify-index with -cas!"),
        (&["kv", "put", "-acquire", "a"], "Error! Missing -session (required with -acquire and -release)"),
        (&["kv", "put", "-base64", "a", "!!"], "Error! Cannot base 64 decode data"),
        (
            &["kv", "put", "a", "@/nonexistent/file"],
            "Error! Failed to read file: open /nonexistent/file: no such file or directory",
        ),
        (&["kv", "delete"], "Error! Missing KEY argument"),
        (&["kv", "delete", "-cas", "-recurse", "a"], "Cannot specify both -cas and -recurse!"),
        (&["members", "-status=("], "Failed to compile status regexp: "),
        (&["catalog", "nodes", "extra"], "Too many arguments (expected 0, got 1)"),
        (&["services", "register"], "Service registration requires at least one argument or flags."),
        (
            &["services", "register", "-name=t", "-tagged-address=wan=1.1.1.1"],
            "Invalid Tagged Address: address 1.1.1.1: missing port in address",
        ),
        (&["services", "deregister"], "Service deregistration requires at least one argument or -id."),
        (&["validate"], "Must specify at least one config file or directory"),
        (&["agent", "extra"], "==> Unexpected extra arguments: [extra]"),
        (&["agent"], "==> data_dir cannot be empty"),
        (
            &["agent", "-data-dir=d", "-http-port=abc"],
            "invalid value \"abc\" for flag -http-port: parse error",
        ),
        (
            &["agent", "-data-dir=d", "-config-format=yaml"],
            "==> config: -config-format must be either 'hcl' or 'json'",
        ),
        (&["-http-addr=x", "kv", "get", "a"], "Invalid flags before the subcommand."),
        (&["lock", "a"], "Key prefix and child command must be specified"),
        (&["login", "a"], "Error! \"login\" is not available in this version yet"),
        (
            &["kv", "get", "-token-file=/nonexistent/t", "a"],
            "Error connecting to agent: Error loading token file: open /nonexistent/t: no such file",
        ),
        (
            &["kv", "get", "-client-cert=x", "a"],
            "Error connecting to agent: both client cert and client key must be provided",
        ),
        (
            &["kv", "get", "-http-addr=https://127.0.0.1:1", "a"],
            "Error querying agent: GET https://127.0.0.1:1/v1/kv/a: connection refused",
        ),
        (
            &["kv", "get", "-http-addr=unix:///nonexistent/s", "a"],
            "Error querying agent: GET unix:///nonexistent/s/v1/kv/a: no such file",
        ),
    ] {
        let outcome = alone(line);
        assert_eq!((outcome.status, outcome.out.as_str()), (1, ""), "{line:?}");
        assert!(outcome.err.starts_with(err), "{line:?}: {}", outcome.err);
    }
}

#[test]
fn help_goes_to_standard_output_and_its_lack_to_standard_error() {
    for line in [
        &["-h"][..],
        &["--help"],
        &["kv", "-h"],
        &["kv", "get", "-help"],
        &["kv", "delete", "-bogus", "-h"],
        &["acl", "token", "-h"],
    ] {
        let outcome = alone(line);
        assert_eq!((outcome.status, outcome.err.as_str()), (0, ""), "{line:?}");
        assert!(outcome.out.starts_with("Usage: proconsul "), "{line:?}: {}", outcome.out);
        assert!(!outcome.out.contains(" --c"), "{line:?}: flags have one dash");
    }
    for (line, status) in [
        (&[][..], 127),
        (&["help"], 127),
        (&["nosuch", "-h"], 127),
        (&["kv"], 1),
        (&["kv", "-detailed", "get"], 1),
    ] {
        let outcome = alone(line);
        assert_eq!((outcome.status, outcome.out.as_str()), (status, ""), "{line:?}");
        assert!(outcome.err.starts_with("Usage: proconsul "), "{line:?}: {}", outcome.err);
    }
}

#[test]
fn a_key_that_looks_like_help_can_be_read_after_two_dashes() {
    let (outcome, first, _) = against("200 OK", ROW, &["kv", "get", "--", "-h"]);
    assert_eq!((outcome.status, first.as_str()), (0, "GET /v1/kv/-h token=t0"));
}

#[test]
fn the_version_has_many_spellings() {
    for line in [&["version"][..], &["version", "extra"], &["-v"], &["--version"], &["-version"]] {
        let outcome = alone(line);
        assert_eq!(outcome.status, 0, "{line:?}");
        assert!(outcome.out.starts_with("proconsul v"), "{line:?}: {}", outcome.out);
    }
}

#[test]
fn every_command_describes_itself_with_an_example() {
    for entry in super::table::entries() {
        if let super::Action::Run { command, .. } = entry.action {
            command().debug_assert();
            for arg in command().get_arguments() {
                let is_switch = matches!(arg.get_action(), clap::ArgAction::SetTrue);
                let is_on = arg.get_default_values().iter().any(|value| value == "true");
                assert!(!(is_switch && is_on), "{} -{}=false means nothing", entry.path, arg.get_id());
            }
        }
        let mut line: Vec<&str> = entry.path.split(' ').collect();
        line.push("-h");
        let outcome = alone(&line);
        assert_eq!(outcome.status, 0, "{}", entry.path);
        assert!(outcome.out.starts_with(&format!("Usage: proconsul {}", entry.path)), "{}", outcome.out);
        // One exists to name another.
        let path = if entry.path == "snapshot agent" { "snapshot save" } else { entry.path };
        let example = format!("  $ proconsul {path}");
        let shown = outcome.out.lines().any(|line| line.contains(&example));
        assert!(shown, "no example: {}", outcome.out);
        let parent = entry.path.rsplit_once(' ').map(|(parent, _)| parent);
        assert!(
            parent.is_none_or(|parent| super::table::entries().any(|e| e.path == parent)),
            "{}",
            entry.path
        );
    }
}

#[test]
fn trees_of_keys_are_written_and_read() {
    let rows = r#"[{"Key":"a/b","Flags":7,"Value":"eA=="},{"Key":"a/c","Flags":0,"Value":null}]"#;
    let (outcome, first, _) = against("200 OK", rows, &["kv", "export", "/a"]);
    assert_eq!(first, "GET /v1/kv/a?recurse token=t0");
    assert_eq!(
        outcome.out,
        "[\n\t{\n\t\t\"key\": \"a/b\",\n\t\t\"flags\": 7,\n\t\t\"value\": \"eA==\"\n\t},\n\t{\n\t\t\"key\": \"a/c\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"\"\n\t}\n]\n"
    );
    let document = r#"[{"key":"a/b","flags":7,"value":"eA=="}]"#;
    let (outcome, first, body) = against("200 OK", "true", &["kv", "import", document]);
    assert_eq!(
        (outcome.out.as_str(), first.as_str(), body.as_str()),
        ("Imported: a/b\n", "PUT /v1/kv/a/b?flags=7 token=t0", "x")
    );
    let outcome = alone(&["kv", "import", r#"[{"key":"a","value":"!"}]"#]);
    assert_eq!(outcome.err, "Error base 64 decoding value for key a: illegal base64 data\n");
}

#[test]
fn maintenance_is_switched_for_nodes_and_services() {
    for (line, request, out) in [
        (
            &["maint", "-enable", "-reason=new disk"][..],
            "PUT /v1/agent/maintenance?enable=true&reason=new%20disk token=t0",
            "Node maintenance is now enabled\n",
        ),
        (
            &["maint", "-disable", "-service=w"],
            "PUT /v1/agent/service/maintenance/w?enable=false token=t0",
            "Service maintenance is now disabled for \"w\"\n",
        ),
    ] {
        let (outcome, first, _) = against("200 OK", "", line);
        assert_eq!((outcome.status, first.as_str(), outcome.out.as_str()), (0, request, out), "{line:?}");
    }
    for (line, err) in [
        (&["maint", "-enable", "-disable"][..], "Only one of -enable or -disable may be provided\n"),
        (&["maint", "-service=w"], "Service requires either -enable or -disable\n"),
        (&["maint", "-reason=x"], "Reason may only be provided with -enable\n"),
    ] {
        assert_eq!(alone(line).err, err, "{line:?}");
    }
}
