//! The servers that gossip shows: where they are, and whom a client agent asks.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Text;
use crate::format::{Format, Formats};
use crate::gossip::{Member, MemberChange, Status, tag};
use crate::ids::{ServerId, Uuid};
use crate::rng::Rng;
use crate::time::Mono;

/// A server that did not answer is not asked for this long, twice as long each time until it answers. If there is no
/// other one it is asked again after the first penalty.
const PENALTY: Duration = Duration::from_secs(1);
/// The longest penalty is the first one doubled so many times.
const DOUBLINGS_MAX: u32 = 5;
/// A client agent stays with one server for this long, then draws anew, so that load evens out (Consul: two to three
/// minutes).
const STICKY: Duration = Duration::from_secs(120);

/// A server of this datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Name of its node.
    pub name: Text,
    /// `host:port` of its RPC listener.
    pub address: Text,
    /// Identity of the Raft group that it belongs to, if it tells one.
    pub group: Option<Uuid>,
    /// Whether gossip believes it to be well.
    pub alive: bool,
    /// The formats that it knows.
    pub formats: Formats,
}

/// All servers of this datacenter that gossip knows.
#[derive(Debug, Default)]
pub struct Servers {
    known: BTreeMap<ServerId, Known>,
    /// Whom this agent asks, and until when it stays with it.
    chosen: Option<(ServerId, Mono)>,
    /// Known servers that did not answer when they were asked last.
    silent: BTreeMap<ServerId, Silence>,
}

/// A server that did not answer.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// When that was found last.
    since: Mono,
    /// Until then others are asked.
    until: Mono,
    /// How often in a row.
    failures: u32,
}

impl Servers {
    /// Follows a change of the datacenter's pool. Answers whether a server came, went or moved.
    pub fn follow(&mut self, change: &MemberChange, datacenter: &str) -> bool {
        match change {
            MemberChange::Upsert(member) => self.upsert(member, datacenter),
            MemberChange::Reaped(member) => {
                let gone = member.id().filter(|id| self.is(*id, &member.name));
                gone.is_some_and(|id| {
                    self.silent.remove(&id);
                    self.known.remove(&id).is_some()
                })
            }
        }
    }

    fn is(&self, id: ServerId, name: &str) -> bool {
        self.known.get(&id).is_some_and(|known| known.name == name)
    }

    fn upsert(&mut self, member: &Member, datacenter: &str) -> bool {
        let (Some(id), Some(address)) = (member.id(), member.rpc_address()) else { return false };
        if member.tag(tag::DATACENTER) != datacenter {
            return false;
        }
        let known = Known {
            name: member.name.clone(),
            address: Text::new(address.to_string()),
            group: Uuid::parse(member.tag(tag::GROUP)),
            alive: member.status == Status::Alive,
            formats: formats_of(member),
        };
        // A renamed server is there twice for a while: the living one counts.
        let former = self.known.get(&id);
        if former == Some(&known)
            || former.is_some_and(|former| former.name != known.name && former.alive && !known.alive)
        {
            return false;
        }
        if known.alive
            && let Some(silence) = self.silent.get_mut(&id)
        {
            silence.until = silence.since; // Gossip hears it.
        }
        self.known.insert(id, known);
        true
    }

    /// What is known of a server.
    #[must_use]
    pub fn get(&self, id: ServerId) -> Option<&Known> {
        self.known.get(&id)
    }

    /// Every server that is known, in the order of identities.
    pub fn all(&self) -> impl Iterator<Item = (ServerId, &Known)> {
        self.known.iter().map(|(id, known)| (*id, known))
    }

    /// Whether there is any server, well or not.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether any server is believed to be well.
    #[must_use]
    pub fn any_alive(&self) -> bool {
        self.known.values().any(|known| known.alive)
    }

    /// Whether others are to be asked before this one.
    fn is_avoided(&self, id: ServerId, now: Mono) -> bool {
        self.silent.get(&id).is_some_and(|silence| silence.until > now)
    }

    /// Whom to ask now; `None` when every living server has failed to answer within the last second, or there is
    /// none. Those whose names are `suspected` of having failed are asked when there is nobody else.
    pub fn choose(
        &mut self,
        now: Mono,
        rng: &mut Rng,
        suspected: impl Fn(&Text) -> bool,
    ) -> Option<ServerId> {
        if let Some((id, until)) = self.chosen
            && now < until
            && self.known.get(&id).is_some_and(|known| known.alive && !suspected(&known.name))
            && !self.is_avoided(id, now)
        {
            return Some(id);
        }
        let alive = self.known.iter().filter(|(id, known)| known.alive && !self.is_avoided(**id, now));
        let (suspects, others): (Vec<_>, Vec<_>) = alive.partition(|(_, known)| suspected(&known.name));
        let usable = if others.is_empty() { suspects } else { others };
        let usable: Vec<ServerId> = usable.into_iter().map(|(id, _)| *id).collect();
        let count = u64::try_from(usable.len()).expect("few servers");
        if count == 0 {
            return self.least_avoided(now);
        }
        let id = usable[rng.below(count) as usize];
        self.chosen = Some((id, now + STICKY + rng.duration_below(STICKY / 2)));
        Some(id)
    }

    /// The living server whose penalty ends first, if the first part of it is over.
    fn least_avoided(&self, now: Mono) -> Option<ServerId> {
        let may = |id: &ServerId| self.known.get(id).is_some_and(|known| known.alive);
        let over = self.silent.iter().filter(|(id, silence)| may(id) && silence.since + PENALTY <= now);
        over.min_by_key(|(id, silence)| (silence.until, **id)).map(|(id, _)| *id)
    }

    /// A server did not answer: others first. Of agents that are no servers nothing is noted. True if it was not avoided
    /// already.
    pub fn avoid(&mut self, id: ServerId, now: Mono) -> bool {
        if !self.known.contains_key(&id) {
            return false;
        }
        let avoided = self.silent.get(&id).is_some_and(|silence| silence.until > now);
        let failures = self.silent.get(&id).map_or(0, |silence| silence.failures);
        let until = now + PENALTY * (1 << failures.min(DOUBLINGS_MAX));
        self.silent.insert(id, Silence { since: now, until, failures: failures.saturating_add(1) });
        !avoided
    }

    /// A server answered. True if it had not before: what waited for a server that is well may be asked of it.
    pub fn on_answer(&mut self, id: ServerId) -> bool {
        self.silent.remove(&id).is_some()
    }

    /// When the next of the avoided servers may be asked again.
    #[must_use]
    pub fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let avoided = self.silent.values().filter(|silence| silence.until > now);
        avoided.flat_map(|silence| [silence.since + PENALTY, silence.until]).filter(|at| *at > now).min()
    }
}

/// What a server says that it knows. One that says nothing, or nothing that makes sense, knows the first format.
pub fn formats_of(member: &Member) -> Formats {
    let first = Formats { oldest: Format::FIRST, newest: Format::FIRST };
    Formats::parse(member.tag(tag::FORMATS)).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn member(name: &str, id: u128, host: u8, status: Status) -> Member {
        let tags = [
            (tag::ROLE, tag::ROLE_SERVER.to_owned()),
            (tag::DATACENTER, "dc1".to_owned()),
            (tag::ID, Uuid(id).to_string()),
            (tag::PORT, "8300".to_owned()),
        ];
        Member {
            name: name.into(),
            address: ([127, 0, 0, host], 8301).into(),
            tags: Arc::new(tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect()),
            status,
        }
    }

    fn nobody(_: &Text) -> bool {
        false
    }

    fn upsert(servers: &mut Servers, member: Member) -> bool {
        servers.follow(&MemberChange::Upsert(member), "dc1")
    }

    #[test]
    fn a_server_that_does_not_answer_is_passed_over_until_its_penalty_ends() {
        let (mut servers, mut rng) = (Servers::default(), Rng::from_seed(1));
        assert_eq!(servers.choose(Mono(0), &mut rng, nobody), None);
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Alive)));
        assert!(upsert(&mut servers, member("b", 2, 2, Status::Alive)));
        let first = servers.choose(Mono(0), &mut rng, nobody).expect("two are there");
        assert_eq!(servers.choose(Mono(1), &mut rng, nobody), Some(first), "it stays with one");
        servers.avoid(first, Mono(1));
        let second = servers.choose(Mono(2), &mut rng, nobody).expect("one is left");
        assert_ne!(second, first);
        servers.avoid(second, Mono(2));
        assert_eq!(servers.choose(Mono(3), &mut rng, nobody), None);
        servers.avoid(first, Mono(3));
        let again = Mono(3) + PENALTY;
        assert_eq!(servers.choose(again, &mut rng, nobody), Some(second), "the one that has failed less");
        servers.avoid(second, again);
        assert_eq!(servers.choose(again, &mut rng, nobody), Some(first), "it has waited for longer");
    }

    #[test]
    fn a_suspect_is_asked_when_there_is_nobody_else() {
        let (mut servers, mut rng) = (Servers::default(), Rng::from_seed(1));
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Alive)));
        assert!(upsert(&mut servers, member("b", 2, 2, Status::Alive)));
        for suspect in ["a", "b", "a", "b"] {
            let chosen = servers.choose(Mono(0), &mut rng, |name| name == suspect).expect("two are there");
            assert_ne!(servers.get(chosen).expect("known").name, suspect);
        }
        assert!(servers.choose(Mono(0), &mut rng, |_| true).is_some());
        servers.avoid(Uuid(1), Mono(0));
        let chosen = servers.choose(Mono(1), &mut rng, |name| name == "b");
        assert_eq!(chosen, Some(Uuid(2)), "one that did not answer is worse");
    }

    #[test]
    fn a_server_whose_penalty_is_over_is_asked_again() {
        let (mut servers, mut rng) = (Servers::default(), Rng::from_seed(1));
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Alive)));
        servers.avoid(Uuid(1), Mono(1));
        let first = Uuid(1);
        assert_eq!(
            servers.choose(servers.next_deadline(Mono(1)).expect("a penalty"), &mut rng, nobody),
            Some(first)
        );
    }

    #[test]
    fn regression_a_penalty_that_is_over_sets_no_deadline() {
        let mut servers = Servers::default();
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Alive)));
        servers.avoid(Uuid(1), Mono(0));
        let over = servers.next_deadline(Mono(1)).expect("a penalty");
        assert_eq!(servers.next_deadline(over), None, "the node would wake for it without end");
    }

    #[test]
    fn of_agents_that_are_no_servers_nothing_is_remembered() {
        let mut servers = Servers::default();
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Alive)));
        servers.avoid(Uuid(1), Mono(0));
        servers.avoid(Uuid(3), Mono(0));
        assert_eq!(servers.silent.len(), 1);
        servers.follow(&MemberChange::Reaped(member("a", 1, 1, Status::Left)), "dc1");
        assert!(servers.silent.is_empty());
    }

    #[test]
    fn failed_servers_and_client_agents_are_never_asked() {
        let (mut servers, mut rng) = (Servers::default(), Rng::from_seed(1));
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Failed)));
        let client = Member { tags: Arc::default(), ..member("c", 3, 3, Status::Alive) };
        assert!(!upsert(&mut servers, client));
        assert_eq!(servers.choose(Mono(0), &mut rng, nobody), None);
        assert!(!servers.follow(&MemberChange::Upsert(member("d", 4, 4, Status::Alive)), "dc2"));
    }

    #[test]
    fn a_server_that_moved_is_found_at_its_new_address() {
        let mut servers = Servers::default();
        assert!(upsert(&mut servers, member("a", 1, 1, Status::Alive)));
        assert!(upsert(&mut servers, member("a", 1, 9, Status::Alive)));
        assert_eq!(servers.get(Uuid(1)).expect("known").address, "127.0.0.9:8300");
        assert!(!upsert(&mut servers, member("a", 1, 9, Status::Alive)), "nothing changed");
        assert!(servers.follow(&MemberChange::Reaped(member("a", 1, 9, Status::Left)), "dc1"));
        assert_eq!(servers.get(Uuid(1)), None);
    }
}
