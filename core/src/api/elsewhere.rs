//! Requests for other datacenters (`?dc=`): parsed where they come in, answered by a server there.
//!
//! Source: Consul's documentation of the HTTP API, parameter `dc`. `?datacenter=` counts before `?dc=`.

use serde::{Deserialize, Serialize};

use super::{Call, ClusterCall, ContentType, Forwarded, HttpReply};
use crate::Text;
use crate::node::Published;
use crate::store::query::Query;

/// What Consul answers when it does not know the datacenter.
pub const NO_PATH: &str = "No path to datacenter";

/// How an error begins that a server of another datacenter has answered.
const REMOTE_ERROR: &str = "rpc error making call: ";

/// A request for a server of another datacenter. It cannot be one for a third: nobody sends it on from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Name of the datacenter.
    pub datacenter: Text,
    /// What is asked there.
    pub request: Forwarded,
}

impl Call {
    /// The same call for another datacenter, if one is named. What is about the agent that was asked stays there.
    #[must_use]
    pub fn aimed_at(self, datacenter: Option<&Text>) -> Call {
        let Some(datacenter) = datacenter else { return self };
        let request = match self {
            // An event is fired by any agent of the datacenter that it is for.
            Call::Cluster(fire @ ClusterCall::Fire(_)) => Ok(Forwarded::Cluster(fire)),
            call => Forwarded::try_from(call),
        };
        match request {
            Ok(request) => Call::Elsewhere(Box::new(Elsewhere { datacenter: datacenter.clone(), request })),
            Err(own) => own,
        }
    }
}

/// Whether there may be a way to a datacenter: servers know each other in all of them, client agents have to ask.
pub(super) fn may_reach(published: &Published, datacenter: &str) -> bool {
    !published.about.server || published.cluster.has_datacenter(datacenter)
}

/// The reply to a client of what a server of another datacenter has answered: its errors say where they come from.
#[must_use]
pub fn from_elsewhere(request: &Forwarded, mut reply: HttpReply) -> HttpReply {
    let is_error = match reply.status {
        500 => true,
        404 => matches!(
            request,
            Forwarded::Read(read)
                if matches!(read.query, Query::Execute(_) | Query::Explain(_) | Query::PreparedQuery(_))
        ),
        _ => false,
    };
    if is_error && reply.content_type == ContentType::Text {
        let mut body = REMOTE_ERROR.as_bytes().to_vec();
        body.extend_from_slice(&reply.body);
        reply.body = body.into();
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Read, Write};
    use crate::gossip::Pool;
    use crate::ids::Uuid;

    #[test]
    fn calls_travel_unless_they_are_about_the_agent_itself() {
        let there = Text::new("dc2");
        let travels = |call: Call| matches!(call.aimed_at(Some(&there)), Call::Elsewhere(_));
        assert!(travels(Call::Read(Read::new(Query::Kv("a".into())))));
        assert!(travels(Call::Write(Write::SessionDestroy(Uuid(7)))));
        assert!(travels(Call::Cluster(ClusterCall::StatusPeers)));
        assert!(!travels(Call::Cluster(ClusterCall::Leave)));
        assert!(!travels(Call::Cluster(ClusterCall::Join { address: "a".into(), pool: Pool::Wan })));
        assert!(matches!(Call::Write(Write::SessionDestroy(Uuid(7))).aimed_at(None), Call::Write(_)));
    }

    #[test]
    fn what_travels_does_not_travel_on() {
        let call = Call::Cluster(ClusterCall::StatusPeers).aimed_at(Some(&Text::new("dc2")));
        assert!(Forwarded::try_from(call.clone()).is_err());
        let Call::Elsewhere(again) = call.aimed_at(Some(&Text::new("dc3"))) else {
            panic!("it stays as it was")
        };
        assert_eq!(again.datacenter, "dc2");
    }

    #[test]
    fn errors_say_that_they_come_from_elsewhere() {
        let read = Forwarded::Read(Read::new(Query::Explain("q".into())));
        let reply = from_elsewhere(&read, HttpReply::text(404, "Query not found"));
        assert_eq!(reply.body, "rpc error making call: Query not found");
        let kv = Forwarded::Read(Read::new(Query::Kv("q".into())));
        for reply in [HttpReply::empty(404), HttpReply::json(200, "[]"), HttpReply::text(404, "no")] {
            assert_eq!(from_elsewhere(&kv, reply.clone()), reply);
        }
    }
}
