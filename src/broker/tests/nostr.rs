//! The NIPs' modules against published vectors, recorded messages of another implementation, and every kind of forgery.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "nostr/messages.rs"]
mod messages;
#[path = "nostr/nip04.rs"]
mod nip04;
#[path = "nostr/nip44.rs"]
mod nip44;
#[path = "nostr/published.rs"]
mod published;

use nsecd_broker::nostr::conversation::Conversation;
use nsecd_broker::nostr::unhex;
use secp256k1::{Keypair, SecretKey, XOnlyPublicKey, schnorr};
use sha2::{Digest, Sha256};

/// The recorded cases of the reference daemon.
const CASES: &str = include_str!("../../../tests/wire/data/cases.json");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A party that holds its key in plain sight, in the places of ECDH holder and gate.
struct Party(SecretKey);

impl Party {
    /// The party of a small number, as the recorded cases have 3 and 5.
    fn number(n: u8) -> Party {
        let mut secret = [0; 32];
        secret[31] = n;
        Party(SecretKey::from_secret_bytes(secret).unwrap())
    }

    fn public(&self) -> [u8; 32] {
        self.0.x_only_public_key().0.to_byte_array()
    }

    fn name(&self) -> String {
        hex(&self.public())
    }

    fn conversation(&self, peer: &[u8; 32]) -> Conversation {
        Conversation::agree(&self.0, &XOnlyPublicKey::from_byte_array(*peer).unwrap())
    }

    /// Signs what NIP-01 serialises to `canonical`; the id and the signature.
    fn sign(&self, canonical: &str) -> ([u8; 32], [u8; 64]) {
        let id = Sha256::digest(canonical).into();
        let pair = Keypair::from_secret_key(&self.0);
        (id, schnorr::sign_no_aux_rand(&id, &pair).to_byte_array())
    }
}

/// The 32 bytes of a vector's field.
fn bytes(value: &serde_json::Value) -> [u8; 32] {
    unhex(value.as_str().unwrap()).unwrap()
}
