//! Tells the operator what changed in the cluster, in the words of Consul's log.

use std::sync::Arc;

use proconsul_core::gossip::{Member, Status};
use proconsul_core::node::{Lease, Published};

/// What `now` says that `before` did not.
pub(super) fn changes(before: &Published, now: &Published) {
    if !Arc::ptr_eq(&before.cluster, &now.cluster) {
        for (before, now) in now.cluster.changes_since(&before.cluster) {
            member(before, now);
        }
    }
    leader(&before.lease, now);
}

fn leader(before: &Lease, now: &Published) {
    if before.leader == now.lease.leader {
        return;
    }
    let term = now.lease.term.0;
    match now.lease.leader {
        Some(id) if now.lease.is_leader => {
            tracing::info!(node = %now.about.node, %id, term, "New leader elected")
        }
        Some(leader) => tracing::info!(id = %leader, term, "New leader elected"),
        None => tracing::warn!(term, "No leader is known"),
    }
}

fn member(before: Option<&Member>, now: Option<&Member>) {
    let Some(now) = now else {
        if let Some(gone) = before {
            tracing::info!("serf: EventMemberReap: {} {}", gone.name, gone.ip());
        }
        return;
    };
    let event = event(before, now);
    let (name, ip) = (&now.name, now.ip());
    match event {
        Some(event @ "EventMemberFailed") => tracing::warn!("serf: {event}: {name} {ip}"),
        Some(event) => tracing::info!("serf: {event}: {name} {ip}"),
        None => {}
    }
}

/// What happened to a member that is still known; nothing worth a line when it says that it is about to leave.
fn event(before: Option<&Member>, now: &Member) -> Option<&'static str> {
    let is_new = before.is_none_or(|before| before.status != now.status);
    match now.status {
        Status::Alive if before.is_some_and(|before| before.status == Status::Alive) => {
            Some("EventMemberUpdate")
        }
        // Also one that said it was about to leave and is still there.
        Status::Alive => Some("EventMemberJoin"),
        Status::Leaving => None,
        Status::Left => is_new.then_some("EventMemberLeave"),
        Status::Failed => is_new.then_some("EventMemberFailed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(status: Status) -> Member {
        let address = "127.0.0.1:8301".parse().expect("an address");
        Member { name: "n".into(), address, tags: Arc::default(), status }
    }

    #[test]
    fn every_change_of_a_member_has_its_word() {
        for (before, now, word) in [
            (None, Status::Alive, Some("EventMemberJoin")),
            (Some(Status::Failed), Status::Alive, Some("EventMemberJoin")),
            (Some(Status::Left), Status::Alive, Some("EventMemberJoin")),
            (Some(Status::Alive), Status::Alive, Some("EventMemberUpdate")),
            (Some(Status::Alive), Status::Leaving, None),
            (Some(Status::Leaving), Status::Left, Some("EventMemberLeave")),
            (Some(Status::Alive), Status::Failed, Some("EventMemberFailed")),
            (Some(Status::Failed), Status::Failed, None),
        ] {
            let before = before.map(member);
            assert_eq!(event(before.as_ref(), &member(now)), word, "{before:?}");
        }
    }
}
