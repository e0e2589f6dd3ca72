//! The key agreement, on the secret stack: the only unsafe code of this crate.

use crate::NIP04;
use core::ffi::{c_int, c_uchar, c_void};
use hmac::{Hmac, KeyInit, Mac};
use nsecd_vault::Data;
use secp256k1_sys as ffi;
use sha2::Sha256;

/// Bytes of a request: op ‖ public key ‖ nonce.
pub const REQUEST: usize = 65;
/// Bytes of a reply: the request ‖ status ‖ key.
pub const REPLY: usize = REQUEST + 1 + 76;

/// The ECDH holder's part of the data page.
#[repr(C)]
pub struct Buffers {
    /// One byte more than a request, to notice a longer packet.
    pub request: [u8; REQUEST + 1],
    /// As it is sent; the key is made in it.
    pub reply: [u8; REPLY],
    /// The peer's point, parsed.
    peer: [u8; 64],
}

impl Buffers {
    /// Nothing yet.
    pub const EMPTY: Buffers = Buffers { request: [0; REQUEST + 1], reply: [0; REPLY], peer: [0; 64] };

    /// Op and public key.
    pub fn asked(&self) -> (u8, [u8; 32]) {
        let mut peer = [0; 32];
        peer.copy_from_slice(&self.request[1..33]);
        (self.request[0], peer)
    }

    /// Completes the reply: what was asked, if it was a request at all, and how it ended.
    pub fn finish(&mut self, whole: bool, status: u8) {
        if whole {
            self.reply[..REQUEST].copy_from_slice(&self.request[..REQUEST]);
        }
        self.reply[REQUEST] = status;
    }
}

/// Parses the public key that was asked for; false where it is none. Of the two points with this x the one with even y is
/// taken (BIP-340): the shared x is the same for both.
pub extern "C" fn parse(data: &mut Data<Buffers>) -> bool {
    let mut compressed = [2; 33];
    compressed[1..].copy_from_slice(&data.role.request[1..33]);
    let context = data.context();
    // SAFETY: libsecp256k1 gets its live context, a room of its public key's 64 bytes, and 33 readable bytes.
    unsafe { ffi::secp256k1_ec_pubkey_parse(context, data.role.peer.as_mut_ptr().cast(), compressed.as_ptr(), 33) == 1 }
}

/// Puts the key that was asked for into the reply: x itself for NIP-04, else the message keys of NIP-44; false, and no key, where that fails.
pub extern "C" fn agree(data: &mut Data<Buffers>) -> bool {
    let context = data.context();
    let (mut secret, mut x) = ([0; 32], [0; 32]);
    let Buffers { request, reply, peer } = &mut data.role;
    // SAFETY: libsecp256k1 gets its live context, the parsed point in a room of its size, and pointers to 32 bytes each;
    // `copy_x` writes 32 bytes.
    let agreed = unsafe {
        let (point, none) = (peer.as_ptr().cast(), core::ptr::null_mut());
        ffi::secp256k1_keypair_sec(context, secret.as_mut_ptr(), &data.keypair) == 1
            && ffi::secp256k1_ecdh(context, x.as_mut_ptr(), point, secret.as_ptr(), Some(copy_x), none) == 1
    };
    if !agreed {
        return false;
    }
    let key = &mut reply[REQUEST + 1..];
    if request[0] == NIP04 {
        key[..32].copy_from_slice(&x);
        return true;
    }
    // HKDF (RFC 5869) with SHA-256: extract with the salt, then expand with the nonce, three blocks cut to 76 bytes.
    let conversation = hmac(b"nip44-v2", &[&x]);
    let (mut block, mut before) = ([0; 32], 0);
    for (i, part) in key.chunks_mut(32).enumerate() {
        block = hmac(&conversation, &[&block[..before], &request[33..REQUEST], &[i as u8 + 1]]);
        part.copy_from_slice(&block[..part.len()]);
        before = 32;
    }
    true
}

/// HMAC-SHA256 (RFC 2104) of the parts one after another. A key is padded with zeros to the hash's block.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// libsecp256k1 would hash the shared point; both NIPs take its x as it is.
///
/// # Safety
/// `output` and `x` must point to 32 bytes each, as libsecp256k1 calls it.
unsafe extern "C" fn copy_x(output: *mut c_uchar, x: *const c_uchar, _: *const c_uchar, _: *mut c_void) -> c_int {
    // SAFETY: the caller's promise; they do not overlap.
    unsafe { output.copy_from_nonoverlapping(x, 32) };
    1
}

#[cfg(test)]
mod tests;
