//! `/livez` and `/readyz`: for whatever supervises the agent. Consul has no such endpoints.

use super::HttpReply;
use super::route::{Context, Handled};
use crate::gossip::Status;
use crate::node::Published;
use crate::time::Now;

/// The process serves requests.
pub(super) fn livez(_context: &Context<'_>) -> Handled {
    Ok(HttpReply::text(200, "ok\n").into())
}

/// The agent can answer for the cluster, or says why it cannot.
pub(super) fn readyz(context: &Context<'_>) -> Handled {
    Ok(match unready(context.published, context.now) {
        None => HttpReply::text(200, "ok\n"),
        Some(why) => HttpReply::text(503, format!("not ready: {why}\n")),
    }
    .into())
}

fn unready(published: &Published, now: Now) -> Option<&'static str> {
    let lease = &published.lease;
    if !published.about.server {
        return (!hears_servers(published)).then_some("no server is known, join the agents of a cluster");
    }
    if !hears_servers(published) {
        return Some("no leader is known");
    }
    let leads = lease.is_leader && now.mono < lease.until;
    if !leads && lease.as_of.is_none() {
        return Some("the log is not applied yet");
    }
    None
}

/// Whether there is somebody to ask: a live server for client agents, a leader for servers.
pub(super) fn hears_servers(published: &Published) -> bool {
    if published.about.server {
        return published.lease.leader.is_some();
    }
    published.cluster.lan.values().any(|member| member.is_server() && member.status == Status::Alive)
}

#[cfg(test)]
mod tests {
    use crate::api::api_test::{World, text};
    use crate::node::Lease;
    use crate::time::Mono;

    #[test]
    fn an_agent_is_ready_when_a_leader_is_known_and_the_log_applied() {
        let mut world = World::new();
        let ready = |world: &World| {
            let reply = world.get("/readyz");
            (reply.status, text(&reply).to_owned())
        };
        assert_eq!(ready(&world), (200, "ok\n".to_owned()));
        let leading = world.published.lease.clone();
        world.published.lease = Lease { is_leader: false, until: Mono(0), ..leading.clone() };
        assert_eq!(ready(&world), (503, "not ready: the log is not applied yet\n".to_owned()));
        world.published.lease.as_of = Some(Mono(1));
        assert_eq!(ready(&world).0, 200);
        world.published.lease = Lease::default();
        assert_eq!(ready(&world), (503, "not ready: no leader is known\n".to_owned()));
        assert_eq!(world.get("/livez").status, 200);
        assert_eq!(world.reply("PUT", "/livez", "").status, 405);
    }
}
