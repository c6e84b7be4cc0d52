//! The leader vouches for servers: each has a node, the health check `serfHealth` and the service `consul`.

use super::{Effect, SERF_HEALTH, SERVICE};
use crate::Text;
use crate::cx::Cx;
use crate::node::RosterEntry;
use crate::store::Store;
use crate::store::command::{Command, Registration};
use crate::store::model::{Check, Health, Service};

/// Registers those whom the catalog does not show as they are.
pub(super) fn vouch(cx: &mut Cx<'_, Effect>, store: &Store, roster: &[RosterEntry], datacenter: &str) {
    for entry in roster {
        let known = store.node(&entry.node).is_some()
            && store.check(&entry.node, SERF_HEALTH).is_some_and(|check| check.status == Health::Passing)
            && store.service(&entry.node, SERVICE).is_some_and(|service| service.port == entry.port);
        if !known {
            cx.emit(Effect::Propose(Command::Register(Box::new(registration(entry, datacenter)))));
        }
    }
}

fn registration(entry: &RosterEntry, datacenter: &str) -> Registration {
    Registration {
        id: Some(entry.id),
        node: entry.node.clone(),
        address: entry.address.clone(),
        datacenter: Text::new(datacenter),
        service: Some(Service {
            id: Text::new_static(SERVICE),
            service: Text::new_static(SERVICE),
            port: entry.port,
            ..Service::default()
        }),
        checks: vec![Check {
            node: entry.node.clone(),
            id: Text::new_static(SERF_HEALTH),
            name: Text::new_static("Serf Health Status"),
            status: Health::Passing,
            output: Text::new_static("Agent alive and reachable"),
            ..Check::default()
        }],
        // The node's row, once it is there, is its own agent's business, which knows more than the roster: this must
        // not overwrite what that agent has just proposed.
        skip_node_update: true,
        ..Registration::default()
    }
}
