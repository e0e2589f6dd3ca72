//! NIP-44's payloads: what is encrypted opens as it was; what is not whole, not padded as the NIP says, or not text, does not.
//!
//! Input: a byte of choices, then (0) a payload, (1) a text to encrypt and a place to change, (2) what is padded and encrypted
//! as it is.

use arbitrary::Unstructured;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use nsecd_broker::nostr::conversation::Conversation;
use nsecd_broker::nostr::nip44::{Error, MessageKeys, Payload, encrypt};
use sha2::Sha256;

use crate::subject;

pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let nonce = [choice >> 2; 32];
    match choice & 3 {
        0 => raw(rest),
        1 => both_ways(rest, &nonce),
        _ => padded(rest, &nonce),
    }
}

/// The keys of a message whose nonce is this one.
pub fn keys(nonce: &[u8; 32]) -> MessageKeys {
    Conversation::from_bytes([5; 32].into()).message_keys(nonce)
}

/// Opens a payload with the keys of its own nonce.
fn open(payload: &str) -> Result<String, Error> {
    let payload = Payload::parse(payload)?;
    let keys = keys(payload.nonce());
    subject::open(payload, &keys)
}

/// Any text: whatever opens is the one payload of its text, nonce and keys.
fn raw(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(payload) = Payload::parse(text) else { return };
    let nonce = *payload.nonce();
    if let Ok(plain) = subject::open(payload, &keys(&nonce)) {
        assert_eq!(encrypt(&plain, &nonce, &keys(&nonce)).unwrap(), text);
    }
}

fn both_ways(data: &[u8], nonce: &[u8; 32]) {
    let mut choices = Unstructured::new(data);
    let (Ok(place), Ok(change)) = (choices.arbitrary::<u16>(), choices.arbitrary::<u8>()) else { return };
    let text = String::from_utf8_lossy(choices.take_rest()).into_owned();
    let Ok(payload) = encrypt(&text, nonce, &keys(nonce)) else {
        return assert!(text.is_empty() || text.len() > 65_535);
    };
    assert_eq!(open(&payload).unwrap(), text);
    let mut altered = payload.clone().into_bytes();
    let place = usize::from(place) % altered.len();
    altered[place] = change & 0x7f;
    let altered = String::from_utf8(altered).unwrap();
    if altered != payload {
        assert!(open(&altered).is_err(), "changed at {place}");
    }
}

/// Encrypted and authenticated here, whatever it is: only what is padded as the NIP says opens.
fn padded(data: &[u8], nonce: &[u8; 32]) {
    let keys = keys(nonce);
    let bytes = keys.as_bytes();
    let mut ciphertext = data.to_vec();
    ChaCha20::new_from_slices(&bytes[..32], &bytes[32..44]).unwrap().apply_keystream(&mut ciphertext);
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&bytes[44..]).unwrap();
    let mac = mac.chain_update(nonce).chain_update(&ciphertext).finalize().into_bytes();
    let payload = base64(&[&[2][..], nonce, &ciphertext, &mac].concat());
    assert_eq!(open(&payload).ok(), unpadded(data).map(str::to_owned), "{data:?}");
}

/// The text in a padded message, by NIP-44's pseudocode and its limits of size.
fn unpadded(data: &[u8]) -> Option<&str> {
    let (length, rest) = data.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let text = rest.get(..length).filter(|text| !text.is_empty())?;
    let fits = (32 + 2..=65_536 + 2).contains(&data.len()) && rest.len() == calc_padded_len(length);
    std::str::from_utf8(text).ok().filter(|_| fits)
}

fn calc_padded_len(unpadded: usize) -> usize {
    let next_power = 1 << ((unpadded as f64 - 1.0).log2().floor() as i32 + 1).max(0);
    let chunk = if next_power <= 256 { 32 } else { next_power / 8 };
    if unpadded <= 32 { 32 } else { chunk * ((unpadded - 1) / chunk + 1) }
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        let digits = (0..4).map(|i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]));
        out.extend(digits.take(three.len() + 1).chain("==".chars()).take(4));
    }
    out
}
