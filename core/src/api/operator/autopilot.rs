//! `/v1/operator/autopilot`

use std::time::Duration;

use serde_json::Value;

use crate::api::cluster::{ClusterCall, answer_cluster};
use crate::api::render::json::Json;
use crate::api::render::rows::indexes;
use crate::api::render::timestamp::rfc3339;
use crate::api::route::{Context, Handled};
use crate::api::{Call, HttpReply, Write};
use crate::duration;
use crate::gossip::Status;
use crate::node::Published;
use crate::node::autopilot::{ServerState, State};
use crate::store::{Autopilot, AutopilotSettings};

pub(in crate::api) fn configuration(context: &Context<'_>) -> Handled {
    match context.request.method {
        "GET" => {
            context.params.check_datacenter()?;
            let stale = context.params.has("stale");
            answer_cluster(context, ClusterCall::AutopilotConfiguration { stale })
        }
        _ => configure(context),
    }
}

fn configure(context: &Context<'_>) -> Handled {
    let settings = Box::new(read_settings(&context.request.body)?);
    let cas =
        match context.params.filled("cas") {
            None => None,
            Some(text) => Some(text.parse::<u64>().map_err(|error| {
                HttpReply::text(400, format!("Error parsing cas value: {text:?}: {error}"))
            })?),
        };
    context.params.check_datacenter()?;
    Ok(context.ask(Call::Write(Write::Autopilot { settings, cas })))
}

pub(in crate::api) fn health(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    Ok(context.ask(Call::Cluster(ClusterCall::AutopilotHealth)))
}

pub(in crate::api) fn state(context: &Context<'_>) -> Handled {
    context.params.check_datacenter()?;
    Ok(context.ask(Call::Cluster(ClusterCall::AutopilotState)))
}

/// Reads the body of a change. What is not there is zero, not the default: it replaces the settings as a whole.
fn read_settings(body: &[u8]) -> Result<AutopilotSettings, HttpReply> {
    let failed = |why: String| HttpReply::text(400, format!("Error parsing autopilot config: {why}"));
    let mut settings = AutopilotSettings {
        cleanup_dead_servers: false,
        last_contact_threshold: Duration::ZERO,
        max_trailing_logs: 0,
        server_stabilization_time: Duration::ZERO,
        ..AutopilotSettings::default()
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(failed("EOF".into()));
    }
    let fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => return Ok(settings),
        Ok(_) => return Err(failed("expected an object".into())),
        Err(error) if error.is_eof() => return Err(failed("unexpected EOF".into())),
        Err(error) => return Err(failed(error.to_string())),
    };
    for (key, value) in fields {
        if value.is_null() {
            continue;
        }
        let expected = |what: &str| failed(format!("{key}: expected {what}"));
        let flag = || value.as_bool().ok_or_else(|| expected("true or false"));
        let number = || value.as_u64().ok_or_else(|| expected("an unsigned number"));
        let text = || value.as_str().map(Into::into).ok_or_else(|| expected("a string"));
        match key.to_ascii_lowercase().as_str() {
            "cleanupdeadservers" => settings.cleanup_dead_servers = flag()?,
            "lastcontactthreshold" => settings.last_contact_threshold = time(&value).map_err(failed)?,
            "maxtrailinglogs" => settings.max_trailing_logs = number()?,
            "minquorum" => settings.min_quorum = number()?,
            "serverstabilizationtime" => settings.server_stabilization_time = time(&value).map_err(failed)?,
            "redundancyzonetag" => settings.redundancy_zone_tag = text()?,
            "disableupgrademigration" => settings.disable_upgrade_migration = flag()?,
            "upgradeversiontag" => settings.upgrade_version_tag = text()?,
            // Clients send back what they have read.
            "createindex" | "modifyindex" => {}
            _ => return Err(failed(format!("json: unknown field {key:?}"))),
        }
    }
    Ok(settings)
}

/// A duration as text, or a number of nanoseconds. There is no negative one.
fn time(value: &Value) -> Result<Duration, String> {
    let nanos = match value {
        Value::String(text) => {
            duration::parse(text).ok_or_else(|| format!("time: invalid duration {text:?}"))?
        }
        Value::Number(number) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).unwrap_or(0)
        }
        _ => return Err("expected a duration such as \"10s\"".into()),
    };
    let nanos =
        u64::try_from(nanos).map_err(|_| format!("time: invalid duration {value}: it is negative"))?;
    Ok(Duration::from_nanos(nanos))
}

/// The replicated settings; the defaults until a leader has written any.
pub(in crate::api) fn render_configuration(published: &Published) -> HttpReply {
    let unwritten;
    let row = match published.view.autopilot() {
        Some(row) => row,
        None => {
            unwritten =
                Autopilot { settings: AutopilotSettings::default(), create_index: 0, modify_index: 0 };
            &unwritten
        }
    };
    let mut json = Json::with_capacity(512);
    write_configuration(&mut json, row);
    HttpReply::json(200, json.into_bytes())
}

/// The settings and their indexes.
pub(in crate::api) fn write_configuration(json: &mut Json, row: &Autopilot) {
    let settings = &row.settings;
    json.open(b'{');
    json.key("CleanupDeadServers");
    json.flag(settings.cleanup_dead_servers);
    json.key("LastContactThreshold");
    json.string(&duration::format(settings.last_contact_threshold));
    json.key("MaxTrailingLogs");
    json.number(settings.max_trailing_logs);
    json.key("MinQuorum");
    json.number(settings.min_quorum);
    json.key("ServerStabilizationTime");
    json.string(&duration::format(settings.server_stabilization_time));
    json.key("RedundancyZoneTag");
    json.string(&settings.redundancy_zone_tag);
    json.key("DisableUpgradeMigration");
    json.flag(settings.disable_upgrade_migration);
    json.key("UpgradeVersionTag");
    json.string(&settings.upgrade_version_tag);
    indexes(json, row.create_index, row.modify_index);
    json.close(b'}');
}

/// The health of the group, as its leader sees it: 429 when anything is wrong with it.
#[must_use]
pub fn render_autopilot_health(state: &State) -> HttpReply {
    let mut json = Json::with_capacity(512 * (state.servers.len() + 1));
    json.open(b'{');
    json.key("Healthy");
    json.flag(state.healthy);
    json.key("FailureTolerance");
    json.number(state.failure_tolerance as u64);
    json.key("Servers");
    json.open(b'[');
    for server in &state.servers {
        json.next();
        json.open(b'{');
        identity(&mut json, server);
        json.key("SerfStatus");
        json.string(server.status.map_or("none", Status::as_str));
        json.key("Leader");
        json.flag(server.leader);
        json.key("Voter");
        json.flag(server.voter);
        condition(&mut json, server);
        json.close(b'}');
    }
    json.close(b']');
    json.close(b'}');
    HttpReply::json(if state.healthy { 200 } else { 429 }, json.into_bytes())
}

/// The state of autopilot, as the leader sees it.
#[must_use]
pub fn render_autopilot_state(state: &State) -> HttpReply {
    let ids = |keep: fn(&ServerState) -> bool| {
        state.servers.iter().filter(move |server| keep(server)).map(|server| server.id.to_string())
    };
    let mut json = Json::with_capacity(512 * (state.servers.len() + 1));
    json.open(b'{');
    json.key("Healthy");
    json.flag(state.healthy);
    json.key("FailureTolerance");
    json.number(state.failure_tolerance as u64);
    json.key("OptimisticFailureTolerance");
    json.number(state.optimistic_failure_tolerance as u64);
    json.key("Servers");
    json.open(b'{');
    for server in &state.servers {
        json.data_key(&server.id.to_string());
        json.open(b'{');
        identity(&mut json, server);
        json.key("NodeStatus");
        json.string(server.status.map_or("none", Status::as_str));
        condition(&mut json, server);
        json.key("ReadReplica");
        json.flag(server.read_replica);
        json.key("Status");
        json.string(match (server.leader, server.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "non-voter",
        });
        json.key("Meta");
        json.raw(b"{}");
        json.key("NodeType");
        json.string(if server.read_replica { "read-replica" } else { "voter" });
        json.close(b'}');
    }
    json.close(b'}');
    json.key("Leader");
    json.display(state.leader);
    json.key("Voters");
    json.strings(ids(|server| server.voter));
    let replicas: Vec<String> = ids(|server| server.read_replica).collect();
    if !replicas.is_empty() {
        json.key("ReadReplicas");
        json.strings(replicas);
    }
    json.close(b'}');
    HttpReply::json(200, json.into_bytes())
}

/// Who a server is.
fn identity(json: &mut Json, server: &ServerState) {
    json.key("ID");
    json.display(server.id);
    json.key("Name");
    json.string(&server.name);
    json.key("Address");
    json.string(&server.address);
    json.key("Version");
    json.string(&server.version);
}

/// How a server does.
fn condition(json: &mut Json, server: &ServerState) {
    json.key("LastContact");
    if server.last_contact == Duration::MAX {
        // Clients read a duration here, and Consul has this one for «never».
        json.string("-1ns");
    } else {
        json.string(&duration::format(server.last_contact));
    }
    json.key("LastTerm");
    json.number(server.last_term.0);
    json.key("LastIndex");
    json.number(server.last_index.0);
    json.key("Healthy");
    json.flag(server.healthy);
    json.key("StableSince");
    json.string(&rfc3339(server.stable_since));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogIndex, Term, Uuid};
    use crate::time::Wall;

    fn group() -> State {
        let server = |id: u128, leader: bool, voter: bool, last_contact| ServerState {
            id: Uuid(id),
            name: format!("n{id}").into(),
            address: format!("10.0.0.{id}:8300").into(),
            status: leader.then_some(Status::Alive),
            version: "0.1.0".into(),
            leader,
            voter,
            read_replica: !voter,
            last_contact,
            last_term: Term(2),
            last_index: LogIndex(9),
            healthy: leader,
            stable_since: Wall(1_795_237_576_000),
        };
        State {
            healthy: false,
            failure_tolerance: 0,
            optimistic_failure_tolerance: 1,
            leader: Uuid(1),
            servers: vec![server(1, true, true, Duration::ZERO), server(2, false, false, Duration::MAX)],
        }
    }

    fn parsed(reply: &HttpReply) -> Value {
        serde_json::from_slice(&reply.body).expect("JSON")
    }

    #[test]
    fn health_is_told_by_the_status_too() {
        let reply = render_autopilot_health(&group());
        assert_eq!(reply.status, 429);
        assert_eq!(
            parsed(&reply)["Servers"][0],
            serde_json::json!({"ID":Uuid(1).to_string(),"Name":"n1","Address":"10.0.0.1:8300","SerfStatus":"alive",
                "Version":"0.1.0","Leader":true,"LastContact":"0s","LastTerm":2,"LastIndex":9,"Healthy":true,
                "Voter":true,"StableSince":"2026-11-21T05:06:16Z"})
        );
        let lost = &parsed(&reply)["Servers"][1];
        assert_eq!((&lost["LastContact"], &lost["SerfStatus"]), (&"-1ns".into(), &"none".into()));
        assert_eq!(render_autopilot_health(&State { healthy: true, ..group() }).status, 200);
    }

    #[test]
    fn the_state_lists_servers_by_identity() {
        let reply = render_autopilot_state(&group());
        let state = parsed(&reply);
        assert_eq!((reply.status, &state["OptimisticFailureTolerance"]), (200, &1.into()));
        let servers = &state["Servers"];
        assert_eq!(servers[Uuid(1).to_string()]["Status"], "leader");
        assert_eq!(servers[Uuid(2).to_string()]["NodeType"], "read-replica");
        assert_eq!(state["Leader"], Uuid(1).to_string());
        assert_eq!(state["Voters"], serde_json::json!([Uuid(1).to_string()]));
        assert_eq!(state["ReadReplicas"], serde_json::json!([Uuid(2).to_string()]));
    }

    #[test]
    fn what_is_not_given_is_zero() {
        let settings =
            read_settings(br#"{"cleanupDeadServers":true,"MinQuorum":3,"ModifyIndex":9}"#).unwrap();
        assert!(settings.cleanup_dead_servers);
        assert_eq!((settings.min_quorum, settings.max_trailing_logs), (3, 0));
        assert_eq!(settings.last_contact_threshold, Duration::ZERO);
        assert!(!read_settings(b"null").unwrap().cleanup_dead_servers);
        let settings =
            read_settings(br#"{"LastContactThreshold":"1.5s","ServerStabilizationTime":5000000}"#).unwrap();
        assert_eq!(settings.last_contact_threshold, Duration::from_millis(1_500));
        assert_eq!(settings.server_stabilization_time, Duration::from_millis(5));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (body, why) in [
            ("", "EOF"),
            ("{", "unexpected EOF"),
            ("[]", "expected an object"),
            (r#"{"Frob":1}"#, "json: unknown field \"Frob\""),
            (r#"{"LastContactThreshold":"soon"}"#, "time: invalid duration \"soon\""),
            (r#"{"LastContactThreshold":"-1s"}"#, "time: invalid duration \"-1s\": it is negative"),
            (r#"{"MaxTrailingLogs":-1}"#, "MaxTrailingLogs: expected an unsigned number"),
        ] {
            let expected = HttpReply::text(400, format!("Error parsing autopilot config: {why}"));
            assert_eq!(read_settings(body.as_bytes()), Err(expected), "{body}");
        }
    }
}
