//! The load generator: connections that ask, wait for the answer and ask again.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What one turn of load, or several of them, came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Latencies in nanoseconds, in no order.
    pub(crate) latencies: Vec<u64>,
    /// Answers that were missing or not the expected ones.
    pub(crate) errors: u64,
    pub(crate) duration: Duration,
    pub(crate) cpu: Duration,
}

impl Sample {
    pub(crate) fn add(&mut self, other: Sample) {
        self.latencies.extend(other.latencies);
        self.errors += other.errors;
        self.duration += other.duration;
        self.cpu += other.cpu;
    }
}

/// A kept-alive HTTP connection without any comfort.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The unread part of the buffer.
    start: usize,
    end: usize,
}

/// An answer, as far as a load generator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `X-Consul-Index`, or 0.
    pub(crate) index: u64,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; 4_096], start: 0, end: 0 })
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Reads one answer and throws its body away, or keeps it.
    pub(crate) async fn receive(&mut self, mut keep: Option<&mut Vec<u8>>) -> io::Result<Answer> {
        let head = loop {
            if let Some(length) = find(&self.buffer[self.start..self.end], b"\r\n\r\n") {
                break self.start..self.start + length + 4;
            }
            self.fill().await?;
        };
        let (answer, length) = parse_head(&self.buffer[head.clone()]).ok_or_else(|| bad("head"))?;
        self.start = head.end;
        match length {
            Some(length) => self.skip(length, &mut keep).await?,
            None => loop {
                let line = self.line().await?;
                let size =
                    std::str::from_utf8(&line).ok().and_then(|line| usize::from_str_radix(line, 16).ok());
                let size = size.ok_or_else(|| bad("chunk"))?;
                self.skip(size, &mut keep).await?;
                self.skip(2, &mut None).await?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(answer)
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = find(&self.buffer[self.start..self.end], b"\r\n") {
                let line = self.buffer[self.start..self.start + length].to_vec();
                self.start += length + 2;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn skip(&mut self, mut length: usize, keep: &mut Option<&mut Vec<u8>>) -> io::Result<()> {
        loop {
            let here = length.min(self.end - self.start);
            if let Some(keep) = keep {
                keep.extend_from_slice(&self.buffer[self.start..self.start + here]);
            }
            self.start += here;
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Reads more, behind the unread part.
    async fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.end..]).await?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        self.end += read;
        // Large bodies are better read in large pieces.
        if self.end == self.buffer.len() && self.buffer.len() < 65_536 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        Ok(())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed answer: {what}"))
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

/// Status, index, and the length of the body; `None` for a chunked one.
fn parse_head(head: &[u8]) -> Option<(Answer, Option<usize>)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, index: 0 };
    let mut length = Some(0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            length = None;
        } else if name.eq_ignore_ascii_case("x-consul-index") {
            answer.index = value.trim().parse().ok()?;
        }
    }
    Some((answer, length))
}

/// A GET request.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A PUT request.
pub(crate) fn put(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The answer to one request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> io::Result<(Answer, Vec<u8>)> {
    let mut connection = Connection::open(address).await?;
    let mut body = Vec::new();
    connection.send(request).await?;
    let answer = connection.receive(Some(&mut body)).await?;
    Ok((answer, body))
}

/// Keeps every connection busy for a time. `vary` may change a request before it is sent, without changing its length.
pub(crate) async fn http(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    duration: Duration,
    vary: fn(&mut [u8], u64),
) -> io::Result<Sample> {
    let mut connections = Vec::new();
    for request in requests {
        connections.push((Connection::open(address).await?, request));
    }
    let started = Instant::now();
    let end = started + duration;
    let mut tasks = JoinSet::new();
    for (mut connection, mut request) in connections {
        tasks.spawn(async move {
            let mut sample = Sample::default();
            let mut now = Instant::now();
            while now < end {
                vary(&mut request, sample.latencies.len() as u64);
                connection.send(&request).await?;
                let answer = connection.receive(None).await?;
                let done = Instant::now();
                sample.latencies.push(nanos(done - now));
                sample.errors += u64::from(answer.status != 200);
                now = done;
            }
            Ok::<_, io::Error>(sample)
        });
    }
    collect(tasks, started).await
}

/// Types of DNS records.
pub(crate) const A: u8 = 1;
pub(crate) const SRV: u8 = 33;

/// A question, recursion desired (RFC 1035, section 4.1); with a size it takes answers of so many bytes (RFC 6891).
pub(crate) fn dns_question(labels: &[&str], kind: u8, size: Option<u16>) -> Vec<u8> {
    let mut question = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())];
    for label in labels {
        question.push(u8::try_from(label.len()).expect("labels are short"));
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, kind, 0, 1]);
    if let Some(size) = size {
        let [high, low] = size.to_be_bytes();
        question.extend_from_slice(&[0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
    }
    question
}

/// The answer to one DNS question.
pub(crate) async fn ask_dns(address: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(address).await?;
    socket.send(question).await?;
    let mut answer = vec![0; DNS_ANSWER_MAX];
    let length = tokio::time::timeout(DNS_TIMEOUT, socket.recv(&mut answer)).await??;
    answer.truncate(length);
    Ok(answer)
}

/// Longer answers are cut.
const DNS_ANSWER_MAX: usize = 8_192;
/// How long a DNS client waits before it asks again.
const DNS_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps sockets busy with one DNS question for a time.
pub(crate) async fn dns(
    address: SocketAddr,
    question: &[u8],
    sockets: u32,
    duration: Duration,
) -> io::Result<Sample> {
    let mut clients = Vec::new();
    for _ in 0..sockets {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
        socket.connect(address).await?;
        clients.push(socket);
    }
    let started = Instant::now();
    let end = started + duration;
    let mut tasks = JoinSet::new();
    for socket in clients {
        let mut question = question.to_vec();
        tasks.spawn(async move {
            let mut sample = Sample::default();
            let mut answer = [0; DNS_ANSWER_MAX];
            let mut id = 0u16;
            while Instant::now() < end {
                id = id.wrapping_add(1);
                question[..2].copy_from_slice(&id.to_be_bytes());
                let asked = Instant::now();
                socket.send(&question).await?;
                match tokio::time::timeout(DNS_TIMEOUT, socket.recv(&mut answer)).await {
                    Ok(length) => {
                        let answer = &answer[..length?];
                        sample.latencies.push(nanos(asked.elapsed()));
                        // The identity, no error, and an answer.
                        let good = answer.len() > 12
                            && answer[..2] == question[..2]
                            && answer[3] & 0x0f == 0
                            && answer[6..8] != [0, 0];
                        sample.errors += u64::from(!good);
                    }
                    Err(_) => sample.errors += 1,
                }
            }
            Ok::<_, io::Error>(sample)
        });
    }
    collect(tasks, started).await
}

async fn collect(mut tasks: JoinSet<io::Result<Sample>>, started: Instant) -> io::Result<Sample> {
    let mut sum = Sample::default();
    while let Some(sample) = tasks.join_next().await {
        sum.add(sample.map_err(io::Error::other)??);
    }
    sum.duration = started.elapsed();
    Ok(sum)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_labels() {
        assert_eq!(&dns_question(&["a", "bc"], A, None)[12..], b"\x01a\x02bc\0\0\x01\0\x01");
    }

    async fn served(answers: &'static [&'static [u8]]) -> Connection {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for piece in answers {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        Connection::open(address).await.unwrap()
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        let mut connection = served(&[
            b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Le",
            b"ngth: 3\r\n\r\nab",
            b"cHTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n4\r\nde",
            b"fg\r\n10\r\n0123456789abcdef\r\n0\r\n\r\nHTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        let mut body = Vec::new();
        assert_eq!(connection.receive(Some(&mut body)).await.unwrap(), Answer { status: 200, index: 7 });
        assert_eq!(body, b"abc");
        body.clear();
        assert_eq!(connection.receive(Some(&mut body)).await.unwrap(), Answer { status: 404, index: 0 });
        assert_eq!(body, b"defg0123456789abcdef");
        assert_eq!(connection.receive(None).await.unwrap().status, 500);
        assert!(connection.receive(None).await.is_err());
    }

    #[tokio::test]
    async fn a_large_body_is_read_whole() {
        static BODY: [u8; 300_000] = [b'x'; 300_000];
        static ANSWER: [&[u8]; 2] = [b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n", &BODY];
        let mut connection = served(&ANSWER).await;
        let mut body = Vec::new();
        connection.receive(Some(&mut body)).await.unwrap();
        assert_eq!(body.len(), BODY.len());
    }
}
