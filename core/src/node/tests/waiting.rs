//! Many blocked queries: whom a change concerns, and how often it is rendered.

use super::*;
use crate::store::model::Check;
use crate::store::query::ServiceSelector;

const QUERIES: u64 = 10_000;

fn register(bench: &mut Bench, service: &str, output: &str) -> Vec<(RequestId, HttpReply)> {
    let registration = Registration {
        node: Text::new("n2"),
        address: Text::new("10.0.0.2"),
        service: Some(Service { id: Text::new(service), service: Text::new(service), ..Service::default() }),
        checks: vec![Check {
            id: Text::new(format!("check of {service}")),
            service_id: Text::new(service),
            output: Text::new(output),
            ..Check::default()
        }],
        ..Registration::default()
    };
    bench.ask(Call::Write(Write::Register(Box::new(registration)))).1
}

fn blocked_health(service: &str, index: u64) -> Call {
    let select = ServiceSelector { service: Text::new(service), ..ServiceSelector::default() };
    let read = Read::new(Query::ServiceHealth { select, passing: false });
    Call::Read(Read { blocking: Some(Blocking { index, wait: Duration::from_secs(600) }), ..read })
}

#[test]
fn unrelated_writes_wake_nobody() {
    const KEYS: u64 = 1_000;
    let mut bench = Bench::new();
    bench.put("other/0", "1", KvVerb::Set);
    register(&mut bench, "other", "");
    let index = bench.node.state().0.0;
    for query in 0..QUERIES {
        let (_, replies) =
            bench.ask(blocking(&format!("absent/{}", query % KEYS), index, Duration::from_secs(600)));
        assert!(replies.is_empty());
    }
    assert_eq!(bench.node.parked.len() as u64, QUERIES);
    // One second: a write each millisecond, of keys beside those and of a service.
    for write in 0..KEYS {
        let replies = match write % 10 {
            0 => register(&mut bench, "other", &write.to_string()),
            1 => bench.put(&format!("absent/{write}/below"), "1", KvVerb::Set),
            2 => bench.put("absent/", "1", KvVerb::Set),
            _ => bench.put(&format!("other/{write}"), "1", KvVerb::Set),
        };
        assert_eq!(replies.len(), 1, "only the writer is answered");
        assert!(bench.pass(Duration::from_millis(1)).is_empty());
    }
    assert_eq!(bench.node.parked.evaluations(), 0, "nobody was even looked at");
    let replies = bench.put("absent/7", "1", KvVerb::Set);
    assert_eq!(replies.len() as u64, QUERIES / KEYS + 1);
    assert_eq!(bench.node.parked.evaluations(), 1);
}

#[test]
fn all_who_wait_for_a_service_share_one_rendering() {
    let mut bench = Bench::new();
    register(&mut bench, "web", "");
    let index = bench.node.state().0.0;
    for _ in 0..QUERIES {
        assert!(bench.ask(blocked_health("web", index)).1.is_empty());
    }
    register(&mut bench, "other", "");
    assert_eq!(bench.node.parked.evaluations(), 0);
    let replies = register(&mut bench, "web", "changed");
    let (writer, woken): (Vec<_>, Vec<_>) = replies.iter().partition(|(id, _)| id.0 == bench.next);
    assert_eq!((writer.len(), woken.len() as u64), (1, QUERIES));
    assert_eq!(bench.node.parked.evaluations(), 1, "evaluated and rendered once");
    let first = &woken[0].1;
    assert!(first.body.len() > 100 && String::from_utf8_lossy(&first.body).contains("changed"));
    assert!(woken.iter().all(|(_, reply)| reply.body.as_ptr() == first.body.as_ptr()), "the same bytes");
    assert!(bench.node.parked.is_empty());
}
