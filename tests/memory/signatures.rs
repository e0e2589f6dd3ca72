//! The two numbers behind a signature that give the key away, computed from it by who has the key.

use crate::support::event::unhex;
use secp256k1::{Parity, Scalar, SecretKey};
use sha2::{Digest, Sha256};

/// A private key as BIP-340 signs with it, and its public key.
pub struct Signer {
    /// Negated where the point's y is odd.
    key: SecretKey,
    public_key: [u8; 32],
}

impl Signer {
    /// `key`: hex digits.
    pub fn new(key: &str) -> Signer {
        let key = SecretKey::from_secret_bytes(unhex(key).try_into().unwrap()).unwrap();
        let (public_key, parity) = key.x_only_public_key();
        let key = if parity == Parity::Odd { key.negate() } else { key };
        Signer { key, public_key: public_key.to_byte_array() }
    }

    /// Of a signature R ‖ s: the nonce k = s − e·d, and e·d, each big-endian. Panics unless R is k's point.
    pub fn secrets(&self, id: &[u8], signature: &[u8]) -> [SecretKey; 2] {
        let scalar = |bytes: &[u8]| Scalar::from_be_bytes(bytes.try_into().unwrap()).unwrap();
        let tag = Sha256::digest("BIP0340/challenge");
        let challenge = Sha256::digest([&tag[..], &tag, &signature[..32], &self.public_key, id].concat());
        let ed = self.key.mul_tweak(&scalar(&challenge)).unwrap();
        let nonce = ed.negate().add_tweak(&scalar(&signature[32..])).unwrap();
        assert_eq!(nonce.x_only_public_key().0.to_byte_array(), signature[..32], "that is not how it was made");
        [nonce, ed]
    }

    /// The same under names, each with its negation: half of all nonces are negated on the way.
    pub fn named(&self, number: usize, id: &[u8], signature: &[u8]) -> Vec<(String, Vec<u8>)> {
        let [nonce, ed] = self.secrets(id, signature);
        [("nonce", nonce), ("e·d", ed)]
            .into_iter()
            .flat_map(|(name, secret)| {
                let negated = secret.negate().to_secret_bytes().to_vec();
                let plain = (format!("{name} of signature {number}"), secret.to_secret_bytes().to_vec());
                [plain, (format!("negated {name} of signature {number}"), negated)]
            })
            .collect()
    }
}
