//! PEM, the text form of certificates and keys (RFC 7468).

use pem::{EncodeConfig, LineEnding, Pem};

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
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// All blocks of a text, in order. What stands outside of blocks is ignored; in a torn text there is nothing.
#[must_use]
pub fn decode(text: &str) -> Vec<Block> {
    let blocks = pem::parse_many(text).unwrap_or_default();
    blocks
        .into_iter()
        .map(|block| Block { label: block.tag().to_owned(), der: block.into_contents() })
        .collect()
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
