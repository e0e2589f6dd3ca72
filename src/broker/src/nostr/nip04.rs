//! NIP-04: AES-256-CBC under the shared point's x, unauthenticated; kept for clients that know nothing newer.
//!
//! Form: `<base64 of the ciphertext>?iv=<base64 of 16 bytes>`. Nothing proves that a message is whole or from whom it is.

use core::fmt;

use aes::Aes256;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use zeroize::Zeroizing;

const BLOCK: usize = 16;

/// Why a message is refused, in fixed texts (threat A17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not the two base64 parts, or parts of impossible sizes.
    Form,
    /// Wrong padding or no UTF-8 under this key: one error for both, since the difference would tell of the plaintext.
    Undecryptable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Form => "ciphertext must be base64, '?iv=' and 16 bytes in base64",
            Error::Undecryptable => "cannot be decrypted with this peer's key",
        })
    }
}

impl std::error::Error for Error {}

/// Encrypts under `key`, the shared point's x, with a random `iv`.
pub fn encrypt(plaintext: &str, iv: &[u8; BLOCK], key: &[u8; 32]) -> String {
    let length = plaintext.len();
    let mut blocks = Zeroizing::new(vec![0; (length / BLOCK + 1) * BLOCK]);
    blocks[..length].copy_from_slice(plaintext.as_bytes());
    let cipher = cbc::Encryptor::<Aes256>::new(key.into(), iv.into());
    cipher.encrypt_padded::<Pkcs7>(&mut blocks, length).expect("the last block has room for the padding");
    format!("{}?iv={}", STANDARD.encode(&*blocks), STANDARD.encode(iv))
}

/// A message whose form is right.
pub struct Message {
    iv: [u8; BLOCK],
    ciphertext: Vec<u8>,
}

impl Message {
    /// Takes a message apart.
    pub fn parse(message: &str) -> Result<Message, Error> {
        let (ciphertext, iv) = message.split_once("?iv=").ok_or(Error::Form)?;
        let decode = |part: &str| STANDARD.decode(part).map_err(|_| Error::Form);
        let (ciphertext, iv) = (decode(ciphertext)?, decode(iv)?);
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
            return Err(Error::Form);
        }
        Ok(Message { iv: iv.try_into().map_err(|_| Error::Form)?, ciphertext })
    }

    /// The text under `key`, the shared point's x.
    pub fn open(self, key: &[u8; 32]) -> Result<Zeroizing<String>, Error> {
        let mut blocks = Zeroizing::new(self.ciphertext);
        let cipher = cbc::Decryptor::<Aes256>::new(key.into(), (&self.iv).into());
        let text = cipher.decrypt_padded::<Pkcs7>(&mut blocks).map_err(|_| Error::Undecryptable)?;
        core::str::from_utf8(text).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| Error::Undecryptable)
    }
}
