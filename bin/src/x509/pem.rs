//! PEM, the text form of certificates and keys (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Label of certificates.
pub const CERTIFICATE: &str = "CERTIFICATE";

/// One block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it holds, as its first line says.
    pub label: String,
    /// Its content, in DER.
    pub der: Vec<u8>,
}

/// The text of a block, with lines of 64 characters.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// All blocks of a text, in order. What stands outside of blocks is ignored, as are blocks that are torn.
#[must_use]
pub fn decode(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines().map(str::trim) {
        let label = |before: &str| line.strip_prefix(before)?.strip_suffix("-----");
        if let Some(label) = label("-----BEGIN ") {
            open = Some((label, String::new()));
        } else if let Some(end) = label("-----END ") {
            if let Some((label, base64)) = open.take().filter(|(begin, _)| *begin == end)
                && let Ok(der) = STANDARD.decode(base64)
            {
                blocks.push(Block { label: label.to_owned(), der });
            }
        } else if let Some((_, base64)) = &mut open
            && !line.contains(':')
        {
            base64.push_str(line);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_among_other_text() {
        let (one, two) = (vec![1; 100], vec![2; 48]);
        let text = format!("noise\n{}\nmore\n{}", encode(CERTIFICATE, &one), encode("EC PRIVATE KEY", &two));
        assert!(text.lines().all(|line| line.len() <= 64));
        let found = decode(&text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), &found[0].der), (CERTIFICATE, &one));
        assert_eq!((found[1].label.as_str(), &found[1].der), ("EC PRIVATE KEY", &two));
    }

    #[test]
    fn torn_blocks_are_no_blocks() {
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END X-----\n",
            "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n",
            "-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(decode(text), [], "{text:?}");
        }
    }
}
