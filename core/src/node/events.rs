//! User events: which concern this agent, which it remembers.
//!
//! Source: Consul's documentation, «Event». Filters are evaluated by each receiver, against its own node and services.

use std::sync::Arc;

use regex_lite::Regex;
use serde::Deserialize;

use super::cluster::{Cluster, EVENTS_KEPT};
use crate::Text;
use crate::agent::AgentView;
use crate::gossip::UserEvent;
use crate::ids::Uuid;

/// Whether an event is meant for an agent of this name with these services.
#[must_use]
pub fn concerns(event: &UserEvent, node: &str, agent: &AgentView) -> bool {
    if !fits(&event.node_filter, node) {
        return false;
    }
    if event.service_filter.is_empty() && event.tag_filter.is_empty() {
        return true;
    }
    agent.services.values().any(|service| {
        fits(&event.service_filter, &service.service)
            && (event.tag_filter.is_empty() || service.tags.iter().any(|tag| fits(&event.tag_filter, tag)))
    })
}

/// Whether a text contains a match of the expression. One that cannot be read matches nothing: who fired the event was
/// told so, unless its version understands more.
fn fits(expression: &str, text: &str) -> bool {
    expression.is_empty() || Regex::new(expression).is_ok_and(|expression| expression.is_match(text))
}

/// Name of the events by which `exec` tells agents of a job.
pub const REMOTE_EXEC: &str = "_rexec";

/// A command that somebody wants this agent to run; what it is stands in the key-value store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteJob {
    /// The event that told of it.
    pub event: Uuid,
    /// What the keys of jobs begin with.
    pub prefix: Text,
    /// The session of who asks; the job's keys are below it.
    pub session: Text,
}

impl RemoteJob {
    /// Reads the payload of an event: JSON with `Prefix` and `Session`. `None` for anything else.
    #[must_use]
    pub fn of(event: &UserEvent) -> Option<RemoteJob> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Payload {
            prefix: String,
            session: String,
        }
        let Payload { prefix, session } = serde_json::from_slice(&event.payload).ok()?;
        // It becomes a part of a path.
        let session = Uuid::parse(&session)?.to_string();
        Some(RemoteJob { event: event.id, prefix: Text::new(prefix), session: Text::new(session) })
    }
}

/// Remembers an event; the oldest makes room.
pub fn remember(cluster: &mut Cluster, event: UserEvent) {
    let events = Arc::make_mut(&mut cluster.events);
    if events.len() == EVENTS_KEPT {
        events.pop_front();
    }
    events.push_back(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::Service;

    fn agent() -> AgentView {
        let mut view = AgentView::default();
        let service = Service {
            id: "web-1".into(),
            service: "web".into(),
            tags: vec![Text::new("v2")],
            ..Service::default()
        };
        view.services.insert("web-1".into(), Arc::new(service));
        view
    }

    fn event(node: &str, service: &str, tag: &str) -> UserEvent {
        UserEvent {
            id: crate::ids::Uuid(1),
            name: "deploy".into(),
            payload: bytes::Bytes::new(),
            node_filter: node.into(),
            service_filter: service.into(),
            tag_filter: tag.into(),
            ltime: 1,
        }
    }

    #[test]
    fn filters_must_all_match_this_agent() {
        for (node, service, tag, expected) in [
            ("", "", "", true),
            ("^n1$", "", "", true),
            ("n2", "", "", false),
            ("", "^web", "", true),
            ("", "db", "", false),
            ("n1", "web", "v2", true),
            ("n1", "web", "v3", false),
            ("(", "", "", false),
        ] {
            let event = event(node, service, tag);
            assert_eq!(concerns(&event, "n1", &agent()), expected, "{event:?}");
        }
    }

    #[test]
    fn a_job_is_read_from_an_events_payload() {
        let session = "c41e8698-bb1a-c701-8b58-0fb851f628c3";
        let with = |payload: String| UserEvent { payload: payload.into(), ..event("", "", "") };
        let job = RemoteJob::of(&with(format!(r#"{{"Prefix":"_rexec","Session":"{session}"}}"#)));
        let expected = RemoteJob { event: Uuid(1), prefix: "_rexec".into(), session: session.into() };
        assert_eq!(job, Some(expected));
        for payload in ["", "{}", "[]", r#"{"Prefix":"a","Session":"../b"}"#, r#"{"Prefix":1,"Session":"b"}"#]
        {
            assert_eq!(RemoteJob::of(&with(payload.to_owned())), None, "{payload}");
        }
    }

    #[test]
    fn the_oldest_event_makes_room() {
        let mut cluster = Cluster::default();
        for ltime in 0..=EVENTS_KEPT as u64 {
            remember(&mut cluster, UserEvent { ltime, ..event("", "", "") });
        }
        assert_eq!(cluster.events.len(), EVENTS_KEPT);
        assert_eq!(cluster.events[0].ltime, 1);
    }
}
