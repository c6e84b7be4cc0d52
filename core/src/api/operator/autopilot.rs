//! `/v1/operator/autopilot`

use std::time::Duration;

use serde_json::Value;

use crate::api::cluster::{ClusterCall, answer_cluster};
use crate::api::render::json::Json;
use crate::api::route::{Context, Handled};
use crate::api::{Call, HttpReply, Write};
use crate::duration;
use crate::node::Published;
use crate::store::AutopilotSettings;

pub(in crate::api) fn configuration(context: &Context<'_>) -> Handled {
    match context.request.method {
        "GET" => {
            context.params.check_datacenter(context.about())?;
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
    context.params.check_datacenter(context.about())?;
    Ok(context.ask(Call::Write(Write::Autopilot { settings, cas })))
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
    let defaults = AutopilotSettings::default();
    let row = published.view.autopilot();
    let settings = row.map_or(&defaults, |row| &row.settings);
    let (created, modified) = row.map_or((0, 0), |row| (row.create_index, row.modify_index));
    let mut json = Json::with_capacity(512);
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
    json.key("CreateIndex");
    json.number(created);
    json.key("ModifyIndex");
    json.number(modified);
    json.close(b'}');
    HttpReply::json(200, json.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

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
