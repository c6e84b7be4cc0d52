//! Keys that seal gossip: AES-GCM with a ring of keys, of which the first seals and every one opens.
//!
//! A sealed packet is a version byte, a random nonce of 12 bytes, the ciphertext and a tag of 16 bytes (the layout
//! that Consul documents under «Gossip encryption»).

use core::fmt;
use std::collections::BTreeMap;

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInPlace as _, KeyInit as _};
use aes_gcm::aes::Aes192;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Text;
use crate::rng::Rng;

/// The first byte of every sealed packet; a different layout would have a different one.
const VERSION: u8 = 1;
/// Bytes of a nonce.
const NONCE: usize = 12;
/// Bytes of a tag.
const TAG: usize = 16;
/// By how many bytes a sealed packet is longer than what it contains.
pub const SEAL_BYTES: usize = 1 + NONCE + TAG;

/// As keys are written: standard alphabet, padded. Bits that padding makes meaningless are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A key of 16, 24 or 32 bytes (AES-128, AES-192, AES-256).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Key(Bytes);

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadKey {
    /// It is not base64; the offset of the first byte that cannot be understood.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    /// It is not 16, 24 or 32 bytes long.
    #[error("key size must be 16, 24 or 32 bytes")]
    Size,
}

impl Key {
    /// A key of these bytes; `None` unless there are 16, 24 or 32 of them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Key> {
        matches!(bytes.len(), 16 | 24 | 32).then(|| Key(Bytes::copy_from_slice(bytes)))
    }

    /// Reads a key as people write it: padded base64; line breaks within are skipped.
    pub fn from_base64(text: &str) -> Result<Key, BadKey> {
        let joined: String;
        let text = if text.contains(['\r', '\n']) {
            joined = text.replace(['\r', '\n'], "");
            joined.as_str()
        } else {
            text
        };
        let bytes = BASE64.decode(text).map_err(|error| {
            BadKey::Base64(match error {
                base64::DecodeError::InvalidByte(offset, _)
                | base64::DecodeError::InvalidLastSymbol(offset, _) => offset,
                // The group of four that was not completed is what cannot be understood.
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    text.trim_end_matches('=').len() / 4 * 4
                }
            })
        })?;
        Key::try_from(Bytes::from(bytes))
    }

    /// The key as people write it.
    #[must_use]
    pub fn to_base64(&self) -> Text {
        STANDARD.encode(&self.0).into()
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whatever comes from outside is checked, so that a ring never has to refuse a key for its size.
impl TryFrom<Bytes> for Key {
    type Error = BadKey;

    fn try_from(bytes: Bytes) -> Result<Key, BadKey> {
        if matches!(bytes.len(), 16 | 24 | 32) { Ok(Key(bytes)) } else { Err(BadKey::Size) }
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Bytes {
        key.0
    }
}

/// Never shows the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// Why a ring does not change. The texts are those that Consul's operators know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyRefused {
    /// There is no ring to change: gossip is not sealed.
    #[error("No keyring to modify (encryption not enabled)")]
    NotEnabled,
    /// There is no ring to list.
    #[error("Keyring is empty (encryption not enabled)")]
    Empty,
    /// The key to seal with is not installed.
    #[error("Requested key is not in the keyring")]
    NotInstalled,
    /// The key that seals must not be removed.
    #[error("Removing the primary key is not allowed")]
    Primary,
}

/// Why a packet cannot be opened. The ring is unchanged; nothing of the packet may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadSeal {
    /// It is shorter than the shortest sealed packet.
    #[error("sealed packet is too short")]
    Short,
    /// It has another version, or is not sealed at all.
    #[error("sealed packet has unknown version {0}")]
    Version(u8),
    /// None of the keys opens it: it was sealed with another, or has been changed.
    #[error("no installed key opens the packet")]
    NoKey,
}

/// An expanded key: the schedule of rounds is computed when a key is installed, not for each packet.
#[derive(Clone)]
enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
}

impl Cipher {
    fn new(key: &Key) -> Cipher {
        const CHECKED: &str = "a key has the length that was just looked at";
        match key.0.len() {
            16 => Cipher::Aes128(Box::new(Aes128Gcm::new_from_slice(&key.0).expect(CHECKED))),
            24 => Cipher::Aes192(Box::new(AesGcm::new_from_slice(&key.0).expect(CHECKED))),
            32 => Cipher::Aes256(Box::new(Aes256Gcm::new_from_slice(&key.0).expect(CHECKED))),
            length => unreachable!("a key of {length} bytes cannot be made"),
        }
    }

    /// Encrypts in place and gives the tag.
    fn seal(&self, nonce: &[u8; NONCE], associated: &[u8], text: &mut [u8]) -> Tag {
        let nonce = Nonce::from_slice(nonce);
        match self {
            Cipher::Aes128(cipher) => cipher.encrypt_in_place_detached(nonce, associated, text),
            Cipher::Aes192(cipher) => cipher.encrypt_in_place_detached(nonce, associated, text),
            Cipher::Aes256(cipher) => cipher.encrypt_in_place_detached(nonce, associated, text),
        }
        .expect("AES-GCM seals up to 64 GiB, and a packet is in memory")
    }

    /// Decrypts in place if the tag is right.
    fn open(&self, nonce: &[u8], associated: &[u8], text: &mut [u8], tag: &[u8]) -> bool {
        let (nonce, tag) = (Nonce::from_slice(nonce), Tag::from_slice(tag));
        match self {
            Cipher::Aes128(cipher) => cipher.decrypt_in_place_detached(nonce, associated, text, tag),
            Cipher::Aes192(cipher) => cipher.decrypt_in_place_detached(nonce, associated, text, tag),
            Cipher::Aes256(cipher) => cipher.decrypt_in_place_detached(nonce, associated, text, tag),
        }
        .is_ok()
    }
}

/// The keys of one pool. The first seals, every one opens, so that keys can be changed without a moment in which some
/// members do not understand others: install everywhere, use everywhere, remove everywhere.
#[derive(Clone, Default)]
pub struct Keyring {
    /// Without repetition; the first is the primary key. Empty: gossip is not sealed.
    keys: Vec<(Key, Cipher)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl Keyring {
    /// A ring of these keys, the first of which seals. Without keys there is no sealing.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Keyring {
        let mut ring = Keyring::default();
        for key in keys {
            ring.add(key);
        }
        ring
    }

    /// Whether gossip is not sealed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys, the primary one first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|(key, _)| key)
    }

    /// The keys as they are kept on disk, the primary one first.
    #[must_use]
    pub fn list(&self) -> Vec<Key> {
        self.keys().cloned().collect()
    }

    /// The key that seals; `None` without any.
    #[must_use]
    pub fn primary(&self) -> Option<&Key> {
        self.keys().next()
    }

    /// Adds a key that opens from now on. False: it was there. Refused where gossip is not sealed.
    pub fn install(&mut self, key: Key) -> Result<bool, KeyRefused> {
        if self.is_empty() {
            return Err(KeyRefused::NotEnabled);
        }
        Ok(self.add(key))
    }

    /// Seals with this key from now on. False: it was so before. Refused unless the key is installed.
    pub fn use_key(&mut self, key: &Key) -> Result<bool, KeyRefused> {
        if self.is_empty() {
            return Err(KeyRefused::NotEnabled);
        }
        let position = self.position(key).ok_or(KeyRefused::NotInstalled)?;
        self.keys[..=position].rotate_right(1);
        Ok(position > 0)
    }

    /// Removes a key. False: it was not there. Refused for the key that seals.
    pub fn remove(&mut self, key: &Key) -> Result<bool, KeyRefused> {
        if self.is_empty() {
            return Err(KeyRefused::NotEnabled);
        }
        match self.position(key) {
            Some(0) => Err(KeyRefused::Primary),
            Some(position) => {
                self.keys.remove(position);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Seals `plain` with the primary key; whoever opens it must name the same associated data.
    ///
    /// # Panics
    /// When the ring is empty.
    #[must_use]
    pub fn seal(&self, rng: &mut Rng, plain: &[u8], associated: &[u8]) -> Bytes {
        let (_, primary) = self.keys.first().expect("an empty ring seals nothing: ask is_empty first");
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        nonce[8..].copy_from_slice(&rng.next_u64().to_le_bytes()[..4]);
        seal_with(primary, &nonce, plain, associated)
    }

    /// What a sealed packet contains, tried with every key, the primary one first.
    pub fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, BadSeal> {
        let (version, rest) = sealed.split_first().ok_or(BadSeal::Short)?;
        if *version != VERSION {
            return Err(BadSeal::Version(*version));
        }
        let (nonce, rest) = rest.split_at_checked(NONCE).ok_or(BadSeal::Short)?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(BadSeal::Short)?;
        let mut plain = text.to_vec();
        for (tried, (_, cipher)) in self.keys.iter().enumerate() {
            if tried > 0 {
                // What is left in place by a key that does not fit is nobody's promise.
                plain.copy_from_slice(text);
            }
            if cipher.open(nonce, associated, &mut plain, tag) {
                return Ok(plain);
            }
        }
        Err(BadSeal::NoKey)
    }

    fn add(&mut self, key: Key) -> bool {
        let absent = self.position(&key).is_none();
        if absent {
            let cipher = Cipher::new(&key);
            self.keys.push((key, cipher));
        }
        absent
    }

    fn position(&self, key: &Key) -> Option<usize> {
        self.keys().position(|installed| installed == key)
    }
}

fn seal_with(cipher: &Cipher, nonce: &[u8; NONCE], plain: &[u8], associated: &[u8]) -> Bytes {
    let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
    sealed.push(VERSION);
    sealed.extend_from_slice(nonce);
    sealed.extend_from_slice(plain);
    let tag = cipher.seal(nonce, associated, &mut sealed[1 + NONCE..]);
    sealed.extend_from_slice(&tag);
    sealed.into()
}

/// A change of the keys of a whole pool (Consul: «keyring»).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeysChange {
    /// Add a key to every ring.
    Install(Key),
    /// Seal with this key from now on; it must be installed.
    Use(Key),
    /// Remove a key; not the one that seals.
    Remove(Key),
    /// Change nothing, only count who has which key.
    List,
}

/// What a change of keys, or a listing, found in the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysReport {
    /// Members that were asked.
    pub members: usize,
    /// Members that answered.
    pub answers: usize,
    /// Members that answered with an error, and which.
    pub errors: BTreeMap<Text, Text>,
    /// How many rings have each key (in base64).
    pub keys: BTreeMap<Text, usize>,
    /// How many rings seal with each key (in base64).
    pub primary_keys: BTreeMap<Text, usize>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn key(byte: u8, length: usize) -> Key {
        Key::new(&vec![byte; length]).unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// McGrew and Viega, «The Galois/Counter Mode of Operation (GCM)», appendix B, test cases 1, 2, 4, 7, 8, 13, 14.
    #[test]
    fn known_answers_of_each_size_of_key() {
        let text = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
        let sealed = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
                      21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091";
        let zero = "00000000000000000000000000000000";
        let (zero_192, zero_256) = (format!("{zero}0000000000000000"), format!("{zero}{zero}"));
        let start = "000000000000000000000000";
        let cases = [
            (zero, start, "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"),
            (zero, start, "", zero, "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"),
            (
                "feffe9928665731c6d6a8f9467308308",
                "cafebabefacedbaddecaf888",
                "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                text,
                sealed,
                "5bc94fbc3221a5db94fae95ae7121a47",
            ),
            (&zero_192, start, "", "", "", "cd33b28ac773f74ba00ed1f312572435"),
            (
                &zero_192,
                start,
                "",
                zero,
                "98e7247c07f0fe411c267e4384b0f600",
                "2ff58d80033927ab8ef4d4587514f0fb",
            ),
            (&zero_256, start, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
            (
                &zero_256,
                start,
                "",
                zero,
                "cea7403d4d606b6e074ec5d3baf39d18",
                "d0d1c8a799996bf0265b98b5d48ab919",
            ),
        ];
        for (key, nonce, associated, plain, cipher, tag) in cases {
            let key = Key::new(&unhex(key)).unwrap();
            let nonce: [u8; NONCE] = unhex(nonce).try_into().unwrap();
            let expected = [vec![VERSION], nonce.to_vec(), unhex(cipher), unhex(tag)].concat();
            let (plain, associated) = (unhex(plain), unhex(associated));
            assert_eq!(seal_with(&Cipher::new(&key), &nonce, &plain, &associated), expected);
            assert_eq!(Keyring::new(vec![key]).open(&expected, &associated), Ok(plain));
        }
    }

    #[test]
    fn keys_are_written_in_base64_and_faults_are_named() {
        let text = "13JXwP68imZchNLUPk9ywM2UvGzk60r20TVq1851/2Y=";
        let read = Key::from_base64(text).unwrap();
        assert_eq!((read.as_bytes().len(), read.to_base64().as_str()), (32, text));
        assert_eq!(Key::from_base64("13JXwP68imZchNLU\nPk9ywM2UvGzk60r20TVq1851/2Y=\n"), Ok(read));
        let fault = |text: &str| Key::from_base64(text).unwrap_err().to_string();
        assert_eq!(fault("!!!"), "illegal base64 data at input byte 0");
        assert_eq!(fault("AAAA*AAA"), "illegal base64 data at input byte 4");
        assert_eq!(fault("AAAAAAA"), "illegal base64 data at input byte 4");
        assert_eq!(fault("AAAA"), "key size must be 16, 24 or 32 bytes");
        assert_eq!(fault(""), "key size must be 16, 24 or 32 bytes");
        assert_eq!(format!("{:?}", key(7, 16)), "Key(16 bytes)");
    }

    #[test]
    fn a_key_of_a_wrong_size_is_refused_wherever_it_comes_from() {
        let bytes = postcard::to_allocvec(&Bytes::from_static(b"17 bytes, no key.")).unwrap();
        assert!(postcard::from_bytes::<Key>(&bytes).is_err());
        let bytes = postcard::to_allocvec(&key(1, 24)).unwrap();
        assert_eq!(postcard::from_bytes::<Key>(&bytes).unwrap(), key(1, 24));
    }

    #[test]
    fn a_rotation_never_leaves_members_without_a_common_key() {
        let (old, new) = (key(1, 16), key(2, 32));
        let mut rng = Rng::from_seed(1);
        let mut ahead = Keyring::new(vec![old.clone(), old.clone()]);
        assert_eq!(ahead.list(), vec![old.clone()]);
        let mut behind = ahead.clone();
        assert_eq!(ahead.install(new.clone()), Ok(true));
        assert_eq!(ahead.install(new.clone()), Ok(false));
        assert_eq!(behind.open(&ahead.seal(&mut rng, b"x", b""), b""), Ok(b"x".to_vec()));
        assert_eq!(behind.install(new.clone()), Ok(true));
        assert_eq!(ahead.use_key(&new), Ok(true));
        assert_eq!(ahead.use_key(&new), Ok(false));
        assert_eq!(ahead.list(), vec![new.clone(), old.clone()]);
        assert_eq!(behind.open(&ahead.seal(&mut rng, b"y", b""), b""), Ok(b"y".to_vec()));
        assert_eq!(ahead.open(&behind.seal(&mut rng, b"z", b""), b""), Ok(b"z".to_vec()));
        assert_eq!(ahead.remove(&old), Ok(true));
        assert_eq!(ahead.remove(&old), Ok(false));
        assert_eq!(ahead.open(&behind.seal(&mut rng, b"z", b""), b""), Err(BadSeal::NoKey));
    }

    #[test]
    fn refusals_are_worded_as_consul_words_them() {
        let mut ring = Keyring::new(vec![key(1, 16)]);
        assert_eq!(
            ring.remove(&key(1, 16)).unwrap_err().to_string(),
            "Removing the primary key is not allowed"
        );
        assert_eq!(ring.use_key(&key(2, 16)).unwrap_err().to_string(), "Requested key is not in the keyring");
        let mut none = Keyring::default();
        assert_eq!(
            none.install(key(1, 16)).unwrap_err().to_string(),
            "No keyring to modify (encryption not enabled)"
        );
        assert!(none.is_empty());
        assert_eq!((none.primary(), ring.primary()), (None, Some(&key(1, 16))));
    }

    #[test]
    fn nonces_are_not_repeated() {
        let ring = Keyring::new(vec![key(1, 32)]);
        let mut rng = Rng::from_seed(7);
        let sealed: std::collections::BTreeSet<_> =
            (0..1_000).map(|_| ring.seal(&mut rng, b"same", b"")).collect();
        assert_eq!(sealed.len(), 1_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_is_sealed_is_opened_and_nothing_else(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            associated in proptest::collection::vec(any::<u8>(), 0..20),
            size in prop_oneof![Just(16usize), Just(24), Just(32)],
            seed in any::<u64>(),
            at in any::<proptest::sample::Index>(),
            bit in 0u8..8,
        ) {
            let ring = Keyring::new(vec![key(3, 32), key(4, size)]);
            let sealed = Keyring::new(vec![key(4, size)]).seal(&mut Rng::from_seed(seed), &plain, &associated);
            prop_assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
            prop_assert_eq!(ring.open(&sealed, &associated), Ok(plain));
            let mut changed = sealed.to_vec();
            changed[at.index(sealed.len())] ^= 1 << bit;
            prop_assert!(ring.open(&changed, &associated).is_err());
            prop_assert!(ring.open(&sealed[..at.index(sealed.len())], &associated).is_err());
            prop_assert_eq!(ring.open(&sealed, b"of something else that is longer"), Err(BadSeal::NoKey));
        }

        #[test]
        fn nothing_from_outside_is_taken_for_sealed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Keyring::new(vec![key(1, 16)]).open(&bytes, b"").is_err());
        }
    }
}
