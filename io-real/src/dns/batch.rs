//! Datagrams, several with one system call where the system has such calls (Linux: recvmmsg(2), sendmmsg(2)).

use std::io;
use std::net::{SocketAddr, UdpSocket};

use self::system::{Headers, Peer};
use super::QUESTION_MAX;

/// Most datagrams of one call.
const MOST: usize = if cfg!(target_os = "linux") { 16 } else { 1 };

/// Questions that came together, and the answers that leave together.
pub(super) struct Batch {
    /// Room for the questions, side by side.
    packets: Box<[u8]>,
    /// The length of each, and who has sent it.
    heard: Vec<(usize, Option<Peer>)>,
    answers: [Vec<u8>; MOST],
    /// Whom the first of the answers are for.
    to: Vec<Option<Peer>>,
    headers: Headers,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            packets: vec![0; QUESTION_MAX * MOST].into(),
            heard: Vec::with_capacity(MOST),
            answers: std::array::from_fn(|_| Vec::with_capacity(1024)),
            to: Vec::with_capacity(MOST),
            headers: Headers::new(),
        }
    }

    /// Waits for a question, and takes those that have come with it; how many they are.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.heard.clear();
        self.headers.receive(socket, &mut self.packets, &mut self.heard)?;
        Ok(self.heard.len())
    }

    /// A question, and the place for its answer, which [`Batch::answered`] keeps.
    pub(super) fn question(&mut self, at: usize) -> (&[u8], &mut Vec<u8>) {
        let question = &self.packets[at * QUESTION_MAX..][..self.heard[at].0];
        (question, &mut self.answers[self.to.len()])
    }

    /// Who has sent a question.
    pub(super) fn sender(&self, at: usize) -> Option<SocketAddr> {
        self.heard[at].1.as_ref().and_then(system::address)
    }

    /// The answer to this question is to be sent.
    pub(super) fn answered(&mut self, at: usize) {
        self.to.push(self.heard[at].1);
    }

    /// Sends the answers. One that cannot be sent is lost, as datagrams may be; `failed` hears why.
    pub(super) fn send(&mut self, socket: &UdpSocket, mut failed: impl FnMut(io::Error)) {
        let mut at = 0;
        while at < self.to.len() {
            match self.headers.send(socket, &self.answers[at..self.to.len()], &self.to[at..]) {
                Ok(sent) => at += sent.max(1),
                Err(error) => {
                    failed(error);
                    at += 1;
                }
            }
        }
        self.to.clear();
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::{self, IoSlice, IoSliceMut};
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

    use super::{MOST, QUESTION_MAX};

    pub(super) type Peer = SockaddrStorage;

    /// What the calls need beside the bytes.
    pub(super) struct Headers {
        incoming: MultiHeaders<Peer>,
        outgoing: MultiHeaders<Peer>,
    }

    impl Headers {
        pub(super) fn new() -> Headers {
            let headers = || MultiHeaders::preallocate(MOST, None);
            Headers { incoming: headers(), outgoing: headers() }
        }

        pub(super) fn receive(
            &mut self,
            socket: &UdpSocket,
            packets: &mut [u8],
            heard: &mut Vec<(usize, Option<Peer>)>,
        ) -> io::Result<()> {
            let mut rooms = packets.chunks_exact_mut(QUESTION_MAX);
            let mut rooms: [[IoSliceMut<'_>; 1]; MOST] =
                std::array::from_fn(|_| [IoSliceMut::new(rooms.next().expect("there is room for as many"))]);
            let flags = MsgFlags::MSG_WAITFORONE;
            let received = recvmmsg(socket.as_raw_fd(), &mut self.incoming, rooms.iter_mut(), flags, None)?;
            heard.extend(received.map(|one| (one.bytes, one.address)));
            Ok(())
        }

        pub(super) fn send(
            &mut self,
            socket: &UdpSocket,
            answers: &[Vec<u8>],
            to: &[Option<Peer>],
        ) -> io::Result<usize> {
            let mut answers = answers.iter();
            let answers: [[IoSlice<'_>; 1]; MOST] =
                std::array::from_fn(|_| [IoSlice::new(answers.next().map_or(&[], Vec::as_slice))]);
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
            let sent = sendmmsg(fd, &mut self.outgoing, &answers[..to.len()], to, [], flags)?;
            Ok(sent.count())
        }
    }

    pub(super) fn address(peer: &Peer) -> Option<SocketAddr> {
        let v4 = || peer.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
        v4().or_else(|| peer.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::net::{SocketAddr, UdpSocket};

    pub(super) type Peer = SocketAddr;

    pub(super) struct Headers;

    impl Headers {
        pub(super) fn new() -> Headers {
            Headers
        }

        pub(super) fn receive(
            &mut self,
            socket: &UdpSocket,
            packets: &mut [u8],
            heard: &mut Vec<(usize, Option<Peer>)>,
        ) -> io::Result<()> {
            let (length, from) = socket.recv_from(packets)?;
            heard.push((length, Some(from)));
            Ok(())
        }

        pub(super) fn send(
            &mut self,
            socket: &UdpSocket,
            answers: &[Vec<u8>],
            to: &[Option<Peer>],
        ) -> io::Result<usize> {
            if let ([answer, ..], [Some(to), ..]) = (answers, to) {
                socket.send_to(answer, to)?;
            }
            Ok(1)
        }
    }

    pub(super) fn address(peer: &Peer) -> Option<SocketAddr> {
        Some(*peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_together_is_answered_each_to_its_sender() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(local) else { continue };
            let server = socket.local_addr().unwrap();
            let clients: Vec<UdpSocket> = (0..5).map(|_| UdpSocket::bind(local).unwrap()).collect();
            for (number, client) in (0u8..).zip(&clients) {
                client.send_to(&[number; 3], server).unwrap();
            }
            let (mut batch, mut seen) = (Batch::new(), 0);
            while seen < clients.len() {
                let came = batch.receive(&socket).unwrap();
                for at in 0..came {
                    let (question, answer) = batch.question(at);
                    answer.clear();
                    answer.extend([question[0] + 100, question[1]]);
                    let client = &clients[usize::from(question[0])];
                    assert_eq!(batch.sender(at), client.local_addr().ok());
                    // One is not answered.
                    if client.local_addr().ok() != clients[2].local_addr().ok() {
                        batch.answered(at);
                    }
                }
                batch.send(&socket, |error| panic!("{error}"));
                seen += came;
            }
            for (number, client) in (0u8..).zip(&clients).filter(|(number, _)| *number != 2) {
                let mut answer = [0; 10];
                let (len, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!((&answer[..len], from), (&[number + 100, number][..], server));
            }
        }
    }
}
