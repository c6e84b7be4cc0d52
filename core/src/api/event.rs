//! `/v1/event`

use std::collections::VecDeque;

use regex_lite::Regex;

use super::cluster::{ClusterCall, EventsRead};
use super::render::indented;
use super::render::json::Json;
use super::route::{Context, Handled};
use super::{Call, HttpReply, render};
use crate::Text;
use crate::gossip::{EVENT_BYTES_MAX, UserEvent};
use crate::ids::Uuid;

/// Version of the event's format, for clients.
const VERSION: u64 = 1;

pub(super) fn fire(context: &Context<'_>) -> Handled {
    let text = |name| Text::from(context.params.get(name).unwrap_or(""));
    let event = UserEvent {
        id: Uuid::default(),
        name: context.name("Missing name")?,
        payload: context.request.body.clone(),
        node_filter: text("node"),
        service_filter: text("service"),
        tag_filter: text("tag"),
        ltime: 0,
    };
    validate(&event).map_err(|text| HttpReply::text(500, text))?;
    context.params.check_datacenter()?;
    Ok(context.ask(Call::Cluster(ClusterCall::Fire(event))))
}

fn validate(event: &UserEvent) -> Result<(), String> {
    let filters =
        [("node", &event.node_filter), ("service", &event.service_filter), ("tag", &event.tag_filter)];
    if !event.tag_filter.is_empty() && event.service_filter.is_empty() {
        return Err("Cannot provide tag filter without service filter".into());
    }
    for (what, filter) in filters {
        Regex::new(filter).map_err(|error| format!("Invalid {what} filter: {error}"))?;
    }
    let bytes = event.name.len()
        + event.payload.len()
        + filters.iter().map(|(_, filter)| filter.len()).sum::<usize>();
    if bytes > EVENT_BYTES_MAX {
        let error = format!("user event exceeds configured limit of {EVENT_BYTES_MAX} bytes before encoding");
        return Err(render::errors(&[error]));
    }
    Ok(())
}

pub(super) fn list(context: &Context<'_>) -> Handled {
    let blocking = context.params.blocking(context.about().front.waits)?;
    let read = EventsRead {
        name: context.params.get("name").unwrap_or("").into(),
        index: blocking.map_or(0, |blocking| blocking.index),
        wait: blocking.map(|blocking| blocking.wait).unwrap_or_default(),
    };
    let (index, reply) = render_events(&context.published.cluster.events, &read);
    if read.index == index {
        return Ok(context.ask(Call::Cluster(ClusterCall::Events(read))));
    }
    Ok(if context.params.pretty(context.about()) { indented(reply) } else { reply }.into())
}

/// The reply to whoever fired an event: when it happened is not known yet, so its time reads zero.
#[must_use]
pub fn render_event(event: &UserEvent) -> HttpReply {
    let mut json = Json::with_capacity(256 + event.payload.len() * 2);
    write(&mut json, &UserEvent { ltime: 0, ..event.clone() });
    HttpReply::json(200, json.into_bytes())
}

/// The events that a client wants to see, oldest first, and their index. It waits as long as that is the index which
/// it knows.
///
/// The index has no order: it is made of the newest event's identifier, never zero, and one when there is no event.
#[must_use]
pub fn render_events(events: &VecDeque<UserEvent>, read: &EventsRead) -> (u64, HttpReply) {
    let mut json = Json::with_capacity(1_024);
    let mut index = 0;
    json.open(b'[');
    for event in events.iter().filter(|event| read.name.is_empty() || event.name == read.name) {
        json.next();
        write(&mut json, event);
        index = index_of(event.id);
    }
    json.close(b']');
    let index = index.max(1);
    let mut reply = HttpReply::json(200, json.into_bytes());
    reply.headers.push((Text::new_static("X-Consul-Index"), index.to_string().into()));
    (index, reply)
}

/// Consul's index of an event: both halves of its identifier, combined by exclusive or.
fn index_of(id: Uuid) -> u64 {
    (id.0 >> 64) as u64 ^ id.0 as u64
}

fn write(json: &mut Json, event: &UserEvent) {
    json.open(b'{');
    json.key("ID");
    json.display(event.id);
    json.key("Name");
    json.string(&event.name);
    json.key("Payload");
    json.bytes(&event.payload);
    for (key, filter) in [
        ("NodeFilter", &event.node_filter),
        ("ServiceFilter", &event.service_filter),
        ("TagFilter", &event.tag_filter),
    ] {
        json.key(key);
        json.string(filter);
    }
    json.key("Version");
    json.number(VERSION);
    json.key("LTime");
    json.number(event.ltime);
    json.close(b'}');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(id: &str, name: &str, payload: &'static [u8]) -> UserEvent {
        UserEvent {
            id: Uuid::parse(id).expect("a UUID"),
            name: name.into(),
            payload: Bytes::from_static(payload),
            node_filter: Text::default(),
            service_filter: Text::default(),
            tag_filter: Text::default(),
            ltime: 3,
        }
    }

    fn read(name: &str) -> EventsRead {
        EventsRead { name: name.into(), index: 0, wait: std::time::Duration::ZERO }
    }

    #[test]
    fn the_index_is_made_of_the_newest_events_identifier() {
        let events = VecDeque::from([
            event("c41e8698-bb1a-c701-8b58-0fb851f628c3", "deploy", b"hi"),
            event("40d3a5f6-366d-ef05-97d3-397a6dc1e7b8", "ping", b""),
        ]);
        let (index, reply) = render_events(&events, &read(""));
        assert_eq!(index, 15_492_554_844_801_861_821);
        assert_eq!(reply.headers, [("X-Consul-Index".into(), "15492554844801861821".into())]);
        assert_eq!(
            std::str::from_utf8(&render_events(&events, &read("ping")).1.body).unwrap(),
            r#"[{"ID":"40d3a5f6-366d-ef05-97d3-397a6dc1e7b8","Name":"ping","Payload":null,"NodeFilter":"","ServiceFilter":"","TagFilter":"","Version":1,"LTime":3}]"#
        );
        assert_ne!(render_events(&events, &read("deploy")).0, index);
        let (index, reply) = render_events(&events, &read("none"));
        assert_eq!((index, &reply.body[..]), (1, &b"[]"[..]));
    }

    #[test]
    fn who_fires_an_event_is_not_told_its_time() {
        let reply = render_event(&event("c41e8698-bb1a-c701-8b58-0fb851f628c3", "deploy", b"hi"));
        let body = std::str::from_utf8(&reply.body).unwrap();
        assert!(
            body.contains(r#""Payload":"aGk=""#) && body.ends_with(r#""Version":1,"LTime":0}"#),
            "{body}"
        );
    }
}
