//! An independent judge of signed events: NIP-01's id recomputed here, BIP-340 verified by libsecp256k1.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of hex digits, upper or lower case.
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex: {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// NIP-01's serialisation: what serde_json writes is JSON.stringify's text but for U+007F, which both leave alone.
pub fn canonical(e: &Value) -> String {
    json!([0, e["pubkey"], e["created_at"], e["kind"], e["tags"], e["content"]]).to_string()
}

/// The event's id as NIP-01 defines it.
pub fn id(event: &Value) -> String {
    hex(&Sha256::digest(canonical(event)))
}

/// BIP-340 verification.
pub fn verifies(message: &[u8], public_key: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = secp256k1::XOnlyPublicKey::from_byte_array(public_key.try_into().unwrap()) else { return false };
    let signature = secp256k1::schnorr::Signature::from_byte_array(signature.try_into().unwrap());
    secp256k1::schnorr::verify(&signature, message, &key).is_ok()
}

/// Whether id and signature are right for the content, and the author is `public_key`.
pub fn valid(event: &Value, public_key: &str) -> bool {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
    event["id"] == json!(id(event))
        && event["pubkey"] == json!(public_key)
        && text("sig").len() == 128
        && verifies(&unhex(&text("id")), &unhex(public_key), &unhex(&text("sig")))
}

/// The event of a sign_event reply, verified; panics if it was refused or is wrong.
pub fn signed<'a>(reply: &'a Value, public_key: &str) -> &'a Value {
    let event = reply.get("event").unwrap_or_else(|| panic!("not signed: {reply}"));
    assert!(valid(event, public_key), "not a valid event of {public_key}: {event}");
    event
}
