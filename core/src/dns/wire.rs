//! Names as they are written in packets (RFC 1035, section 3.1).

use std::net::IpAddr;

/// Writes the labels of a dotted text, without an end. `None` if one of them is empty or too long.
pub(super) fn labels(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut length_at = out.len();
    out.push(0);
    out.extend_from_slice(text.as_bytes());
    // Where the dots are, lengths have to be.
    for at in length_at + 1..=out.len() {
        if out.get(at).is_none_or(|byte| *byte == b'.') {
            let length = at - length_at - 1;
            if !(1..=63).contains(&length) {
                return None;
            }
            out[length_at] = length as u8;
            length_at = at;
        }
    }
    Some(())
}

/// Writes the label that spells an address.
pub(super) fn hex(address: IpAddr, out: &mut Vec<u8>) {
    let mut spell = |bytes: &[u8]| {
        out.push(bytes.len() as u8 * 2);
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                out.push(b"0123456789abcdef"[usize::from(digit)]);
            }
        }
    };
    match address {
        IpAddr::V4(address) => spell(&address.octets()),
        IpAddr::V6(address) => spell(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_with_lengths_in_front() {
        let mut out = b"x".to_vec();
        labels("n1.rack", &mut out).expect("a name");
        hex([10, 0, 255, 1].into(), &mut out);
        assert_eq!(out, b"x\x02n1\x04rack\x080a00ff01");
        for bad in ["", ".", "a..b", "a.", &"a".repeat(64)] {
            assert_eq!(labels(bad, &mut Vec::new()), None, "{bad}");
        }
    }
}
