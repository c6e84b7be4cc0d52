//! Frames between agents that come twice, late, or after the process that they were meant for.

use bytes::Bytes;

use super::super::peer::{Ask, AskId, PeerAnswer, PeerMessage};
use super::super::*;
use super::hostile::{Bench, Part};
use crate::format::Format;
use crate::store::command::{Command, KvCommand, KvVerb, Response};

const ASKER: Uuid = Uuid(70);

fn cas(index: u64) -> Ask {
    let command = KvCommand { verb: KvVerb::Cas(index), key: "a".into(), value: Bytes::new(), flags: 0 };
    Ask::Propose(Command::Kv(command).encode(Format::FIRST))
}

fn frame(life: u64, number: u64, ask: Ask) -> PeerMessage {
    PeerMessage::Ask { id: AskId { life, number }, ask }
}

#[test]
fn a_command_that_comes_twice_is_proposed_and_answered_once() {
    let mut bench = Bench::new(Part::Leader);
    bench.answers.clear();
    bench.frame(ASKER, &frame(1, 7, cas(0)));
    let index = bench.node.state().0;
    bench.frame(ASKER, &frame(1, 7, cas(0)));
    assert_eq!(bench.node.state().0, index);
    assert_eq!(bench.answers, [PeerAnswer::Applied(Response::Held(true))]);
    bench.frame(ASKER, &frame(2, 7, cas(0)));
    assert_eq!(bench.answers[1..], [PeerAnswer::Applied(Response::Held(false))], "another process asks");
}

#[test]
fn what_was_refused_is_not_done_when_its_copy_finds_a_leader() {
    let mut bench = Bench::new(Part::Lonely);
    bench.frame(ASKER, &frame(1, 7, cas(0)));
    assert_eq!(bench.answers, [PeerAnswer::NotLeader]);
    bench.frame(ASKER, &frame(1, 7, cas(0)));
    assert_eq!(bench.answers.len(), 1, "the asker has turned to somebody else");
}

#[test]
fn what_is_forgotten_before_it_comes_is_not_begun() {
    let mut bench = Bench::new(Part::Leader);
    bench.answers.clear();
    bench.frame(ASKER, &PeerMessage::Forget { id: AskId { life: 1, number: 7 } });
    bench.frame(ASKER, &frame(1, 7, cas(0)));
    assert!(bench.answers.is_empty());
    assert_eq!(bench.node.store.kv("a"), None);
}

#[test]
fn an_answer_to_the_process_before_is_not_taken_for_one_to_this() {
    let mut bench = Bench::new(Part::Client);
    bench.meet_a_server();
    let request = bench.request(super::hostile::put());
    let asked = bench.asked.pop().expect("asked");
    let answer = PeerAnswer::Reply(crate::api::HttpReply::text(200, "true"));
    let former = AskId { life: asked.life ^ 1, ..asked };
    bench.frame(super::world::id(0), &PeerMessage::Answer { id: former, answer: answer.clone() });
    assert!(!bench.replied.contains(&request), "it would be told of a write that is another's");
    bench.frame(super::world::id(0), &PeerMessage::Answer { id: asked, answer });
    assert!(bench.replied.contains(&request));
}
