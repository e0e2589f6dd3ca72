//! One signature, verified before it may leave: the only unsafe code of this crate.

use crate::FAULT;
use nsecd_vault::Data;
use secp256k1_sys as ffi;

/// The key-holder's part of the data page.
#[repr(C)]
pub struct Buffers {
    /// Auxiliary randomness (BIP-340): secret, drawn once, and another number for each signature.
    pub aux: [u8; 32],
    /// One byte more than an id, to notice a longer packet.
    pub request: [u8; 33],
    /// id ‖ status ‖ signature.
    pub reply: [u8; 97],
}

impl Buffers {
    /// Nothing yet.
    pub const EMPTY: Buffers = Buffers { aux: [0; 32], request: [0; 33], reply: [0; 97] };
}

/// Signs the first 32 bytes of the request; zeros for a signature that fails its own verification (BIP-340 asks for it: a fault
/// must not leak the key). Whether there is a signature.
pub extern "C" fn sign(data: &mut Data<Buffers>) -> bool {
    let context = data.context();
    let Buffers { aux, request, reply } = &mut data.role;
    next(aux);
    let (id, rest) = reply.split_at_mut(32);
    id.copy_from_slice(&request[..32]);
    let (status, signature) = rest.split_at_mut(1);
    // SAFETY: libsecp256k1 gets its live context and pointers to live fields of the sizes it documents.
    let good = unsafe {
        ffi::secp256k1_schnorrsig_sign32(context, signature.as_mut_ptr(), id.as_ptr(), &data.keypair, aux.as_ptr()) == 1
            && ffi::secp256k1_schnorrsig_verify(context, signature.as_ptr(), id.as_ptr(), 32, &data.public) == 1
    };
    status[0] = if good { 0 } else { FAULT };
    if !good {
        signature.fill(0);
    }
    good
}

/// Adds one. libsecp256k1 hashes it before the key or a nonce meets it (BIP-340), so numbers in a row are as good as drawn ones to
/// whoever does not know the first.
fn next(aux: &mut [u8; 32]) {
    if let Some(number) = aux.first_chunk_mut() {
        *number = u64::from_ne_bytes(*number).wrapping_add(1).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests;
