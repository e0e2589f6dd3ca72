//! An nsecd that has signed ten thousand times and agreed on a thousand keys, and every secret that it has had.

use crate::signatures::Signer;
use crate::support::daemon::Setup;
use crate::support::event::unhex;
use crate::support::{Nsecd, SCAN_KEY, client};
use crate::words::Words;
use hmac::{Hmac, KeyInit, Mac};
use secp256k1::{Parity, PublicKey, SecretKey, XOnlyPublicKey, ecdh};
use serde_json::json;
use sha2::Sha256;

pub const SIGNATURES: usize = 10_000;
/// Requests sent ahead.
const AT_ONCE: usize = 100;
/// In the ECDH holder: each message takes one to seal and one to open.
const MESSAGES: usize = 480;

/// Every method, unlimited.
pub const OPEN: &str = r#"
[key]
ceiling = "none"
ecdh_ceiling = "none"
@KEY@
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1]
tokenless = [1]
methods = ["sign_event", "nip44", "nip04", "dm"]
limits = "none"
total = "none"
dm = "none"
crypt = "none"
"#;
/// Public keys of the secrets 5 and 7: one to speak NIP-44 with, one NIP-04.
const PEERS: [&str; 2] = [
    "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4",
    "5cbdf0646e5db4eaa398f365f2ea7a0e3d419b7e0330e39ce92bddedcac4f9bc",
];

/// A running one.
pub struct Busy {
    pub nsecd: Nsecd,
    /// Whatever was computed with it.
    pub computed: Words,
}

/// Starts one, whose key is the scanned one, and keeps it busy.
pub fn busy(setup: Setup) -> Busy {
    let nsecd = setup.start();
    let mut client = nsecd.connect();
    let signer = Signer::new(SCAN_KEY);
    let mut secrets = vec![
        ("shared x".into(), shared(PEERS[0])),
        ("shared x of NIP-04".into(), shared(PEERS[1])),
        ("conversation key".into(), hmac(b"nip44-v2", &[&shared(PEERS[0])])),
    ];
    let conversation = secrets[2].1.clone();
    for i in 0..MESSAGES {
        let text = format!("message {i}");
        let reply = client.ask("nip44_encrypt", json!({"plaintext": text, "peer_pubkey": PEERS[0]}));
        let payload = reply["result"].as_str().unwrap_or_else(|| panic!("{reply}"));
        let back = client.ask("nip44_decrypt", json!({"ciphertext": payload, "peer_pubkey": PEERS[0]}));
        assert_eq!(back["result"], text);
        let keys = message_keys(&conversation, &nonce(payload));
        secrets.push((format!("ChaCha20's key of message {i}"), keys[..32].to_vec()));
        secrets.push((format!("HMAC's key of message {i}"), keys[44..76].to_vec()));
    }
    for _ in 0..20 {
        let sent = client.ask("wrap_dm", json!({"recipientPubkey": PEERS[0], "message": "hi"}));
        let opened = client.ask("unwrap_gift_wrap", json!({"event": sent["events"][0]}));
        assert_eq!(opened["rumor"]["content"], "hi", "{opened}");
        let old = client.ask("nip04_encrypt", json!({"plaintext": "x", "recipientPubkey": PEERS[1]}));
        assert!(old["ciphertext"].is_string(), "{old}");
    }
    // Many at once: nobody waits for the next.
    let request = client::line("sign_event", json!({"kind": 1, "content": "hello"}));
    let mut signed = Vec::with_capacity(SIGNATURES);
    for _ in 0..SIGNATURES / AT_ONCE {
        client.send(request.repeat(AT_ONCE));
        signed.extend((0..AT_ONCE).map(|_| client.reply()));
    }
    for (i, reply) in signed.iter().enumerate() {
        let bytes = |name: &str| unhex(reply["event"][name].as_str().unwrap_or_else(|| panic!("{reply}")));
        secrets.extend(signer.named(i, &bytes("id"), &bytes("sig")));
    }
    // Messages again: each of these two is the last that some process has done.
    let reply = client.ask("nip44_encrypt", json!({"plaintext": "the last", "peer_pubkey": PEERS[0]}));
    let keys = message_keys(&conversation, &nonce(reply["result"].as_str().unwrap()));
    secrets.push(("ChaCha20's key of the last message".into(), keys[..32].to_vec()));
    secrets.push(("HMAC's key of the last message".into(), keys[44..76].to_vec()));
    Busy { nsecd, computed: Words::of(secrets) }
}

/// Words of the key and of its negation.
pub fn key() -> Words {
    let key = SecretKey::from_secret_bytes(unhex(SCAN_KEY).try_into().unwrap()).unwrap();
    let of = |name: &str, key: SecretKey| (name.to_string(), key.to_secret_bytes().to_vec());
    Words::of(vec![of("key", key), of("negated key", key.negate())])
}

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
