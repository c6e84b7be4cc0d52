//! The store against the simplest thing that could be right: maps, and rules as they are written down.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::property::any_command;
use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    flags: u64,
    lock_index: u64,
    session: Option<Uuid>,
    create_index: u64,
    modify_index: u64,
}

/// Keys, sessions and as much of the catalog as sessions depend on. Names and ids are kept in lower case.
#[derive(Default)]
struct Model {
    index: u64,
    keys: BTreeMap<String, Entry>,
    sessions: BTreeMap<Uuid, Session>,
    delays: BTreeMap<String, u64>,
    nodes: Vec<String>,
    services: Vec<(String, String)>,
    checks: BTreeMap<(String, String), (Health, String)>,
}

fn low(text: &str) -> String {
    text.to_ascii_lowercase()
}

impl Model {
    fn apply(&mut self, command: &Command) -> Response {
        self.index += 1;
        let response = match command {
            Command::Kv(command) => self.kv(command),
            Command::Register(registration) => self.register(registration),
            Command::Deregister(command) => {
                let node = low(&command.node);
                if let Some(id) = &command.service_id {
                    let service = (node.clone(), low(id));
                    self.services.retain(|have| *have != service);
                    self.checks.retain(|(on, _), (_, of)| (on, &*of) != (&node, &service.1));
                } else if let Some(id) = &command.check_id {
                    self.checks.remove(&(node, low(id)));
                } else {
                    self.nodes.retain(|have| *have != node);
                    self.services.retain(|(on, _)| *on != node);
                    self.checks.retain(|(on, _), _| *on != node);
                }
                Response::Done
            }
            Command::SessionCreate(session) => {
                let refusal = if !self.nodes.contains(&low(&session.node)) {
                    Some(Refusal::MissingNode)
                } else if self.sessions.contains_key(&session.id) {
                    return Response::Refused(Refusal::Other(format!(
                        "Session '{}' exists already",
                        session.id
                    )));
                } else {
                    bound(session).into_iter().find_map(|id| {
                        match self.checks.get(&(low(&session.node), low(&id))) {
                            None => Some(Refusal::MissingCheck(id)),
                            Some((Health::Critical, _)) => Some(Refusal::CriticalCheck(id)),
                            Some(_) => None,
                        }
                    })
                };
                if let Some(refusal) = refusal {
                    return Response::Refused(refusal);
                }
                self.sessions.insert(session.id, Session::clone(session));
                Response::SessionCreated(session.id)
            }
            Command::SessionDestroy { id } => {
                self.end(*id);
                Response::Done
            }
            Command::LockDelayOver { keys } => {
                for (key, begun) in keys {
                    if self.delays.get(key.as_str()) == Some(begun) {
                        self.delays.remove(key.as_str());
                    }
                }
                Response::Done
            }
            Command::ReapTombstones { .. } | Command::Coordinates(_) => Response::Done,
            Command::AutopilotSet { .. }
            | Command::GroupNamed { .. }
            | Command::FormatRaised { .. }
            | Command::Transaction(_)
            | Command::ConfigSet { .. }
            | Command::ConfigDelete { .. }
            | Command::Restore(_)
            | Command::Prepared(_)
            | Command::Intention(_) => {
                unreachable!("not part of the model")
            }
        };
        // Whatever the command was: a session without its node or its checks is over.
        for session in self.sessions.clone().into_values() {
            let lives = |id: &Text| matches!(self.checks.get(&(low(&session.node), low(id))), Some((health, _)) if *health != Health::Critical);
            if !self.nodes.contains(&low(&session.node)) || !bound(&session).iter().all(lives) {
                self.end(session.id);
            }
        }
        response
    }

    fn kv(&mut self, command: &KvCommand) -> Response {
        let key = command.key.to_string();
        let old = self.keys.get(&key).cloned();
        let holder = old.as_ref().and_then(|old| old.session);
        let locks = old.as_ref().map_or(0, |old| old.lock_index);
        let modified = old.as_ref().map_or(0, |old| old.modify_index);
        let (session, lock_index) = match command.verb {
            KvVerb::Set => (holder, 0),
            KvVerb::Cas(index) if index == modified => (holder, 0),
            KvVerb::Acquire(id) if !self.sessions.contains_key(&id) => {
                return Response::Refused(Refusal::InvalidSession(id.to_string()));
            }
            KvVerb::Acquire(id) if holder == Some(id) => (holder, locks),
            KvVerb::Acquire(id) if holder.is_none() && !self.delays.contains_key(&key) => {
                (Some(id), locks + 1)
            }
            KvVerb::Release(id) if holder == Some(id) => (None, locks),
            KvVerb::Cas(_) | KvVerb::Acquire(_) | KvVerb::Release(_) => return Response::Held(false),
            KvVerb::DeleteCas(index) if old.is_some() && index != modified => {
                return Response::Held(false);
            }
            KvVerb::Delete | KvVerb::DeleteCas(_) => {
                self.keys.remove(&key);
                return Response::Held(true);
            }
            KvVerb::DeleteTree => {
                self.keys.retain(|have, _| !have.starts_with(&key));
                return Response::Held(true);
            }
        };
        let mut new = Entry {
            value: command.value.to_vec(),
            flags: command.flags,
            lock_index,
            session,
            create_index: old.as_ref().map_or(self.index, |old| old.create_index),
            modify_index: modified,
        };
        if old.as_ref() != Some(&new) {
            new.modify_index = self.index;
            self.keys.insert(key, new);
        }
        Response::Held(true)
    }

    fn register(&mut self, registration: &Registration) -> Response {
        let node = low(&registration.node);
        let service = registration.service.as_ref().map(|service| (node.clone(), low(&service.id)));
        for check in &registration.checks {
            let of = (node.clone(), low(&check.service_id));
            if !of.1.is_empty() && !self.services.contains(&of) && service.as_ref() != Some(&of) {
                // The name is the row's, which another spelling may have set; the tests of names look at it.
                return Response::Refused(Refusal::MissingService { node: Text::default() });
            }
        }
        if !self.nodes.contains(&node) {
            self.nodes.push(node.clone());
        }
        self.services.extend(service);
        for check in &registration.checks {
            let row = (check.status, low(&check.service_id));
            self.checks.insert((node.clone(), low(&check.id)), row);
            // A check that is written twice in one registration still ends sessions in between.
            if check.status == Health::Critical {
                for session in self.sessions.clone().into_values() {
                    let hit = bound(&session).iter().any(|id| low(id) == low(&check.id));
                    if low(&session.node) == node && hit {
                        self.end(session.id);
                    }
                }
            }
        }
        Response::Done
    }

    fn end(&mut self, id: Uuid) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for (key, mut entry) in self.keys.clone() {
            if entry.session != Some(id) {
                continue;
            }
            if !session.lock_delay.is_zero() {
                self.delays.insert(key.clone(), self.index);
            }
            if session.behavior == SessionBehavior::Delete {
                self.keys.remove(&key);
            } else {
                entry.session = None;
                entry.modify_index = self.index;
                self.keys.insert(key, entry);
            }
        }
    }
}

fn bound(session: &Session) -> Vec<Text> {
    let of_services = session.service_checks.iter().flatten().map(|check| check.id.clone());
    session.node_checks.iter().cloned().chain(of_services).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn keys_locks_and_sessions_are_those_of_the_model(commands in vec(any_command(false), 1..60)) {
        let mut world = World::default();
        let mut model = Model::default();
        for command in commands {
            let mut response = world.apply(command.clone()).response;
            if let Response::Refused(Refusal::MissingService { node }) = &mut response {
                *node = Text::default();
            }
            prop_assert_eq!(response, model.apply(&command), "{:?}", command);
            let keys: BTreeMap<String, Entry> = match world.store.evaluate(&Query::KvTree(Text::default())).rows {
                Rows::KvTree(entries) => entries
                    .iter()
                    .map(|entry| {
                        (entry.key.to_string(), Entry {
                            value: entry.value.to_vec(),
                            flags: entry.flags,
                            lock_index: entry.lock_index,
                            session: entry.session,
                            create_index: entry.create_index,
                            modify_index: entry.modify_index,
                        })
                    })
                    .collect(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(&keys, &model.keys, "{:?}", command);
            let delays: BTreeMap<String, u64> =
                world.store.lock_delays().map(|(key, begun, _)| (key.to_string(), begun)).collect();
            prop_assert_eq!(&delays, &model.delays, "{:?}", command);
            let sessions = ids(&world.store.evaluate(&Query::Sessions));
            let expected: Vec<String> = model.sessions.keys().map(|id| id.0.to_string()).collect();
            prop_assert_eq!(sessions, expected, "{:?}", command);
        }
    }
}
