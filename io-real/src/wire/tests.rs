use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};

use proconsul_core::ids::Uuid;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::tcp::{Identity, TcpWire};
use super::*;

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn id(number: u128) -> ServerId {
    Uuid(number)
}

fn identity(number: u128) -> Identity {
    Identity { id: id(number), datacenter: "dc1".into(), instance: 1 }
}

/// An agent and where it listens.
struct Agent {
    id: ServerId,
    wire: TcpWire,
    address: Text,
}

impl Agent {
    fn server(number: u128) -> Agent {
        Agent::at(local(), identity(number))
    }

    fn at(address: SocketAddr, me: Identity) -> Agent {
        let id = me.id;
        let wire = TcpWire::bind(address, me).expect("a free port");
        let address = wire.local_address().expect("it listens").to_string().into();
        Agent { id, wire, address }
    }

    fn client(number: u128) -> Agent {
        Agent { id: id(number), wire: TcpWire::client(identity(number), None), address: Text::default() }
    }

    fn send(&mut self, to: &Agent, frame: impl Into<Bytes>) {
        self.wire.send(to.id, &to.address, None, frame.into());
    }

    async fn next(&mut self) -> WireEvent {
        poll_fn(|cx| self.wire.poll_next(cx)).await
    }

    async fn frame(&mut self) -> Bytes {
        match self.next().await {
            WireEvent::Frame(_, frame) => frame,
            other => panic!("{other:?}"),
        }
    }
}

/// Lets both sides of a connection see that it is up.
async fn connect(a: &mut Agent, b: &mut Agent) {
    a.send(b, "hello");
    assert_eq!(b.next().await, WireEvent::Up(a.id, None));
    assert_eq!(b.frame().await, "hello");
    assert_eq!(a.next().await, WireEvent::Up(b.id, None));
}

#[tokio::test]
async fn frames_come_in_order_whatever_their_size() {
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    let sizes = [0, 1, 3_000_000, 5, 70_000, 0, 20_000_000, 4_096];
    for (number, size) in sizes.into_iter().enumerate() {
        a.send(&b, vec![number as u8; size]);
    }
    assert_eq!(b.next().await, WireEvent::Up(id(1), None));
    for (number, size) in sizes.into_iter().enumerate() {
        assert_eq!(b.frame().await, vec![number as u8; size]);
    }
}

#[tokio::test]
async fn an_answer_goes_over_the_callers_connection() {
    let (mut client, mut server) = (Agent::client(1), Agent::server(2));
    connect(&mut client, &mut server).await;
    server.send(&client, "answer");
    assert_eq!(client.next().await, WireEvent::Frame(id(2), "answer".into()));
    server.wire.send(id(9), &Text::default(), None, Bytes::from_static(b"to nobody"));
    drop(client);
    assert_eq!(server.next().await, WireEvent::Down(id(1)), "and nothing of the frame to nobody");
}

#[tokio::test]
async fn two_that_dial_each_other_are_up_once_and_down_once() {
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    a.send(&b, "from a");
    b.send(&a, "from b");
    assert_eq!(a.next().await, WireEvent::Up(id(2), None));
    assert_eq!(a.frame().await, "from b");
    assert_eq!(b.next().await, WireEvent::Up(id(1), None));
    assert_eq!(b.frame().await, "from a");
    for number in 0..100_u8 {
        a.send(&b, vec![number]);
        b.send(&a, vec![number]);
        assert_eq!(a.frame().await, [number][..]);
        assert_eq!(b.frame().await, [number][..]);
    }
    drop(b);
    assert_eq!(a.next().await, WireEvent::Down(id(2)));
}

#[tokio::test]
async fn of_two_connections_the_loss_of_either_is_told_to_both_ends() {
    for broken_by_caller in [true, false] {
        let (mut a, mut b) = (Agent::server(1), Agent::server(2));
        // What a says to b goes through somebody who can cut it.
        let relay = TcpListener::bind(local()).await.expect("a free port");
        let through = relay.local_addr().expect("bound").to_string().into();
        a.wire.send(id(2), &through, None, Bytes::from_static(b"from a"));
        b.send(&a, "from b");
        let (mut near, _) = relay.accept().await.expect("a calls");
        let mut far = tokio::net::TcpStream::connect(b.address.as_str()).await.expect("b listens");
        let relayed = tokio::spawn(async move {
            // Ends by being aborted, which closes both.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        assert_eq!(a.next().await, WireEvent::Up(id(2), None));
        assert_eq!(b.next().await, WireEvent::Up(id(1), None));
        assert_eq!(a.frame().await, "from b");
        assert_eq!(b.frame().await, "from a");
        // Both connections are up at both ends once each has carried something both ways, whichever is used.
        while a.wire.links(id(2)) < 2 || b.wire.links(id(1)) < 2 {
            tokio::select! {
                event = a.next() => panic!("{event:?}"),
                event = b.next() => panic!("{event:?}"),
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
            }
        }
        if broken_by_caller {
            relayed.abort();
        } else {
            a.wire.break_first(id(2));
        }
        assert_eq!(a.next().await, WireEvent::Down(id(2)));
        assert_eq!(b.next().await, WireEvent::Down(id(1)));
        connect(&mut a, &mut b).await;
    }
}

#[tokio::test]
async fn what_refuses_the_connection_is_down_at_once_each_time() {
    let mut a = Agent::server(1);
    let Agent { address, wire: gone, .. } = Agent::server(2);
    drop(gone);
    for _ in 0..3 {
        a.wire.send(id(2), &address, None, Bytes::from_static(b"lost"));
        assert_eq!(a.next().await, WireEvent::Down(id(2)));
    }
}

#[tokio::test]
async fn a_wrong_identity_is_refused() {
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    a.wire.send(id(3), &b.address, None, Bytes::from_static(b"for another"));
    tokio::select! {
        event = a.next() => assert_eq!(event, WireEvent::Down(id(3))),
        event = b.next() => panic!("{event:?}"),
    }
}

#[tokio::test]
async fn another_datacenter_is_refused() {
    let mut a = Agent::server(1);
    let mut b = Agent::at(local(), Identity { datacenter: "dc2".into(), ..identity(2) });
    a.send(&b, "for another datacenter");
    tokio::select! {
        event = a.next() => assert_eq!(event, WireEvent::Down(id(2))),
        event = b.next() => panic!("{event:?}"),
    }
}

#[tokio::test]
async fn servers_of_two_datacenters_know_of_each_other_where_they_are() {
    let mut a = Agent::server(1);
    let mut b = Agent::at(local(), Identity { datacenter: "dc2".into(), ..identity(2) });
    let there = Text::new("dc2");
    a.wire.send(b.id, &b.address, Some(&there), Bytes::from_static(b"a question"));
    assert_eq!(b.next().await, WireEvent::Up(id(1), Some("dc1".into())));
    assert_eq!(b.frame().await, "a question");
    b.send(&a, "an answer");
    assert_eq!(a.next().await, WireEvent::Up(id(2), Some(there)));
    assert_eq!(a.frame().await, "an answer");
}

#[tokio::test]
async fn an_agent_of_this_datacenter_counts_more_than_one_of_another_with_its_identity() {
    let mut a = Agent::server(1);
    let mut own = Agent::server(2);
    let mut copy = Agent::at(local(), Identity { datacenter: "dc2".into(), ..identity(2) });
    let here = Text::new("dc1");
    copy.wire.send(a.id, &a.address, Some(&here), Bytes::from_static(b"from elsewhere"));
    assert_eq!(a.next().await, WireEvent::Up(id(2), Some("dc2".into())));
    assert_eq!(a.frame().await, "from elsewhere");
    own.send(&a, "from here");
    assert_eq!(a.next().await, WireEvent::Down(id(2)));
    assert_eq!(a.next().await, WireEvent::Up(id(2), None));
    assert_eq!(a.frame().await, "from here");
    assert_eq!(copy.next().await, WireEvent::Up(id(1), Some("dc1".into())));
    assert_eq!(copy.next().await, WireEvent::Down(id(1)));
    copy.wire.send(a.id, &a.address, Some(&here), Bytes::from_static(b"again"));
    assert_eq!(copy.next().await, WireEvent::Up(id(1), Some("dc1".into())));
    tokio::select! {
        event = copy.next() => assert_eq!(event, WireEvent::Down(id(1))),
        event = a.next() => panic!("{event:?}"),
    }
    own.send(&a, "still here");
    assert_eq!(a.frame().await, "still here");
}

#[tokio::test]
async fn a_new_process_on_the_same_port_is_down_and_up() {
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    connect(&mut a, &mut b).await;
    let address = b.wire.local_address().expect("it listens");
    drop(b);
    assert_eq!(a.next().await, WireEvent::Down(id(2)));
    let mut b = loop {
        // The former listener is closed by its own task, a moment later.
        if let Ok(wire) = TcpWire::bind(address, Identity { instance: 2, ..identity(2) }) {
            break Agent { id: id(2), wire, address: address.to_string().into() };
        }
        tokio::task::yield_now().await;
    };
    connect(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_newer_process_replaces_the_connections_of_the_former() {
    let mut server = Agent::server(2);
    let mut former = Agent::client(1);
    connect(&mut former, &mut server).await;
    let wire = TcpWire::client(Identity { instance: 2, ..identity(1) }, None);
    let mut newer = Agent { id: id(1), wire, address: Text::default() };
    newer.send(&server, "newer");
    assert_eq!(server.next().await, WireEvent::Down(id(1)));
    assert_eq!(server.next().await, WireEvent::Up(id(1), None));
    assert_eq!(server.frame().await, "newer");
    assert_eq!(former.next().await, WireEvent::Down(id(2)));
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody_else() {
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    let mut slow = Agent::server(3);
    connect(&mut a, &mut slow).await;
    for _ in 0..50 {
        a.send(&slow, vec![0; 1 << 20]);
    }
    connect(&mut a, &mut b).await;
    b.send(&a, "answer");
    assert_eq!(a.next().await, WireEvent::Frame(id(2), "answer".into()));
    // More than all buffers on the way, and than the queue: what has no room would be lost without a word.
    for _ in 0..50 {
        a.send(&slow, vec![0; 1 << 20]);
    }
    assert_eq!(a.next().await, WireEvent::Down(id(3)));
    let mut came = 0;
    while let WireEvent::Frame(_, frame) = slow.next().await {
        assert_eq!(frame.len(), 1 << 20);
        came += 1;
    }
    assert!(came < 100, "{came}");
    connect(&mut a, &mut slow).await;
}

#[tokio::test]
async fn a_newer_address_is_dialled_while_the_old_one_is_silent() {
    let silent = TcpListener::bind(local()).await.expect("a free port");
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    let old = silent.local_addr().expect("bound").to_string().into();
    a.wire.send(id(2), &old, None, Bytes::from_static(b"first"));
    let (mut stream, _) = silent.accept().await.expect("a dial");
    a.send(&b, "second");
    assert_eq!(b.next().await, WireEvent::Up(id(1), None));
    assert_eq!(b.frame().await, "first");
    assert_eq!(b.frame().await, "second");
    assert_eq!(a.next().await, WireEvent::Up(id(2), None));
    let mut greeting = Vec::new();
    stream.read_to_end(&mut greeting).await.expect("the old dial is given up");
}

#[tokio::test]
async fn a_node_that_does_not_listen_holds_back_its_peers_and_loses_nothing() {
    let (mut a, mut b) = (Agent::server(1), Agent::server(2));
    connect(&mut a, &mut b).await;
    for number in 0..20_000_u32 {
        a.send(&b, number.to_be_bytes().to_vec());
    }
    for number in 0..20_000_u32 {
        assert_eq!(b.frame().await, number.to_be_bytes()[..]);
    }
}
