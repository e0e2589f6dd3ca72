//! The example events and keys in NIP-17 and NIP-59, and the reference daemon's recorded gift wraps.

use nsecd_broker::json;
use nsecd_broker::nostr::incoming::Claim;
use nsecd_broker::nostr::nip59::{Error, GiftWrap, Rumor};
use secp256k1::SecretKey;
use serde_json::{Value, json};

use crate::{CASES, Party};

fn object(value: &Value) -> json::Object {
    json::parse(value.to_string().as_bytes()).unwrap()
}

/// Unwraps as the broker will, with `party` in the ECDH holder's place.
pub fn unwrap(wrap: &Value, party: &Party) -> Result<Rumor, Error> {
    let wrap = GiftWrap::verify(object(wrap))?;
    let keys = party.conversation(wrap.author()).message_keys(wrap.nonce());
    let seal = wrap.open(&keys)?;
    let keys = party.conversation(seal.author()).message_keys(seal.nonce());
    seal.open(&keys)
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../data/nip17-nip59.json")).unwrap()
}

/// NIP-19's nsec: bech32 whose checksum the vectors' file is trusted for.
fn party(nsec: &Value) -> Party {
    const CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let data = nsec.as_str().unwrap().strip_prefix("nsec1").unwrap();
    let bits: Vec<u8> = data[..52]
        .chars()
        .map(|c| CHARSET.find(c).unwrap())
        .flat_map(|v| (0..5).rev().map(move |bit| (v >> bit & 1) as u8))
        .collect();
    let bytes: Vec<u8> = bits[..256].chunks(8).map(|byte| byte.iter().fold(0, |n, bit| n << 1 | bit)).collect();
    Party(SecretKey::from_secret_bytes(bytes.try_into().unwrap()).unwrap())
}

fn parties(nip: &str) -> Vec<Party> {
    let nsecs = vectors()[nip]["nsecs_in_text"].as_array().unwrap().clone();
    assert_eq!(nsecs.len(), 2, "{nip}");
    nsecs.iter().map(party).collect()
}

#[test]
fn nip_17s_two_gift_wraps_open_to_one_rumor_for_either_party() {
    let events = vectors()["NIP-17"]["events"].as_array().unwrap().clone();
    assert_eq!(events.len(), 2);
    let mut rumors = Vec::new();
    for event in &events {
        let recipient = event["tags"][0][1].as_str().unwrap();
        let party = parties("NIP-17").into_iter().find(|party| party.name() == recipient).expect("its recipient's key");
        let rumor: Value = serde_json::from_str(unwrap(event, &party).unwrap().json()).unwrap();
        assert_eq!(rumor["kind"], 14);
        assert!(!rumor["content"].as_str().unwrap().is_empty());
        rumors.push(rumor);
    }
    assert_eq!(rumors[0], rumors[1]);
}

#[test]
fn nip_59s_example_opens_layer_by_layer_to_its_rumor() {
    let events = vectors()["NIP-59"]["events"].as_array().unwrap().clone();
    assert_eq!(events.len(), 6);
    let [rumor, seal, wrap] = &events[3..] else { panic!("three templates, then rumor, seal, wrap") };
    let parties = parties("NIP-59");
    let recipient =
        parties.iter().find(|party| wrap["tags"][0][1] == json!(party.name())).expect("its recipient's key");
    let opened: Value = serde_json::from_str(unwrap(wrap, recipient).unwrap().json()).unwrap();
    assert_eq!(&opened, rumor);
    // The published seal is the one inside the wrap: verified here as an event of its own.
    assert!(Claim::read(object(seal)).unwrap().verify().is_ok());
    // The templates ("<id>") are no events.
    for template in &events[..3] {
        assert!(Claim::read(object(template)).is_none());
        assert_eq!(GiftWrap::verify(object(template)).map(|_| ()), Err(Error::WrapForm));
    }
}

#[test]
fn recorded_gift_wraps_open_or_are_refused_for_what_is_wrong_with_them() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let of = |id: u64| cases.iter().find(|case| case["id"] == id).unwrap();
    let request = |id| serde_json::from_str::<Value>(of(id)["send"][0]["data"].as_str().unwrap()).unwrap();
    let result = |id| unwrap(&request(id)["params"]["event"], &Party::number(3));
    let expected: Value = serde_json::from_str(of(416)["reference"][0].as_str().unwrap()).unwrap();
    // 422: without an id, 423: with a field "evil" and a "sig" that is none.
    for id in [416, 422, 423] {
        let rumor: Value = serde_json::from_str(result(id).unwrap().json()).unwrap();
        assert_eq!(rumor, expected["rumor"], "case {id}");
    }
    for (id, error) in [
        (420, Error::SealKind),
        (421, Error::RumorId),
        (424, Error::RumorForm),
        (428, Error::SealForm),
        (429, Error::SealForm),
        (431, Error::WrapForm),
    ] {
        let found = result(id).map(|rumor| rumor.json().to_owned());
        assert_eq!(found, Err(error), "case {id}");
    }
}
