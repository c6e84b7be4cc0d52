//! Keys: drawing them, and their written forms.
//!
//! The library below knows PKCS #8 (RFC 5958) only; files mostly hold RFC 5915 (elliptic curves) or PKCS #1 (RSA, RFC
//! 8017), which are its inner parts.

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::pem::{self, Block};

/// Label of keys on elliptic curves.
const EC: &str = "EC PRIVATE KEY";

/// Object identifiers with their tag and length: id-ecPublicKey and prime256v1 (RFC 5480), rsaEncryption (RFC 8017).
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const INTEGER_ZERO: &[u8] = &[0x02, 0x01, 0x00];
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// The curve within a key.
const PARAMETERS: u8 = 0xa0;

/// A key, and the text of its file.
pub struct Drawn {
    /// The key.
    pub key: KeyPair,
    /// `EC PRIVATE KEY`, in PEM.
    pub pem: String,
}

/// Draws a key on P-256.
///
/// # Errors
/// The system has no random numbers.
pub fn draw() -> Result<Drawn, String> {
    let key = KeyPair::generate().map_err(|error| format!("cannot draw a key: {error}"))?;
    let inner = inner_key(key.serialized_der()).expect("the key was written by the library in PKCS #8");
    let pem = pem::encode(EC, &with_curve(&inner, P256));
    Ok(Drawn { key, pem })
}

/// Reads the key of a file.
///
/// # Errors
/// The text says what the file holds instead, or that it is damaged.
pub fn read(text: &str) -> Result<KeyPair, String> {
    // OpenSSL writes the curve in a block of its own before the key.
    let block = pem::decode(text).into_iter().find(|block| block.label != "EC PARAMETERS");
    let Some(Block { label, der }) = block else {
        return Err("no PEM-encoded data found".to_owned());
    };
    let pkcs8 = match label.as_str() {
        "PRIVATE KEY" => der,
        EC => ec_to_pkcs8(&der).ok_or("the key is damaged, or on another curve than P-256 and P-384")?,
        "RSA PRIVATE KEY" => {
            tlv(SEQUENCE, &[INTEGER_ZERO, &tlv(SEQUENCE, &[RSA]), &tlv(OCTET_STRING, &[&der])])
        }
        "ENCRYPTED PRIVATE KEY" => return Err("the key is encrypted: decrypt it first".to_owned()),
        other => return Err(format!("unknown PEM block type for signing key: {other}")),
    };
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8))
        .map_err(|error| format!("the key cannot be used: {error}"))
}

/// The public half, as it stands in a certificate.
#[must_use]
pub fn public(key: &KeyPair) -> Vec<u8> {
    key.der_bytes().to_vec()
}

/// An element in DER.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(parts.iter().flat_map(|part| part.iter()));
    out
}

/// Takes one element off: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// The elements of a sequence.
fn elements(mut der: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut list = Vec::new();
    while !der.is_empty() {
        let (tag, content, rest) = element(der)?;
        list.push((tag, content));
        der = rest;
    }
    Some(list)
}

/// The content of the key in PKCS #8.
fn inner_key(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let (_, outer, _) = element(pkcs8)?;
    let (_, key) = *elements(outer)?.get(2)?;
    Some(key.to_vec())
}

/// A key of RFC 5915 with its curve, whether it had that already or not.
fn with_curve(key: &[u8], curve: &[u8]) -> Vec<u8> {
    let (_, content, _) = element(key).expect("the key is a sequence");
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for (at, (tag, content)) in elements(content).expect("the key is well formed").into_iter().enumerate() {
        if at == 2 && tag != PARAMETERS {
            parts.push(tlv(PARAMETERS, &[curve]));
        }
        parts.push(tlv(tag, &[content]));
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    tlv(SEQUENCE, &parts)
}

/// A key of RFC 5915 in PKCS #8.
fn ec_to_pkcs8(der: &[u8]) -> Option<Vec<u8>> {
    let (_, content, _) = element(der)?;
    let parts = elements(content)?;
    let curve = match parts.iter().find(|(tag, _)| *tag == PARAMETERS) {
        Some((_, curve)) => *curve,
        None if parts.get(1)?.1.len() == 48 => P384,
        None => P256,
    };
    if curve != P256 && curve != P384 {
        return None;
    }
    let algorithm = tlv(SEQUENCE, &[EC_PUBLIC_KEY, curve]);
    Some(tlv(SEQUENCE, &[INTEGER_ZERO, &algorithm, &tlv(OCTET_STRING, &[der])]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let drawn = draw().expect("random numbers");
        assert!(drawn.pem.starts_with("-----BEGIN EC PRIVATE KEY-----\n"), "{}", drawn.pem);
        let der = &pem::decode(&drawn.pem)[0].der;
        // RFC 5915: version, 32 bytes of key, the curve, 65 bytes of public key with their frame.
        assert_eq!(der.len(), 2 + 3 + 34 + 12 + 70);
        let read = read(&drawn.pem).expect("read");
        assert_eq!(public(&read), public(&drawn.key));
        let with_parameters = format!("{}{}", pem::encode("EC PARAMETERS", P256), drawn.pem);
        assert_eq!(public(&super::read(&with_parameters).expect("read")), public(&drawn.key));
        let pkcs8 = pem::encode("PRIVATE KEY", drawn.key.serialized_der());
        assert_eq!(public(&super::read(&pkcs8).expect("read")), public(&drawn.key));
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        for (text, why) in [
            (String::new(), "no PEM-encoded data found"),
            (pem::encode(pem::CERTIFICATE, b"x"), "unknown PEM block type for signing key: CERTIFICATE"),
            (pem::encode("ENCRYPTED PRIVATE KEY", b"x"), "decrypt it first"),
            (pem::encode("EC PRIVATE KEY", b"x"), "damaged"),
            (pem::encode("EC PRIVATE KEY", &[0x30, 0x82, 0xff]), "damaged"),
            (pem::encode("PRIVATE KEY", b"x"), "cannot be used"),
            (pem::encode("RSA PRIVATE KEY", &[5; 300]), "cannot be used"),
        ] {
            let error = read(&text).map(|_| ()).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
