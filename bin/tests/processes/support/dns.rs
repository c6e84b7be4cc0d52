//! The little of DNS that it takes to ask for SRV records (RFC 1035, RFC 2782).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const SRV: u16 = 33;
const INTERNET: u16 = 1;

/// Response code and the ports of the SRV records in the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Services {
    pub code: u8,
    pub ports: Vec<u16>,
}

/// Asks the DNS server at this address.
pub fn services(server: SocketAddr, name: &str) -> Result<Services, String> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a short label"));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(SRV.to_be_bytes());
    query.extend(INTERNET.to_be_bytes());
    let exchange = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect(server)?;
        socket.send(&query)?;
        let mut answer = vec![0; 2048];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    let answer = exchange().map_err(|error| error.to_string())?;
    assert_eq!(answer[0..2], query[0..2], "the answer to another question");
    let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let mut at = query.len();
    let mut ports = Vec::new();
    for _ in 0..number(6) {
        while answer[at] != 0 && answer[at] < 0xc0 {
            at += usize::from(answer[at]) + 1;
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        let (kind, length) = (number(at), number(at + 8));
        if kind == SRV {
            // Behind priority and weight.
            ports.push(number(at + 14));
        }
        at += 10 + usize::from(length);
    }
    Ok(Services { code: answer[3] & 15, ports })
}
