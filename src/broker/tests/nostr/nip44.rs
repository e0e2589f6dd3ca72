//! paulmillr/nip44's vectors, all sections, and round trips.

use nsecd_broker::nostr::conversation::Conversation;
use nsecd_broker::nostr::nip44::{Error, KEYS, MAX_PLAINTEXT, MessageKeys, Payload, encrypt, padded_length};
use proptest::prelude::*;
use secp256k1::{SecretKey, XOnlyPublicKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Party, bytes, hex};

fn vectors() -> Value {
    let text = include_str!("../data/nip44.json");
    // NIP-44 pins the file by this checksum.
    assert!(hex(&Sha256::digest(text)).starts_with("269ed0f6"));
    serde_json::from_str(text).unwrap()
}

/// The rows of a section, which must be as many as were published.
fn rows(section: &str, expected: usize) -> Vec<Value> {
    let vectors = vectors();
    let rows = vectors.pointer(section).and_then(Value::as_array).unwrap().clone();
    assert_eq!(rows.len(), expected, "{section}");
    rows
}

fn conversation(key: &Value) -> Conversation {
    Conversation::from_bytes(bytes(key).into())
}

fn open(payload: &str, conversation: &Conversation) -> Result<String, Error> {
    let payload = Payload::parse(payload)?;
    let keys = conversation.message_keys(payload.nonce());
    payload.open(&keys).map(|text| text.to_string())
}

#[test]
fn conversation_keys_are_the_published_ones() {
    for row in rows("/v2/valid/get_conversation_key", 35) {
        let secret = SecretKey::from_secret_bytes(bytes(&row["sec1"])).unwrap();
        let peer = XOnlyPublicKey::from_byte_array(bytes(&row["pub2"])).unwrap();
        assert_eq!(*Conversation::agree(&secret, &peer).as_bytes(), bytes(&row["conversation_key"]));
    }
}

#[test]
fn keys_that_are_none_are_refused() {
    for row in rows("/v2/invalid/get_conversation_key", 8) {
        let secret = SecretKey::from_secret_bytes(bytes(&row["sec1"]));
        let peer = XOnlyPublicKey::from_byte_array(bytes(&row["pub2"]));
        assert!(secret.is_err() || peer.is_err(), "{row}");
    }
}

#[test]
fn message_keys_are_the_published_ones() {
    let section = "/v2/valid/get_message_keys";
    let conversation = conversation(vectors().pointer(&format!("{section}/conversation_key")).unwrap());
    for row in rows(&format!("{section}/keys"), 32) {
        let keys = conversation.message_keys(&bytes(&row["nonce"]));
        let expected = ["chacha_key", "chacha_nonce", "hmac_key"].map(|name| row[name].as_str().unwrap());
        assert_eq!(hex(keys.as_bytes()), expected.concat());
    }
}

#[test]
fn padded_lengths_are_the_published_ones() {
    for row in rows("/v2/valid/calc_padded_len", 24) {
        assert_eq!(padded_length(row[0].as_u64().unwrap() as usize), row[1].as_u64().unwrap() as usize);
    }
}

#[test]
fn payloads_are_the_published_ones_both_ways() {
    for row in rows("/v2/valid/encrypt_decrypt", 10) {
        let secret = |name: &str| SecretKey::from_secret_bytes(bytes(&row[name])).unwrap();
        let (one, two) = (secret("sec1"), secret("sec2"));
        let ours = Conversation::agree(&one, &two.x_only_public_key().0);
        let theirs = Conversation::agree(&two, &one.x_only_public_key().0);
        assert_eq!(ours.as_bytes(), &bytes(&row["conversation_key"]));
        assert_eq!(ours.as_bytes(), theirs.as_bytes());
        let nonce = bytes(&row["nonce"]);
        let plaintext = row["plaintext"].as_str().unwrap();
        let payload = encrypt(plaintext, &nonce, &ours.message_keys(&nonce)).unwrap();
        assert_eq!(payload, row["payload"].as_str().unwrap());
        assert_eq!(open(&payload, &theirs).unwrap(), plaintext);
    }
}

#[test]
fn long_payloads_are_the_published_ones_both_ways() {
    for row in rows("/v2/valid/encrypt_decrypt_long_msg", 3) {
        let conversation = conversation(&row["conversation_key"]);
        let nonce = bytes(&row["nonce"]);
        let plaintext = row["pattern"].as_str().unwrap().repeat(row["repeat"].as_u64().unwrap() as usize);
        assert_eq!(Sha256::digest(&plaintext)[..], bytes(&row["plaintext_sha256"]));
        let payload = encrypt(&plaintext, &nonce, &conversation.message_keys(&nonce)).unwrap();
        assert_eq!(Sha256::digest(&payload)[..], bytes(&row["payload_sha256"]));
        assert_eq!(open(&payload, &conversation).unwrap(), plaintext);
    }
}

#[test]
fn texts_of_invalid_length_are_refused() {
    let nonce = [1; 32];
    let keys = Party::number(1).conversation(&Party::number(2).public()).message_keys(&nonce);
    let mut refused = 0;
    for row in rows("/v2/invalid/encrypt_msg_lengths", 4) {
        // The longest are 4 GiB; anything over the limit is refused by its length alone.
        let length = (row.as_u64().unwrap() as usize).min(1 << 20);
        assert!(length == 0 || length > MAX_PLAINTEXT);
        assert_eq!(encrypt(&"x".repeat(length), &nonce, &keys), Err(Error::PlaintextLength));
        refused += 1;
    }
    assert_eq!(refused, 4);
    assert!(encrypt(&"x".repeat(MAX_PLAINTEXT), &nonce, &keys).is_ok());
}

#[test]
fn invalid_payloads_are_refused_for_what_is_wrong_with_them() {
    for row in rows("/v2/invalid/decrypt", 12) {
        let note = row["note"].as_str().unwrap();
        let expected = match note {
            "unknown encryption version" | "unknown encryption version 0" => Error::Version,
            "invalid base64" => Error::Base64,
            "invalid MAC" => Error::Mac,
            "invalid padding" => Error::Padding,
            _ if note.starts_with("invalid payload length") => Error::PayloadLength,
            _ => panic!("a note that this test does not know: {note}"),
        };
        let payload = row["payload"].as_str().unwrap();
        // No payload at all is said to be of another version by NIP-44's own pseudocode, and of length 0 by the vectors.
        let result = open(payload, &conversation(&row["conversation_key"]));
        let empty = payload.is_empty() && result == Err(Error::Version);
        assert!(empty || result == Err(expected), "{note}: {result:?}");
    }
}

#[test]
fn the_keys_of_one_message_open_no_other_of_the_same_peer() {
    // B27, the half that lies here: the other half is that the holder answers nothing but one message's keys.
    let conversation = Party::number(3).conversation(&Party::number(5).public());
    let (one, other) = ([1; 32], [2; 32]);
    let keys = conversation.message_keys(&one);
    let payload = encrypt("secret", &other, &conversation.message_keys(&other)).unwrap();
    assert_eq!(open(&payload, &conversation).unwrap(), "secret");
    assert_eq!(Payload::parse(&payload).unwrap().open(&keys).map(|_| ()), Err(Error::Mac));
}

#[test]
fn authentic_payloads_that_are_no_text_are_refused_without_repeating_them() {
    // Encrypted as the module does it, then altered under the cipher and authenticated again: the counter check of each.
    let nonce = [7; 32];
    let keys = Party::number(3).conversation(&Party::number(5).public()).message_keys(&nonce);
    let forge = |change: &dyn Fn(&mut Vec<u8>)| {
        let good = encrypt("forged text", &nonce, &keys).unwrap();
        let mut payload = decode(&good);
        change(&mut payload);
        let end = payload.len() - 32;
        let mac = hmac_sha256(&keys.as_bytes()[44..], &payload[1..end]);
        payload[end..].copy_from_slice(&mac);
        Payload::parse(&encode(&payload)).unwrap().open(&keys).map(|text| text.to_string())
    };
    assert_eq!(forge(&|_| ()), Ok("forged text".into()));
    // The length's two bytes follow version and nonce; XOR goes through the stream cipher.
    assert_eq!(forge(&|p| p[34] ^= 11), Err(Error::Padding)); // length 0
    assert_eq!(forge(&|p| p[33] ^= 1), Err(Error::Padding)); // length 267
    assert_eq!(forge(&|p| p[34] ^= 11 ^ 33), Err(Error::Padding)); // 33 bytes would have been padded to 64
    assert_eq!(forge(&|p| p[35] ^= 0x80 ^ b'f'), Err(Error::NotText));
    // NIP-44 asks nobody to check that the padding is zero.
    assert_eq!(forge(&|p| p[50] ^= 1), Ok("forged text".into()));
}

fn decode(text: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).unwrap()
}

fn encode(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// RFC 2104, written out: nothing of the module's own is used to judge it.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ byte).collect::<Vec<_>>();
    let inner = Sha256::digest([&pad(0x36), message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back_and_no_altered_payload_opens(
        text in "\\PC{1,300}", keys: [u8; 32], rest: [u8; 32], nonce: [u8; 32], at: prop::sample::Index, bit in 0..8u8
    ) {
        let mut all = [0; KEYS];
        all[..32].copy_from_slice(&keys);
        all[32..64].copy_from_slice(&rest);
        let keys = MessageKeys::new(Box::new(all.into()));
        let payload = encrypt(&text, &nonce, &keys).unwrap();
        let parsed = Payload::parse(&payload).unwrap();
        prop_assert_eq!(parsed.nonce(), &nonce);
        let opened = parsed.open(&keys).unwrap();
        prop_assert_eq!(opened.as_str(), &text);
        let mut altered = decode(&payload);
        let at = at.index(altered.len());
        altered[at] ^= 1 << bit;
        let result = Payload::parse(&encode(&altered)).and_then(|payload| payload.open(&keys));
        let expected = if at == 0 { Error::Version } else { Error::Mac };
        prop_assert_eq!(result.err(), Some(expected));
    }

    #[test]
    fn whatever_is_no_payload_is_refused_and_nothing_panics(text in "\\PC{0,300}", bytes: Vec<u8>) {
        let keys = MessageKeys::new(Box::new([3; KEYS].into()));
        for payload in [text, encode(&bytes)] {
            prop_assert!(Payload::parse(&payload).and_then(|payload| payload.open(&keys)).is_err());
        }
    }

    #[test]
    fn padding_never_shortens_and_never_more_than_doubles(length in 1usize..=MAX_PLAINTEXT) {
        let padded = padded_length(length);
        prop_assert!(padded >= length && padded <= 32.max(2 * length));
        prop_assert_eq!(padded_length(padded), padded);
    }
}
