//! What the ECDH holder makes is nowhere else: no key, no shared secret, no conversation key, and in the broker no
//! message's keys once the message is done.
//!
//! Checked: with a message's keys moved about by value instead of boxed, or without the wiped stack, this fails.

use hmac::{Hmac, KeyInit, Mac};
use secp256k1::{Parity, PublicKey, SecretKey, XOnlyPublicKey, ecdh};
use serde_json::json;
use sha2::Sha256;

use crate::forms::Forms;
use crate::support::daemon::Setup;
use crate::support::{SCAN_KEY, event::unhex, not_root};
use crate::{Planted, scan};

const OPEN: &str = r#"
[key]
ecdh_ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1]
methods = ["sign_event", "nip44", "nip04", "dm"]
dm = "none"
crypt = "none"
"#;
/// Public keys of the secrets 5 and 7: one to speak NIP-44 with, one NIP-04.
const PEERS: [&str; 2] = [
    "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4",
    "5cbdf0646e5db4eaa398f365f2ea7a0e3d419b7e0330e39ce92bddedcac4f9bc",
];

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The shared point's x of the scanned key and a peer.
fn shared(peer: &str) -> Vec<u8> {
    let secret = SecretKey::from_secret_bytes(unhex(SCAN_KEY).try_into().unwrap()).unwrap();
    let peer = XOnlyPublicKey::from_byte_array(unhex(peer).try_into().unwrap()).unwrap();
    ecdh::shared_secret_point(&PublicKey::from_x_only_public_key(peer, Parity::Even), &secret)[..32].to_vec()
}

/// NIP-44's message keys: HKDF-expand (RFC 5869) of 76 bytes.
fn message_keys(conversation: &[u8], nonce: &[u8]) -> Vec<u8> {
    let first = hmac(conversation, &[nonce, &[1]]);
    let second = hmac(conversation, &[&first, nonce, &[2]]);
    let third = hmac(conversation, &[&second, nonce, &[3]]);
    [first, second, third].concat()[..76].to_vec()
}

/// The nonce of a payload: its bytes 1 to 32.
fn nonce(payload: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = payload[..48].chars().map(|c| format!("{:06b}", ALPHABET.find(c).unwrap())).collect();
    let bytes = (0..33).map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap());
    bytes.skip(1).collect()
}

#[test]
fn after_a_thousand_agreements_no_secret_of_theirs_is_in_any_readable_memory() {
    if not_root("reading another process's memory") {
        return;
    }
    let setup = Setup::new(OPEN);
    std::fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
    let nsecd = setup.credential(SCAN_KEY.as_bytes()).start();
    let mut client = nsecd.connect();
    let mut payload = String::new();
    for i in 0..480 {
        let text = format!("message {i}");
        let reply = client.ask("nip44_encrypt", json!({"plaintext": text, "peer_pubkey": PEERS[0]}));
        payload = reply["result"].as_str().unwrap_or_else(|| panic!("{reply}")).into();
        let back = client.ask("nip44_decrypt", json!({"ciphertext": payload, "peer_pubkey": PEERS[0]}));
        assert_eq!(back["result"], text);
    }
    for _ in 0..20 {
        let sent = client.ask("wrap_dm", json!({"recipientPubkey": PEERS[0], "message": "hi"}));
        let opened = client.ask("unwrap_gift_wrap", json!({"event": sent["events"][0]}));
        assert_eq!(opened["rumor"]["content"], "hi", "{opened}");
        let old = client.ask("nip04_encrypt", json!({"plaintext": "x", "recipientPubkey": PEERS[1]}));
        assert!(old["ciphertext"].is_string(), "{old}");
    }
    // The last message again, so that its keys are the last that the broker had, but for what this was for.
    let back = client.ask("nip44_decrypt", json!({"ciphertext": payload, "peer_pubkey": PEERS[0]}));
    assert_eq!(back["result"], "message 479");

    let conversation = hmac(b"nip44-v2", &[&shared(PEERS[0])]);
    let keys = message_keys(&conversation, &nonce(&payload));
    let secrets = Forms::raw(&[
        ("shared x", shared(PEERS[0])),
        ("shared x of NIP-04", shared(PEERS[1])),
        ("conversation key", conversation),
        ("ChaCha20's key", keys[..32].to_vec()),
        ("HMAC's key", keys[44..76].to_vec()),
    ]);
    for (name, bytes) in secrets.all() {
        let planted = Planted::start(bytes);
        assert!(scan(&secrets, planted.0.id() as i32).iter().any(|f| f.starts_with(name)), "control: {name}");
    }
    let key = Forms::of(SCAN_KEY);
    for (name, pid) in nsecd.processes() {
        let found = [scan(&key, pid), scan(&secrets, pid)].concat();
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}
