//! What must be so once faults are over and some time has passed: every agent believes of every other what is so, the
//! catalog says the same, the group consists of the servers that there are, and they have applied the same.

use proconsul_core::gossip::Status;
use proconsul_core::node::SERF_HEALTH;
use proconsul_core::store::model::Health;

use crate::audit::Audit;
use crate::cluster::Cluster;

/// What is not in order yet. Everything runs and is connected.
#[must_use]
pub fn disorder(cluster: &Cluster, audit: &Audit) -> Option<String> {
    let published = audit.published();
    if let Some(agent) = (0..cluster.len()).find(|agent| !published.contains_key(agent)) {
        return Some(format!("agent {agent} has no process"));
    }
    let Some((leader, seen)) = published.iter().find(|(_, published)| published.lease.is_leader) else {
        return Some("nobody leads".to_owned());
    };
    let agents: Vec<_> =
        (0..cluster.len()).map(|agent| (cluster.is_server(agent), cluster.identity(agent))).collect();
    let group = &seen.membership.servers;
    for (is_server, (name, id)) in &agents {
        for (witness, published) in &published {
            let member = published.cluster.lan.get(name.as_str());
            let status = member.map(|member| member.status);
            if status != Some(Status::Alive) || member.and_then(|member| member.id()) != Some(*id) {
                return Some(format!("agent {witness} believes {name} {status:?}, and it lives as {id}"));
            }
        }
        let health = seen.view.check(name, SERF_HEALTH).map(|check| check.status);
        let known = seen.view.node(name).and_then(|node| node.id);
        if health != Some(Health::Passing) || known != Some(*id) {
            return Some(format!(
                "the catalog says {health:?} of {name} with {known:?}, and it lives as {id}"
            ));
        }
        if *is_server && !group.get(id).is_some_and(|member| member.voter) {
            return Some(format!("{name} has no vote in the group that {leader} leads: {group:?}"));
        }
    }
    let servers = agents.iter().filter(|(is_server, _)| *is_server).count();
    if group.len() != servers {
        return Some(format!("{leader} leads a group with others than the {servers} servers: {group:?}"));
    }
    (!audit.have_converged(servers))
        .then(|| format!("servers have not applied the same: {:?}", audit.applied()))
}
