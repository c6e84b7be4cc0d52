//! DNS over UDP: a socket for each core, with a thread that does nothing but answer.
//!
//! A thread that waits in the system call that receives costs less per question than a task that is first told that there
//! is something to receive. What somebody else answers is carried by tasks.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::{SendFlags, sendto};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::batch::Batch;
use super::{Answered, ERROR_PAUSE, Responder, Transport};

/// Most sockets on one address; there is one for each core.
const SOCKETS_MAX: usize = 32;
/// What the kernel keeps of questions while nobody reads, in bytes, as far as the system allows it.
const RECEIVE_BUFFER: usize = 1 << 20;
/// So many questions of one socket may wait for somebody else's answer.
const LATER_MAX: usize = 4096;

/// A socket for each core, among which the kernel spreads those who ask (SO_REUSEPORT); one where there is no such thing.
pub(super) fn bind(address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let sockets = if cfg!(target_os = "linux") { cores.min(SOCKETS_MAX) } else { 1 };
    let bind = |_| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        #[cfg(target_os = "linux")]
        socket.set_reuse_port(true)?;
        // A smaller one than asked for does, too.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    (0..sockets).map(bind).collect()
}

/// A socket that is served; dropping it ends that.
pub(super) struct Serving {
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It wakes who waits in a call, though it fails as there is no connection.
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }
}

/// Serves a socket by a thread of its own. Must be called within a runtime.
pub(super) fn serve(socket: UdpSocket, responder: impl Responder) -> io::Result<Serving> {
    let (socket, ended) = (Arc::new(socket), Arc::new(AtomicBool::new(false)));
    let serving = Serving { socket: Arc::clone(&socket), ended: Arc::clone(&ended) };
    let runtime = Handle::current();
    thread::Builder::new()
        .name("proconsul-dns".to_owned())
        .spawn(move || run(&socket, &ended, &runtime, responder))?;
    Ok(serving)
}

fn run(socket: &Arc<UdpSocket>, ended: &AtomicBool, runtime: &Handle, mut responder: impl Responder) {
    let mut batch = Batch::new();
    let free = Arc::new(Semaphore::new(LATER_MAX));
    loop {
        let received = batch.receive(socket);
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let came = match received {
            Ok(came) => came,
            Err(error) => {
                tracing::debug!(%error, "dns: receiving datagrams");
                thread::sleep(ERROR_PAUSE);
                continue;
            }
        };
        for at in 0..came {
            let (packet, out) = batch.question(at);
            match responder.answer(packet, Transport::Udp, out) {
                Answered::Now => batch.answered(at),
                Answered::Never => {}
                Answered::Later(answer) => {
                    let Some(from) = batch.sender(at) else { continue };
                    // Too many questions under way: this one is lost, as datagrams may be.
                    let Ok(place) = Arc::clone(&free).try_acquire_owned() else { continue };
                    let socket = Arc::clone(socket);
                    runtime.spawn(async move {
                        // Nobody may wait here; where there is no room, an answer is lost, as datagrams may be.
                        if let Some(answer) = answer.await
                            && let Err(error) = sendto(&*socket, &answer, SendFlags::DONTWAIT, &from)
                        {
                            tracing::debug!(%error, to = %from, "dns: sending an answer");
                        }
                        drop(place);
                    });
                }
            }
        }
        batch.send(socket, |error| tracing::debug!(%error, "dns: sending an answer"));
    }
}
