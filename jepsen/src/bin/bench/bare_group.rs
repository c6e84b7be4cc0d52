//! The least that a durable group can do: a leader that answers once a write is on enough disks. Without followers that
//! is its own; of three servers it is any two.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::sync::oneshot;

use crate::bare::{answer, serve};

/// Batches on their way to one follower; a follower that is further behind is left out.
const BEHIND: usize = 1_024;

/// Appends waiting for the log at one time; more wait in their connections.
const LOG_QUEUE: usize = 4_096;

/// With followers a batch of writes is durable on this many disks before it is answered.
const QUORUM: usize = 2;

type Append = (Bytes, oneshot::Sender<()>);

/// Takes writes over HTTP, has its followers write them too, and answers when a majority has them on disk.
pub(crate) fn leader(port: u16, file: &Path, followers: &[SocketAddr]) -> Result<(), Box<dyn Error>> {
    let file = File::options().create(true).append(true).open(file)?;
    let (queue, appends) = mpsc::sync_channel::<Append>(LOG_QUEUE);
    let (on_disk, acknowledged) = mpsc::channel();
    let mut copies = Vec::new();
    for follower in followers {
        let stream = TcpStream::connect(follower)?;
        stream.set_nodelay(true)?;
        let (copy, batches) = mpsc::sync_channel::<Bytes>(BEHIND);
        let mut writer = stream.try_clone()?;
        std::thread::spawn(move || {
            while let Ok(batch) = batches.recv() {
                if writer.write_all(&batch).is_err() {
                    return;
                }
            }
        });
        let on_disk = on_disk.clone();
        std::thread::spawn(move || acknowledgements(stream, &on_disk));
        copies.push(copy);
    }
    std::thread::spawn(move || replicate(file, &appends, &copies, &acknowledged));
    serve(port, move |request: Request<Incoming>| {
        let queue = queue.clone();
        async move {
            let Ok(body) = request.into_body().collect().await else {
                return answer(StatusCode::BAD_REQUEST, Bytes::new());
            };
            let (done, durable) = oneshot::channel();
            if queue.try_send((body.to_bytes(), done)).is_err() || durable.await.is_err() {
                return answer(StatusCode::SERVICE_UNAVAILABLE, Bytes::new());
            }
            answer(StatusCode::OK, Bytes::from_static(b"true"))
        }
    })
}

fn acknowledgements(mut stream: TcpStream, on_disk: &mpsc::Sender<u64>) {
    let mut number = [0; 8];
    while stream.read_exact(&mut number).is_ok() {
        if on_disk.send(u64::from_le_bytes(number)).is_err() {
            return;
        }
    }
}

/// Sends what waits to the followers, syncs it meanwhile, and answers when enough disks have it.
fn replicate(
    mut file: File,
    appends: &mpsc::Receiver<Append>,
    followers: &[mpsc::SyncSender<Bytes>],
    acknowledged: &mpsc::Receiver<u64>,
) {
    let mut number: u64 = 0;
    while let Ok(first) = appends.recv() {
        let mut waiting = vec![first];
        waiting.extend(appends.try_iter());
        number += 1;
        let mut batch = number.to_le_bytes().to_vec();
        batch.extend_from_slice(&[0; 8]);
        for (body, _) in &waiting {
            batch.extend_from_slice(&u64::try_from(body.len()).unwrap_or(u64::MAX).to_le_bytes());
            batch.extend_from_slice(body);
        }
        let length = u64::try_from(batch.len() - 16).unwrap_or(u64::MAX);
        batch[8..16].copy_from_slice(&length.to_le_bytes());
        let batch = Bytes::from(batch);
        for follower in followers {
            // One that is too far behind is left out; the other makes the majority.
            let _ = follower.try_send(batch.clone());
        }
        if let Err(error) = file.write_all(&batch).and_then(|()| file.sync_data()) {
            eprintln!("proconsul-bench: log: {error}");
            return;
        }
        let mut disks = 1;
        let quorum = if followers.is_empty() { 1 } else { QUORUM };
        while disks < quorum {
            match acknowledged.recv() {
                Ok(acknowledged) => disks += usize::from(acknowledged == number),
                Err(_) => return,
            }
        }
        for (_, done) in waiting {
            // A client that went away needs no answer.
            let _ = done.send(());
        }
    }
}

/// Writes every batch of its leader to a file, syncs it and says so.
pub(crate) fn follower(port: u16, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::options().create(true).append(true).open(file)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        match follow(stream, &mut file) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => {}
        }
    }
}

fn follow(mut stream: TcpStream, file: &mut File) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut batch = Vec::new();
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let length = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
        batch.clear();
        batch.extend_from_slice(&head);
        (&mut stream).take(length).read_to_end(&mut batch)?;
        file.write_all(&batch)?;
        file.sync_data()?;
        stream.write_all(&head[..8])?;
    }
}
