//! Byte streams between hosts: what TCP looks like to the two processes.
//!
//! A stream is a pair of in-memory pipes with a pump for each direction, which runs on the network and not on either
//! host. Bytes take their time, stall while the link is cut, arrive in other pieces than they were sent in; a reader
//! that does not read holds back its writer; a process that ends closes its streams, a machine that loses power does
//! not.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::net::{Fabric, HostId};
use crate::time::sim_sleep;

/// So many bytes are under way in each of the two pipes of a direction before the writer has to wait.
const PIPE_BYTES: usize = 64 << 10;

/// Where a process takes connections from.
#[derive(Debug)]
pub struct Listener(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener {
    /// The next connection. Cancel-safe; waits for ever once the process is dead.
    pub async fn accept(&mut self) -> DuplexStream {
        match self.0.recv().await {
            Some(stream) => stream,
            None => std::future::pending().await,
        }
    }
}

/// Which process an end of a stream belongs to.
#[derive(Clone, Copy)]
struct End {
    host: HostId,
    power_losses: u64,
}

impl Fabric {
    /// Takes connections for the process that runs on `host`.
    #[must_use]
    pub fn listen(&self, host: HostId) -> Listener {
        let (accept, queue) = mpsc::unbounded_channel();
        self.lock().host_mut(host).accept = Some(accept);
        Listener(queue)
    }

    /// Connects to the process on another host. Waits as long as the link is cut or the machine without power.
    ///
    /// # Errors
    /// The machine is up, but nothing listens.
    pub async fn connect(&self, from: HostId, to: HostId) -> io::Result<DuplexStream> {
        self.cross(from, to, 60).await;
        self.wait_until(|state| state.host(to).powered).await;
        let (near, near_end) = tokio::io::duplex(PIPE_BYTES);
        let (far, far_end) = tokio::io::duplex(PIPE_BYTES);
        let (ends, accepted) = {
            let state = self.lock();
            let end = |host: HostId| End { host, power_losses: state.host(host).power_losses };
            let accepted = state.host(to).accept.as_ref().is_some_and(|accept| accept.send(far).is_ok());
            ((end(from), end(to)), accepted)
        };
        if accepted {
            let (near_read, near_write) = tokio::io::split(near_end);
            let (far_read, far_write) = tokio::io::split(far_end);
            self.spawn(self.clone().pump(near_read, far_write, ends.0, ends.1));
            self.spawn(self.clone().pump(far_read, near_write, ends.1, ends.0));
        }
        self.cross(to, from, 60).await;
        if accepted { Ok(near) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    /// Takes as long as so many bytes need from one host to another.
    pub(crate) async fn cross(&self, from: HostId, to: HostId, len: usize) {
        self.wait_until(|state| !state.is_cut(from, to)).await;
        let latency = self.lock().connected_latency(from, to, len);
        sim_sleep(latency).await;
        // The link may have been cut while the packet was on its way: then it is sent again.
        self.wait_until(|state| !state.is_cut(from, to)).await;
    }

    fn is_silent(&self, end: End) -> bool {
        self.lock().host(end.host).power_losses != end.power_losses
    }

    /// Carries one direction of a stream until an end closes it.
    async fn pump(
        self,
        mut reader: ReadHalf<DuplexStream>,
        mut writer: WriteHalf<DuplexStream>,
        from: End,
        to: End,
    ) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let len = reader.read(&mut buffer).await.unwrap_or(0);
            if len == 0 && self.is_silent(from) {
                // A machine without power closes nothing. When it is back, it answers with a reset.
                self.wait_until(|state| state.host(from.host).powered).await;
                sim_sleep(Duration::from_millis(200)).await;
            }
            self.cross(from.host, to.host, len).await;
            if len == 0 {
                // The reader may be gone by itself.
                let _ = writer.shutdown().await;
                return;
            }
            self.trace().record("stream", to.host, &buffer[..len]);
            let cut_at = 1 + usize::try_from(self.lock().rng.below(len as u64)).expect("a slice length");
            let (first, second) = buffer[..len].split_at(cut_at);
            if writer.write_all(first).await.is_err() || writer.write_all(second).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proconsul_core::rng::Rng;

    use super::*;
    use crate::clock::{ClockError, SimClock};
    use crate::host::Host;
    use crate::net::{Death, LinkQuality};
    use crate::testing::in_sim;
    use crate::time::sim_now;
    use crate::trace::Trace;

    const CLIENT: HostId = HostId(9);
    const SERVER: HostId = HostId(1);

    /// A host whose process echoes whatever comes, and a client host.
    fn world() -> (Fabric, Host) {
        let fabric = Fabric::new(Rng::from_seed(5), LinkQuality::default(), false, Trace::default());
        fabric.add_host(CLIENT, None);
        let mut host = Host::new(SERVER, "echo", None, SimClock::new(ClockError::default()), fabric.clone());
        start(&mut host, &fabric);
        (fabric, host)
    }

    fn start(host: &mut Host, fabric: &Fabric) {
        let fabric = fabric.clone();
        host.start(|_| async move {
            let mut listener = fabric.listen(SERVER);
            loop {
                let stream = listener.accept().await;
                drop(madsim::task::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                }));
            }
        });
    }

    async fn settled() {
        sim_sleep(Duration::from_millis(50)).await;
    }

    #[test]
    fn bytes_come_back_after_a_round_trip_and_half_close_ends_them() {
        in_sim(3, || async {
            let (fabric, _host) = world();
            settled().await;
            let mut stream = fabric.connect(CLIENT, SERVER).await.unwrap();
            let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let (_, read) = futures_util::future::join(write, reader.read_to_end(&mut got)).await;
            read.unwrap();
            assert_eq!(got, sent);
        });
    }

    #[test]
    fn a_cut_link_stalls_a_stream_and_a_mended_one_goes_on() {
        in_sim(3, || async {
            let (fabric, _host) = world();
            settled().await;
            let mut stream = fabric.connect(CLIENT, SERVER).await.unwrap();
            fabric.cut(SERVER, CLIENT);
            stream.write_all(b"hello").await.unwrap();
            let began = sim_now();
            let mender = fabric.clone();
            drop(madsim::task::spawn(async move {
                sim_sleep(Duration::from_secs(7)).await;
                mender.mend(SERVER, CLIENT);
            }));
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert!(sim_now() - began >= 7_000_000_000);
        });
    }

    #[test]
    fn a_killed_process_closes_its_streams_and_refuses_new_ones() {
        in_sim(3, || async {
            let (fabric, mut host) = world();
            settled().await;
            let mut stream = fabric.connect(CLIENT, SERVER).await.unwrap();
            host.kill(Death::Process);
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
            let refused = fabric.connect(CLIENT, SERVER).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            start(&mut host, &fabric);
            settled().await;
            fabric.connect(CLIENT, SERVER).await.unwrap();
        });
    }

    #[test]
    fn a_machine_without_power_is_silent_until_it_is_back() {
        in_sim(3, || async {
            let (fabric, mut host) = world();
            settled().await;
            let mut stream = fabric.connect(CLIENT, SERVER).await.unwrap();
            host.kill(Death::Power);
            let mut buffer = [0; 9];
            tokio::select! {
                biased;
                read = stream.read(&mut buffer) => panic!("a dead machine said something: {read:?}"),
                connected = fabric.connect(CLIENT, SERVER) => panic!("connected to a dead machine: {connected:?}"),
                () = sim_sleep(Duration::from_secs(60)) => {}
            }
            start(&mut host, &fabric);
            assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
        });
    }
}
