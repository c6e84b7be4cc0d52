//! A resolver that answers from a table.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::message::{kind_name, kind_number, put_name, question_of};

/// What it says over UDP.
const DATAGRAM: usize = 512;
/// A socket is looked at so often whether the resolver is still wanted.
const IDLE: Duration = Duration::from_millis(200);

/// Answers until the process ends: its threads wait for questions, and cost nothing.
pub struct Recursor {
    pub address: SocketAddr,
}

type Table = BTreeMap<String, Value>;

impl Recursor {
    pub fn start(table: &Value) -> io::Result<Recursor> {
        let table: Table = table.as_object().expect("a table").clone().into_iter().collect();
        let (udp, tcp) = bind()?;
        let address = tcp.local_addr()?;
        let of_udp = table.clone();
        thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut packet) {
                if let Some(answer) = reply(&of_udp, &packet[..length], DATAGRAM) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut serve = || -> io::Result<()> {
                    stream.set_read_timeout(Some(IDLE * 10))?;
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut packet = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut packet)?;
                    if let Some(answer) = reply(&table, &packet, 65_535) {
                        let length = u16::try_from(answer.len()).expect("a message's length");
                        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
                    }
                    Ok(())
                };
                let _ = serve();
            }
        });
        Ok(Recursor { address })
    }
}

/// A UDP and a TCP socket on the same port.
fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    for _ in 0..16 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr()?) {
            return Ok((udp, tcp));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn reply(table: &Table, packet: &[u8], limit: usize) -> Option<Vec<u8>> {
    let (name, kind, end) = question_of(packet)?;
    let name = name.to_ascii_lowercase();
    let found =
        table.get(&format!("{name} {}", kind_name(kind))).or_else(|| table.get(&format!("{name} ANY")));
    let is_known = table.keys().any(|key| key.split(' ').next() == Some(&name));
    let nothing = if is_known { Value::Array(Vec::new()) } else { "NXDOMAIN".into() };
    let (code, records) = match found.unwrap_or(&nothing) {
        Value::String(word) => match word.as_str() {
            "NXDOMAIN" => (3, Vec::new()),
            "SERVFAIL" => (2, Vec::new()),
            "REFUSED" => (5, Vec::new()),
            _ => return None,
        },
        records => (0, records.as_array().expect("a list of records").clone()),
    };
    let (mut body, mut count, mut flags) = (Vec::new(), 0u16, 0x8180 | code);
    for record in &records {
        let start = body.len();
        put_record(record.as_str().expect("a record"), &mut body);
        if packet.len() + body.len() > limit {
            body.truncate(start);
            flags |= 0x0200;
            break;
        }
        count += 1;
    }
    let mut out = packet[..2].to_vec();
    for word in [flags, 1, count, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&packet[12..end]);
    out.extend(body);
    Some(out)
}

/// `owner ttl TYPE value`
fn put_record(text: &str, out: &mut Vec<u8>) {
    let mut words = text.splitn(4, ' ');
    let mut word = || words.next().expect("owner, ttl, type, value");
    let (owner, ttl, kind, value) = (word(), word(), word(), word());
    let mut data = Vec::new();
    match kind {
        "A" | "AAAA" => match value.parse().expect("an address") {
            IpAddr::V4(address) => data.extend(address.octets()),
            IpAddr::V6(address) => data.extend(address.octets()),
        },
        "CNAME" | "NS" | "PTR" => put_name(value, &mut data),
        "TXT" => {
            data.push(u8::try_from(value.len()).expect("a short text"));
            data.extend(value.bytes());
        }
        other => panic!("records of type {other} are not in the tables"),
    }
    put_name(owner, out);
    for word in [kind_number(kind), 1] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&ttl.parse::<u32>().expect("seconds").to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).expect("short data").to_be_bytes());
    out.extend(data);
}
