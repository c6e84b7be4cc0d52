//! How a connection begins: the caller says who it is and whom it wants, the callee agrees or says why not.
//!
//! Each side sends four bytes of magic, a version, the length of what follows in two bytes (big-endian), and that.

use std::io;

use proconsul_core::Text;
use proconsul_core::ids::ServerId;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const MAGIC: [u8; 4] = *b"pcRP";
/// What this program speaks. Another version is refused by either side.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 7;
/// Largest handshake: a long name of a datacenter fits.
const BODY_BYTES_MAX: usize = 1_024;

/// What an agent does for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// It is part of the group, and can be dialled.
    Server,
    /// It asks, and cannot be dialled.
    Client,
    /// It is a server of this other datacenter, which asks for its clients, and can be dialled.
    Abroad(Text),
}

/// What a caller says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The datacenter of the callee, and of the caller unless its role says otherwise.
    pub(super) datacenter: Text,
    /// Who calls.
    pub(super) id: ServerId,
    pub(super) role: Role,
    /// Drawn by each process: tells its connections from those of the process before it.
    pub(super) instance: u64,
    /// Whom it means to call.
    pub(super) callee: ServerId,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Welcome { instance: u64 },
    Refused(Refusal),
}

/// Why an agent does not talk to another.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// Their programs do not understand each other.
    #[error("it speaks version {0} of the protocol between agents, this agent speaks version {VERSION}")]
    Version(u8),
    /// The callee is elsewhere.
    #[error("it is in datacenter {0:?}")]
    Datacenter(Text),
    /// The callee is somebody else; its address is not that of the agent that was meant.
    #[error("it is another agent, {0}")]
    Identity(ServerId),
}

/// Why a connection did not begin.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// It could not be made, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side is no agent of this kind, or garbles what it says.
    #[error("what answers is not the RPC port of an agent of this kind")]
    Foreign,
    /// The callee refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Failure {
    /// Whether an operator has to do something about it.
    pub(super) fn needs_attention(&self) -> bool {
        match self {
            Failure::Io(_) => false,
            Failure::Foreign | Failure::Refused(_) => true,
        }
    }
}

/// The caller's part; gives the callee's instance.
pub(super) async fn call<S>(stream: &mut S, hello: &Hello) -> Result<u64, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, hello).await?;
    match receive(stream).await? {
        Answer::Welcome { instance } => Ok(instance),
        Answer::Refused(refusal) => Err(refusal.into()),
    }
}

/// The callee's part; gives what the caller said. `me` is who calls when this agent does.
pub(super) async fn answer<S>(stream: &mut S, me: &Hello) -> Result<Hello, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello: Hello = match receive(stream).await {
        Err(Failure::Refused(refusal)) => {
            // The version in its head says it all.
            send(stream, &()).await?;
            return Err(refusal.into());
        }
        received => received?,
    };
    let claims_to_be_foreign = hello.role == Role::Abroad(me.datacenter.clone());
    let refusal = if hello.datacenter != me.datacenter || claims_to_be_foreign {
        Some(Refusal::Datacenter(me.datacenter.clone()))
    } else if hello.callee != me.id {
        Some(Refusal::Identity(me.id))
    } else {
        None
    };
    if let Some(refusal) = refusal {
        send(stream, &Answer::Refused(refusal.clone())).await?;
        return Err(refusal.into());
    }
    send(stream, &Answer::Welcome { instance: me.instance }).await?;
    Ok(hello)
}

async fn send<S>(stream: &mut S, body: &impl Serialize) -> Result<(), Failure>
where
    S: AsyncWrite + Unpin,
{
    let body = postcard::to_allocvec(body).map_err(io::Error::other)?;
    let len = u16::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive<S, T>(stream: &mut S) -> Result<T, Failure>
where
    S: AsyncRead + Unpin,
    T: for<'a> Deserialize<'a>,
{
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let [m0, m1, m2, m3, version, len @ ..] = head;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(Failure::Foreign);
    }
    let len = usize::from(u16::from_be_bytes(len));
    if len > BODY_BYTES_MAX {
        return Err(Failure::Foreign);
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    if version != VERSION {
        return Err(Refusal::Version(version).into());
    }
    postcard::from_bytes(&body).map_err(|_| Failure::Foreign)
}

#[cfg(test)]
mod tests {
    use proconsul_core::ids::Uuid;
    use proconsul_core::testing::fuzz::{cases, hostile};
    use proptest::prelude::*;

    use super::*;

    fn hello(id: u128, callee: u128) -> Hello {
        Hello {
            datacenter: "dc1".into(),
            id: Uuid(id),
            role: Role::Server,
            instance: 9,
            callee: Uuid(callee),
        }
    }

    async fn meet(caller: Hello, callee: Hello) -> (Result<u64, Failure>, Result<Hello, Failure>) {
        let (mut near, mut far) = tokio::io::duplex(64);
        futures_util::future::join(call(&mut near, &caller), answer(&mut far, &callee)).await
    }

    #[tokio::test]
    async fn both_learn_who_the_other_is() {
        let (called, answered) = meet(hello(1, 2), Hello { instance: 7, ..hello(2, 0) }).await;
        assert_eq!(called.expect("welcome"), 7);
        assert_eq!(answered.expect("a greeting"), hello(1, 2));
    }

    #[tokio::test]
    async fn a_wrong_identity_or_datacenter_is_refused_with_the_right_one() {
        let (called, _) = meet(hello(1, 2), hello(3, 0)).await;
        assert!(matches!(called, Err(Failure::Refused(Refusal::Identity(Uuid(3))))));
        let elsewhere = Hello { datacenter: "dc2".into(), ..hello(2, 0) };
        let (called, answered) = meet(hello(1, 2), elsewhere).await;
        let refusal = Refusal::Datacenter("dc2".into());
        assert!(matches!(called, Err(Failure::Refused(it)) if it == refusal));
        assert!(matches!(answered, Err(Failure::Refused(it)) if it == refusal));
    }

    #[tokio::test]
    async fn a_server_of_another_datacenter_says_so_and_is_welcome() {
        let abroad = Hello { role: Role::Abroad("dc2".into()), ..hello(1, 2) };
        let (called, answered) = meet(abroad.clone(), hello(2, 0)).await;
        assert_eq!((called.expect("welcome"), answered.expect("a greeting")), (9, abroad.clone()));
        let elsewhere = Hello { datacenter: "dc3".into(), ..abroad };
        let (called, _) = meet(elsewhere, hello(2, 0)).await;
        assert_eq!(called.expect_err("it is in dc1").to_string(), "it is in datacenter \"dc1\"");
        let confused = Hello { role: Role::Abroad("dc1".into()), ..hello(1, 2) };
        assert!(meet(confused, hello(2, 0)).await.0.is_err());
    }

    #[tokio::test]
    async fn another_version_is_refused_by_both() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let caller = async {
            near.write_all(b"pcRP\x02\x00\x03new").await.expect("room");
            let answer: Result<Hello, _> = receive(&mut near).await;
            answer
        };
        let me = hello(2, 0);
        let (_, answered) = futures_util::future::join(caller, answer(&mut far, &me)).await;
        assert!(matches!(answered, Err(Failure::Refused(Refusal::Version(2)))));
        near.write_all(b"pcRP\x02\x00\x00").await.expect("room");
        let received: Result<Hello, _> = receive(&mut far).await;
        assert!(matches!(received, Err(Failure::Refused(Refusal::Version(2)))));
    }

    #[tokio::test]
    async fn a_stranger_is_told_from_an_agent() {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"pcRP\x01\xff\xff", b"pcRP\x01\x00\x01\xff"] {
            let (mut near, mut far) = tokio::io::duplex(64);
            near.write_all(garbage).await.expect("room");
            assert!(matches!(answer(&mut far, &hello(2, 0)).await, Err(Failure::Foreign)));
        }
    }

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn nothing_that_a_stranger_says_is_a_greeting_by_accident(bytes in hostile(greeting(), 100)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let answered = runtime.block_on(async {
                let (mut near, mut far) = tokio::io::duplex(4_096);
                near.write_all(&bytes).await.expect("room");
                near.shutdown().await.expect("open");
                answer(&mut far, &hello(2, 0)).await
            });
            if let Ok(hello) = answered {
                prop_assert_eq!((hello.callee, hello.datacenter.as_str()), (Uuid(2), "dc1"));
            }
        }
    }

    /// What a caller sends first.
    fn greeting() -> impl Strategy<Value = Vec<u8>> {
        any::<u128>().prop_map(|id| {
            let mut bytes = Vec::new();
            let mut sink = std::io::Cursor::new(&mut bytes);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(send(&mut sink, &hello(id, 2))).expect("memory");
            bytes
        })
    }
}
