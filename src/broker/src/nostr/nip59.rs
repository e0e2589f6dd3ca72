//! NIP-59: rumor, seal and gift wrap, each layer built and taken apart on its own.
//!
//! ```text
//! build   rumor ──nip44(own, peer)──► seal, kind 13 ──gate signs──► ──nip44(one-time, peer)──► gift wrap, kind 1059
//! open    gift wrap, verified ──nip44(own, its author)──► seal, verified ──nip44(own, its author)──► rumor, checked
//! ```
//! Between two steps the caller asks the ECDH holder for the keys of one nonce, or the gate for a signature.

use core::fmt;

use secp256k1::{Keypair, SecretKey, XOnlyPublicKey, schnorr};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::conversation::Conversation;
use super::incoming::{Broken, Claim};
use super::nip44::{self, MessageKeys, Payload};
use crate::event::{Draft, Texts};
use crate::json::{self, Object};
use crate::reply::hex;

/// The kind of a seal.
pub const SEAL: u16 = 13;
/// The kind of a gift wrap.
pub const GIFT_WRAP: u16 = 1059;
/// Seconds that the times of seal and wrap may lie in the past: two days.
pub const PAST: u32 = 2 * 24 * 60 * 60;

/// Which layer was wrong, and how. The texts are fixed (threat A17); the method's prefix is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an event, or one with a field of another type.
    WrapForm,
    /// Not of kind 1059.
    WrapKind,
    /// Not the hash of what the wrap says.
    WrapId,
    /// Not signed by the key that the wrap names.
    WrapSignature,
    /// The wrap's content.
    Wrap(nip44::Error),
    /// Decrypted, but not an event.
    SealForm,
    /// Not of kind 13.
    SealKind,
    /// Not the hash of what the seal says.
    SealId,
    /// Not signed by the author whom the seal names (A7).
    SealSignature,
    /// The seal's content.
    Seal(nip44::Error),
    /// Decrypted, but not an event.
    RumorForm,
    /// The rumor names another author than the seal (A7, NIP-17).
    RumorAuthor,
    /// Not the hash of what the rumor says.
    RumorId,
    /// The recipient is no point of the curve (BIP-340).
    Recipient,
    /// More than fits into seal or wrap: NIP-44 limits both.
    TooLong,
    /// The random bytes are no key, which no generator that works gives.
    Randomness,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::WrapForm => "the gift wrap is not a signed event",
            Error::WrapKind => "the gift wrap is not of kind 1059",
            Error::WrapId => "the gift wrap's id does not match",
            Error::WrapSignature => "the gift wrap's signature is invalid",
            Error::Wrap(why) => return write!(f, "gift wrap: {why}"),
            Error::SealForm => "the seal is not a signed event",
            Error::SealKind => "the seal is not of kind 13",
            Error::SealId => "the seal's id does not match",
            Error::SealSignature => "the seal's signature is invalid",
            Error::Seal(why) => return write!(f, "seal: {why}"),
            Error::RumorForm => "the rumor is not an event",
            Error::RumorAuthor => "seal and rumor name different authors",
            Error::RumorId => "the rumor's id does not match",
            Error::Recipient => "the recipient is not a valid public key",
            Error::TooLong => "the message is too long for a gift wrap",
            Error::Randomness => "no one-time key",
        })
    }
}

impl std::error::Error for Error {}

/// An unsigned event; wiped when dropped.
pub struct Rumor {
    json: Zeroizing<String>,
    id: [u8; 32],
}

impl Rumor {
    /// The rumor of `author` (64 hex digits) at `created_at`, unless the draft has a time of its own.
    pub fn new(draft: &Draft, author: &str, created_at: u32) -> Rumor {
        let Texts { mut canonical, unsigned, .. } = draft.settle(author, created_at);
        let id = Sha256::digest(&canonical).into();
        canonical.zeroize();
        Rumor::finish(unsigned.into(), id)
    }

    fn finish(unsigned: Zeroizing<String>, id: [u8; 32]) -> Rumor {
        Rumor { json: Zeroizing::new(format!("{},\"id\":\"{}\"}}", *unsigned, hex(&id))), id }
    }

    /// The object: kind, content, tags, created_at, pubkey, id; without a signature, whatever it came with.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Its id.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Whether it fits into a seal, and that into a gift wrap.
    pub fn fits(&self) -> bool {
        let around = plain(SEAL, String::new(), Vec::new()).settle(&hex(&[0; 32]), u32::MAX).unsigned;
        let seal = signed(&around, &[0; 32], &[0; 64]).len() + nip44::payload_length(self.json.len());
        self.json.len() <= nip44::MAX_PLAINTEXT && seal <= nip44::MAX_PLAINTEXT
    }
}

/// A time up to two days before `now`, so that an onlooker cannot tell when a message was sent (NIP-59). `random`: 8 random bytes.
pub fn fuzzed(now: u32, random: u64) -> u32 {
    let back = random % u64::from(PAST);
    now.saturating_sub(back as u32).max(1)
}

/// The seal's texts, for the gate to sign: `keys` are those of author, peer and `nonce`.
pub fn seal(
    rumor: &Rumor,
    author: &str,
    nonce: &[u8; 32],
    keys: &MessageKeys,
    created_at: u32,
) -> Result<Texts, Error> {
    let content = nip44::encrypt(rumor.json(), nonce, keys).map_err(|_| Error::TooLong)?;
    Ok(plain(SEAL, content, Vec::new()).settle(author, created_at))
}

/// A signed event's object: `unsigned` as [`Texts`] has it.
pub fn signed(unsigned: &str, id: &[u8; 32], signature: &[u8; 64]) -> String {
    format!("{unsigned},\"id\":\"{}\",\"sig\":\"{}\"}}", hex(id), hex(signature))
}

/// Random bytes for one gift wrap, each from a generator that nobody can predict; wiped when dropped.
pub struct Random {
    /// The one-time key.
    pub key: Zeroizing<[u8; 32]>,
    /// NIP-44's nonce.
    pub nonce: [u8; 32],
    /// Auxiliary randomness of the signature (BIP-340).
    pub aux: Zeroizing<[u8; 32]>,
}

/// The gift wrap of a signed seal for `recipient` (x-only), as an object: encrypted and signed by a key that is made here and
/// forgotten here.
pub fn wrap(seal: &str, recipient: &[u8; 32], random: &Random, created_at: u32) -> Result<String, Error> {
    let peer = XOnlyPublicKey::from_byte_array(*recipient).map_err(|_| Error::Recipient)?;
    let mut secret = SecretKey::from_secret_bytes(*random.key).map_err(|_| Error::Randomness)?;
    let mut pair = Keypair::from_secret_key(&secret);
    let keys = Conversation::agree(&secret, &peer).message_keys(&random.nonce);
    secret.non_secure_erase();
    let content = nip44::encrypt(seal, &random.nonce, &keys).map_err(|_| Error::TooLong);
    let wrapped = content.map(|content| {
        let author = hex(&pair.x_only_public_key().0.to_byte_array());
        let tags = vec![vec!["p".to_owned(), hex(recipient)]];
        let texts = plain(GIFT_WRAP, content, tags).settle(&author, created_at);
        let id: [u8; 32] = Sha256::digest(&texts.canonical).into();
        let signature = schnorr::sign_with_aux_rand(&id, &pair, &random.aux);
        signed(&texts.unsigned, &id, &signature.to_byte_array())
    });
    pair.non_secure_erase();
    wrapped
}

fn plain(kind: u16, content: String, tags: Vec<Vec<String>>) -> Draft {
    Draft { kind, content, tags, created_at: None, pubkey: None }
}

/// A gift wrap whose id, kind and signature are right; its author is a one-time key.
pub struct GiftWrap {
    author: [u8; 32],
    payload: Payload,
}

impl GiftWrap {
    /// Verifies a gift wrap as it came.
    pub fn verify(event: Object) -> Result<GiftWrap, Error> {
        let claim = Claim::read(event).ok_or(Error::WrapForm)?;
        if claim.kind() != GIFT_WRAP {
            return Err(Error::WrapKind);
        }
        claim.verify().map_err(|broken| match broken {
            Broken::Id => Error::WrapId,
            Broken::Signature => Error::WrapSignature,
        })?;
        let payload = Payload::parse(claim.content()).map_err(Error::Wrap)?;
        Ok(GiftWrap { author: *claim.author(), payload })
    }

    /// The peer to ask the keys for.
    pub fn author(&self) -> &[u8; 32] {
        &self.author
    }

    /// The nonce to ask the keys for.
    pub fn nonce(&self) -> &[u8; 32] {
        self.payload.nonce()
    }

    /// Decrypts and verifies the seal.
    pub fn open(self, keys: &MessageKeys) -> Result<Seal, Error> {
        let text = self.payload.open(keys).map_err(Error::Wrap)?;
        let claim = json::parse(text.as_bytes()).ok().and_then(Claim::read).ok_or(Error::SealForm)?;
        if claim.kind() != SEAL {
            return Err(Error::SealKind);
        }
        claim.verify().map_err(|broken| match broken {
            Broken::Id => Error::SealId,
            Broken::Signature => Error::SealSignature,
        })?;
        let payload = Payload::parse(claim.content()).map_err(Error::Seal)?;
        Ok(Seal { author: *claim.author(), payload })
    }
}

/// A seal whose id, kind and signature are right: its author has written what is in it.
pub struct Seal {
    author: [u8; 32],
    payload: Payload,
}

impl Seal {
    /// Who has written the message, and the peer to ask the keys for.
    pub fn author(&self) -> &[u8; 32] {
        &self.author
    }

    /// The nonce to ask the keys for.
    pub fn nonce(&self) -> &[u8; 32] {
        self.payload.nonce()
    }

    /// Decrypts the rumor and checks that it is the seal's author's and is what its id says; one without an id gets it.
    pub fn open(self, keys: &MessageKeys) -> Result<Rumor, Error> {
        let text = self.payload.open(keys).map_err(Error::Seal)?;
        let claim = json::parse(text.as_bytes()).ok().and_then(Claim::read).ok_or(Error::RumorForm)?;
        if *claim.author() != self.author {
            return Err(Error::RumorAuthor);
        }
        let (unsigned, id) = claim.texts();
        if !claim.names_no_id() && !claim.names_id(&id) {
            return Err(Error::RumorId);
        }
        Ok(Rumor::finish(unsigned, id))
    }
}
