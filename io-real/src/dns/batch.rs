//! Datagrams, several with one system call where the system has such calls (Linux: recvmmsg(2), sendmmsg(2)).

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::QUESTION_MAX;

/// Most datagrams of one call.
const MOST: usize = if cfg!(target_os = "linux") { 16 } else { 1 };

/// Questions that came together, and the answers that leave together.
pub(super) struct Batch {
    /// Room for the questions, side by side.
    packets: Box<[u8]>,
    /// The length of each, and who has sent it.
    heard: Vec<(usize, Option<SocketAddr>)>,
    answers: [Vec<u8>; MOST],
    /// Whom the first of the answers are for.
    to: Vec<SocketAddr>,
    #[cfg(target_os = "linux")]
    headers: linux::Headers,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            packets: vec![0; QUESTION_MAX * MOST].into(),
            heard: Vec::with_capacity(MOST),
            answers: std::array::from_fn(|_| Vec::with_capacity(1024)),
            to: Vec::with_capacity(MOST),
            #[cfg(target_os = "linux")]
            headers: linux::Headers::new(),
        }
    }

    /// Waits for a question, and takes those that have come with it; how many they are.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.heard.clear();
        #[cfg(target_os = "linux")]
        self.headers.receive(socket, &mut self.packets, &mut self.heard)?;
        #[cfg(not(target_os = "linux"))]
        self.heard.push(socket.recv_from(&mut self.packets).map(|(length, from)| (length, Some(from)))?);
        Ok(self.heard.len())
    }

    /// A question, and the place for its answer, which [`Batch::answered`] keeps.
    pub(super) fn question(&mut self, at: usize) -> (&[u8], &mut Vec<u8>) {
        let question = &self.packets[at * QUESTION_MAX..][..self.heard[at].0];
        (question, &mut self.answers[self.to.len()])
    }

    /// Who has sent a question.
    pub(super) fn sender(&self, at: usize) -> Option<SocketAddr> {
        self.heard[at].1
    }

    /// The answer to this question is to be sent.
    pub(super) fn answered(&mut self, at: usize) {
        self.to.extend(self.heard[at].1);
    }

    /// Sends the answers. One that cannot be sent is lost, as datagrams may be; `failed` hears why.
    pub(super) fn send(&mut self, socket: &UdpSocket, mut failed: impl FnMut(io::Error)) {
        let mut at = 0;
        while at < self.to.len() {
            #[cfg(target_os = "linux")]
            let sent = self.headers.send(socket, &self.answers[at..], &self.to[at..]);
            #[cfg(not(target_os = "linux"))]
            let sent = socket.send_to(&self.answers[at], self.to[at]).map(|_| 1);
            at += sent.unwrap_or_else(|error| {
                failed(error);
                1
            });
        }
        self.to.clear();
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSlice, IoSliceMut};
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

    use super::{MOST, QUESTION_MAX};

    /// What the calls need beside the bytes.
    pub(super) struct Headers {
        incoming: MultiHeaders<SockaddrStorage>,
        outgoing: MultiHeaders<SockaddrStorage>,
    }

    impl Headers {
        pub(super) fn new() -> Headers {
            let headers = || MultiHeaders::preallocate(MOST, None);
            Headers { incoming: headers(), outgoing: headers() }
        }

        /// Waits for one datagram, and takes those that are there already.
        pub(super) fn receive(
            &mut self,
            socket: &UdpSocket,
            packets: &mut [u8],
            heard: &mut Vec<(usize, Option<SocketAddr>)>,
        ) -> io::Result<()> {
            let mut rooms = packets.chunks_exact_mut(QUESTION_MAX);
            let mut rooms: [[IoSliceMut<'_>; 1]; MOST] =
                std::array::from_fn(|_| [IoSliceMut::new(rooms.next().expect("there is room for as many"))]);
            let flags = MsgFlags::MSG_WAITFORONE;
            let received = recvmmsg(socket.as_raw_fd(), &mut self.incoming, rooms.iter_mut(), flags, None)?;
            heard.extend(received.map(|one| (one.bytes, one.address.as_ref().and_then(address))));
            Ok(())
        }

        /// Sends the first of the answers to those whom they are for; says how many, which is one at least.
        pub(super) fn send(
            &mut self,
            socket: &UdpSocket,
            answers: &[Vec<u8>],
            to: &[SocketAddr],
        ) -> io::Result<usize> {
            let answers: [[IoSlice<'_>; 1]; MOST] =
                std::array::from_fn(|at| [IoSlice::new(answers.get(at).map_or(&[], Vec::as_slice))]);
            let peers: [Option<SockaddrStorage>; MOST] =
                std::array::from_fn(|at| to.get(at).map(|to| SockaddrStorage::from(*to)));
            let (fd, flags, count) = (socket.as_raw_fd(), MsgFlags::empty(), to.len());
            let sent = sendmmsg(fd, &mut self.outgoing, &answers[..count], &peers[..count], [], flags)?;
            Ok(sent.count())
        }
    }

    fn address(peer: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = || peer.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
        v4().or_else(|| peer.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
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
