//! One signature, verified before it may leave: the only unsafe code of this crate.

use crate::FAULT;
use nsecd_vault::Data;
use secp256k1_sys as ffi;

/// The key-holder's part of the data page.
#[repr(C)]
pub struct Buffers {
    /// Auxiliary randomness (BIP-340): a hash ratchet, seeded once.
    pub ratchet: [u8; 32],
    aux: [u8; 32],
    /// One byte more than an id, to notice a longer packet.
    pub request: [u8; 33],
    /// id ‖ status ‖ signature.
    pub reply: [u8; 97],
}

impl Buffers {
    /// Nothing yet.
    pub const EMPTY: Buffers = Buffers { ratchet: [0; 32], aux: [0; 32], request: [0; 33], reply: [0; 97] };
}

/// Signs the first 32 bytes of the request; zeros for a signature that fails its own verification (BIP-340 asks for it: a fault
/// must not leak the key). Whether there is a signature.
pub extern "C" fn sign(data: &mut Data<Buffers>) -> bool {
    let context = data.context();
    let Buffers { ratchet, aux, request, reply } = &mut data.role;
    let state = *ratchet;
    tagged_hash(context, b"nsecd/ratchet", &state, ratchet);
    tagged_hash(context, b"nsecd/aux", &state, aux);
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

/// SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ message), as BIP-340 defines it.
fn tagged_hash(context: *mut ffi::Context, tag: &[u8], message: &[u8; 32], hash: &mut [u8; 32]) {
    let (hash, length) = (hash.as_mut_ptr(), message.len());
    // SAFETY: the context is the vault's; pointers and lengths are those of live slices; the output holds 32 bytes.
    unsafe { ffi::secp256k1_tagged_sha256(context, hash, tag.as_ptr(), tag.len(), message.as_ptr(), length) };
}
