//! What is to be told to everybody, piggy-backed on whatever leaves (SWIM, section 4.1).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::table::Slot;

/// So many broadcasts wait at most; beyond it those go that were sent most.
const QUEUE_MAX: usize = 4096;
/// So many are looked at to fill one packet, so that one packet never costs a walk through the queue.
const LOOKED_AT_MAX: usize = 64;
/// No message is smaller.
const MESSAGE_BYTES_MIN: usize = 8;

/// What a broadcast is about. A newer one replaces an older one of the same topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Alive, suspected, dead, left.
    Member(Slot),
    /// An intent to join or to leave, by a hash of the name: the member need not be known.
    Intent(u64),
    /// A user event, by lamport time and a hash of its identity.
    Event(u64, u64),
    /// A query, by its number.
    Query(u64),
}

impl Topic {
    /// Membership goes first: a flood of events must not hide a failure.
    fn class(self) -> u8 {
        match self {
            Topic::Member(_) => 0,
            Topic::Intent(_) => 1,
            Topic::Query(_) => 2,
            Topic::Event(..) => 3,
        }
    }
}

/// In the order of sending: by class, what was sent least first, and the newest of those.
type Rank = (u8, u32, Reverse<u64>);

/// The broadcasts that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Rank, (Topic, Bytes)>,
    ranks: BTreeMap<Topic, Rank>,
    pushed: u64,
}

impl Queue {
    /// Adds a message, as its encoding.
    pub fn push(&mut self, topic: Topic, message: Bytes) {
        self.cancel(topic);
        self.pushed += 1;
        self.put((topic.class(), 0, Reverse(self.pushed)), topic, message);
        if self.waiting.len() > QUEUE_MAX
            && let Some((_, (topic, _))) = self.waiting.pop_last()
        {
            self.ranks.remove(&topic);
        }
    }

    /// Whether the broadcast about this is still being sent.
    pub fn contains(&self, topic: Topic) -> bool {
        self.ranks.contains_key(&topic)
    }

    /// Tells no longer about this.
    pub fn cancel(&mut self, topic: Topic) {
        if let Some(rank) = self.ranks.remove(&topic) {
            self.waiting.remove(&rank);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait: about members, and others.
    pub fn len(&self) -> (usize, usize) {
        let members = self.waiting.range(..(1, 0, Reverse(u64::MAX))).count();
        (members, self.waiting.len() - members)
    }

    /// Appends messages to `packet` as long as they fit into `budget` more bytes; each is sent `limit` times in all.
    pub fn fill(&mut self, packet: &mut Vec<u8>, mut budget: usize, limit: u32) {
        let mut chosen = Vec::new();
        for (rank, (_, message)) in self.waiting.iter().take(LOOKED_AT_MAX) {
            if budget < MESSAGE_BYTES_MIN {
                break;
            }
            if message.len() <= budget {
                budget -= message.len();
                packet.extend_from_slice(message);
                chosen.push(*rank);
            }
        }
        for rank in chosen {
            let (topic, message) = self.waiting.remove(&rank).expect("it was just found there");
            self.ranks.remove(&topic);
            let (class, sent, age) = rank;
            if sent + 1 < limit {
                self.put((class, sent + 1, age), topic, message);
            }
        }
    }

    fn put(&mut self, rank: Rank, topic: Topic, message: Bytes) {
        self.ranks.insert(topic, rank);
        self.waiting.insert(rank, (topic, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(queue: &mut Queue, budget: usize, limit: u32) -> String {
        let mut packet = Vec::new();
        queue.fill(&mut packet, budget, limit);
        String::from_utf8(packet).unwrap()
    }

    #[test]
    fn what_was_sent_least_goes_first_and_nothing_goes_more_often_than_the_limit() {
        let mut queue = Queue::default();
        queue.push(Topic::Member(1), Bytes::from_static(b"one-----"));
        assert_eq!(filled(&mut queue, 8, 2), "one-----");
        queue.push(Topic::Member(2), Bytes::from_static(b"two-----"));
        assert_eq!(filled(&mut queue, 8, 2), "two-----");
        assert_eq!(filled(&mut queue, 100, 2), "two-----one-----");
        assert!(queue.is_empty());
    }

    #[test]
    fn newer_news_replaces_older_and_membership_goes_before_events() {
        let mut queue = Queue::default();
        queue.push(Topic::Event(1, 7), Bytes::from_static(b"event---"));
        queue.push(Topic::Member(1), Bytes::from_static(b"alive---"));
        queue.push(Topic::Member(1), Bytes::from_static(b"dead----"));
        assert_eq!(queue.len(), (1, 1));
        assert_eq!(filled(&mut queue, 100, 3), "dead----event---");
        queue.cancel(Topic::Member(1));
        assert!(!queue.contains(Topic::Member(1)));
        assert_eq!(filled(&mut queue, 100, 3), "event---");
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_room_to_smaller_ones() {
        let mut queue = Queue::default();
        queue.push(Topic::Member(1), Bytes::from_static(b"small---"));
        queue.push(Topic::Member(2), Bytes::from(vec![b'x'; 50]));
        assert_eq!(filled(&mut queue, 20, 1), "small---");
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = Queue::default();
        for slot in 0..QUEUE_MAX as u32 + 10 {
            queue.push(Topic::Member(slot), Bytes::from_static(b"message-"));
        }
        assert_eq!(queue.len(), (QUEUE_MAX, 0));
        assert_eq!(queue.ranks.len(), QUEUE_MAX);
    }
}
