//! Commands about the cluster.

use super::{against, alone};

const RINGS: &str = r#"[{"WAN":true,"Datacenter":"dc1","Segment":"","Keys":{"a=":3,"b=":2},"PrimaryKeys":{"a=":3},"NumNodes":3},
    {"WAN":false,"Datacenter":"dc1","Segment":"","Keys":{"a=":5},"PrimaryKeys":{"a=":5},"NumNodes":5,"Messages":{"n1":"busy"}}]"#;
const GROUP: &str = r#"{"Servers":[
    {"ID":"i1","Node":"s1","Address":"10.0.0.1:8300","Leader":true,"ProtocolVersion":"3","Voter":true},
    {"ID":"i2","Node":"s2","Address":"10.0.0.2:8300","Leader":false,"ProtocolVersion":"3","Voter":false}],"Index":0}"#;
const GROUP_WITH_INDEXES: &str = r#"{"Servers":[
    {"ID":"i1","Node":"s1","Address":"10.0.0.1:8300","Leader":true,"ProtocolVersion":"3","Voter":true,"LastIndex":9},
    {"ID":"i2","Node":"s2","Address":"10.0.0.2:8300","Leader":false,"ProtocolVersion":"3","Voter":true,"LastIndex":8}],"Index":0}"#;
const AUTOPILOT: &str = r#"{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":0,
    "ServerStabilizationTime":"10s","RedundancyZoneTag":"","DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":4}"#;
const STATE: &str = r#"{"Healthy":true,"FailureTolerance":1,"Leader":"i1","Voters":["i1","i2"],"ReadReplicas":["i3"],
    "Servers":{"i1":{"ID":"i1","Name":"s1","Address":"10.0.0.1:8300","NodeStatus":"alive","Version":"1.0.0","LastContact":"0s",
    "LastTerm":2,"LastIndex":9,"Healthy":true,"Status":"leader","Meta":{"a":"b"},"NodeType":"voter"}}}"#;

const USAGE: &str = r#"{"Usage":{"dc1":{"Nodes":1,"Services":2,"ServiceInstances":4,"BillableServiceInstances":3,
    "ConnectServiceInstances":{"connect-native":0,"mesh-gateway":1}}},"Index":13}"#;

#[test]
fn commands_ask_what_they_should_and_print_what_they_got() {
    for (line, status, answer, request, body, code, out) in [
        (
            &["join", "10.0.0.1:8301"][..],
            "200 OK",
            "",
            "PUT /v1/agent/join/10.0.0.1%3A8301 token=t0",
            "",
            0,
            "Successfully joined cluster by contacting 1 nodes.\n",
        ),
        (
            &["join", "-wan", "s2"],
            "500 Internal Server Error",
            "no",
            "PUT /v1/agent/join/s2?wan=1 token=t0",
            "",
            1,
            "",
        ),
        (&["leave"], "200 OK", "", "PUT /v1/agent/leave token=t0", "", 0, "Graceful leave complete\n"),
        (&["force-leave", "n 1"], "200 OK", "", "PUT /v1/agent/force-leave/n%201 token=t0", "", 0, ""),
        (
            &["force-leave", "-prune", "-wan", "n1.dc1"],
            "200 OK",
            "",
            "PUT /v1/agent/force-leave/n1.dc1?prune=1&wan=1 token=t0",
            "",
            0,
            "",
        ),
        (
            &["event", "-name=deploy", "-service=web", "-tag=v.", "1.6.2"],
            "200 OK",
            r#"{"ID":"e1"}"#,
            "PUT /v1/event/fire/deploy?service=web&tag=v. token=t0",
            "1.6.2",
            0,
            "Event ID: e1\n",
        ),
        (
            &["keyring", "-list", "-local-only", "-relay-factor=2"],
            "200 OK",
            RINGS,
            "GET /v1/operator/keyring?relay-factor=2&local-only=true token=t0",
            "",
            0,
            "==> Gathering installed encryption keys...\n\nWAN:\n  a= [3/3]\n  b= [2/3]\n\n\
             dc1 (LAN):\n  ===> n1: busy\n  a= [5/5]\n",
        ),
        (
            &["keyring", "-list-primary"],
            "200 OK",
            RINGS,
            "GET /v1/operator/keyring token=t0",
            "",
            0,
            "==> Gathering installed primary encryption keys...\n\nWAN:\n  a= [3/3]\n\n\
             dc1 (LAN):\n  ===> n1: busy\n  a= [5/5]\n",
        ),
        (
            &["keyring", "-install=k="],
            "200 OK",
            "",
            "POST /v1/operator/keyring token=t0",
            r#"{"Key":"k="}"#,
            0,
            "==> Installing new gossip encryption key...\n",
        ),
        (
            &["keyring", "-use", "k="],
            "200 OK",
            "",
            "PUT /v1/operator/keyring token=t0",
            r#"{"Key":"k="}"#,
            0,
            "==> Changing primary gossip encryption key...\n",
        ),
        (
            &["keyring", "-remove=k="],
            "500 Internal Server Error",
            "Removing the primary key is not allowed",
            "DELETE /v1/operator/keyring token=t0",
            r#"{"Key":"k="}"#,
            1,
            "==> Removing gossip encryption key...\n",
        ),
        (
            &["operator", "raft", "list-peers", "-stale"],
            "200 OK",
            GROUP,
            "GET /v1/operator/raft/configuration?stale token=t0",
            "",
            0,
            "Node  ID  Address        State     Voter  RaftProtocol\n\
             s1    i1  10.0.0.1:8300  leader    true   3\n\
             s2    i2  10.0.0.2:8300  follower  false  3\n",
        ),
        (
            &["operator", "raft", "list-peers"],
            "200 OK",
            GROUP_WITH_INDEXES,
            "GET /v1/operator/raft/configuration token=t0",
            "",
            0,
            "Node  ID  Address        State     Voter  RaftProtocol  Commit Index  Trails Leader By\n\
             s1    i1  10.0.0.1:8300  leader    true   3             9             -\n\
             s2    i2  10.0.0.2:8300  follower  true   3             8             1 commit\n",
        ),
        (
            &["operator", "raft", "remove-peer", "-id=i2"],
            "200 OK",
            "",
            "DELETE /v1/operator/raft/peer?id=i2 token=t0",
            "",
            0,
            "Removed peer with id \"i2\"\n",
        ),
        (
            &["operator", "raft", "transfer-leader", "-id=i2"],
            "200 OK",
            r#"{"Success":true}"#,
            "POST /v1/operator/raft/transfer-leader?id=i2 token=t0",
            "",
            0,
            "Success\n",
        ),
        (
            &["operator", "autopilot", "get-config"],
            "200 OK",
            AUTOPILOT,
            "GET /v1/operator/autopilot/configuration token=t0",
            "",
            0,
            "CleanupDeadServers = true\nLastContactThreshold = 200ms\nMaxTrailingLogs = 250\nMinQuorum = 0\n\
             ServerStabilizationTime = 10s\nRedundancyZoneTag = \"\"\nDisableUpgradeMigration = false\nUpgradeVersionTag = \"\"\n",
        ),
        (
            &["operator", "usage", "instances"],
            "200 OK",
            USAGE,
            "GET /v1/operator/usage token=t0",
            "",
            0,
            "Billable Service Instances Total: 3\ndc1 Billable Service Instances: 3\n\n\
             Billable Services\nServices  Service instances\n2         3\n\n\
             Connect Services\nType            Service instances\nconnect-native  0\nmesh-gateway    1\n",
        ),
        (
            &["operator", "usage", "instances", "-all-datacenters", "-billable"],
            "200 OK",
            USAGE,
            "GET /v1/operator/usage?global token=t0",
            "",
            0,
            "Billable Service Instances Total: 3\ndc1 Billable Service Instances: 3\n\n\
             Billable Services\nDatacenter  Services  Service instances\ndc1         2         3\nTotal       2         3\n",
        ),
        (
            &["operator", "autopilot", "state"],
            "200 OK",
            STATE,
            "GET /v1/operator/autopilot/state token=t0",
            "",
            0,
            "Healthy:                      true\nFailure Tolerance:            1\nLeader:                       i1\n\
             Voters:\n   i1\n   i2\nRead Replicas:\n   i3\n\nServers:\n   i1\n      Name:            s1\n\
             \x20     Address:         10.0.0.1:8300\n      Version:         1.0.0\n      Status:          leader\n\
             \x20     Node Type:       voter\n      Node Status:     alive\n      Healthy:         true\n\
             \x20     Last Contact:    0s\n      Last Term:       2\n      Last Index:      9\n      Meta\n         \"a\": \"b\"\n",
        ),
    ] {
        let (outcome, sent, sent_body) = against(status, answer, line);
        assert_eq!((sent.as_str(), sent_body.as_str()), (request, body), "{line:?}");
        assert_eq!((outcome.status, outcome.out.as_str()), (code, out), "{line:?} {}", outcome.err);
    }
}

#[test]
fn mistakes_on_the_command_line_are_refused_before_anything_is_sent() {
    for (line, error) in [
        (&["join"][..], "At least one address to join must be specified.\n"),
        (&["force-leave", "a", "b"], "A single node name must be specified to force leave.\n"),
        (&["leave", "extra"], "Error found unexpected args: [extra]\n"),
        (&["event"], "Event name must be specified\n"),
        (&["event", "-name=a", "-node=("], "Failed to compile node filter regexp: "),
        (&["event", "-name=a", "-tag=x"], "Cannot provide tag filter without service filter.\n"),
        (&["event", "-name=a", "one", "two"], "Too many command line arguments.\n"),
        (&["keyring"], "Usage: proconsul keyring"),
        (&["keyring", "-list", "-use=x"], "Only a single action is allowed\n"),
        (
            &["keyring", "-list", "-relay-factor=9"],
            "Error parsing relay factor: Relay factor must be in range: [0, 5]\n",
        ),
        (&["keyring", "-use=x", "-local-only"], "Error validating local-only: "),
        (&["operator", "raft", "remove-peer"], "Error removing peer: an address or id is required"),
        (
            &["operator", "raft", "remove-peer", "-id=a", "-address=b"],
            "Error removing peer: cannot give both",
        ),
        (
            &["operator", "autopilot", "set-config", "-last-contact-threshold=5"],
            "invalid value \"5\" for flag -last-contact-threshold: ",
        ),
        (
            &["operator", "autopilot", "set-config", "-cleanup-dead-servers=maybe"],
            "invalid boolean value \"maybe\" for -cleanup-dead-servers: ",
        ),
        (&["operator", "autopilot", "state", "-format=xml"], "Invalid format: xml"),
    ] {
        let outcome = alone(line);
        assert!(outcome.status == 1 && outcome.err.starts_with(error), "{line:?} {outcome:?}");
    }
}
