//! NIP-44 version 2: one message's text to a payload and back, with keys that somebody else has agreed on.
//!
//! Payload: base64 of version(1) = 2 ‖ nonce(32) ‖ ciphertext ‖ MAC(32). Reading takes two steps, because the keys depend on
//! the nonce: [`Payload::parse`], then, once the keys for [`Payload::nonce`] are there, [`Payload::open`].

use core::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of a message's keys: ChaCha20's key(32) ‖ its nonce(12) ‖ HMAC's key(32).
pub const KEYS: usize = 76;
/// The most bytes of text in a message. NIP-44's text of 2026 has a form for more; its vectors still call that invalid, and
/// what every deployed client reads is this.
pub const MAX_PLAINTEXT: usize = 65_535;

const VERSION: u8 = 2;
const NONCE: usize = 32;
const MAC: usize = 32;
/// Bytes of the length before the text.
const PREFIX: usize = 2;
/// Bytes of the smallest and the largest payload, decoded: 32 and 65,536 bytes of padded text.
const DECODED: core::ops::RangeInclusive<usize> = 99..=65_603;
/// The same in base64.
const ENCODED: core::ops::RangeInclusive<usize> = 132..=87_472;

/// Why a text or a payload is refused. The texts are fixed: none repeats a byte of either (threat A17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A text of no bytes or of more than 65,535.
    PlaintextLength,
    /// Empty, of another version, or of a form that is announced by `#`.
    Version,
    /// Shorter than the shortest or longer than the longest payload.
    PayloadLength,
    /// Not base64.
    Base64,
    /// Altered, or not for these keys.
    Mac,
    /// Authentic, but not padded as NIP-44 says.
    Padding,
    /// Authentic, but not UTF-8.
    NotText,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::PlaintextLength => "plaintext must have 1 to 65535 bytes",
            Error::Version => "unknown encryption version",
            Error::PayloadLength => "invalid payload length",
            Error::Base64 => "invalid base64",
            Error::Mac => "invalid MAC",
            Error::Padding => "invalid padding",
            Error::NotText => "not UTF-8 text",
        })
    }
}

impl std::error::Error for Error {}

/// The keys of one message, wiped when dropped: they open no other message. Boxed: bytes that are moved about leave copies on the
/// stack.
pub struct MessageKeys(Box<Zeroizing<[u8; KEYS]>>);

impl MessageKeys {
    /// From the bytes that the ECDH holder answers.
    pub fn new(bytes: Box<Zeroizing<[u8; KEYS]>>) -> MessageKeys {
        MessageKeys(bytes)
    }

    /// ChaCha20's key(32) ‖ its nonce(12) ‖ HMAC's key(32).
    pub fn as_bytes(&self) -> &[u8; KEYS] {
        &self.0
    }

    /// ChaCha20 over `text` (RFC 8439, the counter from 0); the same both ways.
    fn cipher(&self, text: &mut [u8]) {
        let cipher = ChaCha20::new_from_slices(&self.0[..32], &self.0[32..44]);
        cipher.expect("these are the sizes of ChaCha20's key and nonce").apply_keystream(text);
    }

    /// HMAC-SHA256 over nonce ‖ ciphertext.
    fn mac(&self, nonce: &[u8; NONCE], ciphertext: &[u8]) -> Hmac<Sha256> {
        let mut key = Zeroizing::new([0; 64]); // HMAC pads a short key with zeros to SHA-256's block
        key[..32].copy_from_slice(&self.0[44..]);
        Hmac::<Sha256>::new((&*key).into()).chain_update(nonce).chain_update(ciphertext)
    }
}

/// Bytes that a text of `length` takes when padded, without its length prefix: what an onlooker learns of the length.
pub fn padded_length(length: usize) -> usize {
    if length <= 32 {
        return 32;
    }
    let power = length.next_power_of_two();
    let chunk = if power <= 256 { 32 } else { power / 8 };
    length.div_ceil(chunk) * chunk
}

/// Characters of the payload of a text of `length` bytes.
pub fn payload_length(length: usize) -> usize {
    4 * (1 + NONCE + PREFIX + padded_length(length) + MAC).div_ceil(3)
}

/// Encrypts `plaintext` under `keys`, which must be those of `nonce`: 32 random bytes, never used twice.
pub fn encrypt(plaintext: &str, nonce: &[u8; NONCE], keys: &MessageKeys) -> Result<String, Error> {
    let length = u16::try_from(plaintext.len()).ok().filter(|n| *n > 0).ok_or(Error::PlaintextLength)?;
    let start = 1 + NONCE;
    let end = start + PREFIX + padded_length(plaintext.len());
    let mut payload = Zeroizing::new(vec![0; end + MAC]);
    payload[0] = VERSION;
    payload[1..start].copy_from_slice(nonce);
    payload[start..start + PREFIX].copy_from_slice(&length.to_be_bytes());
    payload[start + PREFIX..][..plaintext.len()].copy_from_slice(plaintext.as_bytes());
    keys.cipher(&mut payload[start..end]);
    let mac = keys.mac(nonce, &payload[start..end]).finalize().into_bytes();
    payload[end..].copy_from_slice(&mac);
    Ok(STANDARD.encode(&*payload))
}

/// A payload whose form is right; nothing of it is known to be authentic.
pub struct Payload {
    nonce: [u8; NONCE],
    ciphertext: Vec<u8>,
    mac: [u8; MAC],
}

impl Payload {
    /// Takes a payload apart.
    pub fn parse(payload: &str) -> Result<Payload, Error> {
        if payload.is_empty() || payload.starts_with('#') {
            return Err(Error::Version);
        }
        if !ENCODED.contains(&payload.len()) {
            return Err(Error::PayloadLength);
        }
        let decoded = STANDARD.decode(payload).map_err(|_| Error::Base64)?;
        if !DECODED.contains(&decoded.len()) {
            return Err(Error::PayloadLength);
        }
        let (head, mac) = decoded.split_last_chunk::<MAC>().ok_or(Error::PayloadLength)?;
        let (version, rest) = head.split_first().ok_or(Error::PayloadLength)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(Error::PayloadLength)?;
        if *version != VERSION {
            return Err(Error::Version);
        }
        Ok(Payload { nonce: *nonce, ciphertext: ciphertext.to_vec(), mac: *mac })
    }

    /// The nonce to ask the keys for.
    pub fn nonce(&self) -> &[u8; NONCE] {
        &self.nonce
    }

    /// The text, once the MAC has shown that it is whole and under these keys. The MAC is compared in constant time.
    pub fn open(mut self, keys: &MessageKeys) -> Result<Zeroizing<String>, Error> {
        keys.mac(&self.nonce, &self.ciphertext).verify_slice(&self.mac).map_err(|_| Error::Mac)?;
        let mut padded = Zeroizing::new(core::mem::take(&mut self.ciphertext));
        keys.cipher(&mut padded);
        let (prefix, rest) = padded.split_first_chunk::<PREFIX>().ok_or(Error::Padding)?;
        let length = usize::from(u16::from_be_bytes(*prefix));
        let text = rest.get(..length).ok_or(Error::Padding)?;
        if length == 0 || rest.len() != padded_length(length) {
            return Err(Error::Padding);
        }
        core::str::from_utf8(text).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| Error::NotText)
    }
}
