//! An event that came from outside: strict types, then its id, then its signature (NIP-01).

use secp256k1::{XOnlyPublicKey, schnorr};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::unhex;
use crate::event::{Draft, Texts};
use crate::json::{Object, Value};
use crate::reply::hex;

/// What an object says of itself; wiped when dropped, since it may be decrypted text.
pub struct Claim {
    /// Kind, content, tags; created_at and public key are there.
    draft: Draft,
    author: [u8; 32],
    created_at: u32,
    id: Option<[u8; 32]>,
    signature: Option<[u8; 64]>,
}

/// What is wrong with an event whose types are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The id is not there or not the hash of the content.
    Id,
    /// The signature is not there or not the author's.
    Signature,
}

impl Claim {
    /// Reads an event's fields; `None` where one that every event has is missing or of another type. An id must be one if it is
    /// there. Whatever stands in `sig` is read where it is a signature and else as none: a rumor's is of no meaning (NIP-59).
    pub fn read(mut object: Object) -> Option<Claim> {
        // Draft takes absent tags for none and no time for now, as a request may have them; an event may not.
        matches!(object.get("tags"), Some(Value::Array(_))).then_some(())?;
        let id = match object.take("id") {
            None => None,
            Some(Value::String(id)) => Some(unhex(&id)?),
            Some(_) => return None,
        };
        let signature = match object.take("sig") {
            Some(Value::String(signature)) => unhex(&signature),
            _ => None,
        };
        let draft = Draft::from_params(&mut object).ok()?;
        let author = unhex(draft.pubkey.as_deref()?)?;
        Some(Claim { created_at: draft.created_at?, draft, author, id, signature })
    }

    /// The x-only public key that it names.
    pub fn author(&self) -> &[u8; 32] {
        &self.author
    }

    /// The kind.
    pub fn kind(&self) -> u16 {
        self.draft.kind
    }

    /// The content.
    pub fn content(&self) -> &str {
        &self.draft.content
    }

    /// Both texts and the id that follows from them.
    pub fn texts(&self) -> (Zeroizing<String>, [u8; 32]) {
        let Texts { mut canonical, unsigned, .. } = self.draft.settle(&hex(&self.author), self.created_at);
        let id = Sha256::digest(&canonical).into();
        canonical.zeroize();
        (Zeroizing::new(unsigned), id)
    }

    /// Whether it names no id, as a rumor may.
    pub fn names_no_id(&self) -> bool {
        self.id.is_none()
    }

    /// Whether the id that it names is `id`.
    pub fn names_id(&self, id: &[u8; 32]) -> bool {
        self.id.as_ref() == Some(id)
    }

    /// Recomputes the id and verifies the author's signature of it (BIP-340).
    pub fn verify(&self) -> Result<(), Broken> {
        let (_, id) = self.texts();
        if !self.names_id(&id) {
            return Err(Broken::Id);
        }
        let signature = schnorr::Signature::from_byte_array(self.signature.ok_or(Broken::Signature)?);
        let author = XOnlyPublicKey::from_byte_array(self.author).map_err(|_| Broken::Signature)?;
        schnorr::verify(&signature, &id, &author).map_err(|_| Broken::Signature)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.draft.content.zeroize();
        self.draft.tags.iter_mut().flatten().for_each(Zeroize::zeroize);
    }
}
