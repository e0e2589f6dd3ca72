//! NIP-44's key agreement for a secret that the broker made itself: the one-time key of a gift wrap.
//!
//! The account's own agreement is the ECDH holder's, which answers the keys of one message and never a conversation's.

use hkdf::Hkdf;
use secp256k1::{Parity, PublicKey, SecretKey, XOnlyPublicKey, ecdh};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::nip44::{KEYS, MessageKeys};

/// What two parties share for ever: it opens their whole history, so it is never made for an account's key. Wiped when dropped.
pub struct Conversation(Zeroizing<[u8; 32]>);

impl Conversation {
    /// HKDF-extract (RFC 5869) of the shared point's x, with the salt `nip44-v2`. Public keys are x-only: y is the even one (BIP-340).
    pub fn agree(secret: &SecretKey, peer: &XOnlyPublicKey) -> Conversation {
        let mut point = ecdh::shared_secret_point(&PublicKey::from_x_only_public_key(*peer, Parity::Even), secret);
        let (mut key, _) = Hkdf::<Sha256>::extract(Some(b"nip44-v2"), &point[..32]);
        point.zeroize();
        let conversation = Conversation(Zeroizing::new(key.into()));
        key.as_mut_slice().zeroize();
        conversation
    }

    /// A key that was agreed on elsewhere.
    pub fn from_bytes(key: Zeroizing<[u8; 32]>) -> Conversation {
        Conversation(key)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// HKDF-expand with the message's nonce.
    pub fn message_keys(&self, nonce: &[u8; 32]) -> MessageKeys {
        let mut keys = Box::new(Zeroizing::new([0; KEYS]));
        let expanded = Hkdf::<Sha256>::from_prk(&*self.0).map(|hkdf| hkdf.expand(nonce, &mut **keys));
        expanded.expect("a key of a hash's size").expect("less than 255 hashes are asked for");
        MessageKeys::new(keys)
    }
}
