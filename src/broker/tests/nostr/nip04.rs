//! NIP-04 against what the reference daemon's library wrote and refused.

use nsecd_broker::nostr::nip04::{Error, Message, encrypt};
use proptest::prelude::*;
use secp256k1::{Parity, PublicKey, XOnlyPublicKey, ecdh};
use serde_json::Value;

use crate::{CASES, Party};

/// What the ECDH holder answers: the shared point's x.
fn shared(secret: &Party, peer: &[u8; 32]) -> [u8; 32] {
    let peer = XOnlyPublicKey::from_byte_array(*peer).unwrap();
    let point = PublicKey::from_x_only_public_key(peer, Parity::Even);
    ecdh::shared_secret_point(&point, &secret.0)[..32].try_into().unwrap()
}

fn open(message: &str, key: &[u8; 32]) -> Result<String, Error> {
    Message::parse(message)?.open(key).map(|text| text.to_string())
}

#[test]
fn recorded_messages_of_the_reference_open_and_its_broken_ones_do_not() {
    let key = shared(&Party::number(3), &Party::number(5).public());
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for case in cases {
        let sent = case["send"][0]["data"].as_str().unwrap_or_default();
        let Ok(request) = serde_json::from_str::<Value>(sent) else { continue };
        let params = &request["params"];
        let message = params["ciphertext"].as_str().or(params["content"].as_str()).unwrap_or_default();
        let peer = params["senderPubkey"].as_str().or(params["peer_pubkey"].as_str()).unwrap_or_default();
        if request["method"] != "nip04_decrypt" || message.is_empty() || peer != Party::number(5).name() {
            continue;
        }
        let reply: Value = serde_json::from_str(case["reference"][0].as_str().unwrap()).unwrap();
        match (case["expect"].as_str().unwrap(), open(message, &key)) {
            ("same", result) => {
                assert_eq!(result.as_deref(), Ok(reply["plaintext"].as_str().unwrap()), "{message}");
                opened += 1;
            }
            ("error", result) => {
                assert!(result.is_err(), "{message}");
                refused += 1;
            }
            _ => (),
        }
    }
    assert!(opened >= 4 && refused >= 5, "opened {opened}, refused {refused}");
}

#[test]
fn what_the_reference_encrypted_is_encrypted_alike() {
    let key = shared(&Party::number(3), &Party::number(5).public());
    assert_eq!(encrypt("hello", &[1; 16], &key), "AUWpKbGz2Np5ZC75dTuQGA==?iv=AQEBAQEBAQEBAQEBAQEBAQ==");
}

#[test]
fn only_two_base64_parts_of_right_sizes_are_a_message() {
    let good = encrypt("hello", &[1; 16], &[2; 32]);
    assert!(Message::parse(&good).is_ok());
    let (ciphertext, iv) = good.split_once("?iv=").unwrap();
    for bad in [
        "".into(),
        "?iv=".into(),
        ciphertext.into(),
        format!("{ciphertext}?iv="),
        format!("?iv={iv}"),
        format!("{ciphertext}?iv={iv}?iv={iv}"),
        format!("{ciphertext}?iv={}", &iv[..20]),
        format!("{}?iv={iv}", &ciphertext[..20]),
        format!("{ciphertext} ?iv={iv}"),
        format!("{ciphertext}?iv={iv}\n"),
        format!("!{}?iv={iv}", &ciphertext[1..]),
        format!("{ciphertext}?IV={iv}"),
    ] {
        assert_eq!(Message::parse(&bad).map(|_| ()), Err(Error::Form), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back(text in "\\PC{0,200}", key: [u8; 32], iv: [u8; 16]) {
        prop_assert_eq!(open(&encrypt(&text, &iv, &key), &key), Ok(text));
    }

    #[test]
    fn whatever_is_no_message_is_refused_and_nothing_panics(text in "\\PC{0,60}\\?iv=\\PC{0,30}") {
        prop_assert!(open(&text, &[7; 32]).is_err());
    }
}
